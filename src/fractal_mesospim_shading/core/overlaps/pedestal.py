"""What is left of the camera offset under the light, by overlaps alone.

Counts that are no light are the same under both views, whatever the flat-field and the gain of a
tile do to the light. So where these two make the views differ, bright and dim tissue at the same
places differ by other factors, and how much so tells the counts. Neither the flat-field nor the
gains need to be known: a smooth function that all pairs along an axis share, and a number for each
pair, are fitted together with them. What earlier exposures have bleached dims tissue and not the
medium, which looks alike; it goes one way all over an overlap, while shading turns from one view
to the other. So does the structure of a dark frame from which one number was taken off, and nothing
tells these two apart: how much of it the counts would take for theirs is in their uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.threads import linear_algebra_by_one_thread

FloatArray = NDArray[np.float64]

# Degrees of the shared function across and along an overlap.
_ACROSS = 2
_ALONG = 4
# Rounds of the fit, and the step at which it has come to rest, as a share of the dimmest light.
_ROUNDS = 20
_AT_REST = 1e-3
# The dimmest bins keep this part of their light in each round, and single ones half of that.
_LEAST_LEFT = 0.1
# What bleaching takes away of the tissue, standard deviation; a fraction.
_BLEACHING = 0.1
# Half waves over the tile of which the structure of a dark frame consists, along either axis.
_DARK_WAVES = 2
# What is added where the overlaps tell nothing of the pedestal.
_NOTHING = 1e-200
# A pedestal counts beyond so many of its standard deviations.
_SIGMAS = 2.0
# Without bright tissue it counts if it is known to this part of the dimmest light.
_SURE = 0.05
# It is known if its uncertainty is no larger than this part of the dimmest light.
_USEFUL = 0.5
# Scatter of log ratios beside their noise, at least.
_SCATTER = 0.003
# Structure that no smooth function follows counts less beyond so many standard deviations.
_CAUCHY = 2.4

DARK_STRUCTURE = 0.5
"""How far a dark frame differs from its mean from place to place, counts (RMS), about."""

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
        uncertainty: counts, one standard deviation, by leaving out one pair after another, and by
            the structure of the dark frame where that was not measured.
        bright_pairs: number of pairs that hold tissue three times as bright as the medium.
        light: typical light of the dimmest bins, without the pedestal, in counts.
    """

    value: float
    uncertainty: float
    bright_pairs: int
    light: float = 0.0

    @property
    def told(self) -> bool:
        """Whether the overlaps say something of it: it is known to half of the dimmest light."""
        return self.uncertainty <= _USEFUL * min(self.light, self.light + self.value)

    @property
    def enough_tissue(self) -> bool:
        """Whether enough pairs hold bright tissue."""
        return self.bright_pairs >= LEAST_PAIRS

    @property
    def known(self) -> bool:
        """Whether the overlaps can tell beyond doubt: where enough of them hold bright tissue."""
        return self.told and self.enough_tissue

    @property
    def fits(self) -> bool:
        """Whether it is 0 within its uncertainty."""
        return abs(self.value) <= _SIGMAS * self.uncertainty

    @property
    def supported(self) -> float:
        """The value as far as its uncertainty supports one, else 0.

        Tissue that is hardly brighter than the rest may tell it as well, if well enough.
        """
        sure = self.known or self.uncertainty < _SURE * self.light
        return self._beyond(_SIGMAS) ** 2 * self.value if sure else 0.0

    @property
    def likely(self) -> float:
        """The value, smaller by what uncertainty adds to its size on average; 0 if not told."""
        return self._beyond(1.0) * self.value if self.told else 0.0

    def _beyond(self, sigmas: float) -> float:
        """Root of the part of the square of the value that is beyond its uncertainty."""
        if self.value == 0:
            return 0.0
        return float(np.sqrt(max(0.0, 1 - (sigmas * self.uncertainty / self.value) ** 2)))


@linear_algebra_by_one_thread
def pedestal(
    pairs: Sequence[OverlapPair], dark_structure: float | None = DARK_STRUCTURE
) -> Pedestal:
    """Find what is left of the offset.

    Args:
        pairs: of one channel and side, with the light above the offset that was taken off.
        dark_structure: counts (RMS) from place to place by which the dark frame may differ from
            what was taken off; 0 where it was measured, None where counts may be of any scale: then
            the noise of the dimmest bins.
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
        step = float(np.clip(solution[-1], (_LEAST_LEFT - 1) * (dimmest - value), dimmest))
        value -= step
        # The first round finds the shading, without which nothing turns.
        if number and abs(step) < _AT_REST * (dimmest - value):
            break
    if not _matrix(equations)[-1, -1] > _NOTHING:
        # Without shading nothing turns.
        return Pedestal(0.0, np.inf, _bright(pairs, 0.0), dimmest)
    left = [_solved([*equations[:k], *equations[k + 1 :]])[-1] for k in range(len(equations))]
    spread = np.sum((np.array(left) - np.mean(left)) ** 2) * (len(left) - 1) / len(left)
    if dark_structure is None:
        dark_structure = _dimmest_noise(pairs, dimmest)
    structure = dark_structure * _response_to_dark(pairs, equations, value, dimmest)
    # Where it has not come to rest, the last step is what it may be off.
    uncertainty = float(np.hypot(np.hypot(np.sqrt(spread), step), structure))
    return Pedestal(value, uncertainty, _bright(pairs, value), dimmest - value)


def _dimmest_noise(pairs: Sequence[OverlapPair], dimmest: float) -> float:
    """Noise of the bins that are about as dim as the dimmest, typically, in counts."""
    deviations = np.concatenate([np.sqrt(pair.variance / 2) for pair in pairs])
    lights = _lights(pairs)
    dim = lights <= dimmest
    return float(np.median(lights[dim] * deviations[dim]))


def _response_to_dark(
    pairs: Sequence[OverlapPair], equations: Sequence[_Equations], value: float, dimmest: float
) -> float:
    """Counts of the pedestal for each count (RMS) of smooth structure in the dark frame.

    The pedestal is a sum of what the bins hold, once the weights are found.
    """
    number = np.arange(_DARK_WAVES + 1)
    total = np.zeros((len(number), len(number)))
    ends = [
        max(
            float(max(getattr(p, f"{axis}_first").max(), getattr(p, f"{axis}_second").max()))
            for p in pairs
        )
        for axis in "yx"
    ]
    inverse = np.linalg.inv(_matrix(equations))[-1]
    for pair, own in zip(pairs, equations, strict=True):
        share = own.shares(inverse)
        for y, x, light, sign in (
            (pair.y_first, pair.x_first, pair.light_first, 1),
            (pair.y_second, pair.x_second, pair.light_second, -1),
        ):
            told = sign * share / np.maximum(light - value, _floor(dimmest - value))
            rows, columns = (
                np.cos(np.pi * number * (at[:, None] + 0.5) / (end + 1))
                for at, end in zip((y, x), ends, strict=True)
            )
            total += (rows * told[:, None]).T @ columns
    total[1:] *= np.sqrt(2)
    total[:, 1:] *= np.sqrt(2)
    # A constant is no structure.
    total[0, 0] = 0
    return float(np.sqrt(np.sum(total**2) / (total.size - 1)))


def _floor(dimmest: float) -> float:
    """Light of a single bin, at least, by that of the dimmest ones."""
    return _LEAST_LEFT * dimmest / 2


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

    def shares(self, inverse: FloatArray) -> FloatArray:
        """How much of each bin's log ratio goes into an unknown, by its row of the inverse."""
        inner = self.own.T @ (self.weight[:, None] * self.own) + np.diag(self.prior)
        told = self.design @ inverse
        kept = np.linalg.solve(inner, self.own.T @ (self.weight * told))
        shares: FloatArray = self.weight * (told - self.own @ kept)
        return shares


def _equations(
    pair: OverlapPair, terms: FloatArray, smooth: FloatArray, value: float, dimmest: float
) -> _Equations:
    floor = _floor(dimmest - value)
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
    own = np.stack([np.ones(len(light)), (dimmest - value) / light], axis=1)
    prior = np.array([0.0, _BLEACHING**-2])
    weighted = weight[:, None] * design
    cross = own.T @ weighted
    inner = np.linalg.inv(own.T @ (weight[:, None] * own) + np.diag(prior))
    matrix = design.T @ weighted - cross.T @ inner @ cross
    right = weighted.T @ target - cross.T @ inner @ (own.T @ (weight * target))
    return _Equations(matrix, right, design, own, target, weight, prior)


def _solved(equations: Sequence[_Equations]) -> FloatArray:
    right = np.sum([e.right for e in equations], axis=0)
    solution: FloatArray = np.linalg.solve(_matrix(equations), right)
    return solution


def _matrix(equations: Sequence[_Equations]) -> FloatArray:
    matrix: FloatArray = np.sum([e.matrix for e in equations], axis=0)
    # Shading of a factor of e is wide; the pedestal is held by nothing but the data.
    ridge = np.ones(len(matrix))
    ridge[-1] = _NOTHING
    return matrix + np.diag(ridge)
