"""Planes as means over windows of three sizes, with the variance of their noise.

A window of the smallest size is a hundredth of a tile; larger ones see light that is dim but wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.noise import NoiseSquares, Scales, zeros_among_values
from fractal_mesospim_shading.errors import SamplingError

FloatArray = NDArray[np.float64]

GRID = 40
"""Bins along a side of a tile, about."""

# Sides of the windows in parts of a tile's side, and how many of them a step is.
_SIDES = (0.1, 0.2, 0.4)
_STEPS = 2
# A window counts where so much of it was recorded; a plane where so many of its windows do.
_LEAST_WHOLE = 0.999
_LEAST_WINDOWS = 0.5
# Share of the pixels that are 0 among others, above which a 0 is a value.
_ZEROS_ARE_VALUES = 1e-4
# Pairs of neighbouring planes that tell the noise: those not much noisier than the quietest.
_QUIET = 0.05
_QUIET_SPREAD = 1.5
# Pairs that are enough for it.
_LEAST_PAIRS = 8
# The noise of windows is that of pixels, times this at most; after a filter times more.
_MOST_RATIO = 1.5
_FILTERED = 64.0
# Noise is at least this share of what it is where the medium is brightest.
_LEAST_NOISE = 0.2
_LEAST_VARIANCE = 1e-12


def choose_window_bin(tile_shape: tuple[int, int]) -> int:
    """Side of a bin in pixels, even, so that a tile has about 40 of them along its shorter side."""
    return max(2, 2 * round(min(tile_shape) / (2 * GRID)))


@dataclass(frozen=True)
class NoiseLine:
    """The variance of the noise of one pixel, as the means of windows tell it.

    Attributes:
        intercept, slope: of the variance as a line in the mean, counts squared and counts.
        least: smallest variance.
    """

    intercept: float
    slope: float
    least: float

    @classmethod
    def of(cls, squares: FloatArray, middle: FloatArray) -> NoiseLine:
        """From (pairs, windows) squares and means."""
        seen = np.isfinite(squares).any(axis=0)
        variance, counts = (np.nanmean(values[:, seen], axis=0) for values in (squares, middle))
        centred = counts - counts.mean()
        power = float((centred**2).sum())
        slope = float((centred * variance).sum()) / power if power > 0 else 0.0
        intercept = float(variance.mean() - slope * counts.mean())
        if slope <= 0:
            intercept, slope = float(variance.mean()), 0.0
        least = _LEAST_NOISE * (intercept + slope * float(counts.max()))
        return cls(intercept, slope, max(least, _LEAST_VARIANCE))


@dataclass(frozen=True)
class Changes:
    """From a plane to the next one.

    Attributes:
        first: (pairs) the first plane of each.
        squares: (pairs, windows) changes squared as variances of a pixel, counts squared. What
            follows the shape is left out: the medium may be brighter or darker by then.
        middle: (pairs, windows) mean of both planes.
        ratio: (pairs) these variances over those of neighbouring pixels: what noise has of it is
            the same in all pairs, and sample adds to it.
        most: ratio that noise alone can have.
    """

    first: NDArray[np.intp]
    squares: FloatArray
    middle: FloatArray
    ratio: FloatArray
    most: float

    def noise(self, pairs: NDArray[np.bool_]) -> NoiseLine:
        """The noise of some pairs, no more than neighbouring pixels tell that it can be."""
        too_much = float(np.median(self.ratio[pairs])) / self.most
        return NoiseLine.of(self.squares[pairs] / max(too_much, 1.0), self.middle[pairs])


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
    def of(cls, stack: BinnedStack, refs: Sequence[tuple[int, int]], n_z: int) -> Windows:
        """The windows of binned planes.

        Args:
            stack: of the planes, zeros left out as no data; a bin as `choose_window_bin` says.
            refs: (tile number, plane) of each, sorted.
            n_z: planes of one time point.

        Raises:
            SamplingError: no plane has a neighbour, so that nothing tells the noise.
        """
        tile, plane = np.array(refs, np.int64).reshape(-1, 2).T
        begins = np.ones(len(tile), np.bool_)
        begins[1:] = (np.diff(tile) != 0) | (np.diff(plane) != 1) | (plane[1:] % n_z == 0)
        total, missing = _usable_bins(stack)
        whole = _pixels_of_bins(stack)
        pixels = tuple(sums[0] for sums in _window_sums(whole[None]))
        sums = zip(_window_sums(total), _window_sums(missing), pixels, strict=True)
        means = tuple(np.where(gone > 0, np.nan, light / own) for light, gone, own in sums)
        run = np.cumsum(begins, dtype=np.int64)
        changes = _changes_of(means[0], pixels[0], run, stack)
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
        return np.asarray(share >= _LEAST_WINDOWS)

    def variance(self, size: int, counts: FloatArray) -> FloatArray:
        """Variance of the noise of windows of a size whose expected mean is known.

        Args:
            size: index of the size, 0 for the smallest.
            counts: expected means with the offset in them.
        """
        noise = self.noise
        variance = np.maximum(noise.intercept + noise.slope * counts, noise.least)
        per_window: FloatArray = variance / self.pixels[size]
        return per_window


def mean_of_known(values: FloatArray, axis: int) -> FloatArray:
    """Mean along an axis without the NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    number = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def _pixels_of_bins(stack: BinnedStack) -> FloatArray:
    height, width = stack.tile_shape
    rows, columns = (
        np.diff(np.append(np.arange(0, n, stack.bin_px), n)).astype(float) for n in (height, width)
    )
    return np.asarray(rows[:, None] * columns[None, :])


def _usable_bins(stack: BinnedStack) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Sum of the pixels of each bin, 0 where it was not recorded as a whole; and where not."""
    pixels = _pixels_of_bins(stack)
    if zeros_among_values(stack) > _ZEROS_ARE_VALUES:
        # Single zeros are pixels of a dark image; where nothing else is, nothing was recorded.
        missing, number = _widened(stack.count == 0), stack.count.astype(np.float64)
    else:
        least = np.ceil(_LEAST_WHOLE * pixels).astype(stack.count.dtype)
        missing, number = _widened(stack.count < least), pixels
    total = stack.mean * number
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


def _changes_of(
    means: FloatArray, pixels: FloatArray, run: NDArray[np.int64], stack: BinnedStack
) -> Changes:
    first = np.flatnonzero(run[1:] == run[:-1])
    change, middle = means[first + 1] - means[first], (means[first + 1] + means[first]) / 2
    both = np.isfinite(change)
    enough = both.sum(axis=1) >= max(_LEAST_WINDOWS * means.shape[1], 4)
    first, change, middle, both = first[enough], change[enough], middle[enough], both[enough]
    number = both.sum(axis=1, keepdims=True)
    x, y = np.where(both, middle, 0.0), np.where(both, change, 0.0)
    x = np.where(both, x - x.sum(axis=1, keepdims=True) / number, 0.0)
    y = np.where(both, y - y.sum(axis=1, keepdims=True) / number, 0.0)
    power = np.maximum((x**2).sum(axis=1, keepdims=True), _LEAST_VARIANCE)
    rest = y - (x * y).sum(axis=1, keepdims=True) / power * x
    squares = np.where(both, rest**2 * pixels / 2, np.nan)
    fine = _variance_of_pixels(stack)
    of_pair = np.maximum((fine[first] + fine[first + 1]) / 2, _LEAST_VARIANCE)
    scales = Scales.of(NoiseSquares.of(stack))
    most = _MOST_RATIO * (max(scales.coarse, _FILTERED) if scales.filtered else 1.0)
    return Changes(first, squares, middle, mean_of_known(squares, 1) / of_pair, most)


def _variance_of_pixels(stack: BinnedStack) -> FloatArray:
    """(n,) noise of neighbouring pixels, as far as there is any."""
    known = np.isfinite(stack.spatial)
    total = np.where(known, stack.spatial, 0.0).sum(axis=(1, 2))
    rounding = 1 / 12 if stack.integer else 0.0
    return np.asarray(np.maximum(total / np.maximum(known.sum(axis=(1, 2)), 1), rounding))
