"""Which parts of which overlaps are looked at: a seeded sample whose cost is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, prod

import numpy as np

from fractal_mesospim_shading.core.overlaps.neighbours import Neighbours, neighbours
from fractal_mesospim_shading.images.source import ChunkFrame, ModelGroup, MultitileImage

SHEET = 4
"""Neighbouring planes that are averaged; their differences tell the noise."""

MOST_SHEETS = 12
"""Heights at which a pair of tiles is compared."""

# Parts of an overlap are at least so long, in pixels, for their details to be registered.
_LEAST_LENGTH = 128

Span = tuple[int, int]
Cell = tuple[int, ChunkFrame, int, int, int]
"""A chunk: time point, frame that it is counted in, and number along (z, y, x)."""


@dataclass(frozen=True)
class Part:
    """A part of an overlap, in some neighbouring planes of one time point.

    Attributes:
        pair: the tiles.
        time: of the image.
        planes: span along z.
        window: (y, x) spans in the first tile.
        sheet: number of its planes among those of the pair.
    """

    pair: Neighbours
    time: int
    planes: Span
    window: tuple[Span, Span]
    sheet: int

    def places(self) -> tuple[tuple[int, Span, Span], tuple[int, Span, Span]]:
        """Number of the tile and spans (y, x) in it, of both views."""
        y, x = self.window
        dy, dx = self.pair.shift
        second = (self.pair.second, (y[0] - dy, y[1] - dy), (x[0] - dx, x[1] - dx))
        return (self.pair.first, y, x), second


@dataclass(frozen=True)
class ChunkGrid:
    """How the pixels of a channel are cut into pieces that are decoded as a whole."""

    image: MultitileImage
    channel: int

    @cached_property
    def units(self) -> tuple[int, int, int]:
        """Size (z, y, x) of a chunk."""
        units = self.image.read_units(0)
        return self.image.axes.length("z", units), units[-2], units[-1]

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of its pixels, no more than the image has."""
        shape = self.image.levels[0].shape
        sizes = (self.image.axes.length("z", shape), *shape[-2:])
        return prod(map(min, self.units, sizes)) * self.image.dtype.itemsize

    def cells(self, part: Part) -> Iterator[Cell]:
        """The chunks that hold pixels of a part."""
        for tile, y, x in part.places():
            place = self.image.layout.tile(tile)
            frame = self.image.chunk_frame(self.channel, tile)
            spans = (
                part.planes,
                (y[0] + place.y, y[1] + place.y),
                (x[0] + place.x, x[1] + place.x),
            )
            ranges = [
                range((a - c) // u, (b - c - 1) // u + 1)
                for (a, b), c, u in zip(spans, frame.corner, self.units, strict=True)
            ]
            for z, row, column in product(*ranges):
                yield part.time, frame, z, row, column

    def box(self, first: Cell, last: Cell) -> tuple[Span, Span, Span]:
        """Pixels (z, y, x) of the image from one chunk to another one of its frame."""
        frame = first[1]
        sides = zip(frame.corner, frame.spans, self.units, first[2:], last[2:], strict=True)
        spans = [
            (max(low, c + u * a), min(high, c + u * (b + 1))) for c, (low, high), u, a, b in sides
        ]
        return spans[0], spans[1], spans[2]


def decoded_bytes(image: MultitileImage, group: ModelGroup, seed: int, budget: int) -> int:
    """Bytes of pixels that are decoded where these parts are looked at.

    Args:
        image, group, seed, budget: see `choose_parts`.
    """
    grid = ChunkGrid(image, group.channel.index)
    parts = choose_parts(image, group, seed, budget)
    return len({cell for part in parts for cell in grid.cells(part)}) * grid.chunk_bytes


def choose_parts(
    image: MultitileImage, group: ModelGroup, seed: int, budget: int
) -> tuple[Part, ...]:
    """Draw parts of the overlaps of a channel and illumination side.

    Where the budget allows, whole overlaps at up to 12 heights, evenly spread, each pair at others;
    where it does not, fewer heights, then pieces of the overlaps, then fewer pairs.

    Args:
        image: whose `origins_px` are known.
        group: of stacks that share a model.
        seed: of the heights and pieces.
        budget: bytes of pixels to be decoded at most, about.

    Returns:
        Parts, those of a pair together.
    """
    origins = image.origins_px or {}
    known = {tile: origins[tile] for tile in group.planes if tile in origins}
    pairs = neighbours(known, image.layout.tile_shape)
    rng = np.random.default_rng(seed)
    grid = ChunkGrid(image, group.channel.index)
    heights = {pair: _heights(image, group, pair, rng) for pair in pairs}
    pairs = tuple(pair for pair in pairs if heights[pair])
    chunks = _chunks_held(grid, pairs, heights)
    for number in range(MOST_SHEETS, 0, -1):
        if chunks[number - 1] * grid.chunk_bytes <= budget:
            return tuple(part for pair in pairs for part in _whole(pair, heights[pair][:number]))
    return _within_budget(grid, pairs, heights, rng, budget)


def _heights(
    image: MultitileImage, group: ModelGroup, pair: Neighbours, rng: np.random.Generator
) -> list[tuple[int, Span]]:
    """Time points and spans of planes of a pair, in an order whose first ones are well spread."""
    spans = [group.planes[tile] for tile in (pair.first, pair.second)]
    low, stop = max(s[0] for s in spans), min(s[1] for s in spans)
    times = [
        t
        for t in range(image.axes.length("t", image.levels[0].shape))
        if not {(pair.first, t), (pair.second, t)} & group.unwritten
    ]
    if stop <= low or not times:
        return []
    depth = min(SHEET, stop - low)
    count = min(MOST_SHEETS, max((stop - low) // depth, 1))
    starts = low + ((stop - low - depth) * (np.arange(count) + rng.random()) / count).astype(int)
    # Nearest to the centre first: there is most tissue.
    order = sorted(range(count), key=lambda k: (abs(2 * k + 1 - count), k))
    return [
        (times[int(rng.integers(len(times)))], (int(starts[k]), int(starts[k]) + depth))
        for k in order
    ]


def _whole(pair: Neighbours, heights: Sequence[tuple[int, Span]]) -> list[Part]:
    return [
        Part(pair, time, planes, pair.window, sheet) for sheet, (time, planes) in enumerate(heights)
    ]


def _chunks_held(
    grid: ChunkGrid, pairs: Sequence[Neighbours], heights: dict[Neighbours, list[tuple[int, Span]]]
) -> list[int]:
    """How many chunks are decoded where whole overlaps are looked at, by the number of heights."""
    least: dict[Cell, int] = {}
    for pair in pairs:
        for part in _whole(pair, heights[pair]):
            for cell in grid.cells(part):
                least[cell] = min(part.sheet, least.get(cell, part.sheet))
    sheets = np.fromiter(least.values(), np.int64, len(least))
    return [int(n) for n in np.cumsum(np.bincount(sheets, minlength=MOST_SHEETS))]


def _within_budget(
    grid: ChunkGrid,
    pairs: Sequence[Neighbours],
    heights: dict[Neighbours, list[tuple[int, Span]]],
    rng: np.random.Generator,
    budget: int,
) -> tuple[Part, ...]:
    """Pieces of the overlaps of as many pairs as the budget allows."""
    chosen: list[Part] = []
    held: set[Cell] = set()
    order = [pairs[k] for k in rng.permutation(len(pairs))]
    for left, pair in zip(range(len(order), 0, -1), order, strict=True):
        share = max(budget - len(held) * grid.chunk_bytes, 0) // left
        for part in _pieces(grid, pair, heights[pair], rng):
            new = set(grid.cells(part)) - held
            share -= len(new) * grid.chunk_bytes
            if share < 0 and chosen:
                break
            held |= new
            chosen.append(part)
    return tuple(sorted(chosen, key=lambda part: (part.pair.first, part.pair.second, part.sheet)))


def _pieces(
    grid: ChunkGrid,
    pair: Neighbours,
    heights: Sequence[tuple[int, Span]],
    rng: np.random.Generator,
) -> Iterator[Part]:
    """Parts of a pair about as long as a chunk, spread along it, by and by at other heights."""
    along = int(np.argmax(pair.shape))
    start, stop = pair.window[along]
    length = max(_LEAST_LENGTH, grid.units[1 + along])
    count = max(ceil((stop - start) / length), 1)
    edges = np.linspace(start, stop, count + 1).astype(int)
    for turn, piece in enumerate(rng.permutation(count)):
        sheet = turn % len(heights)
        time, planes = heights[sheet]
        window = list(pair.window)
        window[along] = (int(edges[piece]), int(edges[piece + 1]))
        yield Part(pair, time, planes, (window[0], window[1]), sheet)
