"""Ten thousand tiles take so many times the work of a hundred, and the answer is the same."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from fractal_mesospim_shading.core.emptiness import agreement, changes
from fractal_mesospim_shading.core.emptiness.changes import NoiseLine
from fractal_mesospim_shading.core.emptiness.deciding import Decision, decide
from fractal_mesospim_shading.core.emptiness.differences import Differences
from fractal_mesospim_shading.core.emptiness.regions import TileRegions, choose, regions_of
from fractal_mesospim_shading.core.emptiness.shape import SharedShape
from fractal_mesospim_shading.core.emptiness.windows import Windows
from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, bin_block
from fractal_mesospim_shading.images.storage import large_arrays
from fractal_mesospim_shading.images.storage.large_arrays import large_zeros
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
    """Of three planes a tile: little is left, of one window nothing is known."""
    rng, windows = np.random.default_rng(tiles), (7, 5, 3)
    tile = np.repeat(np.arange(1, tiles + 1), 3)
    means = tuple(rng.uniform(150, 151, (len(tile), n)) for n in windows)
    means[1][4, 2] = np.nan
    pixels = tuple(rng.uniform(1000, 2000, n) for n in windows)
    planes = Windows(tile, tile, tile, means, pixels, (7, 1), None, NoiseLine(1.0, 0.01, 0.1))
    light = tuple(rng.uniform(50.2, 50.8, n) for n in windows)
    return Differences(planes, SharedShape(100.0, light, np.ones(len(tile)), 3 * tiles), 55.0)


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
    fields = own.of_windows(size, slice(None), planes)
    seen = np.isfinite(fields[0])
    return [np.where(seen, field, 0.0).sum(axis=0) for field in fields]


def test_the_oddest_tile_takes_as_many_steps_of_many_as_of_few():
    few, many = (
        steps(partial(_differences(tiles).odd_tile, np.ones(3 * tiles, bool))) for tiles in (8, 64)
    )
    assert many < few + 50


def _binned(tiles: int, planes: int = 6, zeros=np.zeros):
    """Medium in most planes, sample in some, a tile that is odd, and windows without data."""
    rng, side = np.random.default_rng(5), 40
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    flat = 1 - 0.8 * (y**2 + 0.7 * x**2)
    refs = [(tile, z) for tile in range(1, tiles + 1) for z in range(planes)]
    binned = BinnedPlanes(len(refs), (side, side), 2, zeros)
    for slot in range(0, len(refs), planes):
        number = slot // planes
        counts = 200 * flat * (1 + 0.1 * np.sin(np.arange(planes) / 3))[:, None, None]
        counts[planes // 2 :] += 90 * (number % 3 == 0) * np.exp(-40 * (y**2 + x**2))
        counts += 10 * (number == 4) * (x > 0)
        block = rng.poisson(counts * 4).astype("uint16") // 4 + 100
        if number % 5 == 1:
            block[:, :6] = 0
        partial = bin_block(block, 0, 0, 2, zero_is_no_data=True)
        binned.add(partial, list(range(slot, slot + planes)))
    return binned.finish(), refs, planes


def test_a_part_at_a_time_gives_the_same_to_the_last_bit(monkeypatch):
    found = []
    for values in (10**9, 2000):
        monkeypatch.setattr(changes, "_PART_VALUES", values)
        windows = Windows.of(*_binned(9))
        decision = decide(windows)
        found.append((windows, decision))
    (windows, decision), (in_parts, decided) = found
    assert 0 < decision.empty.sum() < 54
    assert in_parts.changes.noise(decision.empty[in_parts.changes.first]) == windows.changes.noise(
        decision.empty[windows.changes.first]
    )
    for one, two in zip(windows.means, in_parts.means, strict=True):
        np.testing.assert_array_equal(one, two)
    assert decision.tiles == decided.tiles
    for name in ("empty", "known", "excess", "confidence", "level"):
        np.testing.assert_array_equal(getattr(decision, name), getattr(decided, name))


def _bits(windows: Windows, decision: Decision) -> list[bytes]:
    """All that is found, as bytes."""
    changes_of, noise = windows.changes, windows.noise
    arrays = (
        *(decision.empty, decision.known, decision.excess, decision.confidence, decision.level),
        *(*windows.means, changes_of.centre, changes_of.slope, changes_of.ratio),
        np.array([noise.intercept, noise.slope, noise.least]),
    )
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


def test_in_files_it_is_the_same_to_the_last_bit(monkeypatch):
    stack, *where = _binned(9)
    windows = Windows.of(stack, *where)
    expected = _bits(windows, decide(windows))
    monkeypatch.setattr(large_arrays, "LEAST_BYTES", 1)
    in_files = Windows.of(*_binned(9, zeros=large_zeros), large_zeros)
    assert _bits(in_files, decide(in_files)) == expected


def test_it_does_not_depend_on_how_means_lie_in_memory():
    windows = Windows.of(*_binned(9))
    expected = _bits(windows, decide(windows))
    for order in "CF":
        means = tuple(np.array(own, order=order) for own in windows.means)
        own = replace(windows, means=means, changes=replace(windows.changes, means=means[0]))
        assert _bits(own, decide(own)) == expected


def test_little_of_a_plane_is_in_memory_where_arrays_are_large(monkeypatch):
    monkeypatch.setattr(changes, "_PART_VALUES", 20_000)
    monkeypatch.setattr(agreement, "_MOST_SHEETS", 20)
    decide(Windows.of(*_binned(20)))
    held = {"memory": {}, "files": {}}
    for tiles in (20, 100):
        _, held["memory"][tiles] = _held(partial(_looked_through, tiles, np.zeros))
    monkeypatch.setattr(large_arrays, "LEAST_BYTES", 1)
    for tiles in (20, 100):
        _, held["files"][tiles] = _held(partial(_looked_through, tiles, large_zeros))
    in_memory, in_files = ((own[100] - own[20]) / (6 * 80) for own in held.values())
    assert in_files < 4000
    assert in_files < in_memory / 3


def _looked_through(tiles: int, zeros) -> Decision:
    """All of it: bins, windows and what is decided."""
    return decide(Windows.of(*_binned(tiles, zeros=zeros), zeros))


def _held(function) -> tuple[object, int]:
    """What a call returns, and bytes that it held at one time."""
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_few_times_the_means_of_a_plane_are_held_for_it(monkeypatch):
    monkeypatch.setattr(changes, "_PART_VALUES", 20_000)
    monkeypatch.setattr(agreement, "_MOST_SHEETS", 20)
    stacks = {tiles: _binned(tiles) for tiles in (20, 100)}
    made, looked = {}, {}
    for tiles, stack in stacks.items():
        decide(Windows.of(*stack))
        windows, made[tiles] = _held(partial(Windows.of, *stack))
        _, looked[tiles] = _held(partial(decide, windows))
    more_planes = 6 * (100 - 20)
    of_plane = 8 * sum(means.shape[1] for means in windows.means)
    assert (made[100] - made[20]) / more_planes < 2 * of_plane
    assert (looked[100] - looked[20]) / more_planes < of_plane
