"""A part of a chunk decoded without the rest, where its encoding allows it.

Blosc cuts a chunk into blocks, each of which is encoded by itself, and says where each begins
(https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst). Some of these blocks with a
header of their own are a blosc chunk again, a smaller one, which its decoder takes. So a few planes
of a deep chunk cost what they hold, in bytes read and in time, and a large chunk is decoded without
having all of its file in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import empty_array
from fractal_mesospim_shading.images.arrays.encodings import (
    BLOSC_HEADER,
    Encoding,
    content_of,
    read_into,
)

BARE = 2
"""Flag in a header of blosc: the bytes follow as they are."""

_HEAD = 4096
"""Bytes of a chunk that are read first: its header, and where up to 1020 blocks begin."""

_LATEST_FORMAT = 2
"""Of blosc 1, which zarr's chunks are."""

RUN_BYTES = 8 * 2**20
"""Bytes of pixels of a large chunk that are decoded, or encoded, at a time."""


@dataclass(frozen=True)
class Piece:
    """Where the bytes of an encoded chunk lie.

    Attributes:
        file: that holds it.
        start: its first byte there.
        length: bytes of it as it is encoded.
        size: bytes of its pixels.
    """

    file: FileIO
    start: int
    length: int
    size: int


def in_parts(encoding: Encoding) -> bool:
    """Whether a part of a chunk can be decoded without the rest."""
    return encoding.codec is None or isinstance(encoding.codec, Blosc)


def decoded_between(
    encoding: Encoding, piece: Piece, first: int, stop: int
) -> tuple[NDArray[np.uint8], int]:
    """Bytes of the pixels of a chunk, in the order of the chunk.

    Args:
        encoding: of the chunk.
        piece: the chunk.
        first: byte that is asked for.
        stop: behind the last one.

    Returns:
        Decoded bytes, which hold these, and the place of the first of them in the chunk.

    Raises:
        OSError, ValueError, RuntimeError: these are not the bytes of such a chunk.
    """
    head = _head_of(piece) if isinstance(encoding.codec, Blosc) else None
    plain = _plain_start(encoding, piece, head)
    if plain is not None:
        return np.frombuffer(content_of(piece.file, plain + first, stop - first), "u1"), first
    blocks = None if head is None else _Blocks.of(piece, head)
    if blocks is not None:
        low, high = blocks.holding(first, stop)
        if high - low < blocks.count:
            pixels = empty_array((blocks.bytes_of(low, high),), np.uint8)
            blocks.decode(encoding, piece, low, pixels)
            return pixels, low * blocks.size
    pixels = empty_array((piece.size,), np.uint8)
    encoding.decode(content_of(piece.file, piece.start, piece.length), pixels)
    return pixels, 0


def decode_all(encoding: Encoding, piece: Piece, out: NDArray[Any]) -> None:
    """Decode a chunk; of a large one no more of the file is in memory than some blocks take.

    Args:
        encoding: of the chunk.
        piece: the chunk.
        out: for all of its pixels, C order.

    Raises:
        OSError, ValueError, RuntimeError: these are not the bytes of such a chunk.
    """
    pixels = out.reshape(-1).view(np.uint8)
    large = isinstance(encoding.codec, Blosc) and piece.size >= 2 * RUN_BYTES
    head = _head_of(piece) if large else None
    plain = _plain_start(encoding, piece, head)
    if plain is not None:
        read_into(piece.file, plain, pixels.data)
        return
    blocks = None if head is None else _Blocks.of(piece, head)
    if blocks is None:
        encoding.decode(content_of(piece.file, piece.start, piece.length), out)
        return
    for low, high in blocks.runs(RUN_BYTES):
        begin = low * blocks.size
        part = pixels[begin : begin + blocks.bytes_of(low, high)]
        blocks.decode(encoding, piece, low, part)


def _head_of(piece: Piece) -> memoryview | None:
    """The first bytes of a blosc chunk; None where these say that it is another one, or damaged."""
    head = content_of(piece.file, piece.start, min(_HEAD, piece.length))
    if len(head) < BLOSC_HEADER or head[0] > _LATEST_FORMAT:
        return None
    size, block, length = (int(n) for n in np.frombuffer(head[4:BLOSC_HEADER], "<u4"))
    if (size, length) != (piece.size, piece.length) or not 0 < block <= size:
        return None
    return None if head[2] & BARE and length != size + BLOSC_HEADER else head


def _plain_start(encoding: Encoding, piece: Piece, head: memoryview | None) -> int | None:
    """Where the pixels begin in the file of a chunk that lie there as they are, else None."""
    if head is not None and head[2] & BARE:
        return piece.start + BLOSC_HEADER
    return piece.start if encoding.codec is None and piece.length == piece.size else None


@dataclass(frozen=True)
class _Blocks:
    """Where the blocks of a blosc chunk lie.

    Attributes:
        kind: first four bytes of its header.
        size: bytes of pixels in a block; the last may be shorter.
        all_bytes: bytes of pixels in all of them.
        starts: first byte of each in the chunk.
        stops: behind the last one of each.
    """

    kind: bytes
    size: int
    all_bytes: int
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @classmethod
    def of(cls, piece: Piece, head: memoryview) -> _Blocks | None:
        """Those of a chunk; None where it has one only, or is damaged."""
        block = int.from_bytes(head[8:12], "little")
        if block == piece.size:
            return None
        table = BLOSC_HEADER + 4 * -(-piece.size // block)
        if table > piece.length:
            return None
        if table > len(head):
            head = content_of(piece.file, piece.start, table)
        starts = np.frombuffer(head[BLOSC_HEADER:table], "<i4").astype(np.int64)
        order = np.append(np.sort(starts), piece.length)
        if order[0] < table or order[-2] >= piece.length:
            return None
        # Several threads write blocks in the order in which they are ready.
        stops = order[np.searchsorted(order, starts) + 1]
        return cls(bytes(head[:4]), block, piece.size, starts, stops)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.starts)

    def holding(self, first: int, stop: int) -> tuple[int, int]:
        """First and last, exclusive, of the blocks that are decoded for some bytes of pixels."""
        low, high = first // self.size, -(-stop // self.size)
        if high == self.count and self._last_shorter:
            low = min(low, self.count - 2)
        return low, high

    def runs(self, size: int) -> Iterator[tuple[int, int]]:
        """All blocks, so many at a time that they decode to about so many bytes."""
        edges = list(range(0, self.count, max(1, size // self.size)))
        if edges[-1] == self.count - 1 and self._last_shorter:
            edges.pop()
        return pairwise([*edges, self.count])

    @property
    def _last_shorter(self) -> bool:
        """Whether the last block is shorter, which blosc takes behind a whole one only."""
        return self.all_bytes % self.size > 0

    def bytes_of(self, low: int, high: int) -> int:
        """Bytes of pixels in some of them."""
        return min(high * self.size, self.all_bytes) - low * self.size

    def decode(self, encoding: Encoding, piece: Piece, low: int, out: NDArray[np.uint8]) -> None:
        """Decode as many as there is room for, from one of them on."""
        high = low + -(-len(out) // self.size)
        starts, stops = self.starts[low:high], self.stops[low:high]
        chunk = _chunk_of_blocks(piece, self.kind, self.size, starts, stops)
        chunk[4:8] = np.frombuffer(len(out).to_bytes(4, "little"), "u1")
        encoding.decode(chunk.data, out)


def _chunk_of_blocks(
    piece: Piece, kind: bytes, block: int, starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """A blosc chunk of some blocks of another; how many bytes it decodes to is left open.

    Args:
        piece: the other chunk.
        kind: first four bytes of its header.
        block: bytes of pixels in each block.
        starts: first byte of each block in the chunk.
        stops: behind the last one of each.
    """
    table = BLOSC_HEADER + 4 * len(starts)
    places = table + np.append(0, np.cumsum(stops - starts))
    chunk = empty_array((int(places[-1]),), np.uint8)
    chunk[:4] = np.frombuffer(kind, "u1")
    chunk[8:BLOSC_HEADER] = np.array([block, len(chunk)], "<u4").view("u1")
    chunk[BLOSC_HEADER:table] = places[:-1].astype("<i4").view("u1")
    for one, other in _runs(starts, stops):
        run = chunk[places[one] : places[other]]
        read_into(piece.file, piece.start + int(starts[one]), run.data)
    return chunk


def _runs(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and last, exclusive, of blocks that follow each other without a gap."""
    yield from pairwise([0, *(np.flatnonzero(starts[1:] != stops[:-1]) + 1).tolist(), len(starts)])
