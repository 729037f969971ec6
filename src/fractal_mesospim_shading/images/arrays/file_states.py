"""The state of the files that hold chunks: whether they are there, how large, which version.

What was read or written can be looked at again later: a file of the same size and time (on
object stores: with the same ETag) is taken for the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ZipStore

from fractal_mesospim_shading.core.blocks import covering
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.arrays.local_states import FileState, Known, LocalLook

Index = tuple[int, ...]
Ranges = Sequence[Sequence[int]]
"""(first, stop) of the indices of files along each axis."""

_AT_ONCE = 32
"""Requests to an object store at a time."""

_VERSIONS = ("ETag", "etag", "generation", "LastModified", "last_modified", "created", "mtime")
"""Under what names file systems of fsspec tell versions of a file apart."""

_LISTABLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}
"""File systems that list the files below a prefix in few requests."""


def file_ranges(array: zarr.Array[Any], box: Box) -> list[tuple[int, int]]:
    """Which files of an array (chunks, or shards) a box touches, along each axis."""
    along = covering(array.shards or array.chunks, box)
    return [(part.start, part.stop) for part in along]


def file_counts(array: zarr.Array[Any]) -> tuple[int, ...]:
    """How many files an array has at most along each axis."""
    unit = array.shards or array.chunks
    return tuple(ceil(n / u) for n, u in zip(array.shape, unit, strict=True))


def states(array: zarr.Array[Any], ranges: Ranges) -> list[Known]:
    """The files of some ranges, in the order of the array.

    Raises:
        OSError: a name is there that leads to no file, such as a dangling link; the folder
            of the array is gone; or the storage cannot be reached.
    """
    store = array.store
    if isinstance(store, LocalStore):
        look = LocalLook(f"{store.root}/{array.path}".rstrip("/"))
        start, separator = _key_form(array)
        names = [[str(index) for index in range(*part)] for part in ranges]
        if separator == "/":
            return list(look.states(names, start))
        return [look.state(start + separator.join(parts)) for parts in product(*names)]
    if isinstance(store, FsspecStore):
        encode = array.metadata.encode_chunk_key
        keys = (encode(index) for index in product(*(range(*part) for part in ranges)))
        prefix = "/".join(part for part in (store.path.rstrip("/"), array.path) if part)
        return sync(_remote_states(store.fs, [f"{prefix}/{key}" for key in keys]))
    number = prod(stop - first for first, stop in ranges)
    if isinstance(store, ZipStore):
        # An archive changes as a whole.
        folder, name = os.path.split(store.path)
        return [LocalLook(folder).state(name)] * number
    return [FileState(0, "")] * number


async def _remote_states(fs: Any, paths: Sequence[str]) -> list[Known]:
    fs.invalidate_cache()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def state(path: str) -> Known:
        async with gate:
            try:
                return _remote_state(await fs._info(path))
            except FileNotFoundError:
                return None
            except (PermissionError, NotImplementedError):
                # Some stores give files and tell nothing about them.
                return FileState(-1, "")

    return list(await asyncio.gather(*map(state, paths)))


def _remote_state(info: Mapping[str, Any]) -> Known:
    if info.get("type") == "directory":
        return None
    # An ETag says all; a time may be told in two ways, by the file and by its folder.
    version = next((f"{info[name]}" for name in _VERSIONS if info.get(name)), "")
    return FileState(int(info.get("size") or 0), version)


def digest_of(known: Iterable[Known]) -> str:
    """One text for the sizes and versions of files, in their order."""
    return _digest("-" if state is None else f"{state.size},{state.version}" for state in known)


def digest_of_sizes(known: Iterable[Known]) -> str:
    """One text for the sizes of files alone."""
    return _digest("-" if state is None else str(state.size) for state in known)


def _digest(texts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


def listed(array: zarr.Array[Any]) -> NDArray[np.bool_] | None:
    """Which files an array has, by listing its folders; None where that cannot be told cheaply.

    Returns:
        bool, one for each file that it may have (see `file_counts`).

    Raises:
        OSError: a folder cannot be listed.
    """
    keys = _keys(array)
    if keys is None:
        return None
    present = np.zeros(file_counts(array), np.bool_)
    index_of = _key_reader(array)
    for key in keys:
        index = index_of(key)
        if index is not None:
            present[index] = True
    return present


def _keys(array: zarr.Array[Any]) -> Iterable[str] | None:
    """What lies below an array, as paths relative to it."""
    store = array.store
    if isinstance(store, LocalStore):
        return _local_keys(f"{store.root}/{array.path}".rstrip("/"), "")
    if not isinstance(store, FsspecStore):
        return None
    fs: Any = store.fs
    kinds = (kind.protocol for kind in (fs, getattr(fs, "sync_fs", None) or fs))
    protocols = {name for kind in kinds for name in ([kind] if isinstance(kind, str) else kind)}
    if not protocols & _LISTABLE:
        return None
    prefix = "/".join(part for part in (store.path.rstrip("/"), array.path) if part)
    fs.invalidate_cache()
    try:
        paths = sync(fs._find(prefix))
    except (PermissionError, NotImplementedError):
        return None
    below = prefix.lstrip("/")
    return [path.lstrip("/")[len(below) + 1 :] for path in paths]


def _local_keys(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.name != "c" and not entry.name.isdecimal():
                if "." in entry.name:
                    yield name
            elif entry.is_dir():
                yield from _local_keys(entry.path, f"{name}/")
            else:
                yield name


def _key_reader(array: zarr.Array[Any]) -> Callable[[str], Index | None]:
    """The index of a file from its key; None for a name that is no key of the array."""
    counts = file_counts(array)
    first, separator = _key_form(array)

    def index_of(key: str) -> Index | None:
        if not key.startswith(first):
            return None
        parts = key[len(first) :].split(separator)
        if len(parts) != len(counts) or not all(part.isdecimal() for part in parts):
            return None
        index = tuple(map(int, parts))
        inside = all(i < n for i, n in zip(index, counts, strict=True))
        return index if inside else None

    return index_of


def _key_form(array: zarr.Array[Any]) -> tuple[str, str]:
    """What the keys of files begin with, and what stands between their indices."""
    zero = array.metadata.encode_chunk_key((0,) * len(array.shape))
    separator = "/" if "/" in zero else "."
    return (f"c{separator}" if zero.startswith("c") else "", separator)


class ReadNotes:
    """What the files were that somebody has read."""

    def __init__(self) -> None:
        self._files: dict[str, dict[Index, Known]] = {}
        self._others: list[tuple[str, Index, Known]] = []

    def add(self, where: str, ranges: Ranges, known: Sequence[Known]) -> None:
        """Note files of an array.

        Args:
            where: address of the array.
            ranges: of its files.
            known: their states, in the order of the array.
        """
        indices = product(*(range(*part) for part in ranges))
        self._add(where, zip(indices, known, strict=True))

    def include(self, others: ReadNotes) -> None:
        """Note what somebody else has read."""
        for where, files in others._files.items():
            self._add(where, files.items())
        self._others += others._others

    def _add(self, where: str, found: Iterable[tuple[Index, Known]]) -> None:
        files = self._files.setdefault(where, {})
        for index, state in found:
            if files.setdefault(index, state) != state:
                self._others.append((where, index, state))

    def records(self) -> list[list[Any]]:
        """Each as `[address of the array, ranges, how many files were there, digest]`.

        Files that fill a box are one record. A file that was found in two states has two.
        """
        records: list[list[Any]] = []
        for where, files in self._files.items():
            for box in boxes_of(files):
                known = [files[index] for index in product(*(range(*part) for part in box))]
                records.append([where, [list(part) for part in box], _present(known)])
                records[-1].append(digest_of(known))
        for where, index, state in self._others:
            alone = [[i, i + 1] for i in index]
            records.append([where, alone, _present([state]), digest_of([state])])
        return records


def boxes_of(indices: Iterable[Index]) -> list[tuple[tuple[int, int], ...]]:
    """Few boxes that hold some indices, each once, and no others; no index may come twice."""
    every = list(indices)
    around = tuple((min(along), max(along) + 1) for along in zip(*every, strict=True))
    if every and prod(stop - first for first, stop in around) == len(every):
        return [around]  # all of a box, as nearly always
    boxes = [tuple((i, i + 1) for i in index) for index in every]
    for axis in range(len(boxes[0]) - 1 if boxes else -1, -1, -1):
        merged: list[tuple[tuple[int, int], ...]] = []
        for box in sorted(boxes, key=lambda box: (box[:axis], box[axis + 1 :], box[axis])):
            last = merged[-1] if merged else box
            others = last[:axis] + last[axis + 1 :] == box[:axis] + box[axis + 1 :]
            if others and last[axis][1] == box[axis][0]:
                whole = (last[axis][0], box[axis][1])
                merged[-1] = (*last[:axis], whole, *last[axis + 1 :])
            else:
                merged.append(box)
        boxes = merged
    return sorted(boxes)


def _present(known: Iterable[Known]) -> int:
    return sum(state is not None for state in known)


_notes: ContextVar[ReadNotes | None] = ContextVar("read_notes", default=None)


@contextmanager
def noted_reads() -> Iterator[ReadNotes]:
    """Note what is read in this context.

    Threads started meanwhile have contexts of their own: run them in a copy of this one
    (`contextvars.copy_context`).
    """
    notes = ReadNotes()
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def current_notes() -> ReadNotes | None:
    """Where reads of this context are noted, if they are."""
    return _notes.get()
