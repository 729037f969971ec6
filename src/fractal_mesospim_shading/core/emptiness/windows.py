"""Planes as means over windows of three sizes, with the variance of their noise.

A window of the smallest size is a hundredth of a tile; larger ones see light that is dim but wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.changes import (
    LEAST_WINDOWS,
    Changes,
    NoiseLine,
    parts_of,
)
from fractal_mesospim_shading.core.flatfield.binning import BinnedStack, Zeros
from fractal_mesospim_shading.core.flatfield.noise import zeros_among_values
from fractal_mesospim_shading.errors import SamplingError

FloatArray = NDArray[np.float64]

GRID = 40
"""Bins along a side of a tile, about."""

# Sides of the windows in parts of a tile's side, and how many of them a step is.
_SIDES = (0.1, 0.2, 0.4)
_STEPS = 2
# A window counts where so much of it was recorded.
_LEAST_WHOLE = 0.999
# Share of the pixels that are 0 among others, above which a 0 is a value.
_ZEROS_ARE_VALUES = 1e-4
# Pairs of neighbouring planes that tell the noise: those not much noisier than the quietest.
_QUIET = 0.05
_QUIET_SPREAD = 1.5
# Pairs that are enough for it.
_LEAST_PAIRS = 8


def choose_window_bin(tile_shape: tuple[int, int]) -> int:
    """Side of a bin in pixels, even, so that a tile has about 40 of them along its shorter side."""
    return max(2, 2 * round(min(tile_shape) / (2 * GRID)))


@dataclass(frozen=True)
class Windows:
    """Planes of one channel and side as window means.

    Attributes:
        tile: (n,) number of the tile of each plane; planes of a tile lie together.
        plane: (n,) number of each plane along z, ascending within a tile; planes of later time
            points go on counting.
        run: (n,) planes of the same number are neighbours that were taken one after the other.
        means: for each size, (n, windows) counts with the offset in them; NaN where pixels of a
            window were not recorded.
        pixels: for each size, (windows) that a window has; fewer where the tile ends in a bin.
        grid: how many of the smallest windows there are along y and x.
        changes: from each plane to its neighbour.
        noise: of these planes that are thought empty.
    """

    tile: NDArray[np.int64]
    plane: NDArray[np.int64]
    run: NDArray[np.int64]
    means: tuple[FloatArray, ...]
    pixels: tuple[FloatArray, ...]
    grid: tuple[int, int]
    changes: Changes
    noise: NoiseLine

    @classmethod
    def of(
        cls,
        stack: BinnedStack,
        refs: Sequence[tuple[int, int]],
        n_z: int,
        zeros: Zeros = np.zeros,
    ) -> Windows:
        """The windows of binned planes.

        Args:
            stack: of the planes, zeros left out as no data; a bin as `choose_window_bin` says.
            refs: (tile number, plane) of each, sorted.
            n_z: planes of one time point.
            zeros: makes the arrays that hold the means of all planes.

        Raises:
            SamplingError: no plane has a neighbour, so that nothing tells the noise.
        """
        tile, plane = np.array(refs, np.int64).reshape(-1, 2).T
        begins = np.ones(len(tile), np.bool_)
        begins[1:] = (np.diff(tile) != 0) | (np.diff(plane) != 1) | (plane[1:] % n_z == 0)
        whole = _pixels_of_bins(stack)
        pixels = tuple(sums[0] for sums in _window_sums(whole[None]))
        means = _window_means(stack, pixels, zeros)
        run = np.cumsum(begins, dtype=np.int64)
        changes = Changes.of(means[0], pixels[0], run, stack)
        if not len(changes.first):
            raise SamplingError(
                "No two neighbouring planes of a tile hold data: nothing tells noise from sample."
            )
        quiet = changes.ratio <= np.quantile(changes.ratio, _QUIET) * _QUIET_SPREAD
        rows, columns = (len(starts) for starts, _ in _spans(whole.shape, _SIDES[0]))
        grid = (rows, columns)
        return cls(tile, plane, run, means, pixels, grid, changes, changes.noise(quiet))

    def measured(self, members: NDArray[np.bool_]) -> Windows:
        """The same with the noise of some planes thought empty, where they are enough."""
        first = self.changes.first
        both = members[first] & members[first + 1]
        if both.sum() < _LEAST_PAIRS:
            return self
        return replace(self, noise=self.changes.noise(both))

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) planes of which enough was recorded."""
        share: FloatArray = np.isfinite(self.means[0]).mean(axis=1)
        return np.asarray(share >= LEAST_WINDOWS)

    def variance(self, size: int, counts: FloatArray, windows: slice = slice(None)) -> FloatArray:
        """Variance of the noise of windows of a size whose expected mean is known.

        Args:
            size: index of the size, 0 for the smallest.
            counts: expected means with the offset in them.
            windows: which of that size these are of.
        """
        noise = self.noise
        variance = np.maximum(noise.intercept + noise.slope * counts, noise.least)
        per_window: FloatArray = variance / self.pixels[size][windows]
        return per_window


def _pixels_of_bins(stack: BinnedStack) -> FloatArray:
    height, width = stack.tile_shape
    rows, columns = (
        np.diff(np.append(np.arange(0, n, stack.bin_px), n)).astype(float) for n in (height, width)
    )
    return np.asarray(rows[:, None] * columns[None, :])


def _window_means(
    stack: BinnedStack, pixels: Sequence[FloatArray], zeros: Zeros
) -> tuple[FloatArray, ...]:
    """For each size (n, windows) means; NaN where pixels of a window were not recorded.

    The planes of a window lie together: most of what is asked is asked of a few windows of all
    planes, which then are a part of the memory, or of a file, and not a little everywhere.
    """
    means = tuple(zeros((len(own), len(stack.mean)), np.float64).T for own in pixels)
    zeros_are_values = zeros_among_values(stack) > _ZEROS_ARE_VALUES
    for part in parts_of(len(stack.mean), stack.mean[0].size):
        total, missing = _usable_bins(stack, part, zeros_are_values)
        sums = zip(means, _window_sums(total), _window_sums(missing), pixels, strict=True)
        for result, light, gone, own in sums:
            result[part] = np.where(gone > 0, np.nan, light / own)
    return means


def _usable_bins(
    stack: BinnedStack, part: slice, zeros_are_values: bool
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Sum of the pixels of each bin, 0 where it was not recorded as a whole; and where not."""
    pixels, count = _pixels_of_bins(stack), stack.count[part]
    if zeros_are_values:
        # Single zeros are pixels of a dark image; where nothing else is, nothing was recorded.
        missing, number = _widened(count == 0), count.astype(np.float64)
    else:
        least = np.ceil(_LEAST_WHOLE * pixels).astype(count.dtype)
        missing, number = _widened(count < least), pixels
    total = stack.mean[part] * number
    total[missing | ~np.isfinite(total)] = 0.0
    return total, missing


def _widened(missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the neighbours of what is missing, in which coarse pixels hold a part of it."""
    if not missing.any():
        return missing
    padded = np.pad(missing, ((0, 0), (1, 1), (1, 1)))
    height, width = missing.shape[1:]
    result = missing.copy()
    for y in range(3):
        for x in range(3):
            result |= padded[:, y : y + height, x : x + width]
    return result


Spans = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]


def _spans(bins: Sequence[int], side: float) -> Spans:
    """First and last + 1 bin of the windows of a side, along y and x."""
    spans = []
    for number in bins:
        length = max(1, round(side * number))
        starts = np.arange(0, number - length + 1, max(1, length // _STEPS))
        starts = np.unique(np.append(starts, number - length))
        spans.append((starts, starts + length))
    return spans


def _window_sums(values: NDArray[Any]) -> list[FloatArray]:
    """Sums (n, windows) of planes of bins over the windows of each size.

    The bins are joined to what lies between the edges of all windows first, which are few.
    """
    sizes = [_spans(values.shape[1:], side) for side in _SIDES]
    joined = values.astype(np.float64, copy=False)
    edges = []
    for axis in (0, 1):
        every = np.unique(np.concatenate([ends for spans in sizes for ends in spans[axis]]))
        joined = np.add.reduceat(joined, every[:-1], axis=axis + 1)
        edges.append(every)
    sums = np.zeros((len(joined), *(size + 1 for size in joined.shape[1:])))
    sums[:, 1:, 1:] = joined.cumsum(axis=1).cumsum(axis=2)
    found = []
    for spans in sizes:
        (top, bottom), (left, right) = (
            tuple(np.searchsorted(every, ends) for ends in own)
            for every, own in zip(edges, spans, strict=True)
        )
        rows = sums[:, bottom] - sums[:, top]
        found.append((rows[:, :, right] - rows[:, :, left]).reshape(len(values), -1))
    return found
