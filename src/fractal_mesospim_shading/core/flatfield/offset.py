"""The camera offset from the noise of the data.

`noise` says which squares of the planes can be used, `moments` draws variance and third cumulant
of their noise as lines in the mean, and `evidence` joins these with all else that is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.emptiness import find_empty
from fractal_mesospim_shading.core.flatfield.evidence import Evidence, posterior
from fractal_mesospim_shading.core.flatfield.moments import (
    Line,
    PhotonTransfer,
    photon_transfer,
    third_cumulant,
)
from fractal_mesospim_shading.core.flatfield.noise import (
    Level,
    NoiseSquares,
    Scales,
    darkest_squares,
    usable,
    zeros_among_values,
)
from fractal_mesospim_shading.core.together import both
from fractal_mesospim_shading.errors import SamplingError

# Relative error of the gain beside that of the fit: where the planes are empty; where the texture
# of a sample may add to the noise; and where a filter has left so little noise that it does.
_GAIN_ERROR_EMPTY = 0.005
_GAIN_ERROR = 0.015
_GAIN_ERROR_FILTERED = 0.05
# A dark frame that follows the light across the tile by so many counts changes it, too; where the
# scale is not known, by this share of the noise.
_DRIFT = 0.15
_DRIFT_OF_NOISE = 0.015
# Electrons and read variance of squares at least; noise that grows faster is none of photons.
_LEAST_ELECTRONS = 1.0
# Read variance of a usual camera, electrons squared, and how far it is off.
_READ_VARIANCE = 1.5**2
_READ_VARIANCE_ERROR = 1.0
_OTHER_VARIANCE = 0.3
# Structure of a dark frame that is left in the means of squares, counts.
_DARK_STRUCTURE = 0.2
# The noise is called that of photons where it is more probable than not.
_PHOTONS = 0.5


@dataclass(frozen=True)
class Pixels:
    """What is known of the pixels beside their values.

    Attributes:
        raw: those of a camera, 16 bits without sign, as far as is known.
        processed: an image processor of the microscope changed them before they were written.
        zeros: share of them that are 0 among others that are not.
    """

    raw: bool = False
    processed: bool = False
    zeros: float = 0.0


@dataclass(frozen=True)
class OffsetEstimate:
    """The camera offset, and how sure it is.

    Attributes:
        value: counts.
        uncertainty: counts; twice as much to either side holds the offset in 95 % of all cases.
            Infinite where there are no pixels.
        method: in words.
        details: the darkest squares; where the variance is a line, its gain in counts per electron,
            squares used, their share, what it alone gives with a usual read noise and its error,
            the mean square of its misfits in their errors, the brightness that it rests on, and
            the spread of that over what else spreads it; `photons`, the probability that the
            noise is that of photons; where it is, the read noise in electrons and what the
            third moment gives with its error.
    """

    value: float
    uncertainty: float
    method: str
    details: Mapping[str, float] = field(default_factory=dict)


def estimate_offset(
    stack: BinnedStack, *, mostly_empty: bool, pixels: Pixels | None = None
) -> OffsetEstimate:
    """Estimate the offset from planes at full resolution, before anything is taken off.

    Args:
        stack: binned planes; those read in pairs give the noise free of the camera's
            fixed pattern, others give an offset too low by the variance of the
            pattern over the gain, within the uncertainty.
        mostly_empty: the planes were chosen as empty, so what differs among them is
            left out; otherwise the lower envelope of the noise is taken, since the
            texture of a sample only adds to it.
        pixels: what is known of them; None for nothing.
    """
    squares, zeros = both(lambda: NoiseSquares.of(stack), lambda: zeros_among_values(stack))
    pixels = replace(pixels or Pixels(), zeros=zeros)
    first = offset_of_squares(squares, pixels)
    if not mostly_empty or not np.isfinite(first.uncertainty):
        return first
    try:
        empty = find_empty(stack, first.value)
    except SamplingError:
        return first
    if not empty.enough:
        return first
    return _weigh(squares, empty.keep, pixels, mostly_empty=True)


def offset_of_squares(squares: NoiseSquares, pixels: Pixels | None = None) -> OffsetEstimate:
    """Estimate the offset from squares of planes at full resolution that may hold sample."""
    every = np.ones(squares.noise_mean.shape, np.bool_)
    return _weigh(squares, every, pixels, mostly_empty=False)


def _weigh(
    squares: NoiseSquares, keep: NDArray[np.bool_], pixels: Pixels | None, *, mostly_empty: bool
) -> OffsetEstimate:
    darkest = darkest_squares(squares)
    if darkest is None:
        return OffsetEstimate(0.0, np.inf, "no pixels")
    pixels = pixels or Pixels()
    scales, method = Scales.of(squares), "darkest pixels"
    structure = _DARK_STRUCTURE if squares.integer else 0.0
    one_sided = not mostly_empty
    transfer = photon_transfer(
        squares, usable(squares, scales) & keep, one_sided=one_sided, structure=structure
    )
    if transfer is not None and not _of_photons(transfer.line):
        transfer = None
    third = None
    if transfer is not None and squares.pairs:
        third = third_cumulant(squares, transfer, one_sided=one_sided)
    gain_error = 0.0
    if transfer is not None:
        gain_error = _gain_error(transfer, scales, mostly_empty, integer=squares.integer)
    found = posterior(
        Evidence(
            variance=None if transfer is None else transfer.line,
            gain_error=gain_error,
            third=third,
            scales=scales,
            pairs=squares.pairs,
            darkest=darkest,
            raw=pixels.raw,
            zeros=pixels.zeros,
            processed=pixels.processed,
            integer=squares.integer,
        )
    )
    details = {"darkest": darkest.value}
    if transfer is not None:
        method = "noise of pairs of planes" if squares.pairs else "noise within planes"
        line = transfer.line
        by_line = _with_usual_read_noise(line, pairs=squares.pairs)
        details |= {
            "gain": line.slope,
            "squares": float(transfer.used.sum()),
            "share": transfer.share,
            "line": by_line.value,
            "line_error": by_line.error,
            "misfit": transfer.misfit,
            "signal": line.centre - line.at_zero,
            "contrast": transfer.contrast,
        }
        if third is not None:
            details["photons"] = found.photons
            if found.photons > _PHOTONS:
                method += ", with their third moment"
                by_third = _with_photons(line, third, gain_error)
                details["read_noise"] = found.read_noise
                details |= {"third_moment": by_third.value, "third_error": by_third.error}
    return OffsetEstimate(found.value, found.uncertainty, method, details)


def _of_photons(line: Line) -> bool:
    """Whether a line of the variance can be that of counted light."""
    return line.slope > 0 and line.centre - line.at_zero > _LEAST_ELECTRONS * line.slope


def _gain_error(
    transfer: PhotonTransfer, scales: Scales, mostly_empty: bool, *, integer: bool
) -> float:
    """Relative error of the gain beside that of the fit."""
    drift = _DRIFT if integer else _DRIFT_OF_NOISE * np.sqrt(max(transfer.line.level, 0.0))
    error = _GAIN_ERROR_EMPTY
    if not mostly_empty:
        error = _GAIN_ERROR_FILTERED if scales.filtered else _GAIN_ERROR
    return float(np.hypot(error, drift / transfer.spread)) if transfer.spread > 0 else 1.0


def _with_usual_read_noise(line: Line, *, pairs: bool) -> Level:
    other = _OTHER_VARIANCE if pairs else np.hypot(_OTHER_VARIANCE, 1.0)
    systematic = np.hypot(line.slope * _READ_VARIANCE_ERROR, other / line.slope)
    value = line.at_zero + line.slope * _READ_VARIANCE
    return Level(value, float(np.hypot(systematic, line.zero_error)))


def _with_photons(line: Line, third: Line, gain_error: float) -> Level:
    """The offset from the height of the third cumulant, with the gain of the line."""
    signal = third.level / line.slope**2
    relative = np.hypot(line.slope_error / line.slope, gain_error)
    error = np.hypot(third.level_error / line.slope**2, 2 * signal * relative)
    return Level(third.centre - signal, float(error))
