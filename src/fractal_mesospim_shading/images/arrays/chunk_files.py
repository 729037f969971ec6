"""Chunks of the most common layouts, between file and block with no copy too many.

zarr and its pipelines hand a chunk on through several copies of it, which costs more
than the codec. Here a file is decoded into the pixels of a block, and encoded from
them, where that is simple: local files in one of the `encodings`. All else goes through
zarr (`codecs`), to the same pixels; what is written is what zarr's own pipeline writes
(the order of the chunks within a shard aside, which is free, and here that of the array).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import FileIO
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs.blosc import MAX_BUFFERSIZE
from numpy.typing import NDArray
from zarr.storage import LocalStore

from fractal_mesospim_shading.core.blocks import covering, cut, within
from fractal_mesospim_shading.core.threads import empty_array
from fractal_mesospim_shading.images.arrays.chunk_parts import (
    Piece,
    decode_all,
    decoded_between,
    in_parts,
)
from fractal_mesospim_shading.images.arrays.chunk_runs import written_in_runs
from fractal_mesospim_shading.images.arrays.encodings import (
    ABSENT,
    Encoding,
    ShardIndex,
    open_file,
    simple_encoding,
    simple_type,
)
from fractal_mesospim_shading.images.arrays.local_states import Known, LocalLook, state_of
from fractal_mesospim_shading.images.arrays.output_file import OutputFile

_MOST_OVERHEAD = 8
"""A box is decoded here where what holds it has at most so many times its pixels."""

_LOOKED_AT = 2**16
"""Pixels, or a plane where that is more, that are compared with the fill value at a time."""

Box = Sequence[slice]


@dataclass(frozen=True)
class ChunkFiles:
    """The files of an array.

    Attributes:
        folder: of the array.
        key: name of the file of a unit, within the folder.
        dtype: of the pixels, native.
        shape: of the array.
        unit: shape of what lies in one file: the shard, else the chunk.
        chunk: shape of what is encoded as one.
        fill: value of chunks that are not there.
        encoding: of the chunks.
    """

    folder: Path
    key: Callable[[tuple[int, ...]], str]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    unit: tuple[int, ...]
    chunk: tuple[int, ...]
    fill: Any
    encoding: Encoding

    def suits(self, box: Box) -> bool:
        """Whether a box holds enough of what has to be decoded for it."""
        sizes, apart = [part.stop - part.start for part in box], in_parts(self.encoding)
        decoded = 1
        for part, chunk, extent in zip(box, self.chunk, self.shape, strict=True):
            whole = min(part.stop + -part.stop % chunk, extent) - part.start // chunk * chunk
            size = part.stop - part.start
            # The bytes of chunks run along the last axes first.
            decoded *= size if apart else whole
            apart = apart and size == 1
        return bool(prod(sizes) * _MOST_OVERHEAD >= decoded)

    def read(self, box: Box, out: NDArray[Any]) -> list[Known]:
        """Decode all chunks that a box touches.

        Args:
            box: within the array.
            out: of the box's shape and the array's type; C order.

        Returns:
            The state of each file as it was read, in the order of the array.

        Raises:
            OSError, ValueError, RuntimeError: a file cannot be read or decoded, or a name is
                there that leads to no file.
        """
        file_states: list[Known] = []
        absent: list[tuple[int, ...]] = []
        look = LocalLook(str(self.folder))
        for index in product(*covering(self.unit, box)):
            key = self.key(index)
            path = f"{self.folder}/{key}"
            file = None if look.knows_gone(key) else _opened(path)
            if file is None:
                look.refuse_broken_name(key)
                file_states.append(None)
                absent.append(index)
                continue
            with file:
                file_states.append(state_of(path, os.fstat(file.fileno())))
                for place, start, length in self._pieces(index, file):
                    part = _overlap(place, box)
                    if all(s.start < s.stop for s in part):
                        target = out[within(part, box)]
                        if length is None:
                            target[...] = self.fill
                        else:
                            self._decode_part(file, start, length, place, part, target)
        if len(absent) == len(file_states):
            # One by one, small ones take longer than all else.
            out[...] = self.fill
        else:
            for index in absent:
                out[within(_overlap(self._box(index, self.unit), box), box)] = self.fill
        return file_states

    def write(self, box: Box, data: NDArray[Any]) -> None:
        """Encode and write the units of a box; what is nothing but the fill value is left out.

        Args:
            box: whole units, but for the end of the array.
            data: of its shape and the array's type.

        Raises:
            OSError: no space, or no permission.
        """
        if is_all(data, self.fill):
            return
        for index in product(*covering(self.unit, box)):
            if self.encoding.index is None:
                self._write_chunk(index, box, data)
            else:
                self._write_shard(index, self.encoding.index, box, data)

    def _box(self, index: Sequence[int], shape: Sequence[int]) -> list[slice]:
        """The pixels of a unit or chunk; they may reach beyond the array."""
        return [slice(i * n, (i + 1) * n) for i, n in zip(index, shape, strict=True)]

    def _chunks(self, index: Sequence[int]) -> list[tuple[slice, ...]]:
        """The boxes of the chunks of a unit in C order, also of those beyond the array."""
        return list(cut(self._box(index, self.unit), self.chunk))

    def _pieces(self, index: Sequence[int], file: FileIO) -> Iterator[tuple[Box, int, int | None]]:
        """The chunks in a file: box, first byte, and length; None for one that is not there."""
        if self.encoding.index is None:
            yield self._box(index, self.chunk), 0, os.fstat(file.fileno()).st_size
            return
        chunks = self._chunks(index)
        places = self.encoding.index.decode(file, len(chunks))
        for place, (start, length) in zip(chunks, places, strict=True):
            absent = start == ABSENT and length == ABSENT
            yield place, int(start), None if absent else int(length)

    def _decode_part(
        self, file: FileIO, start: int, length: int, place: Box, part: Box, out: NDArray[Any]
    ) -> None:
        """The pixels of a part of the chunk that begins at a byte of a file."""
        if out.shape == self.chunk and out.flags.c_contiguous:
            decode_all(self.encoding, Piece(file, start, length, out.nbytes), out)
            return
        item, inner = self.dtype.itemsize, within(part, place)
        strides = [prod(self.chunk[axis + 1 :]) * item for axis in range(len(self.chunk))]
        first = sum(s.start * n for s, n in zip(inner, strides, strict=True))
        last = sum((s.stop - 1) * n for s, n in zip(inner, strides, strict=True))
        piece = Piece(file, start, length, prod(self.chunk) * item)
        pixels, begin = decoded_between(self.encoding, piece, first, last + item)
        out[...] = np.ndarray(out.shape, self.dtype, pixels.data, first - begin, strides)

    def _pixels(self, place: Box, box: Box, data: NDArray[Any]) -> NDArray[Any] | None:
        """All pixels of a chunk in C order; None for one of nothing but the fill value."""
        part = _overlap(_overlap(place, box), [slice(0, n) for n in self.shape])
        pixels = data[within(part, box)]
        if is_all(pixels, self.fill):
            return None
        if pixels.shape != self.chunk or not pixels.flags.c_contiguous:
            whole = empty_array(self.chunk, self.dtype)
            if pixels.shape != self.chunk:
                whole[...] = self.fill
            whole[within(part, place)] = pixels
            pixels = whole
        return pixels

    def _write_chunk(self, index: tuple[int, ...], box: Box, data: NDArray[Any]) -> None:
        pixels = self._pixels(self._box(index, self.chunk), box, data)
        if pixels is None:
            return
        opened = partial(self._output, index)
        if not written_in_runs(self.encoding, pixels, opened):
            encoded = self.encoding.encode(pixels)
            with opened() as file:
                file.write(encoded)

    def _write_shard(
        self, index: tuple[int, ...], table: ShardIndex, box: Box, data: NDArray[Any]
    ) -> None:
        chunks = self._chunks(index)
        places = np.full((len(chunks), 2), ABSENT)
        length = table.length(len(chunks))
        with ExitStack() as stack:
            file = None
            for number, place in enumerate(chunks):
                if any(s.start >= n for s, n in zip(place, self.shape, strict=True)):
                    continue
                pixels = self._pixels(place, box, data)
                if pixels is None:
                    continue
                encoded = self.encoding.encode(pixels)
                if file is None:
                    file = stack.enter_context(self._output(index))
                    if not table.at_end:
                        file.leave_room(length)
                places[number] = file.length, len(encoded)
                file.write(encoded)
            if file is not None:
                write = file.write if table.at_end else file.fill_room
                write(table.encode(places))

    def _output(self, index: tuple[int, ...]) -> OutputFile:
        size = prod(self.unit) * self.dtype.itemsize
        return OutputFile(self.folder / self.key(index), size)


def chunk_files(array: zarr.Array[Any]) -> ChunkFiles | None:
    """The files of an array, None where they are for zarr to read and write."""
    metadata = array.metadata
    if not isinstance(array.store, LocalStore) or not simple_type(array.dtype):
        return None
    document: dict[str, Any] = metadata.to_dict()
    if metadata.zarr_format == 3:
        document["data_type"] = array.dtype.name
    encoding = simple_encoding(document)
    if encoding is None:
        return None
    if encoding.codec and prod(array.chunks) * array.dtype.itemsize > MAX_BUFFERSIZE:
        return None
    fill = 0 if metadata.fill_value is None else metadata.fill_value
    return ChunkFiles(
        folder=Path(array.store.root) / array.path,
        key=metadata.encode_chunk_key,
        dtype=array.dtype,
        shape=tuple(array.shape),
        unit=tuple(array.shards or array.chunks),
        chunk=tuple(array.chunks),
        fill=np.asarray(fill).astype(array.dtype)[()],
        encoding=encoding,
    )


def decoded_in_parts(array: zarr.Array[Any]) -> bool:
    """Whether a part of a chunk of an array is decoded without the rest."""
    files = chunk_files(array) if array.dtype.isnative else None
    return files is not None and in_parts(files.encoding)


def _opened(path: str) -> FileIO | None:
    try:
        return open_file(path)
    except FileNotFoundError:
        return None


def is_all(data: NDArray[Any], value: Any) -> bool:
    """Whether every pixel has one value; looks at few where the first ones differ."""
    first = data[(0,) * (data.ndim - 1)]
    if not _equal(first, value):
        return False
    planes = data.reshape((-1, *data.shape[-2:]))
    step = max(1, _LOOKED_AT // max(prod(data.shape[-2:]), 1))
    return all(_equal(planes[n : n + step], value) for n in range(0, len(planes), step))


def _equal(data: NDArray[Any], value: Any) -> bool:
    if np.isnan(value):
        return bool(np.isnan(data).all())
    return bool((data == value).all())


def _overlap(one: Box, other: Box) -> list[slice]:
    pairs = zip(one, other, strict=True)
    return [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs]
