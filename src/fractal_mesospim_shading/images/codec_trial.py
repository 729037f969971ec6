"""Whether the codecs of a result can write at all, tried on a single pixel."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import zarr
from zarr.core.buffer import cpu
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.arrays.encodings import simple_encoding
from fractal_mesospim_shading.images.storage.stores import reason
from fractal_mesospim_shading.images.target import TargetImage


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
