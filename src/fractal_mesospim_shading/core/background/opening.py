"""Morphological opening; image minus opening is the top-hat.

J. Serra, "Image Analysis and Mathematical Morphology", Academic Press, 1982.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.disk_erosion import dilated, eroded
from fractal_mesospim_shading.core.background.footprints import Shape, footprint, row_half_widths
from fractal_mesospim_shading.core.background.gaussian import gaussian_smoothed
from fractal_mesospim_shading.core.background.inputs import image_and_mask
from fractal_mesospim_shading.core.background.masks import (
    as_float32,
    checked_mask,
    fill_from_nearest,
)
from fractal_mesospim_shading.core.background.parameter_checks import check_z_radius

# OpenCV is faster for disks with up to this many rows; the results are equal.
_SMALL_DISK_ROWS = 13


def opening_background(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    radius_px: float = 25.0,
    shape: Shape = "disk",
    smoothing_sigma_px: float = 0.0,
    light_background: bool = False,
    radius_z_px: int | None = None,
) -> NDArray[np.float32]:
    """The largest minimum of a neighbourhood that reaches the pixel.

    Args:
        image: (y, x), or (z, y, x) if `radius_z_px` is given.
        mask: same shape; nonzero pixels are ignored.
        radius_px: larger than the largest object; objects that hold the whole
            neighbourhood stay in the background.
        shape: see `footprints.row_half_widths`.
        smoothing_sigma_px: Gaussian smoothing first. Without it the result follows
            the darkest noise: 63 counts too low for noise of 18; sigma 2 leaves 7.
        light_background: dark objects on a bright background: a closing.
        radius_z_px: planes to each side for a neighbourhood in three dimensions, a
            cylinder of that height.

    Returns:
        float32 of the image's shape. Pixels beyond the edge are ignored.

    Raises:
        BackgroundError: for a radius below 1 or a mask of another shape.
    """
    import cv2

    element = _Element(radius_px, shape, radius_z_px)
    image, mask = image_and_mask(image, mask, deep=radius_z_px is not None)
    ignored = checked_mask(image, mask)
    if ignored is not None and ignored.all():
        return np.zeros(image.shape, np.float32)
    values = _ordered(image, ignored, smoothing_sigma_px)
    if ignored is None and element.footprint is not None and values.ndim == 2:
        # Both steps in one call save a plane of memory, which matters where it is quick.
        step = cv2.MORPH_CLOSE if light_background else cv2.MORPH_OPEN
        return np.asarray(cv2.morphologyEx(values, step, element.footprint), np.float32)
    first, second = element.smallest, element.largest
    if light_background:
        first, second = second, first
    if ignored is None:
        return second(first(values)).astype(np.float32)
    return _opened_with_mask(values, ignored, first, second, element)


Filter = Callable[[NDArray[Any]], NDArray[Any]]


def _opened_with_mask(
    values: NDArray[Any],
    ignored: NDArray[np.bool_],
    first: Filter,
    second: Filter,
    element: _Element,
) -> NDArray[np.float32]:
    highest, lowest = _ends(values.dtype)
    never_first, never_second = highest, lowest
    if first == element.largest:
        never_first, never_second = lowest, highest
    inner = first(np.where(ignored, never_first, values))
    supported = element.largest((~ignored).view(np.uint8))
    result = second(np.where(supported != 0, inner, never_second)).astype(np.float32)
    reached = element.largest(supported) != 0
    return result if reached.all() else fill_from_nearest(result, ~reached)


class _Element:
    """A neighbourhood, and the smallest and largest value in it."""

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
        planes = values.reshape(-1, *values.shape[-2:])
        filtered: NDArray[Any] = np.stack([self._plane(plane, smallest) for plane in planes])
        result: NDArray[Any] = filtered.reshape(values.shape)
        if self.radius_z_px is None:
            return result
        from scipy.ndimage import maximum_filter1d, minimum_filter1d

        along_z = minimum_filter1d if smallest else maximum_filter1d
        # Repeating the outer planes is the same as ignoring what lies beyond.
        size = 2 * self.radius_z_px + 1
        return np.asarray(along_z(result, size, axis=0, mode="nearest"))

    def _plane(self, plane: NDArray[Any], smallest: bool) -> NDArray[Any]:
        if self.footprint is None:
            return eroded(plane, self.widths) if smallest else dilated(plane, self.widths)
        import cv2

        rank = cv2.erode if smallest else cv2.dilate
        return np.asarray(rank(plane, self.footprint))


def _ordered(
    image: NDArray[Any], ignored: NDArray[np.bool_] | None, sigma_px: float
) -> NDArray[Any]:
    """The image, smoothed if asked for, in a type whose morphology is fast."""
    if sigma_px > 0:
        return gaussian_smoothed(image, ignored, sigma_px)
    if image.dtype in (np.uint8, np.uint16, np.float32):
        return np.ascontiguousarray(image)
    return as_float32(image)


def _ends(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    limits: Any = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    return dtype.type(limits.max), dtype.type(limits.min)
