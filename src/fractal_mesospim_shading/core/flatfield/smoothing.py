"""Smoothing of a binned profile that follows its noise; its structure.

A light-sheet profile is smooth but not of low order: it falls off steeply at the edges,
and it has streaks along x. So it is cut into parts, each as smooth as the data say:
cubic polynomials along both axes; cubic along one axis and free along the other (the
streaks are here); and a free rest. The free parts are shrunk band by band in the
domain of the cosine transform, by the share of noise found in the band.

Structure that is finer than shading has, or that two halves of the planes do not share, is sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Of the polynomials; and rounds in which holes take the values of the smoothed profile.
_DEGREE = 3
_FILL_ROUNDS = 4
# Standard deviation, in bins, of what carries the surroundings of a hole into it.
_FILL_REACH = 4.0
# A bin stands out if it is this far from the median of its neighbours along an axis, in
# standard deviations and in the square root of the profile; not if many do.
_HOT_WINDOW = 9
_HOT_SIGMAS = 6.0
_HOT_LEAST = 0.005
_MOST_HOT = 0.05
# A band is kept if its mean power is this many standard deviations above the noise.
_THRESHOLD = 3.0
# A profile of mean 1 is held above this.
_LOWEST = 1e-3
# Median of a squared normal variable.
_MEDIAN_OF_SQUARE = 0.4549364
# Finer than this share of the tile is what a sample may print, and shading hardly has.
_FINEST_SHARE = 0.1
# Structure counts where its power is above this share of that of the noise, which is
# not known better.
_NOISE_KNOWN = 0.3


@dataclass(frozen=True)
class Smoothed:
    """A smoothed profile.

    Attributes:
        image: (y, x).
        relative_noise: RMS of the noise that is left, as a fraction of the mean.
    """

    image: FloatArray
    relative_noise: float


def smooth_profile(image: FloatArray, valid: NDArray[np.bool_]) -> Smoothed:
    """Take the noise off a binned profile and keep its shape.

    The noise of counted photons grows with the square root of the brightness, so the
    square root of the profile is smoothed, where it is the same everywhere. Its size is
    taken from the upper quarter of the spectrum, where no profile has power.

    Args:
        image: (y, x) bin means, about 1 on average.
        valid: (y, x) False where there is no value; these are filled from the others, as
            are single bins that stand out from both their row and their column, which
            hold hot pixels (a streak stands out from its column only).
    """
    root = np.sqrt(np.maximum(np.where(valid, image, np.nan), _LOWEST))
    valid = valid & ~_isolated(np.where(valid, root, np.nanmean(root)))
    filled = root if valid.all() else _filled(root, valid)
    result = _Parts.of(filled)
    if not valid.all():
        for _ in range(_FILL_ROUNDS):
            filled = np.where(valid, root, result.smooth)
            result = _Parts.of(filled)
    smooth = np.square(np.maximum(result.smooth, np.sqrt(_LOWEST)))
    scale = 2 / max(float(result.smooth.mean()), _LOWEST)
    return Smoothed(smooth, scale * result.noise)


def _isolated(image: FloatArray) -> NDArray[np.bool_]:
    from scipy.ndimage import median_filter

    result = np.ones(image.shape, dtype=bool)
    if min(image.shape) < _HOT_WINDOW:
        return ~result
    # Without its slope, which would show at the edges.
    level = image - _cubic_surface(image, result)
    for axis in (0, 1):
        window = [1, 1]
        window[axis] = _HOT_WINDOW
        away = level - median_filter(level, size=tuple(window), mode="mirror")
        sigma = 1.4826 * float(np.median(np.abs(away)))
        result &= np.abs(away) > max(_HOT_SIGMAS * sigma, _HOT_LEAST)
    return result if result.mean() < _MOST_HOT else np.zeros(image.shape, dtype=bool)


def _filled(image: FloatArray, valid: NDArray[np.bool_]) -> FloatArray:
    """Holes filled by a cubic surface and by what their surroundings differ from it."""
    from scipy.ndimage import gaussian_filter

    trend = _cubic_surface(np.where(valid, image, 0), valid)
    rest = gaussian_filter(np.where(valid, image - trend, 0), _FILL_REACH)
    share = gaussian_filter(valid.astype(np.float64), _FILL_REACH)
    return np.where(valid, image, trend + rest / np.maximum(share, 0.05))


def _cubic_surface(image: FloatArray, valid: NDArray[np.bool_]) -> FloatArray:
    """Least squares over the valid bins; the others of the image must be finite."""
    along_y, along_x = (_polynomials(size) for size in image.shape)
    surfaces = np.einsum("py,qx->pqyx", along_y, along_x).reshape(-1, *image.shape)
    weighted = surfaces * valid
    products = np.einsum("ayx,byx->ab", weighted, surfaces)
    factors = np.linalg.lstsq(products, np.einsum("ayx,yx->a", weighted, image), rcond=1e-9)[0]
    surface: FloatArray = np.einsum("a,ayx->yx", factors, surfaces)
    return surface


@dataclass(frozen=True)
class _Parts:
    smooth: FloatArray
    noise: float

    @classmethod
    def of(cls, image: FloatArray) -> _Parts:
        from scipy.fft import dctn, idctn

        along_y, along_x = (_polynomials(size) for size in image.shape)
        # einsum and not matmul: its sums do not depend on the number of threads.
        in_x = np.einsum("yx,px->yp", image, along_x)
        in_y = np.einsum("py,yx->px", along_y, image)
        both = np.einsum("py,yq->pq", along_y, in_x)
        free_y = in_x - np.einsum("py,pq->yq", along_y, both)
        free_x = in_y - np.einsum("pq,qx->px", both, along_x)
        coarse = np.einsum("py,px->yx", along_y, in_y)
        streaks = np.einsum("yq,qx->yx", free_y, along_x)
        spectrum = dctn(image - coarse - streaks, norm="ortho")
        upper = spectrum[image.shape[0] // 2 :, image.shape[1] // 2 :]
        variance = float(np.median(upper**2)) / _MEDIAN_OF_SQUARE
        gain, error = _gain(spectrum, variance, (0, 1))
        kept_y, error_y = _shrink_rows(free_y.T, variance)
        kept_x, error_x = _shrink_rows(free_x, variance)
        smooth = idctn(spectrum * gain, norm="ortho")
        smooth += np.einsum("py,pq,qx->yx", along_y, both, along_x)
        smooth += np.einsum("qy,qx->yx", kept_y, along_x)
        smooth += np.einsum("py,px->yx", along_y, kept_x)
        noise = float(np.sqrt(variance))
        left = min((error + error_y + error_x + both.size) / image.size, 1.0)
        return cls(smooth, noise * float(np.sqrt(left)))


def _shrink_rows(rows: FloatArray, variance: float) -> tuple[FloatArray, float]:
    from scipy.fft import dct, idct

    spectrum = dct(rows, axis=1, norm="ortho")
    gain, error = _gain(spectrum, variance, (1,))
    return np.asarray(idct(spectrum * gain, axis=1, norm="ortho")), error


def _gain(spectrum: FloatArray, variance: float, axes: tuple[int, ...]) -> tuple[FloatArray, float]:
    """Share of signal in each band; bands are blocks of about an octave.

    Returns:
        The factor for each coefficient, and the sum of the squared errors that are left
        (noise let through and signal lost), in units of the variance.
    """
    power = spectrum**2
    size = np.ones_like(power)
    for axis in (0, 1):
        length = power.shape[axis]
        edges = _band_edges(length) if axis in axes else np.arange(length + 1)
        widths = np.diff(edges)
        power = np.add.reduceat(power, edges[:-1], axis=axis)
        size = np.add.reduceat(size, edges[:-1], axis=axis)
        power, size = (np.repeat(values, widths, axis=axis) for values in (power, size))
    if variance <= 0:
        return np.ones_like(power), 0.0
    ratio = power / (size * variance)
    kept = ratio > 1 + _THRESHOLD * np.sqrt(2 / size)
    gain = np.where(kept, 1 - 1 / np.maximum(ratio, 1), 0.0)
    error = gain**2 + (1 - gain) ** 2 * np.maximum(ratio - 1, 0)
    return gain, float(error.sum())


def _band_edges(length: int) -> NDArray[np.intp]:
    edges = [0, 1, 2, 3, 4]
    while edges[-1] < length:
        edges += [edges[-1] * 3 // 2, edges[-1] * 2]
    return np.array([edge for edge in edges if edge < length] + [length], dtype=np.intp)


def _polynomials(length: int) -> FloatArray:
    """Orthonormal polynomials on equidistant points, (degree + 1, length)."""
    x = np.linspace(-1, 1, length) if length > 1 else np.zeros(1)
    basis: list[FloatArray] = []
    for degree in range(min(_DEGREE + 1, length)):
        vector = x**degree
        for _ in range(2):
            for other in basis:
                vector = vector - (vector * other).sum() * other
        basis.append(vector / np.sqrt((vector**2).sum()))
    return np.stack(basis)


@dataclass(frozen=True)
class HalfEstimate:
    """A flat-field from half of the planes.

    Attributes:
        flat: (y, x) bins, mean 1; NaN where there is none.
        variance: (y, x) of its noise, if that of neighbouring pixels is independent.
        noise: (y, x) a sample of its noise: half the difference of the means of every other
            plane, which show the same sample; None where there is but one plane.
    """

    flat: FloatArray
    variance: FloatArray
    noise: FloatArray | None = None


def fine_structure(profile: NDArray[np.floating[Any]]) -> float:
    """RMS of what is finer than a tenth of the tile in a smooth profile of mean 1.

    Shading has little of it: 1 % where the light falls off to half, streaks included, 2 % for
    a sheet a quarter as wide as the tile.
    """
    image = np.asarray(profile, dtype=np.float64)
    known = np.ones(image.shape, dtype=bool)
    fine = _fine(image, known, _coarsest(image.shape))
    return float(np.sqrt(np.mean(fine**2)))


def unshared_structure(first: HalfEstimate, second: HalfEstimate) -> float:
    """RMS of the fine structure in which two halves differ, beyond their noise; a fraction.

    The difference is looked at in cells of one bin, two, four and so on up to a tenth of the
    tile, because the noise of cells falls with their size; the largest counts.
    """
    known = np.isfinite(first.flat) & np.isfinite(second.flat)
    samples = [half.noise for half in (first, second) if half.noise is not None]
    for noise in samples:
        known &= np.isfinite(noise)
    if not known.any():
        return 0.0
    coarsest = _coarsest(known.shape)
    fine = _fine(first.flat - second.flat, known, coarsest)
    noises = [_fine(noise, known, coarsest) for noise in samples]
    variance = np.where(known, first.variance + second.variance, 0.0)
    largest = 0.0
    size = 1
    while size <= max(1, coarsest // 2):
        weight = _summed(known.astype(np.float64), size)
        whole = weight > 0.5 * size**2
        if whole.any():
            power, *noise_powers = (_power(image, weight, whole, size) for image in (fine, *noises))
            expected = float(np.mean(_summed(variance, size)[whole] / weight[whole] ** 2))
            expected = max(expected, sum(noise_powers))
            if power - expected > _NOISE_KNOWN * expected:
                largest = max(largest, power - expected)
        size *= 2
    return float(np.sqrt(largest))


def _coarsest(shape: Sequence[int]) -> int:
    return max(1, int(min(shape) * _FINEST_SHARE))


def _power(image: FloatArray, weight: FloatArray, whole: NDArray[np.bool_], size: int) -> float:
    """Mean square of the means of cells."""
    return float(np.mean((_summed(image, size)[whole] / weight[whole]) ** 2))


def _fine(image: FloatArray, known: NDArray[np.bool_], reach: int) -> FloatArray:
    """What is finer than a number of bins; 0 where nothing is known."""
    filled = np.where(known, image, 0.0)
    return np.where(known, filled - _surroundings(filled, known, reach), 0.0)


def _surroundings(image: FloatArray, known: NDArray[np.bool_], reach: int) -> FloatArray:
    from scipy.ndimage import gaussian_filter

    # Half of a wave of twice the reach passes.
    sigma = 0.375 * reach
    share = gaussian_filter(known.astype(np.float64), sigma)
    smooth: FloatArray = gaussian_filter(image, sigma) / np.maximum(share, 1e-6)
    return smooth


def _summed(image: FloatArray, size: int) -> FloatArray:
    rows, columns = (np.arange(0, n, size) for n in image.shape)
    return np.asarray(np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1))
