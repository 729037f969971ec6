"""The mean log ratio of the two views of an overlap, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.observations import OverlapPair

FloatArray = NDArray[np.float64]
LogFlatfield = Callable[[FloatArray, FloatArray], FloatArray]

# Parts along the seam whose means tell how sure the mean of a pair is, and least bins of one.
_PARTS = 12
_LEAST_IN_PART = 4
_LEAST_PARTS = 4
# Parts on either side that go together, and how many parts are as good as one then.
_NEIGHBOURS = 2
_ALIKE = 2.1
# No bin is known better than to this, were it without noise.
_LEAST_ERROR = 1e-5
# Degrees of freedom that what all pairs have in common counts for beside a pair's own parts.
_COMMON_FREEDOM = 6.0
# Degrees of freedom of Student's t.
_FREEDOM = 4.0
_ROUNDS = 30


@dataclass(frozen=True)
class PairRatio:
    """The mean log ratio of a pair, the flat-field taken off.

    Attributes:
        first, second: numbers of the tiles.
        value: mean of `log(first / second)`.
        variance: of it.
        parts: that told the variance; 0 where there were too few.
    """

    first: int
    second: int
    value: float
    variance: float
    parts: int


def pair_ratios(
    pairs: Sequence[OverlapPair], log_flatfields: Mapping[int, LogFlatfield]
) -> list[PairRatio]:
    """The mean log ratio of each pair, and how sure it is.

    Within a pair, bins are weighted by their noise and a scatter that they show themselves, and
    outliers by Student's t. Neighbouring bins share sample and stage error, so the variance comes
    from the means of parts along the seam; as these are few, pairs tell each other by how much
    parts scatter more than independent bins would.

    Args:
        pairs: as the camera saw them.
        log_flatfields: by tile number, the logarithm of its flat-field at (y, x) in pixels.
    """
    found = [_ratio(pair, log_flatfields) for pair in pairs if pair.variance.size]
    total = sum(ratio.parts for ratio, _ in found)
    excess = sum(ratio.parts * spread for ratio, spread in found) / max(total, 1)
    common = max(excess, 1.0)
    ratios = []
    for ratio, spread in found:
        own = ratio.parts / _ALIKE
        factor = (_COMMON_FREEDOM * common + own * spread) / (_COMMON_FREEDOM + own)
        ratios.append(replace(ratio, variance=ratio.variance * factor))
    return ratios


def _ratio(
    pair: OverlapPair, log_flatfields: Mapping[int, LogFlatfield]
) -> tuple[PairRatio, float]:
    """The ratio as independent bins would know it, and the variance of its parts over that."""
    first = log_flatfields[pair.first](pair.y_first, pair.x_first)
    second = log_flatfields[pair.second](pair.y_second, pair.x_second)
    values = pair.log_ratio - first + second
    noise = np.maximum(pair.variance, _LEAST_ERROR**2)
    mean, scatter = float(np.median(values)), 0.0
    for _ in range(_ROUNDS):
        before = mean, scatter
        residual = values - mean
        total = noise + scatter
        robust = (_FREEDOM + 1) / (_FREEDOM + residual**2 / total)
        weights = robust / total
        mean = float(np.average(values, weights=weights))
        # Squares of residuals are as large as expected once the scatter is right.
        excess = float(np.average(residual**2 / total, weights=robust))
        typical = float(np.average(noise, weights=weights))
        scatter = max(0.0, (typical + scatter) * excess - typical)
        if np.allclose(before, (mean, scatter), rtol=1e-6, atol=1e-12):
            break
    # What each bin adds to the error of the mean (Huber, Robust Statistics, Wiley 1981, chapter 3).
    slope = np.sum(weights * (_FREEDOM - residual**2 / total) / (_FREEDOM + residual**2 / total))
    shares = weights * (values - mean) / slope
    independent = max(float(np.sum(shares**2)), float(1 / np.sum(1 / noise)))
    parts = _parts(pair.x_first if pair.axis == "y" else pair.y_first, shares)
    spread = _of_sum(parts) / independent if len(parts) else 1.0
    return PairRatio(pair.first, pair.second, mean, independent, len(parts)), spread


def _parts(along: FloatArray, shares: FloatArray) -> FloatArray:
    """Sums over parts along the seam; none where they would be too few."""
    places = np.unique(along)
    count = int(min(_PARTS, len(places), len(shares) // _LEAST_IN_PART))
    if count < _LEAST_PARTS:
        return np.zeros(0)
    part = np.searchsorted(places, along) * count // len(places)
    return np.asarray(np.bincount(part, shares, count))


def _of_sum(apart: FloatArray) -> float:
    """Variance of a sum of terms that come to 0, whose neighbours may go together.

    After Newey and West (Econometrica 55, 1987, doi:10.2307/1913610), corrected for what the terms
    lose as their own mean is taken off.
    """
    count = len(apart)
    reach = min(_NEIGHBOURS, count - 2)
    kernel = 1 - np.arange(reach + 1) / (reach + 1)
    products = np.array([apart[k:] @ apart[: count - k] for k in range(reach + 1)])
    lost = np.arange(count, count - reach - 1, -1) / count**2
    twice = np.where(np.arange(reach + 1) > 0, 2, 1)
    variance = float(twice * kernel @ products) / (1 - float(twice * kernel @ lost))
    return max(variance, float(products[0]) / 2)
