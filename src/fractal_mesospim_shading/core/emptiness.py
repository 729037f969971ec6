"""Which parts of planes that should be empty really are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.binning import BinnedStack
from fractal_mesospim_shading.errors import SamplingError

FloatArray = NDArray[np.float64]

_ROUNDS = 5
# A square is taken as not empty if it differs from the common shape by more than
# this many standard deviations of its noise, and by more than this fraction.
_SIGMAS = 4.0
_LEAST_DEVIATION = 0.02
# A plane is left out if so much of it is not empty, or if it is unlike the others.
_MOST_MASKED = 0.15
_LEAST_ROUGHNESS = 0.01
_TIMES_COMMON_ROUGHNESS = 3.0
_LEAST_BRIGHTNESS = 0.2
_LEAST_KEPT = 0.05


@dataclass(frozen=True)
class EmptySquares:
    """What is empty on the noise grid.

    Attributes:
        keep: (n, y, x) squares to use; none of a rejected plane.
        brightness: (n,) of each plane above the offset, counts.
        reasons: for each rejected plane, why.
    """

    keep: NDArray[np.bool_]
    brightness: FloatArray
    reasons: dict[int, str]


def find_empty(stack: BinnedStack, offset: float) -> EmptySquares:
    """Compare every plane with the shape that the planes have in common.

    The shape starts as the median of the darker half of the planes, since sample adds
    light; planes are then judged by all planes that fit. So up to about half of
    the planes, and the brighter ones among them, may hold sample.

    Args:
        stack: planes chosen as empty.
        offset: of the camera, counts; 0 where a dark frame was taken off.

    Raises:
        SamplingError: no plane is above the offset, or hardly any plane is like another.
    """
    signal = stack.noise_mean.astype(np.float64) - offset
    flat_signal = signal.reshape(len(signal), -1)
    level = median_along_first(flat_signal.T)
    usable = np.isfinite(level) & (level > 0)
    if not usable.any():
        raise SamplingError(
            f"None of the {len(level)} planes is brighter than the camera offset of {offset:g} "
            "counts. Give `camera_offset`, or choose other tiles or planes."
        )
    relative_noise = _noise_of_squares(stack, signal)
    order = np.argsort(np.where(usable, level, np.inf), kind="stable")[: int(usable.sum())]
    reference = order[: max(1, (len(order) + 1) // 2)]
    shape = median_along_first(signal[reference] / level[reference, None, None])
    keep = np.isfinite(signal) & usable[:, None, None]
    reasons: dict[int, str] = {}
    for _ in range(_ROUNDS):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = signal / np.where(shape > 0, shape, np.nan)
        level = _levels(ratio, keep)
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = ratio / level[:, None, None] - 1
            noise = relative_noise / (level[:, None, None] * shape)
        fits = np.abs(deviation) <= np.maximum(_SIGMAS * noise, _LEAST_DEVIATION)
        reasons = _reasons(deviation, noise, fits & np.isfinite(deviation), level)
        keep = fits & np.isfinite(deviation)
        keep[list(reasons)] = False
        if not keep.any():
            break
        shape = median_along_first(np.where(keep, signal / level[:, None, None], np.nan))
    _check_enough(keep, level, reasons)
    return EmptySquares(keep, level, reasons)


def _noise_of_squares(stack: BinnedStack, signal: FloatArray) -> FloatArray:
    """Standard deviation of the mean of each square, counts."""
    cells = np.maximum(stack.spatial_cells, 1)
    variance = median_along_first(stack.spatial)
    variance = np.where(np.isfinite(variance), variance, np.nanmax(np.abs(signal)))
    result: FloatArray = np.sqrt(variance[None] / (4 * cells))
    return result


def _levels(ratio: FloatArray, keep: NDArray[np.bool_]) -> FloatArray:
    """Median brightness of each plane over its empty squares, else over all of them."""
    kept = median_along_first(np.where(keep, ratio, np.nan).reshape(len(ratio), -1).T)
    every = median_along_first(ratio.reshape(len(ratio), -1).T)
    return np.where(np.isfinite(kept), kept, every)


def _reasons(
    deviation: FloatArray, noise: FloatArray, fits: NDArray[np.bool_], level: FloatArray
) -> dict[int, str]:
    known = np.isfinite(deviation)
    squares = np.maximum(known.sum(axis=(1, 2)), 1)
    masked = 1 - fits.sum(axis=(1, 2)) / squares
    inside = np.where(fits, deviation**2 - noise**2, 0).sum(axis=(1, 2))
    rough = np.sqrt(np.maximum(inside / np.maximum(fits.sum(axis=(1, 2)), 1), 0))
    good = masked <= _MOST_MASKED
    common = float(np.median(rough[good])) if good.any() else 0.0
    limit = max(_LEAST_ROUGHNESS, _TIMES_COMMON_ROUGHNESS * common)
    typical = float(np.median(level[good])) if good.any() else float(np.nanmedian(level))
    reasons = {}
    for k in range(len(level)):
        if not known[k].any():
            reasons[k] = "holds no data"
        elif not level[k] > _LEAST_BRIGHTNESS * typical:
            reasons[k] = f"is {level[k]:.1f} counts above the offset where others are {typical:.1f}"
        elif masked[k] > _MOST_MASKED:
            reasons[k] = f"holds something in {100 * masked[k]:.0f} % of its area"
        elif rough[k] > limit:
            reasons[k] = f"differs from the common shape by {100 * rough[k]:.1f} %"
    return reasons


def _check_enough(keep: NDArray[np.bool_], level: FloatArray, reasons: dict[int, str]) -> None:
    used = int(keep.any(axis=(1, 2)).sum())
    if used >= max(1, _LEAST_KEPT * len(keep)):
        return
    examples = "; ".join(f"plane {k} {why}" for k, why in list(reasons.items())[:3])
    raise SamplingError(
        f"Of {len(keep)} planes chosen as empty only {used} look alike (brightness above the "
        f"offset {np.nanmin(level):.0f} to {np.nanmax(level):.0f} counts): {examples}. "
        "They seem to hold sample. Choose other tiles or planes, or let BaSiC estimate."
    )


def median_along_first(values: FloatArray) -> FloatArray:
    """Median along the first axis, without the NaN; NaN where there is nothing else.

    Much faster than `numpy.nanmedian` for many short columns.
    """
    missing = np.isnan(values)
    ordered = np.sort(np.where(missing, np.inf, values), axis=0)
    count = len(values) - missing.sum(axis=0)
    low = np.take_along_axis(ordered, (np.maximum(count - 1, 0) // 2)[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(values) - 1)[None], axis=0)[0]
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, (low + high) / 2, np.nan)
