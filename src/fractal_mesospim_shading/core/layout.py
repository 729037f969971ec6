"""Where the tiles of a mosaic lie in its plane, and what they are called."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import LayoutError, TileNumberError


@dataclass(frozen=True)
class Tile:
    """One field of view.

    Attributes:
        number: 1-based, column by column ("inverted N"); a missing tile leaves a gap.
        row, column: place in the grid, from 0.
        y, x: origin in the mosaic, in pixels of level 0.
        name: what the table or the acquisition calls it.
    """

    number: int
    row: int
    column: int
    y: int
    x: int
    name: str = ""


@dataclass(frozen=True)
class Piece:
    """The part of one tile that lies in a box of the mosaic.

    Attributes:
        tile: the tile.
        in_tile: (y, x) slices within the tile.
        in_box: (y, x) slices within the box.
    """

    tile: Tile
    in_tile: tuple[slice, slice]
    in_box: tuple[slice, slice]


@dataclass(frozen=True)
class TileLayout:
    """Equal tiles without overlap on the pixel grid of one plane.

    Build it with `from_origins`, which checks and numbers the tiles.

    Attributes:
        tile_shape: (y, x) in pixels.
        plane_shape: (y, x) of the whole plane in pixels.
        tiles: the tiles present, ordered by number.
        rows, columns: size of the grid.
    """

    tile_shape: tuple[int, int]
    plane_shape: tuple[int, int]
    tiles: tuple[Tile, ...]
    rows: int
    columns: int

    @classmethod
    def from_origins(
        cls,
        origins_yx: Sequence[tuple[int, int]],
        tile_shape: tuple[int, int],
        plane_shape: tuple[int, int],
        names: Sequence[str] | None = None,
    ) -> TileLayout:
        """Number tiles by position: down the first column, then the top of the next.

        Args:
            origins_yx: upper left corner of each tile present, in pixels.
            tile_shape: (y, x) common to all tiles.
            plane_shape: (y, x) of the plane that holds them.
            names: what each tile is called, in the same order.

        Raises:
            LayoutError: no tile, a tile outside the plane, tiles that overlap.
        """
        if not origins_yx:
            raise LayoutError("The mosaic has no tile; expected at least one.")
        labels = list(names) if names is not None else [""] * len(origins_yx)
        for (y, x), label in zip(origins_yx, labels, strict=True):
            beyond = y + tile_shape[0] > plane_shape[0] or x + tile_shape[1] > plane_shape[1]
            if min(y, x) < 0 or beyond:
                raise LayoutError(
                    f"Tile '{label}' covers y {y}..{y + tile_shape[0]}, x {x}..{x + tile_shape[1]} "
                    f"and leaves the plane of {plane_shape[0]} x {plane_shape[1]} pixels. "
                    "Correct the table of tile positions."
                )
        row_starts = _starts((y for y, _ in origins_yx), tile_shape[0])
        column_starts = _starts((x for _, x in origins_yx), tile_shape[1])
        rows = len(row_starts)
        tiles = []
        for (y, x), label in zip(origins_yx, labels, strict=True):
            row, column = _index(row_starts, y), _index(column_starts, x)
            tiles.append(Tile(column * rows + row + 1, row, column, y, x, label))
        tiles.sort(key=lambda tile: (tile.number, tile.y, tile.x))
        _refuse_overlap(tiles, tile_shape)
        return cls(tile_shape, plane_shape, tuple(tiles), rows, len(column_starts))

    @classmethod
    def single(cls, plane_shape: tuple[int, int], name: str = "") -> TileLayout:
        """The layout of an image that is one tile."""
        return cls.from_origins([(0, 0)], plane_shape, plane_shape, [name])

    def coarser(self, factor: tuple[int, ...], plane_shape: tuple[int, ...]) -> TileLayout:
        """The tiles on a coarser pixel grid.

        Tiles keep one common shape; an origin that falls between two coarse pixels moves by half
        of one at most.

        Args:
            factor: pixels of this grid in one of the other, (y, x).
            plane_shape: of the other grid, (y, x).
        """
        height, width = self.coarser_tile(factor, plane_shape)
        origins = [
            (
                min(round(tile.y / factor[0]), plane_shape[0] - height),
                min(round(tile.x / factor[1]), plane_shape[1] - width),
            )
            for tile in self.tiles
        ]
        names = [tile.name for tile in self.tiles]
        shape = (plane_shape[0], plane_shape[1])
        return TileLayout.from_origins(origins, (height, width), shape, names)

    def coarser_tile(
        self, factor: tuple[int, ...], plane_shape: tuple[int, ...]
    ) -> tuple[int, int]:
        """Shape of a tile on a coarser pixel grid, (y, x); arguments as for `coarser`."""
        along = zip(self.tile_shape, factor, plane_shape, strict=True)
        height, width = (min(max(1, n // f), plane) for n, f, plane in along)
        return height, width

    @cached_property
    def by_number(self) -> dict[int, Tile]:
        """The tiles present, by number."""
        return {tile.number: tile for tile in self.tiles}

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the grid that have no tile."""
        everything = range(1, self.rows * self.columns + 1)
        return tuple(number for number in everything if number not in self.by_number)

    @property
    def corners(self) -> tuple[int, ...]:
        """Numbers of the corner tiles that are present, each once, in rising order."""
        rows, columns = self.rows, self.columns
        numbers = {1, rows, (columns - 1) * rows + 1, columns * rows}
        return tuple(sorted(numbers & self.by_number.keys()))

    def tile(self, number: int) -> Tile:
        """The tile of that number.

        Raises:
            TileNumberError: no such tile.
        """
        try:
            return self.by_number[number]
        except KeyError:
            last = self.rows * self.columns
            problem = f"missing in this mosaic ({self.rows} rows x {self.columns} columns)"
            if not 1 <= number <= last:
                problem = f"outside this mosaic, which has the numbers 1 to {last}"
            raise TileNumberError(f"Tile {number} is {problem}.") from None

    @cached_property
    def _by_column(self) -> tuple[list[int], list[int], list[tuple[list[int], list[Tile]]]]:
        """Least and greatest x of each column, and its tiles with their y, all ascending."""
        columns: dict[int, list[Tile]] = {}
        for tile in self.tiles:
            columns.setdefault(tile.column, []).append(tile)
        least = [min(tile.x for tile in own) for own in columns.values()]
        greatest = [max(tile.x for tile in own) for own in columns.values()]
        return least, greatest, [([tile.y for tile in own], own) for own in columns.values()]

    def _touched(self, y: slice, x: slice) -> Iterator[Tile]:
        """The tiles that a box may touch, by number; those beside it by x alone among them."""
        height, width = self.tile_shape
        least, greatest, columns = self._by_column
        first, stop = bisect_right(greatest, x.start - width), bisect_left(least, x.stop)
        for rows, tiles in columns[first:stop]:
            yield from tiles[bisect_right(rows, y.start - height) : bisect_left(rows, y.stop)]

    def pieces(self, y: slice, x: slice) -> Iterator[Piece]:
        """The parts of all tiles that lie in a box of the plane, by number of the tile.

        Args:
            y, x: ranges in pixels of the plane, with explicit start and stop.
        """
        height, width = self.tile_shape
        for tile in self._touched(y, x):
            y0, y1 = max(y.start, tile.y), min(y.stop, tile.y + height)
            x0, x1 = max(x.start, tile.x), min(x.stop, tile.x + width)
            if y0 < y1 and x0 < x1:
                yield Piece(
                    tile,
                    (slice(y0 - tile.y, y1 - tile.y), slice(x0 - tile.x, x1 - tile.x)),
                    (slice(y0 - y.start, y1 - y.start), slice(x0 - x.start, x1 - x.start)),
                )

    def boxes_of(
        self, numbers: Iterable[int], units: Sequence[int]
    ) -> Iterator[tuple[slice, slice]]:
        """Boxes of a grid that hold some tiles, none of them twice, in the order of the array.

        What lies beside these tiles is left out: it may be other tiles, whose chunks nobody asked
        for.

        Args:
            numbers: of the tiles.
            units: (y, x) size of the boxes of the grid, which begins at the corner of the plane.
        """
        touching: dict[tuple[int, int], list[Tile]] = {}
        height, width = self.tile_shape
        for tile in map(self.tile, numbers):
            rows = range(tile.y // units[0], -(-(tile.y + height) // units[0]))
            columns = range(tile.x // units[1], -(-(tile.x + width) // units[1]))
            for place in product(rows, columns):
                touching.setdefault(place, []).append(tile)
        for (row, column), tiles in sorted(touching.items(), key=itemgetter(0)):
            yield (
                _part(row, units[0], [tile.y for tile in tiles], height),
                _part(column, units[1], [tile.x for tile in tiles], width),
            )

    def outside(self, y: slice, x: slice) -> NDArray[np.bool_] | None:
        """The pixels of a box of the plane that belong to no tile; None where all belong to one.

        Args:
            y, x: ranges in pixels of the plane, with explicit start and stop.
        """
        shape = (y.stop - y.start, x.stop - x.start)
        pieces = [piece.in_box for piece in self.pieces(y, x)]
        covered = sum((b.stop - b.start) * (a.stop - a.start) for b, a in pieces)
        if covered == shape[0] * shape[1]:
            return None
        outside = np.ones(shape, np.bool_)
        for box in pieces:
            outside[box] = False
        return outside

    @cached_property
    def gaps(self) -> tuple[tuple[slice, slice], ...]:
        """Few boxes (y, x) of the plane that hold all pixels of no tile, each once."""
        corners = [(tile.y, tile.x) for tile in self.tiles]
        cuts = [
            sorted({0, end, *(c[axis] for c in corners), *(c[axis] + size for c in corners)})
            for axis, (end, size) in enumerate(zip(self.plane_shape, self.tile_shape, strict=True))
        ]
        places = [{cut: index for index, cut in enumerate(along)} for along in cuts]
        free = np.ones([len(along) - 1 for along in cuts], np.bool_)
        for corner in corners:
            box = zip(places, corner, self.tile_shape, strict=True)
            free[tuple(slice(place[c], place[c + size]) for place, c, size in box)] = False
        boxes: list[tuple[slice, slice]] = []
        above: dict[tuple[int, int], int] = {}
        for row in range(len(free) + 1):
            runs = _runs(free[row]) if row < len(free) else set()
            for run in sorted(above.keys() - runs):
                x = slice(cuts[1][run[0]], cuts[1][run[1]])
                boxes.append((slice(cuts[0][above.pop(run)], cuts[0][row]), x))
            for run in runs:
                above.setdefault(run, row)
        return tuple(sorted(boxes, key=lambda box: (box[0].start, box[1].start)))

    @property
    def is_single(self) -> bool:
        """Whether one tile covers the whole plane."""
        return len(self.tiles) == 1 and self.tile_shape == self.plane_shape

    def map_text(self) -> str:
        """The map of tile numbers, as people fill in a FOV list."""
        width = len(str(self.rows * self.columns))
        lines = []
        for row in range(self.rows):
            numbers = (column * self.rows + row + 1 for column in range(self.columns))
            cells = (
                f"{number:0{width}d}" if number in self.by_number else "-" * width
                for number in numbers
            )
            lines.append("  ".join(cells))
        return "\n".join(lines)


def _part(index: int, unit: int, starts: Sequence[int], size: int) -> slice:
    """A unit of a grid as far as parts of a size reach that begin there."""
    return slice(max(index * unit, min(starts)), min((index + 1) * unit, max(starts) + size))


def _runs(free: NDArray[np.bool_]) -> set[tuple[int, int]]:
    """(first, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], free.view(np.int8), [0]])))
    return {(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)}


def _starts(values: Iterable[int], size: int) -> list[int]:
    """Where rows (or columns) begin: origins closer than half a tile belong together."""
    starts: list[int] = []
    for value in sorted(values):
        if not starts or value - starts[-1] > size // 2:
            starts.append(value)
    return starts


def _index(starts: Sequence[int], value: int) -> int:
    return bisect_right(starts, value) - 1


def _refuse_overlap(tiles: Sequence[Tile], tile_shape: tuple[int, int]) -> None:
    """Refuse tiles that overlap; each is compared with those in its square and around it."""
    height, width = tile_shape
    squares: dict[tuple[int, int], list[Tile]] = {}
    for second in tiles:
        row, column = second.y // height, second.x // width
        around = product((row - 1, row, row + 1), (column - 1, column, column + 1))
        for first in (tile for square in around for tile in squares.get(square, ())):
            y, x = abs(first.y - second.y), abs(first.x - second.x)
            if y < height and x < width:
                raise LayoutError(
                    f"The tiles '{first.name}' at y={first.y}, x={first.x} and '{second.name}' at "
                    f"y={second.y}, x={second.x} overlap in the image by {height - y} x "
                    f"{width - x} "
                    "pixels. Only mosaics whose tiles lie edge to edge can be corrected; a fused "
                    "image has lost what belongs to which tile."
                )
        squares.setdefault((row, column), []).append(second)
