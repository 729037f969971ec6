"""Tiles, ranges along z, and what to type."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.emptiness.deciding import Decision
from fractal_mesospim_shading.core.emptiness.regions import TileRegions, choose, regions_of


def _regions(empty, sure=(), n_z=10, planes=(0, 10)):
    """Regions of one tile, all of whose planes were looked at."""
    empty = np.array(empty, bool)
    excess = np.where(empty, 0.5, 1.2)
    excess[list(sure)] = 9.0
    known = np.ones(len(empty), bool)
    decision = Decision(empty, known, excess, empty * 0.9, np.ones(len(empty)), (1,))
    refs = [(1, z) for z in range(planes[0], planes[0] + len(empty))]
    (region,) = regions_of(decision, refs, {1: planes}, n_z)
    return region


def _of(tile, low, high, n_z=20):
    return TileRegions(tile, (0, n_z), n_z, 0.5 if low or high < n_z - 1 else 0.0, low, high, 0.9)


def test_a_tile_whose_planes_are_all_empty_but_for_a_chance_is_whole():
    region = _regions([1, 1, 1, 0, 1, 1, 1, 1, 1, 1])
    assert region.whole
    assert region.ranges == ((0, 9),)
    assert region.share == 0.9


def test_ends_reach_to_the_sample_and_no_further():
    region = _regions([1, 1, 1, 0, 0, 0, 0, 0, 1, 1], sure=range(3, 8))
    assert (region.low, region.high) == (3, 7)
    assert region.ranges == ((0, 2), (8, 9))
    assert np.isclose(region.confidence, 0.9)


def test_one_plane_that_is_surely_not_empty_ends_a_range():
    region = _regions([1, 1, 1, 1, 1, 0, 1, 1, 1, 1], sure=[5])
    assert not region.whole
    assert region.ranges == ((0, 4), (6, 9))


@pytest.mark.parametrize(
    ("looked_at", "ranges"),
    [
        ([*range(4), *range(20, 24)], ((0, 3), (20, 23))),
        ([*range(4), *range(12, 16), *range(20, 24)], ((0, 3), (20, 23))),
        ([0, 1, 5, 6, 10, 11, 15, 16, 20, 21], ((0, 23),)),
        ([0, 1, 5, 6, 10, 11, 15, 16, 17], ((0, 17),)),
        ([4, 5, 9, 10, 14, 15, 19, 20], ((4, 23),)),
        ([10, 11], ()),
    ],
)
def test_planes_are_like_their_neighbours_where_few_lie_between(looked_at, ranges):
    number = len(looked_at)
    decision = Decision(
        np.ones(number, bool), np.ones(number, bool), np.zeros(number), *[np.ones(number)] * 2, (1,)
    )
    (region,) = regions_of(decision, [(1, z) for z in looked_at], {1: (0, 24)}, 24)
    assert region.ranges == ranges


def test_planes_without_data_are_no_gap():
    known = np.ones(24, bool)
    known[6:14] = False
    decision = Decision(known, known, np.where(known, 0.5, np.nan), *[known * 0.9] * 2, (1,))
    (region,) = regions_of(decision, [(1, z) for z in range(24)], {1: (0, 24)}, 24)
    assert region.whole


def test_a_stack_that_begins_later_is_named_by_planes_of_the_image():
    region = _regions([1, 1, 0, 0, 0, 1], sure=[2, 3, 4], planes=(4, 10))
    assert region.ranges == ((4, 5), (9, 9))


def test_a_tile_without_an_empty_plane_has_no_range():
    region = _regions([0] * 10, sure=range(10))
    assert region.ranges == ()
    assert (region.share, region.confidence) == (0.0, 0.0)


def test_whole_tiles_that_all_channels_share_are_named():
    one = [_of(1, 20, 19), _of(2, 3, 15), _of(3, 20, 19), _of(4, 20, 19)]
    other = [_of(1, 20, 19), _of(2, 3, 15), _of(3, 20, 19), _of(4, 0, 19)]
    found = choose([one, other], corners=[1, 2, 3, 4], n_z=20)
    assert found.options() == "--fov-list 1,3"


def test_levels_are_named_for_the_tiles_that_have_them():
    regions = [_of(1, 6, 14), _of(2, 1, 18), _of(3, 5, 13), _of(4, 7, 15), _of(5, 0, 19)]
    found = choose([regions], corners=[1, 3, 4], n_z=20)
    assert found.options() == "--z-levels 5,15"
    assert choose([regions], [1, 2], 20).options() == "--fov-list 1,3,4 --z-levels 5,15"


def test_where_a_channel_has_nothing_empty_nothing_is_named():
    one, none = [_of(1, 20, 19)], [_of(1, 0, 19)]
    assert not choose([one, none], [1], 20)
    assert choose([one, none], [1], 20).options() == ""
