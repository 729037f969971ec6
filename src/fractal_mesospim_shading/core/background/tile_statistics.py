"""Kernels for the statistics of overlapping tiles."""

from __future__ import annotations

import numpy as np

from fractal_mesospim_shading.core.kernel_cache import kernel

_ITERATIONS = 10


@kernel
def medians_of_integers(numbers, edges_y, edges_x, fraction):  # type: ignore[no-untyped-def]
    """Medians of tiles that reach from edge i to edge i + 2 on each axis.

    Args:
        numbers: (y, x), each from 0 to 65535, or 65536 for pixels that do not count.
        edges_y, edges_x: int64, ascending.
        fraction: of pixels that have to count.

    Returns:
        float32, NaN for tiles with too few pixels.
    """
    rows, columns = edges_y.size - 1, edges_x.size - 1
    # First the upper byte of every pixel, once for each half tile ...
    upper = np.zeros((rows, columns, 257), np.int32)
    for j in range(rows):
        for y in range(edges_y[j], edges_y[j + 1]):
            for i in range(columns):
                counts = upper[j, i]
                for x in range(edges_x[i], edges_x[i + 1]):
                    counts[np.int64(numbers[y, x]) >> 8] += 1
    result = np.empty((rows - 1, columns - 1), np.float32)
    for j in range(rows - 1):
        for i in range(columns - 1):
            total = upper[j, i] + upper[j + 1, i] + upper[j, i + 1] + upper[j + 1, i + 1]
            part = numbers[edges_y[j] : edges_y[j + 2], edges_x[i] : edges_x[i + 2]]
            result[j, i] = _median_of_tile(part, total, fraction)
    return result


@kernel
def _median_of_tile(part, upper, fraction):  # type: ignore[no-untyped-def]
    n = part.size - upper[256]
    if n == 0 or n < fraction * part.size:
        return np.float32(np.nan)
    low, below_low = _group_of(upper, (n - 1) // 2)
    high, below_high = _group_of(upper, n // 2)
    # ... then the lower byte of the pixels whose upper byte is that of the median.
    fine_low, fine_high = np.zeros(256, np.int32), np.zeros(256, np.int32)
    for y in range(part.shape[0]):
        for x in range(part.shape[1]):
            number = np.int64(part[y, x])
            if number >> 8 == low:
                fine_low[number & 255] += 1
            elif number >> 8 == high:
                fine_high[number & 255] += 1
    first, _ = _group_of(fine_low, (n - 1) // 2 - below_low)
    counts = fine_low if low == high else fine_high
    second, _ = _group_of(counts, n // 2 - below_high)
    return np.float32(((low << 8) + first + (high << 8) + second) * 0.5)


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
