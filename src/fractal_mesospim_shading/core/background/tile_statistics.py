"""Medians and deviations of overlapping tiles of a plane.

A tile consists of four half tiles, each counted once for the four tiles that it is part of. Floats
are counted by whole numbers in their order; the few of the number that a median falls on are
sorted.
"""

from __future__ import annotations

import numpy as np

from fractal_mesospim_shading.core.kernel_cache import kernel

_ITERATIONS = 10
"""Of the clipping of outliers, at most."""


@kernel
def medians_of_tiles(values, numbers, edges_y, edges_x, fraction):  # type: ignore[no-untyped-def]
    """Medians of tiles that reach from edge i to edge i + 2 on each axis.

    Args:
        values: (y, x) float32; of size 0 where the numbers are the values.
        numbers: (y, x), each from 0 to 65535, in the order of the values, or 65536 for pixels
            that do not count.
        edges_y, edges_x: int64, ascending.
        fraction: of pixels that have to count.

    Returns:
        float32, NaN for tiles with too few pixels; of an even number of pixels the mean of the
        two middle ones.
    """
    upper = _upper_bytes(numbers, edges_y, edges_x)
    result = np.full((edges_y.size - 2, edges_x.size - 2), np.nan, np.float32)
    for j in range(result.shape[0]):
        for i in range(result.shape[1]):
            tile = (edges_y[j], edges_y[j + 2], edges_x[i], edges_x[i + 2])
            total = upper[j, i] + upper[j + 1, i] + upper[j, i + 1] + upper[j + 1, i + 1]
            area = (tile[1] - tile[0]) * (tile[3] - tile[2])
            n = area - total[256]
            if n == 0 or n < fraction * area:
                continue
            number, below, count = _number_of(numbers, tile, total, (n - 1) // 2)
            ranks = ((n - 1) // 2 - below, min(n // 2 - below, count - 1))
            first, second = _values_of(values, numbers, tile, number, ranks)
            if n // 2 - below == count:
                number, _, _ = _number_of(numbers, tile, total, n // 2)
                second, _ = _values_of(values, numbers, tile, number, (0, 0))
            result[j, i] = first if n & 1 else (first + second) / 2
    return result


@kernel
def in_their_order(values):  # type: ignore[no-untyped-def]
    """Finite floats (y, x) as numbers for `medians_of_tiles`; NaN pixels do not count."""
    lowest, highest = np.float64(np.inf), np.float64(-np.inf)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            value = np.float64(values[y, x])
            lowest = value if value < lowest else lowest
            highest = value if value > highest else highest
    factor = 65535 / (highest - lowest) if highest > lowest else 0.0
    numbers = np.empty(values.shape, np.int32)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            value = np.float64(values[y, x])
            number = min(np.int32((value - lowest) * factor), 65535) if value == value else 65536
            numbers[y, x] = number
    return numbers


@kernel
def _upper_bytes(numbers, edges_y, edges_x):  # type: ignore[no-untyped-def]
    """The upper bytes of the numbers of each half tile, counted."""
    rows, columns = edges_y.size - 1, edges_x.size - 1
    upper = np.zeros((rows, columns, 257), np.int32)
    for j in range(rows):
        for y in range(edges_y[j], edges_y[j + 1]):
            for i in range(columns):
                counts = upper[j, i]
                for x in range(edges_x[i], edges_x[i + 1]):
                    counts[np.int64(numbers[y, x]) >> 8] += 1
    return upper


@kernel
def _number_of(numbers, tile, upper, rank):  # type: ignore[no-untyped-def]
    """The number of a rank in a tile, how many pixels are below it, and how many have it.

    `upper` are the upper bytes of the tile, counted.
    """
    group, below = _group_of(upper, rank)
    # The lower bytes in that group, and all others in a last bin: without a branch, which would
    # be guessed wrongly time and again, and in turns, so that no count waits for the one before.
    fine = np.zeros((2, 257), np.int32)
    for y in range(tile[0], tile[1]):
        row = numbers[y, tile[2] : tile[3]]
        for x in range(row.size):
            lower = np.uint64(np.int64(row[x]) - (group << 8))
            fine[x & 1, min(lower, np.uint64(256))] += 1
    counts = fine[0] + fine[1]
    lower, below_in_group = _group_of(counts, rank - below)
    return (group << 8) + lower, below + below_in_group, counts[lower]


@kernel
def _values_of(values, numbers, tile, number, ranks):  # type: ignore[no-untyped-def]
    """The values of two ranks among the pixels of a number."""
    if values.size == 0:
        return np.float32(number), np.float32(number)
    same = np.empty((tile[1] - tile[0]) * (tile[3] - tile[2]), np.float32)
    n = 0
    for y in range(tile[0], tile[1]):
        row, own = numbers[y, tile[2] : tile[3]], values[y, tile[2] : tile[3]]
        for x in range(row.size):
            if row[x] == number:
                same[n] = own[x]
                n += 1
    same = np.sort(same[:n])
    return same[ranks[0]], same[ranks[1]]


@kernel
def _group_of(counts, rank):  # type: ignore[no-untyped-def]
    below = 0
    group = 0
    while below + counts[group] <= rank:
        below += counts[group]
        group += 1
    return group, below


@kernel
def statistics_of_floats(values, edges_y, edges_x, fraction, sigma_clip, with_deviation):  # type: ignore[no-untyped-def]
    """Median and median absolute deviation of tiles; NaN pixels do not count.

    Args:
        values: (y, x) float32.
        edges_y, edges_x: int64, ascending; a tile reaches from edge i to edge i + 2.
        fraction: of pixels that have to count.
        sigma_clip: values farther from the median than this times the standard
            deviation are dropped, until none is; infinity keeps all.
        with_deviation: otherwise it is 0.

    Returns:
        Two float32 arrays, NaN for tiles with too few pixels.
    """
    shape = (edges_y.size - 2, edges_x.size - 2)
    medians, deviations = np.empty(shape, np.float32), np.zeros(shape, np.float32)
    largest = np.max(edges_y[2:] - edges_y[:-2]) * np.max(edges_x[2:] - edges_x[:-2])
    kept = np.empty(largest, np.float32)
    for j in range(shape[0]):
        for i in range(shape[1]):
            n = 0
            for y in range(edges_y[j], edges_y[j + 2]):
                for x in range(edges_x[i], edges_x[i + 2]):
                    value = values[y, x]
                    kept[n] = value
                    n += not np.isnan(value)
            area = (edges_y[j + 2] - edges_y[j]) * (edges_x[i + 2] - edges_x[i])
            if n == 0 or n < fraction * area:
                medians[j, i] = deviations[j, i] = np.nan
                continue
            n, median = _clipped(kept, n, sigma_clip)
            medians[j, i] = median
            if with_deviation:
                deviations[j, i] = np.median(np.abs(kept[:n] - medians[j, i]))
    return medians, deviations


@kernel
def _clipped(kept, n, sigma_clip):  # type: ignore[no-untyped-def]
    """Drop outliers from the first n values; how many remain, and their median."""
    median = np.median(kept[:n])
    if np.isinf(sigma_clip):
        return n, median
    for _ in range(_ITERATIONS):
        total = 0.0
        for i in range(n):
            total += kept[i]
        mean = total / n
        squares = 0.0
        for i in range(n):
            squares += (kept[i] - mean) ** 2
        limit = sigma_clip * np.sqrt(squares / n)
        remaining = 0
        for i in range(n):
            value = kept[i]
            kept[remaining] = value
            remaining += np.abs(value - median) <= limit
        if remaining == n or remaining == 0:
            break
        n = remaining
        median = np.median(kept[:n])
    return n, median
