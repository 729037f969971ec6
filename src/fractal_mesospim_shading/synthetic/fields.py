"""Smooth random functions of place, known between pixels as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]

# Share of the variance along z that may be left out of a field.
_LEFT_OUT = 1e-4


@dataclass(frozen=True)
class RandomField:
    """A Gaussian random field of mean 0 and variance 1.

    Planes are sums of a few independent images, with the weights that give white noise smoothed
    along z (the eigenvectors of its covariance, after Karhunen and Loeve).

    Attributes:
        along_z: (z, n) weights.
        splines: (n, y, x) coefficients of cubic splines.
    """

    along_z: FloatImage
    splines: FloatImage

    @classmethod
    def drawn(
        cls, random: np.random.Generator, shape: tuple[int, int, int], length: float
    ) -> RandomField:
        """White noise smoothed by a Gaussian.

        Args:
            random: where the noise comes from.
            shape: (z, y, x).
            length: standard deviation of the Gaussian along y and x, pixels; along z it is twice
                as many planes.
        """
        from scipy import fft, ndimage

        z = np.arange(shape[0])
        values, vectors = np.linalg.eigh(np.exp(-(((z[:, None] - z) / (4 * length)) ** 2)))
        kept = np.cumsum(values) > _LEFT_OUT * values.sum()
        along_z = vectors[:, kept] * np.sqrt(values[kept])
        # What wraps around lies outside.
        padded = [fft.next_fast_len(size + int(4 * length), real=True) for size in shape[1:]]
        splines = []
        for _ in range(along_z.shape[1]):
            white = random.standard_normal(padded, dtype=np.float32)
            spectrum = ndimage.fourier_gaussian(fft.rfft2(white), length, padded[1])
            smooth = fft.irfft2(spectrum, padded)
            smooth = (smooth / smooth.std())[: shape[1], : shape[2]].astype(np.float32)
            splines.append(ndimage.spline_filter(smooth, order=3, output=np.float32))
        return cls(along_z.astype(np.float32), np.stack(splines))

    def at(self, corner: Sequence[float], shape: tuple[int, int]) -> FloatImage:
        """Its values (z, y, x) at the pixels of a tile, whose corner may lie between pixels.

        The tile has to lie two pixels within the field.
        """
        from scipy import ndimage

        whole = [int(np.floor(c)) - 2 for c in corner]
        y, x = (slice(w, w + size + 5) for w, size in zip(whole, shape, strict=True))
        move = [w - c for w, c in zip(whole, corner, strict=True)]
        views = [
            ndimage.shift(spline[y, x], move, order=3, prefilter=False)[: shape[0], : shape[1]]
            for spline in self.splines
        ]
        return np.asarray(np.tensordot(self.along_z, np.stack(views), 1), dtype=np.float32)
