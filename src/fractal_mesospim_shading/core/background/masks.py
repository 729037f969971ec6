"""Which pixels an estimate may look at.

Two kinds of pixels stay out of an estimate, as in photutils:

- `mask`: objects. They are ignored, but the background is wanted under them.
- `coverage`: no data (outside of the tile, dead pixels, NaN). There is no
  background there either: it is set to 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.wide import largest_count
from fractal_mesospim_shading.errors import BackgroundError

Bool = NDArray[np.bool_]


def dilate_mask(mask: NDArray[Any], radius_px: int) -> Bool:
    """Grow the objects of a plane by a square.

    Args:
        mask: (y, x); True or above 0 marks objects, so a label image will do.
        radius_px: growth in every direction; 0 keeps the mask. PyAMA takes 10.
            Too small, and the halo of an object counts as background; too large,
            and little background remains.

    Returns:
        (y, x) bool.

    Raises:
        BackgroundError: for a negative radius.
    """
    if radius_px < 0:
        raise BackgroundError(f"The dilation is {radius_px} px; expected 0 or more.")
    objects: Bool = np.asarray(mask) > 0
    if radius_px == 0 or not objects.any():
        return objects
    import cv2

    size = 2 * int(radius_px) + 1
    grown = cv2.dilate(objects.view(np.uint8), np.ones((size, size), np.uint8))
    return np.asarray(grown, np.bool_)


def largest_dilation(objects: NDArray[Any], absent: Bool | None = None) -> int | None:
    """The largest dilation of the objects of a plane, or of each of a stack, that leaves a pixel.

    Args:
        objects: (y, x) or (z, y, x); above 0 marks objects.
        absent: same shape; pixels without data.

    Returns:
        Pixels by which `dilate_mask` may widen the objects before none of background is
        left; None where there is none without a dilation.
    """
    import cv2

    most = 0
    marked: Bool = np.asarray(objects) > 0
    planes = marked.reshape(-1, *marked.shape[-2:])
    gone = np.zeros_like(planes) if absent is None else absent.reshape(planes.shape)
    for plane, missing in zip(planes, gone, strict=True):
        free = ~plane & ~missing
        if not free.any():
            continue
        if not plane.any():
            # Nothing grows there.
            return int(max(plane.shape))
        # Steps of a king to the nearest object: squares reach one step farther each.
        away = cv2.distanceTransform((~plane).view(np.uint8), cv2.DIST_C, 3)
        most = max(most, int(away[free].max()))
    return most - 1 if most else None


def usable_share(ignored: Bool | None, absent: Bool | None, size: int) -> float:
    """The part of the pixels with data that an estimate may use.

    Args:
        ignored: pixels that it may not use, or None.
        absent: of these, pixels without data, or None.
        size: of the plane.
    """
    if ignored is None:
        return 1.0
    with_data = size - (0 if absent is None else int(np.count_nonzero(absent)))
    return (size - int(np.count_nonzero(ignored))) / max(with_data, 1)


def no_data(image: NDArray[Any]) -> Bool | None:
    """The pixels of NaN, infinity, and numbers as large as these, which hold no data.

    The largest number of float32 stands for "nothing" in some programs; what is beyond it
    in float64 would become infinite. Zeros are another matter: see `core/zeros`.

    Args:
        image: any shape, integer or float.

    Returns:
        bool of the same shape, or None where every pixel is finite.
    """
    if image.dtype.kind != "f" or not image.size:
        return None
    largest = largest_count(image.dtype)
    # Two numbers are quicker than a look at each pixel; with NaN neither is less.
    if -largest < image.min() and image.max() < largest:
        return None
    missing: Bool = ~(np.abs(image) < largest)
    return missing


def union(*parts: Bool | None) -> Bool | None:
    """The pixels that are True in any of the masks given; None where there are none."""
    total: Bool | None = None
    for part in parts:
        if part is not None and part.any():
            total = part if total is None else total | part
    return total


def checked_mask(image: NDArray[Any], mask: NDArray[Any] | None) -> Bool | None:
    """A mask as bool, None if nothing is above 0.

    Raises:
        BackgroundError: if the shapes differ.
    """
    if mask is None:
        return None
    if np.shape(mask) != image.shape:
        raise BackgroundError(
            f"The mask has shape {np.shape(mask)}, the image {image.shape}; "
            "give a mask of the same shape."
        )
    marked = np.asarray(mask) > 0
    return marked if marked.any() else None


def fill_from_nearest(image: NDArray[np.float32], unknown: Bool) -> NDArray[np.float32]:
    """Give every unknown pixel the value of the nearest known one.

    Args:
        image: (y, x) or (z, y, x).
        unknown: the pixels to fill, same shape; at least one has to be False.

    Returns:
        A new array of the same shape.
    """
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return np.ascontiguousarray(image[tuple(nearest)], dtype=np.float32)


def as_float32(image: NDArray[Any]) -> NDArray[np.float32]:
    """A contiguous float32 copy (or the image itself) of any integer or float image."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(image, dtype=np.float32)
