"""Planes reduced to bins while they are read.

The planes of an estimate do not fit into memory, so each box that is read is reduced at once: to
the mean of bins of a few pixels, and, on a grid eight times coarser, to the variance of the
noise. Everything robust happens afterwards, on these small arrays.

The noise of one plane is measured on cells of 2 x 2 pixels by `(a - b - c + d) / 2`,
which any smooth structure leaves at 0. The difference of two planes is free of the
camera's fixed pattern and nearly so of structure, and all three degrees of freedom of a
cell can be used: what its four differences scatter about their mean.

The inner loops add up columns of pixels first and join them to bins once per row of bins, so
that they handle neighbouring pixels together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binned_skew import SKEW_PIXELS, bin_skew
from fractal_mesospim_shading.core.kernel_cache import kernel
from fractal_mesospim_shading.errors import SamplingError

Shape = tuple[int, int]

Zeros = Callable[[tuple[int, ...], Any], NDArray[Any]]
"""Makes an array of zeros from its shape and type: in memory, or where there is more room."""

NOISE_BINS = 8
"""Bins along each side of one square of the noise grid."""

# Expected third moment of a window over the third cumulant of a pixel: of the sum and
# the difference of two planes it is 2, and (n - 1)(n - 2) / n pixels' worth are left
# beside the means.
_CUBES_PER_WINDOW = 2 * (SKEW_PIXELS - 1) * (SKEW_PIXELS - 2) / SKEW_PIXELS
# Bins of a plane at most: 200 planes then take 56 MB in float32.
_MOST_BINS = 70_000
# A dark frame is rounded to this fraction of a count, so that all sums of integer
# images are exact in float64 and do not depend on the order of the boxes.
_DARK_STEP = 1 / 256


@dataclass(frozen=True)
class PartialBins:
    """What one box contributes: sums over the pixels of the box, per plane and bin.

    Attributes:
        origin, noise_origin: (y, x) of the first bin, and of the first square, in the tile.
        total, count: (k, y, x) sum and number of the valid pixels.
        noise, numbers: (3, k, y, x) on the noise grid: squares of the cells of one plane, and
            their number; squares of the changes of the cells to the next plane about their
            means, and degrees of freedom, 3 for each cell; third moments of this plane and the
            next in windows, and number of the windows.
        saturated: pixels at the upper end of the type.
    """

    origin: Shape
    noise_origin: Shape
    total: NDArray[np.float64]
    count: NDArray[np.int32]
    noise: NDArray[np.float64]
    numbers: NDArray[np.int32]
    saturated: int


def choose_bin(tile_shape: Shape) -> int:
    """Side of a bin in pixels: 2 for tiles of 128, 4 for 512, 8 for 2048.

    Small enough for streaks and the steep fall-off at the edges, large enough for memory.
    """
    side = max(2, 2 ** round(np.log2(np.sqrt(max(min(tile_shape), 1) / 32))))
    while -(-tile_shape[0] // side) * -(-tile_shape[1] // side) > _MOST_BINS:
        side *= 2
    return int(side)


def bin_block(
    block: NDArray[Any],
    y0: int,
    x0: int,
    bin_px: int,
    dark: NDArray[np.floating[Any]] | float | None = None,
    zero_is_no_data: bool = False,
) -> PartialBins:
    """Reduce a box of one tile to bins.

    Args:
        block: (k, h, w) planes in the order of z; uint8, uint16 or float32.
        y0, x0: first pixel of the box within its tile.
        bin_px: side of a bin, even.
        dark: (h, w) dark frame of the same pixels, or a number, in counts; it is taken from the
            means and not from the noise.
        zero_is_no_data: leave out pixels of raw value 0. NaN is always left out.
    """
    if bin_px < 2 or bin_px % 2:
        raise SamplingError(f"A bin of {bin_px} pixels was asked for; expected an even number.")
    frame = np.empty(block.shape[1:], np.float64)
    frame[...] = np.round(np.float64(0.0 if dark is None else dark) / _DARK_STEP) * _DARK_STEP
    top = float(np.iinfo(block.dtype).max) if block.dtype.kind in "iu" else np.inf
    noise_px = bin_px * NOISE_BINS
    planes = np.ascontiguousarray(block)
    total, count, saturated = _bin_means(planes, frame, y0, x0, bin_px, zero_is_no_data, top)
    squares, cells = _bin_noise(planes, y0, x0, noise_px, zero_is_no_data, top)
    cubes, windows = bin_skew(planes, y0, x0, noise_px, zero_is_no_data, top)
    noise, numbers = np.concatenate([squares, cubes[None]]), np.concatenate([cells, windows[None]])
    origin, noise_origin = (y0 // bin_px, x0 // bin_px), (y0 // noise_px, x0 // noise_px)
    return PartialBins(origin, noise_origin, total, count, noise, numbers, int(saturated.sum()))


@dataclass(frozen=True)
class BinnedStack:
    """The planes of an estimate, reduced to bins. NaN where there was no valid pixel.

    Attributes:
        tile_shape: (y, x) in pixels.
        bin_px: side of a bin; the last bin of an axis may be cut by the edge.
        integer: whether the pixels were rounded to whole counts.
        mean: (n, y, x) float32, counts; a dark frame given is already taken off.
        count: (n, y, x) valid pixels.
        noise_mean: (n, y, x) float32 on the noise grid (8 x 8 bins a square).
        spatial, temporal: (n, y, x) float64 variance of the noise, counts squared, within a
            plane, and from the difference to the next plane that was read together with it.
        spatial_cells, temporal_cells: (n, y, x) degrees of freedom of each value.
        third: (n, y, x) float64 third cumulant of the noise of a pixel, counts cubed, from this
            plane and the next, free of the fixed pattern like `temporal`.
        third_pixels: (n, y, x) pixels of each value.
        saturated: pixels at the upper end of the type, in all planes.
    """

    tile_shape: Shape
    bin_px: int
    integer: bool
    mean: NDArray[np.float32]
    count: NDArray[np.uint16]
    noise_mean: NDArray[np.float32]
    spatial: NDArray[np.float64]
    spatial_cells: NDArray[np.int64]
    temporal: NDArray[np.float64]
    temporal_cells: NDArray[np.int64]
    third: NDArray[np.float64]
    third_pixels: NDArray[np.int64]
    saturated: int


class BinnedPlanes:
    """Gathers the boxes of a number of planes. Not safe for several threads at once."""

    def __init__(
        self,
        n_planes: int,
        tile_shape: Shape,
        bin_px: int | None = None,
        zeros: Zeros = np.zeros,
    ) -> None:
        """Make room for planes, numbered by slot from 0.

        Args:
            n_planes: how many.
            tile_shape: (y, x) in pixels.
            bin_px: side of a bin; None for `choose_bin(tile_shape)`.
            zeros: makes the arrays that hold all bins.
        """
        self.tile_shape = tile_shape
        self.bin_px = choose_bin(tile_shape) if bin_px is None else bin_px
        bins = tuple(-(-size // self.bin_px) for size in tile_shape)
        squares = tuple(-(-size // NOISE_BINS) for size in bins)
        self._zeros = zeros
        self._total = zeros((n_planes, *bins), np.float64)
        self._count = zeros((n_planes, *bins), np.uint16)
        self._noise = np.zeros((3, n_planes, *squares), np.float64)
        self._numbers = np.zeros((3, n_planes, *squares), np.int64)
        self._saturated = 0

    def add(self, partial: PartialBins, slots: Sequence[int]) -> None:
        """Add what one box holds.

        For integer images the result does not depend on the order of the boxes.

        Args:
            partial: from `bin_block` with the same `bin_px`.
            slots: of the planes of the box, one after the other.
        """
        first = slots[0] if len(slots) else 0
        if list(slots) != list(range(first, first + len(partial.total))):
            raise SamplingError(
                f"A box of {len(partial.total)} planes was given the slots {list(slots)}; "
                "expected as many slots as planes, one after the other."
            )
        self._saturated += partial.saturated
        for target, values, (y, x) in (
            (self._total, partial.total, partial.origin),
            (self._count, partial.count, partial.origin),
            (self._noise, partial.noise, partial.noise_origin),
            (self._numbers, partial.numbers, partial.noise_origin),
        ):
            depth, height, width = values.shape[-3:]
            part = target[..., first : first + depth, y : y + height, x : x + width]
            np.add(part, values, out=part, casting="unsafe")

    def finish(self, integer: bool = True) -> BinnedStack:
        """Means and variances of everything added; `integer` as in `BinnedStack`."""
        pixels = sum_squares(self._count)
        noise_mean = np.where(pixels > 0, sum_squares(self._total) / np.maximum(pixels, 1), np.nan)
        parts = zip(self._noise, self._numbers, (4, 2, _CUBES_PER_WINDOW), strict=True)
        spatial, temporal, third = (
            np.where(number > 0, sums / (divisor * np.maximum(number, 1)), np.nan)
            for sums, number, divisor in parts
        )
        mean = self._zeros(self._total.shape, np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            np.divide(self._total, self._count, out=mean, dtype=np.float64, casting="same_kind")
        return BinnedStack(
            tile_shape=self.tile_shape,
            bin_px=self.bin_px,
            integer=integer,
            mean=mean,
            count=self._count,
            noise_mean=noise_mean.astype(np.float32),
            spatial=spatial,
            spatial_cells=self._numbers[0],
            temporal=temporal,
            temporal_cells=self._numbers[1],
            third=third,
            third_pixels=self._numbers[2] * SKEW_PIXELS,
            saturated=self._saturated,
        )


def sum_squares(values: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over squares of 8 x 8 bins; the last ones may be cut."""
    rows, columns = (np.arange(0, size, NOISE_BINS) for size in values.shape[1:])
    sums = np.empty((len(values), len(rows), len(columns)))
    for own, plane in zip(sums, values, strict=True):
        by_row = np.add.reduceat(plane.astype(np.float64, copy=False), rows, axis=0)
        np.add.reduceat(by_row, columns, axis=1, out=own)
    return sums


@kernel
def _bin_means(block, dark, y0, x0, bin_px, zero_is_no_data, top):  # type: ignore[no-untyped-def]
    """Sum and number of the valid pixels of each bin, and saturated pixels of each plane."""
    planes, height, width = block.shape
    first_y, first_x = y0 // bin_px, x0 // bin_px
    rows, columns = (y0 + height - 1) // bin_px + 1, (x0 + width - 1) // bin_px + 1
    shape = (planes, rows - first_y, columns - first_x)
    total, count = np.zeros(shape, np.float64), np.zeros(shape, np.int32)
    saturated = np.zeros(planes, np.int64)
    sums, valid = np.zeros(width, np.float64), np.zeros(width, np.int32)
    bright = np.zeros(width, np.int32)
    for k in range(planes):
        for y in range(height):
            for x in range(width):
                raw = np.float64(block[k, y, x])
                good = np.isfinite(raw) and not (zero_is_no_data and raw == 0.0)
                sums[x] += raw - dark[y, x] if good else 0.0
                valid[x] += np.int32(1) if good else np.int32(0)
                bright[x] += np.int32(1) if raw >= top else np.int32(0)
            if (y0 + y + 1) % bin_px == 0 or y == height - 1:
                row = (y0 + y) // bin_px - first_y
                for column in range(columns - first_x):
                    left = (first_x + column) * bin_px - x0
                    light, pixels, full = 0.0, 0, 0
                    for x in range(max(left, 0), min(left + bin_px, width)):
                        light += sums[x]
                        pixels += valid[x]
                        full += bright[x]
                    total[k, row, column] = light
                    count[k, row, column] = pixels
                    saturated[k] += full
                sums[:], valid[:], bright[:] = 0.0, 0, 0
    return total, count, saturated


@kernel
def _bin_noise(block, y0, x0, noise_px, zero_is_no_data, top):  # type: ignore[no-untyped-def]
    """Squares of the cells of one plane, and of their changes to the next, with numbers."""
    planes, height, width = block.shape
    first_y, first_x = y0 // noise_px, x0 // noise_px
    rows, columns = (y0 + height - 1) // noise_px + 1, (x0 + width - 1) // noise_px + 1
    shape = (2, planes, rows - first_y, columns - first_x)
    squares, numbers = np.zeros(shape, np.float64), np.zeros(shape, np.int32)
    odd_y, odd_x = y0 % 2, x0 % 2
    high, wide = (height - odd_y) // 2, (width - odd_x) // 2
    sums, known = np.zeros((2, wide), np.float64), np.zeros((2, wide), np.int32)
    was_good, good = np.zeros((high, wide), np.bool_), False
    for k in range(planes):
        before = max(k - 1, 0)
        for cell_y in range(high):
            y = odd_y + 2 * cell_y
            for cell_x in range(wide):
                x = odd_x + 2 * cell_x
                a, b = np.float64(block[k, y, x]), np.float64(block[k, y, x + 1])
                c, d = np.float64(block[k, y + 1, x]), np.float64(block[k, y + 1, x + 1])
                cell = a - b - c + d
                good = np.isfinite(cell) and max(max(a, b), max(c, d)) < top
                good = good and not (zero_is_no_data and a * b * c * d == 0.0)
                sums[0, cell_x] += cell * cell if good else 0.0
                known[0, cell_x] += np.int32(1) if good else np.int32(0)
                a, b = a - block[before, y, x], b - block[before, y, x + 1]
                c, d = c - block[before, y + 1, x], d - block[before, y + 1, x + 1]
                spread = a * a + b * b + c * c + d * d - (a + b + c + d) ** 2 / 4
                both = k > 0 and good and was_good[cell_y, cell_x]
                sums[1, cell_x] += spread if both else 0.0
                known[1, cell_x] += np.int32(3) if both else np.int32(0)
                was_good[cell_y, cell_x] = good
            if (y0 + y + 2) // noise_px > (y0 + y) // noise_px or cell_y == high - 1:
                row = (y0 + y) // noise_px - first_y
                for cell_x in range(wide):
                    column = (x0 + odd_x + 2 * cell_x) // noise_px - first_x
                    for kind in range(2):
                        plane = k if kind == 0 else before
                        squares[kind, plane, row, column] += sums[kind, cell_x]
                        numbers[kind, plane, row, column] += known[kind, cell_x]
                sums[:], known[:] = 0.0, 0
    return squares, numbers
