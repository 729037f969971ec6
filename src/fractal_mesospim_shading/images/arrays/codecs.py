"""The metadata of an array, and the codec pipeline that handles it, chosen by them.

The Rust pipeline of `zarrs` takes as little as a third of the processor time of zarr's own
(`benchmarks/pipelines.py`), but does not handle every array: it raises on big-endian and on
column-major arrays of zarr v2, and falls back with a warning where it does not know a codec.
What it handles bit for bit was tried with zarr 3.1.5 and zarrs 0.2.3 and is listed here; all
else goes to zarr's own pipeline. The choice depends on the metadata and the kind of store
alone, so every process comes to the same one.

The Rust pipeline works on one thread for each call. Blocks run side by side, so no
processor is left idle by that; and several threads would put the chunks of a shard
into its file in the order in which they happen to be encoded: other bytes each time.

The header of a gzip stream holds the time at which it was made (RFC 1952, 2.3.1), which
numcodecs fills in: the same pixels would have other bytes in every run. The Rust pipeline
writes 0 there, which stands for "no time"; so do the gzip codecs here.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import zarr
from numcodecs.compat import ensure_contiguous_ndarray
from numcodecs.gzip import GZip
from zarr.abc.codec import Codec
from zarr.abc.store import Store
from zarr.codecs import GzipCodec, ShardingCodec
from zarr.core.array import parse_array_metadata
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.buffer.cpu import as_numpy_array_wrapper
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from fractal_mesospim_shading.core.threads import warnings_ignored
from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.arrays.encodings import open_file
from fractal_mesospim_shading.images.storage.stores import refuse_dangling_metadata

Metadata = ArrayV2Metadata | ArrayV3Metadata
Chosen = Literal["rust", "python"]
Pipeline = Literal["auto", "rust", "python"]

_PATHS = {
    "rust": "zarrs.ZarrsCodecPipeline",
    "python": "zarr.core.codec_pipeline.BatchedCodecPipeline",
}
_RUST_V2 = {"blosc", "zstd", "gzip", "zlib", "bz2"}
_RUST_V3 = {"bytes", "blosc", "zstd", "gzip", "crc32c", "transpose"}

_MOST_THREADS = 64
"""Threads of zarr that may be in a pipeline at a time, where nobody has set another number."""

# zarr's configuration is one for the whole process.
configuration_lock = threading.Lock()

_DOCUMENTS = ((3, "zarr.json"), (2, ".zarray"), (2, ".zattrs"))


def metadata_at(place: StorePath, zarr_format: int | None) -> Metadata | None:
    """The metadata of an array, from its files alone.

    Args:
        place: of the array.
        zarr_format: of the group that it belongs to; None where that is not known.

    Returns:
        None where zarr has to say what is wrong, or which of two versions it is.

    Raises:
        ImageFormatError: zarr reads another size of chunks than the one that is stored.
    """
    if isinstance(place.store, LocalStore):
        refuse_dangling_metadata(f"{place.store.root / place.path}")
    with warnings_ignored:
        try:
            document = sync(_document_at(place, zarr_format))
            if document is None:
                return None
            metadata = parse_array_metadata(document)
            stored = _stored_unit(document)
            # zarr 3.4 takes a size of 0 for 1, older ones take it as it is. Of an array without
            # elements it is what some programs write.
            as_stored = 0 in metadata.shape or list(metadata.shards or metadata.chunks) == stored
        except Exception:  # noqa: BLE001 opening the array meets it again, and says what it is
            return None
    if not as_stored:
        raise ImageFormatError(
            f"The array '{str(place).removeprefix('file://')}' has chunks of the shape "
            f"{tuple(stored)}; every number must be at least 1. Write the image again."
        )
    return metadata


def _stored_unit(document: dict[str, Any]) -> list[Any]:
    """The shape of a chunk, of a shard where there are some, as a document says it."""
    if document["zarr_format"] == 2:
        return list(document["chunks"])
    return list(document["chunk_grid"]["configuration"]["chunk_shape"])


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


def rust_can_handle(metadata: Metadata, store: Store) -> bool:
    """Whether the Rust pipeline reads and writes an array bit for bit.

    Args:
        metadata: of the array.
        store: that it lies in.
    """
    if not isinstance(store, LocalStore):
        return False
    dtype = metadata.dtype.to_native_dtype()
    if dtype.kind not in "uif" or dtype.itemsize > 8 or 0 in metadata.chunks:
        return False
    document: dict[str, Any] = metadata.to_dict()
    if metadata.zarr_format == 2:
        return dtype.isnative and _rust_can_handle_v2(document)
    return _all_known(document["codecs"])


def uses_rust(array: zarr.Array[Any]) -> bool:
    """Whether an opened array is decoded by the Rust pipeline."""
    pipeline = array.async_array.codec_pipeline
    return type(pipeline).__name__ == "ZarrsCodecPipeline" and (
        getattr(pipeline, "impl", None) is not None
    )


def first_truncated(array: zarr.Array[Any], keys: Iterable[str]) -> str | None:
    """The first of some chunks whose file is not as long as its own header says.

    zarr's own pipeline does not notice a blosc chunk that was cut off and hands out wrong
    pixels; with the other codecs that were tried, and in the Rust pipeline, it is an error.

    Args:
        array: any; only local blosc arrays of zarr v2 in zarr's own pipeline are looked at.
        keys: of chunks; those that are not there are passed over.
    """
    store = array.store
    compressor = getattr(array.metadata, "compressor", None)
    codec = getattr(compressor, "codec_id", None)
    if codec != "blosc" or not isinstance(store, LocalStore) or uses_rust(array):
        return None
    for key in keys:
        try:
            with open_file(f"{store.root / array.path}/{key}") as file:
                header = file.read(16)
                length = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            continue
        if len(header) < 16 or int.from_bytes(header[12:16], "little") != length:
            return key
    return None


def _rust_can_handle_v2(document: dict[str, Any]) -> bool:
    compressor = document.get("compressor")
    return (
        document.get("order", "C") == "C"
        and not document.get("filters")
        and (compressor is None or compressor.get("id") in _RUST_V2)
    )


def _all_known(codecs: Iterable[dict[str, Any]]) -> bool:
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            configuration = codec["configuration"]
            if not _all_known([*configuration["codecs"], *configuration["index_codecs"]]):
                return False
        elif codec["name"] not in _RUST_V3:
            return False
    return True


def chosen_pipeline(pipeline: Pipeline, metadata: Metadata, store: Store) -> Chosen:
    """The pipeline of an array; `auto` leaves it to the metadata and the kind of store."""
    if pipeline != "auto":
        return pipeline
    return "rust" if rust_can_handle(metadata, store) else "python"


@contextmanager
def configured(pipeline: Chosen, *, direct: bool = False) -> Iterator[None]:
    """Let what is opened in this context have a pipeline."""
    with configuration_lock:
        # zarr makes the threads that call the pipelines when it first meets a number of them: that
        # has to be one for all blocks in flight, and not the one thread of each call.
        threads = zarr.config.get("threading.max_workers", None) or _MOST_THREADS
        settings: dict[str, Any] = {
            "codec_pipeline.path": _PATHS[pipeline],
            "codec_pipeline.direct_io": direct,
            "threading.max_workers": 1 if pipeline == "rust" else threads,
        }
        # What the libraries think of odd metadata would mark a server's job.
        with zarr.config.set(settings), warnings_ignored:
            yield


class TimelessGzip(GZip):  # type: ignore[misc]
    """The gzip codec of zarr v2, with no time in its header."""

    def encode(self, buf: Any) -> bytes:
        stream = io.BytesIO()
        with gzip.GzipFile("", "wb", self.level, stream, mtime=0) as file:
            file.write(ensure_contiguous_ndarray(buf))
        return stream.getvalue()


class TimelessGzipCodec(GzipCodec):
    """The gzip codec of zarr v3, with no time in its header."""

    async def _encode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(
            as_numpy_array_wrapper,
            TimelessGzip(self.level).encode,
            chunk_bytes,
            chunk_spec.prototype,
        )


def timeless(metadata: Metadata) -> Metadata:
    """The metadata of an array with every gzip codec replaced by one that writes no time.

    They are written to disk as before. The very same object comes back where there is none.
    """
    if isinstance(metadata, ArrayV3Metadata):
        codecs = _timeless_codecs(metadata.codecs)
        return metadata if codecs is metadata.codecs else replace(metadata, codecs=codecs)
    before = (metadata.compressor, *(metadata.filters or ()))
    if not any(_is_gzip(codec) for codec in before):
        return metadata
    compressor, *filters = (_timeless_v2(codec) for codec in before)
    return replace(metadata, compressor=compressor, filters=tuple(filters) or None)


def _is_gzip(codec: Any) -> bool:
    return isinstance(codec, GZip) and not isinstance(codec, TimelessGzip)


def _timeless_v2(codec: Any) -> Any:
    return TimelessGzip(codec.level) if _is_gzip(codec) else codec


def _timeless_codecs(codecs: Iterable[Codec]) -> tuple[Codec, ...]:
    """The same tuple where nothing in it writes a time."""
    before = tuple(codecs)
    after = tuple(_timeless_v3(codec) for codec in before)
    return before if all(a is b for a, b in zip(after, before, strict=True)) else after


def _timeless_v3(codec: Codec) -> Codec:
    if isinstance(codec, GzipCodec) and not isinstance(codec, TimelessGzipCodec):
        return TimelessGzipCodec(level=codec.level)
    if isinstance(codec, ShardingCodec):
        inner = _timeless_codecs(codec.codecs)
        return codec if inner is codec.codecs else replace(codec, codecs=inner)
    numeric = getattr(codec, "codec_config", None)
    if isinstance(numeric, dict) and numeric.get("id") == "gzip":
        # `numcodecs.gzip`, which is in no specification; it keeps what it delegates to.
        codec.__dict__["_codec"] = TimelessGzip(numeric.get("level", 1))
    return codec
