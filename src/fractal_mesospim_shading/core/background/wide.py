"""Counts that float32 does not hold to the last digit: integers above 2^24, and float64.

Backgrounds are estimated in float32, whose whole numbers end at 2^24 (16 777 216). An image
with larger counts is estimated less a common level, which all methods follow exactly, and
that level is added to the background in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_WHOLE_TO = 2**24
_PART = 2**20


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
    if max(abs(usable.min().item()), abs(usable.max().item())) <= _WHOLE_TO:
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


def constant_plane(shape: tuple[int, ...], value: float) -> NDArray[Any]:
    """A background of one number; float64 where float32 would lose digits of large counts."""
    wide = abs(value) > _WHOLE_TO and float(np.float32(value)) != value
    return np.full(shape, value, np.float64 if wide else np.float32)


def apply_wide(
    image: NDArray[Any],
    plane: NDArray[np.float64],
    absent: NDArray[np.bool_],
    target: NDArray[Any],
    *,
    weight: float,
    offset: float,
    divide: bool,
    half_up: bool,
    from_top: bool,
) -> tuple[int, int, int]:
    """Take a background away in float64, a part at a time.

    Args:
        image, target: flat, of one size.
        plane: the background, or the factors of a division; same size.
        absent: where the image is kept; same size, or of size 0.
        weight, offset: see `Application`.
        divide: whether `plane` holds factors.
        half_up: how integers are rounded.
        from_top: add the largest number of an integer type.

    Returns:
        Pixels that were kept, and those cut off below and above.
    """
    totals = np.zeros(3, np.int64)
    for start in range(0, image.size, _PART):
        part = slice(start, start + _PART)
        with np.errstate(over="ignore", invalid="ignore"):
            values = image[part].astype(np.float64)
            values = values * plane[part] if divide else values - weight * plane[part]
            values += offset
        kept = absent[part] if absent.size else np.zeros(values.size, np.bool_)
        if np.issubdtype(target.dtype, np.integer):
            rounded = np.floor(values + 0.5) if half_up else np.rint(values)
            target[part], below, above = as_integers(rounded, target.dtype, from_top=from_top)
            totals[1:] += np.count_nonzero(below & ~kept), np.count_nonzero(above & ~kept)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                target[part] = values
        target[part][kept] = as_they_are(image[part][kept], target.dtype)
        totals[0] += np.count_nonzero(kept)
    no_data, low, high = (int(number) for number in totals)
    return no_data, low, high


def as_they_are(values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Values in another type: whole numbers stay whole, what does not fit is cut off."""
    kind = np.dtype(dtype)
    if values.dtype == kind:
        return values
    if not np.issubdtype(kind, np.integer):
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(kind)
    if values.dtype.kind == "f":
        return as_integers(np.trunc(values), kind)[0]
    limits, own = np.iinfo(kind), np.iinfo(values.dtype)
    low, high = max(limits.min, own.min), min(limits.max, own.max)
    return np.clip(values, low, high).astype(kind)


def as_integers(
    rounded: NDArray[Any], kind: np.dtype[Any], *, from_top: bool = False
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Whole floats as integers of a type, and which lay below and above its range.

    Args:
        rounded: whole numbers; NaN becomes 0.
        kind: an integer type.
        from_top: whether the largest number of the type is added, which float64 could not
            do for 64 bits.
    """
    limits = np.iinfo(kind)
    rounded = np.where(np.isnan(rounded), -float(limits.max) if from_top else 0.0, rounded)
    top = int(limits.max) if from_top else 0
    low, high = float(int(limits.min) - top), float(int(limits.max) - top)
    below, above = rounded < low, rounded > high
    if from_top:
        # Below the top by this much; whole numbers of 64 bits wrap around, and back again.
        distance = np.where(rounded > low, -np.minimum(rounded, 0), 0).astype(np.uint64)
        result = (np.uint64(top) - distance).astype(kind)
        result[rounded <= low] = limits.min
        return result, below, above
    inside = (rounded > low) & (rounded < high)
    result = np.where(inside, rounded, 0).astype(kind)
    result[rounded <= low], result[rounded >= high] = limits.min, limits.max
    return result, below, above
