"""Read boxes of arrays; when that fails, name the chunk that cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from fractal_mesospim_shading.core import memory
from fractal_mesospim_shading.core.blocks import covering, cut
from fractal_mesospim_shading.errors import ImageFormatError, SourceReadError
from fractal_mesospim_shading.images.arrays.array_metadata import Metadata
from fractal_mesospim_shading.images.arrays.chunk_files import chunk_files
from fractal_mesospim_shading.images.arrays.codecs import first_truncated, open_array
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.arrays.file_states import (
    Known,
    current_notes,
    file_ranges,
    states,
)
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import join_url, reading_errors
from fractal_mesospim_shading.images.storage.stores import Mode

_SAMPLED_FILES = 512
"""Chunk files of an array that its state, and the size of a result, are told from."""


def fingerprint(metadata: Metadata) -> str:
    """A short text that changes when the metadata of an array change, attributes aside."""
    content = dict(metadata.to_dict())
    content.pop("attributes", None)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def opened(stored: StoredArray) -> zarr.Array[Any]:
    """The zarr array, opened once for each process.

    Raises:
        ImageFormatError: it is missing, or another array took its place meanwhile.
    """
    return opened_array(stored.url, stored.path, stored.storage_options, stored.fingerprint)


def opened_array(
    url: str,
    path: str,
    storage_options: str,
    expected: str,
    mode: Mode = "r",
    *,
    direct: bool = False,
) -> zarr.Array[Any]:
    """Open an array once for each process.

    Args:
        url: of its group.
        path: within the group.
        storage_options: as JSON.
        expected: its fingerprint when the image was opened; empty to skip the check.
        mode: `r+` to write.
        direct: as in `codecs.open_array`.

    Raises:
        ImageFormatError: it is missing, or another array took its place meanwhile.
    """
    key = (url, path, storage_options, expected, mode, direct)
    with _lock:
        array = _arrays.pop(key, None)
        if array is None:
            options = json.loads(storage_options)
            array = open_array(url, path, options, mode, direct=direct)
            if expected and fingerprint(array.metadata) != expected:
                raise ImageFormatError(
                    f"The array '{join_url(url, path)}' was replaced by another one since the "
                    "image was opened. Open the image again."
                )
        # The one that was used last is the last to go.
        _arrays[key] = array
        if len(_arrays) > _MOST_OPEN:
            del _arrays[next(iter(_arrays))]
    return array


def forget(url: str) -> None:
    """Drop the arrays opened below an address, which is about to be renamed or removed."""
    with _lock:
        for key in [key for key in _arrays if key[0] == url or key[0].startswith(url + "/")]:
            del _arrays[key]


_MOST_OPEN = 1024
_lock = threading.Lock()
_arrays: dict[tuple[str, str, str, str, Mode, bool], zarr.Array[Any]] = {}


def read_array(array: zarr.Array[Any], where: str, box: Box) -> NDArray[Any]:
    """Read a box of an array.

    Args:
        array: to read from.
        where: its address, for the message.
        box: one slice with start and stop for each axis.

    Raises:
        SourceReadError: a chunk is there but cannot be read; the message names it.
    """
    try:
        truncated = first_truncated(array, (key for key, _ in stored_units(array, box)))
        if truncated is None:
            pixels, known = _read_pixels(array, box)
    except reading_errors() as error:
        raise _named(array, where, box, error) from error
    if truncated is not None:
        raise SourceReadError(
            f"The chunk '{join_url(where, truncated)}' cannot be read: the file is cut off. Copy "
            "it again from the original."
        )
    notes = current_notes()
    if notes is not None:
        notes.add(where, file_ranges(array, box), known)
    return pixels


def _read_pixels(array: zarr.Array[Any], box: Box) -> tuple[NDArray[Any], list[Known]]:
    """Read a box as it is, into a buffer that is used again where that is possible.

    Returns:
        The pixels, and the states of the files they come from, taken before these were read.
    """
    files = chunk_files(array) if array.dtype.isnative else None
    if files is not None and files.suits(box):
        pixels = memory.empty([part.stop - part.start for part in box], array.dtype)
        return pixels, files.read(box, pixels)
    known: list[Known] = []
    if isinstance(array.store, LocalStore) or current_notes() is not None:
        # zarr takes every name that it cannot open for a chunk that is not there.
        known = states(array, file_ranges(array, box))
    if not array.dtype.isnative:
        return np.asarray(array[box]), known
    pixels = memory.empty([part.stop - part.start for part in box], array.dtype)
    kind = default_buffer_prototype().nd_buffer
    array.get_basic_selection(tuple(box), out=kind.from_ndarray_like(pixels))
    return pixels, known


def _named(array: zarr.Array[Any], where: str, box: Box, error: Exception) -> SourceReadError:
    for key, part in stored_units(array, box):
        try:
            _read_pixels(array, part)
        except reading_errors() as failure:
            return SourceReadError(
                f"The chunk '{join_url(where, key)}' cannot be read "
                f"({type(failure).__name__}: {failure}). The file is damaged or not readable; "
                "copy it again from the original."
            )
    return SourceReadError(
        f"'{where}' could not be read ({type(error).__name__}: {error}), but a second reading "
        "succeeded: the storage was not reachable for a moment. Run it again."
    )


def stored_units(array: zarr.Array[Any], box: Box) -> Iterator[tuple[str, Box]]:
    """The files (chunks, or shards) that a box touches: key, and the part of the box in it."""
    unit = array.shards or array.chunks
    for index, part in zip(product(*covering(unit, box)), cut(box, unit), strict=True):
        yield array.metadata.encode_chunk_key(index), part


def chunk_boxes(array: zarr.Array[Any]) -> Iterator[Box]:
    """The chunks of an array as boxes, one slice an axis, in the order of the array."""
    ranges = [
        [slice(start, min(start + size, extent)) for start in range(0, extent, max(size, 1))]
        for extent, size in zip(array.shape, array.chunks, strict=True)
    ]
    yield from product(*ranges)


def files_state(stored: StoredArray) -> bytes:
    """Size and time of some chunk files of an array, for a fingerprint; empty where remote."""
    return b"".join(
        b"absent" if state is None else f"{state.st_size},{state.st_mtime_ns}".encode()
        for state in _some_files(stored)
    )


def stored_share(stored: StoredArray) -> float:
    """Bytes of the chunk files of an array over those of their pixels, from some; 1 at most."""
    array = opened(stored)
    sizes = [state.st_size if state else 0 for state in _some_files(stored)]
    unit = prod(array.shards or array.chunks) * array.dtype.itemsize
    return min(1.0, float(np.mean(sizes)) / unit) if sizes else 1.0


def _some_files(stored: StoredArray) -> Iterator[os.stat_result | None]:
    """What the file system says of some chunk files, evenly spread; None for one not there."""
    if not places.is_local(stored.url) or not os.path.isdir(places.local_path(stored.url)):
        return
    array, folder = opened(stored), places.local_path(stored.url) / stored.path
    unit = array.shards or array.chunks
    counts = [ceil(n / u) for n, u in zip(array.shape, unit, strict=True)]
    total = prod(counts)
    for flat in range(0, total, max(1, total // _SAMPLED_FILES)):
        index = tuple(int(i) for i in np.unravel_index(flat, counts))
        try:
            yield os.stat(folder / array.metadata.encode_chunk_key(index))
        except OSError:
            yield None
