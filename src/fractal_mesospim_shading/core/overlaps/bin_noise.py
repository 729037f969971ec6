"""How well the light of bins is known, from the data themselves.

The two views of an overlap change alike from plane to plane: by the tissue. What of their
difference changes beyond that is noise, whatever its kind, also where neighbouring pixels share it.
A single plane tells its noise by second differences of pixels, which texture adds to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BinsOfPiece = tuple[FloatArray, FloatArray, tuple[FloatArray, FloatArray]]

MEDIAN_CHI = 0.4549
"""Median of the square of a standard normal variable."""

# Variance of a log ratio at least: views may be copies of each other, as in a mosaic that was cut
# out of a fused image.
_LEAST = 1e-10
_CLASSES = 8
_LEAST_IN_CLASS = 12
# Of single planes, the part of the bins in a class that are taken to be without texture.
_EVENEST = 0.25
# That quantile of the mean square of 64 second differences, over its expectation.
_EVENEST_SHARE = 0.77


@dataclass(frozen=True)
class BinNoise:
    """Variance of the mean light of a bin in one plane: `gain * light + ground`.

    Attributes:
        gain: counts.
        ground: counts squared.
    """

    gain: float
    ground: float

    def of_log_ratio(self, first: FloatArray, second: FloatArray, planes: int) -> FloatArray:
        """Variance of the logarithm of a ratio of means over some planes.

        Args:
            first, second: light of the bins.
            planes: that were averaged.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            each = [(self.gain * light + self.ground) / light**2 for light in (first, second)]
        variance: FloatArray = np.maximum((each[0] + each[1]) / planes, _LEAST)
        return variance


def noise_of_bins(pieces: Sequence[BinsOfPiece]) -> BinNoise:
    """Fit the noise of all bins of a pair of tiles.

    Args:
        pieces: for each, the light (planes, y, x) of its bins in both views, and what second
            differences of pixels say of the variance of each.
    """
    several = [piece for piece in pieces if len(piece[0]) > 1]
    return _line(*(_of_differences(several) if several else _of_texture(pieces)))


def _of_differences(pieces: Iterable[BinsOfPiece]) -> tuple[FloatArray, FloatArray, float, float]:
    lights, squares = [], []
    for first, second, _ in pieces:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = first.mean(axis=0) / second.mean(axis=0)
            step = np.diff(first - ratio * second, axis=0)
            # The variances of both views add up; that of the second counts by the ratio squared.
            light = (first[1:] + first[:-1] + ratio**2 * (second[1:] + second[:-1])) / 2
            share = 1 / (1 + ratio**2)
            light, square = light * share, step**2 / 2 * share
        good = np.isfinite(square) & np.isfinite(light) & (light > 0)
        lights.append(light[good])
        squares.append(square[good])
    return np.concatenate(lights), np.concatenate(squares), 0.5, MEDIAN_CHI


def _of_texture(pieces: Iterable[BinsOfPiece]) -> tuple[FloatArray, FloatArray, float, float]:
    lights, variances = [], []
    for first, second, texture in pieces:
        for light, variance in zip((first, second), texture, strict=True):
            good = np.isfinite(light) & np.isfinite(variance) & (light > 0)
            lights.append(light[good])
            variances.append(variance[good])
    return np.concatenate(lights), np.concatenate(variances), _EVENEST, _EVENEST_SHARE


def _line(light: FloatArray, variance: FloatArray, quantile: float, scale: float) -> BinNoise:
    """A line through a quantile of the variance in classes of light, neither number below 0.

    Args:
        light, variance: of bins.
        quantile: that is taken.
        scale: that quantile of an observation over its expectation.
    """
    if not len(light):
        return BinNoise(0.0, np.inf)
    count = min(_CLASSES, max(1, len(light) // _LEAST_IN_CLASS))
    classes = np.array_split(np.argsort(light, kind="stable"), count)
    typical = np.array([light[c].mean() for c in classes])
    values = np.array([np.quantile(variance[c], quantile) for c in classes]) / scale
    if not (values > 0).any():
        return BinNoise(0.0, 0.0)
    values = np.maximum(values, 1e-6 * values.max())
    terms = np.stack([typical / values, 1 / values])
    if count > 1:
        slope, ground = np.linalg.lstsq(terms.T, np.ones(count), rcond=None)[0]
        if min(slope, ground) >= 0:
            return BinNoise(float(slope), float(ground))
    # One of the two is 0: the one without which the other fits better.
    alone = [float(term.sum() / (term**2).sum()) for term in terms]
    misfit = [float(((a * term - 1) ** 2).sum()) for a, term in zip(alone, terms, strict=True)]
    return BinNoise(alone[0], 0.0) if misfit[0] <= misfit[1] else BinNoise(0.0, alone[1])
