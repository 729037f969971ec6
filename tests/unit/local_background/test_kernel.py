"""What a block of the background correction reads, and what is kept between blocks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.constant import Level
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.threads import Kept
from fractal_mesospim_shading.images.source import Axes
from fractal_mesospim_shading.local_background.planes import BackgroundCounts, Nothing
from fractal_mesospim_shading.local_background.regions import Regions

GRID = TileLayout.from_origins(
    [(0, 0), (0, 40), (48, 0), (48, 40)], (48, 40), (96, 80), ["a", "b", "c", "d"]
)


def regions(method, layout=GRID, *, masked=False, whole=False, depth=9, **parameters):
    return Regions(Axes("zyx"), layout, (make_method(method, **parameters),), depth, masked, whole)


def box(z, y, x):
    return (slice(*z), slice(*y), slice(*x))


def test_counts_add_up():
    total = BackgroundCounts(5, 1, 2, 3, 4, 7, 8, 1) + BackgroundCounts(1, 1, 1, 1, 1, 1, 1, 2)
    assert total == BackgroundCounts(6, 2, 3, 4, 5, 8, 9, 3)


def test_the_least_dilation_of_all_planes_is_kept():
    none = BackgroundCounts(pixels=9)
    first = BackgroundCounts(unestimated=2, eaten=2, most_dilation=7, scarce=1)
    second = BackgroundCounts(unestimated=2, eaten=1, most_dilation=4, even=3)
    for total in (none + first + second, second + (first + none), first + none + second):
        assert (total.unestimated, total.eaten, total.most_dilation) == (4, 3, 4)
        assert (total.scarce, total.even) == (1, 3)
    assert (none + BackgroundCounts(1)).most_dilation == 0


def test_a_halo_ends_at_the_tile():
    """A gaussian of radius 4 reaches floor(2.5758 * 2) = 5 pixels."""
    found = regions("gaussian", radius_px=4.0)
    assert found.read_yx(box((0, 2), (16, 32), (8, 24)), 0) == (slice(11, 37), slice(3, 29))
    assert found.read_yx(box((0, 2), (40, 56), (32, 48)), 0) == (slice(35, 61), slice(27, 53))
    assert found.read_yx(box((0, 2), (46, 48), (38, 40)), 0) == (slice(41, 48), slice(33, 40))
    assert found.reads_no_more(box((0, 2), (0, 48), (40, 80)))
    assert not found.reads_no_more(box((0, 2), (0, 48), (41, 80)))


@pytest.mark.parametrize("why", [{"masked": True}, {"whole": True}])
def test_whole_tiles_where_the_halo_is_not_enough(why):
    """They lie in files: backgrounds of planes, or the planes around a block of a stack."""
    found = regions("gaussian", radius_px=4.0, **why)
    assert found.read_yx(box((0, 2), (16, 32), (8, 24)), 0) == (slice(16, 32), slice(8, 24))
    assert found.in_files(found.methods[0])
    assert not found.local
    deep = regions("gaussian", radius_px=4.0, radius_z_px=1, **why)
    assert deep.read_yx(box((0, 2), (16, 32), (8, 24)), 0) == (slice(16, 32), slice(8, 24))
    (piece,) = GRID.pieces(slice(16, 32), slice(48, 64))
    assert deep.around(piece, deep.methods[0]) == (slice(11, 37), slice(3, 29))
    assert deep.in_stack(deep.methods[0]) and not deep.in_files(deep.methods[0])
    assert deep.local and deep.reads_no_more(box((0, 2), (16, 32), (8, 24)))
    alone = regions("gaussian", radius_px=4.0, radius_z_px=1)
    assert not alone.in_stack(alone.methods[0])
    assert not alone.reads_no_more(box((0, 2), (0, 48), (0, 40)))


def test_a_ball_begins_on_multiples_of_its_shrink_factor():
    found = regions("rolling_ball", TileLayout.single((900, 900)), radius_px=20)
    y, x = found.read_yx(box((0, 1), (301, 333), (301, 333)), 0)
    assert x == y and y.start % 2 == 0 and y.start < 301 and 333 < y.stop < 900


def test_surfaces_need_no_more_than_the_block():
    for found in (regions("tile_median"), regions("constant"), regions("tile_median", masked=True)):
        assert found.local
        assert found.reads_no_more(box((0, 2), (16, 32), (8, 24)))
    assert not regions("sliding_paraboloid").local


def test_memory_covers_what_is_read_around_a_block():
    single = TileLayout.single((4000, 4000))
    block, kind = (8, 256, 256), np.dtype("uint16")
    own = 8 * 256 * 256 * 2

    def needed(*arguments, **parameters):
        found = regions(*arguments, single, **parameters)
        return found.working_bytes(block, kind, (8, 256, 256))

    gaussian = needed("gaussian", radius_px=100.0)
    assert gaussian >= (256 + 2 * 128) ** 2 * (8 * 2 + 20)
    assert needed("gaussian", radius_px=100.0, masked=True) >= 4000**2 * 20
    assert needed("sliding_paraboloid") >= 4000**2 * 20
    # The eight planes of a chunk come with it, as their surfaces are found together.
    assert own + 4000**2 * (8 + 8 * 2) <= needed("tile_median") < 4000**2 * (20 + 8 * 3)
    deep = needed("gaussian", radius_px=9.0, radius_z_px=4)
    assert deep > needed("gaussian", radius_px=9.0) * 5


class Source:
    dtype = np.dtype("uint16")

    def read_grain(self):
        return (4, 32, 32)


def test_backgrounds_of_a_chunk_are_found_together_however_large_its_planes():
    source = Source()
    for layout in (GRID, TileLayout.single((30_000, 30_000))):
        found = regions("tile_median", layout)
        assert [found.surface_slab(source, z) for z in (0, 3, 4, 8)] == [
            slice(0, 4),
            slice(0, 4),
            slice(4, 8),
            slice(8, 9),
        ]


def test_alignments_begin_with_whole_tiles():
    assert regions("gaussian").alignments(Source()) == [(4, 48, 40), (4, 32, 32)]
    deep = regions("gaussian", radius_z_px=2, masked=True)
    assert deep.alignments(Source()) == [(4, 48, 40), (4, 32, 32)]
    shifted = TileLayout.from_origins([(0, 3), (48, 3)], (48, 40), (96, 80))
    assert regions("gaussian", shifted).alignments(Source()) == [(4, 48, 32), (4, 32, 32)]


def test_what_is_kept_as_one_counts_as_many():
    kept, made = Kept(10), []
    for key in range(3):
        kept.get(key, lambda: made.append(1), 4)
    kept.get(2, lambda: made.append(2), 4)
    kept.get(1, lambda: made.append(2), 4)
    assert made == [1, 1, 1]
    kept.get(0, lambda: made.append(2), 4)
    assert made == [1, 1, 1, 2]
    # One alone is held, however many it is.
    kept.get(9, lambda: made.append(3), 40)
    kept.get(9, lambda: made.append(4), 40)
    assert made[-1] == 3


def test_a_surface_is_made_once():
    surfaces, made = Kept(512), []
    ready = threading.Barrier(4)

    def make():
        made.append(1)
        time.sleep(0.05)
        return Level(3.0)

    def get(_):
        ready.wait()
        return surfaces.get("plane", make)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(get, range(4)))
    assert len(made) == 1 and all(surface is found[0] for surface in found)
    np.testing.assert_array_equal(found[0].background(slice(2, 4), slice(0, 3)), np.full((2, 3), 3))


def test_a_surface_that_failed_is_tried_again():
    surfaces = Kept(512)

    def fail():
        raise OSError("cannot be read")

    for _ in range(2):
        with pytest.raises(OSError, match="cannot be read"):
            surfaces.get("plane", fail)
    assert surfaces.get("plane", lambda: Nothing(True)) == Nothing(True)


def test_old_surfaces_make_room():
    surfaces = Kept(512)
    for key in range(600):
        surfaces.get(key, lambda: Level(0.0))
    made = []
    surfaces.get(599, lambda: made.append(1) or Level(1.0))
    assert not made
    surfaces.get(0, lambda: made.append(1) or Level(1.0))
    assert made
