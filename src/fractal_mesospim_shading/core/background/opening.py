"""Morphological opening; image minus opening is the top-hat.

J. Serra, "Image Analysis and Mathematical Morphology", Academic Press, 1982.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from fractal_mesospim_shading.core.background.contract import MOST_PX, BackgroundMethod
from fractal_mesospim_shading.core.background.filters import (
    Shape,
    convolved_locally,
    footprint,
    gaussian_kernel,
    half_size,
    kernel_half_width,
    row_half_widths,
)
from fractal_mesospim_shading.core.background.inputs import check_z_radius
from fractal_mesospim_shading.core.background.masks import as_float32
from fractal_mesospim_shading.core.background.nearest import FromNeighbourhoods, LocalEstimate
from fractal_mesospim_shading.core.kernel_cache import kernel

Filter = Callable[[NDArray[Any]], NDArray[Any]]

_SMALL_DISK_ROWS = 13
"""OpenCV is faster for disks with up to this many rows; the results are equal."""


class OpeningModel(FromNeighbourhoods, BackgroundMethod):
    """Morphological opening; what it leaves is the white top-hat."""

    model_config = ConfigDict(title="Opening (top-hat)")
    arguments: ClassVar = (
        "radius_px",
        "shape",
        "smoothing_sigma_px",
        "light_background",
        "radius_z_px",
    )
    follows_extremes: ClassVar = True

    method: Literal["opening"] = "opening"
    radius: float = Field(
        default=25.0, gt=0, description="Radius of the neighbourhood; larger than the objects."
    )
    shape: Shape = Field(
        default="disk",
        description="Of the neighbourhood; imagej_disk is the slightly larger one of ImageJ.",
    )
    smoothing_sigma: float = Field(
        default=2.0,
        ge=0,
        description="Gaussian smoothing first. Without it, the opening follows the darkest noise "
        "and lies several standard deviations too low.",
    )
    radius_z_planes: int | None = Field(
        default=None, ge=1, le=MOST_PX, description="Also over so many planes up and down."
    )

    @property
    def bytes_a_pixel(self) -> int:
        return 31

    @property
    def halo_px(self) -> int | None:
        reach = half_size(self.radius, self.shape)
        return 2 * reach + kernel_half_width(2 * self.smoothing_sigma)

    @property
    def depth_px(self) -> int:
        return 2 * (self.radius_z_planes or 0)

    def estimate(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[Any]:
        return self.local(values, ignored).filled()

    def local(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> LocalEstimate:
        element = _Element(self.radius, self.shape, self.radius_z_planes)
        ordered = _ordered(values, ignored, self.smoothing_sigma)
        return opened(ordered, ignored, element, light_background=self.light_background)


def opened(
    values: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    element: _Element,
    *,
    light_background: bool,
) -> LocalEstimate:
    """The largest minimum of a neighbourhood that reaches the pixel.

    Without smoothing first the result follows the darkest noise: 63 counts too low for noise of
    18; a sigma of 2 leaves 7.

    Args:
        values: (y, x), or (z, y, x) for a neighbourhood in three dimensions; uint8, uint16 or
            float32.
        ignored: same shape; pixels that do not count, or None.
        element: larger than the largest object; objects that hold the whole
            neighbourhood stay in the background.
        light_background: dark objects on a bright background: a closing.

    Returns:
        The image's shape. Pixels beyond the edge are ignored.
    """
    import cv2

    if ignored is None and element.footprint is not None and values.ndim == 2:
        # Both steps in one call save a plane of memory, which matters where it is quick.
        step = cv2.MORPH_CLOSE if light_background else cv2.MORPH_OPEN
        done = cv2.morphologyEx(values, step, element.footprint)
        return LocalEstimate(np.asarray(done, np.float32))
    first, second = element.smallest, element.largest
    if light_background:
        first, second = second, first
    if ignored is None:
        return LocalEstimate(second(first(values)).astype(np.float32))
    return _opened_with_mask(values, ignored, first, second, element)


def _opened_with_mask(
    values: NDArray[Any],
    ignored: NDArray[np.bool_],
    first: Filter,
    second: Filter,
    element: _Element,
) -> LocalEstimate:
    highest, lowest = _ends(values.dtype)
    never_first, never_second = highest, lowest
    if first == element.largest:
        never_first, never_second = lowest, highest
    inner = first(np.where(ignored, never_first, values))
    supported = element.largest((~ignored).view(np.uint8))
    result = second(np.where(supported != 0, inner, never_second)).astype(np.float32)
    return LocalEstimate.of(result, element.largest(supported) == 0)


class _Element:
    """A neighbourhood, and the smallest and largest value in it.

    In three dimensions it is a cylinder, `radius_z_px` planes to each side.
    """

    def __init__(self, radius_px: float, shape: Shape, radius_z_px: int | None) -> None:
        check_z_radius(radius_z_px)
        self.widths = row_half_widths(radius_px, shape)
        self.radius_z_px = radius_z_px
        by_opencv = shape == "square" or self.widths.size <= _SMALL_DISK_ROWS
        self.footprint = footprint(radius_px, shape) if by_opencv else None

    def smallest(self, values: NDArray[Any]) -> NDArray[Any]:
        return self._filtered(values, smallest=True)

    def largest(self, values: NDArray[Any]) -> NDArray[Any]:
        return self._filtered(values, smallest=False)

    def _filtered(self, values: NDArray[Any], *, smallest: bool) -> NDArray[Any]:
        if values.ndim == 2:
            return self._plane(values, smallest)
        from scipy.ndimage import maximum_filter1d, minimum_filter1d

        planes = np.stack([self._plane(plane, smallest) for plane in values])
        along_z = minimum_filter1d if smallest else maximum_filter1d
        # Repeating the outer planes is the same as ignoring what lies beyond.
        size = 2 * (self.radius_z_px or 0) + 1
        return np.asarray(along_z(planes, size, axis=0, mode="nearest"))

    def _plane(self, plane: NDArray[Any], smallest: bool) -> NDArray[Any]:
        if self.footprint is None:
            return _eroded(plane, self.widths) if smallest else _dilated(plane, self.widths)
        import cv2

        rank = cv2.erode if smallest else cv2.dilate
        return np.asarray(rank(plane, self.footprint))


def _ordered(
    image: NDArray[Any], ignored: NDArray[np.bool_] | None, sigma_px: float
) -> NDArray[Any]:
    """The image, smoothed if asked for, in a type whose morphology is fast."""
    if sigma_px > 0:
        smooth = gaussian_kernel(sigma_px)
        # What no neighbour gives a number is an ignored pixel itself, and is asked by nobody.
        return convolved_locally(image, ignored, smooth, smooth).numbers
    if image.dtype in (np.uint8, np.uint16, np.float32):
        return np.ascontiguousarray(image)
    return as_float32(image)


def _ends(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    limits: Any = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    return dtype.type(limits.max), dtype.type(limits.min)


def _eroded(plane: NDArray[Any], widths: NDArray[np.int64]) -> NDArray[Any]:
    """The smallest value of the neighbourhood of every pixel; pixels outside are ignored.

    Args:
        plane: (y, x), contiguous; unsigned integers or float32.
        widths: half width of each row of the neighbourhood, from the top; odd length,
            the same from the bottom.
    """
    order = np.argsort(widths, kind="stable")
    highest = np.inf if plane.dtype.kind == "f" else np.iinfo(plane.dtype).max
    result = np.full_like(plane, highest)
    _erode(plane, widths[order], order - widths.size // 2, result)
    return result


def _dilated(plane: NDArray[Any], widths: NDArray[np.int64]) -> NDArray[Any]:
    """The largest value of the neighbourhood of every pixel; arguments as `eroded`."""
    if plane.dtype.kind == "f":
        return np.asarray(-_eroded(-plane, widths))
    return np.asarray(~_eroded(~plane, widths))


@kernel
def _erode(plane, widths, shifts, result):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    last = width - 1
    runs, wider = np.empty_like(plane[0]), np.empty_like(plane[0])
    for y in range(height):
        runs[:] = plane[y]
        reach = 0
        for j in range(widths.size):
            while reach < widths[j]:
                if reach == 0:
                    _lowest_of_three(runs, wider)
                else:
                    for x in range(1, last):
                        left, right = runs[x - 1], runs[x + 1]
                        wider[x] = left if left < right else right
                    wider[0], wider[last] = runs[min(1, last)], runs[max(last - 1, 0)]
                runs, wider = wider, runs
                reach += 1
            at = y - shifts[j]
            if 0 <= at < height:
                target = result[at]
                for x in range(width):
                    here, new = target[x], runs[x]
                    target[x] = new if new < here else here


@kernel
def _lowest_of_three(row, result):  # type: ignore[no-untyped-def]
    last = row.size - 1
    for x in range(row.size):
        left, here, right = row[max(x - 1, 0)], row[x], row[min(x + 1, last)]
        here = left if left < here else here
        result[x] = right if right < here else here
