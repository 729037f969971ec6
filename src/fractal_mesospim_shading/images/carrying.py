"""Carry the tables and labels of an image over to another one.

Between images of the same zarr version every file is copied as it is. Where the version
changes, groups and arrays are written anew with the same content, chunk by chunk, and
files that are no zarr (csv, parquet) are copied.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr

from fractal_mesospim_shading.errors import OutputWriteError, SourceReadError
from fractal_mesospim_shading.images.codecs import open_array
from fractal_mesospim_shading.images.metadata import axis_names, converted_attributes
from fractal_mesospim_shading.images.source import Box
from fractal_mesospim_shading.images.stores import (
    StorageOptions,
    connection_errors,
    filesystem,
    join_url,
    members_of,
    normalise_url,
    open_group,
    reading_errors,
)

PASSENGERS = ("tables", "labels")
_BLOCK_BYTES = 16 * 2**20
_ZARR_FILES = {".zgroup", ".zattrs", ".zarray", ".zmetadata", "zarr.json"}


def copy_tables_and_labels(
    source_url: str | os.PathLike[str],
    target_url: str | os.PathLike[str],
    source_options: StorageOptions = None,
    target_options: StorageOptions = None,
) -> tuple[str, ...]:
    """Copy all tables and labels of an image into another, which must exist as a group.

    Memory stays at 16 MB, or at one chunk of a label image where the zarr version changes.
    Tables and labels of that name which the target already has are replaced.

    Args:
        source_url: image to copy from.
        target_url: image to copy to, of zarr version 2 or 3.
        source_options: for a remote source.
        target_options: for a remote target.

    Returns:
        The groups copied: some of `tables` and `labels`.

    Raises:
        SourceReadError: a file or a chunk of the source cannot be read.
        OutputWriteError: no permission, or no space.
    """
    source = open_group(source_url, source_options)
    target = open_group(target_url, target_options, mode="r+")
    copied = []
    for name in PASSENGERS:
        member = source.get(name)
        if not isinstance(member, zarr.Group):
            continue
        origin = _Place(join_url(normalise_url(source_url), name), source_options)
        destination = _Place(join_url(normalise_url(target_url), name), target_options)
        if source.metadata.zarr_format == target.metadata.zarr_format:
            _copy_tree(origin, destination)
        else:
            _convert_group(member, target, name, origin, destination)
        copied.append(name)
    return tuple(copied)


class _Place:
    """A folder or file: its address, its file system, and the path in that."""

    def __init__(self, url: str, options: StorageOptions) -> None:
        self.url = url
        self.options = options
        self.fs, self.path = filesystem(url, options)

    def below(self, name: str) -> _Place:
        return _Place(join_url(self.url, name), self.options)

    def files(self) -> Iterator[str]:
        """Paths of all files below, relative to it; of itself, where it is a file."""
        root = self.path.rstrip("/")
        for found in sorted(self.fs.find(root)):
            yield str(found)[len(root) :].lstrip("/")

    def names(self) -> list[str]:
        """What lies directly in it."""
        entries = self.fs.ls(self.path, detail=False)
        return sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in entries)


def _copy_tree(origin: _Place, destination: _Place) -> None:
    for name in origin.files():
        _copy_file(origin, destination, name)


def _copy_file(origin: _Place, destination: _Place, name: str) -> None:
    from_path = f"{origin.path.rstrip('/')}/{name}".rstrip("/")
    to_path = f"{destination.path.rstrip('/')}/{name}".rstrip("/")
    try:
        reader = origin.fs.open(from_path, "rb")
    except connection_errors() as error:
        raise _unreadable(join_url(origin.url, name), error) from error
    with reader:
        try:
            destination.fs.makedirs(to_path.rpartition("/")[0], exist_ok=True)
            writer = destination.fs.open(to_path, "wb")
        except connection_errors() as error:
            raise _unwritable(join_url(destination.url, name), error) from error
        try:
            with writer:
                while block := _next_block(reader, join_url(origin.url, name)):
                    writer.write(block)
        except SourceReadError:
            raise
        except connection_errors() as error:
            raise _unwritable(join_url(destination.url, name), error) from error


def _next_block(reader: Any, where: str) -> bytes:
    try:
        return bytes(reader.read(_BLOCK_BYTES))
    except reading_errors() as error:
        raise _unreadable(where, error) from error


def _convert_group(
    source: zarr.Group, parent: zarr.Group, name: str, origin: _Place, destination: _Place
) -> None:
    zarr_format = parent.metadata.zarr_format
    attributes = converted_attributes(dict(source.attrs), zarr_format)
    target = _created(
        destination.url,
        lambda: parent.create_group(name, overwrite=True, attributes=attributes),
    )
    axes = axis_names(attributes, zarr_format)
    members = members_of(source)
    for child, member in members.items():
        if isinstance(member, zarr.Group):
            _convert_group(member, target, child, origin.below(child), destination.below(child))
        else:
            _convert_array(source, target, child, axes.get(child), origin, destination)
    for child in origin.names():
        if child not in members and child not in _ZARR_FILES:
            _copy_tree(origin.below(child), destination.below(child))


def _convert_array(
    source: zarr.Group,
    target: zarr.Group,
    name: str,
    axes: tuple[str, ...] | None,
    origin: _Place,
    destination: _Place,
) -> None:
    array = open_array(source, name)
    text = array.dtype.kind not in "biufc"
    version = target.metadata.zarr_format
    attributes = dict(array.attrs)
    if version == 3:
        attributes.pop("_ARRAY_DIMENSIONS", None)
    settings: dict[str, Any] = {
        "shape": array.shape,
        "chunks": array.chunks or "auto",
        "dtype": str if text else array.dtype.newbyteorder("="),
        "fill_value": _filling(array, text),
        "attributes": attributes,
        "chunk_key_encoding": {"name": "v2" if version == 2 else "default", "separator": "/"},
        "overwrite": True,
    }
    if version == 3 and axes is not None and len(axes) == array.ndim:
        settings["dimension_names"] = axes
    where = join_url(destination.url, name)
    _created(where, lambda: target.create_array(name, **settings))
    written = open_array(target, name)
    for box in _chunk_boxes(array):
        try:
            values = np.asarray(array[box])
        except reading_errors() as error:
            raise _unreadable(join_url(origin.url, name), error) from error
        _created(where, lambda box=box, values=values: written.__setitem__(box, values))


def _created(where: str, action: Any) -> Any:
    try:
        with warnings.catch_warnings():
            # zarr comments on settings that are simply those of the source.
            warnings.simplefilter("ignore")
            return action()
    except connection_errors() as error:
        raise _unwritable(where, error) from error


def _filling(array: zarr.Array[Any], text: bool) -> Any:
    if text:
        return ""
    return array.dtype.type(0) if array.fill_value is None else array.fill_value


def _chunk_boxes(array: zarr.Array[Any]) -> Iterator[Box]:
    ranges = [
        [slice(start, min(start + size, extent)) for start in range(0, extent, size)]
        for extent, size in zip(array.shape, array.chunks, strict=True)
    ]
    yield from itertools.product(*ranges)


def _unreadable(where: str, error: Exception) -> SourceReadError:
    return SourceReadError(
        f"'{where}', which was to be copied, cannot be read ({type(error).__name__}: {error}). "
        "Repair it, or remove that table or label image from the source."
    )


def _unwritable(where: str, error: Exception) -> OutputWriteError:
    return OutputWriteError(
        f"'{where}' cannot be written ({type(error).__name__}: {error}). Check the free space "
        "and the rights, or choose another `output_folder`."
    )
