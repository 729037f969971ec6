"""The inner loops of `core/binning`.

Columns of pixels are added up first and joined to bins once per row of bins, so that
the inner loop handles neighbouring pixels together.
"""

from __future__ import annotations

import numba
import numpy as np

from fractal_mesospim_shading.core.kernel_cache import KEPT

SKEW_WINDOW = 4
"""Side of the windows of the third moment, pixels."""


@numba.njit(nogil=True, cache=KEPT)
def bin_means(block, dark, y0, x0, bin_px, zero_is_no_data, top):  # type: ignore[no-untyped-def]
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
                for x in range(width):
                    column = (x0 + x) // bin_px - first_x
                    total[k, row, column] += sums[x]
                    count[k, row, column] += valid[x]
                    saturated[k] += bright[x]
                sums[:], valid[:], bright[:] = 0.0, 0, 0
    return total, count, saturated


@numba.njit(nogil=True, cache=KEPT)
def bin_noise(block, y0, x0, noise_px, zero_is_no_data, top):  # type: ignore[no-untyped-def]
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


@numba.njit(nogil=True, cache=KEPT)
def bin_skew(block, y0, x0, noise_px, zero_is_no_data, top):  # type: ignore[no-untyped-def]
    """Third moments of neighbouring planes in windows, summed over squares, with numbers.

    A window gives the sum of (s - mean of s) (u - mean of u)^2, where s is the sum of
    the two planes and u their difference.
    """
    planes, height, width = block.shape
    first_y, first_x = y0 // noise_px, x0 // noise_px
    rows, columns = (y0 + height - 1) // noise_px + 1, (x0 + width - 1) // noise_px + 1
    shape = (planes, rows - first_y, columns - first_x)
    cubes, windows = np.zeros(shape, np.float64), np.zeros(shape, np.int32)
    odd_y, odd_x = -y0 % SKEW_WINDOW, -x0 % SKEW_WINDOW
    high = max(height - odd_y, 0) // SKEW_WINDOW
    wide = max(width - odd_x, 0) // SKEW_WINDOW
    pixels = SKEW_WINDOW**2
    sums = np.zeros((5, wide * SKEW_WINDOW), np.float64)
    total, change, mixed, squares, cubed = sums[0], sums[1], sums[2], sums[3], sums[4]
    for k in range(1, planes):
        for window_y in range(high):
            sums[:] = 0.0
            for y in range(odd_y + SKEW_WINDOW * window_y, odd_y + SKEW_WINDOW * (window_y + 1)):
                for i in range(wide * SKEW_WINDOW):
                    a = np.float64(block[k - 1, y, odd_x + i])
                    b = np.float64(block[k, y, odd_x + i])
                    good = max(a, b) < top and not (zero_is_no_data and a * b == 0.0)
                    s, u = a + b if good else np.nan, a - b
                    total[i] += s
                    change[i] += u
                    mixed[i] += s * u
                    squares[i] += u * u
                    cubed[i] += s * u * u
            row = (y0 + odd_y + SKEW_WINDOW * window_y) // noise_px - first_y
            for window_x in range(wide):
                i = SKEW_WINDOW * window_x
                s1, u1, su, uu, suu = 0.0, 0.0, 0.0, 0.0, 0.0
                for j in range(i, i + SKEW_WINDOW):
                    s1, u1, su = s1 + total[j], u1 + change[j], su + mixed[j]
                    uu, suu = uu + squares[j], suu + cubed[j]
                value = suu - (2 * u1 * su + s1 * uu) / pixels + 2 * s1 * u1 * u1 / pixels**2
                if np.isfinite(value):
                    column = (x0 + odd_x + i) // noise_px - first_x
                    cubes[k - 1, row, column] += value
                    windows[k - 1, row, column] += 1
    return cubes, windows
