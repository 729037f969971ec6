"""Squares of planes, and what of their noise can be used.

The noise of a square is measured at three scales: in cells of one plane, in the change of these
cells to the next plane, and in the change of whole bins. Where pixels are independent, all
three tell the same variance; a filter takes noise from the finest scale first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import NOISE_BINS, BinnedStack
from fractal_mesospim_shading.core.kernel_cache import kernel

FloatArray = NDArray[np.float64]

# A square is even within this many standard deviations, and the evenest fifth always is.
_EVEN_SIGMAS = 2.0
_LEAST_EVEN = 0.2
# The sixth of the squares that has the least of something: its distance from the rest, in
# standard deviations of their noise.
_SIXTH = 0.15
_SIXTH_SIGMAS = 1.04
# Squares with fewer degrees of freedom say too little about the noise.
_LEAST_CELLS = 12
# Noise at the finest scale over that of all scales, below which a filter was at work.
_FILTERED = 0.93
# No filter leaves less of it than this.
_FINEST = 0.001
# Share of the squares that are the darkest, at least so many of them.
_DARKEST_SHARE = 0.01
_LEAST_SQUARES = 8
# Structure of a dark frame that is left in the mean of squares, counts.
_DARK_STRUCTURE = 0.3


@dataclass(frozen=True)
class Level:
    """A number of counts with its standard deviation."""

    value: float
    error: float


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
        change: (n, y, x) variance of the noise from the change of bins to the next plane, counts
            squared of a pixel.
        change_bins: (n, y, x) differences that this was taken from.
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
    change: FloatArray
    change_bins: FloatArray

    @classmethod
    def of(cls, stack: BinnedStack) -> NoiseSquares:
        """The squares of binned planes."""
        halves, pixels = _halves(stack)
        every = np.ones(len(stack.mean), np.bool_)
        power, bins = _sums_of_differences(stack.mean, stack.count, every, 0, NOISE_BINS)
        pairs = np.zeros(len(stack.mean), np.bool_)
        pairs[:-1] = stack.temporal_cells[:-1].any(axis=(1, 2))
        change, change_bins = _sums_of_differences(stack.mean, stack.count, pairs, 1, NOISE_BINS)
        with np.errstate(invalid="ignore", divide="ignore"):
            roughness = power / bins / stack.spatial
            change = change / change_bins / 2
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
            change=change,
            change_bins=change_bins,
        )

    @property
    def pairs(self) -> bool:
        """Whether enough planes have a neighbour for the noise between planes to be used."""
        return int(self.temporal_cells.sum()) >= 0.2 * int(self.spatial_cells.sum())


def _halves(stack: BinnedStack) -> tuple[FloatArray, FloatArray]:
    total, number = _sums_of_colours(stack.mean, stack.count, NOISE_BINS)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan), number


@kernel
def _sums_of_colours(mean, count, side):  # type: ignore[no-untyped-def]
    """Sum and number (2, n, y, x) of the pixels in bins of either colour of a chessboard."""
    planes, height, width = mean.shape
    shape = (2, planes, (height - 1) // side + 1, (width - 1) // side + 1)
    total, number = np.zeros(shape), np.zeros(shape)
    for k in range(planes):
        for top in range(0, height, side):
            for left in range(0, width, side):
                light, pixels = np.zeros(2), np.zeros(2)
                for y in range(top, min(top + side, height)):
                    for x in range(left, min(left + side, width)):
                        value = np.float64(mean[k, y, x])
                        if np.isfinite(value):
                            light[(y + x) % 2] += value * count[k, y, x]
                            pixels[(y + x) % 2] += count[k, y, x]
                total[:, k, top // side, left // side] = light
                number[:, k, top // side, left // side] = pixels
    return total, number


@kernel
def _sums_of_differences(mean, count, wanted, apart, side):  # type: ignore[no-untyped-def]
    """Sums over squares of the squared second differences of bins, as variances of a pixel.

    A texture that adds a little to the differences of neighbouring pixels adds far
    more to those of neighbouring bins, because optics leave little at the finest scale.
    Second differences leave out the slope of the profile. Each is the sum of three bins' noise
    with weights 1, -2, 1.

    Args:
        mean: (n, y, x) of bins.
        count: (n, y, x) pixels of each.
        wanted: (n,) planes to look at; 0 elsewhere.
        apart: 0 for the bins of a plane, 1 for what they change to the next plane.
        side: bins along a square.

    Returns:
        Sums and numbers, (n, y, x) of squares.
    """
    planes, height, width = mean.shape
    shape = (planes, (height - 1) // side + 1, (width - 1) // side + 1)
    power, number = np.zeros(shape), np.zeros(shape)
    bins = np.empty((height, width))
    for k in np.flatnonzero(wanted):
        for y in range(height):
            for x in range(width):
                bins[y, x] = mean[k + apart, y, x]
                if apart:
                    bins[y, x] -= mean[k, y, x]
        for top in range(0, height, side):
            for left in range(0, width, side):
                squares, bends = 0.0, 0.0
                for y in range(top, min(top + side, height)):
                    for x in range(left, min(left + side, width)):
                        here = bins[y, x]
                        pixels = np.float64(count[k, y, x]) / 6
                        if 0 < y < height - 1:
                            bend = bins[y + 1, x] - here - (here - bins[y - 1, x])
                            if np.isfinite(bend):
                                squares += bend * bend * pixels
                                bends += 1
                        if 0 < x < width - 1:
                            bend = bins[y, x + 1] - here - (here - bins[y, x - 1])
                            if np.isfinite(bend):
                                squares += bend * bend * pixels
                                bends += 1
                power[k, top // side, left // side] = squares
                number[k, top // side, left // side] = bends
    return power, number


@dataclass(frozen=True)
class Scales:
    """How the noise of neighbouring pixels hangs together.

    Attributes:
        fine: noise at the finest scale over that of all scales of a cell; 1 where pixels are
            independent, more with the fixed pattern of a camera, less after a filter.
        coarse: noise of bins over that of cells; the gain of a filtered camera is so many times
            that of the line, at least.
    """

    fine: float = 1.0
    coarse: float = 1.0

    @property
    def filtered(self) -> bool:
        """Whether neighbouring pixels share noise."""
        return self.fine < _FILTERED

    @classmethod
    def of(cls, squares: NoiseSquares) -> Scales:
        """From the squares in which sample adds least to it."""
        cells = (squares.spatial_cells >= _LEAST_CELLS) & (squares.temporal_cells >= _LEAST_CELLS)
        known = cells & (squares.temporal > 0) & (squares.spatial > 0) & (squares.change > 0)
        if known.sum() < _LEAST_SQUARES:
            return cls()
        between = squares.temporal[known]
        scatter = 2 / squares.spatial_cells[known] + 2 / squares.temporal_cells[known]
        fine = squares.spatial[known] / between / (1 + _SIXTH_SIGMAS * np.sqrt(scatter))
        scatter = 4 / squares.change_bins[known] + 2 / squares.temporal_cells[known]
        coarse = squares.change[known] / between / (1 - _SIXTH_SIGMAS * np.sqrt(scatter)).clip(0.1)
        return cls(float(np.quantile(fine, 1 - _SIXTH)), float(np.quantile(coarse, _SIXTH)))


def zeros_among_values(stack: BinnedStack) -> float:
    """Share of the pixels that were left out in bins whose neighbours all hold data.

    Where zeros are left out as no data, these are the pixels of a dark image whose offset was
    taken off. Blocks and margins that were never recorded are none of them.
    """
    height, width = stack.tile_shape
    rows, columns = (np.append(np.arange(0, n, stack.bin_px), n) for n in (height, width))
    whole = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    left_out, seen = 0, 0
    for count in stack.count:
        with_data = np.pad(count > 0, 1, constant_values=True)
        inner = np.ones(count.shape, np.bool_)
        for y in range(3):
            for x in range(3):
                inner &= with_data[y : y + count.shape[0], x : x + count.shape[1]]
        left_out += int((whole - count.astype(np.int64))[inner].sum())
        seen += int(whole[inner].sum())
    return left_out / max(seen, 1)


def usable(squares: NoiseSquares, scales: Scales) -> NDArray[np.bool_]:
    """Squares whose bins differ by no more than the noise of their pixels.

    Filters do something else where the image ends, so its border is left out after them.
    """
    ratio, number = squares.roughness, squares.roughness_bins
    finite = np.isfinite(ratio) & np.isfinite(squares.noise_mean)
    if scales.filtered and min(finite.shape[1:]) > 4:
        inner = np.zeros(finite.shape, np.bool_)
        inner[:, 1:-1, 1:-1] = True
        finite &= inner
    if not finite.any():
        return np.zeros(ratio.shape, dtype=bool)
    expected = max(scales.coarse / max(scales.fine, _FINEST), 1.0) if scales.filtered else 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        # Second differences overlap: their mean square scatters as that of half as many.
        limit = 1 + _EVEN_SIGMAS * np.sqrt(4 / number + 2 / squares.spatial_cells)
        # Where there is little noise, the curvature of the profile itself shows.
        least = np.quantile(ratio[finite], _LEAST_EVEN)
        even: NDArray[np.bool_] = finite & (ratio <= np.maximum(expected * limit, least))
    return even


def darkest_squares(squares: NoiseSquares) -> Level | None:
    """Mean brightness of the darkest squares, counts; None without any.

    They are found by one half of their bins and measured by the other, whose noise is
    independent, so that choosing the darkest does not make them darker.
    """
    chosen_by, measured = squares.halves
    known = np.isfinite(chosen_by) & np.isfinite(measured)
    if not known.any():
        return None
    order = np.argsort(chosen_by[known], kind="stable")
    number = min(len(order), max(_LEAST_SQUARES, round(_DARKEST_SHARE * len(order))))
    darkest = measured[known][order[:number]]
    spread = np.std(darkest) / np.sqrt(number) if number > 1 else 0.0
    pixels = squares.half_pixels[1][known][order[:number]]
    variance = squares.spatial[known][order[:number]]
    variance = np.where(np.isfinite(variance), variance, 0.0)
    noise = np.sqrt((variance / np.maximum(pixels, 1)).sum()) / number
    error = np.hypot(max(spread, noise), _DARK_STRUCTURE if squares.integer else 0.0)
    return Level(float(darkest.mean()), float(error))
