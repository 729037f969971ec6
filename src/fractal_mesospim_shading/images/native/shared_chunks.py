"""Chunks that two blocks share, each decoded once: what one block leaves is kept for the other.

Blocks begin anew with the mosaic, and chunks with the stack. Where a stack starts at another height
or runs downward, a chunk at the border of two blocks belongs to both. Whichever comes first decodes
it, and its planes for the other wait in memory, within a bound: where they would not fit, both
blocks decode the chunk.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import empty_array
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.arrays.file_states import (
    ReadNotes,
    current_notes,
    noted_reads,
)
from fractal_mesospim_shading.images.native.placement import PlacedStack
from fractal_mesospim_shading.images.native.stack import Stack

Read = Callable[[slice], NDArray[Any]]
"""Reads planes of a stack, numbered as in its array."""


@dataclass(frozen=True)
class _Part:
    """Planes of a stack that are read at a time.

    Attributes:
        planes: of its array.
        chunk: planes of the chunk that they are a part of; themselves where nothing is shared.
    """

    planes: slice
    chunk: slice

    @property
    def rest(self) -> slice:
        """What else is in the chunk: before or after the planes, for it is of two blocks."""
        if self.chunk.start < self.planes.start:
            return slice(self.chunk.start, self.planes.start)
        return slice(self.planes.stop, self.chunk.stop)


@dataclass(frozen=True)
class _Left:
    """Planes that the first of two blocks leaves for the second.

    Attributes:
        planes: of the stack's array.
        pixels: with what was noted when they were read; there once they are decoded.
    """

    planes: slice
    pixels: Future[tuple[NDArray[Any], ReadNotes]] = field(default_factory=Future)


def shared_bytes(
    placed: Sequence[PlacedStack], dtype: np.dtype[Any], block: Sequence[int], workers: int
) -> int:
    """What `SharedChunks` of a mosaic hold at most; see `MultitileImage.shared_bytes`.

    Args:
        placed: the stacks of the mosaic.
        dtype: of the pixels.
        block: shape of a block.
        workers: blocks that are read at a time.
    """
    above: Counter[tuple[int, int, int]] = Counter()
    for item in placed:
        first = item.first_plane - item.first_plane % block[-3]
        if item.stack.levels[0].chunks[0] <= block[-3]:
            for z in range(first + block[-3], item.planes.stop, block[-3]):
                layer = (item.stack.time, item.channel, z)
                above[layer] += item.handed_on(z) * prod(item.stack.tile_shape)
    most = max(above.values(), default=0)
    return dtype.itemsize * (most + 2 * workers * prod(block)) if most else 0


class SharedChunks:
    """What the blocks of one run, all in this process, leave for each other."""

    def __init__(
        self, room: int, block: Sequence[int], done: Collection[tuple[int, ...]] = ()
    ) -> None:
        """Hold nothing yet.

        Args:
            room: bytes that may be held, with chunks while they are decoded.
            block: shape of a block; the first begins at pixel 0, and each is read once.
            done: blocks that are not going to be read, by their places in the grid of blocks.
        """
        self._room, self._block, self._done = room, tuple(block), done
        self._used = 0
        self._lock = threading.Lock()
        self._left: dict[Hashable, _Left] = {}
        self._refused: set[Hashable] = set()

    def fill(
        self,
        out: NDArray[Any],
        box: Box,
        placed: PlacedStack,
        planes: slice,
        in_tile: tuple[slice, slice],
        read: Read,
    ) -> None:
        """Read the planes that a block needs of a stack.

        Args:
            out: (n, y, x) that they are written to, in the order of the stack's array.
            box: of the block.
            placed: the stack.
            planes: of its array.
            in_tile: their part along y and x.
            read: reads any planes of this part.
        """
        for part in _parts(planes, placed.stack, self._block[-3]):
            inside = slice(part.planes.start - planes.start, part.planes.stop - planes.start)
            if part.chunk == part.planes:
                out[inside] = read(part.planes)
                continue
            edges = tuple(edge for s in in_tile for edge in (s.start, s.stop))
            key = (placed.stack.group, placed.stack.lead, part.chunk.start, edges)
            beyond = [s.start for s in box]
            beyond[-3] = placed.plane_of(part.rest.start)
            self._share(out[inside], key, part, read, self._is_awaited(beyond))

    def _is_awaited(self, pixel: Sequence[int]) -> bool:
        """Whether the block of a pixel is going to be read."""
        return tuple(p // b for p, b in zip(pixel, self._block, strict=True)) not in self._done

    def _share(
        self, out: NDArray[Any], key: Hashable, part: _Part, read: Read, awaited: bool
    ) -> None:
        """Read a part of a chunk and leave the rest, or take what another block has left.

        Args:
            out: that the part is written to.
            key: of the chunk.
            part: which planes.
            read: reads planes.
            awaited: whether somebody is going to ask for the rest.
        """
        found, left = self._found_or_left(key, part, out[0].nbytes, awaited)
        if found is not None:
            pixels, notes = found.pixels.result()
            out[...] = pixels
            self._free(pixels.nbytes)
        elif left is not None:
            notes = _decode(out, part, left, read)
            self._free(out.nbytes + out[0].nbytes * _length(left.planes))
        else:
            out[...] = read(part.planes)
            return
        noting = current_notes()
        if noting is not None:
            noting.include(notes)

    def _found_or_left(
        self, key: Hashable, part: _Part, plane_bytes: int, awaited: bool
    ) -> tuple[_Left | None, _Left | None]:
        """What another block has left of a chunk, or what this one is going to leave of it."""
        left = _Left(part.rest)
        # The whole chunk as well, while it is decoded.
        size = (_length(part.planes) + 2 * _length(left.planes)) * plane_bytes
        with self._lock:
            found = self._left.get(key)
            if found is not None and found.planes == part.planes:
                return self._left.pop(key), None
            if found is not None or not awaited:
                return None, None
            if key in self._refused:
                self._refused.remove(key)
                return None, None
            if self._used + size > self._room:
                self._refused.add(key)
                return None, None
            self._used += size
            self._left[key] = left
            return None, left

    def _free(self, size: int) -> None:
        with self._lock:
            self._used -= size


def _decode(out: NDArray[Any], part: _Part, left: _Left, read: Read) -> ReadNotes:
    """Decode a chunk: the part goes to `out`, the rest is left."""

    def inside(planes: slice) -> slice:
        return slice(planes.start - part.chunk.start, planes.stop - part.chunk.start)

    try:
        with noted_reads() as notes:
            pixels = read(part.chunk)
        kept = empty_array((_length(left.planes), *pixels.shape[1:]), pixels.dtype)
        np.copyto(kept, pixels[inside(left.planes)])
    except BaseException as error:
        left.pixels.set_exception(error)
        raise
    left.pixels.set_result((kept, notes))
    out[...] = pixels[inside(part.planes)]
    return notes


def _parts(planes: slice, stack: Stack, block: int) -> Iterator[_Part]:
    """Planes of a stack, those that lie in a chunk with planes of another block by themselves.

    Args:
        planes: of the array.
        stack: that they belong to.
        block: planes of a block. Where a chunk has more, more than two blocks may share it, and
            none leaves anything.
    """
    depth, last = stack.levels[0].chunks[0], stack.planes_found
    if depth > block:
        yield _Part(planes, planes)
        return
    inner = planes.start + -planes.start % depth
    outer = last if planes.stop == last else planes.stop - planes.stop % depth
    within = range(planes.start + 1, planes.stop)
    edges = [planes.start, *sorted({inner, outer} & set(within)), planes.stop]
    for start, stop in pairwise(edges):
        first, part = start - start % depth, slice(start, stop)
        whole = start == first and (stop % depth == 0 or stop == last)
        yield _Part(part, part if whole else slice(first, min(first + depth, last)))


def _length(planes: slice) -> int:
    return int(planes.stop - planes.start)
