"""Flat-fields as sums of cosines over the tile.

A cosine of wave numbers (k, l) is `cos(pi k (y + 1/2) / height) cos(pi l (x + 1/2) / width)`,
scaled so that the mean of its square is 1: the sum of the squares of coefficients is the mean
square of what they describe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Wave numbers up to this length are smooth shading; along one axis, nearly constant along the
# other, are streaks.
_SMOOTH = 12
_STREAKS = 32
_ALONG = 2
# Half a wave is no shorter than this many pixels, or bins could not tell it.
_SHORTEST_PX = 10


@dataclass(frozen=True)
class Cosines:
    """Some cosines over a tile, without the constant.

    Attributes:
        tile_shape: (y, x) in pixels.
        y, x: wave number of each along y and along x.
    """

    tile_shape: tuple[int, int]
    y: NDArray[np.intp]
    x: NDArray[np.intp]

    @property
    def length(self) -> FloatArray:
        """Of the wave vector of each, in half waves over the tile."""
        return np.hypot(self.y, self.x)

    def at(self, y: FloatArray, x: FloatArray) -> FloatArray:
        """Their values at places in pixels of the tile, (places, cosines)."""
        height, width = self.tile_shape
        rows, columns = _waves(y, height, int(self.y.max())), _waves(x, width, int(self.x.max()))
        values: FloatArray = rows[:, self.y] * columns[:, self.x]
        return values


def shading_cosines(tile_shape: tuple[int, int], grid: tuple[int, int]) -> Cosines:
    """Those of which the shading of a light sheet consists, with its streaks.

    Args:
        tile_shape: (y, x) in pixels.
        grid: bins along y and x that the coefficients come from.
    """
    most = [
        min(_STREAKS, size // _SHORTEST_PX, bins - 1)
        for size, bins in zip(tile_shape, grid, strict=True)
    ]
    y, x = np.meshgrid(*(np.arange(n + 1) for n in most), indexing="ij")
    chosen = (np.hypot(y, x) <= _SMOOTH) | (np.minimum(y, x) <= _ALONG)
    chosen[0, 0] = False
    return Cosines(tile_shape, y[chosen], x[chosen])


def coefficients(images: FloatArray) -> FloatArray:
    """All coefficients of images in bins (..., y, x), wave numbers in place of bins."""
    from scipy.fft import dctn

    scale = np.sqrt(images.shape[-2] * images.shape[-1])
    return np.asarray(dctn(images, axes=(-2, -1), norm="ortho") / scale)


def image_of(values: FloatArray) -> FloatArray:
    """The image in bins (y, x) of all its coefficients."""
    from scipy.fft import idctn

    return np.asarray(idctn(values * np.sqrt(values.size), norm="ortho"))


def wave_lengths(shape: Sequence[int]) -> FloatArray:
    """Length of the wave vector of every coefficient of an image."""
    return np.asarray(np.hypot(np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]))


def _waves(places: FloatArray, size: int, most: int) -> FloatArray:
    number = np.arange(most + 1)
    scale = np.where(number > 0, np.sqrt(2), 1.0)
    waves: FloatArray = np.cos(np.pi * (np.asarray(places)[:, None] + 0.5) / size * number) * scale
    return waves
