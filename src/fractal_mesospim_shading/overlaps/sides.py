"""The same tiles lit from two sides: what both show of the same tissue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.neighbours import Neighbours
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.observing import Piece, Rejected, observe
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.overlaps.choosing import SHEET
from fractal_mesospim_shading.overlaps.sampling import bin_side, light_of

FloatImage = NDArray[np.float32]

# Tiles that are compared, spread over the mosaic, and heights in each.
_MOST_TILES = 9
_HEIGHTS = 3
# Rows of a tile that are looked at, around its middle; all columns, for light falls off along x.
_ROWS = 256


@dataclass(frozen=True)
class LitSide:
    """A channel of an image lit from one side.

    Attributes:
        image: whose tiles these are.
        group: its stacks.
        dark: counts without light: a number, or (y, x) of a tile.
    """

    image: MultitileImage
    group: ModelGroup
    dark: float | FloatImage

    @property
    def tiles(self) -> Mapping[str, int]:
        """Numbers of its tiles by their names, by which both sides know them."""
        return {self.image.layout.tile(tile).name: tile for tile in self.group.planes}

    def light(self, tile: int, planes: tuple[int, int], rows: slice) -> FloatImage:
        """Counts above the offset of some planes of a tile, counted from its first."""
        first, place = self.group.planes[tile][0], self.image.layout.tile(tile)
        width = self.image.layout.tile_shape[1]
        times = range(self.image.axes.length("t", self.image.levels[0].shape))
        time = next(t for t in times if (tile, t) not in self.group.unwritten)
        index = self.group.channel.index
        spans = {
            "t": slice(time, time + 1),
            "c": slice(index, index + 1),
            "z": slice(first + planes[0], first + planes[1]),
            "y": slice(place.y + rows.start, place.y + rows.stop),
            "x": slice(place.x, place.x + width),
        }
        pixels: NDArray[Any] = self.image.read(0, self.image.axes.box(spans))
        shape = (planes[1] - planes[0], rows.stop - rows.start, width)
        dark = self.dark[rows] if isinstance(self.dark, np.ndarray) else self.dark
        return light_of(pixels.reshape(shape), dark)


def observe_sides(one: LitSide, other: LitSide, *, seed: int) -> Iterator[OverlapPair]:
    """Compare tiles that were taken from both sides, a few of them, spread over the mosaic.

    Args:
        one, other: the same channel, lit from either side.
        seed: of the heights.

    Yields:
        For each tile that can be compared, what both show. `first` is its number in the one image,
        `second` that in the other.
    """
    height, width = one.image.layout.tile_shape
    middle = height // 2
    rows = slice(max(middle - _ROWS // 2, 0), min(middle + _ROWS // 2, height))
    rng = np.random.default_rng(seed)
    for name in _spread(sorted(set(one.tiles) & set(other.tiles), key=one.tiles.__getitem__)):
        tiles = one.tiles[name], other.tiles[name]
        spans = [s.group.planes[t] for s, t in zip((one, other), tiles, strict=True)]
        depth = min(stop - start for start, stop in spans)
        pieces = [
            Piece(
                one.light(tiles[0], planes, rows),
                other.light(tiles[1], planes, rows),
                (rows.start, 0),
                number,
            )
            for number, planes in enumerate(_heights(depth, rng))
        ]
        whole = Neighbours(*tiles, "y", (0, 0), ((rows.start, rows.stop), (0, width)))
        seen = observe(whole, pieces, bin_side(one.image))
        if not isinstance(seen, Rejected):
            yield seen


def _spread(names: Sequence[str]) -> list[str]:
    count = min(len(names), _MOST_TILES)
    return [names[(2 * k + 1) * len(names) // (2 * count)] for k in range(count)]


def _heights(depth: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Spans of neighbouring planes, evenly spread."""
    thick = min(SHEET, depth)
    count = max(min(_HEIGHTS, depth // thick), 1)
    starts = ((depth - thick) * (np.arange(count) + rng.random()) / count).astype(int)
    return [(int(start), int(start) + thick) for start in starts]
