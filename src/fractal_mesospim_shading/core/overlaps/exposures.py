"""Parts of overlaps that the same tiles have lit, which have bleached all of one part alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.observations import OverlapPair


def by_exposures(
    pair: OverlapPair, positions: Mapping[int, tuple[float, float]], tile_shape: tuple[int, int]
) -> list[OverlapPair]:
    """The bins of a pair, apart by the other tiles that show them, too: its corners on their own.

    Args:
        pair: of two tiles.
        positions: (y, x) of all tiles by number, pixels.
        tile_shape: (y, x) in pixels.
    """
    y = pair.y_first + positions[pair.first][0]
    x = pair.x_first + positions[pair.first][1]
    lit = np.zeros((len(y), 0), dtype=bool)
    for number, (top, left) in sorted(positions.items()):
        within = (y >= top) & (y < top + tile_shape[0]) & (x >= left) & (x < left + tile_shape[1])
        if number not in (pair.first, pair.second) and within.any():
            lit = np.column_stack([lit, within])
    _, which = np.unique(lit, axis=0, return_inverse=True)
    return [_some(pair, which.ravel() == part) for part in range(int(which.max()) + 1)]


def _some(pair: OverlapPair, chosen: NDArray[np.bool_]) -> OverlapPair:
    return replace(
        pair,
        y_first=pair.y_first[chosen],
        x_first=pair.x_first[chosen],
        y_second=pair.y_second[chosen],
        x_second=pair.x_second[chosen],
        light_first=pair.light_first[chosen],
        light_second=pair.light_second[chosen],
        variance=pair.variance[chosen],
        planes=pair.planes[chosen],
        sheet=pair.sheet[chosen],
    )
