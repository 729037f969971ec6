"""Reading the overlaps of an image: each chunk once, a pair at a time, within a budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.observing import Piece, Rejected, observe
from fractal_mesospim_shading.core.overlaps.pedestal import DARK_STRUCTURE
from fractal_mesospim_shading.engine.progress import Progress
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.overlaps.choosing import Cell, ChunkGrid, Part, choose_parts

FloatImage = NDArray[np.float32]

BUDGET_BYTES = 2**30
"""Pixels decoded of one channel and side at most, about."""

# Of small images all is read; of large ones this part at most.
_LEAST_BYTES = 64 * 2**20
_LARGEST_SHARE = 0.04

# And this part where tiles are compared for their gains.
_SHARE_FOR_GAINS = 50
# Sides of bins: 8 pixels for small tiles, and so many bins along a tile at most.
_LEAST_BIN = 8
_MOST_BINS = 128


@dataclass(frozen=True)
class OverlapEvidence:
    """What the overlaps of a channel and illumination side show.

    Attributes:
        pairs: that could be compared.
        rejected: those that could not, and why.
        decoded_bytes: pixels that were decoded for it.
        dark_structure: counts (RMS) by which the dark frame may differ from place to place from
            what was taken off; None where counts may be of any scale.
    """

    pairs: tuple[OverlapPair, ...]
    rejected: tuple[Rejected, ...]
    decoded_bytes: int
    dark_structure: float | None


def budget_of(image: MultitileImage) -> int:
    """Bytes of pixels that may be decoded for a channel and side: little of what a job reads."""
    whole = prod(image.levels[0].shape) * image.dtype.itemsize // max(len(image.channels), 1)
    return max(_LEAST_BYTES, min(BUDGET_BYTES, int(_LARGEST_SHARE * whole)))


def gains_budget(image: MultitileImage) -> int:
    """The same where tiles are compared for their gains: enough that every one has a neighbour."""
    channel = prod(image.levels[0].shape) * image.dtype.itemsize // len(image.channels)
    return max(budget_of(image), channel // _SHARE_FOR_GAINS)


def bin_side(image: MultitileImage) -> int:
    """Side of the bins in which views are compared, in pixels."""
    return max(_LEAST_BIN, min(image.layout.tile_shape) // _MOST_BINS)


def observe_overlaps(
    image: MultitileImage,
    group: ModelGroup,
    offset: float | FloatImage,
    *,
    seed: int = 0,
    budget: int | None = None,
) -> OverlapEvidence:
    """Compare the overlaps of neighbouring tiles.

    Args:
        image: to read from, at full resolution.
        group: stacks that share a model: only tiles of the same channel and side compare.
        offset: counts without light: a number, or a dark frame (y, x) of a tile.
        seed: of the sample of heights and pieces.
        budget: bytes of pixels to be decoded at most, about; None for 1 GiB, and 4 % of the
            channel where it is larger than 64 MiB.

    Returns:
        No pair at all where the positions of the tiles are not known, or none overlap.

    Raises:
        SourceReadError: a chunk cannot be read.
    """
    parts = choose_parts(image, group, seed, budget_of(image) if budget is None else budget)
    reader = _Reader(image, group.channel.index, parts)
    pairs, rejected = [], []
    by_pair: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        by_pair[part.pair.first, part.pair.second].append(number)
    bin_px = bin_side(image)
    with Progress(len(by_pair), doing="Comparing overlaps", unit="pair") as progress:
        for numbers in by_pair.values():
            pieces = [reader.piece(number, offset) for number in numbers]
            seen = observe(parts[numbers[0]].pair, pieces, bin_px)
            if isinstance(seen, Rejected):
                rejected.append(seen)
            else:
                pairs.append(seen)
            progress.advance()
    structure = dark_structure_of(image, offset)
    return OverlapEvidence(tuple(pairs), tuple(rejected), reader.decoded_bytes, structure)


def dark_structure_of(image: MultitileImage, offset: float | FloatImage) -> float | None:
    """Counts (RMS) by which the dark frame of an image may differ from what is taken off.

    Args:
        image: whose pixels these are; None is returned for floats, which may be of any scale.
        offset: counts without light: a number, or a dark frame (y, x) of a tile.
    """
    if isinstance(offset, np.ndarray) and np.ptp(offset) > 0:
        return 0.0
    return DARK_STRUCTURE if np.issubdtype(image.dtype, np.integer) else None


@dataclass
class _Reader:
    """Reads chunks as parts need them, and gives each to all parts that have pixels in it."""

    image: MultitileImage
    channel: int
    parts: Sequence[Part]
    decoded_bytes: int = 0
    _waiting: dict[Cell, list[int]] = field(init=False)
    _views: dict[int, tuple[NDArray[Any], NDArray[Any]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Note which parts wait for which chunks."""
        self.grid = ChunkGrid(self.image, self.channel)
        self._waiting = defaultdict(list)
        for number, part in enumerate(self.parts):
            for cell in dict.fromkeys(self.grid.cells(part)):
                self._waiting[cell].append(number)

    def piece(self, number: int, offset: float | FloatImage) -> Piece:
        """A part with the pixels of both views."""
        part = self.parts[number]
        unread = dict.fromkeys(cell for cell in self.grid.cells(part) if cell in self._waiting)
        for run in _runs(list(unread)):
            self._read(run)
        views = self._views.pop(number)
        lights = [
            light_of(view, offset if isinstance(offset, float | int) else offset[_slices(y, x)])
            for view, (_, y, x) in zip(views, part.places(), strict=True)
        ]
        corner = (part.window[0][0], part.window[1][0])
        return Piece(lights[0], lights[1], corner, part.sheet)

    def _read(self, run: Sequence[Cell]) -> None:
        """Read neighbouring chunks along x, no more planes of them than are waited for."""
        waiting = sorted({number for cell in run for number in self._waiting.pop(cell)})
        self.decoded_bytes += len(run) * self.grid.chunk_bytes
        z, y, x = self.grid.box(run[0], run[-1])
        planes = [self.parts[number].planes for number in waiting]
        z = (max(z[0], min(low for low, _ in planes)), min(z[1], max(stop for _, stop in planes)))
        time = run[0][0]
        spans = {"t": slice(time, time + 1), "c": slice(self.channel, self.channel + 1)}
        spans |= {axis: slice(*span) for axis, span in zip("zyx", (z, y, x), strict=True)}
        pixels = self.image.read(0, self.image.axes.box(spans))
        block = pixels.reshape([stop - start for start, stop in (z, y, x)])
        for number in waiting:
            self._fill(number, block, (z[0], y[0], x[0]))

    def _fill(self, number: int, block: NDArray[Any], corner: tuple[int, int, int]) -> None:
        """Copy what a block holds of the views of a part."""
        part = self.parts[number]
        depth = part.planes[1] - part.planes[0]
        if number not in self._views:
            shape = (depth, *(stop - start for start, stop in part.window))
            self._views[number] = (np.zeros(shape, block.dtype), np.zeros(shape, block.dtype))
        for view, (tile, y, x) in zip(self._views[number], part.places(), strict=True):
            place = self.image.layout.tile(tile)
            origin = (part.planes[0], y[0] + place.y, x[0] + place.x)
            into, out = [], []
            for start, size, at, length in zip(
                origin, view.shape, corner, block.shape, strict=True
            ):
                low, stop = max(start, at), min(start + size, at + length)
                into.append(slice(low - start, max(stop, low) - start))
                out.append(slice(low - at, max(stop, low) - at))
            view[tuple(into)] = block[tuple(out)]


def _runs(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells in runs of neighbours along x."""
    run: list[Cell] = []
    for cell in cells:
        if run and (cell[:4] != run[-1][:4] or cell[4] != run[-1][4] + 1):
            yield run
            run = []
        run.append(cell)
    if run:
        yield run


def _slices(y: tuple[int, int], x: tuple[int, int]) -> tuple[slice, slice]:
    return slice(*y), slice(*x)


def light_of(pixels: NDArray[Any], dark: float | FloatImage) -> FloatImage:
    """Counts above the offset; NaN where a pixel holds no data or the most its type can hold."""
    light = pixels.astype(np.float32) - np.asarray(dark, dtype=np.float32)
    unusable = pixels == 0
    if np.issubdtype(pixels.dtype, np.integer):
        unusable |= pixels == np.iinfo(pixels.dtype).max
    light[unusable] = np.nan
    return light
