"""How chunks become bytes in local files, for the encodings that are simple enough to do here.

These are blosc, zstd or plain bytes, in C order and native byte order, alone or in shards.
Files are read in parts, into buffers; how they are written is in `output_file`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
from numcodecs.blosc import BITSHUFFLE, NOSHUFFLE, SHUFFLE, Blosc
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import empty_array
from fractal_mesospim_shading.images.storage.local_files import open_regular

ABSENT = np.uint64(2**64 - 1)
"""Offset and length, in the index of a shard, of a chunk that is not there."""

BLOSC_HEADER = 16
"""Bytes of the header of a blosc chunk."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SHUFFLES = {"noshuffle": NOSHUFFLE, "shuffle": SHUFFLE, "bitshuffle": BITSHUFFLE}

# Of blosc: those that take no longer than a disk does.
_QUICK = ("lz4", "blosclz", "snappy")


def open_file(path: str) -> FileIO:
    """Open a file to read; what is no file, such as a pipe, does not keep us waiting."""
    return FileIO(path, "rb", opener=open_regular)


def content_of(file: FileIO, start: int, length: int) -> memoryview:
    """Some bytes of a file, in a buffer that is used again.

    Raises:
        ValueError: they are not all there.
    """
    if start + length > os.fstat(file.fileno()).st_size:
        raise ValueError("the file is cut off")
    view = empty_array((length,), np.uint8).data
    read_into(file, start, view)
    return view


def read_into(file: FileIO, start: int, view: memoryview) -> None:
    """Fill a buffer with bytes of a file.

    Raises:
        ValueError: they are not all there.
    """
    file.seek(start)
    done = 0
    while done < len(view):
        read = file.readinto(view[done:])
        if not read:
            raise ValueError("the file is cut off, or became shorter while it was read")
        done += read


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
        content = bytes(content_of(file, size - length if self.at_end else 0, length))
        if self.checked:
            content, checksum = content[:-4], content[-4:]
            if google_crc32c.value(content) != int.from_bytes(checksum, "little"):
                raise ValueError("the checksum of the shard's index is wrong")
        return np.frombuffer(content, "<u8").astype(np.uint64).reshape(chunks, 2)


@dataclass(frozen=True)
class Encoding:
    """How chunks become bytes, where that is simple.

    Attributes:
        codec: None for plain bytes.
        index: of the shards, None where there are none.
    """

    codec: Blosc | Zstd | None
    index: ShardIndex | None

    @property
    def quick(self) -> bool:
        """Whether encoding takes no longer than a disk does."""
        return self.codec is None or (isinstance(self.codec, Blosc) and self.codec.cname in _QUICK)

    def encode(self, pixels: NDArray[Any]) -> Any:
        """The bytes of a chunk.

        Args:
            pixels: all of the chunk, C order.
        """
        flat = pixels.reshape(-1)
        return flat.view(np.uint8).data if self.codec is None else self.codec.encode(flat)

    def decode(self, piece: memoryview, out: NDArray[Any]) -> None:
        """The pixels of a chunk.

        Args:
            piece: its bytes.
            out: for all of its pixels, C order.

        Raises:
            ValueError, RuntimeError: these are not the bytes of such a chunk.
        """
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


def simple_encoding(document: Mapping[str, Any]) -> Encoding | None:
    """The encoding that the metadata of an array describe; None for one that zarr has to handle.

    Args:
        document: of zarr 2 or 3, as it lies on the disk.
    """
    if document["zarr_format"] == 2:
        dtype, compressor = np.dtype(document["dtype"]), document["compressor"] or {}
        if document["order"] != "C" or document["filters"] or not simple_type(dtype):
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
    if first["name"] != "bytes" or endian != sys.byteorder or not simple_type(dtype):
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


def simple_type(dtype: np.dtype[Any]) -> bool:
    """Whether pixels of this type are plain numbers in native byte order."""
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
    header = bytes(piece[:BLOSC_HEADER])
    if len(header) < BLOSC_HEADER:
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
