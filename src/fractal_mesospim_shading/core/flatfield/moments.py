"""Variance and third cumulant of the noise as lines in the mean.

Counted photons have a variance of `gain * (mean - offset)` beside that of the read noise (photon
transfer: Janesick, Photon Transfer, SPIE Press 2007, doi:10.1117/3.725073), and a third cumulant of
`gain^2 * (mean - offset)`, to which read noise, being symmetric, adds nothing (moments of Poisson
counts: Johnson, Kemp, Kotz, Univariate Discrete Distributions, Wiley 2005,
doi:10.1002/0471715816; variance of the estimate by the rules for k-statistics: Kendall,
Stuart, The Advanced Theory of Statistics I, chapter 12).

What squares differ from a line beyond their noise is mostly the same at one place in all planes
(defects of the camera, structure), so the errors of a line are those of places (the sandwich
estimate for clusters: Liang, Zeger 1986, doi:10.1093/biomet/73.1.13).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binned_skew import SKEW_PIXELS
from fractal_mesospim_shading.core.flatfield.noise import NoiseSquares

FloatArray = NDArray[np.float64]

# Variance of rounding to whole counts.
_ROUNDING = 1 / 12
# In a chain of pairs the squares of neighbouring differences have a correlation of 1/4.
_PAIRS_ERROR = 1.5**0.5
# The lines scatter more than their squares do: through all, and through the lower envelope.
_LINE_ERROR = 1.2
_ENVELOPE_ERROR = 1.7
# Mean of a normal variable cut off at -4 and 1.5 standard deviations.
_ENVELOPE_SHIFT = -0.1386
# Squares with fewer degrees of freedom say too little about the noise.
_LEAST_CELLS = 12
# Rounds of fitting a line to what lies near it, at most.
_ROUNDS = 40
# Fewer observations or places say nothing.
_LEAST = 8
# Variance of the third cumulant from one pixel of a pair, over the cube of the variance
# of a pixel; of a chain of pairs, where neighbours have a correlation of 3/8.
_PIXEL_VARIANCE = 4 * SKEW_PIXELS**2 / ((SKEW_PIXELS - 1) * (SKEW_PIXELS - 2))
_CHAIN = 1.75
# Spread of a slope of one count for each pixel within a window of 4 x 4.
_SLOPE_SPREAD = 4 / 3
_FAR_SIGMAS = 4.0
# Where planes hold sample, the third moment is that of squares no brighter than so many times the
# tenth part of them that is darkest.
_MOST_LIGHT = 2.5
_DARK = 0.1


@dataclass(frozen=True)
class Line:
    """A line in the mean.

    Attributes:
        slope, slope_error: with one standard deviation.
        centre: mean of what it was fitted to, as it weighs.
        level, level_error: its height there, with one standard deviation that is
            independent of that of the slope.
    """

    slope: float
    slope_error: float
    centre: float
    level: float
    level_error: float

    @property
    def at_zero(self) -> float:
        """The mean at which it is 0."""
        return self.centre - self.level / self.slope

    @property
    def zero_error(self) -> float:
        """Standard deviation of that, counts."""
        apart = (self.at_zero - self.centre) * self.slope_error
        return float(np.hypot(self.level_error, apart) / abs(self.slope))


@dataclass(frozen=True)
class PhotonTransfer:
    """The line of variance against mean, and how well it is one.

    Attributes:
        line: its slope is the gain, counts per electron; it is 0 at the offset less gain times the
            variance of the read noise in electrons.
        used: (n, y, x) True for the squares it was fitted to.
        misfit: mean square of what these differ from it, in their errors.
        share: of the squares offered that were used.
        spread: standard deviation of their means, counts.
        contrast: the same over what does not change the noise: that of the means, and structure.
        rounding: variance that was taken off before.
    """

    line: Line
    used: NDArray[np.bool_]
    misfit: float
    share: float
    spread: float
    contrast: float
    rounding: float


def photon_transfer(
    squares: NoiseSquares, keep: NDArray[np.bool_], *, one_sided: bool, structure: float
) -> PhotonTransfer | None:
    """The line through the squares whose variance is noise and nothing else.

    Args:
        squares: of planes.
        keep: (n, y, x) squares to look at.
        one_sided: texture may add to the variance, so the lower envelope is taken.
        structure: of a dark frame that is left in the means of squares, counts.
    """
    mean, variance, cells = squares.noise_mean, squares.spatial, squares.spatial_cells
    if squares.pairs:
        variance, cells = squares.temporal, squares.temporal_cells
        mean = of_pairs(mean)
        keep = keep & np.concatenate([keep[1:], keep[-1:]])
    enough = keep & (cells >= _LEAST_CELLS) & np.isfinite(mean) & np.isfinite(variance)
    places = np.broadcast_to(np.arange(enough[0].size).reshape(enough.shape[1:]), enough.shape)
    x, freedom = mean[enough], cells[enough].astype(np.float64)
    rounding = _ROUNDING if squares.integer else 0.0
    y = variance[enough] - rounding
    if len(x) < _LEAST:
        return None
    upper, shift = (1.5, _ENVELOPE_SHIFT) if one_sided else (4.0, 0.0)
    found = _near_a_line(x, y, freedom, upper, shift)
    if found is None:
        return None
    slope, at_zero, near = found
    expected = _expected(x, slope, at_zero)
    corrected = y - shift * expected * np.sqrt(2 / freedom)
    weight = freedom / (2 * expected**2)
    misfit = float(((corrected - expected) ** 2 * weight)[near].sum() / max(near.sum() - 2, 1))
    times = (_ENVELOPE_ERROR if one_sided else _LINE_ERROR) * np.sqrt(max(misfit, 1.0))
    line = _line(x[near], corrected[near], weight[near], places[enough][near])
    formal = _formal(line, x[near], weight[near], times * (_PAIRS_ERROR if squares.pairs else 1))
    used = np.zeros(enough.shape, np.bool_)
    used[enough] = near
    # Of the difference of two planes a cell of four pixels gives three degrees of freedom.
    of_means = float(np.mean(np.maximum(y[near] / freedom[near], 0))) * 3 / 8
    other = float(np.sqrt(of_means + structure**2))
    spread = float(np.std(x[near]))
    contrast = spread / other if other > 0 else np.inf
    return PhotonTransfer(formal, used, misfit, float(near.mean()), spread, contrast, rounding)


def third_cumulant(
    squares: NoiseSquares, transfer: PhotonTransfer, *, one_sided: bool
) -> Line | None:
    """The line of the third cumulant through the same squares; None where they are too few.

    Args:
        squares: of planes that were read in pairs.
        transfer: from `photon_transfer`.
        one_sided: as it was there: where high variances were left out, the third moment
            is too low with them.
    """
    line, mean = transfer.line, of_pairs(squares.noise_mean)
    known = transfer.used & (squares.third_pixels > 0) & np.isfinite(mean)
    if one_sided and known.any():
        # What texture adds to the third moment grows with the brightness.
        light = mean - line.at_zero
        known &= light <= _MOST_LIGHT * np.quantile(light[known], _DARK)
    if known.sum() < _LEAST:
        return None
    mean = np.where(known, mean, 0.0)
    variance = np.zeros(mean.shape)
    variance[known] = _expected(mean[known], line.slope, line.at_zero) + transfer.rounding
    spread = np.where(known, _CHAIN * _PIXEL_VARIANCE * variance**3, 1.0)
    weight = np.where(known, squares.third_pixels / spread, 0.0)
    missing = 2 * (_ENVELOPE_SHIFT if one_sided else 0.0)
    missing = 1 + missing * np.sqrt(2 / np.maximum(squares.temporal_cells, 1))
    slope = _slope_bias(mean, weight, squares.square_px) * line.slope
    third = np.where(known, squares.third / missing - slope, 0.0)
    places = np.broadcast_to(np.arange(mean[0].size).reshape(mean.shape[1:]), mean.shape)
    x, y, weight, places = mean[known], third[known], weight[known], places[known]
    weight = _without_far(x, y, weight)
    # A defect of the camera is at one place in all planes.
    total = np.bincount(places, weight).astype(np.float64)
    seen = total > 0
    if seen.sum() < _LEAST:
        return None
    at, of = (np.bincount(places, weight * v)[seen] / total[seen] for v in (x, y))
    good = np.zeros(len(total), np.bool_)
    good[seen] = _without_far(at, of, total[seen]) > 0
    near = (weight > 0) & good[places]
    if len(np.unique(places[near])) < _LEAST:
        return None
    line = _line(x[near], y[near], weight[near], places[near])
    return _formal(line, x[near], weight[near], 1.0)


def of_pairs(mean: FloatArray) -> FloatArray:
    """Mean of each plane and the next."""
    return np.concatenate([(mean[:-1] + mean[1:]) / 2, mean[-1:]])


def _near_a_line(
    x: FloatArray, y: FloatArray, freedom: FloatArray, upper: float, shift: float
) -> tuple[float, float, NDArray[np.bool_]] | None:
    """Slope, place where the line is 0, and which observations lie near it."""
    start = _start(x, y, freedom)
    used = np.zeros(len(x), dtype=bool)
    for _ in range(_ROUNDS):
        if start is None:
            return None
        slope, at_zero = start
        expected = _expected(x, slope, at_zero)
        sigma = expected * np.sqrt(2 / freedom)
        score = (y - expected) / sigma
        now = (score > -4) & (score < upper)
        if now.sum() < _LEAST:
            return None
        start = _weighted_line(x[now], (y - shift * sigma)[now], (1 / sigma**2)[now])
        if np.array_equal(now, used):
            break
        used = now
    return None if start is None else (*start, used)


def _expected(x: FloatArray, slope: float, at_zero: float) -> FloatArray:
    """A line, above 0 everywhere."""
    height = slope * (x - at_zero)
    least = 1e-3 * float(np.mean(np.abs(height)))
    return np.asarray(np.maximum(height, max(least, float(np.finfo(float).tiny))))


def _start(x: FloatArray, y: FloatArray, freedom: FloatArray) -> tuple[float, float] | None:
    """A first line, through a low quantile of the variance in 12 classes of brightness."""
    least = 1e-3 * float(np.median(np.abs(y)))
    if least == 0:
        return None
    order = np.argsort(x, kind="stable")
    at, of, weight = [], [], []
    for part in np.array_split(order, 12):
        if len(part):
            low = 1 - 1.04 * np.sqrt(2 / freedom[part])
            at.append(float(x[part].mean()))
            of.append(float(np.quantile(y[part] / low, 0.15)))
            weight.append(len(part) / max(of[-1], least) ** 2)
    return _weighted_line(np.array(at), np.array(of), np.array(weight))


def _weighted_line(x: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[float, float] | None:
    """Slope, and the place where the line is 0."""
    total = weight.sum()
    centre, height = (weight * x).sum() / total, (weight * y).sum() / total
    spread = (weight * (x - centre) ** 2).sum()
    if spread <= 0:
        return None
    slope = (weight * (x - centre) * (y - height)).sum() / spread
    if slope == 0:
        return None
    return float(slope), float(centre - height / slope)


def _line(x: FloatArray, y: FloatArray, weight: FloatArray, places: NDArray[np.intp]) -> Line:
    """A line with the errors that its scatter from place to place gives."""
    total = weight.sum()
    centre, level = (weight * x).sum() / total, (weight * y).sum() / total
    spread = max((weight * (x - centre) ** 2).sum(), np.finfo(float).tiny)
    slope = (weight * (x - centre) * (y - level)).sum() / spread
    residual = weight * (y - level - slope * (x - centre))
    number = len(np.unique(places))
    few = np.sqrt(number / max(number - 2, 1))
    level_error = few * np.sqrt((np.bincount(places, residual) ** 2).sum()) / total
    by_slope = np.bincount(places, residual * (x - centre))
    slope_error = few * np.sqrt((by_slope**2).sum()) / spread
    return Line(float(slope), float(slope_error), float(centre), float(level), float(level_error))


def _formal(line: Line, x: FloatArray, weight: FloatArray, times: float) -> Line:
    """The same with errors no smaller than weights of 1 / variance give, so many times."""
    spread = max(float((weight * (x - line.centre) ** 2).sum()), float(np.finfo(float).tiny))
    return Line(
        line.slope,
        max(line.slope_error, times * float(spread**-0.5)),
        line.centre,
        line.level,
        max(line.level_error, times * float(weight.sum() ** -0.5)),
    )


def _without_far(x: FloatArray, y: FloatArray, weight: FloatArray) -> FloatArray:
    """Weights that are 0 where an observation is too far from the line through the others."""
    kept = weight
    for _ in range(_ROUNDS):
        line = _weighted_line(x, y, kept)
        if line is None:
            break
        slope, at_zero = line
        score = np.abs(y - slope * (x - at_zero)) * np.sqrt(weight)
        scale = max(1.0, 1.4826 * float(np.median(score[weight > 0])))
        now = np.where(score < _FAR_SIGMAS * scale, weight, 0.0)
        if np.array_equal(now, kept) or not now.any():
            break
        kept = now
    return kept


def _slope_bias(mean: FloatArray, weight: FloatArray, square_px: int) -> FloatArray:
    """What the fall-off within a window adds to the third cumulant, over the gain."""
    total = weight.sum(axis=0)
    if min(total.shape) < 2:
        return np.zeros(total.shape)
    overall = (mean * weight).sum() / weight.sum()
    smooth = np.where(total > 0, (mean * weight).sum(axis=0) / np.maximum(total, 1e-300), overall)
    along_y, along_x = np.gradient(smooth, square_px)
    return np.asarray(2 * _SLOPE_SPREAD * (along_y**2 + along_x**2))
