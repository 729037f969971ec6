"""The histogram that slides along the rows of an image; kernel of the median."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import kernel

# Histograms with more bins than this are walked in groups of bins.
_BINS_BITS = 16


def middle_numbers(
    numbers: NDArray[np.int32],
    ignored: NDArray[np.bool_] | None,
    count: int,
    widths: NDArray[np.int64],
    radius_z_px: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The two middle ones of all numbers in the neighbourhood of every pixel.

    Args:
        numbers: (z, y, x), each from 0 to `count` - 1.
        ignored: pixels that do not count, same shape.
        count: of different numbers.
        widths: how far the neighbourhood reaches in each of its rows.
        radius_z_px: planes to each side that belong to the neighbourhood.

    Returns:
        Lower and upper middle number, equal where the number of pixels is odd, and
        -1 where no pixel counts.
    """
    shift = max(0, int(count).bit_length() - _BINS_BITS)
    # Pixels beyond the edge and ignored ones share one last bin that is never reached.
    outside = ((count >> shift) + 1) << shift
    if ignored is not None:
        numbers = np.where(ignored, np.int32(outside), numbers)
    margin_y, margin_x = widths.size // 2, int(widths.max())
    margins = ((0, 0), (margin_y, margin_y), (margin_x, margin_x + 1))
    numbers = np.ascontiguousarray(numbers, dtype=np.int32)
    padded = np.pad(numbers, margins, constant_values=outside)
    lower = np.empty(numbers.shape, np.int32)
    upper = np.empty(numbers.shape, np.int32)
    for z in range(numbers.shape[0]):
        window = padded.view(np.uint32)[max(z - radius_z_px, 0) : z + radius_z_px + 1]
        _slide(window, widths, outside, shift, lower[z], upper[z])
    return lower, upper


@kernel
def _slide(window, widths, outside, shift, lower, upper):  # type: ignore[no-untyped-def]
    depth, padded_height, padded_width = window.shape
    pixels = window.reshape(-1)
    groups = np.zeros((outside >> shift) + 1, np.int32)
    bins = np.zeros(outside + 1 if shift else 1, np.int32)
    margin = widths.max()
    # Unsigned indices, or numba looks at each whether it counts from the end: twice the time.
    leaving = np.empty(depth * widths.size, np.uint64)
    entering = np.empty(depth * widths.size, np.uint64)
    total = depth * (2 * widths.sum() + widths.size)
    for y in range(lower.shape[0]):
        for p in range(depth):
            for dy in range(widths.size):
                start = (p * padded_height + y + dy) * padded_width + margin
                leaving[p * widths.size + dy] = start - widths[dy]
                entering[p * widths.size + dy] = start + widths[dy] + 1
        _count_window(pixels, leaving, entering, 1, groups, bins, shift)
        group, below = np.int64(0), np.int64(0)
        for x in range(lower.shape[1]):
            n = total - groups[outside >> shift]
            if n:
                group, below = _move_to(groups, group, below, (n - 1) // 2)
                lower[y, x], upper[y, x] = _middle(groups, bins, shift, group, below, n)
            else:
                lower[y, x] = upper[y, x] = -1
            if x + 1 < lower.shape[1]:
                below += _advance(pixels, leaving, entering, x, groups, group, shift)
                if shift:
                    for j in range(leaving.size):
                        bins[pixels[leaving[j] + np.uint64(x)]] -= np.int32(1)
                        bins[pixels[entering[j] + np.uint64(x)]] += np.int32(1)
        for j in range(leaving.size):
            leaving[j] += np.uint64(lower.shape[1] - 1)
            entering[j] += np.uint64(lower.shape[1] - 1)
        _count_window(pixels, leaving, entering, -1, groups, bins, shift)


@kernel
def _count_window(pixels, first, end, step, groups, bins, shift):  # type: ignore[no-untyped-def]
    for j in range(first.size):
        for i in range(first[j], end[j]):
            groups[np.uint64(pixels[i]) >> np.uint64(shift)] += step
            if shift:
                bins[pixels[i]] += step


@kernel
def _advance(pixels, leaving, entering, x, groups, group, shift):  # type: ignore[no-untyped-def]
    """One step to the right; by how much the count below `group` changes."""
    change = np.int64(0)
    at, bits, limit = np.uint64(x), np.uint64(shift), np.uint64(group)
    for j in range(leaving.size):
        out = np.uint64(pixels[leaving[j] + at]) >> bits
        new = np.uint64(pixels[entering[j] + at]) >> bits
        groups[out] -= np.int32(1)
        groups[new] += np.int32(1)
        change += np.int64(new < limit) - np.int64(out < limit)
    return change


@kernel
def _move_to(groups, group, below, rank):  # type: ignore[no-untyped-def]
    """The group that holds the number of this rank, and how many lie below it."""
    while below > rank:
        group -= 1
        below -= groups[group]
    while below + groups[group] <= rank:
        below += groups[group]
        group += 1
    return group, below


@kernel
def _middle(groups, bins, shift, group, below, n):  # type: ignore[no-untyped-def]
    counts = bins if shift else groups
    low = group << shift
    while below + counts[low] <= (n - 1) // 2:
        below += counts[low]
        low += 1
    high = low
    if below + counts[low] <= n // 2:
        high += 1
        while counts[high] == 0:
            high += 1
    return low, high
