"""Which planes, and what of them, tell on the way whether a given offset fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.flatfield.offset_look import OffsetLook, offset_look
from fractal_mesospim_shading.images.mosaic import MosaicImage

LAYOUT = TileLayout.from_origins([(0, 0), (1000, 0)], (1000, 70), (2000, 70))
LOOK = OffsetLook(frozenset("a"), {0: {1: frozenset({3, 4}), 2: frozenset({6, 7})}}, 9, 2, 3)


def _seen(look: OffsetLook, height: int, width: int) -> np.ndarray:
    """How often each pixel (z, y, x) is looked at, in blocks of a size."""
    seen = np.zeros((9, 2000, 70), int)
    for top in range(0, 2000, height):
        for left in range(0, 70, width):
            y, x = slice(top, min(top + height, 2000)), slice(left, min(left + width, 70))
            zyx = (slice(0, 9), y, x)
            for _, piece, run in look.pieces({"t": 0, "c": 0}, zyx, LAYOUT, lambda _: "a", None):
                assert piece.in_tile[0].start == y.start + piece.in_box[0].start - piece.tile.y
                seen[zyx][(run, *piece.in_box)] += 1
    return seen


def test_stripes_lie_in_the_tile_wherever_blocks_are() -> None:
    whole = _seen(LOOK, 2000, 70)
    assert whole.max() == 1
    for height, width in ((512, 70), (300, 32), (64, 17)):
        np.testing.assert_array_equal(_seen(LOOK, height, width), whole)


def test_stripes_are_spread_over_the_tile_and_differ_from_tile_to_tile() -> None:
    whole = _seen(LOOK, 2000, 70)
    assert sorted(np.flatnonzero(whole.any(axis=(1, 2)))) == [3, 4, 6, 7]
    rows = [whole[z, top : top + 1000].any(axis=1) for z, top in ((3, 0), (6, 1000))]
    for own in rows:
        starts = np.flatnonzero(np.diff(own.astype(int), prepend=0) == 1)
        assert len(starts) >= 2 and set(np.diff(starts)) == {3 * 128}
    assert not (rows[0] & rows[1]).any()
    assert _seen(replace(LOOK, every=1), 512, 70).sum() == 2 * 2 * 1000 * 70


@pytest.mark.parametrize(("images", "every"), [(1, 1), (8, 2), (1000, 2)])
def test_a_large_tile_is_looked_at_in_four_stripes_at_least(make_mosaic, images, every) -> None:
    """Light falls off towards the edges: one stripe has too little of it to tell the noise."""
    path = make_mosaic(
        shape=(1, 2, 1024, 1024), tile_shape=(1024, 1024), channels=("a",), chunks=(2, 512, 512)
    )
    look = offset_look(MosaicImage.open(path), {"a"}, images)
    assert look.every == every
    assert look.planes == {0: {1: frozenset({0, 1})}}


def test_tiles_give_pairs(make_mosaic) -> None:
    path = make_mosaic(
        shape=(1, 8, 96, 80), tile_shape=(24, 20), channels=("a",), chunks=(2, 16, 32)
    )
    look = offset_look(MosaicImage.open(path), {"a"}, 10**7)
    assert len(look.planes[0]) == 4
    for planes in look.planes[0].values():
        first, second = sorted(planes)
        assert second == first + 1
