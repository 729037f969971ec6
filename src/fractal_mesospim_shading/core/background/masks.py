"""Which pixels an estimate may look at, and in which numbers.

Lists become arrays, the mask of a masked array becomes one of the masks, and what holds no
numbers is refused. Backgrounds are estimated in float32, whose whole numbers end at 2^24
(16 777 216). An image with larger counts (integers of 32 bits and more, float64) is estimated less
a common level, which all methods follow exactly, and that level is added to the background in
float64. Two kinds of pixels stay out of an estimate, as in photutils:

- `mask`: objects. They are ignored, but the background is wanted under them.
- `coverage`: no data (outside of the tile, dead pixels, NaN). There is no
  background there either: it is set to 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.inputs import as_numbers, without_mask
from fractal_mesospim_shading.errors import BackgroundError

Bool = NDArray[np.bool_]

WHOLE_TO = 2**24
"""Up to here float32 holds every whole number."""


def image_and_mask(
    image: Any, mask: Any = None, *, deep: bool = False
) -> tuple[NDArray[Any], Bool | None]:
    """A plane or stack and its objects as plain arrays.

    Args:
        image: array, list or masked array; the masked pixels of the latter are objects.
        mask: above 0 where objects are; array, list or None.
        deep: whether a stack (z, y, x) is expected, for a radius along z, or a plane (y, x).

    Returns:
        The image, and where objects are or None.

    Raises:
        BackgroundError: one of them holds no numbers, the shapes differ, or a stack is given
            where a plane is expected, and the other way round.
    """
    pixels, hidden = without_mask(as_numbers(image, "image"))
    pixels = np.asarray(pixels)
    if pixels.ndim != (3 if deep else 2) or 0 in pixels.shape:
        axes = "(z, y, x), as a z radius is given" if deep else "(y, x)"
        raise BackgroundError(
            f"The image has shape {pixels.shape}; expected {axes}, with at least one pixel."
        )
    objects = None if mask is None else without_mask(as_numbers(mask, "mask"))[0]
    return pixels, union(checked_mask(pixels, objects), hidden)


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


def largest_dilation(objects: NDArray[Any] | None, absent: Bool | None = None) -> int | None:
    """The largest dilation of the objects of a plane, or of each of a stack, that leaves a pixel.

    Args:
        objects: (y, x) or (z, y, x); above 0 marks objects; None for none.
        absent: same shape; pixels without data.

    Returns:
        Pixels by which `dilate_mask` may widen the objects before none of background is
        left; None where there is none without a dilation, or no object.
    """
    if objects is None:
        return None
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


def is_wide(dtype: np.dtype[Any]) -> bool:
    """Whether a type holds numbers that float32 does not."""
    return (dtype.kind in "iu" and dtype.itemsize > 2) or (dtype.kind == "f" and dtype.itemsize > 4)


def largest_count(dtype: np.dtype[Any]) -> float:
    """From where on numbers of a float type are no counts: the largest of float32.

    In float64 less, for sums of a few neighbours have to fit as well.
    """
    largest = float(np.finfo(np.float32).max)
    return largest / 16 if is_wide(dtype) else largest


def common_level(image: NDArray[Any], ignored: NDArray[np.bool_] | None) -> int | float | None:
    """What to take off an image so that float32 holds its usual counts to the last digit.

    Args:
        image: any shape.
        ignored: pixels that do not count; at least one does.

    Returns:
        A number of about the median, or None where float32 holds all counts that matter.
    """
    if not is_wide(image.dtype):
        return None
    usable = image.reshape(-1) if ignored is None else image[~ignored]
    if max(abs(usable.min().item()), abs(usable.max().item())) <= WHOLE_TO:
        return None
    middle: int | float = np.partition(usable, usable.size // 2)[usable.size // 2].item()
    return middle


def less_level(image: NDArray[Any], level: int | float) -> NDArray[np.float32]:
    """An image less its level, the difference taken before anything is rounded."""
    if image.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            return (image - level).astype(np.float32)
    farthest = max(abs(image.min().item() - level), abs(image.max().item() - level))
    if farthest >= 2**63:
        return (image.astype(np.float64) - float(level)).astype(np.float32)
    # Whole numbers of 64 bits wrap around, and back again.
    whole = image.astype(np.int64) - np.uint64(level % 2**64).astype(np.int64)
    return whole.astype(np.float32)


def plus_level(background: NDArray[np.float32], level: int | float | None) -> NDArray[Any]:
    """A background with its level again, in float64; the background itself without one."""
    return background if level is None else background.astype(np.float64) + float(level)
