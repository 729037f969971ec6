"""What is expected of a flat-field before the overlaps are looked at, cosine by cosine.

A flat-field is smooth: of a light sheet, the spread of its coefficients falls with the square of
the wave number. The flat-field that was estimated from planes with sample is wrong by what their
mean still shows of the sample. How much of it that is, tile against tile tells: the coefficients
of the logs of single tiles scatter by the sample, and the mean of all has the error of a
mean. BaSiC removes a part of it, from nearly all to none; that fraction is for the overlaps to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.cosines import coefficients, wave_lengths

FloatArray = NDArray[np.float64]
Places = tuple[NDArray[np.intp], NDArray[np.intp]]

LEAST_VIEWS = 4
"""Fewer views of the tile do not tell how far they scatter."""

# Polynomials up to degree 3 may be as large as they like: so much, in the logarithm.
_POLYNOMIAL = 0.3
# What also a good profile misses: error of a coefficient of wave number 1, falling with it.
_FINE_ERROR = 0.003
# Where views are too few, as if a mean was wrong by so much at wave number 1, falling with it.
_UNKNOWN_ERROR = 0.1
# Bins darker than this fraction of their view's median count as so dark.
_DARKEST = 0.05
# Widths of bands of wave numbers, and of their smoothing, in logarithms.
_BAND = 0.22
_SMOOTHING = 0.3
# A linear ramp of 1 from edge to edge has this coefficient at wave number 1.
_RAMP = 2 * np.sqrt(2) / np.pi**2


@dataclass(frozen=True)
class Expectations:
    """Of the coefficients of a flat-field's logarithm.

    Attributes:
        estimate: (y, x) coefficients of the flat-field that was estimated.
        scatter: (y, x) variance of the same coefficients in the mean over all views.
        length: (y, x) of the wave vectors.
    """

    estimate: FloatArray
    scatter: FloatArray
    length: FloatArray

    @cached_property
    def _polynomials(self) -> FloatArray:
        return polynomials(self.estimate.shape)

    def smoothness(self, amplitude: float) -> FloatArray:
        """Variance of the coefficients of a flat-field of which nothing is known."""
        return amplitude**2 / np.maximum(self.length, 1) ** 4

    def shading(self, amplitude: float, place: Places) -> FloatArray:
        """Covariance of some coefficients of a flat-field of which nothing is known.

        Polynomials come to the cosines, because a slope at the edges of the tile is no sum of a
        few of these: without them the coefficients would seem to know it.
        """
        shapes = self._polynomials[:, *place]
        smooth = np.diag(self.smoothness(amplitude)[place])
        return np.asarray(smooth + _POLYNOMIAL**2 * shapes.T @ shapes)

    def error(self, fraction: float, smooth: float = 0.0) -> FloatArray:
        """Variance of the error of the estimate.

        Args:
            fraction: of the scatter that the estimate holds.
            smooth: size of an error that is as smooth as shading and that tiles do not scatter by.
        """
        fine = (_FINE_ERROR / np.maximum(self.length, 1)) ** 2
        return fraction**2 * self.scatter + self.smoothness(smooth) + fine


def expectations(log_flatfield: FloatArray, views: Mapping[int, FloatArray]) -> Expectations:
    """What a flat-field and the views of single tiles lead to expect.

    Args:
        log_flatfield: (y, x) in bins.
        views: light of a tile by its number, (y, x) in the same bins, mean over its planes; NaN
            where there is no data.
    """
    estimate = coefficients(log_flatfield)
    length = wave_lengths(estimate.shape)
    if len(views) < LEAST_VIEWS:
        return Expectations(estimate, (_UNKNOWN_ERROR / np.maximum(length, 1)) ** 2, length)
    logs = np.stack([_log_view(views[number], log_flatfield) for number in sorted(views)])
    scatter = coefficients(logs).var(axis=0, ddof=1) / len(logs)
    return Expectations(estimate, _smooth(scatter, length), length)


def tilt_error(levels: FloatArray, places: FloatArray) -> float:
    """Variance of the tilt of a mean tile, beyond its scatter, by a ramp through the whole sample.

    All tiles are tilted alike where the sample gets brighter from one side to the other. Their
    levels show that, as far as the ramp is more than chance.

    Args:
        levels: mean of the log of the light of each tile.
        places: of the tiles along an axis, in tiles.
    """
    spread = places - places.mean()
    squares = float(np.sum(spread**2))
    if squares <= 0 or len(levels) < LEAST_VIEWS:
        return 0.0
    slope = float(np.sum(spread * levels)) / squares
    left = levels - levels.mean() - slope * spread
    chance = float(np.sum(left**2)) / (len(levels) - 2) / squares
    return float(_RAMP**2) * max(slope**2 - chance, 0.0)


def polynomials(shape: Sequence[int]) -> FloatArray:
    """Coefficients (n, y, x) of the products of Legendre polynomials up to degree 3, mean square 1.

    Args:
        shape: bins along y and x.
    """
    rows, columns = (_legendre(size) for size in shape)
    images = [
        np.outer(rows[:, k], columns[:, degree - k])
        for degree in (1, 2, 3)
        for k in range(degree + 1)
    ]
    return coefficients(np.stack(images))


def _legendre(size: int) -> FloatArray:
    """Legendre polynomials of degree 0 to 3 at the middles of bins, (bins, 4), mean square 1."""
    place = (2 * np.arange(size) + 1) / size - 1
    square, cube = (3 * place**2 - 1) / 2, (5 * place**3 - 3 * place) / 2
    values = np.stack([np.ones(size), place, square, cube], axis=1)
    return np.asarray(values * np.sqrt([1.0, 3.0, 5.0, 7.0]))


def _log_view(view: FloatArray, log_flatfield: FloatArray) -> FloatArray:
    """Log of the light of a tile; where there is none, what the flat-field leads to expect."""
    known = np.isfinite(view)
    typical = max(float(np.median(view[known])), 1e-6)
    logs = np.log(np.maximum(np.where(known, view, typical), _DARKEST * typical))
    level = float(np.median((logs - log_flatfield)[known]))
    return np.where(known, logs, level + log_flatfield)


def _smooth(power: FloatArray, length: FloatArray) -> FloatArray:
    """Power as a function of the wave number alone, smoothed: single values are a few squares."""
    inside = length > 0
    band = np.round(np.log(length[inside]) / _BAND).astype(np.intp)
    numbers = np.bincount(band)
    used = np.flatnonzero(numbers)
    means = np.log(np.maximum(np.bincount(band, power[inside])[used] / numbers[used], 1e-16))
    middle = used * _BAND
    weight = np.exp(-(((middle[:, None] - middle[None, :]) / _SMOOTHING) ** 2) / 2)
    means = (weight @ means) / weight.sum(axis=1)
    return np.asarray(np.exp(np.interp(np.log(np.maximum(length, 1)), middle, means)))
