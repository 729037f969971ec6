"""The camera offset that all evidence together speaks for.

Each piece of evidence is a likelihood of the offset: the line of the variance, which begins at the
offset less gain times read variance; the third cumulant, where it is that of photons; the
darkest squares, which no offset is above; what cameras are like. Their product over a grid of
offsets, averaged over everything else that is not known (read noise, gain, whether the noise is
that of photons at all), is the posterior probability. The value is its median, and two
uncertainties to either side hold 95 % of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.moments import Line
from fractal_mesospim_shading.core.flatfield.noise import Level, Scales

FloatArray = NDArray[np.float64]
Mixture = Sequence[tuple[float, float, float]]

# Each a mixture of normal distributions: share, mean, standard deviation.
# Logarithm of the variance of the read noise, electrons squared: scientific CMOS cameras (1.45
# electrons within 20 %), all others (2 within a factor of 1.65), and the quietest (0.7).
_READ_VARIANCE: Mixture = (
    (0.5, 2 * float(np.log(1.45)), 0.4),
    (0.35, 2 * float(np.log(2.0)), 1.0),
    (0.15, 2 * float(np.log(0.7)), 0.8),
)
# Logarithm of the gain of the camera over that of the line. It is the same for photons, unless
# frames were averaged, which leaves them photons of a smaller gain. Noise that was changed has
# mostly the same or, after filters, a larger one.
_SAME: Mixture = ((0.85, 0.0, 0.0), (0.15, 1.4, 0.7))
_CHANGED: Mixture = ((0.7, 0.0, 0.1), (0.3, 0.5, 0.5))
_FILTERED: Mixture = ((0.6, 0.15, 0.2), (0.4, 0.5, 0.5))
# How probable it is that the third cumulant is that of photons, that it is nearly, and
# by how much, as a fraction, it differs from gain squared then.
_EXACTLY, _NEARLY = 0.55, 0.35
_EXACTLY_WITHIN, _NEARLY_WITHIN = 0.01, 0.1
# The same where an image processor of the microscope is named.
_PROCESSED = 0.3
# Otherwise it is anything between minus gain squared and twice that.
_ANYTHING = 3.0
# Noise of photons at the finest scale over that of cells: not below 1 by more than this.
_WHITE_WITHIN = 0.025
# Third cumulant of the read noise itself, electrons cubed: pixels that flicker between levels.
_READ_SKEWNESS = 0.3
# Pixels differ in sensitivity by this fraction.
_PIXEL_SPREAD = 0.004
# Variance that is not counted in electrons, counts squared, and no more than electrons squared.
_OTHER_VARIANCE = 0.3
_MOST_OTHER_VARIANCE = 0.1
# Of single planes: that of a camera's fixed pattern.
_FIXED_PATTERN = 1.0
# What cameras store without light, counts: most 100, all 90 to 210.
_USUAL: Mixture = ((0.35, 100.0, 1.5), (0.3, 100.0, 5.0))
_FIRST, _LAST, _IN_RANGE = 90.0, 210.0, 0.3
# Probability that the offset was removed, of raw images and of others.
_REMOVED, _REMOVED_OTHERS, _REMOVED_WITH_ZEROS = 0.05, 0.3, 0.9
# From this share of zeros on.
_ZEROS = 0.001
_ELSEWHERE = 0.05
# What the structure of a dark frame leaves open at least, counts.
_DARK_STRUCTURE = 0.5
# Points of each part of the grid of offsets.
_POINTS = 400
# Of these, so many at a time: the arrays of all would not stay in the caches.
_AT_A_TIME = 64


@dataclass(frozen=True)
class Evidence:
    """What is known of the offset of a channel.

    Attributes:
        variance: the line of the noise's variance; None where it is no line.
        gain_error: relative error of its slope beside that of the fit.
        third: the line of the third cumulant; None without pairs of planes.
        scales: of the noise of neighbouring pixels.
        pairs: whether the variance is free of the camera's fixed pattern.
        darkest: the darkest squares.
        raw: whether the pixels are those of a camera, in 16 bits without sign, as far
            as is known.
        zeros: share of the pixels that are 0 among others that are not; no camera with an
            offset measures them.
        processed: whether an image processor is named.
        integer: whether the pixels were rounded to whole counts.
    """

    variance: Line | None
    gain_error: float
    third: Line | None
    scales: Scales
    pairs: bool
    darkest: Level
    raw: bool
    zeros: float
    processed: bool
    integer: bool


@dataclass(frozen=True)
class Posterior:
    """The offset after all evidence.

    Attributes:
        value: counts, the median.
        uncertainty: counts; twice as much to either side holds 95 %.
        photons: probability that the noise is that of photons.
        read_noise: electrons, the median where the noise is that of photons; else NaN.
    """

    value: float
    uncertainty: float
    photons: float
    read_noise: float


def posterior(evidence: Evidence) -> Posterior:
    """Weigh all evidence."""
    grid = _grid(evidence)
    prior = _prior(grid, evidence)
    prior *= _normal_below(grid, evidence.darkest)
    likelihood, photons, read_noise = _of_noise(grid, prior, evidence)
    probability = prior * likelihood
    total = probability.sum()
    if not total > 0:
        return Posterior(float(max(evidence.darkest.value, grid[0])), np.inf, 0.0, np.nan)
    probability /= total
    value = _quantile(grid, probability, 0.5)
    low, high = (_quantile(grid, probability, share) for share in (0.023, 0.977))
    uncertainty = max(value - low, high - value) / 2
    least = _DARK_STRUCTURE if evidence.integer else 0.0
    return Posterior(value, float(np.hypot(uncertainty, least)), photons, read_noise)


def _grid(evidence: Evidence) -> FloatArray:
    """Offsets to weigh, dense where one of the ways to tell it is sharp."""
    top = evidence.darkest.value + 6 * evidence.darkest.error
    line, third = evidence.variance, evidence.third
    parts = [np.zeros(1)]
    bottom = 0.0
    if line is not None:
        error, step = 6 * line.zero_error, line.slope * max(evidence.scales.coarse, 1.0)
        if not evidence.integer:
            bottom = min(0.0, line.at_zero - error)
        parts.append(np.linspace(line.at_zero - error, line.at_zero + error, _POINTS))
        logs = np.linspace(np.log(0.01), np.log(200), _POINTS)
        parts.append(line.at_zero + step * np.exp(logs))
        if third is not None:
            by_third = third.centre - third.level / line.slope**2
            error = 6 * (third.level_error / line.slope**2 + 0.1 * abs(third.centre - by_third))
            parts.append(np.linspace(by_third - error, by_third + error, _POINTS))
    parts += [np.linspace(bottom, max(top, bottom), _POINTS)]
    if evidence.integer:
        parts += [np.linspace(90, 110, _POINTS)]
    grid = np.unique(np.concatenate(parts))
    kept = (grid >= bottom) & ((grid <= top) | (grid == bottom))
    return np.asarray(grid[kept])


def _prior(grid: FloatArray, evidence: Evidence) -> FloatArray:
    """Probability of each offset before the noise was looked at."""
    width = np.gradient(grid) if len(grid) > 1 else np.ones(1)
    span = max(float(grid[-1] - grid[0]), float(np.finfo(float).tiny))
    density = np.full(grid.shape, 1 / span)
    removed = _REMOVED_OTHERS
    if evidence.zeros >= _ZEROS:
        removed = _REMOVED_WITH_ZEROS
    elif evidence.raw and evidence.darkest.value >= _FIRST:
        removed = _REMOVED
        inside = (grid >= _FIRST) & (grid <= _LAST)
        density = _ELSEWHERE * density + _IN_RANGE * inside / (_LAST - _FIRST)
        density += _mixture(grid, _USUAL)
    mass = (1 - removed) * density * width
    mass[np.searchsorted(grid, 0.0)] += removed if grid[0] <= 0 else 0.0
    return np.asarray(mass)


def _of_noise(
    grid: FloatArray, prior: FloatArray, evidence: Evidence
) -> tuple[FloatArray, float, float]:
    """Likelihood of each offset by the noise, probability of photons, read noise."""
    line, third, scales = evidence.variance, evidence.third, evidence.scales
    if line is None:
        return np.ones(grid.shape), 0.0, float("nan")
    changed = _CHANGED
    if scales.filtered:
        base = float(np.log(max(scales.coarse, 1.0)))
        changed = [(share, mean + base, spread) for share, mean, spread in _FILTERED]
    if third is None:
        half = [(0.5 * w, m, s) for part in (_SAME, changed) for w, m, s in part]
        return _offsets(grid, line, None, half, 0.0, evidence).sum(axis=1), 0.0, float("nan")
    known = _PROCESSED if evidence.processed else 1.0
    white = np.exp(-0.5 * (min(scales.fine - 1, 0.0) / _WHITE_WITHIN) ** 2)
    by_read_noise = np.zeros((len(grid), len(_LOGS)))
    for share, within in ((_EXACTLY, _EXACTLY_WITHIN), (_NEARLY, _NEARLY_WITHIN)):
        by_read_noise += (
            known * share * white * _offsets(grid, line, third, _SAME, within, evidence)
        )
    photons = by_read_noise.sum(axis=1)
    anything = (_ANYTHING * line.slope**2) ** 2 * max(third.centre - line.at_zero, line.slope)
    other = (1 - known * (_EXACTLY + _NEARLY)) / anything
    other = other * _offsets(grid, line, None, changed, 0.0, evidence).sum(axis=1)
    of_photons = float((prior * photons).sum())
    total = of_photons + float((prior * other).sum())
    read = (prior[:, None] * by_read_noise).sum(axis=0)
    read_noise = (
        float(np.exp(_quantile(_LOGS, read / read.sum(), 0.5) / 2)) if read.sum() else np.nan
    )
    return photons + other, of_photons / total if total else 0.0, read_noise


_LOGS = np.linspace(np.log(0.02), np.log(400), 241)
"""Logarithms of the read variance, times the gain of the camera over that of the line."""


def _offsets(
    grid: FloatArray,
    line: Line,
    third: Line | None,
    gains: Mixture,
    within: float,
    evidence: Evidence,
) -> FloatArray:
    """Likelihood of each offset (rows) with each read variance (columns), times its probability.

    The observations are the height of the line of variance at its centre and, with a third
    cumulant, that of its line and its slope. They share the error of the gain, and the third
    cumulant has one factor that differs from 1 by about `within`.
    """
    weight = np.zeros(_LOGS.shape)
    for share, mean, spread in _READ_VARIANCE:
        for part, more, wider in gains:
            weight += _mixture(_LOGS, [(share * part, mean + more, float(np.hypot(spread, wider)))])
    weight *= _LOGS[1] - _LOGS[0]
    parts = [grid[k : k + _AT_A_TIME] for k in range(0, len(grid), _AT_A_TIME)]
    return np.concatenate([_likelihood(p, line, third, within, evidence) * weight for p in parts])


def _likelihood(
    grid: FloatArray, line: Line, third: Line | None, within: float, evidence: Evidence
) -> FloatArray:
    """Likelihood of each offset (rows) with each read variance (columns)."""
    gain, read = line.slope, np.exp(_LOGS)[None, :]
    light = line.centre - grid[:, None]
    gain_variance = line.slope_error**2 + (evidence.gain_error * gain) ** 2
    other = min(_OTHER_VARIANCE, _MOST_OTHER_VARIANCE * gain**2)
    if not evidence.integer:
        other = _MOST_OTHER_VARIANCE * gain**2
    missing = line.level - gain * light - gain**2 * read
    by_gain = light + 2 * gain * read
    variance = line.level_error**2 + other**2
    if not evidence.pairs:
        pattern = _FIXED_PATTERN if evidence.integer else gain**2
        missing, variance = missing - pattern / 2, variance + pattern**2
    variance = variance + by_gain**2 * gain_variance
    first = np.exp(-0.5 * missing**2 / variance) / np.sqrt(2 * np.pi * variance)
    if third is None:
        return np.asarray(first)
    # What the first observation tells of the gain goes on to the second and the third.
    learnt = by_gain * gain_variance / variance
    gain_error, left = learnt * missing, gain_variance * (1 - learnt * by_gain)
    above = third.centre - grid[:, None]
    skew = (gain**3 * _READ_SKEWNESS) ** 2 + (2 * gain * (_PIXEL_SPREAD * above) ** 2) ** 2
    residual_level = third.level - gain**2 * above - 2 * gain * above * gain_error
    residual_slope = third.slope - gain**2 - 2 * gain * gain_error
    shared = (2 * gain) ** 2 * left + (gain**2 * within) ** 2
    a = third.level_error**2 + skew + above**2 * shared
    b, c = above * shared, third.slope_error**2 + shared
    determinant = a * c - b**2
    misfit = c * residual_level**2 - 2 * b * residual_level * residual_slope
    misfit = (misfit + a * residual_slope**2) / determinant
    second = np.exp(-0.5 * misfit) / (2 * np.pi * np.sqrt(determinant))
    return np.asarray(first * second)


def _normal_below(grid: FloatArray, level: Level) -> FloatArray:
    """Probability that a level is above each offset."""
    from scipy.special import ndtr

    return np.asarray(
        ndtr((level.value - grid) / max(level.error, 1e-12 + 1e-9 * abs(level.value)))
    )


def _mixture(values: FloatArray, mixture: Mixture) -> FloatArray:
    density = np.zeros(values.shape)
    for share, mean, spread in mixture:
        density += (
            share / (np.sqrt(2 * np.pi) * spread) * np.exp(-0.5 * ((values - mean) / spread) ** 2)
        )
    return density


def _quantile(values: FloatArray, probability: FloatArray, share: float) -> float:
    """Where so much of the probability lies below; at a value that holds it, that value."""
    sums = np.cumsum(probability)
    below = sums - probability
    k = min(int(np.searchsorted(sums, share)), len(values) - 1)
    if probability[k] > 0.25:
        return float(values[k])
    return float(np.interp(share, (below + sums) / 2, values))
