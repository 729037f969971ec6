"""Gzip without the time of day.

The header of a gzip stream holds the time at which it was made (RFC 1952, 2.3.1), which
numcodecs fills in: the same pixels would have other bytes in every run. The Rust pipeline
writes 0 there, which stands for "no time"; so does what is here.
"""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from numcodecs.compat import ensure_contiguous_ndarray
from numcodecs.gzip import GZip
from zarr.abc.codec import Codec
from zarr.codecs import GzipCodec, ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.buffer.cpu import as_numpy_array_wrapper
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata


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


def timeless(metadata: ArrayV2Metadata | ArrayV3Metadata) -> Any:
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
