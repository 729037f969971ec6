"""Numbers, corners and pieces of mosaics against brute force."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import LayoutError
from tests.support.steps import steps


def grid(
    rows: int, columns: int, tile: tuple[int, int] = (4, 6), missing: tuple[int, ...] = ()
) -> TileLayout:
    origins = [(r * tile[0], c * tile[1]) for c in range(columns) for r in range(rows)]
    present = [origin for number, origin in enumerate(origins, 1) if number not in missing]
    return TileLayout.from_origins(present, tile, (rows * tile[0], columns * tile[1]))


def test_numbers_go_down_the_columns() -> None:
    layout = grid(2, 3)
    assert layout.map_text() == "1  3  5\n2  4  6"
    assert [(t.number, t.row, t.column, t.y, t.x) for t in layout.tiles] == [
        (1, 0, 0, 0, 0),
        (2, 1, 0, 4, 0),
        (3, 0, 1, 0, 6),
        (4, 1, 1, 4, 6),
        (5, 0, 2, 0, 12),
        (6, 1, 2, 4, 12),
    ]
    for tile in layout.tiles:
        assert tile.number == tile.column * layout.rows + tile.row + 1
    assert layout.missing == ()


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_given_does_not_matter(order: tuple[int, ...]) -> None:
    origins = [(0, 0), (4, 0), (0, 6), (4, 6)]
    names = ["a", "b", "c", "d"]
    layout = TileLayout.from_origins(
        [origins[i] for i in order], (4, 6), (8, 12), [names[i] for i in order]
    )
    assert [tile.name for tile in layout.tiles] == names
    assert [tile.number for tile in layout.tiles] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("rows", "columns", "missing", "corners"),
    [
        (1, 1, (), (1,)),
        (1, 4, (), (1, 4)),
        (4, 1, (), (1, 4)),
        (2, 2, (), (1, 2, 3, 4)),
        (3, 4, (), (1, 3, 10, 12)),
        (3, 3, (1,), (3, 7, 9)),
        (3, 3, (5,), (1, 3, 7, 9)),
        (2, 3, (1, 6), (2, 5)),
    ],
)
def test_corners(
    rows: int, columns: int, missing: tuple[int, ...], corners: tuple[int, ...]
) -> None:
    layout = grid(rows, columns, missing=missing)
    assert layout.corners == corners
    assert layout.missing == missing


def test_a_missing_tile_leaves_its_number_free() -> None:
    layout = grid(2, 3, missing=(3,))
    assert layout.map_text() == "1  -  5\n2  4  6"
    assert layout.tile(4).x == 6
    with pytest.raises(LayoutError, match="Tile 3 is missing"):
        layout.tile(3)
    for number in (0, -1, 7):
        with pytest.raises(LayoutError, match=f"Tile {number} is outside.*1 to 6"):
            layout.tile(number)


def test_a_single_tile() -> None:
    layout = TileLayout.single((5, 7))
    assert layout.is_single
    assert layout.map_text() == "1"
    assert layout.corners == (1,)
    assert not grid(1, 2).is_single
    assert not TileLayout.from_origins([(0, 0)], (4, 6), (5, 7)).is_single


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pieces_paint_every_pixel_once(data: st.DataObject) -> None:
    """Painting number and in-tile index through pieces equals a loop over pixels."""
    tile = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    numbers = range(1, rows * columns + 1)
    missing = data.draw(st.sets(st.sampled_from(numbers), max_size=rows * columns - 1))
    origins = [
        (row * tile[0], column * tile[1])
        for column in range(columns)
        for row in range(rows)
        if column * rows + row + 1 not in missing
    ]
    margin = data.draw(st.integers(0, 2))
    plane = (rows * tile[0] + margin, columns * tile[1] + margin)
    layout = TileLayout.from_origins(origins, tile, plane)
    edges = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in plane]
    y, x = (slice(*pair) for pair in edges)
    painted = np.full((y.stop - y.start, x.stop - x.start, 3), -1)
    for piece in layout.pieces(y, x):
        box = painted[piece.in_box]
        assert (box == -1).all()
        box[..., 0] = piece.tile.y * 100 + piece.tile.x
        box[..., 1] = np.arange(piece.in_tile[0].start, piece.in_tile[0].stop)[:, None]
        box[..., 2] = np.arange(piece.in_tile[1].start, piece.in_tile[1].stop)[None, :]
    for i, j in itertools.product(range(painted.shape[0]), range(painted.shape[1])):
        py, px = y.start + i, x.start + j
        owners = [
            (oy, ox) for oy, ox in origins if 0 <= py - oy < tile[0] and 0 <= px - ox < tile[1]
        ]
        expected = [-1, -1, -1]
        if owners:
            oy, ox = owners[0]
            expected = [oy * 100 + ox, py - oy, px - ox]
        assert painted[i, j].tolist() == expected


def test_rows_that_are_not_quite_level() -> None:
    origins = [(0, 0), (103, 2), (1, 104), (105, 102)]
    layout = TileLayout.from_origins(origins, (100, 100), (210, 210))
    assert (layout.rows, layout.columns) == (2, 2)
    assert [(t.number, t.y, t.x) for t in layout.tiles] == [
        (1, 0, 0),
        (2, 103, 2),
        (3, 1, 104),
        (4, 105, 102),
    ]


@pytest.mark.parametrize(
    ("origins", "said"),
    [
        ([], "no tile"),
        ([(0, 0), (0, 5)], "overlap in the image by 4 x 1"),
        ([(0, 0), (0, 0)], "overlap"),
        ([(0, 0), (3, 5)], "overlap in the image by 1 x 1"),
        ([(-1, 0)], "leaves the plane"),
        ([(0, 7)], "leaves the plane"),
        ([(5, 0)], "leaves the plane"),
    ],
)
def test_layouts_that_are_refused(origins: list[tuple[int, int]], said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        TileLayout.from_origins(origins, (4, 6), (8, 12))


@given(
    st.lists(
        st.tuples(st.integers(0, 26), st.integers(0, 24)), min_size=1, max_size=12, unique=True
    )
)
def test_tiles_overlap_as_comparing_all_of_them_tells(origins: list[tuple[int, int]]) -> None:
    pairs = itertools.combinations(origins, 2)
    overlap = any(abs(a[0] - b[0]) < 4 and abs(a[1] - b[1]) < 6 for a, b in pairs)
    if overlap:
        with pytest.raises(LayoutError, match="overlap in the image"):
            TileLayout.from_origins(origins, (4, 6), (30, 30))
    else:
        assert len(TileLayout.from_origins(origins, (4, 6), (30, 30)).tiles) == len(origins)


def test_wide_mosaics_are_checked_quickly_and_pickled() -> None:
    layout = grid(150, 150, tile=(2, 2))
    assert layout.by_number[22500].y == 298
    assert pickle.loads(pickle.dumps(layout)) == layout
    assert layout.map_text().splitlines()[0].startswith("00001  00151")


@pytest.mark.parametrize("seed", range(12))
def test_gaps_are_all_pixels_of_no_tile_each_once(seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 5, 2)
    tile = (5, 7)
    step = (5 + rng.integers(0, 3), 7 + rng.integers(0, 4))
    places = [(r * step[0], c * step[1]) for r in range(rows) for c in range(columns)]
    chosen = [p for p in places if rng.random() < 0.8] or places[:1]
    plane = (int(rows * step[0] + rng.integers(0, 4)), int(columns * step[1] + rng.integers(0, 4)))
    layout = TileLayout.from_origins([(int(y), int(x)) for y, x in chosen], tile, plane)
    covered = np.zeros(plane, int)
    for y, x in chosen:
        covered[y : y + 5, x : x + 7] += 1
    for y, x in layout.gaps:
        assert not covered[y, x].any()
        covered[y, x] += 1
    assert (covered == 1).all()
    box = (slice(1, plane[0] - 1), slice(2, plane[1]))
    outside = layout.outside(*box)
    expected = np.ones(plane, bool)
    for y, x in chosen:
        expected[y : y + 5, x : x + 7] = False
    found = np.zeros_like(expected[box]) if outside is None else outside
    np.testing.assert_array_equal(found, expected[box])


def test_a_missing_tile_is_one_gap():
    layout = grid(3, 3, missing=(5,))
    height, width = layout.tile_shape
    assert layout.gaps == ((slice(height, 2 * height), slice(width, 2 * width)),)
    assert grid(3, 3).gaps == ()


@pytest.mark.parametrize("units", [(5, 7), (8, 12), (16, 12), (100, 100)])
@pytest.mark.parametrize("numbers", [[1], [2, 3], [4, 1], [1, 2, 3, 4]])
def test_boxes_of_tiles_hold_them_once_and_no_tile_in_between(
    units: tuple[int, int], numbers: list[int]
) -> None:
    layout = TileLayout.from_origins([(0, 0), (8, 0), (0, 12), (8, 12)], (8, 12), (16, 24))
    count = np.zeros((16, 24), int)
    for y, x in layout.boxes_of(numbers, units):
        count[y, x] += 1
        assert (y.stop - 1) // units[0] == y.start // units[0]
        assert (x.stop - 1) // units[1] == x.start // units[1]
    wanted = np.zeros((16, 24), bool)
    for tile in map(layout.tile, numbers):
        wanted[tile.y : tile.y + 8, tile.x : tile.x + 12] = True
    assert count.max() == 1
    assert (count[wanted] == 1).all()
    if len(numbers) == 1:
        assert not count[~wanted].any()


def test_pieces_of_a_block_take_no_more_steps_of_ten_thousand_tiles_than_of_hundred() -> None:
    numbers = []
    for side in (10, 100):
        layout = grid(side, side)
        box = slice(18, 30), slice(26, 45)
        numbers.append(steps(lambda layout=layout, box=box: list(layout.pieces(*box))))
    assert numbers[0] == numbers[1]


def _touching(layout: TileLayout, y: slice, x: slice) -> list[int]:
    height, width = layout.tile_shape
    return [
        tile.number
        for tile in layout.tiles
        if max(y.start, tile.y) < min(y.stop, tile.y + height)
        and max(x.start, tile.x) < min(x.stop, tile.x + width)
    ]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_pieces_come_by_number_as_looking_at_every_tile_gives_them(data: st.DataObject) -> None:
    """Rows and columns that are shifted, tiles missing, and gaps between them."""
    places = {
        (row, column): (
            row * 14 + data.draw(st.integers(0, 4)),
            column * 18 + data.draw(st.integers(0, 5)),
        )
        for row in range(4)
        for column in range(4)
    }
    missing = data.draw(st.sets(st.sampled_from(sorted(places)), max_size=10))
    origins = [place for key, place in places.items() if key not in missing]
    layout = TileLayout.from_origins(origins, (10, 13), (60, 76))
    y0, x0 = data.draw(st.integers(0, 59)), data.draw(st.integers(0, 75))
    y = slice(y0, data.draw(st.integers(y0, 60)))
    x = slice(x0, data.draw(st.integers(x0, 76)))
    pieces = list(layout.pieces(y, x))
    assert [piece.tile.number for piece in pieces] == _touching(layout, y, x)
