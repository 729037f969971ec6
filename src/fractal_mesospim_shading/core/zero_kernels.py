"""The inner loop of `core/zeros`."""

from __future__ import annotations

import numba
import numpy as np

from fractal_mesospim_shading.core.kernel_cache import KEPT


@numba.njit(nogil=True, cache=KEPT)
def tally(block, y0, x0, cell, lines, cells):  # type: ignore[no-untyped-def]
    """Add a box of planes to the sums of lines and the facts of cells.

    Recorded is what is finite and not 0; its absolute value is summed and compared.

    Args:
        block: (n, y, x).
        y0, x0: where it begins in the tile.
        cell: side of a cell, pixels.
        lines: (n, lines) each: recorded pixels of rows and of columns, and sums of both.
        cells: (n, y, x) each: zeros, recorded pixels, the least and the greatest of these.
    """
    row_counts, column_counts, row_sums, column_sums = lines
    zeros, recorded, least, greatest = cells
    width = block.shape[2]
    for n in range(block.shape[0]):
        for y in range(block.shape[1]):
            row, count, total = (y0 + y) // cell, 0, 0.0
            for column in range(x0 // cell, (x0 + width - 1) // cell + 1):
                none, some = 0, 0
                low, high = least[n, row, column], greatest[n, row, column]
                for x in range(max(column * cell - x0, 0), min((column + 1) * cell - x0, width)):
                    value = abs(block[n, y, x])
                    if value == 0:
                        none += 1
                    elif np.isfinite(value):
                        some += 1
                        total += value
                        column_counts[n, x0 + x] += 1
                        column_sums[n, x0 + x] += value
                        low, high = min(low, value), max(high, value)
                count += some
                zeros[n, row, column] += np.uint8(none)
                recorded[n, row, column] += np.uint8(some)
                least[n, row, column], greatest[n, row, column] = low, high
            row_counts[n, y0 + y] += count
            row_sums[n, y0 + y] += total
