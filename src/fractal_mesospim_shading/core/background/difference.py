"""Difference of filters: a small filter against noise minus a big one as background."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from fractal_mesospim_shading.core.background.contract import (
    MOST_PX,
    BackgroundMethod,
    BackgroundResult,
    Marks,
)
from fractal_mesospim_shading.core.background.filters import convolved, kernel_half_width
from fractal_mesospim_shading.core.background.gaussian import local_mean
from fractal_mesospim_shading.core.background.inputs import check_radius, is_number, shown
from fractal_mesospim_shading.core.background.median import sliding_median
from fractal_mesospim_shading.errors import BackgroundError

FilterName = Literal["median", "gaussian", "mean"]


class DifferenceOfFiltersModel(BackgroundMethod):
    """Small filter minus big filter."""

    model_config = ConfigDict(title="Difference of filters")
    arguments: ClassVar = ("small_radius_px", "big_radius_px", "filter")
    short: ClassVar = "big_radius"
    denoises: ClassVar = True

    method: Literal["difference_of_filters"] = "difference_of_filters"
    small_radius: float | None = Field(
        default=2.0, gt=0, description="Of the filter against noise; unset for none."
    )
    big_radius: float = Field(
        default=25.0, gt=0, description="Of the filter that gives the background."
    )
    filter: FilterName = Field(default="median", description="The filter, for both radii.")

    @property
    def title(self) -> str:
        return f"{self.spoken_name}, radii {self.small_radius:g} and {self.big_radius:g} px"

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        return 1.0, float(max(side_px, MOST_PX if self.filter == "gaussian" else 0))

    @property
    def bytes_a_pixel(self) -> int:
        return 50

    @property
    def halo_px(self) -> int | None:
        if self.filter == "gaussian":
            return kernel_half_width(self.big_radius)
        return int(self.big_radius)

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        self._check_radii()
        result = super().background(image, mask, coverage)
        if self.small_radius is None or not result.estimated:
            return result
        # Objects are what is to be kept: only pixels without data stay out here.
        usable = self.usable(image, None, coverage)
        small = partial(filtered, radius_px=self.small_radius, filter=self.filter)
        denoised = self.estimated_where_usable(small, *usable)
        return replace(result, denoised=denoised.background)

    def estimate(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[Any]:
        return filtered(values, ignored, self.big_radius, self.filter)

    def _check_radii(self) -> None:
        """Refuse radii below 1, and a small one that is not smaller than the big one."""
        small, big = self.small_radius, self.big_radius
        check_radius(big, "The big radius")
        if small is not None and not (is_number(small) and 1 <= small < big):
            raise BackgroundError(
                f"The small radius is {shown(small)} px, the big one {big}; "
                "expected 1 <= small < big, or no small filter."
            )


def filtered(
    image: NDArray[Any], ignored: NDArray[np.bool_] | None, radius_px: float, filter: FilterName
) -> NDArray[np.float32]:
    """A plane after one filter; the median is exact.

    Args:
        image: (y, x).
        ignored: pixels that do not enter.
        radius_px: of the disk of the median, of the Gaussian (2 sigma), or of the
            square of the mean (whole pixels).
        filter: which one.

    Raises:
        BackgroundError: for a radius below 1.
    """
    if filter == "median":
        return sliding_median(image, ignored, radius_px)
    if filter == "gaussian":
        return local_mean(image, ignored, radius_px)
    side = 2 * int(radius_px) + 1
    kernel = np.full(side, 1 / side)
    return convolved(image, ignored, kernel, kernel)
