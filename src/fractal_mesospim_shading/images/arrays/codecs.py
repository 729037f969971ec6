"""Open zarr arrays with the codec pipeline that handles them, chosen by their metadata.

The Rust pipeline of `zarrs` is two to three times as fast as zarr's own, but not for
every array: it raises on big-endian and on column-major arrays of zarr v2, and falls
back with a warning where it does not know a codec. What it handles bit for bit was
tried with zarr 3.1.5 and zarrs 0.2.3 and is listed here; all else goes to zarr's own
pipeline. The choice depends on the metadata and the kind of store alone, so every
process comes to the same one.

The Rust pipeline works on one thread for each call. Blocks run side by side, so no
processor is left idle by that; and several threads would put the chunks of a shard
into its file in the order in which they happen to be encoded: other bytes each time.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable
from typing import Any, Literal

import zarr
from zarr.errors import ContainsGroupError, NodeNotFoundError
from zarr.storage import LocalStore

from fractal_mesospim_shading.errors import ImageFormatError, ShadingError
from fractal_mesospim_shading.images.arrays.array_metadata import array_problem
from fractal_mesospim_shading.images.arrays.gzip_streams import timeless
from fractal_mesospim_shading.images.arrays.plain_files import open_file
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.images.storage.stores import (
    Mode,
    open_group,
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
_configuration_lock = threading.Lock()


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
    if not isinstance(group, zarr.Group):
        group = open_group(group, storage_options, mode)
    array = _member(group, path, "python")
    if pipeline == "auto":
        pipeline = "rust" if rust_can_handle(array) else "python"
    return array if pipeline == "python" else _member(group, path, "rust", direct=direct)


def rust_can_handle(array: zarr.Array[Any]) -> bool:
    """Whether the Rust pipeline reads and writes this array bit for bit."""
    if not isinstance(array.store, LocalStore):
        return False
    metadata: dict[str, Any] = array.metadata.to_dict()
    if array.dtype.kind not in "uif" or array.dtype.itemsize > 8 or 0 in array.chunks:
        return False
    if metadata["zarr_format"] == 2:
        return _rust_can_handle_v2(array, metadata)
    return _all_known(metadata["codecs"])


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


def _rust_can_handle_v2(array: zarr.Array[Any], metadata: dict[str, Any]) -> bool:
    compressor = metadata.get("compressor")
    return (
        array.dtype.isnative
        and metadata.get("order", "C") == "C"
        and not metadata.get("filters")
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


def _without_times(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The array with codecs that write the same bytes at any time of day."""
    inner = array.async_array
    metadata = timeless(inner.metadata)
    if metadata is inner.metadata:
        return array
    return zarr.Array(type(inner)(metadata, inner.store_path, inner._config))


def _member(
    group: zarr.Group, path: str, pipeline: Literal["rust", "python"], *, direct: bool = False
) -> zarr.Array[Any]:
    if isinstance(group.store, LocalStore):
        refuse_dangling_metadata(f"{group.store.root / group.path / path}")
    where = str(group.store_path / path).removeprefix("file://")
    # zarr makes the threads that call the pipelines when it first meets a number of them: that
    # has to be one for all blocks in flight, and not the one thread of each call.
    threads = zarr.config.get("threading.max_workers", None) or _MOST_THREADS
    settings: dict[str, Any] = {
        "codec_pipeline.path": _PATHS[pipeline],
        "codec_pipeline.direct_io": direct,
        "threading.max_workers": 1 if pipeline == "rust" else threads,
    }
    with understood(where):
        try:
            with (
                _configuration_lock,
                zarr.config.set(settings),
                warnings.catch_warnings(),
            ):
                # What the libraries think of odd metadata would mark a server's job.
                warnings.simplefilter("ignore")
                member = group[path]
                if isinstance(member, zarr.Array):
                    _refuse_transformers(member, where)
                    return _without_times(member) if pipeline == "python" else member
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


def _refuse_transformers(array: zarr.Array[Any], where: str) -> None:
    transformers = getattr(array.metadata, "storage_transformers", ())
    if transformers:
        raise ImageFormatError(
            f"The array '{where}' asks for storage transformers ({transformers!r}), which no "
            "reader here knows: its chunks cannot be understood. Copy the image with the program "
            "that wrote it, without them."
        )
