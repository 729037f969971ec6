"""Planes are drawn without repeats, evenly, in few slabs; empty levels are checked."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.core.flatfield.drawing import choose_planes, empty_planes
from fractal_mesospim_shading.errors import SamplingError


def test_empty_planes_are_those_outside_the_levels_in_either_order() -> None:
    expected = [*range(50), *range(601, 660)]
    assert empty_planes(660, (50, 600)) == expected
    assert empty_planes(660, [600, 50]) == expected


def test_a_coarse_plane_is_empty_only_if_all_it_covers_is() -> None:
    # Planes 0..4 and 8..9 are empty: of the pairs, (0,1) (2,3) and (8,9).
    assert empty_planes(10, (5, 7), z_factor=2) == [0, 1, 4]
    # An odd stack: the last coarse plane covers one plane only.
    assert empty_planes(9, (1, 7), z_factor=2) == [4]


@pytest.mark.parametrize("levels", [(5,), (1, 2, 3), (-1, 5), (2, 10), (0, 9), ()])
def test_bad_levels_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(SamplingError, match="z_levels"):
        empty_planes(10, levels)


def test_levels_that_leave_nothing_at_a_coarse_level_are_refused() -> None:
    with pytest.raises(SamplingError, match="leaves no empty plane"):
        empty_planes(16, (3, 13), z_factor=4)


@pytest.mark.parametrize("z_chunk", [1, 8, 64])
def test_no_repeats_and_even_shares(z_chunk: int) -> None:
    candidates = {tile: range(100) for tile in (1, 4, 7)}
    chosen = choose_planes(candidates, 61, seed=3, z_chunk=z_chunk)
    assert len(set(chosen)) == len(chosen) == 61
    assert chosen == sorted(chosen)
    counts = sorted(sum(tile == t for t, _ in chosen) for tile in candidates)
    assert counts == [20, 20, 21]


def test_all_candidates_where_there_are_not_enough() -> None:
    candidates = {1: [0, 1, 2], 2: range(10)}
    assert len(choose_planes(candidates, 50, seed=0, z_chunk=4)) == 13
    # The short tile gives all it has, the other one the rest.
    chosen = choose_planes(candidates, 9, seed=0, z_chunk=4)
    assert [z for tile, z in chosen if tile == 1] == [0, 1, 2]
    assert len(chosen) == 9


def test_only_candidates_are_drawn() -> None:
    candidates = {2: [3, 5, 90], 5: [7]}
    chosen = choose_planes(candidates, 4, seed=1, z_chunk=10)
    assert chosen == [(2, 3), (2, 5), (2, 90), (5, 7)]


def test_the_seed_decides() -> None:
    candidates = {tile: range(200) for tile in range(1, 10)}
    first = choose_planes(candidates, 50, seed=5, z_chunk=16)
    assert first == choose_planes(candidates, 50, seed=5, z_chunk=16)
    assert first != choose_planes(candidates, 50, seed=6, z_chunk=16)


def test_few_slabs_are_touched_and_z_is_covered() -> None:
    candidates = {tile: range(640) for tile in range(1, 13)}
    chosen = choose_planes(candidates, 200, seed=0, z_chunk=64)
    slabs = {(tile, z // 64) for tile, z in chosen}
    assert len(slabs) <= 4 * 12
    # All tiles together see every slab of the stack.
    assert {z for _, z in slabs} == set(range(10))


def test_most_planes_have_a_neighbour() -> None:
    chosen = set(choose_planes({1: range(300)}, 60, seed=0, z_chunk=32))
    alone = [z for _, z in chosen if (1, z - 1) not in chosen and (1, z + 1) not in chosen]
    assert len(alone) <= 6


@pytest.mark.parametrize(
    ("candidates", "n_planes", "z_chunk"), [({}, 5, 1), ({1: []}, 5, 1), ({1: [0]}, 0, 1)]
)
def test_nothing_to_draw_is_refused(
    candidates: dict[int, list[int]], n_planes: int, z_chunk: int
) -> None:
    with pytest.raises(SamplingError):
        choose_planes(candidates, n_planes, seed=0, z_chunk=z_chunk)


@pytest.mark.parametrize(("n_planes", "tiles"), [(2, 1), (8, 4), (9, 5), (20, 10), (21, 10)])
def test_few_planes_of_many_tiles_are_pairs(n_planes: int, tiles: int) -> None:
    """A plane alone cannot tell noise from the fixed pattern."""
    stacks = {tile: range(300) for tile in range(10)}
    chosen = choose_planes(stacks, n_planes, 1, z_chunk=32, in_pairs=True)
    assert len(chosen) == n_planes
    alone = [(t, z) for t, z in chosen if {(t, z - 1), (t, z + 1)}.isdisjoint(chosen)]
    assert len(alone) == n_planes % 2
    assert len({tile for tile, _ in chosen}) == tiles


def test_tiles_of_single_planes_give_them_all() -> None:
    planes = {tile: [3] for tile in range(10)}
    assert len(choose_planes(planes, 7, 1, z_chunk=32, in_pairs=True)) == 7


def test_an_estimate_sees_as_many_tiles_as_it_can() -> None:
    chosen = choose_planes({tile: range(300) for tile in range(10)}, 8, 1, z_chunk=32)
    assert len({tile for tile, _ in chosen}) == 8
