"""Arrays: described by their metadata, opened once, read in boxes; what cannot be read is named."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import default_buffer_prototype
from zarr.core.array import AsyncArray, create_codec_pipeline
from zarr.errors import ContainsGroupError, NodeNotFoundError
from zarr.storage import LocalStore, StorePath

from fractal_mesospim_shading.core.blocks import covering, cut
from fractal_mesospim_shading.core.threads import empty_array
from fractal_mesospim_shading.errors import ImageFormatError, ShadingError, SourceReadError
from fractal_mesospim_shading.images.arrays.chunk_files import chunk_files
from fractal_mesospim_shading.images.arrays.codecs import (
    Metadata,
    Pipeline,
    chosen_pipeline,
    configured,
    first_truncated,
    metadata_at,
    timeless,
)
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray, array_problem
from fractal_mesospim_shading.images.arrays.file_states import (
    current_notes,
    file_ranges,
    states,
)
from fractal_mesospim_shading.images.arrays.local_states import Known
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url, reading_errors
from fractal_mesospim_shading.images.storage.stores import (
    Mode,
    open_group,
    open_store,
    refuse_dangling_metadata,
    understood,
)


def describe_array(group: zarr.Group, path: str) -> Metadata:
    """Read the metadata of an array of a group, and try that its codecs are known.

    Raises:
        ImageFormatError: as `open_array`.
    """
    place = group.store_path / path
    metadata = metadata_at(place, group.metadata.zarr_format) or _member(group, path).metadata
    with understood(_address(place)), configured(chosen_pipeline("auto", metadata, place.store)):
        create_codec_pipeline(metadata, store=place.store)
    return metadata


def open_array(
    group: zarr.Group | str,
    path: str,
    storage_options: StorageOptions = None,
    mode: Mode = "r",
    pipeline: Pipeline = "auto",
    *,
    direct: bool = False,
) -> zarr.Array[Any]:
    """Open an array of a group with the fastest pipeline that is right for it.

    Its metadata are read once, and those of the group not at all where an address is given.

    Args:
        group: an open group, or its address.
        path: of the array within the group.
        storage_options: for a remote address.
        mode: used where `group` is an address; an open group has its own.
        pipeline: `auto` chooses by the metadata; `rust` and `python` force one.
        direct: let the Rust pipeline pass by the page cache of the system. Not every file
            system can: an `OSError` on reading or writing says so.

    Raises:
        ImageNotFoundError: there is no such group.
        ImageFormatError: there is no such array in it, or its metadata are not understood.
    """
    if isinstance(group, zarr.Group):
        place, zarr_format = group.store_path / path, group.metadata.zarr_format
    else:
        with understood(group):
            store, inner = open_store(group, storage_options, mode)
        place, zarr_format = StorePath(store, join_url(inner, path).strip("/")), None
    metadata = metadata_at(place, zarr_format)
    if metadata is None:
        if not isinstance(group, zarr.Group):
            group = open_group(group, storage_options, mode)
        place, metadata = group.store_path / path, _member(group, path).metadata
    chosen = chosen_pipeline(pipeline, metadata, place.store)
    with understood(_address(place)), configured(chosen, direct=direct):
        kept = timeless(metadata) if chosen == "python" else metadata
        return zarr.Array(AsyncArray(kept, place))


def _member(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """The array as zarr opens it, or what is wrong with it.

    Raises:
        ImageFormatError: there is no such array, or its metadata are not understood.
    """
    place = group.store_path / path
    if isinstance(group.store, LocalStore):
        refuse_dangling_metadata(f"{group.store.root / group.path / path}")
    where = _address(place)
    with understood(where):
        try:
            with configured("python"):
                member = group[path]
            if isinstance(member, zarr.Array):
                _refuse_transformers(member, where)
                return member
        except (KeyError, FileNotFoundError, NodeNotFoundError, ContainsGroupError) as error:
            raise ImageFormatError(
                array_problem(group, path)
                or f"The array '{where}' is missing, although the metadata of the image list it. "
                "The image is incomplete: copy or write it again."
            ) from error
        except ShadingError:
            raise
        except Exception as error:
            problem = array_problem(group, path)
            if problem is None:
                raise
            raise ImageFormatError(problem) from error
        raise ImageFormatError(
            array_problem(group, path) or f"'{where}' is a group; expected an array of pixels."
        )


def _address(place: StorePath) -> str:
    return str(place).removeprefix("file://")


def _refuse_transformers(array: zarr.Array[Any], where: str) -> None:
    transformers = getattr(array.metadata, "storage_transformers", ())
    if transformers:
        raise ImageFormatError(
            f"The array '{where}' asks for storage transformers ({transformers!r}), which no "
            "reader here knows: its chunks cannot be understood. Copy the image with the program "
            "that wrote it, without them."
        )


def fingerprint(metadata: Metadata) -> str:
    """A short text that changes when the metadata of an array change, attributes aside."""
    content = dict(metadata.to_dict())
    content.pop("attributes", None)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def opened(stored: StoredArray, mode: Mode = "r", *, direct: bool = False) -> zarr.Array[Any]:
    """Open an array once for each process.

    Args:
        stored: the array; its fingerprint is that of the time when the image was opened.
        mode: `r+` to write.
        direct: as in `open_array`.

    Raises:
        ImageFormatError: it is missing, or another array took its place meanwhile.
    """
    key = (stored, mode, direct)
    with _lock:
        array = _arrays.pop(key, None)
        if array is None:
            options = json.loads(stored.storage_options)
            array = open_array(stored.url, stored.path, options, mode, direct=direct)
            if stored.fingerprint and fingerprint(array.metadata) != stored.fingerprint:
                raise ImageFormatError(
                    f"The array '{stored.where}' was replaced by another one since the "
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
        for key in [key for key in _arrays if f"{key[0].url}/".startswith(f"{url}/")]:
            del _arrays[key]


_MOST_OPEN = 1024
_lock = threading.Lock()
_arrays: dict[tuple[StoredArray, Mode, bool], zarr.Array[Any]] = {}


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
            pixels, known = read_pixels(array, box)
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


def read_pixels(array: zarr.Array[Any], box: Box) -> tuple[NDArray[Any], list[Known]]:
    """Read a box as it is, into a buffer that is used again where that is possible.

    Returns:
        The pixels, and the states of the files they come from, taken before these were read.
    """
    files = chunk_files(array) if array.dtype.isnative else None
    if files is not None and files.suits(box):
        pixels = empty_array([part.stop - part.start for part in box], array.dtype)
        return pixels, files.read(box, pixels)
    known: list[Known] = []
    if isinstance(array.store, LocalStore) or current_notes() is not None:
        # zarr takes every name that it cannot open for a chunk that is not there.
        known = states(array, file_ranges(array, box))
    if not array.dtype.isnative:
        return np.asarray(array[box]), known
    pixels = empty_array([part.stop - part.start for part in box], array.dtype)
    kind = default_buffer_prototype().nd_buffer
    array.get_basic_selection(tuple(box), out=kind.from_ndarray_like(pixels))
    return pixels, known


def _named(array: zarr.Array[Any], where: str, box: Box, error: Exception) -> SourceReadError:
    for key, part in stored_units(array, box):
        try:
            read_pixels(array, part)
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


def chunk_boxes(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[Box]:
    """The chunks of an array as boxes, one slice an axis, in the order of the array."""
    whole = tuple(slice(0, extent) for extent in shape)
    yield from cut(whole, [max(size, 1) for size in chunks])
