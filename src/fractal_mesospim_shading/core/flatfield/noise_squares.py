"""What squares of planes say about the camera: mean, noise, third moment, evenness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import NOISE_BINS, BinnedStack, sum_squares

FloatArray = NDArray[np.float64]


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
