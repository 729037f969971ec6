"""The image being written: its arrays, whether their codecs can write, one writer for each unit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.array import parse_array_metadata
from zarr.core.buffer import cpu
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from fractal_mesospim_shading.core.blocks import cut, within
from fractal_mesospim_shading.errors import ImageFormatError, OutputWriteError
from fractal_mesospim_shading.images.arrays.chunk_files import chunk_files, is_all
from fractal_mesospim_shading.images.arrays.documents import (
    Box,
    Document,
    StoredArray,
    fill_value,
    native_dtype,
    write_array_document,
    write_attributes,
)
from fractal_mesospim_shading.images.arrays.encodings import simple_encoding
from fractal_mesospim_shading.images.arrays.file_states import digest_of_sizes, file_ranges, states
from fractal_mesospim_shading.images.arrays.output_file import past_cache
from fractal_mesospim_shading.images.arrays.reading import (
    fingerprint,
    opened,
    read_pixels,
    stored_units,
)
from fractal_mesospim_shading.images.source import Level
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import StorageOptions, reading_errors
from fractal_mesospim_shading.images.storage.stores import reason

SHARD_BYTES = 128 * 2**20
"""Most bytes of pixels in a shard of our own: two blocks and their means stay within 1.5 GB."""


@dataclass(frozen=True)
class TargetLevel(Level):
    """One array of the result.

    Attributes:
        document: the metadata of the array.
    """

    document: Document

    @property
    def unit(self) -> tuple[int, ...]:
        """Shape of the piece that one writer owns: the shard, else the chunk."""
        return self.shards or self.chunks

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels in native byte order."""
        return native_dtype(self.document)

    @cached_property
    def direct(self) -> bool:
        """Whether zarr should write it past the page cache; `chunk_files` sees to that itself."""
        size = prod(self.unit) * self.dtype.itemsize
        return simple_encoding(self.document) is None and past_cache(size)

    @cached_property
    def fingerprint(self) -> str:
        """Tells arrays of different metadata apart."""
        return fingerprint(parse_array_metadata(self.document))


@dataclass(frozen=True)
class TargetImage:
    """The group being written.

    Attributes:
        url: where it is written; not yet where people find it.
        zarr_format: 2 or 3.
        levels: the pyramid, finest first.
        storage_options: for a remote address.
    """

    url: str
    zarr_format: int
    levels: tuple[TargetLevel, ...]
    storage_options: StorageOptions = None

    def create(self, attributes: Document) -> None:
        """Write all metadata, no pixel yet.

        Raises:
            OutputWriteError: no permission or no space.
        """
        try:
            write_attributes(self.url, self.zarr_format, attributes, self.storage_options)
            for level in self.levels:
                write_array_document(
                    places.join_url(self.url, level.path), level.document, self.storage_options
                )
        except OSError as error:
            raise OutputWriteError(
                f"The result cannot be written to {self.url}: {error}"
            ) from error

    def array(self, level: int, *, direct: bool | None = None) -> zarr.Array[Any]:
        """The zarr array of a level, opened once in each process.

        Args:
            level: of the pyramid.
            direct: past the page cache, which not every file system can; None: as it is written.
        """
        target = self.levels[level]
        options = json.dumps(dict(self.storage_options or {}), sort_keys=True)
        # Workers of a cluster outlive jobs: another array may once have been at this place.
        stored = StoredArray(self.url, target.path, options, target.fingerprint)
        return opened(stored, "r+", direct=target.direct if direct is None else direct)

    def write(self, level: int, box: Box, data: NDArray[Any]) -> str:
        """Write a box that covers whole units; units of nothing but the fill value stay unwritten.

        Returns:
            What `on_disk` says of it.

        Raises:
            OutputWriteError: the disk is full, or something else of that kind.
            RuntimeError: the box is not of whole units.
        """
        refuse_parts_of_units(self.levels[level], box)
        array = self.array(level)
        files = chunk_files(array)
        try:
            if files is not None:
                files.write(box, data)
            else:
                self._write_with_zarr(level, box, data)
            return self.on_disk(level, box)
        except reading_errors() as error:
            raise OutputWriteError(
                f"Level {self.levels[level].path} of {self.url} cannot be written at "
                f"{[(s.start, s.stop) for s in box]}: {error}. What was finished is kept: make "
                "room or restore access, and run the same command again."
            ) from error

    def on_disk(self, level: int, box: Box) -> str:
        """A text that tells which units of a box are on the disk, and how large each is.

        Raises:
            OSError: the storage cannot be reached, or the array is gone.
        """
        array = self.array(level)
        return digest_of_sizes(states(array, file_ranges(array, box)))

    def _write_with_zarr(self, level: int, box: Box, data: NDArray[Any]) -> None:
        target, array = self.levels[level], self.array(level)
        empty = np.asarray(fill_value(target.document)).astype(target.dtype)
        boxes = list(cut(box, target.unit))
        full = [unit for unit in boxes if not is_all(data[within(unit, box)], empty)]
        whole = [tuple(box)] if len(full) == len(boxes) else full
        for part in whole:
            try:
                array[part] = data[within(part, box)]
            except reading_errors():
                # Chunks that the end of the array cuts are decoded before they are
                # written; what a killed run left of them may be torn. And there are
                # file systems that cannot write past the page cache.
                self._drop_units(level, part)
                array = self.array(level, direct=False)
                array[part] = data[within(part, box)]

    def _drop_units(self, level: int, box: Box) -> None:
        array, path = self.array(level), self.levels[level].path
        for key, _ in stored_units(array, box):
            places.remove(places.join_url(self.url, path, key), self.storage_options)

    def files(self, level: int, box: Box) -> Iterator[str]:
        """Local files of the units in a box, and their folders; some may not be there."""
        if not places.is_local(self.url):
            return
        folder = places.local_path(self.url) / self.levels[level].path
        paths = [folder / key for key, _ in stored_units(self.array(level), box)]
        folders = {
            above for path in paths for above in path.parents if folder in (above, *above.parents)
        }
        yield from map(str, paths)
        yield from map(str, sorted(folders))

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """Read back what was written, in native byte order."""
        data, _ = read_pixels(self.array(level, direct=False), box)
        return data.astype(data.dtype.newbyteorder("="), copy=False)


def refuse_parts_of_units(level: TargetLevel, box: Box) -> None:
    """Refuse a box that is not of whole write units: two writers would share the unit at its edge.

    Raises:
        RuntimeError: names the box; it is a mistake of the program.
    """
    for part, unit, size in zip(box, level.unit, level.shape, strict=True):
        if part.start % unit or (part.stop % unit and part.stop != size):
            raise RuntimeError(
                f"the box {[(s.start, s.stop) for s in box]} of level {level.path} is not of whole "
                f"write units of {level.unit}; please report this"
            )


def own_shards(
    chunks: Sequence[int], shape: Sequence[int], itemsize: int, most: int = SHARD_BYTES
) -> tuple[int, ...]:
    """The largest shard within a number of bytes that doubles the chunk along y, x, then z."""
    shards = list(chunks)
    spatial = list(range(len(shape) - 1, max(-1, len(shape) - 4), -1))

    def can_double(axis: int) -> bool:
        return shards[axis] < shape[axis] and prod(shards) * 2 * itemsize <= most

    while True:
        plane = [axis for axis in spatial[:2] if can_double(axis)]
        depth = [axis for axis in spatial[2:] if can_double(axis)]
        if not (plane or depth):
            return tuple(shards)
        axis = min(plane or depth, key=lambda i: shards[i])
        shards[axis] *= 2


def refuse_useless_codecs(targets: Iterable[TargetImage]) -> None:
    """Refuse codecs whose settings no library can follow, before a pixel is read.

    The settings of a result are those of its source, and any number may stand there.

    Raises:
        ImageFormatError: names the array and what the library says.
    """
    tried: set[str] = set()
    for target in targets:
        for level in target.levels:
            document = _single_pixel(level.document)
            text = json.dumps(document, sort_keys=True)
            if text in tried:
                continue
            tried.add(text)
            try:
                _write_and_read(document)
            except Exception as error:
                raise ImageFormatError(
                    f"The compression of the array '{level.path}' of the source cannot be used "
                    f"for a result ({reason(error)}). Write the image again with other settings."
                ) from error


def _single_pixel(document: Document) -> Document:
    """The metadata of an array of one pixel, encoded in the same way."""
    small: Document = json.loads(json.dumps(document))
    ones = [1] * len(small["shape"])
    small["shape"] = ones
    if small["zarr_format"] == 2:
        small["chunks"] = ones
        small.pop("attributes", None)
        return small
    small["chunk_grid"]["configuration"]["chunk_shape"] = ones
    for codec in small["codecs"]:
        if codec["name"] == "sharding_indexed":
            codec["configuration"]["chunk_shape"] = ones
    small["attributes"] = {}
    return small


def _write_and_read(document: Document) -> None:
    name = ".zarray" if document["zarr_format"] == 2 else "zarr.json"
    store = MemoryStore()
    sync(store.set(name, cpu.Buffer.from_bytes(json.dumps(document).encode())))
    array = zarr.open_array(store, mode="r+")
    array[...] = np.ones(array.shape, array.dtype)
    if not np.array_equal(np.asarray(array[...]), np.ones(array.shape)):
        raise ValueError("a pixel is not read as it was written")
    encoding = simple_encoding(document)
    if encoding is not None:
        encoding.encode(np.ones(array.shape, array.dtype))
