"""How far the two views of the same tissue still differ: the certificate of a correction.

The log ratio of the views of a pair of tiles is split into its mean, a gain between the tiles, and
what varies within the pair, the shape that a flat-field should have taken off. What noise explains
is taken off the second, and what bleaching of the tissue may explain. What pairs that show the same
places of the tile do not have in common, no flat-field is to blame for: that is the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.bin_noise import MEDIAN_CHI
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.threads import linear_algebra_by_one_thread

FloatArray = NDArray[np.float64]
Taken = Callable[[OverlapPair], FloatArray]
"""What a correction takes off the log ratio of each bin."""

# What bleaching takes away of the tissue, standard deviation; a fraction.
_BLEACHING = 0.1
_DIMMEST = 0.02
# Scatter of log ratios beside their noise, at least: no bin counts for more.
_SCATTER = 0.003
_CAUCHY = 2.4
_ROUNDS = 4
# Places are left out that are known worse than the typical one by this factor.
_WORST = 4.0
_DRAWS = 200
# Two pairs are compared where they have so many places of the tile in common.
_LEAST_SHARED = 24
_STRIDE = 2**20


@dataclass(frozen=True)
class Residual:
    """How far views differ. Fractions of the light.

    Attributes:
        median, p90: of what varies within pairs, absolute, over all places, without what noise
            explains.
        noise_floor: what noise, stage errors and bleaching leave in the median, by what pairs
            differ that show the same places of the tile; noise alone where no two do.
        gain: typical (median) difference of brightness between the tiles of a pair.
        error: standard deviation of `median`, from the pairs drawn again.
    """

    median: float
    p90: float
    noise_floor: float
    gain: float
    error: float


@dataclass(frozen=True)
class PairResidual:
    """The same of one pair of tiles.

    Attributes:
        first, second: numbers of the tiles.
        axis: `y` or `x`, along which they are neighbours.
        gain: brightness of the first over that of the second, less 1.
        shape: what varies within, absolute, without noise.
        noise: what noise leaves in that.
        y, x: places in the first tile, pixels.
        left: log ratio at these places, without its mean.
        expected: its standard deviation by noise.
        bin_px: side of a bin, pixels.

    Two are equal where their numbers are: arrays have no truth value, and the numbers come of them.
    """

    first: int
    second: int
    axis: str
    gain: float
    shape: float
    noise: float
    y: FloatArray = field(compare=False)
    x: FloatArray = field(compare=False)
    left: FloatArray = field(compare=False)
    expected: FloatArray = field(compare=False)
    bin_px: int


@linear_algebra_by_one_thread
def pair_residuals(
    pairs: Sequence[OverlapPair], taken: Taken | None = None, pedestal: float = 0.0
) -> tuple[PairResidual, ...]:
    """The residual of each pair.

    Args:
        pairs: of one channel and side.
        taken: by the correction; None for the views as the camera saw them.
        pedestal: counts under the light that are no light, where they are known: what a correction
            leaves is told against the light without them, so that an offset that is too small
            makes no difference look smaller.
    """
    if not pairs:
        return ()
    lights = np.concatenate([np.minimum(p.light_first, p.light_second) for p in pairs])
    dimmest = max(float(np.quantile(lights, _DIMMEST)) - pedestal, 1e-9)
    return tuple(_of_pair(pair, taken, pedestal, dimmest) for pair in pairs)


def summary(residuals: Sequence[PairResidual]) -> Residual:
    """The residual of all pairs, or of those along one axis."""
    if not residuals:
        return Residual(*[float("nan")] * 5)
    left = [np.abs(r.left) for r in residuals]
    expected = [r.expected for r in residuals]
    median, floor = _without_noise(np.concatenate(left), np.concatenate(expected), 0.5)
    p90, _ = _without_noise(np.concatenate(left), np.concatenate(expected), 0.9)
    floor = max(floor, _between_pairs(residuals))
    gain = float(np.median([abs(np.log1p(r.gain)) for r in residuals]))
    return Residual(median, p90, floor, float(np.expm1(gain)), _error(left, expected))


def _between_pairs(residuals: Sequence[PairResidual]) -> float:
    """The typical part of a residual that pairs do not share; 0 where none show the same place.

    Without what is smooth: stage errors move an error of the flat-field, too.
    """
    parts = [np.zeros(0)]
    for axis in "yx":
        along = [r for r in residuals if r.axis == axis]
        for one, other in pairwise(along):
            places = _cells(one), _cells(other)
            _, first, second = np.intersect1d(places[0], places[1], return_indices=True)
            if len(first) < _LEAST_SHARED:
                continue
            difference = one.left[first] - other.left[second]
            y, x = (v - v.mean() for v in (one.y[first], one.x[first]))
            smooth = np.stack([np.ones(len(y)), y, x, y * x, y**2, x**2], axis=1)
            fitted = smooth @ np.linalg.lstsq(smooth, difference, rcond=None)[0]
            parts.append(difference - fitted)
    every = np.abs(np.concatenate(parts))
    return float(np.median(every) / np.sqrt(2)) if every.size else 0.0


def _cells(residual: PairResidual) -> NDArray[np.intp]:
    """A number for the place of each bin in the tile."""
    y, x = ((v // residual.bin_px).astype(np.intp) for v in (residual.y, residual.x))
    cells: NDArray[np.intp] = y * _STRIDE + x
    return cells


def _error(left: Sequence[FloatArray], expected: Sequence[FloatArray]) -> float:
    """By drawing as many pairs again and again."""
    if len(left) < 2:
        return float("inf")
    rng = np.random.default_rng(0)
    floors = [float(np.median(e)) ** 2 for e in expected]
    medians = []
    for _ in range(_DRAWS):
        drawn = rng.integers(len(left), size=len(left))
        median = float(np.median(np.concatenate([left[k] for k in drawn])))
        noise = MEDIAN_CHI * float(np.mean([floors[k] for k in drawn]))
        medians.append(np.sqrt(max(median**2 - noise, 0.0)))
    return float(np.std(medians))


def _of_pair(
    pair: OverlapPair, taken: Taken | None, pedestal: float, dimmest: float
) -> PairResidual:
    light = np.sqrt(pair.light_first * pair.light_second)
    real = np.maximum(light - pedestal, dimmest / 2)
    ratio = pair.log_ratio if taken is None else pair.log_ratio - taken(pair)
    ratio = ratio * light / real
    variance = pair.variance * (light / real) ** 2
    dimming = dimmest / real
    gain, left = _without_own(ratio, variance, dimming)
    factor = _scatter_of_sheets(pair, left, variance)
    y, x, left, expected = _places(pair, left, variance)
    shape, noise = _without_noise(np.abs(left), factor * expected, 0.5)
    return PairResidual(
        pair.first,
        pair.second,
        pair.axis,
        float(np.expm1(gain)),
        shape,
        noise,
        y,
        x,
        left,
        factor * expected,
        pair.bin_px,
    )


def _without_own(
    ratio: FloatArray, variance: FloatArray, dimming: FloatArray
) -> tuple[float, FloatArray]:
    """The mean of a pair, and what is left without it and without bleaching."""
    weight = 1 / (variance + _SCATTER**2)
    mean = float(np.average(dimming, weights=weight))
    design = np.stack([np.ones(len(ratio)), dimming - mean], axis=1)
    prior = np.diag([0.0, _BLEACHING**-2])
    robust = np.ones(len(ratio))
    own = np.zeros(2)
    for _ in range(_ROUNDS):
        weighted = (weight * robust)[:, None] * design
        own = np.linalg.solve(design.T @ weighted + prior, weighted.T @ ratio)
        rest = np.abs(ratio - design @ own) * np.sqrt(weight)
        robust = 1 / (1 + (rest / (_CAUCHY * max(1.0, 1.4826 * float(np.median(rest))))) ** 2)
    return float(own[0]), ratio - design @ own


def _labels(pair: OverlapPair) -> tuple[NDArray[np.intp], int]:
    """The number of the place of each bin; bins of several sheets share one."""
    places = np.stack([pair.y_first, pair.x_first], axis=1)
    unique, labels = np.unique(places, axis=0, return_inverse=True)
    return np.asarray(labels).ravel(), len(unique)


def _places(
    pair: OverlapPair, left: FloatArray, variance: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """(y, x), mean over sheets and its standard deviation by noise, of each place."""
    labels, count = _labels(pair)
    weight = 1 / (variance + _SCATTER**2)
    total = np.bincount(labels, weight, count)
    columns = (pair.y_first, pair.x_first, left)
    y, x, mean = (np.bincount(labels, weight * column, count) / total for column in columns)
    deviation = np.sqrt(np.bincount(labels, weight**2 * variance, count)) / total
    good = deviation <= _WORST * np.median(deviation)
    return y[good], x[good], mean[good], deviation[good]


def _scatter_of_sheets(pair: OverlapPair, left: FloatArray, variance: FloatArray) -> float:
    """Scatter of what several heights show of a place over that of their noise, at least 1.

    A flat-field is the same at all of them; stage errors in structured tissue are not. Bins
    without noise (of pixels that are all equal, as in synthetic images) tell of no such ratio.
    """
    labels, count = _labels(pair)
    noisy = variance > 0
    labels, left, variance = labels[noisy], left[noisy], variance[noisy]
    weight = 1 / variance
    total = np.bincount(labels, weight, count)[labels]
    mean = np.bincount(labels, weight * left, count)[labels] / total
    share = 1 - (weight / total)
    several = share > 0.2
    if not several.any():
        return 1.0
    squares = (left - mean)[several] ** 2 / (variance * share)[several]
    return float(np.sqrt(max(1.0, float(np.median(squares)) / MEDIAN_CHI)))


def _without_noise(left: FloatArray, expected: FloatArray, part: float) -> tuple[float, float]:
    """A quantile of absolute values without what noise explains, and what noise alone gives."""
    from scipy.optimize import brentq
    from scipy.special import erf

    measured = float(np.quantile(left, part))
    top = 10 * float(expected.max())
    if top <= 0:
        return measured, 0.0
    scale = np.sqrt(2) * np.maximum(expected, 1e-12)
    noise = float(brentq(lambda q: float(np.mean(erf(q / scale))) - part, 0.0, top))
    return float(np.sqrt(max(measured**2 - noise**2, 0.0))), noise
