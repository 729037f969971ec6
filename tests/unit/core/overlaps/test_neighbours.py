"""Neighbours of a grid, and the strips that they share."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from fractal_mesospim_shading.core.overlaps.neighbours import neighbours
from tests.support.steps import steps


def grid(rows, columns, pitch=(80, 90)):
    """Origins by number, down the columns."""
    return {
        column * rows + row + 1: (float(row * pitch[0]), float(column * pitch[1]))
        for column in range(columns)
        for row in range(rows)
    }


def test_a_grid_has_one_pair_an_edge_and_none_a_corner():
    pairs = neighbours(grid(3, 4), (100, 120))
    assert len(pairs) == 2 * 4 + 3 * 3
    assert [p.axis for p in pairs].count("y") == 2 * 4
    assert {p.second - p.first for p in pairs} == {1, 3}


def test_both_windows_hold_the_same_tissue():
    """A picture of the sample is cut into tiles, and each strip found in both."""
    sample = np.random.default_rng(0).random((200, 300))
    origins = {1: (0.0, 3.0), 2: (0.0, 95.4), 3: (78.0, 0.0)}
    tiles = {
        n: sample[round(y) : round(y) + 100, round(x) : round(x) + 120]
        for n, (y, x) in origins.items()
    }
    pairs = neighbours(origins, (100, 120))
    assert [(p.first, p.second, p.axis) for p in pairs] == [(1, 2, "x"), (1, 3, "y")]
    for pair in pairs:
        (y0, y1), (x0, x1) = pair.window
        dy, dx = pair.shift
        second = tiles[pair.second][y0 - dy : y1 - dy, x0 - dx : x1 - dx]
        np.testing.assert_array_equal(tiles[pair.first][y0:y1, x0:x1], second)
        assert pair.shape == second.shape


@pytest.mark.parametrize("pitch", [89, 100, 250])
def test_what_hardly_overlaps_is_no_pair(pitch):
    assert not neighbours({1: (0.0, 0.0), 2: (float(pitch), 0.0)}, (100, 120))


def test_half_of_a_tile_may_overlap():
    assert len(neighbours(grid(3, 1, (50, 60)), (100, 120))) == 2


def test_pairs_of_many_tiles_take_steps_by_the_number_of_tiles():
    few, many = (steps(partial(neighbours, grid(n, n), (100, 120))) for n in (6, 24))
    assert many < 1.5 * 16 * few


def test_near_tiles_alone_are_compared_and_all_of_their_pairs_found():
    rng = np.random.default_rng(4)
    origins = {n: tuple(rng.uniform(-300, 300, 2)) for n in rng.permutation(60)}
    pairs = neighbours(origins, (100, 120))
    alone = [
        pair
        for one in sorted(origins)
        for other in sorted(origins)
        if one < other
        for pair in neighbours({n: origins[n] for n in (one, other)}, (100, 120))
    ]
    assert len(pairs) > 20
    assert list(pairs) == alone
