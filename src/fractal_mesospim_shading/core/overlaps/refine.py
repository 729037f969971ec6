"""A flat-field made better by what neighbouring tiles show of the same tissue.

Sample in all tiles is printed into any flat-field that is estimated from few of them. Where tiles
overlap, the sample is the same in both views, and the log ratio of these holds the flat-field at
two places of the tile and two gains, nothing else. But overlaps see the edges only, and a tilt of
the flat-field looks to them like a ramp of gains. So everything that is known is put together, each
with its own error: the estimate, smoothness, gains, overlaps. How wrong the estimate is, and how
large the shading, are chosen for the largest evidence (empirical Bayes; Bishop, Pattern Recognition
and Machine Learning, Springer 2006, section 3.5): where the estimate is good it stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.cosines import (
    Cosines,
    image_of,
    shading_cosines,
)
from fractal_mesospim_shading.core.overlaps.expectations import (
    LEAST_VIEWS,
    Expectations,
    expectations,
    tilt_error,
)
from fractal_mesospim_shading.core.overlaps.exposures import by_exposures
from fractal_mesospim_shading.core.overlaps.joint import (
    Expected,
    PairEquations,
    Solution,
    Sums,
    pair_equations,
    robustly_weighted,
    solve,
    total,
)
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.validation import Residual, cross_validated
from fractal_mesospim_shading.core.threads import linear_algebra_by_one_thread

FloatArray = NDArray[np.float64]

LEAST_PAIRS = 3
"""Fewer pairs cannot be tried on each other."""

# Fractions of the scatter that an estimate may hold; the first is that of a good one.
_FRACTIONS = np.geomspace(0.005, 2.56, 19)
# Sizes of an error of the estimate that is as smooth as shading, and no picture of the sample.
_SMOOTH_ERRORS = np.array([0.0, 0.003, 0.006, 0.012, 0.025, 0.05])
# Sizes of shading, of which this one is typical, within a factor of two.
_AMPLITUDES = np.geomspace(0.035, 0.8, 10)
_TYPICAL_AMPLITUDE = 0.15
_AMPLITUDE_SPREAD = 0.7
# Log gains: their spread is never taken to be less than this, and they may drift
# by so much from one end of the mosaic to the other.
_LEAST_SPREAD = 0.02
_FIRST_SPREAD = 0.1
_DRIFT = 0.1
# Overlaps have to speak for a change with this log evidence, and the error has to fall to this.
_LEAST_EVIDENCE = 10.0
_LEAST_BETTER = 0.8
# Logarithms are given to so many decimals: the last bits of a float differ from machine to machine.
_DECIMALS = 6


_UNKNOWN = Residual(np.nan, np.nan)


@dataclass(frozen=True)
class Refinement:
    """A flat-field and what its overlaps say of it.

    Attributes:
        log_change: (y, x) in bins: what is added to the logarithm of the flat-field; 0 if kept.
        used: whether the overlaps change the flat-field.
        reason: why not, in words that follow "because"; empty if they do.
        pairs: of tiles that were compared.
        error_before, error_after: RMS error of the flat-field that is expected, as a fraction; not
            known (infinite) where nothing could be compared.
        before, after: what is left of overlaps from which nothing was learnt (cross-validated);
            NaN where nothing could be compared.
        log_gains: of the tiles by number, as they came out beside the flat-field, mean 0.
    """

    log_change: FloatArray
    used: bool
    reason: str
    pairs: int
    error_before: float = np.inf
    error_after: float = np.inf
    before: Residual = _UNKNOWN
    after: Residual = _UNKNOWN
    log_gains: Mapping[int, float] = field(default_factory=dict)


@linear_algebra_by_one_thread
def refine_flatfield(
    pairs: Sequence[OverlapPair],
    log_flatfield: FloatArray,
    views: Mapping[int, FloatArray],
    positions: Mapping[int, tuple[float, float]],
    tile_shape: tuple[int, int],
) -> Refinement:
    """Make a flat-field better by overlaps, or leave it where they do not speak for a change.

    Args:
        pairs: of tiles that share the flat-field.
        log_flatfield: (y, x) in bins of a tile, as estimated from planes.
        views: light of tiles by number, (y, x) in the same bins: mean over the planes that the
            estimate rests on, in counts above the offset; NaN where there is no data.
        positions: (y, x) of the tiles by number, pixels.
        tile_shape: (y, x) in pixels.
    """
    usable = [pair for pair in pairs if len(pair.variance) > 0]
    if len(usable) < LEAST_PAIRS:
        reason = f"{len(usable)} overlaps could be compared, and it takes {LEAST_PAIRS}"
        return Refinement(np.zeros_like(log_flatfield), False, reason, len(usable))
    problem = _problem(usable, log_flatfield, views, positions, tile_shape)
    choice = _most_likely(problem)
    return _decided(problem, choice, usable)


@dataclass(frozen=True)
class _Problem:
    """All that is known.

    Attributes:
        known: of the flat-field before the overlaps.
        cosines: that the overlaps may change.
        drift: covariance of the log gains by their drift through the mosaic.
        spread: standard deviation of the log gains beside it.
        tiles: numbers, in the order of the gains.
        pairs: number of the pair that each of the equations is of.
        equations: of the overlaps, with weights.
        sums: of all of them.
    """

    known: Expectations
    cosines: Cosines
    drift: FloatArray
    spread: float
    tiles: tuple[int, ...]
    pairs: Sequence[int]
    equations: Sequence[PairEquations]
    sums: Sums

    def expected(self, fraction: float, amplitude: float, smooth: float = 0.0) -> Expected:
        """Of all unknowns, if the estimate holds a fraction of the scatter, and a smooth error."""
        place = self.cosines.y, self.cosines.x
        error = self.known.error(fraction, smooth)[place]
        count, number = len(error), len(error) + len(self.tiles)
        mean, precision = np.zeros(number), np.zeros((number, number))
        precision[:count, :count] = np.linalg.inv(self.known.shading(amplitude, place))
        precision[range(count), range(count)] += 1 / error
        told = self.known.estimate[place] / error
        mean[:count] = np.linalg.solve(precision[:count, :count], told)
        gains = self.spread**2 * np.eye(len(self.tiles)) + self.drift
        precision[count:, count:] = np.linalg.inv(gains)
        return Expected(mean, precision)


@dataclass(frozen=True)
class _Choice:
    """The most likely fraction and amplitude, what follows, and the log evidence for a change."""

    fraction: float
    amplitude: float
    solution: Solution
    evidence: float


def _problem(
    pairs: Sequence[OverlapPair],
    log_flatfield: FloatArray,
    views: Mapping[int, FloatArray],
    positions: Mapping[int, tuple[float, float]],
    tile_shape: tuple[int, int],
) -> _Problem:
    tiles = tuple(sorted({number for pair in pairs for number in (pair.first, pair.second)}))
    places = np.array([positions[number] for number in tiles]) / np.array(tile_shape)
    known = _with_tilts(expectations(log_flatfield, views), views, positions, tile_shape)
    cosines = shading_cosines(tile_shape, (log_flatfield.shape[0], log_flatfield.shape[1]))
    ramps = places - places.mean(axis=0)
    ramps /= np.maximum(np.ptp(places, axis=0), 1e-9)
    parts = [by_exposures(pair, positions, tile_shape) for pair in pairs]
    numbers = {number: k for k, number in enumerate(tiles)}
    equations = pair_equations([part for own in parts for part in own], cosines, numbers)
    problem = _Problem(
        known=known,
        cosines=cosines,
        drift=_DRIFT**2 * ramps @ ramps.T,
        spread=_FIRST_SPREAD,
        tiles=tiles,
        pairs=[k for k, own in enumerate(parts) for _ in own],
        equations=equations,
        sums=total(equations),
    )
    # Weights come from the solution that is freest to follow the overlaps.
    free = problem.expected(1.0, _TYPICAL_AMPLITUDE)
    weighted = robustly_weighted(equations, free)
    sums = total(weighted)
    gains = solve(sums, free).mean[len(cosines.y) :]
    slopes = np.linalg.lstsq(ramps, gains, rcond=None)[0]
    spread = max(float(np.std(gains - ramps @ slopes)), _LEAST_SPREAD)
    return replace(problem, equations=weighted, sums=sums, spread=spread)


def _with_tilts(
    known: Expectations,
    views: Mapping[int, FloatArray],
    positions: Mapping[int, tuple[float, float]],
    tile_shape: tuple[int, int],
) -> Expectations:
    """With the error that a ramp through the whole sample adds to tilts."""
    numbers = [number for number in sorted(views) if number in positions]
    if len(numbers) < LEAST_VIEWS:
        return known
    light = [max(float(np.nanmedian(views[number])), 1e-6) for number in numbers]
    places = np.array([positions[number] for number in numbers]) / np.array(tile_shape)
    scatter = known.scatter.copy()
    scatter[1, 0] += tilt_error(np.log(light), places[:, 0])
    scatter[0, 1] += tilt_error(np.log(light), places[:, 1])
    return replace(known, scatter=scatter)


def _most_likely(problem: _Problem) -> _Choice:
    """Along one axis after the other, so that few solutions are needed."""

    def evidence(fraction: float, amplitude: float) -> float:
        unlikely = float(np.log(amplitude / _TYPICAL_AMPLITUDE) / _AMPLITUDE_SPREAD) ** 2 / 2
        return solve(problem.sums, problem.expected(fraction, amplitude)).evidence - unlikely

    amplitude = _TYPICAL_AMPLITUDE
    for _ in range(2):
        fraction = max(_FRACTIONS, key=lambda value: evidence(float(value), amplitude))
        amplitude = max(_AMPLITUDES, key=lambda value: evidence(float(fraction), float(value)))
    kept = max(evidence(float(_FRACTIONS[0]), float(value)) for value in _AMPLITUDES)
    best = evidence(float(fraction), float(amplitude))
    solution = solve(problem.sums, problem.expected(float(fraction), float(amplitude)))
    return _Choice(float(fraction), float(amplitude), solution, best - kept)


def _decided(problem: _Problem, choice: _Choice, pairs: Sequence[OverlapPair]) -> Refinement:
    change, _ = _changed(problem, choice, choice.solution)
    # What is expected of the error also counts one that is none of the sample, if any is likely.
    wide, variance = _changed(problem, choice, _with_smooth_error(problem, choice))
    before = float(np.sqrt(np.sum(wide**2) + variance))
    after = float(np.sqrt(np.sum((wide - change) ** 2) + variance))
    residuals = cross_validated(
        problem.equations,
        problem.pairs,
        problem.expected(choice.fraction, choice.amplitude),
        problem.known.estimate[problem.cosines.y, problem.cosines.x],
    )
    gains = choice.solution.mean[len(problem.cosines.y) :]
    gains = gains - gains.mean()
    reason = _reason(choice, before, after, *residuals)
    image = image_of(change) if not reason else np.zeros_like(change)
    return Refinement(
        log_change=np.round(image, _DECIMALS),
        used=not reason,
        reason=reason,
        pairs=len(pairs),
        error_before=before,
        error_after=after,
        before=residuals[0],
        after=residuals[1],
        log_gains={n: float(g) for n, g in zip(problem.tiles, gains, strict=True)},
    )


def _reason(
    choice: _Choice, error_before: float, error_after: float, before: Residual, after: Residual
) -> str:
    """Why the flat-field stays; empty if it does not."""
    if choice.evidence < _LEAST_EVIDENCE:
        return "the overlaps agree with it"
    if error_after > _LEAST_BETTER * error_before:
        return (
            f"it would be known to {100 * error_after:.1f} % only, and is about "
            f"{100 * error_before:.1f} % off"
        )
    if after.median > before.median or after.p90 > before.p90:
        return (
            "overlaps from which nothing was learnt would not agree better (typically "
            f"{100 * after.median:.2f} instead of {100 * before.median:.2f} %)"
        )
    return ""


def _with_smooth_error(problem: _Problem, choice: _Choice) -> Solution:
    """The most likely solution if the estimate may also be wrong by something smooth."""
    return max(
        (
            solve(problem.sums, problem.expected(choice.fraction, choice.amplitude, float(smooth)))
            for smooth in _SMOOTH_ERRORS
        ),
        key=lambda solution: solution.evidence,
    )


def _changed(problem: _Problem, choice: _Choice, solution: Solution) -> tuple[FloatArray, float]:
    """Change of all coefficients, and the variance that is left in their sum.

    Cosines too fine for overlaps are shrunk by the share that sample has in them.
    """
    known, place = problem.known, (problem.cosines.y, problem.cosines.x)
    smooth = known.smoothness(choice.amplitude)
    sample = choice.fraction**2 * known.scatter
    change = -known.estimate * sample / (smooth + sample)
    variance = smooth * sample / (smooth + sample)
    count = len(problem.cosines.y)
    change[place] = solution.mean[:count] - known.estimate[place]
    variance[place] = np.diag(solution.covariance)[:count]
    change[0, 0] = variance[0, 0] = 0
    return change, float(variance.sum())
