"""Whole chunks of the most common layouts, between file and block with no copy too many.

zarr and its pipelines hand a chunk on through several copies of it, which costs more
than the codec. Here a file is decoded into the pixels of a block, and encoded from
them, where that is simple: local files, C order, native byte order, blosc or no
codec, alone or in shards. All else goes through zarr (`codecs`), to the same pixels;
what is written is what zarr's own pipeline writes (the order of the chunks within a
shard aside, which is free, and here that of the array).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import zarr
from numcodecs.blosc import BITSHUFFLE, MAX_BUFFERSIZE, NOSHUFFLE, SHUFFLE, Blosc
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.storage import LocalStore

from fractal_mesospim_shading import allocation
from fractal_mesospim_shading.core.blocks import covering

DIRECT_BYTES = 4 * 2**20
"""Files for at least so many bytes of pixels go to the disk past the page cache."""

_DIRECT = getattr(os, "O_DIRECT", 0)
_PAGE = 4096
_STAGE_BYTES = 8 * 2**20
_BLOSC_HEADER = 16
_WORTH = 8
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SHUFFLES = {"noshuffle": NOSHUFFLE, "shuffle": SHUFFLE, "bitshuffle": BITSHUFFLE}
_ABSENT = np.uint64(2**64 - 1)
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)

Box = Sequence[slice]


@dataclass(frozen=True)
class ShardIndex:
    """Where the chunks of a shard lie in its file.

    Attributes:
        at_end: behind the chunks, else before them.
        checked: whether a CRC-32C follows.
    """

    at_end: bool
    checked: bool

    def length(self, chunks: int) -> int:
        """Bytes of the index of so many chunks."""
        return 16 * chunks + 4 * self.checked

    def encode(self, places: NDArray[np.uint64]) -> bytes:
        """Bytes of an index of (offset, length) pairs."""
        content = places.astype("<u8").tobytes()
        if self.checked:
            content += google_crc32c.value(content).to_bytes(4, "little")
        return content

    def decode(self, file: FileIO, chunks: int) -> NDArray[np.uint64]:
        """(chunks, 2) offsets and lengths.

        Raises:
            ValueError: it is not all there, or its checksum is wrong.
        """
        length, size = self.length(chunks), os.fstat(file.fileno()).st_size
        if size < length:
            raise ValueError("the shard is too short for its index")
        content = bytes(_content(file, size - length if self.at_end else 0, length))
        if self.checked:
            content, checksum = content[:-4], content[-4:]
            if google_crc32c.value(content) != int.from_bytes(checksum, "little"):
                raise ValueError("the checksum of the shard's index is wrong")
        return np.frombuffer(content, "<u8").astype(np.uint64).reshape(chunks, 2)


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
        codec: None for plain bytes.
        index: of the shards, None where there are none.
    """

    folder: Path
    key: Callable[[tuple[int, ...]], str]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    unit: tuple[int, ...]
    chunk: tuple[int, ...]
    fill: Any
    codec: Blosc | Zstd | None
    index: ShardIndex | None

    def suits(self, box: Box) -> bool:
        """Whether a box holds enough of the chunks it touches to decode them whole."""
        touched = [
            (min(s.stop + -s.stop % c, n) - s.start // c * c, s.stop - s.start)
            for s, c, n in zip(box, self.chunk, self.shape, strict=True)
        ]
        whole, wanted = (prod(sizes) for sizes in zip(*touched, strict=True))
        return bool(wanted * _WORTH >= whole)

    def read(self, box: Box, out: NDArray[Any]) -> None:
        """Decode all chunks that a box touches.

        Args:
            box: within the array.
            out: of the box's shape and the array's type; C order.

        Raises:
            OSError, ValueError, RuntimeError: a file cannot be read or decoded.
        """
        for index in product(*covering(self.unit, box)):
            try:
                file = open(self.folder / self.key(index), "rb", buffering=0)
            except FileNotFoundError:
                out[_within(_overlap(self._box(index, self.unit), box), box)] = self.fill
                continue
            with file:
                for place, start, length in self._pieces(index, file):
                    part = _overlap(place, box)
                    if all(s.start < s.stop for s in part):
                        target = out[_within(part, box)]
                        if length is None:
                            target[...] = self.fill
                        else:
                            self._decode_part(_content(file, start, length), place, part, target)

    def write(self, box: Box, data: NDArray[Any]) -> None:
        """Encode and write the units of a box; what is nothing but the fill value is left out.

        Args:
            box: whole units, but for the end of the array.
            data: of its shape and the array's type.

        Raises:
            OSError: no space, or no permission.
        """
        for index in product(*covering(self.unit, box)):
            if self.index is None:
                encoded = self._encoded(self._box(index, self.chunk), box, data)
                if encoded is not None:
                    with self._output(index) as file:
                        file.write(encoded)
            else:
                self._write_shard(index, self.index, box, data)

    def _box(self, index: Sequence[int], shape: Sequence[int]) -> list[slice]:
        """The pixels of a unit or chunk; they may reach beyond the array."""
        return [slice(i * n, (i + 1) * n) for i, n in zip(index, shape, strict=True)]

    def _chunks(self, index: Sequence[int]) -> list[list[slice]]:
        """The boxes of the chunks of a unit in C order, also of those beyond the array."""
        counts = [u // c for u, c in zip(self.unit, self.chunk, strict=True)]
        along = zip(index, counts, strict=True)
        first = [i * n for i, n in along]
        return [
            self._box([f + j for f, j in zip(first, inner, strict=True)], self.chunk)
            for inner in np.ndindex(*counts)
        ]

    def _pieces(
        self, index: Sequence[int], file: FileIO
    ) -> Iterator[tuple[list[slice], int, int | None]]:
        """The chunks in a file: box, first byte, and length; None for one that is not there."""
        if self.index is None:
            yield self._box(index, self.chunk), 0, os.fstat(file.fileno()).st_size
            return
        chunks = self._chunks(index)
        places = self.index.decode(file, len(chunks))
        for place, (start, length) in zip(chunks, places, strict=True):
            absent = start == _ABSENT and length == _ABSENT
            yield place, int(start), None if absent else int(length)

    def _decode_part(self, piece: memoryview, place: Box, part: Box, out: NDArray[Any]) -> None:
        if out.shape == self.chunk and out.flags.c_contiguous:
            self._decode(piece, out)
        else:
            whole = allocation.empty(self.chunk, self.dtype)
            self._decode(piece, whole)
            out[...] = whole[_within(part, place)]

    def _decode(self, piece: memoryview, out: NDArray[Any]) -> None:
        if isinstance(self.codec, Blosc):
            if _blosc_sizes(piece) != (out.nbytes, len(piece)):
                raise ValueError("the chunk is cut off, or its header is damaged")
            self.codec.decode(piece, out)
        elif isinstance(self.codec, Zstd) and _zstd_size(piece) == out.nbytes:
            self.codec.decode(piece, out)
        else:
            content = piece if self.codec is None else self.codec.decode(piece)
            if len(content) != out.nbytes:
                raise ValueError(f"the chunk holds {len(content)} bytes instead of {out.nbytes}")
            out.reshape(-1).view(np.uint8)[:] = np.frombuffer(content, np.uint8)

    def _encoded(self, place: Box, box: Box, data: NDArray[Any]) -> Any:
        """The bytes of a chunk; None for one of nothing but the fill value."""
        part = _overlap(_overlap(place, box), [slice(0, n) for n in self.shape])
        pixels = data[_within(part, box)]
        if is_all(pixels, self.fill):
            return None
        if pixels.shape != self.chunk or not pixels.flags.c_contiguous:
            whole = allocation.empty(self.chunk, self.dtype)
            if pixels.shape != self.chunk:
                whole[...] = self.fill
            whole[_within(part, place)] = pixels
            pixels = whole
        flat = pixels.reshape(-1)
        return flat.view(np.uint8).data if self.codec is None else self.codec.encode(flat)

    def _write_shard(
        self, index: tuple[int, ...], table: ShardIndex, box: Box, data: NDArray[Any]
    ) -> None:
        chunks = self._chunks(index)
        places = np.full((len(chunks), 2), _ABSENT)
        length = table.length(len(chunks))
        with ExitStack() as stack:
            file = None
            for number, place in enumerate(chunks):
                if any(s.start >= n for s, n in zip(place, self.shape, strict=True)):
                    continue
                encoded = self._encoded(place, box, data)
                if encoded is None:
                    continue
                if file is None:
                    file = stack.enter_context(self._output(index))
                    if not table.at_end:
                        file.write(bytes(length))
                places[number] = file.length, len(encoded)
                file.write(encoded)
            if file is not None and table.at_end:
                file.write(table.encode(places))
        if file is not None and not table.at_end:
            with open(file.path, "r+b") as beginning:
                beginning.write(table.encode(places))

    def _output(self, index: tuple[int, ...]) -> OutputFile:
        large = prod(self.unit) * self.dtype.itemsize >= DIRECT_BYTES
        return OutputFile(self.folder / self.key(index), direct=large)


class OutputFile:
    """A new file, written from its beginning to its end.

    Large ones pass by the page cache: what is written is not read again soon, and filling
    the cache takes as long as the codec. Where the file system cannot do without its
    cache, or zarr's setting `codec_pipeline.direct_io`
    (`ZARR_CODEC_PIPELINE__DIRECT_IO=False`) is false, it is used.

    Args:
        path: of the file; what was there is lost.
        direct: past the page cache where that is possible.

    Attributes:
        path: of the file.
        length: bytes written.
    """

    def __init__(self, path: Path, *, direct: bool) -> None:
        self.path = path
        self.length = 0
        self._stage: NDArray[np.uint8] | None = None
        self._held = 0
        if direct and _DIRECT and zarr.config.get("codec_pipeline.direct_io", True):
            stage = allocation.empty((_STAGE_BYTES,), np.uint8)
            # The system takes whole pages only.
            if stage.ctypes.data % _PAGE == 0:
                self._stage = stage
        self._descriptor = self._opened()

    def write(self, content: Any) -> None:
        """Add bytes."""
        view = memoryview(content)
        self.length += len(view)
        if self._stage is None:
            self._send(view)
            return
        bytes_in = np.frombuffer(view, np.uint8)
        while bytes_in.size:
            taken = min(bytes_in.size, _STAGE_BYTES - self._held)
            self._stage[self._held : self._held + taken] = bytes_in[:taken]
            self._held += taken
            bytes_in = bytes_in[taken:]
            if self._held == _STAGE_BYTES:
                self._send(self._stage.data)
                self._held = 0

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._stage is not None and self._held:
                self._send(self._stage.data[: ceil(self._held / _PAGE) * _PAGE])
                os.ftruncate(self._descriptor, self.length)
        finally:
            os.close(self._descriptor)

    def _opened(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        for _ in range(3):
            try:
                return os.open(
                    self.path, flags | (_DIRECT if self._stage is not None else 0), 0o666
                )
            except FileNotFoundError:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if self._stage is None or error.errno not in _REFUSED:
                    raise
                self._stage = None
        raise FileNotFoundError(errno.ENOENT, "the folder vanishes", str(self.path))

    def _send(self, view: memoryview) -> None:
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                if self._stage is None or error.errno not in _REFUSED:
                    raise
                # Some file systems say only now that they need their cache.
                import fcntl

                flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
                if not flags & _DIRECT:
                    raise
                fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)


@dataclass(frozen=True)
class Encoding:
    """How chunks become bytes, where that is simple.

    Attributes:
        codec: None for plain bytes.
        index: of the shards, None where there are none.
    """

    codec: Blosc | Zstd | None
    index: ShardIndex | None


def simple_encoding(document: Mapping[str, Any]) -> Encoding | None:
    """The encoding that the metadata of an array describe; None for one that zarr has to handle.

    Args:
        document: of zarr 2 or 3, as it lies on the disk.
    """
    if document["zarr_format"] == 2:
        dtype, compressor = np.dtype(document["dtype"]), document["compressor"] or {}
        if document["order"] != "C" or document["filters"] or not _simple_type(dtype):
            return None
        if compressor.get("id") not in (None, "blosc", "zstd"):
            return None
        return Encoding(numcodecs.get_codec(compressor) if compressor else None, None)
    dtype, codecs, index = np.dtype(document["data_type"]), document["codecs"], None
    if codecs[0]["name"] == "sharding_indexed":
        index = _shard_index(codecs)
        if index is None:
            return None
        codecs = codecs[0]["configuration"]["codecs"]
    first, *more = codecs
    endian = (first.get("configuration") or {}).get("endian", sys.byteorder)
    if first["name"] != "bytes" or endian != sys.byteorder or not _simple_type(dtype):
        return None
    if not more:
        return Encoding(None, index)
    name, settings = more[0]["name"], more[0].get("configuration") or {}
    if len(more) > 1 or name not in ("blosc", "zstd"):
        return None
    if name == "zstd":
        return Encoding(Zstd(settings["level"], settings["checksum"]), index)
    if settings["typesize"] != dtype.itemsize:
        return None
    shuffle = _SHUFFLES[settings["shuffle"]]
    blosc = Blosc(settings["cname"], settings["clevel"], shuffle, settings["blocksize"])
    return Encoding(blosc, index)


def chunk_files(array: zarr.Array[Any]) -> ChunkFiles | None:
    """The files of an array, None where they are for zarr to read and write."""
    metadata = array.metadata
    if not isinstance(array.store, LocalStore) or not _simple_type(array.dtype):
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
        codec=encoding.codec,
        index=encoding.index,
    )


def _simple_type(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "uif" and dtype.isnative


def _shard_index(codecs: Sequence[dict[str, Any]]) -> ShardIndex | None:
    settings = codecs[0]["configuration"]
    first, *more = settings["index_codecs"]
    names = [codec["name"] for codec in more]
    little = (first.get("configuration") or {}).get("endian") == "little"
    if len(codecs) > 1 or first["name"] != "bytes" or not little or names not in ([], ["crc32c"]):
        return None
    return ShardIndex(settings.get("index_location", "end") == "end", bool(names))


def _blosc_sizes(piece: memoryview) -> tuple[int, int]:
    """Bytes that a blosc chunk says it holds, decoded and as it is.

    Blosc trusts them, and would read and write beyond the end.
    """
    header = bytes(piece[:_BLOSC_HEADER])
    if len(header) < _BLOSC_HEADER:
        return -1, -1
    return int.from_bytes(header[4:8], "little"), int.from_bytes(header[12:], "little")


def _zstd_size(piece: memoryview) -> int | None:
    """Bytes that a zstd frame says it holds; None where it does not say (RFC 8878, 3.1.1)."""
    header = bytes(piece[:18])
    if len(header) < 18 or header[:4] != _ZSTD_MAGIC:
        return None
    flags = header[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    if not width:
        return None
    size = int.from_bytes(header[start : start + width], "little")
    return size + 256 if width == 2 else size


def is_all(data: NDArray[Any], value: Any) -> bool:
    """Whether every pixel has one value; looks at few where the first ones differ."""
    first = data[(0,) * (data.ndim - 1)]
    if not _equal(first, value):
        return False
    return all(_equal(part, value) for part in data.reshape((-1, *data.shape[-2:])))


def _equal(data: NDArray[Any], value: Any) -> bool:
    if np.isnan(value):
        return bool(np.isnan(data).all())
    return bool((data == value).all())


def _overlap(one: Box, other: Box) -> list[slice]:
    pairs = zip(one, other, strict=True)
    return [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs]


def _within(part: Box, box: Box) -> tuple[slice, ...]:
    pairs = zip(part, box, strict=True)
    return tuple(slice(p.start - b.start, p.stop - b.start) for p, b in pairs)


def _content(file: FileIO, start: int, length: int) -> memoryview:
    """Some bytes of a file, in a buffer that is used again.

    Raises:
        ValueError: they are not all there.
    """
    if start + length > os.fstat(file.fileno()).st_size:
        raise ValueError("the file is cut off")
    view = allocation.empty((length,), np.uint8).data
    file.seek(start)
    done = 0
    while done < length:
        read = file.readinto(view[done:])
        if not read:
            raise ValueError("the file became shorter while it was read")
        done += read
    return view
