"""What a folder is to zarr, and an array written anew in the other version, chunk by chunk."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import zarr

from fractal_mesospim_shading.core.threads import warnings_ignored
from fractal_mesospim_shading.errors import ShadingError
from fractal_mesospim_shading.images.arrays.documents import (
    Document,
    document_of,
    output_document,
    write_array_document,
    write_attributes,
)
from fractal_mesospim_shading.images.arrays.reading import open_array
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.folders import Folder
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.images.storage.stores import open_group

_DIMENSIONS = "_ARRAY_DIMENSIONS"
"""Attribute in which arrays of zarr v2 keep the names of their axes, by custom of xarray."""


@dataclass(frozen=True)
class Node:
    """What the metadata file in a folder makes of it.

    Attributes:
        zarr_format: 2 or 3.
        kind: group or array.
        document: what the file says; nothing of a group of zarr v2.
        folder: that it lies in.
    """

    zarr_format: int
    kind: Literal["array", "group"]
    document: Mapping[str, Any]
    folder: Folder = field(repr=False, compare=False)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Of the group or array, read when they are first asked for."""
        if self.zarr_format == 2:
            return _content(self.folder, ".zattrs") or {}
        return dict(self.document.get("attributes") or {})

    @property
    def chunk_names(self) -> tuple[bool, str]:
        """Whether an array's chunks lie in folders, and what these or those are called."""
        if self.zarr_format == 2:
            default, separator = False, self.document.get("dimension_separator") or "."
        else:
            encoding = self.document.get("chunk_key_encoding") or {}
            default = encoding.get("name") == "default"
            usual = "/" if default else "."
            separator = (encoding.get("configuration") or {}).get("separator", usual)
        if separator == "/" and (default or len(self.document.get("shape", ())) > 1):
            return True, "c" if default else r"\d+"
        return False, r"c(\.\d+)*" if default else r"\d+(\.\d+)*"


def node_of(folder: Folder) -> Node | None:
    """The zarr group or array that a folder is; None for a plain folder."""
    document = _content(folder, "zarr.json")
    if document is not None and document.get("node_type") in ("array", "group"):
        return Node(3, document["node_type"], document, folder)
    document = _content(folder, ".zarray")
    if document is not None:
        return Node(2, "array", document, folder)
    return Node(2, "group", {}, folder) if folder.holds(".zgroup") else None


def _content(folder: Folder, name: str) -> dict[str, Any] | None:
    if not folder.holds(name):
        return None
    try:
        with folder.open(name) as file:
            content = json.loads(file.read())
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def why_not_convertible(
    url: str,
    path: str,
    node: Node,
    zarr_format: int,
    axes: tuple[str, ...] | None,
    options: StorageOptions,
) -> str | None:
    """Why an array cannot be written in the other version; None where it can.

    It is tried with the array's metadata alone, without pixels.

    Args:
        url: of the image it lies in.
        path: of the array within it.
        node: its metadata.
        zarr_format: of the result.
        axes: names of its axes, if they are known.
        options: of a remote source.
    """
    trial = f"memory://{uuid.uuid4().hex}"
    try:
        write_attributes(trial, zarr_format, {})
        create_converted(source_array(url, path, node, options), trial, "array", axes)
    except (ShadingError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        return f"zarr v{zarr_format} cannot take it over: {_first_line(error)}"
    finally:
        places.remove(trial)
    return None


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()
    return (text[0] if text else type(error).__name__).rstrip(".")


def source_array(url: str, path: str, node: Node, options: StorageOptions) -> zarr.Array[Any]:
    """The array to be converted.

    Old writers of tables left empty arrays of objects without saying how objects are
    encoded. zarr opens none of these, but there is nothing in them to decode: they count as
    empty arrays of text.

    Raises:
        ImageFormatError: its metadata are not understood.
    """
    shape = node.document.get("shape") or ()
    objects = node.zarr_format == 2 and node.document.get("dtype") == "|O"
    if objects and 0 in shape and not node.document.get("filters"):
        return zarr.create_array(
            {},
            shape=tuple(shape),
            chunks=tuple(max(n, 1) for n in shape),
            dtype=str,
            zarr_format=2,
            attributes=node.attributes,
        )
    return open_array(url, path, options)


def create_converted(
    source: zarr.Array[Any],
    url: str,
    path: str,
    axes: tuple[str, ...] | None,
    options: StorageOptions = None,
) -> zarr.Array[Any]:
    """Create the array that takes over another one of the other zarr version.

    Chunks stay; a sharded array is written in its inner chunks. Numbers keep their codec
    where the other version has it.

    Args:
        source: the array.
        url: of the group, in its own version, that it goes into.
        path: within that group.
        axes: names of its axes, if they are known.
        options: of a remote target.

    Returns:
        The new array, open for writing.

    Raises:
        ImageFormatError, ValueError, TypeError, KeyError: the other version cannot hold it.
    """
    group = open_group(url, options, mode="r+")
    zarr_format = group.metadata.zarr_format
    names, attributes = _axes_and_attributes(source, zarr_format, axes)
    chunks = tuple(max(size, 1) for size in source.chunks)
    if source.dtype.kind in "biuf":
        document = output_document(
            document_of(source.metadata),
            zarr_format=zarr_format,
            shape=source.shape,
            chunks=chunks,
            shards=None,
            dimension_names=names,
        )
        document["attributes"] = attributes
        document["fill_value"] = _json_number(_fill_value(source))
        write_array_document(places.join_url(url, path), document, options)
    else:
        text = source.dtype.kind in "UT" or (source.dtype.kind == "O" and not _holds_bytes(source))
        settings: dict[str, Any] = {
            "shape": source.shape,
            "chunks": chunks or "auto",
            "dtype": str if text else _type_of(source),
            "fill_value": "" if text else source.fill_value,
            "attributes": attributes,
            "chunk_key_encoding": {
                "name": "v2" if zarr_format == 2 else "default",
                "separator": "/",
            },
            "overwrite": True,
        }
        if zarr_format == 3 and names is not None:
            settings["dimension_names"] = names
        # zarr comments on types that are simply those of the source.
        with warnings_ignored:
            group.create_array(path, **settings)
    return open_array(url, path, options, mode="r+")


def _axes_and_attributes(
    source: zarr.Array[Any], zarr_format: int, axes: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, Document]:
    """Names of the axes as each version keeps them: beside the shape, or as an attribute."""
    attributes: Document = dict(source.attrs)
    if zarr_format == 3:
        custom = attributes.pop(_DIMENSIONS, None)
        named = axes or (tuple(custom) if isinstance(custom, list) else None)
        return (named if named is not None and len(named) == source.ndim else None), attributes
    own = getattr(source.metadata, "dimension_names", None)
    if axes is None and own and all(isinstance(name, str) for name in own):
        attributes.setdefault(_DIMENSIONS, list(own))
    return None, attributes


def _type_of(source: zarr.Array[Any]) -> Any:
    """The type of what are neither numbers nor texts, in zarr's own terms."""
    metadata: Any = source.metadata
    return metadata.dtype if metadata.zarr_format == 2 else metadata.data_type


def _holds_bytes(source: zarr.Array[Any]) -> bool:
    return "Bytes" in type(_type_of(source)).__name__


def _fill_value(source: zarr.Array[Any]) -> Any:
    return source.dtype.type(0) if source.fill_value is None else source.fill_value


def _json_number(value: Any) -> Any:
    """A fill value in the form in which both versions of zarr write it."""
    plain = np.asarray(value).item()
    if isinstance(plain, float) and not math.isfinite(plain):
        return "NaN" if math.isnan(plain) else ("Infinity" if plain > 0 else "-Infinity")
    return plain
