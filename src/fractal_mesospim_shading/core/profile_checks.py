"""What is asked of the values of a profile before they are taken."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractal_mesospim_shading.errors import ProfileError

WIDEST_SPAN = 100.0
"""Largest over smallest value of a flat-field that is still taken for shading."""

_LARGEST = float(np.finfo(np.float32).max)
"""Counts that a dark-field may hold at most."""


def refuse_wide_span(smallest: float, largest: float, mean: float) -> None:
    """Refuse a flat-field that cannot be shading alone.

    Raises:
        ProfileError: its largest value is more than `WIDEST_SPAN` times its smallest.
    """
    if largest <= WIDEST_SPAN * smallest:
        return
    raise ProfileError(
        f"The flatfield spans a factor of {largest / smallest:.3g} ({smallest / mean:.3g} to "
        f"{largest / mean:.3g} of its mean); no more than {WIDEST_SPAN:g} can be shading. An "
        "offset or dark frame as large as the light itself does this (give the right "
        "`camera_offset` or `darkfield_file`, or estimate from planes with more light), and so do "
        "dead, hot or masked pixels (replace them by their neighbours)."
    )


def counts(image: NDArray[Any], ends: tuple[float, float], name: str) -> NDArray[np.float32]:
    """An image in float32.

    Args:
        image: of counts.
        ends: the smallest and the largest of them.
        name: for the message.

    Raises:
        ProfileError: float32 cannot hold them.
    """
    largest = max(map(abs, ends))
    if not largest <= _LARGEST:
        raise ProfileError(
            f"The {name} holds values as large as {largest:g}; expected counts of a camera."
        )
    # An array that nobody can write to, as those from files, need not be copied.
    own = image.flags.owndata and not image.flags.writeable
    return image.astype(np.float32, copy=not own)


def checked_image(values: ArrayLike, name: str) -> tuple[NDArray[Any], tuple[float, float]]:
    """An image of finite numbers, with the smallest and the largest of them.

    Raises:
        ProfileError: it is no image of numbers, or one of them is not finite.
    """
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        hint = ""
        if 0 not in array.shape and sum(n > 1 for n in array.shape) == 2:
            hint = " Drop the axes of length 1 with np.squeeze."
        raise ProfileError(
            f"The {name} has shape {array.shape}; expected a filled image (y, x).{hint}"
        )
    if array.dtype.kind not in "uif":
        raise ProfileError(f"The {name} has type {array.dtype}; expected real numbers.")
    # NaN is the smallest and the largest value of an array that holds one.
    ends = array.min(), array.max()
    if not np.isfinite(ends).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise ProfileError(
            f"The {name} holds {bad} values that are NaN or infinite; every value must be finite."
        )
    return array, (float(ends[0]), float(ends[1]))


def checked_number(value: object, name: str) -> float:
    """A number of counts.

    Raises:
        ProfileError: it is none.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ProfileError(f"The {name} is {value!r}; expected a number.") from None
    if not abs(number) <= _LARGEST:
        raise ProfileError(f"The {name} is {number:g}; expected a finite number of counts.")
    return number
