"""From the bins of a smooth profile back to pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import kernel

FloatArray = NDArray[np.float64]

_PIECE = 64
"""Side of the pieces in which pixels are taken that do not lie as they are written."""


def upsample(image: FloatArray, bin_px: int, shape: tuple[int, int]) -> FloatArray:
    """Pixels whose means over the bins are the given ones.

    Along each axis the running sum of the bins is joined by a cubic spline and
    differenced at the edges of the pixels. So the means of the bins are kept, and the
    slope goes on to the very edge of the tile.

    Args:
        image: (y, x) bin means, already smooth.
        bin_px: side of a bin; the last one of an axis may be cut.
        shape: (y, x) of the tile in pixels.
    """
    edges = [
        np.minimum(np.arange(n + 1) * bin_px, size)
        for n, size in zip(image.shape, shape, strict=True)
    ]
    return to_pixels(image, (edges[0].astype(np.float64), edges[1].astype(np.float64)), shape)


def to_pixels(
    image: FloatArray, edges: tuple[FloatArray, FloatArray], shape: tuple[int, int]
) -> FloatArray:
    """The same as `upsample` for cells with any edges, in pixels, from 0 to the tile's size.

    Args:
        image: (y, x) cell means, already smooth.
        edges: ascending, one more than cells, along y and x.
        shape: (y, x) of the tile in pixels.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    lowest, highest = minimum_filter(image, 3), maximum_filter(image, 3)
    room = (highest - lowest) / 2
    result, cells = image, []
    for axis in (0, 1):
        result = _spline_axis(result, edges[axis], shape[axis], axis)
        middles = np.arange(shape[axis]) + 0.5
        cells.append(np.searchsorted(edges[axis], middles, side="right") - 1)
    # A smooth profile never gets there; a rough one must not swing beyond its neighbours.
    held: FloatArray = _held(result, lowest - room, highest + room, *cells)
    return held


@kernel
def _held(pixels, low, high, rows, columns):  # type: ignore[no-untyped-def]
    """Pixels within the bounds of their cells, piece by piece."""
    height, width = pixels.shape
    held = np.empty((height, width))
    for top in range(0, height, _PIECE):
        for left in range(0, width, _PIECE):
            for y in range(top, min(top + _PIECE, height)):
                for x in range(left, min(left + _PIECE, width)):
                    least, most = low[rows[y], columns[x]], high[rows[y], columns[x]]
                    held[y, x] = min(max(pixels[y, x], least), most)
    return held


def _spline_axis(image: FloatArray, edges: FloatArray, size: int, axis: int) -> FloatArray:
    from scipy.interpolate import CubicSpline

    moved = np.moveaxis(image, axis, 0) * np.diff(edges)[:, None]
    total = np.concatenate([np.zeros((1, moved.shape[1])), np.cumsum(moved, axis=0)])
    at_edges = CubicSpline(edges, total, axis=0)(np.arange(size + 1.0))
    return np.moveaxis(np.diff(at_edges, axis=0), 0, axis)
