"""Local mean, difference of filters, and constant as parameters that can estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.contract import (
    MOST_RADIUS_PX,
    Array,
    BackgroundResult,
    Marks,
    Planewise,
    estimated_where_usable,
)
from fractal_mesospim_shading.core.background.difference import (
    FilterName,
    check_radii,
    difference_background,
    filtered,
)
from fractal_mesospim_shading.core.background.wide import constant_plane

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.background.gaussian import NoiseFactor

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Gaussian(Planewise):
    """Gaussian local mean; see `gaussian_background`."""

    radius_px: float | tuple[float, float] = 7.0
    radius_z_px: float | None = None

    name: ClassVar[str] = "gaussian"

    @property
    def largest_radius_px(self) -> float:
        return float(np.max(self.radius_px))

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        return 1.0, max(float(side_px), MOST_RADIUS_PX)

    @property
    def halo_px(self) -> int | None:
        from fractal_mesospim_shading.core.background.gaussian import kernel_half_width

        return kernel_half_width(self.largest_radius_px)

    @property
    def depth_px(self) -> int:
        from fractal_mesospim_shading.core.background.gaussian import kernel_half_width

        # At least 1, so that a z radius always means a stack.
        return 0 if self.radius_z_px is None else max(kernel_half_width(self.radius_z_px), 1)

    @property
    def noise_factor(self) -> NoiseFactor:
        """The `NoiseFactor` of image - background against the image."""
        from fractal_mesospim_shading.core.background.gaussian import noise_factor

        return noise_factor(self.radius_px, self.radius_z_px)

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        from fractal_mesospim_shading.core.background.gaussian import gaussian_background

        def estimate(values: NDArray[Any], ignored: Bool | None) -> Array:
            return gaussian_background(values, ignored, **self.__dict__)

        return estimated_where_usable(image, mask, coverage, self.depth_px, estimate)


@dataclass(frozen=True)
class DifferenceOfFilters(Planewise):
    """Small filter minus big filter; see `difference_of_filters`.

    The result carries the small filter's image as `denoised`.
    """

    small_radius_px: float | None = 2.0
    big_radius_px: float = 25.0
    filter: FilterName = "median"

    name: ClassVar[str] = "difference_of_filters"

    @property
    def largest_radius_px(self) -> float:
        return self.big_radius_px

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        return 1.0, max(float(side_px), MOST_RADIUS_PX if self.filter == "gaussian" else 0.0)

    @property
    def halo_px(self) -> int | None:
        from fractal_mesospim_shading.core.background.gaussian import kernel_half_width

        if self.filter == "gaussian":
            return kernel_half_width(self.big_radius_px)
        return int(self.big_radius_px)

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        small = self.small_radius_px
        check_radii(small, self.big_radius_px)

        def big_filter(values: NDArray[Any], ignored: Bool | None) -> Array:
            return difference_background(
                values, ignored, big_radius_px=self.big_radius_px, filter=self.filter
            )

        result = estimated_where_usable(image, mask, coverage, 0, big_filter)
        if small is None or not result.estimated:
            return result

        def small_filter(values: NDArray[Any], ignored: Bool | None) -> Array:
            return filtered(values, ignored, small, self.filter)

        # Objects are what is to be kept: only pixels without data stay out here.
        denoised = estimated_where_usable(image, None, coverage, 0, small_filter)
        return replace(result, denoised=denoised.background)


@dataclass(frozen=True)
class Constant(Planewise):
    """One number of counts everywhere; without a number, the median of the plane."""

    value: float | None = None

    name: ClassVar[str] = "constant"

    @property
    def largest_radius_px(self) -> float:
        return 1.0

    @property
    def halo_px(self) -> int | None:
        return None if self.value is None else 0

    def background(
        self, image: NDArray[Any], mask: Marks = None, coverage: Marks = None
    ) -> BackgroundResult:
        def estimate(values: NDArray[Any], ignored: Bool | None) -> NDArray[Any]:
            usable = values if ignored is None else values[~ignored]
            value = float(np.median(usable)) if self.value is None else self.value
            return constant_plane(values.shape, value)

        return estimated_where_usable(image, mask, coverage, 0, estimate, in_float32=False)
