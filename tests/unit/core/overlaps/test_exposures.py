"""The corners of overlaps, which more than two tiles have lit."""

from __future__ import annotations

import numpy as np

from fractal_mesospim_shading.core.overlaps.exposures import by_exposures
from tests.unit.core.overlaps.conftest import OVERLAP, SHAPE, grid_pairs

PITCH = [size - OVERLAP for size in SHAPE]
POSITIONS = {
    1 + 3 * column + row: (float(row * PITCH[0]), float(column * PITCH[1]))
    for column in range(3)
    for row in range(3)
}


def test_corners_are_apart_and_nothing_is_lost() -> None:
    """In the first column: below its top right corner is no other tile, but at its bottom one."""
    for pair in grid_pairs():
        parts = by_exposures(pair, POSITIONS, SHAPE)
        bins = np.concatenate(
            [np.stack([p.y_first, p.x_first, p.sheet, p.variance]) for p in parts], 1
        )
        whole = np.stack([pair.y_first, pair.x_first, pair.sheet, pair.variance])
        np.testing.assert_array_equal(bins[:, np.lexsort(bins)], whole[:, np.lexsort(whole)])
        along = 1 if pair.axis == "y" else 0
        place = POSITIONS[pair.first][along]
        ends = (place > 0) + (place < 2 * PITCH[along])
        assert len(parts) == 1 + ends
        sizes = sorted(len(part.variance) for part in parts)
        assert sizes[0] < sizes[-1] / 3


def test_a_pair_alone_is_one_part() -> None:
    (pair,) = grid_pairs(rows=2, columns=1)
    (part,) = by_exposures(pair, {n: POSITIONS[n] for n in (1, 2)}, SHAPE)
    np.testing.assert_array_equal(part.light_first, pair.light_first)
