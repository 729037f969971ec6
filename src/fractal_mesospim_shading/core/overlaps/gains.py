"""One gain for each tile, from what neighbouring tiles show of the same tissue.

A pair of tiles tells the difference of two log gains, once the flat-field is taken off. A graph of
pairs tells all of them but one for each linked part, whose geometric mean is 1 by definition. Log
gains are normal about 0, and pairs scatter about their difference by more than the noise of pixels:
stage errors, and sample that is not quite the same. How far both spread, the data say themselves:
the answer is averaged over all spreads with their likelihoods (empirical Bayes, with the spreads
integrated out; Gelman et al., Bayesian Data Analysis, 3rd ed., 2013, chapter 5). So gains shrink
towards 1 by their uncertainty, all of them stay 1 where equal tiles explain the overlaps better,
and an uncertainty holds what the loops of the graph contradict each other by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.observations import OverlapPair

FloatArray = NDArray[np.float64]
LogFlatfield = Callable[[FloatArray, FloatArray], FloatArray]

LARGEST_GAIN = 3.0
"""Gains that differ from the median of their tiles by more than this factor are cut off there."""

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
# Student's t, for bins in a pair and for pairs in the graph.
_FREEDOM = 4.0
_ROUNDS = 30
# Log gains that move by less are at rest.
_AT_REST = 1e-5
# What is left of a pair's variance that its own tiles explain, at least.
_LEAST_LEFT = 0.05
# Standard deviations of log gains, and of what pairs scatter beyond their errors: the first is 0.
_SPREADS = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 49)])
_SCATTERS = np.geomspace(1e-4, 0.3, 11)
# Of scatters, an exponential distribution with the mean that registration typically leaves, also
# where no loop tells; of spreads, half for equal tiles, and the other half for all others alike.
_TYPICAL_SCATTER = 0.003
_PRIOR = np.outer(
    _SCATTERS * np.exp(-_SCATTERS / _TYPICAL_SCATTER),
    np.concatenate([[1.0], np.full(len(_SPREADS) - 1, 1 / (len(_SPREADS) - 1))]),
)
# Decimals of gains, more than anybody measures: last bits of floats differ between machines.
_DECIMALS = 5


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


@dataclass(frozen=True)
class TileGain:
    """What the light of a tile is multiplied with.

    Attributes:
        gain: factor; above 1 for a tile that is dimmer than its neighbours.
        uncertainty: one standard deviation, as a fraction of the gain; infinite for a tile without
            a link.
        pairs: that link the tile.
        component: number of the linked part that it belongs to, from 0.
        limited: whether it was cut off at `LARGEST_GAIN`.
    """

    gain: float
    uncertainty: float
    pairs: int
    component: int
    limited: bool = False


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


def solve_gains(numbers: Sequence[int], ratios: Sequence[PairRatio]) -> dict[int, TileGain]:
    """The gain of each tile.

    Args:
        numbers: of all tiles.
        ratios: of the pairs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place = {number: index for index, number in enumerate(numbers)}
    first = np.array([place[r.first] for r in ratios], dtype=np.int64)
    second = np.array([place[r.second] for r in ratios], dtype=np.int64)
    links = coo_array((np.ones(len(ratios)), (first, second)), shape=(len(numbers),) * 2)
    _, labels = connected_components(links, directed=False)
    degree = np.bincount(np.concatenate([first, second]), minlength=len(numbers))
    logs, errors = np.zeros(len(numbers)), np.full(len(numbers), np.inf)
    limited = np.zeros(len(numbers), dtype=bool)
    for label in np.unique(labels):
        tiles = np.flatnonzero(labels == label)
        if len(tiles) == 1:
            continue
        local = np.full(len(numbers), -1)
        local[tiles] = np.arange(len(tiles))
        own = np.flatnonzero(labels[first] == label)
        component = _Component(
            len(tiles),
            local[first[own]],
            local[second[own]],
            np.array([ratios[k].value for k in own]),
            np.array([ratios[k].variance for k in own]),
        )
        solved, errors[tiles] = component.solved()
        logs[tiles], limited[tiles] = _limited(solved)
    gains = np.round(np.exp(-logs), _DECIMALS)
    return {
        number: TileGain(
            float(gains[i]),
            float(errors[i]),
            int(degree[i]),
            int(labels[i]),
            bool(limited[i]),
        )
        for number, i in place.items()
    }


def _limited(logs: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Log brightness cut off, and where: one tile without light does not dim all the others."""
    middle, largest = np.median(logs), np.log(LARGEST_GAIN)
    beyond = np.abs(logs - middle) > largest
    if not beyond.any():
        return logs, beyond
    cut = np.clip(logs, middle - largest, middle + largest)
    return cut - cut.mean(), beyond


def with_doubts(
    gains: Mapping[int, TileGain], doubted: Sequence[Mapping[int, TileGain]]
) -> dict[int, TileGain]:
    """Gains whose uncertainties hold what they would be if something that was given were off.

    Args:
        gains: of the tiles.
        doubted: the same with one thing each off by its own standard deviation.
    """
    return {
        number: replace(
            tile,
            uncertainty=float(
                np.hypot.reduce(
                    [tile.uncertainty, *(np.log(d[number].gain / tile.gain) for d in doubted)]
                )
            ),
        )
        for number, tile in gains.items()
    }


@dataclass(frozen=True)
class _Answer:
    """Log brightness of tiles that are not equal, its covariance, the mean square of the scatter.

    `equal` says whether equal tiles explain the pairs better.
    """

    logs: FloatArray
    covariance: FloatArray
    scatter: float
    equal: bool


@dataclass(frozen=True)
class _Component:
    """Tiles that pairs link: what each pair says of the log brightness of its two."""

    count: int
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    values: FloatArray
    variances: FloatArray

    def solved(self) -> tuple[FloatArray, FloatArray]:
        """Log brightness of each tile, mean 0, and its standard deviation."""
        robust = np.ones_like(self.values)
        answer = self._averaged(robust)
        for _ in range(_ROUNDS):
            before = answer.logs
            residual = self.values - (before[self.first] - before[self.second])
            own = self.variances + answer.scatter
            # A pair that alone links two parts cannot be contradicted: nothing is left of it.
            left = np.maximum(1 - robust * self._of_pairs(answer.covariance) / own, _LEAST_LEFT)
            robust = np.minimum((_FREEDOM + 1) / (_FREEDOM + residual**2 / (own * left)), 1.0)
            answer = self._averaged(robust)
            if np.allclose(before, answer.logs, rtol=0, atol=_AT_REST):
                break
        variances = np.diag(answer.covariance)
        if answer.equal:
            return np.zeros(self.count), np.sqrt(variances + answer.logs**2)
        return answer.logs, np.sqrt(variances)

    def _of_pairs(self, covariance: FloatArray) -> FloatArray:
        """The variance of the difference of the two tiles of each pair."""
        variances = np.diag(covariance)
        shared = covariance[self.first, self.second]
        return np.asarray(variances[self.first] + variances[self.second] - 2 * shared)

    def _averaged(self, robust: FloatArray) -> _Answer:
        """Averaged over all spreads and scatters."""
        evidence = np.empty((len(_SCATTERS), len(_SPREADS)))
        means = np.empty((*evidence.shape, self.count))
        covariances = []
        for i, scatter in enumerate(_SCATTERS):
            weights = robust / (self.variances + scatter**2)
            values, vectors = np.linalg.eigh(self._laplacian(weights))
            # The mean of all is not told, and 0 by definition.
            values, vectors = values[1:], vectors[:, 1:]
            told = vectors.T @ self._divergence(weights * self.values)
            known = 0.5 * np.log(weights).sum() - 0.5 * weights @ self.values**2
            spreads = _SPREADS[:, None] ** 2
            narrowed = spreads / (1 + spreads * values)
            evidence[i] = known + 0.5 * (
                narrowed @ told**2 - np.log1p(spreads * values).sum(axis=1)
            )
            means[i] = (narrowed * told) @ vectors.T
            covariances.append((vectors, narrowed))
        weights = np.exp(evidence - evidence.max()) * _PRIOR
        equal = bool(weights[:, 0].sum() >= weights[:, 1:].sum())
        # How unequal tiles are is not told by equal ones.
        weights[:, 0] = 0
        weights /= weights.sum()
        mean = np.tensordot(weights, means, 2)
        apart = (means - mean).reshape(-1, self.count)
        covariance = (weights.reshape(-1, 1) * apart).T @ apart
        for own, (vectors, narrowed) in zip(weights, covariances, strict=True):
            covariance += (vectors * (own @ narrowed)) @ vectors.T
        return _Answer(mean, covariance, float(weights.sum(axis=1) @ _SCATTERS**2), equal)

    def _laplacian(self, weights: FloatArray) -> FloatArray:
        matrix = np.zeros((self.count, self.count))
        np.add.at(matrix, (self.first, self.first), weights)
        np.add.at(matrix, (self.second, self.second), weights)
        np.add.at(matrix, (self.first, self.second), -weights)
        np.add.at(matrix, (self.second, self.first), -weights)
        return matrix

    def _divergence(self, flows: FloatArray) -> FloatArray:
        sums = np.bincount(self.first, flows, self.count)
        return np.asarray(sums - np.bincount(self.second, flows, self.count))
