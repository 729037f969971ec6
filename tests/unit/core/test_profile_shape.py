"""Which shapes of a profile belong to a tile."""

from __future__ import annotations

import pytest

from fractal_mesospim_shading.core.profile_shape import fits_tile, shape_problem, turn_is_unseen

TILE = (5056, 2960)
"""An Iris 15 tile as mesoSPIM-control stores it."""


@pytest.mark.parametrize(
    "shape",
    [
        TILE,
        (2528, 1480),
        (316, 185),
        (158, 93),
        (27, 16),
        # 2 % off, to either side.
        (5157, 2960),
        (4957, 2960),
        (10112, 5920),
    ],
)
def test_shapes_of_the_same_field_of_view(shape: tuple[int, int]) -> None:
    assert fits_tile(shape, TILE)
    assert shape_problem(shape, TILE) is None


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2960, 5056), "np.rot90(frame) (k=1)"),
        ((185, 316), "np.rot90(frames, axes=(-2, -1))"),
        ((5158, 2960), "differ by more than 2%"),
        ((4956, 2960), "differ by more than 2%"),
        ((2048, 2048), "1 and 1.71"),
        ((26, 15), "at least 16 pixels"),
        ((2960, 3), "at least 16 pixels"),
        ((1, 1), "single number"),
    ],
)
def test_shapes_of_another_one(shape: tuple[int, int], said: str) -> None:
    problem = shape_problem(shape, TILE)
    assert problem is not None
    assert said in problem
    assert f"{shape[0]} x {shape[1]}" in problem and "5056 x 2960" in problem
    assert "`profile_shape=stretch`" in problem


def test_the_shape_of_a_small_tile_itself_fits() -> None:
    assert fits_tile((8, 12), (8, 12))
    assert not fits_tile((4, 6), (8, 12))


def test_turns_that_cannot_be_seen() -> None:
    assert turn_is_unseen((2048, 2048), (2048, 2048))
    assert turn_is_unseen((128, 128), (2048, 2048))
    assert turn_is_unseen((200, 201), (200, 201))
    assert not turn_is_unseen((100, 101), (100, 101))
    assert not turn_is_unseen(TILE, TILE)
