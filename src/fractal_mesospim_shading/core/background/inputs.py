"""What people hand over as an image or a mask, as plain arrays.

Lists become arrays, the mask of a masked array becomes one of the masks, and what holds
no numbers is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.parameter_checks import shown
from fractal_mesospim_shading.errors import BackgroundError

Bool = NDArray[np.bool_]


def as_numbers(array: Any, what: str) -> Any:
    """An array of real numbers.

    Args:
        array: an array; anything else with a shape, a NumPy type and an index (a memory map,
            a zarr or HDF5 array) stays as it is and is read in parts; lists are converted.
        what: its name in a message, such as `image`.

    Raises:
        BackgroundError: it holds no numbers.
    """
    if isinstance(array, np.ma.MaskedArray):
        found: Any = array
    elif not isinstance(array, np.ndarray) and _is_arraylike(array):
        found = array
    else:
        try:
            found = np.asarray(array)
        except (TypeError, ValueError) as error:
            raise BackgroundError(
                f"The {what} is {shown(array)}, which is no array: {error}."
            ) from error
    if found.dtype.kind not in "buif":
        raise BackgroundError(
            f"The {what} is {shown(array) if found.dtype.kind == 'O' else 'an array'} of type "
            f"{found.dtype}; expected an array of integers or floats."
        )
    return found


def image_and_mask(
    image: Any, mask: Any = None, *, deep: bool = False
) -> tuple[NDArray[Any], NDArray[Any] | None]:
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
    objects = None if mask is None else without_mask(as_numbers(mask, "mask"))[0]
    pixels = np.asarray(pixels)
    if pixels.ndim != (3 if deep else 2) or 0 in pixels.shape:
        axes = "(z, y, x), as a z radius is given" if deep else "(y, x)"
        raise BackgroundError(
            f"The image has shape {pixels.shape}; expected {axes}, with at least one pixel."
        )
    objects = None if objects is None else np.asarray(objects)
    if hidden is None:
        return pixels, objects
    if objects is None:
        return pixels, hidden
    if objects.shape != pixels.shape:
        raise BackgroundError(
            f"The mask has shape {objects.shape}, the image {pixels.shape}; "
            "give a mask of the same shape."
        )
    return pixels, (objects > 0) | hidden


def without_mask(array: Any) -> tuple[Any, Bool | None]:
    """The data of a masked array and its mask, None where nothing is masked; others as they are."""
    if not isinstance(array, np.ma.MaskedArray):
        return array, None
    hidden = array.mask
    return array.data, np.asarray(hidden) if np.any(hidden) else None


def with_mask(array: NDArray[Any], hidden: Bool | None) -> NDArray[Any]:
    """A masked array with this mask; the array itself where there is none."""
    if hidden is None:
        return array
    masked = array.view(np.ma.MaskedArray)
    masked.mask = hidden
    return masked


def _is_arraylike(array: Any) -> bool:
    return (
        isinstance(getattr(array, "dtype", None), np.dtype)
        and isinstance(getattr(array, "shape", None), tuple)
        and hasattr(array, "__getitem__")
    )
