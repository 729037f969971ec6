"""The metadata of an array: read from its files, described, or why they cannot be opened."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.core.array import parse_array_metadata
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from fractal_mesospim_shading.core.threads import warnings_ignored
from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.storage.stores import refuse_dangling_metadata
from fractal_mesospim_shading.messages import shown

Metadata = ArrayV2Metadata | ArrayV3Metadata

_DOCUMENTS = ((3, "zarr.json"), (2, ".zarray"), (2, ".zattrs"))
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


@dataclass(frozen=True)
class ArrayDescription:
    """An array as its metadata describe it; nothing is open.

    Attributes:
        metadata: as zarr understands them.
    """

    metadata: Metadata

    @property
    def shape(self) -> tuple[int, ...]:
        """In pixels."""
        return self.metadata.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.metadata.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels, as they are stored."""
        return self.metadata.dtype.to_native_dtype()

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk, within a shard where there are shards."""
        return self.metadata.chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of a shard."""
        return self.metadata.shards


def metadata_at(place: StorePath, zarr_format: int | None) -> Metadata | None:
    """The metadata of an array, from its files alone.

    Args:
        place: of the array.
        zarr_format: of the group that it belongs to; None where that is not known.

    Returns:
        None where zarr has to say what is wrong, or which of two versions it is.
    """
    if isinstance(place.store, LocalStore):
        refuse_dangling_metadata(f"{place.store.root / place.path}")
    with warnings_ignored:
        try:
            document = sync(_document_at(place, zarr_format))
            return None if document is None else parse_array_metadata(document)
        except Exception:  # noqa: BLE001 opening the array meets it again, and says what it is
            return None


async def _document_at(place: StorePath, zarr_format: int | None) -> dict[str, Any] | None:
    names = [name for version, name in _DOCUMENTS if zarr_format in (version, None)]
    prototype = default_buffer_prototype()
    contents = await asyncio.gather(*((place / name).get(prototype=prototype) for name in names))
    documents = {
        name: json.loads(content.to_bytes())
        for name, content in zip(names, contents, strict=True)
        if content is not None
    }
    if "zarr.json" in documents:
        document: dict[str, Any] = documents["zarr.json"]
        own = ".zarray" not in documents and document["node_type"] == "array"
        return document if own else None
    if ".zarray" not in documents:
        return None
    return {**documents[".zarray"], "attributes": documents.get(".zattrs", {})}


def address_of(place: StorePath) -> str:
    """Where something in a store lies, for messages."""
    return str(place).removeprefix("file://")


def refuse_transformers(array: zarr.Array[Any], where: str) -> None:
    """Refuse an array whose chunks went through something that zarr does not know.

    Raises:
        ImageFormatError: names it.
    """
    transformers = getattr(array.metadata, "storage_transformers", ())
    if transformers:
        raise ImageFormatError(
            f"The array '{where}' asks for storage transformers ({transformers!r}), which no "
            "reader here knows: its chunks cannot be understood. Copy the image with the program "
            "that wrote it, without them."
        )


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
        file = shown(address_of(place))
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
