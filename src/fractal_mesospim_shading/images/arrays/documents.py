"""Metadata documents of groups and arrays: read, written, and those of output arrays.

The documents of output arrays are made as JSON, not through an array constructor, because
only so every setting of the source that we do not know of is kept as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fractal_mesospim_shading.images.storage.folders import Folder
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url, write_bytes

if TYPE_CHECKING:
    import zarr

    from fractal_mesospim_shading.images.arrays.array_metadata import ArrayDescription

Document = dict[str, Any]

Box = tuple[slice, ...]
"""One slice with explicit start and stop for each axis of an array."""


@dataclass(frozen=True)
class StoredArray:
    """An array on disk that pixels come from.

    Attributes:
        url: address of its group.
        path: within the group.
        storage_options: for remote addresses, as JSON; may hold secrets.
        fingerprint: of its metadata.
    """

    url: str
    path: str
    storage_options: str = field(repr=False)
    fingerprint: str

    @property
    def where(self) -> str:
        """Its address."""
        return join_url(self.url, self.path)


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


_BLOSC_SHUFFLE = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}


def document_of(array: zarr.Array[Any] | ArrayDescription) -> Document:
    """The metadata of a zarr array as its JSON document, attributes included."""
    from zarr.core.buffer import default_buffer_prototype

    buffers = array.metadata.to_buffer_dict(default_buffer_prototype())
    if array.metadata.zarr_format == 3:
        document: Document = json.loads(buffers["zarr.json"].to_bytes())
        document.setdefault("attributes", {})
        return document
    document = json.loads(buffers[".zarray"].to_bytes())
    document["attributes"] = json.loads(buffers[".zattrs"].to_bytes())
    return document


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


def write_attributes(
    url: str, zarr_format: int, attributes: Document, options: StorageOptions = None
) -> None:
    """Write the metadata of a group."""
    if zarr_format == 2:
        # The group comes last: there is none without the mark of what is unfinished.
        write_bytes(join_url(url, ".zattrs"), as_json(attributes), options)
        write_bytes(join_url(url, ".zgroup"), as_json({"zarr_format": 2}), options)
    else:
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        write_bytes(join_url(url, "zarr.json"), as_json(group), options)


def write_array_document(url: str, document: Document, options: StorageOptions = None) -> None:
    """Write the metadata of an array."""
    if document["zarr_format"] == 2:
        array = {key: value for key, value in document.items() if key != "attributes"}
        write_bytes(join_url(url, ".zarray"), as_json(array), options)
        write_bytes(join_url(url, ".zattrs"), as_json(document["attributes"]), options)
    else:
        write_bytes(join_url(url, "zarr.json"), as_json(document), options)


def as_json(document: Document) -> bytes:
    """The bytes of a metadata file."""
    return json.dumps(document, indent=2, allow_nan=True).encode()


def output_document(
    source: Document,
    *,
    zarr_format: int,
    shape: Sequence[int],
    chunks: Sequence[int],
    shards: Sequence[int] | None,
    dtype: np.dtype[Any] | None = None,
    dimension_names: Sequence[str] | None = None,
) -> Document:
    """The document of an output array.

    Args:
        source: document of the array whose codec, separator and byte order to take over.
        zarr_format: 2 or 3.
        shape, chunks: of the result, in pixels.
        shards: only with format 3; None for none.
        dtype: type of the result where it differs from the source's.
        dimension_names: axis names, for format 3.
    """
    kind = native_dtype(source) if dtype is None else np.dtype(dtype)
    changed = kind != native_dtype(source)
    if zarr_format == 2:
        document = dict(source) if source["zarr_format"] == 2 else _as_v2(source)
        order = document["dtype"][0] if document["dtype"][0] in "<>" else "<"
        letter = order if kind.itemsize > 1 else "|"
        document["dtype"] = f"{letter}{kind.kind}{kind.itemsize}"
        document["shape"], document["chunks"] = list(shape), list(chunks)
        if changed and document["fill_value"] is not None:
            document["fill_value"] = 0
        return document
    document = dict(source) if source["zarr_format"] == 3 else _as_v3(source, dimension_names)
    inner = (
        _retyped(_inner_codecs(document["codecs"]), kind)
        if changed
        else _inner_codecs(document["codecs"])
    )
    document["data_type"] = kind.name
    if changed:
        document["fill_value"] = 0
    document["shape"] = list(shape)
    document["codecs"] = inner if shards is None else [_sharding(document["codecs"], chunks, inner)]
    outer = chunks if shards is None else shards
    document["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": list(outer)}}
    return document


def native_dtype(document: Document) -> np.dtype[Any]:
    """Type of the pixels in native byte order."""
    name = document["dtype"] if document["zarr_format"] == 2 else document["data_type"]
    return np.dtype(name).newbyteorder("=")


def fill_value(document: Document) -> float:
    """The value of chunks that are not there; a null fill value reads as 0."""
    value = document["fill_value"]
    return 0.0 if value is None else float(value)


def _inner_codecs(codecs: list[Document]) -> list[Document]:
    if codecs and codecs[0].get("name") == "sharding_indexed":
        inner: list[Document] = codecs[0]["configuration"]["codecs"]
        return inner
    return codecs


def _sharding(codecs: list[Document], chunks: Sequence[int], inner: list[Document]) -> Document:
    configuration: Document = {
        "index_codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
        "index_location": "end",
    }
    if codecs and codecs[0].get("name") == "sharding_indexed":
        configuration = dict(codecs[0]["configuration"])
    configuration["chunk_shape"] = list(chunks)
    configuration["codecs"] = inner
    return {"name": "sharding_indexed", "configuration": configuration}


def _retyped(codecs: list[Document], kind: np.dtype[Any]) -> list[Document]:
    """The codecs for another type: blosc shuffles by the size of an element."""
    result = []
    for codec in codecs:
        copied = json.loads(json.dumps(codec))
        if copied["name"] == "blosc":
            copied["configuration"]["typesize"] = kind.itemsize
        if copied["name"] == "bytes" and kind.itemsize > 1:
            copied.setdefault("configuration", {}).setdefault("endian", "little")
        result.append(copied)
    return result


def _as_v3(source: Document, dimension_names: Sequence[str] | None) -> Document:
    kind = native_dtype(source)
    bytes_codec: Document = {"name": "bytes"}
    if kind.itemsize > 1:
        bytes_codec["configuration"] = {"endian": "little"}
    attributes = {k: v for k, v in source["attributes"].items() if k != "_ARRAY_DIMENSIONS"}
    document: Document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": source["shape"],
        "data_type": kind.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": source["chunks"]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if source["fill_value"] is None else source["fill_value"],
        "codecs": [bytes_codec, *_v3_compressor(source["compressor"], kind)],
        "attributes": attributes,
        "storage_transformers": [],
    }
    if dimension_names is not None:
        document["dimension_names"] = list(dimension_names)
    return document


def _v3_compressor(compressor: Document | None, kind: np.dtype[Any]) -> list[Document]:
    if compressor is None:
        return []
    name = compressor["id"]
    if name == "blosc":
        shuffle = compressor.get("shuffle", 1)
        if shuffle == -1:
            shuffle = 2 if kind.itemsize == 1 else 1
        configuration = {
            "typesize": kind.itemsize,
            "cname": compressor["cname"],
            "clevel": compressor["clevel"],
            "shuffle": _BLOSC_SHUFFLE[shuffle],
            "blocksize": compressor.get("blocksize", 0),
        }
        return [{"name": "blosc", "configuration": configuration}]
    if name in ("gzip", "zlib"):
        return [{"name": "gzip", "configuration": {"level": compressor.get("level", 1)}}]
    level = compressor.get("level", 3) if name == "zstd" else 3
    return [{"name": "zstd", "configuration": {"level": level, "checksum": False}}]


def _as_v2(source: Document) -> Document:
    kind = native_dtype(source)
    letter = "<" if kind.itemsize > 1 else "|"
    return {
        "zarr_format": 2,
        "shape": source["shape"],
        "chunks": source["chunk_grid"]["configuration"]["chunk_shape"],
        "dtype": f"{letter}{kind.kind}{kind.itemsize}",
        "fill_value": source["fill_value"],
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
        "compressor": _v2_compressor(_inner_codecs(source["codecs"])),
        "attributes": dict(source.get("attributes", {})),
    }


def _v2_compressor(codecs: list[Document]) -> Document | None:
    for codec in codecs:
        configuration = codec.get("configuration", {})
        if codec["name"] == "blosc":
            numbers = {name: number for number, name in _BLOSC_SHUFFLE.items()}
            return {
                "id": "blosc",
                "cname": configuration["cname"],
                "clevel": configuration["clevel"],
                "shuffle": numbers[configuration["shuffle"]],
                "blocksize": configuration.get("blocksize", 0),
            }
        if codec["name"] == "gzip":
            return {"id": "gzip", "level": configuration.get("level", 1)}
        if codec["name"] == "zstd":
            return {"id": "zstd", "level": configuration.get("level", 3), "checksum": False}
    return None
