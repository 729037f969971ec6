"""Morphological opening; image minus opening is the top-hat.

J. Serra, "Image Analysis and Mathematical Morphology", Academic Press, 1982.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.footprints import Shape, footprint
from fractal_mesospim_shading.core.background.gaussian import gaussian_smoothed
from fractal_mesospim_shading.core.background.masks import checked_mask, fill_from_nearest
from fractal_mesospim_shading.errors import BackgroundError

Any2D = NDArray[Any]


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

    element = footprint(radius_px, shape)
    if radius_z_px is not None and radius_z_px < 1:
        raise BackgroundError(f"The z radius is {radius_z_px} planes; expected 1 or more.")
    ignored = checked_mask(image, mask)
    if ignored is not None and ignored.all():
        return np.zeros(image.shape, np.float32)
    values = _morphology_type(image, ignored, smoothing_sigma_px)
    first, second = (cv2.dilate, cv2.erode) if light_background else (cv2.erode, cv2.dilate)
    highest, lowest = _ends(values.dtype)
    never_first, never_second = (lowest, highest) if light_background else (highest, lowest)
    if ignored is not None:
        values = np.where(ignored, values.dtype.type(never_first), values)
    inner = _filtered(values, first, element, radius_z_px)
    if ignored is None:
        return _filtered(inner, second, element, radius_z_px).astype(np.float32)
    supported = _filtered((~ignored).view(np.uint8), cv2.dilate, element, radius_z_px)
    inner = np.where(supported != 0, inner, values.dtype.type(never_second))
    result = _filtered(inner, second, element, radius_z_px).astype(np.float32)
    reached = _filtered(supported, cv2.dilate, element, radius_z_px) != 0
    return result if reached.all() else fill_from_nearest(result, ~reached)


def _morphology_type(
    image: Any2D, ignored: NDArray[np.bool_] | None, sigma_px: float
) -> NDArray[Any]:
    """The image in a type that OpenCV's morphology takes, smoothed if asked for."""
    if sigma_px > 0:
        return gaussian_smoothed(image, ignored, sigma_px)
    if image.dtype in (np.uint8, np.uint16, np.int16, np.float32):
        return np.ascontiguousarray(image)
    return np.ascontiguousarray(image, dtype=np.float32)


def _ends(dtype: np.dtype[Any]) -> tuple[float, float]:
    limits = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    return limits.max, limits.min


def _filtered(
    values: NDArray[Any], rank: Any, element: NDArray[np.uint8], radius_z_px: int | None
) -> NDArray[Any]:
    """Erosion or dilation of every plane, then along z."""
    import cv2

    if values.ndim == 2:
        return np.asarray(rank(values, element))
    stack = np.stack([np.asarray(rank(plane, element)) for plane in values])
    if radius_z_px is None:
        return stack
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    along_z = minimum_filter1d if rank is cv2.erode else maximum_filter1d
    return np.asarray(along_z(stack, 2 * radius_z_px + 1, axis=0, mode="nearest"))
