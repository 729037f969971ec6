"""What the noise of squares of planes says about the camera.

Counted photons have a third cumulant of `gain^2 * (mean - offset)`; read noise is symmetric and
adds nothing to it. So each square of pixels tells the offset as `mean - third cumulant / gain^2`,
with the gain from the line of variance against mean. That line alone leaves offset and read noise
mixed (`offset`); together they tell both. Moments of Poisson counts: Johnson, Kemp, Kotz,
Univariate Discrete Distributions, Wiley 2005, doi:10.1002/0471715816; variance of the estimate by
the rules for k-statistics: Kendall, Stuart, The Advanced Theory of Statistics I, chapter 12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import (
    NOISE_BINS,
    SKEW_PIXELS,
    BinnedStack,
    sum_squares,
)

FloatArray = NDArray[np.float64]

# Variance of the third cumulant from one pixel of a pair, over the cube of the variance
# of a pixel; of a chain of pairs, where neighbours have a correlation of 3/8.
_PIXEL_VARIANCE = 4 * SKEW_PIXELS**2 / ((SKEW_PIXELS - 1) * (SKEW_PIXELS - 2))
_CHAIN = 1.75
# Spread of a slope of one count for each pixel within a window of 4 x 4.
_SLOPE_SPREAD = 4 / 3
# Places further from the others are left out, in rounds until none is; fewer say nothing.
_FAR_SIGMAS = 4.0
_LEAST_POSITIONS = 8
_ROUNDS = 10
# Third cumulant of the read noise itself, electrons cubed: pixels that flicker between levels.
_READ_SKEWNESS = 0.3
# Pixels differ in sensitivity by this fraction.
_PIXEL_SPREAD = 0.004
# Read noise in electrons before anything was measured: share, median and standard deviation
# of the logarithm; scientific CMOS cameras, and all others.
_READ_NOISES = ((0.6, 1.45, 0.2), (0.4, 2.0, 0.5))


@dataclass(frozen=True)
class NoiseSquares:
    """Squares of the noise grid of some planes; NaN where there was no valid pixel.

    Attributes:
        square_px: side of a square.
        integer: whether the pixels were rounded to whole counts.
        noise_mean: (n, y, x) counts; a dark frame given is already taken off.
        halves: (2, n, y, x) the same over the bins of either colour of a chessboard: two
            means whose noise is independent.
        half_pixels: (2, n, y, x) pixels of each.
        spatial, temporal, third: as in `BinnedStack`.
        spatial_cells, temporal_cells, third_pixels: as in `BinnedStack`.
        roughness: (n, y, x) how far neighbouring bins differ, over the noise of their pixels:
            1 where a square is even.
        roughness_bins: (n, y, x) differences that this was taken from.
    """

    square_px: int
    integer: bool
    noise_mean: FloatArray
    halves: FloatArray
    half_pixels: FloatArray
    spatial: FloatArray
    spatial_cells: NDArray[np.int64]
    temporal: FloatArray
    temporal_cells: NDArray[np.int64]
    third: FloatArray
    third_pixels: NDArray[np.int64]
    roughness: FloatArray
    roughness_bins: FloatArray

    @classmethod
    def of(cls, stack: BinnedStack) -> NoiseSquares:
        """The squares of binned planes."""
        halves, pixels = _halves(stack)
        roughness, bins = _roughness(stack)
        return cls(
            square_px=stack.bin_px * NOISE_BINS,
            integer=stack.integer,
            noise_mean=stack.noise_mean.astype(np.float64),
            halves=halves,
            half_pixels=pixels,
            spatial=stack.spatial,
            spatial_cells=stack.spatial_cells,
            temporal=stack.temporal,
            temporal_cells=stack.temporal_cells,
            third=stack.third,
            third_pixels=stack.third_pixels,
            roughness=roughness,
            roughness_bins=bins,
        )


def _halves(stack: BinnedStack) -> tuple[FloatArray, FloatArray]:
    rows, columns = np.indices(stack.mean.shape[1:])
    means, pixels = [], []
    for colour in (0, 1):
        chosen = (rows + columns) % 2 == colour
        number = np.zeros(stack.noise_mean.shape)
        total = np.zeros(stack.noise_mean.shape)
        for k, mean in enumerate(stack.mean):
            count = np.where(chosen & np.isfinite(mean), stack.count[k], 0.0)
            number[k] = sum_squares(count[None])[0]
            total[k] = sum_squares(np.where(count > 0, mean, 0.0)[None] * count)[0]
        means.append(np.where(number > 0, total / np.maximum(number, 1), np.nan))
        pixels.append(number)
    return np.stack(means), np.stack(pixels)


def _roughness(stack: BinnedStack) -> tuple[FloatArray, FloatArray]:
    """Mean square of the second differences of the bins, over that of their noise.

    A texture that adds a little to the differences of neighbouring pixels adds far
    more to those of neighbouring bins, because optics leave little at the finest scale.
    Second differences leave out the slope of the profile.
    """
    power = np.zeros(stack.noise_mean.shape)
    number = np.zeros(stack.noise_mean.shape)
    for k, mean in enumerate(stack.mean.astype(np.float64)):
        for axis in (0, 1):
            if mean.shape[axis] < 3:
                continue
            inner = (slice(1, -1), slice(None)) if axis == 0 else (slice(None), slice(1, -1))
            # Each is the sum of three bins' noise with weights 1, -2, 1.
            scaled = np.diff(mean, 2, axis=axis) ** 2 * stack.count[k][inner] / 6
            values, known = np.zeros(mean.shape), np.zeros(mean.shape)
            values[inner] = np.where(np.isfinite(scaled), scaled, 0)
            known[inner] = np.isfinite(scaled)
            power[k] += sum_squares(values[None])[0]
            number[k] += sum_squares(known[None])[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return power / number / stack.spatial, number


@dataclass(frozen=True)
class PhotonTransfer:
    """The line of variance against mean.

    Attributes:
        gain: its slope, counts per electron.
        gain_error: one standard deviation.
        at_zero: mean at which the line is 0: the offset less gain times the variance of the
            read noise in electrons.
        zero_error: one standard deviation.
        centre: mean of the squares it was fitted to.
        used: True for those squares.
        rounding: variance that was taken off before.
        misfit: mean square of what the squares differ from it, in their errors.
    """

    gain: float
    gain_error: float
    at_zero: float
    zero_error: float
    centre: float
    used: NDArray[np.bool_]
    rounding: float
    misfit: float = 1.0


@dataclass(frozen=True)
class ThirdMoment:
    """The offset from the third moment.

    Attributes:
        value: counts.
        error: one standard deviation, with a gain that is known.
        signal: mean above the offset of the squares, as they weigh.
    """

    value: float
    error: float
    signal: float


def third_moment_offset(
    squares: NoiseSquares, line: PhotonTransfer, selection: float
) -> ThirdMoment | None:
    """The offset from the squares that the line was fitted to; None where they are too few.

    Args:
        squares: of planes.
        line: of variance against mean.
        selection: by how many standard deviations the variances are too low, because high
            ones were left out; the third moment is then too low with them.
    """
    mean = squares.noise_mean
    mean = np.concatenate([(mean[:-1] + mean[1:]) / 2, mean[-1:]])
    known = line.used & (squares.third_pixels > 0) & np.isfinite(mean)
    if known.sum() < _LEAST_POSITIONS:
        return None
    mean = np.where(known, mean, 0.0)
    missing = 2 * selection * np.sqrt(2 / np.maximum(squares.temporal_cells, 1))
    offset = np.where(known, mean - squares.third / (line.gain**2 * (1 + missing)), 0.0)
    variance = np.maximum(line.gain * (mean - line.at_zero), 1e-3 * line.gain) + line.rounding
    spread = _CHAIN * _PIXEL_VARIANCE * variance**3
    weight = np.where(known, line.gain**4 * squares.third_pixels / spread, 0.0)
    weight = _without_far(offset, weight)
    # A defect of the camera is at one place in all planes.
    total = weight.sum(axis=0)
    seen = total > 0
    if seen.sum() < _LEAST_POSITIONS:
        return None
    places = (mean * weight).sum(axis=0)[seen] / total[seen]
    slope = _slope_bias(mean, weight, squares.square_px) / line.gain
    values = (offset * weight).sum(axis=0)[seen] / total[seen] + slope[seen]
    weight = _without_far(values, total[seen])
    value = float((weight * values).sum() / weight.sum())
    freedom = max(int((weight > 0).sum()) - 1, 1)
    chi_squared = float((weight * (values - value) ** 2).sum()) / freedom
    signal = float((weight * places).sum() / weight.sum()) - value
    error = np.sqrt(max(chi_squared, 1.0) / weight.sum())
    error = np.hypot(error, line.gain * _READ_SKEWNESS)
    error = np.hypot(error, 2 * (_PIXEL_SPREAD * signal) ** 2 / line.gain)
    return ThirdMoment(value, float(error), signal)


def offset_and_read_noise(
    line: PhotonTransfer, third: ThirdMoment, gain_systematic: float, other_variance: float
) -> tuple[float, float, float]:
    """Offset, its standard deviation and the read noise in electrons, from both.

    For each read noise the line gives the offset with a Gaussian error, and the third
    moment another; they share the error of the gain. What is returned is the mean over
    all read noises, each as probable as cameras and the agreement of the two make it.

    Args:
        line: of variance against mean.
        third: from `third_moment_offset`.
        gain_systematic: relative error of the gain beside that of the fit.
        other_variance: of what is not counted in electrons, counts squared.
    """
    systematic = (gain_systematic * line.gain) ** 2
    gain_variance = line.gain_error**2 + systematic
    by_line = (line.centre - line.at_zero) / line.gain
    by_third = 2 * third.signal / line.gain
    variance = line.zero_error**2 + (other_variance / line.gain) ** 2 + by_line**2 * systematic
    shared = by_line * by_third * gain_variance
    between = variance + third.error**2 + by_third**2 * gain_variance - 2 * shared
    between = max(between, 1e-12)
    share = (variance - shared) / between
    rest = max(variance - share**2 * between, 0.0)
    logs = np.linspace(np.log(0.2), np.log(20), 461)
    from_line = line.at_zero + line.gain * np.exp(2 * logs)
    apart = third.value - from_line
    misfit = apart**2 / (2 * between)
    probability = _usual(logs) * np.exp(misfit.min() - misfit)
    probability /= probability.sum()
    offsets = from_line + share * apart
    value = float((probability * offsets).sum())
    deviation = np.sqrt(rest + (probability * (offsets - value) ** 2).sum())
    return value, float(deviation), float(np.exp((probability * logs).sum()))


def _usual(log_read_noise: FloatArray) -> FloatArray:
    """How probable a read noise is, from the cameras there are."""
    density = np.zeros(log_read_noise.shape)
    for share, median, spread in _READ_NOISES:
        score = (log_read_noise - np.log(median)) / spread
        density += share / spread * np.exp(-0.5 * score**2)
    return density


def _without_far(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Weights that are 0 where a value is too far from the others."""
    known = weight > 0
    order = np.argsort(values[known], kind="stable")
    sums = np.cumsum(weight[known][order])
    centre = float(values[known][order][np.searchsorted(sums, sums[-1] / 2)])
    kept = weight
    for _ in range(_ROUNDS):
        score = np.abs(values - centre) * np.sqrt(weight)
        scale = max(1.0, 1.4826 * float(np.median(score[known])))
        now = np.where(score < _FAR_SIGMAS * scale, weight, 0.0)
        centre = float((now * values).sum() / now.sum())
        if np.array_equal(now, kept):
            break
        kept = now
    return kept


def _slope_bias(mean: FloatArray, weight: FloatArray, square_px: int) -> FloatArray:
    """What the fall-off within a window takes from the offset, counts squared per gain."""
    total = weight.sum(axis=0)
    if min(total.shape) < 2:
        return np.zeros(total.shape)
    overall = (mean * weight).sum() / weight.sum()
    smooth = np.where(total > 0, (mean * weight).sum(axis=0) / np.maximum(total, 1e-30), overall)
    along_y, along_x = np.gradient(smooth, square_px)
    return np.asarray(2 * _SLOPE_SPREAD * (along_y**2 + along_x**2))
