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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import linear_algebra_by_one_thread

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.overlaps.ratios import PairRatio

FloatArray = NDArray[np.float64]

LARGEST_GAIN = 3.0
"""Gains that differ from the median of their tiles by more than this factor are cut off there."""

# Degrees of freedom of Student's t.
_FREEDOM = 4.0
_ROUNDS = 30
# Log gains that move by less are at rest.
_AT_REST = 1e-5
# Scatters that are less likely than this, beside the likeliest, are looked at in the last round.
_UNLIKELY = 1e-8
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


@linear_algebra_by_one_thread
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

    `equal` says whether equal tiles explain the pairs better, `likely` which scatters count.
    """

    logs: FloatArray
    covariance: FloatArray
    scatter: float
    equal: bool
    likely: NDArray[np.int64]


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
        robust, every = np.ones_like(self.values), np.arange(len(_SCATTERS))
        answer = self._averaged(robust, every)
        for _ in range(_ROUNDS):
            before = answer.logs
            residual = self.values - (before[self.first] - before[self.second])
            own = self.variances + answer.scatter
            # A pair that alone links two parts cannot be contradicted: nothing is left of it.
            left = np.maximum(1 - robust * self._of_pairs(answer.covariance) / own, _LEAST_LEFT)
            robust = np.minimum((_FREEDOM + 1) / (_FREEDOM + residual**2 / (own * left)), 1.0)
            answer = self._averaged(robust, answer.likely)
            if np.allclose(before, answer.logs, rtol=0, atol=_AT_REST):
                break
        answer = self._averaged(robust, every)
        variances = np.diag(answer.covariance)
        if answer.equal:
            return np.zeros(self.count), np.sqrt(variances + answer.logs**2)
        return answer.logs, np.sqrt(variances)

    def _of_pairs(self, covariance: FloatArray) -> FloatArray:
        """The variance of the difference of the two tiles of each pair."""
        variances = np.diag(covariance)
        shared = covariance[self.first, self.second]
        return np.asarray(variances[self.first] + variances[self.second] - 2 * shared)

    def _averaged(self, robust: FloatArray, places: NDArray[np.int64]) -> _Answer:
        """Averaged over all spreads, and over the scatters at some places of their list."""
        scatters, prior = _SCATTERS[places], _PRIOR[places]
        evidence = np.empty((len(scatters), len(_SPREADS)))
        means = np.empty((*evidence.shape, self.count))
        covariances = []
        for i, scatter in enumerate(scatters):
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
        weights = np.exp(evidence - evidence.max()) * prior
        counting = places[weights.max(axis=1) > _UNLIKELY * weights.max()]
        likely = np.arange(counting.min() - 1, counting.max() + 2).clip(0, len(_SCATTERS) - 1)
        equal = bool(weights[:, 0].sum() >= weights[:, 1:].sum())
        # How unequal tiles are is not told by equal ones.
        weights[:, 0] = 0
        weights /= weights.sum()
        mean = np.tensordot(weights, means, 2)
        apart = (means - mean).reshape(-1, self.count)
        covariance = (weights.reshape(-1, 1) * apart).T @ apart
        for own, (vectors, narrowed) in zip(weights, covariances, strict=True):
            covariance += (vectors * (own @ narrowed)) @ vectors.T
        scatter = float(weights.sum(axis=1) @ scatters**2)
        return _Answer(mean, covariance, scatter, equal, np.unique(likely))

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
