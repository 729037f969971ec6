"""The camera offset from the noise of the data.

Photon transfer (Janesick, Photon Transfer, SPIE Press 2007, doi:10.1117/3.725073):
counted photons have a variance of `gain * (mean - offset) + read noise^2`, and the
fall-off of the light sheet spreads the means, so the line of variance against mean
meets the variance of the read noise at the offset. Where planes were read in pairs, the
third moment of the noise tells the read noise (`noise`); otherwise it is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.emptiness import find_empty
from fractal_mesospim_shading.core.flatfield.noise import (
    NoiseSquares,
    PhotonTransfer,
    offset_and_read_noise,
    third_moment_offset,
)
from fractal_mesospim_shading.errors import SamplingError

FloatArray = NDArray[np.float64]

# Variance of the read noise of scientific CMOS cameras where it is not measured, electrons
# squared: 1.5 electrons, between 1.1 and 1.8; and of what is not counted in electrons,
# counts squared.
_READ_VARIANCE = 1.5**2
_READ_VARIANCE_ERROR = 1.0
_OTHER_VARIANCE = 0.3
# Variance of rounding to whole counts.
_ROUNDING = 1 / 12
# In a chain of pairs the squares of neighbouring differences have a correlation of 1/4.
_PAIRS_ERROR = 1.5**0.5
# Relative error of the gain beside that of the fit: where the planes are empty, and where
# the texture of a sample may add to the noise.
_GAIN_ERROR_EMPTY = 0.01
_GAIN_ERROR = 0.02
# The lines scatter more than their squares do: through all, and through the lower envelope.
_LINE_ERROR = 1.2
_ENVELOPE_ERROR = 1.7
# Mean of a normal variable cut off at -4 and 1.5 standard deviations.
_ENVELOPE_SHIFT = -0.1386
# Squares with fewer degrees of freedom say too little about the noise.
_LEAST_CELLS = 12
# A square is even within this many standard deviations, and the evenest fifth always is.
_EVEN_SIGMAS = 2.0
_LEAST_EVEN = 0.2
# Rounds of fitting the line to what lies near it, at most.
_ROUNDS = 40
# Structure of a dark frame that is left in the means of squares, counts.
_DARK_STRUCTURE = 0.2


@dataclass(frozen=True)
class OffsetEstimate:
    """The camera offset, and how sure it is.

    Attributes:
        value: counts.
        uncertainty: counts, one standard deviation with the systematic part; infinite
            where the data say nothing.
        method: in words.
        details: gain in counts per electron, squares used, their share, the darkest
            square, statistical and systematic parts of the uncertainty, what the line of
            variance alone gives with its error, the mean square of its misfits in their
            errors, the brightness that it rests on, and the spread of that over what else
            spreads it; where the third moment was used, the read noise in electrons
            and what that moment gives with its error.
    """

    value: float
    uncertainty: float
    method: str
    details: Mapping[str, float] = field(default_factory=dict)


def estimate_offset(stack: BinnedStack, *, mostly_empty: bool) -> OffsetEstimate:
    """Estimate the offset from planes at full resolution, before anything is taken off.

    Args:
        stack: binned planes; those read in pairs give the noise free of the camera's
            fixed pattern, others give an offset too low by the variance of the
            pattern over the gain, within the uncertainty.
        mostly_empty: the planes were chosen as empty, so what differs among them is
            left out; otherwise the lower envelope of the noise is taken, since the
            texture of a sample only adds to it.
    """
    squares = NoiseSquares.of(stack)
    first = offset_of_squares(squares)
    if not mostly_empty or not np.isfinite(first.uncertainty):
        return first
    try:
        empty = find_empty(stack, min(first.value, _darkest(squares)))
    except SamplingError:
        return first
    if not empty.enough:
        return first
    return _fit(squares, _usable(squares) & empty.keep, mostly_empty=True)


def offset_of_squares(squares: NoiseSquares) -> OffsetEstimate:
    """Estimate the offset from squares of planes at full resolution that may hold sample."""
    return _fit(squares, _usable(squares), mostly_empty=False)


def _usable(squares: NoiseSquares) -> NDArray[np.bool_]:
    return np.isfinite(squares.noise_mean) & _even_squares(squares)


def _even_squares(squares: NoiseSquares) -> NDArray[np.bool_]:
    """Squares whose bins differ by no more than the noise of their pixels."""
    ratio, number = squares.roughness, squares.roughness_bins
    finite = np.isfinite(ratio)
    if not finite.any():
        return np.zeros(ratio.shape, dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Second differences overlap: their mean square scatters as that of half as many.
        limit = 1 + _EVEN_SIGMAS * np.sqrt(4 / number + 2 / squares.spatial_cells)
        # Where there is little noise, the curvature of the profile itself shows.
        least = np.quantile(ratio[finite], _LEAST_EVEN)
        even: NDArray[np.bool_] = finite & (ratio <= np.maximum(limit, least))
    return even


def _fit(squares: NoiseSquares, keep: NDArray[np.bool_], *, mostly_empty: bool) -> OffsetEstimate:
    temporal = int(squares.temporal_cells.sum()) >= 0.2 * int(squares.spatial_cells.sum())
    enough, mean, variance, cells = _observations(squares, keep, temporal)
    method = "noise of pairs of planes" if temporal else "noise within planes"
    if len(mean) < 8:
        return OffsetEstimate(0.0, np.inf, f"{method}: too few data", {"squares": len(mean)})
    rounding = _ROUNDING if squares.integer else 0.0
    line = _envelope(mean, variance, cells, rounding, one_sided=not mostly_empty)
    if line is None or line.gain <= 0:
        return OffsetEstimate(0.0, np.inf, f"{method}: it does not grow with brightness")
    # Two pairs that share a plane are not independent.
    error = line.zero_error * (_PAIRS_ERROR if temporal else 1.0)
    systematic = np.hypot(line.gain * _READ_VARIANCE_ERROR, _OTHER_VARIANCE / line.gain)
    if not temporal:
        systematic = np.hypot(systematic, 1.0 / line.gain)
    value = line.at_zero + line.gain * _READ_VARIANCE
    uncertainty = float(np.hypot(systematic, error))
    details = {
        "gain": line.gain,
        "squares": float(line.used.sum()),
        "share": float(line.used.mean()),
        "darkest": _darkest(squares),
        "line": value,
        "line_error": uncertainty,
        "misfit": line.misfit,
        "signal": line.centre - line.at_zero,
        "contrast": _contrast(
            mean[line.used],
            variance[line.used] / cells[line.used],
            _DARK_STRUCTURE if squares.integer else 0.0,
        ),
    }
    if temporal:
        used = enough.copy()
        used[enough] = line.used
        refined = _with_third_moment(squares, replace(line, used=used), mostly_empty=mostly_empty)
        if refined is not None:
            value, uncertainty, more = refined
            details |= more
            error = min(error, uncertainty)
            systematic = np.sqrt(uncertainty**2 - error**2)
            method += ", with their third moment"
    details |= {"statistical": float(error), "systematic": float(systematic)}
    if value > details["darkest"]:
        uncertainty = float(np.hypot(uncertainty, value - details["darkest"]))
        value = details["darkest"]
    if value < 0 and squares.integer:
        uncertainty, value = float(np.hypot(uncertainty, value)), 0.0
    return OffsetEstimate(float(value), uncertainty, method, details)


def _with_third_moment(
    squares: NoiseSquares, line: PhotonTransfer, *, mostly_empty: bool
) -> tuple[float, float, dict[str, float]] | None:
    scale = _PAIRS_ERROR * (_LINE_ERROR if mostly_empty else _ENVELOPE_ERROR)
    line = replace(line, gain_error=line.gain_error * scale, zero_error=line.zero_error * scale)
    third = third_moment_offset(squares, line, 0.0 if mostly_empty else _ENVELOPE_SHIFT)
    if third is None:
        return None
    gain_systematic = _GAIN_ERROR_EMPTY if mostly_empty else _GAIN_ERROR
    value, uncertainty, read_noise = offset_and_read_noise(
        line, third, gain_systematic, _OTHER_VARIANCE
    )
    gain_error = np.hypot(line.gain_error / line.gain, gain_systematic)
    more = {
        "read_noise": read_noise,
        "third_moment": third.value,
        "third_error": float(np.hypot(third.error, 2 * third.signal * gain_error)),
    }
    return value, uncertainty, more


def _contrast(mean: FloatArray, variance_per_cell: FloatArray, structure: float) -> float:
    """Spread of the means of squares over what does not change their noise with them.

    That is the noise of the means themselves and the structure of the dark frame.
    """
    # Of the difference of two planes a cell of four pixels gives three degrees of freedom.
    noise = float(np.mean(np.maximum(variance_per_cell, 0))) * 3 / 8
    other = float(np.sqrt(noise + structure**2))
    return float(np.std(mean)) / other if other > 0 else np.inf


def _observations(
    squares: NoiseSquares, keep: NDArray[np.bool_], temporal: bool
) -> tuple[NDArray[np.bool_], FloatArray, FloatArray, FloatArray]:
    mean = squares.noise_mean
    variance, cells = squares.spatial, squares.spatial_cells
    if temporal:
        variance, cells = squares.temporal, squares.temporal_cells
        mean = np.concatenate([(mean[:-1] + mean[1:]) / 2, mean[-1:]])
        keep = keep & np.concatenate([keep[1:], keep[-1:]])
    enough = keep & (cells >= _LEAST_CELLS) & np.isfinite(mean) & np.isfinite(variance)
    return enough, mean[enough], variance[enough], cells[enough].astype(np.float64)


def _darkest(squares: NoiseSquares) -> float:
    means = squares.noise_mean[np.isfinite(squares.noise_mean)]
    return float(np.quantile(means, 0.001)) if means.size else 0.0


def _envelope(
    mean: FloatArray, variance: FloatArray, cells: FloatArray, rounding: float, *, one_sided: bool
) -> PhotonTransfer | None:
    """Line through the observations whose variance is noise and nothing else."""
    variance = variance - rounding
    upper = 1.5 if one_sided else 4.0
    shift = _ENVELOPE_SHIFT if one_sided else 0.0
    line = _start(mean, variance, cells)
    used = np.zeros(len(mean), dtype=bool)
    for _ in range(_ROUNDS):
        if line is None:
            return None
        slope, at_zero = line
        expected = np.maximum(slope * (mean - at_zero), 1e-3 * abs(slope))
        sigma = expected * np.sqrt(2 / cells)
        score = (variance - expected) / sigma
        now = (score > -4) & (score < upper)
        if now.sum() < 8:
            return None
        corrected = variance - shift * sigma
        line = _weighted_line(mean[now], corrected[now], (1 / sigma**2)[now])
        if np.array_equal(now, used):
            break
        used = now
    if line is None:
        return None
    slope, at_zero = line
    expected = np.maximum(slope * (mean - at_zero), 1e-3 * abs(slope))
    weight = cells / (2 * expected**2)
    residual = variance - shift * expected * np.sqrt(2 / cells) - expected
    spread = float((residual[used] ** 2 * weight[used]).sum() / max(used.sum() - 2, 1))
    return _line_with_errors(line, mean, weight / max(spread, 1.0), used, rounding, spread)


def _start(mean: FloatArray, variance: FloatArray, cells: FloatArray) -> tuple[float, float] | None:
    """A first line, through a low quantile of the variance in 12 classes of brightness."""
    order = np.argsort(mean, kind="stable")
    x, y, weight = [], [], []
    for part in np.array_split(order, 12):
        if len(part):
            low = 1 - 1.04 * np.sqrt(2 / cells[part])
            x.append(float(mean[part].mean()))
            y.append(float(np.quantile(variance[part] / low, 0.15)))
            weight.append(len(part) / max(y[-1], 1e-6) ** 2)
    return _weighted_line(np.array(x), np.array(y), np.array(weight))


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


def _line_with_errors(
    line: tuple[float, float],
    x: FloatArray,
    weight: FloatArray,
    used: NDArray[np.bool_],
    rounding: float,
    misfit: float,
) -> PhotonTransfer:
    """The line with its standard deviations, if the weights are 1 / variance."""
    slope, at_zero = line
    x, weight = x[used], weight[used]
    total = weight.sum()
    centre = (weight * x).sum() / total
    spread = (weight * (x - centre) ** 2).sum()
    error = float(np.sqrt(1 / total + (at_zero - centre) ** 2 / spread) / abs(slope))
    gain_error, centre = float(spread**-0.5), float(centre)
    return PhotonTransfer(slope, gain_error, at_zero, error, centre, used, rounding, misfit)
