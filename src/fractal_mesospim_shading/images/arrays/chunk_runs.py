"""A large chunk encoded some blocks at a time, to the bytes that its codec makes of it at once.

Blosc encodes each block of a chunk by itself (see `chunk_parts`). So a run of blocks is encoded as
a smaller chunk, and its blocks go into the file of the large one, whose header and table of blocks
follow when all are known. No more than a run is in memory beside the pixels; the codec itself takes
a buffer as large as the chunk, and a copy of what it has put there.

What binds blocks to each other is the room that the codec gives itself, 16 bytes more than the
pixels: where what it has written so far leaves less than a block may take, the block is encoded in
another way or the pixels of all the chunk follow as they are. A run that may have felt this is
encoded again behind a block of zeros, which leaves room; a chunk that would have felt it, unless
it is one that no block of becomes smaller, is left to the codec.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import empty_array
from fractal_mesospim_shading.images.arrays import chunk_parts
from fractal_mesospim_shading.images.arrays.chunk_parts import BARE
from fractal_mesospim_shading.images.arrays.encodings import BLOSC_HEADER, Encoding
from fractal_mesospim_shading.images.arrays.output_file import OutputFile

_ROOM = 16
"""Bytes that a chunk may take more than its pixels."""

_MOST_ADDED = 4 * 16
"""Bytes that a block may take more than its pixels: the lengths of the parts it is split into."""


def written_in_runs(
    encoding: Encoding, pixels: NDArray[Any], opened: Callable[[], OutputFile]
) -> bool:
    """Encode a large chunk and write its file.

    Args:
        encoding: of the chunk.
        pixels: all of the chunk, C order.
        opened: opens its file.

    Returns:
        Whether that was done. It is not for small chunks, other codecs than blosc, and the few
        whose blocks do not tell what they would be in the whole chunk; what lies in the file then
        is of no use.

    Raises:
        OSError: no space, or no permission.
    """
    codec = encoding.codec
    if not isinstance(codec, Blosc) or pixels.nbytes < 2 * chunk_parts.RUN_BYTES:
        return False
    flat = pixels.reshape(-1)
    first = _Run.of(codec, flat[: chunk_parts.RUN_BYTES // flat.itemsize])
    if first is None:
        return False
    with opened() as file:
        lengths = _write_blocks(codec, flat, first, file)
        head = None if lengths is None else _head(first, flat.nbytes, lengths)
        if head is not None:
            file.fill_room(head)
    if lengths is None or head is not None:
        return head is not None
    if (lengths <= _sizes(flat.nbytes, first.block)).any():
        return False
    with opened() as file:
        kind = bytearray(first.kind)
        kind[2] |= BARE
        file.write(_header(bytes(kind), flat.nbytes, first.block, flat.nbytes + _ROOM))
        file.write(flat.view(np.uint8).data)
    return True


def encoded_bytes(encoding: Encoding, size: int) -> int:
    """What encoding a chunk takes in memory beside its pixels, but for those few.

    Args:
        encoding: of the chunk.
        size: bytes of its pixels.
    """
    large = encoding.index is None and isinstance(encoding.codec, Blosc)
    # The last run, which may be longer by a block, encoded and copied, and the one before it.
    return min(size, 4 * chunk_parts.RUN_BYTES) if large else size


@dataclass(frozen=True)
class _Run:
    """Blocks of some pixels, encoded as they would be with room for all of them.

    Attributes:
        kind: first four bytes of the header of a chunk of such blocks.
        block: bytes of pixels in each; the last may be shorter.
        lengths: encoded bytes of each.
        content: all of them.
    """

    kind: bytes
    block: int
    lengths: NDArray[np.int64]
    content: NDArray[np.uint8]

    @classmethod
    def of(cls, codec: Blosc, pixels: NDArray[Any]) -> _Run | None:
        """The blocks of pixels in one dimension.

        None where they are a single block, or the codec does not encode any.
        """
        encoded = codec.encode(pixels)
        block = int.from_bytes(encoded[8:12], "little")
        if block >= pixels.nbytes:
            return None
        found = cls._with_room(encoded, pixels.nbytes)
        if found is not None:
            return found
        del encoded  # Its memory is used again.
        before = block // pixels.itemsize
        behind_zeros = empty_array((before + pixels.size,), pixels.dtype)
        behind_zeros[:before] = 0
        behind_zeros[before:] = pixels
        found = cls._with_room(codec.encode(behind_zeros), behind_zeros.nbytes)
        if found is None or found.block != block:
            return None
        zeros = int(found.lengths[0])
        return cls(found.kind, block, found.lengths[1:], found.content[zeros:])

    @classmethod
    def _with_room(cls, encoded: bytes, size: int) -> _Run | None:
        """The blocks of a chunk of so many bytes of pixels; None where room was scarce."""
        content = np.frombuffer(encoded, np.uint8)
        kind, block = encoded[:4], int.from_bytes(encoded[8:12], "little")
        if kind[2] & BARE:
            return None
        sizes = _sizes(size, block)
        table = BLOSC_HEADER + 4 * len(sizes)
        starts = np.frombuffer(encoded[BLOSC_HEADER:table], "<i4").astype(np.int64)
        lengths = np.diff(starts, append=len(content))
        # Several threads would write blocks in the order in which they are ready.
        if starts[0] != table or (lengths <= 0).any() or _scarce(starts, sizes, size):
            return None
        return cls(kind, block, lengths, content[table:])


def _write_blocks(
    codec: Blosc, flat: NDArray[Any], run: _Run, file: OutputFile
) -> NDArray[np.int64] | None:
    """Write all blocks of a chunk behind room for its header.

    Args:
        codec: of the chunk.
        flat: its pixels.
        run: the first of its blocks.
        file: empty.

    Returns:
        The encoded bytes of each block; None where they cannot be told.
    """
    kind, block, size = run.kind, run.block, flat.nbytes
    lengths: list[NDArray[np.int64]] = []
    begin, end = 0, chunk_parts.RUN_BYTES
    file.leave_room(BLOSC_HEADER + 4 * len(_sizes(size, block)))
    while True:
        # The last block, if it is cut off, is encoded again as the first of the next run.
        kept = len(run.lengths) if end == size else (end - begin) // block
        lengths.append(run.lengths[:kept])
        file.write(run.content[: int(lengths[-1].sum())].data)
        if end == size:
            return np.concatenate(lengths)
        begin += kept * block
        # Blosc takes a shorter block behind a whole one only.
        rest = size - begin
        end = size if rest < chunk_parts.RUN_BYTES + block else begin + chunk_parts.RUN_BYTES
        found = _Run.of(codec, flat[begin // flat.itemsize : end // flat.itemsize])
        if found is None or (found.kind, found.block) != (kind, block):
            return None
        run = found


def _head(run: _Run, size: int, lengths: NDArray[np.int64]) -> bytes | None:
    """Header and table of a chunk of blocks; None where some had too little room in it."""
    table = BLOSC_HEADER + 4 * len(lengths)
    stops = table + np.cumsum(lengths)
    starts = stops - lengths
    if _scarce(starts, _sizes(size, run.block), size):
        return None
    return _header(run.kind, size, run.block, int(stops[-1])) + starts.astype("<i4").tobytes()


def _scarce(starts: NDArray[np.int64], sizes: NDArray[np.int64], size: int) -> bool:
    """Whether any block of a chunk has less room than it may take."""
    return bool((starts + sizes + _MOST_ADDED > size + _ROOM).any())


def _sizes(size: int, block: int) -> NDArray[np.int64]:
    """Bytes of pixels in each block of a chunk."""
    starts = np.arange(0, size, block)
    return np.minimum(size - starts, block)


def _header(kind: bytes, size: int, block: int, length: int) -> bytes:
    return kind + np.array([size, block, length], "<u4").tobytes()
