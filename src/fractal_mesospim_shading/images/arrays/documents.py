"""Metadata documents of groups and arrays: written, made for output arrays, or what is wrong.

The documents of output arrays are made as JSON, not through an array constructor, because
only so every setting of the source that we do not know of is kept as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.core.sync import sync

from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url, write_bytes
from fractal_mesospim_shading.messages import shown

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
        fingerprint: of its metadata, as they have to be when it is opened; empty for any.
    """

    url: str
    path: str
    storage_options: str = field(repr=False)
    fingerprint: str

    @property
    def where(self) -> str:
        """Its address."""
        return join_url(self.url, self.path)


_REQUIRED = {
    "zarr.json": (
        "zarr_format",
        "node_type",
        "shape",
        "data_type",
        "chunk_grid",
        "chunk_key_encoding",
        "fill_value",
        "codecs",
    ),
    ".zarray": (
        "zarr_format",
        "shape",
        "chunks",
        "dtype",
        "compressor",
        "fill_value",
        "order",
        "filters",
    ),
}
_MAY_BE_NULL = {".zarray": {"compressor", "fill_value", "filters"}, "zarr.json": set()}
_MOST = 60
_BLOSC_SHUFFLE = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}


def document_of(metadata: ArrayV2Metadata | ArrayV3Metadata) -> Document:
    """The metadata of an array as their JSON document, attributes included."""
    buffers = metadata.to_buffer_dict(default_buffer_prototype())
    if metadata.zarr_format == 3:
        document: Document = json.loads(buffers["zarr.json"].to_bytes())
        document.setdefault("attributes", {})
        return document
    document = json.loads(buffers[".zarray"].to_bytes())
    document["attributes"] = json.loads(buffers[".zattrs"].to_bytes())
    return document


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


def array_problem(group: zarr.Group, path: str) -> str | None:
    """What is wrong with the metadata of an array that zarr does not open.

    Args:
        group: open.
        path: of the array within it.

    Returns:
        A sentence that names the file and the key; None where there is no such file, or
        where nothing is seen to be wrong.
    """
    for name, keys in _REQUIRED.items():
        place = group.store_path / path / name
        content = sync(place.get(prototype=default_buffer_prototype()))
        if content is None:
            continue
        file = shown(str(place).removeprefix("file://"))
        document = _document(content.to_bytes())
        if isinstance(document, str):
            return f"'{file}' {document}."
        for key in keys:
            if key not in document:
                return f"'{file}' lacks the key '{key}'."
            if document[key] is None and key not in _MAY_BE_NULL[name]:
                return f"The key '{key}' of '{file}' is null; expected a value."
        return _sizes_problem(document, name, file)
    return None


def _document(content: bytes) -> dict[str, Any] | str:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        return f"is no JSON that can be read ({shown(error)[:200]})"
    return document if isinstance(document, dict) else "holds no JSON object"


def _are_sizes(value: Any, least: int) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= least for n in value)


def _sizes_problem(document: dict[str, Any], name: str, file: str) -> str | None:
    shape, chunks = document["shape"], document.get("chunks")
    if name == "zarr.json":
        grid = document["chunk_grid"]
        inner = grid.get("configuration") if isinstance(grid, dict) else None
        chunks = inner.get("chunk_shape") if isinstance(inner, dict) else None
    for key, sizes, least in (("shape", shape, 0), ("chunk shape", chunks, 1)):
        if not _are_sizes(sizes, least):
            text = shown(repr(sizes))
            text = text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."
            return f"The {key} in '{file}' is {text}; expected a whole number for each axis."
    return None
