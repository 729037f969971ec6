"""Equations of a flat-field and gains from overlaps, and their most likely solution.

Unknown are coefficients of cosines and the log gain of each tile. A bin of an overlap tells the
difference of the log flat-field at two places and of two log gains. Its error has a part that is
independent from bin to bin, with outliers (Student's t), and one that all bins of a pair have in
common, by stage errors and bleaching. Neighbouring bins that show the same error count for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.cosines import Cosines
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair

FloatArray = NDArray[np.float64]

# Student's t of the bins.
_FREEDOM = 3.0
_ROUNDS = 6
# A pair's own scatter counts beside that of all pairs like this many bins.
_COMMON_BINS = 20
# What a pair has in common is never known to be less than this, in the logarithm.
_LEAST_COMMON = 0.003
_FIRST_COMMON = 0.005
_FIRST_SCATTER = 0.02
# Bins within so many bins of each other may show the same error.
_REACH_BINS = 3.2
_MOST_ALIKE = 20.0
# Views of one place at several heights scatter by so much beyond their noise, about.
_HEIGHTS_SCATTER = 0.01
# Places that are looked at in all pairs together, about, and of each pair at least.
_MOST_PLACES = 30_000
_FEW_PLACES = 100


@dataclass(frozen=True)
class Sums:
    """Normal equations of some pairs: `matrix @ unknowns = right`, and the misfit of zeros."""

    matrix: FloatArray
    right: FloatArray
    square: float

    def __add__(self, other: Sums) -> Sums:
        """Of both."""
        return Sums(
            self.matrix + other.matrix, self.right + other.right, self.square + other.square
        )


@dataclass(frozen=True)
class Solution:
    """Mean and covariance of the unknowns, and the log evidence of what was expected of them."""

    mean: FloatArray
    covariance: FloatArray
    evidence: float


@dataclass(frozen=True)
class Expected:
    """Normal distribution of the unknowns before the overlaps: mean, and inverse covariance."""

    mean: FloatArray
    precision: FloatArray


@dataclass(frozen=True)
class PairEquations:
    """What one pair tells.

    Attributes:
        design: (bins, unknowns).
        ratio: (bins,) log ratio.
        noise: (bins,) variance by the noise of pixels.
        near: (n, 2) bins near each other.
        weight: (bins,) inverse variance of the independent errors.
        common: variance of the error that the bins have in common.
    """

    design: FloatArray
    ratio: FloatArray
    noise: FloatArray
    near: NDArray[np.intp]
    weight: FloatArray
    common: float

    def sums(self) -> Sums:
        """Its normal equations, the common error integrated out."""
        weighted = self.design * self.weight[:, None]
        crossed, across = weighted.sum(axis=0), float(self.weight @ self.ratio)
        share = 1 / (1 / self.common + float(self.weight.sum()))
        return Sums(
            weighted.T @ self.design - share * np.outer(crossed, crossed),
            weighted.T @ self.ratio - share * across * crossed,
            float(self.weight @ self.ratio**2) - share * across**2,
        )

    def residual(self, unknowns: FloatArray) -> FloatArray:
        """What is left of the log ratio."""
        return np.asarray(self.ratio - self.design @ unknowns)

    def common_error(self, residual: FloatArray) -> tuple[float, float]:
        """The most likely common error, and its variance."""
        variance = 1 / (1 / self.common + float(self.weight.sum()))
        return variance * float(self.weight @ residual), variance


def pair_equations(
    pairs: Sequence[OverlapPair], cosines: Cosines, tiles: Mapping[int, int]
) -> list[PairEquations]:
    """The equations of all pairs, without robust weights yet.

    Args:
        pairs: with at least one bin each.
        cosines: of the flat-field.
        tiles: place of each tile among the gains, by its number.
    """
    places = [_places(pair) for pair in pairs]
    share = min(1.0, _MOST_PLACES / sum(len(one.ratio) for one in places))
    made = []
    for pair, every in zip(pairs, places, strict=True):
        one = every.drawn(max(int(share * len(every.ratio)), min(len(every.ratio), _FEW_PLACES)))
        gains = np.zeros((len(one.ratio), len(tiles)))
        gains[:, tiles[pair.first]], gains[:, tiles[pair.second]] = 1, -1
        shape = cosines.at(*one.first.T) - cosines.at(*one.second.T)
        made.append(
            PairEquations(
                design=np.hstack([shape, gains]),
                ratio=one.ratio,
                noise=one.noise,
                near=_near(one.first),
                weight=np.full(len(one.ratio), _FIRST_SCATTER**-2),
                common=_FIRST_COMMON**2,
            )
        )
    return made


def robustly_weighted(
    equations: Sequence[PairEquations], expected: Expected
) -> list[PairEquations]:
    """The equations with weights by what a solution leaves of them."""
    current = list(equations)
    for _ in range(_ROUNDS):
        unknowns = solve(total(current), expected).mean
        left, squares = [], []
        for pair in current:
            residual = pair.residual(unknowns)
            error, variance = pair.common_error(residual)
            left.append(residual - error)
            squares.append(error**2 + variance)
        # Twice the median of squares is about their mean; single pairs may be far off.
        typical = max(2 * float(np.median(squares)), _LEAST_COMMON**2)
        variances = _variances(current, left)
        alike = _alike(current, left, variances)
        current = [
            replace(
                pair,
                weight=(_FREEDOM + 1) / (_FREEDOM + residual**2 / variance) / variance / alike,
                common=(_FREEDOM * typical + square) / (_FREEDOM + 1),
            )
            for pair, residual, variance, square in zip(
                current, left, variances, squares, strict=True
            )
        ]
    return current


def total(equations: Sequence[PairEquations]) -> Sums:
    """Normal equations of all pairs together."""
    result = equations[0].sums()
    for pair in equations[1:]:
        result = result + pair.sums()
    return result


def solve(sums: Sums, expected: Expected) -> Solution:
    """The unknowns given overlaps and expectations; weights are taken as known."""
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(sums.matrix + expected.precision, lower=True)
    offset = sums.matrix @ expected.mean
    right = sums.right - offset
    step = cho_solve(factor, right)
    misfit = sums.square - 2 * sums.right @ expected.mean + offset @ expected.mean - right @ step
    known = np.linalg.slogdet(expected.precision)[1]
    evidence = (known - misfit) / 2 - np.log(np.diag(factor[0])).sum()
    covariance = cho_solve(factor, np.eye(len(step)))
    return Solution(expected.mean + step, np.asarray(covariance), float(evidence))


def _variances(equations: Sequence[PairEquations], left: Sequence[FloatArray]) -> list[FloatArray]:
    """Of the independent errors: noise, and a scatter that every pair shows itself."""
    spreads = [2.2 * float(np.median(residual**2)) for residual in left]
    typical = float(np.median(spreads))
    variances = []
    for pair, residual, spread in zip(equations, left, spreads, strict=True):
        number = len(residual)
        shared = (number * spread + _COMMON_BINS * typical) / (number + _COMMON_BINS)
        excess = max(shared - float(np.median(pair.noise)), 0.0)
        variances.append(np.maximum(pair.noise + excess, 1e-10))
    return variances


def _alike(
    equations: Sequence[PairEquations],
    left: Sequence[FloatArray],
    variances: Sequence[FloatArray],
) -> float:
    """How many bins are as good as one independent one."""
    squares = products = 0.0
    for pair, residual, variance in zip(equations, left, variances, strict=True):
        score = np.clip(residual / np.sqrt(variance), -3, 3)
        score = score - score.mean()
        squares += float(score @ score)
        products += float(score[pair.near[:, 0]] @ score[pair.near[:, 1]])
    return float(np.clip(1 + 2 * products / squares, 1, _MOST_ALIKE)) if squares > 0 else 1.0


@dataclass(frozen=True)
class _Places:
    """Places of an overlap, (places, 2) along y and x in both tiles, and what was seen there."""

    first: FloatArray
    second: FloatArray
    ratio: FloatArray
    noise: FloatArray

    def drawn(self, number: int) -> _Places:
        """So many of them, evenly spread by chance, the same ones every time."""
        if number >= len(self.ratio):
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.ratio))[:number])
        return _Places(
            self.first[chosen], self.second[chosen], self.ratio[chosen], self.noise[chosen]
        )


def _places(pair: OverlapPair) -> _Places:
    """The bins of a pair, those of all heights at a place joined to their weighted mean."""
    every = np.stack([pair.y_first, pair.x_first, pair.y_second, pair.x_second], axis=1)
    places, which = np.unique(every, axis=0, return_inverse=True)
    which = which.ravel()
    weight = 1 / (pair.variance + _HEIGHTS_SCATTER**2)
    total_weight = np.bincount(which, weight)
    return _Places(
        places[:, :2],
        places[:, 2:],
        np.bincount(which, weight * pair.log_ratio) / total_weight,
        np.bincount(which, weight**2 * pair.variance) / total_weight**2,
    )


def _near(places: FloatArray) -> NDArray[np.intp]:
    """Numbers of places that lie near each other, two by two."""
    from scipy.spatial import cKDTree

    if len(places) < 2:
        return np.zeros((0, 2), np.intp)
    tree = cKDTree(places)
    step = float(np.median(tree.query(places, 2)[0][:, 1]))
    near: NDArray[np.intp] = tree.query_pairs(_REACH_BINS * step, output_type="ndarray")
    return near
