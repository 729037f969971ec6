"""What planes differ by from the next ones: the noise of windows, as far as it is no sample.

What is made of all planes and windows is made of some at a time: it takes memory of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.noise import NoiseSquares, Scales

FloatArray = NDArray[np.float64]

# A plane counts where so many of its windows do.
LEAST_WINDOWS = 0.5
# The noise of windows is that of pixels, times this at most; after a filter times more.
_MOST_RATIO = 1.5
_FILTERED = 64.0
# Noise is at least this share of what it is where the medium is brightest.
_LEAST_NOISE = 0.2
_LEAST_VARIANCE = 1e-12
# Values of a part, about.
_PART_VALUES = 2**20


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
    def of(cls, variance: FloatArray, counts: FloatArray) -> NoiseLine:
        """From what windows tell of the variance of a pixel, and their means."""
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
        means: (n, windows) of all planes.
        pixels: (windows) that a window has.
        centre: (2, pairs) over the windows of a pair, the mean of its middle and of its change.
        slope: (pairs) of the change as a line in the middle.
        ratio: (pairs) the variances over those of neighbouring pixels: what noise has of it is
            the same in all pairs, and sample adds to it.
        most: ratio that noise alone can have.
    """

    first: NDArray[np.intp]
    means: FloatArray
    pixels: FloatArray
    centre: FloatArray
    slope: FloatArray
    ratio: FloatArray
    most: float

    @classmethod
    def of(
        cls, means: FloatArray, pixels: FloatArray, run: NDArray[np.int64], stack: BinnedStack
    ) -> Changes:
        """Between planes of the same run, of which enough windows were recorded."""
        first = np.flatnonzero(run[1:] == run[:-1])
        enough = np.zeros(len(first), np.bool_)
        centre, slope, power = np.zeros((2, len(first))), np.zeros(len(first)), np.zeros(len(first))
        for part in parts_of(len(first), means.shape[1]):
            enough[part], centre[:, part], slope[part], power[part] = _line_of_changes(
                means, pixels, first[part]
            )
        fine = _variance_of_pixels(stack)
        of_pair = np.maximum((fine[first] + fine[first + 1]) / 2, _LEAST_VARIANCE)
        scales = Scales.of(NoiseSquares.of(stack))
        most = _MOST_RATIO * (max(scales.coarse, _FILTERED) if scales.filtered else 1.0)
        ratio = (power / of_pair)[enough]
        return cls(first[enough], means, pixels, centre[:, enough], slope[enough], ratio, most)

    def noise(self, pairs: NDArray[np.bool_]) -> NoiseLine:
        """The noise of some pairs, no more than neighbouring pixels tell that it can be."""
        too_much = max(float(np.median(self.ratio[pairs])) / self.most, 1.0)
        first, slope, centre = self.first[pairs], self.slope[pairs], self.centre[:, pairs]
        lines = []
        for part in parts_of(self.means.shape[1], len(first)):
            squares, middle = _squares(
                self.means[:, part], self.pixels[part], first, centre[..., None], slope[:, None]
            )
            seen = np.isfinite(squares).any(axis=0)
            both = (squares[:, seen] / too_much, middle[:, seen])
            lines.append([np.nanmean(values, axis=0) for values in both])
        variance, counts = (np.concatenate(own) for own in zip(*lines, strict=True))
        return NoiseLine.of(variance, counts)


def parts_of(number: int, across: int) -> Iterator[slice]:
    """An axis in parts, where arrays are so long across it; of one element only where it has one.

    Sums across, and along each column, are the same as of the whole: NumPy adds those of a single
    column in another order.
    """
    parts = max(1, min(number // 2, -(-number * across // _PART_VALUES)))
    return (slice(number * k // parts, number * (k + 1) // parts) for k in range(parts))


def part_of(
    means: FloatArray, planes: NDArray[np.intp] | NDArray[np.bool_], windows: slice = slice(None)
) -> FloatArray:
    """Some planes in some windows, row by row: in another order NumPy adds up other bits.

    Args:
        means: (n, windows) in any order.
        planes: which, by number or as a mask.
        windows: which.
    """
    return np.ascontiguousarray(means[:, windows][planes])


def mean_of_known(values: FloatArray, axis: int) -> FloatArray:
    """Mean along an axis without the NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    number = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def _line_of_changes(
    means: FloatArray, pixels: FloatArray, first: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], FloatArray, FloatArray, FloatArray]:
    """Of some pairs: whether windows are enough, centre, slope, and the mean of the squares."""
    own, following = part_of(means, first), part_of(means, first + 1)
    change, middle = following - own, (following + own) / 2
    both = np.isfinite(change)
    enough = both.sum(axis=1) >= max(LEAST_WINDOWS * means.shape[1], 4)
    number = np.maximum(both.sum(axis=1), 1)
    centre = np.stack([np.where(both, v, 0.0).sum(axis=1) / number for v in (middle, change)])
    x, y = (
        np.where(both, v - mean[:, None], 0.0)
        for v, mean in zip((middle, change), centre, strict=True)
    )
    power = np.maximum((x**2).sum(axis=1), _LEAST_VARIANCE)
    slope = (x * y).sum(axis=1) / power
    squares, _ = _squares(means, pixels, first, centre[..., None], slope[:, None])
    return enough, centre, slope, mean_of_known(squares, 1)


def _squares(
    means: FloatArray,
    pixels: FloatArray,
    first: NDArray[np.intp],
    centre: FloatArray,
    slope: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Of some pairs (pairs, windows) changes squared, and the mean of both planes.

    The squares are variances of a pixel, counts squared. What follows the shape is left out: the
    medium may be brighter or darker by then.
    """
    own, following = part_of(means, first), part_of(means, first + 1)
    change, middle = following - own, (following + own) / 2
    both = np.isfinite(change)
    x, y = np.where(both, middle - centre[0], 0.0), np.where(both, change - centre[1], 0.0)
    return np.where(both, (y - slope * x) ** 2 * pixels / 2, np.nan), middle


def _variance_of_pixels(stack: BinnedStack) -> FloatArray:
    """(n,) noise of neighbouring pixels, as far as there is any."""
    known = np.isfinite(stack.spatial)
    total = np.where(known, stack.spatial, 0.0).sum(axis=(1, 2))
    rounding = 1 / 12 if stack.integer else 0.0
    return np.asarray(np.maximum(total / np.maximum(known.sum(axis=(1, 2)), 1), rounding))
