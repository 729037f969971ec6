"""What is left of the camera offset under the light, by overlaps alone.

Counts that are no light are the same under both views, whatever the flat-field and the gain of a
tile do to the light. So where these two make the views differ, bright and dim tissue at the same
places differ by other factors, and how much so tells the counts. Neither the flat-field nor the
gains need to be known: a smooth function that all pairs along an axis share, and a number for each
pair, are fitted together with them. What earlier exposures have bleached dims tissue and not the
medium, which looks alike; it goes one way all over an overlap, while shading turns from one view
to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.observations import OverlapPair

FloatArray = NDArray[np.float64]

# Degrees of the shared function across and along an overlap.
_ACROSS = 2
_ALONG = 4
# Rounds of the fit, and the step from which on it has come to rest, in counts.
_ROUNDS = 12
_AT_REST = 0.05
# The dimmest bins keep this part of their light.
_LEAST_LEFT = 0.1
# What bleaching takes away of the tissue, standard deviation; a fraction.
_BLEACHING = 0.1
# A pedestal counts beyond so many of its standard deviations.
_SIGMAS = 2.0
# Without bright tissue it counts if it is known to this part of the dimmest light.
_SURE = 0.05
# Scatter of log ratios beside their noise, at least.
_SCATTER = 0.003
# Structure that no smooth function follows counts less beyond so many standard deviations.
_CAUCHY = 2.4

BRIGHT = 3.0
"""Tissue is bright from this multiple of the medium on."""

LEAST_PAIRS = 5
"""Pairs with bright tissue from which on the overlaps say something of the offset."""

# A bright pair has so many bright bins.
_LEAST_BINS = 8
# Part of the bins of all pairs that are taken for the dimmest: the medium, where there is any.
_DIMMEST = 0.02
# And for the typical light of the medium.
_MEDIUM = 0.05


@dataclass(frozen=True)
class Pedestal:
    """Counts without light that are left under the light of overlaps.

    Attributes:
        value: counts; above 0 where the offset that was taken off is too small.
        uncertainty: counts, one standard deviation, by leaving out one pair after another.
        bright_pairs: number of pairs that hold tissue three times as bright as the medium.
        light: typical light of the dimmest bins, without the pedestal, in counts.
    """

    value: float
    uncertainty: float
    bright_pairs: int
    light: float = 0.0

    @property
    def known(self) -> bool:
        """Whether the overlaps can tell: enough pairs of them hold bright tissue."""
        return self.bright_pairs >= LEAST_PAIRS

    @property
    def supported(self) -> float:
        """The value as far as its uncertainty supports one, else 0.

        Tissue that is hardly brighter than the rest may tell it as well, if well enough.
        """
        sure = self.known or self.uncertainty < _SURE * self.light
        if not sure or self.value == 0:
            return 0.0
        return self.value * max(0.0, 1 - (_SIGMAS * self.uncertainty / self.value) ** 2)


def pedestal(pairs: Sequence[OverlapPair]) -> Pedestal:
    """Find what is left of the offset.

    Args:
        pairs: of one channel and side, with the light above the offset that was taken off.
    """
    if len(pairs) < LEAST_PAIRS:
        return Pedestal(0.0, np.inf, 0)
    terms = [_shared_terms(pairs, pair) for pair in pairs]
    dimmest = float(np.quantile(_lights(pairs), _DIMMEST))
    value, step = 0.0, np.inf
    smooth = [np.zeros(len(pair.variance)) for pair in pairs]
    equations: list[_Equations] = []
    for number in range(_ROUNDS):
        equations = [
            _equations(pair, own, ratio, value, dimmest)
            for pair, own, ratio in zip(pairs, terms, smooth, strict=True)
        ]
        solution = _solved(equations)
        smooth = [e.smooth(solution) for e in equations]
        step = float(np.clip(solution[-1], value - (1 - _LEAST_LEFT) * dimmest, dimmest))
        value -= step
        # The first round finds the shading, without which nothing turns.
        if number and abs(step) < _AT_REST:
            break
    left = [_solved([*equations[:k], *equations[k + 1 :]])[-1] for k in range(len(equations))]
    spread = np.sum((np.array(left) - np.mean(left)) ** 2) * (len(left) - 1) / len(left)
    # Where it has not come to rest, the last step is what it may be off.
    uncertainty = float(np.hypot(np.sqrt(spread), step))
    return Pedestal(value, uncertainty, _bright(pairs, value), max(dimmest - value, 0.0))


def _lights(pairs: Sequence[OverlapPair]) -> FloatArray:
    return np.concatenate([np.minimum(pair.light_first, pair.light_second) for pair in pairs])


def _bright(pairs: Sequence[OverlapPair], value: float) -> int:
    """Pairs with tissue well above the medium once the pedestal is taken off."""
    # The mean of both views, for where one is dark by shading the other is not.
    lights = [np.sqrt(p.light_first * p.light_second) - value for p in pairs]
    medium = max(float(np.quantile(np.concatenate(lights), _MEDIUM)), 0.0)
    bright = [int(np.count_nonzero(light > BRIGHT * medium)) for light in lights]
    return sum(number >= _LEAST_BINS for number in bright)


def _shared_terms(pairs: Sequence[OverlapPair], pair: OverlapPair) -> FloatArray:
    """A smooth function of the place in the tile, the same for all pairs along an axis."""
    own = [p for p in pairs if p.axis == pair.axis]
    columns = []
    for axis, degree in (("y", _ALONG), ("x", _ALONG)):
        places = np.concatenate([getattr(p, f"{axis}_first") for p in own])
        low, high = float(places.min()), float(places.max())
        at = (2 * getattr(pair, f"{axis}_first") - low - high) / max(high - low, 1.0)
        columns.append(_legendre(at, _ACROSS if axis == pair.axis else degree))
    products = (columns[0][:, :, None] * columns[1][:, None, :]).reshape(len(pair.variance), -1)
    blank = np.zeros((len(products), products.shape[1] - 1))
    halves = [products[:, 1:], blank] if pair.axis == "y" else [blank, products[:, 1:]]
    return np.concatenate(halves, axis=1)


def _legendre(at: FloatArray, degree: int) -> FloatArray:
    """Legendre polynomials of rising degree, one column each."""
    from scipy.special import eval_legendre

    values: FloatArray = eval_legendre(np.arange(degree + 1), at[:, None])
    return values


@dataclass(frozen=True)
class _Equations:
    """Of one pair: normal equations of what all share, after what is its own was taken out."""

    matrix: FloatArray
    right: FloatArray
    design: FloatArray
    own: FloatArray
    target: FloatArray
    weight: FloatArray
    prior: FloatArray

    def smooth(self, solution: FloatArray) -> FloatArray:
        """The log ratio without pedestal, bleaching and noise."""
        rest = self.target - self.design @ solution
        own = np.linalg.solve(
            self.own.T @ (self.weight[:, None] * self.own) + np.diag(self.prior),
            self.own.T @ (self.weight * rest),
        )
        smooth: FloatArray = self.design[:, :-1] @ solution[:-1] + own[0]
        return smooth


def _equations(
    pair: OverlapPair, terms: FloatArray, smooth: FloatArray, value: float, dimmest: float
) -> _Equations:
    floor = _LEAST_LEFT * dimmest / 2
    first, second = (np.maximum(v - value, floor) for v in (pair.light_first, pair.light_second))
    light = np.sqrt(first * second)
    target = np.log(first / second)
    grown = np.sqrt(pair.light_first * pair.light_second) / light
    deviation = np.sqrt(pair.variance * grown**2 + _SCATTER**2)
    rest = np.abs(target - smooth - np.median(target - smooth)) / deviation
    scale = max(1.0, 1.4826 * float(np.median(rest)))
    weight = 1 / (1 + (rest / (_CAUCHY * scale)) ** 2) / (deviation * scale) ** 2
    # Noise makes a ratio of two views and the light of either of them go together; the smooth
    # ratio and the mean of both do not.
    turned = 2 * np.sinh(smooth / 2) / light
    design = np.concatenate([terms, turned[:, None]], axis=1)
    own = np.stack([np.ones(len(light)), max(dimmest - value, floor) / light], axis=1)
    prior = np.array([0.0, _BLEACHING**-2])
    weighted = weight[:, None] * design
    cross = own.T @ weighted
    inner = np.linalg.inv(own.T @ (weight[:, None] * own) + np.diag(prior))
    matrix = design.T @ weighted - cross.T @ inner @ cross
    right = weighted.T @ target - cross.T @ inner @ (own.T @ (weight * target))
    return _Equations(matrix, right, design, own, target, weight, prior)


def _solved(equations: Sequence[_Equations]) -> FloatArray:
    matrix = np.sum([e.matrix for e in equations], axis=0)
    right = np.sum([e.right for e in equations], axis=0)
    # Shading of a factor of e is wide; the pedestal is held by nothing but the data.
    ridge = np.ones(len(right))
    ridge[-1] = 1e-12
    solution: FloatArray = np.linalg.solve(matrix + np.diag(ridge), right)
    return solution
