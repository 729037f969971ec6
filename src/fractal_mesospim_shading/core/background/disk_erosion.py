"""Erosion and dilation by neighbourhoods whose rows are centred runs.

Every row of the image is eroded by runs of growing width, each from the one before,
and each run goes to the rows of the result that need it: two comparisons for each row
of the neighbourhood and pixel, against one for each of its pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import kernel


def eroded(plane: NDArray[Any], widths: NDArray[np.int64]) -> NDArray[Any]:
    """The smallest value of the neighbourhood of every pixel; pixels outside are ignored.

    Args:
        plane: (y, x), contiguous; unsigned integers or float32.
        widths: half width of each row of the neighbourhood, from the top; odd length,
            the same from the bottom.
    """
    order = np.argsort(widths, kind="stable")
    highest = np.inf if plane.dtype.kind == "f" else np.iinfo(plane.dtype).max
    result = np.full_like(plane, highest)
    _erode(plane, widths[order], order - widths.size // 2, result)
    return result


def dilated(plane: NDArray[Any], widths: NDArray[np.int64]) -> NDArray[Any]:
    """The largest value of the neighbourhood of every pixel; arguments as `eroded`."""
    if plane.dtype.kind == "f":
        return np.asarray(-eroded(-plane, widths))
    return np.asarray(~eroded(~plane, widths))


@kernel
def _erode(plane, widths, shifts, result):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    last = width - 1
    runs, wider = np.empty_like(plane[0]), np.empty_like(plane[0])
    for y in range(height):
        runs[:] = plane[y]
        reach = 0
        for j in range(widths.size):
            while reach < widths[j]:
                if reach == 0:
                    _lowest_of_three(runs, wider)
                else:
                    for x in range(1, last):
                        left, right = runs[x - 1], runs[x + 1]
                        wider[x] = left if left < right else right
                    wider[0], wider[last] = runs[min(1, last)], runs[max(last - 1, 0)]
                runs, wider = wider, runs
                reach += 1
            at = y - shifts[j]
            if 0 <= at < height:
                target = result[at]
                for x in range(width):
                    here, new = target[x], runs[x]
                    target[x] = new if new < here else here


@kernel
def _lowest_of_three(row, result):  # type: ignore[no-untyped-def]
    last = row.size - 1
    for x in range(row.size):
        left, here, right = row[max(x - 1, 0)], row[x], row[min(x + 1, last)]
        here = left if left < here else here
        result[x] = right if right < here else here
