"""Slabs that are looked at, as many as may be read."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.flatfield.empty_sample import chosen_slabs


def _slabs(*sizes):
    return {k + 1: [range(4 * z, 4 * z + 4) for z in range(n)] for k, n in enumerate(sizes)}


@pytest.mark.parametrize("sizes", [(12,) * 9, (3, 20, 7, 1), (5,), (1, 1, 1)])
def test_more_slabs_are_spread_alike_and_all_are_read_where_all_may_be(sizes):
    slabs = _slabs(*sizes)
    before = 0
    for number in range(sum(sizes) + 1):
        chosen = chosen_slabs(slabs, number)
        counts = {tile: len(own) for tile, own in chosen.items()}
        assert before <= sum(counts.values()) <= number
        before = sum(counts.values())
        assert len(counts) == min(number, len(sizes))
        # As many of each tile as of any, if it has so many.
        if counts:
            assert all(
                n == min(max(counts.values()), len(slabs[tile])) for tile, n in counts.items()
            )
        for tile, own in chosen.items():
            if 1 < len(own):
                assert {own[0], own[-1]} == {slabs[tile][0], slabs[tile][-1]}
                assert np.ptp(np.diff([slab.start // 4 for slab in own])) <= 1
    assert chosen_slabs(slabs, sum(sizes)) == slabs


def test_where_one_of_each_is_read_every_other_shows_the_other_end():
    chosen = chosen_slabs(_slabs(*[6] * 9), 11)
    assert [own[0].start for own in chosen.values()] == [0, 20, 0, 20, 0, 20, 0, 20, 0]
    some = chosen_slabs(_slabs(*[6] * 9), 3)
    assert {tile: own[0].start for tile, own in some.items()} == {1: 0, 5: 20, 9: 0}


def test_without_tiles_there_is_nothing_to_read():
    assert chosen_slabs({}, 5) == {}
