"""Why the metadata of an array cannot be opened: the file and the key, by name."""

from __future__ import annotations

import json
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from fractal_mesospim_shading.messages import shown

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
