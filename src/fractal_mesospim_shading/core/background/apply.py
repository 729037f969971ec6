"""Taking a background away from an image.

    subtract: image - weight * background
    divide:   image * (reference / background) ^ weight

computed in float32 (in float64 where the image, its background or the result has more digits),
rounded and clipped once, with what was clipped counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fractal_mesospim_shading.core.background.contract import BackgroundMethod, BackgroundResult
from fractal_mesospim_shading.core.background.inputs import (
    as_numbers,
    check_parameters,
    with_mask,
    without_mask,
)
from fractal_mesospim_shading.core.background.masks import is_wide
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.kernel_cache import kernel
from fractal_mesospim_shading.errors import BackgroundError

Mode = Literal["subtract", "divide"]
Rounding = Literal["half_even", "half_up"]

_WIDE_PART = 2**20
"""Pixels that are computed at a time in float64."""


@dataclass(frozen=True)
class Application:
    """How a background is taken away.

    Attributes:
        mode: subtract light that was added, or divide by what the light was
            multiplied with.
        weight: part of the background to take away, 0 to 1. For a division it is
            the exponent.
        output_offset: counts added to the result. In a type without negative numbers
            an offset keeps the noise around 0; without it half of it is clipped.
        reference: for a division, the counts of a pixel that equals its background.
        light_background: for integers, add the largest value of the type to a difference,
            so that dark objects stay dark on white, as ImageJ does.
        rounding: `half_even`, or `half_up` as ImageJ; None leaves it to the method and
            is `half_even` otherwise.
    """

    mode: Mode = "subtract"
    weight: float = 1.0
    output_offset: float = 0.0
    reference: float = 1000.0
    light_background: bool = False
    rounding: Rounding | None = None

    def __post_init__(self) -> None:
        check_parameters("the application", self)
        if not 0 <= self.weight <= 1:
            raise BackgroundError(f"The weight is {self.weight}; expected 0 to 1.")
        if self.mode == "divide" and not self.reference > 0:
            raise BackgroundError(f"The reference is {self.reference}; expected more than 0.")

    @property
    def from_top(self) -> bool:
        """Whether integers count from the largest of their type.

        Divided, dark objects stay darker than what is around them by themselves.
        """
        return self.light_background and self.mode == "subtract"


def correct_plane(
    method: BackgroundMethod,
    image: NDArray[Any],
    estimate: BackgroundResult,
    absent: NDArray[np.bool_] | None,
    application: Application,
    *,
    dtype: DTypeLike = np.float32,
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], PixelCounts]:
    """Take what a method estimated away from a plane or stack.

    Args:
        method: whose rounding counts where the application leaves it open.
        image: (y, x) or (z, y, x).
        estimate: its background. Where none could be estimated, the image stays as it is.
        absent: True where there is no data, or None.
        application, dtype, out: see `apply_background`.
    """
    values = image if estimate.denoised is None else estimate.denoised
    if estimate.denoised is not None and absent is not None:
        values = np.where(absent, image, values)
    if not estimate.estimated:
        absent = np.ones(values.shape, np.bool_)
    rounding = application.rounding or ("half_up" if method.halves_up else "half_even")
    terms = replace(application, rounding=rounding)
    return apply_background(
        values, estimate.background, terms, dtype=dtype, coverage=absent, out=out
    )


def apply_background(
    image: NDArray[Any],
    background: NDArray[Any],
    application: Application | None = None,
    *,
    dtype: DTypeLike = np.float32,
    coverage: NDArray[np.bool_] | None = None,
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], PixelCounts]:
    """Take a background away.

    Args:
        image: any shape, integer or float; a masked array gives one with the same mask.
        background: float32, or float64 for counts above 2^24; same shape.
        application: how; subtract by default.
        dtype: of the result. float32 keeps negative values; integers are rounded
            and clipped.
        coverage: True where there is no data; these pixels keep their value.
        out: array of the image's shape for the result; its type then counts. It may be the image.

    Returns:
        The result and the counts of its pixels.

    Raises:
        BackgroundError: for other shapes, or a division by a background that
            reaches 0 somewhere.
    """
    application = Application() if application is None else application
    image, hidden = without_mask(as_numbers(image, "image"))
    image, background = np.asarray(image), np.asarray(as_numbers(background, "background"))
    if background.shape != image.shape or (out is not None and out.shape != image.shape):
        raise BackgroundError(
            f"The image has shape {image.shape}, its background {background.shape}, the result "
            f"{'none' if out is None else out.shape}; expected equal shapes."
        )
    if coverage is not None and coverage.shape != image.shape:
        raise BackgroundError(f"The coverage has shape {coverage.shape}, the image {image.shape}.")
    result = np.empty(image.shape, dtype) if out is None else out
    flat = np.ascontiguousarray(image).reshape(-1)
    absent = np.zeros(0, np.bool_)
    if coverage is not None and coverage.any():
        absent = np.ascontiguousarray(coverage).reshape(-1)
    wide = any(is_wide(kind) for kind in (flat.dtype, background.dtype, result.dtype))
    shape = np.asarray(background.reshape(-1), np.float64 if wide else np.float32)
    if application.mode == "divide":
        shape = _divisor(flat, shape, absent, application)
    direct = result.flags.c_contiguous and result.dtype.isnative
    native = result.dtype.newbyteorder("=")
    target = result.reshape(-1) if direct else np.empty(image.size, native)
    counts = _run(flat, np.ascontiguousarray(shape), absent, target, application)
    if not direct:
        result[...] = target.reshape(image.shape)
    return (result if out is not None else with_mask(result, hidden)), counts


def _divisor(
    image: NDArray[Any], background: NDArray[Any], absent: NDArray[np.bool_], terms: Application
) -> NDArray[Any]:
    """The factors of a division, as a plane of the type of the background."""
    one = background.dtype.type(1)
    used = background if absent.size == 0 else np.where(absent, one, background)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        ratio: NDArray[Any] = background.dtype.type(terms.reference) / used
    # Next to 0, what is left of a pixel would be infinite.
    low = int(np.count_nonzero(~((used > 0) & np.isfinite(ratio))))
    if low:
        raise BackgroundError(
            f"The background is 0 or less in {low} of {used.size} pixels (smallest "
            f"{float(np.nanmin(used)):g}), so the image cannot be divided by it. Subtract it, "
            "or choose a larger radius, a mask, or another method."
        )
    return ratio if terms.weight == 1 else np.power(ratio, background.dtype.type(terms.weight))


def _run(
    image: NDArray[Any],
    plane: NDArray[Any],
    absent: NDArray[np.bool_],
    target: NDArray[Any],
    terms: Application,
) -> PixelCounts:
    if plane.dtype == np.float64:
        return PixelCounts(image.size, *_apply_wide(image, plane, absent, target, terms))
    integer = np.issubdtype(target.dtype, np.integer)
    half_up, divide = integer and terms.rounding == "half_up", terms.mode == "divide"
    low, high = -np.inf, np.inf
    offset = float(terms.output_offset)
    if integer:
        limits = np.iinfo(target.dtype)
        low, high = float(limits.min), float(limits.max)
        offset += high if terms.from_top else 0.0
    numbers = (np.float32(terms.weight), np.float32(offset + (0.5 if half_up else 0.0)))
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        image = image.astype(np.float32)
    run = _to_integers if integer else _to_floats
    counted = run(image, plane, absent, *numbers, divide, half_up, low, high, target)
    return PixelCounts(image.size, *(int(count) for count in counted))


@kernel
def _to_integers(  # type: ignore[no-untyped-def]
    image, plane, absent, weight, offset, divide, half_up, low, high, target
):
    no_data = 0
    below = 0
    above = 0
    for i in range(image.size):
        value = np.float32(image[i])
        if absent.size and absent[i]:
            no_data += 1
            kept = min(max(np.float64(value), low), high)
            target[i] = np.int64(kept) if value == value else 0
            continue
        value = value * plane[i] if divide else value - weight * plane[i]
        value = value + offset
        # Clip before the fraction is dropped: -0.3 would become 0 uncounted.
        rounded = np.floor(value) if half_up else np.rint(value)
        below += rounded < low
        above += rounded > high
        clipped = min(max(np.float64(rounded), low), high)
        target[i] = np.int64(clipped) if clipped == clipped else 0
    return no_data, below, above


@kernel
def _to_floats(  # type: ignore[no-untyped-def]
    image, plane, absent, weight, offset, divide, half_up, low, high, target
):
    no_data = 0
    for i in range(image.size):
        value = np.float32(image[i])
        if absent.size and absent[i]:
            no_data += 1
            target[i] = value
        elif divide:
            target[i] = value * plane[i] + offset
        else:
            target[i] = value - weight * plane[i] + offset
    return no_data, 0, 0


def _apply_wide(
    image: NDArray[Any],
    plane: NDArray[np.float64],
    absent: NDArray[np.bool_],
    target: NDArray[Any],
    terms: Application,
) -> tuple[int, int, int]:
    """Take a background away in float64, a part at a time; arrays are as for the kernels.

    Returns:
        Pixels that were kept, and those cut off below and above.
    """
    weight, offset = float(terms.weight), float(terms.output_offset)
    divide = terms.mode == "divide"
    totals = np.zeros(3, np.int64)
    for start in range(0, image.size, _WIDE_PART):
        part = slice(start, start + _WIDE_PART)
        with np.errstate(over="ignore", invalid="ignore"):
            values = image[part].astype(np.float64)
            values = values * plane[part] if divide else values - weight * plane[part]
            values += offset
        kept = absent[part] if absent.size else np.zeros(values.size, np.bool_)
        as_they_are = _as_they_are(image[part][kept], target.dtype)
        if np.issubdtype(target.dtype, np.integer):
            half_up = terms.rounding == "half_up"
            rounded = np.floor(values + 0.5) if half_up else np.rint(values)
            whole = _as_integers(rounded, target.dtype, from_top=terms.from_top)
            target[part], below, above = whole
            totals[1:] += np.count_nonzero(below & ~kept), np.count_nonzero(above & ~kept)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                target[part] = values
        target[part][kept] = as_they_are
        totals[0] += np.count_nonzero(kept)
    no_data, low, high = (int(number) for number in totals)
    return no_data, low, high


def _as_they_are(values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Values in another type: whole numbers stay whole, what does not fit is cut off."""
    kind = np.dtype(dtype)
    if values.dtype == kind:
        return values
    if not np.issubdtype(kind, np.integer):
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(kind)
    if values.dtype.kind == "f":
        return _as_integers(np.trunc(values), kind)[0]
    limits, own = np.iinfo(kind), np.iinfo(values.dtype)
    low, high = max(limits.min, own.min), min(limits.max, own.max)
    return np.clip(values, low, high).astype(kind)


def _as_integers(
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
