"""Planes reduced to bins while they are read.

The planes of an estimate do not fit into memory, so each box that is read is
reduced at once: to the mean of bins of a few pixels, and, on a grid eight times
coarser, to the variance of the noise. Everything robust happens afterwards, on
these small arrays.

The noise of one plane is measured on cells of 2 x 2 pixels by `(a - b - c + d) / 2`,
which any smooth structure leaves at 0. The difference of two planes is free of the
camera's fixed pattern and nearly so of structure, and all three degrees of freedom of a
cell can be used: what its four differences scatter about their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import SamplingError

NOISE_BINS = 8
"""Bins along each side of one square of the noise grid."""

SKEW_PIXELS = 16
"""Pixels of a window of the third moment, 4 x 4."""

# Expected third moment of a window over the third cumulant of a pixel: of the sum and
# the difference of two planes it is 2, and (n - 1)(n - 2) / n pixels' worth are left
# beside the means.
_CUBES_PER_WINDOW = 2 * (SKEW_PIXELS - 1) * (SKEW_PIXELS - 2) / SKEW_PIXELS
_MOST_BINS = 70_000
# A dark frame is rounded to this fraction of a count, so that all sums of integer
# images are exact in float64 and do not depend on the order of the boxes.
_DARK_STEP = 1 / 256


@dataclass(frozen=True)
class PartialBins:
    """What one box contributes: sums over the pixels of the box, per plane and bin.

    Attributes:
        origin: (y, x) of the first bin on the grid of the tile.
        noise_origin: the same on the noise grid.
        total, count: (k, y, x) sum and number of the valid pixels.
        spatial, spatial_count: (k, y, x) squares of the cells of one plane.
        temporal, temporal_count: (k, y, x) squares of the changes of the cells to the
            next plane about their means, and degrees of freedom, 3 for each cell.
        cubes, cubes_count: (k, y, x) third moments of this plane and the next in windows,
            and number of the windows.
        saturated: (k,) pixels at the upper end of the type.
    """

    origin: tuple[int, int]
    noise_origin: tuple[int, int]
    total: NDArray[np.float64]
    count: NDArray[np.int32]
    spatial: NDArray[np.float64]
    spatial_count: NDArray[np.int32]
    temporal: NDArray[np.float64]
    temporal_count: NDArray[np.int32]
    cubes: NDArray[np.float64]
    cubes_count: NDArray[np.int32]
    saturated: NDArray[np.int64]


def choose_bin(tile_shape: tuple[int, int]) -> int:
    """Side of a bin in pixels: 2 for tiles of 128, 4 for 512, 8 for 2048.

    Small enough for streaks and the steep fall-off at the edges, large enough that
    200 binned planes stay well below 200 MB.
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
        dark: (h, w) dark frame of the same pixels, or a number, in counts; it is
            taken from the means and not from the noise.
        zero_is_no_data: leave out pixels of raw value 0. NaN is always left out.
    """
    if bin_px < 2 or bin_px % 2:
        raise SamplingError(f"A bin of {bin_px} pixels was asked for; expected an even number.")
    height, width = block.shape[1:]
    if dark is None:
        dark = 0.0
    frame = np.broadcast_to(np.asarray(dark, dtype=np.float64), (height, width))
    frame = np.round(frame / _DARK_STEP) * _DARK_STEP
    is_integer = np.issubdtype(block.dtype, np.integer)
    top = float(np.iinfo(block.dtype).max) if is_integer else np.inf
    # numba takes a moment to import, and most commands never get here.
    from fractal_mesospim_shading.core.flatfield.binning_kernels import (
        bin_means,
        bin_noise,
        bin_skew,
    )

    noise_px = bin_px * NOISE_BINS
    planes = np.ascontiguousarray(block)
    total, count, saturated = bin_means(planes, frame, y0, x0, bin_px, zero_is_no_data, top)
    squares, cells = bin_noise(planes, y0, x0, noise_px, zero_is_no_data, top)
    cubes, windows = bin_skew(planes, y0, x0, noise_px, zero_is_no_data, top)
    return PartialBins(
        origin=(y0 // bin_px, x0 // bin_px),
        noise_origin=(y0 // noise_px, x0 // noise_px),
        total=total,
        count=count,
        spatial=squares[0],
        spatial_count=cells[0],
        temporal=squares[1],
        temporal_count=cells[1],
        cubes=cubes,
        cubes_count=windows,
        saturated=saturated,
    )


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
        spatial, temporal: (n, y, x) float64 variance of the noise, counts squared,
            within a plane, and from the difference to the next plane that was read
            together with it.
        spatial_cells, temporal_cells: (n, y, x) degrees of freedom of each value.
        third: (n, y, x) float64 third cumulant of the noise of a pixel, counts cubed,
            from this plane and the next, free of the fixed pattern like `temporal`.
        third_pixels: (n, y, x) pixels of each value.
        saturated: pixels at the upper end of the type, in all planes.
    """

    tile_shape: tuple[int, int]
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
        self, n_planes: int, tile_shape: tuple[int, int], bin_px: int | None = None
    ) -> None:
        """Make room for planes of one tile shape.

        Args:
            n_planes: planes, numbered by slot from 0.
            tile_shape: (y, x) in pixels.
            bin_px: side of a bin, even; by default `choose_bin(tile_shape)`.
        """
        self.tile_shape = tile_shape
        self.bin_px = choose_bin(tile_shape) if bin_px is None else bin_px
        bins = tuple(-(-size // self.bin_px) for size in tile_shape)
        squares = tuple(-(-size // NOISE_BINS) for size in bins)
        self._total = np.zeros((n_planes, *bins), np.float64)
        self._count = np.zeros((n_planes, *bins), np.uint16)
        self._noise = [np.zeros((n_planes, *squares), np.float64) for _ in range(3)]
        self._cells = [np.zeros((n_planes, *squares), np.int64) for _ in range(3)]
        self._saturated = 0

    def add(self, partial: PartialBins, slots: Sequence[int]) -> None:
        """Add what one box holds.

        For integer images the result does not depend on the order of the boxes.

        Args:
            partial: from `bin_block` with the same `bin_px`.
            slots: the slot of each plane of the box; one after the other, in the
                order of the box, as planes sorted by tile and z have them.
        """
        expected = list(range(slots[0], slots[0] + len(partial.total))) if len(slots) else []
        if list(slots) != expected or len(slots) != len(partial.total):
            raise SamplingError(
                f"A box of {len(partial.total)} planes was given the slots {list(slots)}; "
                "expected as many slots as planes, one after the other."
            )
        self._saturated += int(partial.saturated.sum())
        pairs = (
            (self._total, partial.total, partial.origin),
            (self._count, partial.count, partial.origin),
            (self._noise[0], partial.spatial, partial.noise_origin),
            (self._cells[0], partial.spatial_count, partial.noise_origin),
            (self._noise[1], partial.temporal, partial.noise_origin),
            (self._cells[1], partial.temporal_count, partial.noise_origin),
            (self._noise[2], partial.cubes, partial.noise_origin),
            (self._cells[2], partial.cubes_count, partial.noise_origin),
        )
        first = slots[0] if len(slots) else 0
        for target, values, (y, x) in pairs:
            depth, height, width = values.shape
            part = target[first : first + depth, y : y + height, x : x + width]
            np.add(part, values, out=part, casting="unsafe")

    def finish(self, integer: bool = True) -> BinnedStack:
        """Means and variances of everything added.

        Args:
            integer: the pixels were whole counts; the noise of rounding is known then.
        """
        noise_mean = sum_squares(self._total) / np.maximum(sum_squares(self._count), 1)
        noise_mean[sum_squares(self._count) == 0] = np.nan
        spatial, temporal, third = (
            np.where(cells > 0, squares / (divisor * np.maximum(cells, 1)), np.nan)
            for squares, cells, divisor in zip(
                self._noise, self._cells, (4, 2, _CUBES_PER_WINDOW), strict=True
            )
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (self._total / self._count).astype(np.float32)
        return BinnedStack(
            tile_shape=self.tile_shape,
            bin_px=self.bin_px,
            integer=integer,
            mean=mean,
            count=self._count,
            noise_mean=noise_mean.astype(np.float32),
            spatial=spatial,
            spatial_cells=self._cells[0],
            temporal=temporal,
            temporal_cells=self._cells[1],
            third=third,
            third_pixels=self._cells[2] * SKEW_PIXELS,
            saturated=self._saturated,
        )


def sum_squares(values: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over squares of 8 x 8 bins; the last ones may be cut."""
    rows = np.arange(0, values.shape[1], NOISE_BINS)
    columns = np.arange(0, values.shape[2], NOISE_BINS)
    by_row = np.add.reduceat(values.astype(np.float64, copy=False), rows, axis=1)
    return np.add.reduceat(by_row, columns, axis=2)


def without_margins(stack: BinnedStack) -> BinnedStack:
    """The same planes without those that are 0 throughout, and without their margins of zeros.

    For planes of which zeros were counted as values. A bin that a margin cuts is left out as a
    whole, and so is a square of the noise grid.

    Args:
        stack: of raw pixels, no dark frame taken off.
    """
    bins, squares = np.ones(stack.mean.shape, np.bool_), np.ones(stack.spatial.shape, np.bool_)
    for plane, mean in enumerate(stack.mean):
        recorded = np.isfinite(mean) & (mean != 0)
        keep = np.ix_(*(_inner(recorded.any(axis=1 - axis)) for axis in (0, 1)))
        bins[plane] = False
        bins[plane][keep] = True
    if bins.all():
        return stack
    part = sum_squares(~bins) > 0
    squares[part] = False
    # Of two planes together, both have to be there.
    pairs = squares.copy()
    pairs[:-1] &= squares[1:]
    return replace(
        stack,
        mean=np.where(bins, stack.mean, np.float32(np.nan)),
        count=np.where(bins, stack.count, np.uint16(0)),
        noise_mean=np.where(squares, stack.noise_mean, np.float32(np.nan)),
        spatial=np.where(squares, stack.spatial, np.nan),
        spatial_cells=np.where(squares, stack.spatial_cells, 0),
        temporal=np.where(pairs, stack.temporal, np.nan),
        temporal_cells=np.where(pairs, stack.temporal_cells, 0),
        third=np.where(pairs, stack.third, np.nan),
        third_pixels=np.where(pairs, stack.third_pixels, 0),
    )


def _inner(recorded: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The lines of bins between margins, without the one that a margin ends in."""
    lines = np.flatnonzero(recorded)
    if not lines.size:
        return lines
    first, last = lines[0], lines[-1]
    first += first > 0
    last -= last < len(recorded) - 1
    return np.arange(first, last + 1)
