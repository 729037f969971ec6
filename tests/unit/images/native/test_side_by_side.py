"""Stacks that lie side by side are found as by comparing all, without comparing all."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.images.native.placement import side_by_side
from tests.support.steps import steps


def _grid(rows: int, columns: int) -> NDArray[np.float64]:
    places = [(90.0 * column, 180.0 * row) for column in range(columns) for row in range(rows)]
    return np.array(places)


def test_the_same_pairs_as_of_all() -> None:
    rng = np.random.default_rng(4)
    places = _grid(7, 6) + rng.uniform(-8, 8, (42, 2))
    places[5] = places[4]
    shift = {(i, j): np.abs(places[i] - places[j]) for i, j in combinations(range(42), 2)}
    expected = {p for p, (along, aside) in shift.items() if 5 < along < 99 and aside <= 10}
    found = list(side_by_side(places, 100.0, 10.0))
    assert set(found) == expected
    assert len(found) == len(expected) > 20


def test_many_stacks_take_so_many_more_steps() -> None:
    few, many = (
        steps(partial(lambda places: list(side_by_side(places, 100.0, 10.0)), _grid(n, n)))
        for n in (6, 24)
    )
    # Pairs of neighbours: 30 and 552; of all stacks 630 and 165 600.
    assert many < 22 * few
