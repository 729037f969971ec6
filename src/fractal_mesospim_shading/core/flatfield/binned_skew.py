"""Third moments of the noise of a plane and the next one, in windows that are added up to squares.

They are free of the camera's fixed pattern: a sum and a difference of two planes go into each.
"""

from __future__ import annotations

import numpy as np

from fractal_mesospim_shading.core.kernel_cache import kernel

SKEW_WINDOW = 4
"""Side of the windows of the third moment, pixels."""

SKEW_PIXELS = SKEW_WINDOW**2
"""Pixels of such a window."""


@kernel
def bin_skew(block, y0, x0, noise_px, zero_is_no_data, top):  # type: ignore[no-untyped-def]
    """Third moments of neighbouring planes in windows, summed over squares, with numbers.

    A window gives the sum of (s - mean of s) (u - mean of u)^2, s = a + b, u = a - b.
    """
    planes, height, width = block.shape
    first_y, first_x = y0 // noise_px, x0 // noise_px
    rows, columns = (y0 + height - 1) // noise_px + 1, (x0 + width - 1) // noise_px + 1
    shape = (planes, rows - first_y, columns - first_x)
    cubes, windows = np.zeros(shape, np.float64), np.zeros(shape, np.int32)
    odd_y, odd_x = -y0 % SKEW_WINDOW, -x0 % SKEW_WINDOW
    high, wide = max(height - odd_y, 0) // SKEW_WINDOW, max(width - odd_x, 0) // SKEW_WINDOW
    pixels = SKEW_PIXELS
    sums = np.zeros((5, wide * SKEW_WINDOW), np.float64)
    total, change, mixed, squares, cubed = sums[0], sums[1], sums[2], sums[3], sums[4]
    for k in range(1, planes):
        for window_y in range(high):
            top_y = odd_y + SKEW_WINDOW * window_y
            for i in range(wide * SKEW_WINDOW):
                of_s = of_u = of_su = of_uu = of_suu = np.float64(0.0)
                for y in range(top_y, top_y + SKEW_WINDOW):
                    a = np.float64(block[k - 1, y, odd_x + i])
                    b = np.float64(block[k, y, odd_x + i])
                    good = max(a, b) < top and not (zero_is_no_data and a * b == 0.0)
                    s, u = a + b if good else np.nan, a - b
                    of_s, of_u, of_su = of_s + s, of_u + u, of_su + s * u
                    of_uu, of_suu = of_uu + u * u, of_suu + s * u * u
                total[i], change[i], mixed[i] = of_s, of_u, of_su
                squares[i], cubed[i] = of_uu, of_suu
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
