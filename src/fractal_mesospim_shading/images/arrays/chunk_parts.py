"""A part of a chunk decoded without the rest, where its encoding allows it.

Blosc cuts a chunk into blocks, each of which is encoded by itself, and says where each begins
(https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst). Some of these blocks with a
header of their own are a blosc chunk again, a smaller one, which its decoder takes. So a few planes
of a deep chunk cost what they hold, in bytes read and in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise

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

_BARE = 2
"""Flag in a header of blosc: the bytes follow as they are."""

_HEAD = 4096
"""Bytes of a chunk that are read first: its header, and where up to 1020 blocks begin."""

_LATEST_FORMAT = 2
"""Of blosc 1, which zarr's chunks are."""


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
    if encoding.codec is None and piece.length == piece.size:
        return np.frombuffer(content_of(piece.file, piece.start + first, stop - first), "u1"), first
    if isinstance(encoding.codec, Blosc):
        found = _between_blocks(encoding, piece, first, stop)
        if found is not None:
            return found
    pixels = empty_array((piece.size,), np.uint8)
    encoding.decode(content_of(piece.file, piece.start, piece.length), pixels)
    return pixels, 0


def _between_blocks(
    encoding: Encoding, piece: Piece, first: int, stop: int
) -> tuple[NDArray[np.uint8], int] | None:
    """As `decoded_between`; None where a chunk has to be decoded as a whole, or is damaged."""
    head = content_of(piece.file, piece.start, min(_HEAD, piece.length))
    if len(head) < BLOSC_HEADER or head[0] > _LATEST_FORMAT:
        return None
    size, block, length = (int(n) for n in np.frombuffer(head[4:BLOSC_HEADER], "<u4"))
    if (size, length) != (piece.size, piece.length):
        return None
    if head[2] & _BARE:
        if length != size + BLOSC_HEADER:
            return None
        begin = piece.start + BLOSC_HEADER + first
        return np.frombuffer(content_of(piece.file, begin, stop - first), "u1"), first
    if not 0 < block < size:
        return None
    blocks, table = -(-size // block), BLOSC_HEADER + 4 * -(-size // block)
    low, high = first // block, -(-stop // block)
    if size % block:
        # The last block is shorter, which blosc takes behind a whole one only.
        low = min(low, blocks - 2)
    if high - low == blocks or table > length:
        return None
    if table > len(head):
        head = content_of(piece.file, piece.start, table)
    starts = np.frombuffer(head[BLOSC_HEADER:table], "<i4").astype(np.int64)
    order = np.append(np.sort(starts), length)
    if order[0] < table or order[-2] >= length:
        return None
    # Several threads write blocks in the order in which they are ready.
    stops = order[np.searchsorted(order, starts[low:high]) + 1]
    chunk = _chunk_of_blocks(piece, bytes(head[:4]), block, starts[low:high], stops)
    pixels = empty_array((min(high * block, size) - low * block,), np.uint8)
    chunk[4:8] = np.frombuffer(len(pixels).to_bytes(4, "little"), "u1")
    encoding.decode(chunk.data, pixels)
    return pixels, low * block


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
