"""Ten thousand tiles take so many times the work of a hundred, and the answer is the same."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from fractal_mesospim_shading.core.emptiness.deciding import Decision
from fractal_mesospim_shading.core.emptiness.differences import Differences
from fractal_mesospim_shading.core.emptiness.regions import TileRegions, choose, regions_of
from tests.support.steps import steps


class _Counted(np.ndarray):
    """An array that counts the elements of what is done to it."""

    elements = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        plain = [np.asarray(value) for value in inputs]
        _Counted.elements += max(value.size for value in plain)
        found = getattr(ufunc, method)(*plain, **options)
        return found.view(_Counted) if isinstance(found, np.ndarray) else found


def _looked_at(tiles: int, planes: int = 6):
    refs = [(tile, z) for tile in range(1, tiles + 1) for z in range(planes)]
    empty = np.array([(7 * tile + z) % 5 > 1 for tile, z in refs])
    excess = np.where(empty, 0.5, 3.0)
    known = np.ones(len(refs), bool).view(_Counted)
    decision = Decision(empty, known, excess, empty * 0.9, np.ones(len(refs)), ())
    return decision, refs, dict.fromkeys(range(1, tiles + 1), (0, planes)), planes


def test_the_planes_of_a_tile_are_looked_at_and_not_all_of_them():
    counts = {}
    for tiles in (10, 160):
        looked_at = _looked_at(tiles)
        _Counted.elements = 0
        regions_of(*looked_at)
        counts[tiles] = _Counted.elements
    assert counts[160] < 17 * counts[10]


def test_a_tile_is_what_it_is_without_the_others():
    decision, refs, planes, n_z = _looked_at(12)
    for number, region in enumerate(regions_of(decision, refs, planes, n_z), 1):
        own = slice((number - 1) * n_z, number * n_z)
        fields = (decision.empty, decision.known, decision.excess, decision.confidence)
        alone = Decision(*(values[own] for values in fields), decision.level[own], ())
        (expected,) = regions_of(alone, refs[own], {number: (0, n_z)}, n_z)
        assert region == expected


def test_what_to_type_takes_steps_by_the_number_of_tiles():
    numbers = {}
    for tiles in (50, 400):
        regions = [TileRegions(t, (0, 9), 9, 0.5, 1 + t % 3, 7, 0.9) for t in range(tiles)]
        numbers[tiles] = steps(partial(choose, [regions, regions], (0, 1), 9))
    assert numbers[400] < 8.5 * numbers[50]


def _differences(tiles: int) -> Differences:
    rng, windows = np.random.default_rng(tiles), (7, 5, 3)
    tile = np.repeat(np.arange(1, tiles + 1), 3)
    rest, light, variance = (
        tuple(rng.uniform(low, high, (len(tile), n)) for n in windows)
        for low, high in ((-0.4, 0.4), (50.0, 60.0), (0.001, 0.002))
    )
    rest[1][4, 2] = np.nan
    return Differences(SimpleNamespace(tile=tile), rest, light, variance)


@pytest.mark.parametrize("tiles", [2, 3, 4, 9, 30])
def test_the_oddest_tile_is_found_as_by_comparing_each_with_all_others(tiles):
    own = _differences(tiles)
    passed = np.ones(3 * tiles, bool)
    passed[5] = False
    worst, most = None, 1.0
    for number in range(1, tiles + 1):
        mine = (own.planes.tile == number) & passed
        other = (own.planes.tile != number) & passed
        for size, share in enumerate((0.006, 0.004, 0.003)):
            one, all_others = (_sums(own, size, planes) for planes in (mine, other))
            noise = one[2] / one[1] ** 2 + all_others[2] / all_others[1] ** 2
            limit = np.maximum(4.6 * np.sqrt(noise), share)
            over = (np.abs(one[0] / one[1] - all_others[0] / all_others[1]) / limit).max()
            if over > most:
                worst, most = number, over
    assert own.odd_tile(passed) == worst


def _sums(own: Differences, size: int, planes: np.ndarray) -> list[np.ndarray]:
    seen = np.isfinite(own.rest[size][planes])
    fields = (own.rest, own.light, own.variance)
    return [np.where(seen, field[size][planes], 0.0).sum(axis=0) for field in fields]


def test_the_oddest_tile_takes_as_many_steps_of_many_as_of_few():
    few, many = (
        steps(partial(_differences(tiles).odd_tile, np.ones(3 * tiles, bool))) for tiles in (8, 64)
    )
    assert many < few + 50
