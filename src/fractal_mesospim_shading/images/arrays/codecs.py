"""Open zarr arrays with the codec pipeline that handles them, chosen by their metadata.

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
from zarr.core.array import AsyncArray, create_codec_pipeline
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.buffer.cpu import as_numpy_array_wrapper
from zarr.core.metadata import ArrayV3Metadata
from zarr.errors import ContainsGroupError, NodeNotFoundError
from zarr.storage import LocalStore, StorePath

from fractal_mesospim_shading.core.threads import warnings_ignored
from fractal_mesospim_shading.errors import ImageFormatError, ShadingError
from fractal_mesospim_shading.images.arrays.array_metadata import (
    ArrayDescription,
    Metadata,
    address_of,
    array_problem,
    metadata_at,
    refuse_transformers,
)
from fractal_mesospim_shading.images.arrays.encodings import open_file
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url
from fractal_mesospim_shading.images.storage.stores import (
    Mode,
    open_group,
    open_store,
    refuse_dangling_metadata,
    understood,
)

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


def describe_array(group: zarr.Group, path: str) -> ArrayDescription:
    """Read the metadata of an array of a group, and try that its codecs are known.

    Raises:
        ImageFormatError: as `open_array`.
    """
    place = group.store_path / path
    metadata = metadata_at(place, group.metadata.zarr_format) or _member(group, path).metadata
    with understood(address_of(place)), _configured(_chosen("auto", metadata, place.store)):
        create_codec_pipeline(metadata, store=place.store)
    return ArrayDescription(metadata)


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
    chosen = _chosen(pipeline, metadata, place.store)
    with understood(address_of(place)), _configured(chosen, direct=direct):
        kept = timeless(metadata) if chosen == "python" else metadata
        return zarr.Array(AsyncArray(kept, place))


def rust_can_handle(metadata: Metadata, store: Store) -> bool:
    """Whether the Rust pipeline reads and writes an array bit for bit.

    Args:
        metadata: of the array.
        store: that it lies in.
    """
    if not isinstance(store, LocalStore):
        return False
    described = ArrayDescription(metadata)
    if described.dtype.kind not in "uif" or described.dtype.itemsize > 8 or 0 in described.chunks:
        return False
    document: dict[str, Any] = metadata.to_dict()
    if metadata.zarr_format == 2:
        return described.dtype.isnative and _rust_can_handle_v2(document)
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


def _chosen(pipeline: Pipeline, metadata: Metadata, store: Store) -> Literal["rust", "python"]:
    if pipeline != "auto":
        return pipeline
    return "rust" if rust_can_handle(metadata, store) else "python"


@contextmanager
def _configured(pipeline: Literal["rust", "python"], *, direct: bool = False) -> Iterator[None]:
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


def _member(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """The array as zarr opens it, or what is wrong with it.

    Raises:
        ImageFormatError: there is no such array, or its metadata are not understood.
    """
    place = group.store_path / path
    if isinstance(group.store, LocalStore):
        refuse_dangling_metadata(f"{group.store.root / group.path / path}")
    where = address_of(place)
    with understood(where):
        try:
            with _configured("python"):
                member = group[path]
            if isinstance(member, zarr.Array):
                refuse_transformers(member, where)
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
