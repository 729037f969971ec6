"""Which pipeline is chosen, and that pixels are right bit for bit under each."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    TransposeCodec,
    ZstdCodec,
)

from fractal_mesospim_shading.errors import ImageFormatError, ImageNotFoundError
from fractal_mesospim_shading.images.arrays.codecs import rust_can_handle, uses_rust
from fractal_mesospim_shading.images.arrays.reading import open_array

SHAPE, CHUNKS = (5, 19, 23), (2, 8, 16)
BOX = (slice(1, 4), slice(3, 18), slice(5, 22))
TYPES = ["uint8", "uint16", "float32"]


def pixels(dtype: str) -> np.ndarray:
    values = np.random.default_rng(7).random(SHAPE) * 250
    values[:2, :8, :16] = 0  # one chunk that zarr leaves out
    return values.astype(np.dtype(dtype).newbyteorder("="))


def check_both_ways(path: Path, dtype: str, *, rust: bool, **settings: Any) -> None:
    """Written by zarr's pipeline, read by the chosen one, and the other way round."""
    group = zarr.open_group(path, mode="w", zarr_format=settings.pop("zarr_format"))
    created = group.create_array("a", shape=SHAPE, chunks=CHUNKS, dtype=dtype, **settings)
    expected = pixels(dtype)
    created[...] = expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        array = open_array(group, "a")
        assert uses_rust(array) == rust == rust_can_handle(array.metadata, array.store)
        for box in (..., BOX):
            read = np.asarray(array[box])
            assert read.dtype.newbyteorder("=") == expected.dtype
            np.testing.assert_array_equal(read, expected[box])
        changed = expected[::-1].copy()
        array[...] = changed
        array[BOX] = 1
        changed[BOX] = 1
        plain = open_array(str(path), "a", pipeline="python")
        assert not uses_rust(plain)
        np.testing.assert_array_equal(np.asarray(plain[...]), changed)


V2_RUST = {
    "blosc": numcodecs.Blosc("lz4", shuffle=1),
    "bitshuffle": numcodecs.Blosc("zstd", shuffle=2),
    "zstd": numcodecs.Zstd(1),
    "gzip": numcodecs.GZip(1),
    "zlib": numcodecs.Zlib(1),
    "bz2": numcodecs.BZ2(1),
    "none": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("codec", V2_RUST)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("fill", [0, None])
def test_v2_little_endian_row_major_goes_through_rust(
    tmp_path: Path, codec: str, dtype: str, fill: int | None
) -> None:
    check_both_ways(
        tmp_path, dtype, rust=True, zarr_format=2, compressors=V2_RUST[codec], fill_value=fill
    )


@pytest.mark.parametrize("separator", ["/", "."])
def test_v2_separators(tmp_path: Path, separator: str) -> None:
    keys = {"name": "v2", "separator": separator}
    check_both_ways(tmp_path, "uint16", rust=True, zarr_format=2, chunk_key_encoding=keys)


@pytest.mark.parametrize("codec", ["blosc", "zstd", "none"])
@pytest.mark.parametrize(("dtype", "order"), [(">u2", "C"), (">f4", "C"), (">u2", "F")])
def test_v2_big_endian_is_left_to_python(
    tmp_path: Path, codec: str, dtype: str, order: str
) -> None:
    check_both_ways(
        tmp_path, dtype, rust=False, zarr_format=2, compressors=V2_RUST[codec], order=order
    )


@pytest.mark.parametrize("dtype", TYPES)
def test_v2_column_major_is_left_to_python(tmp_path: Path, dtype: str) -> None:
    check_both_ways(tmp_path, dtype, rust=False, zarr_format=2, order="F")


@pytest.mark.parametrize(
    "settings",
    [
        {"compressors": numcodecs.LZMA()},
        {"compressors": numcodecs.LZ4()},
        {"filters": [numcodecs.Delta("<u2")]},
        {"filters": [numcodecs.Shuffle(2)]},
    ],
    ids=["lzma", "lz4", "delta", "shuffle"],
)
def test_v2_codecs_that_rust_lacks_raise_no_warning(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    check_both_ways(tmp_path, "<u2", rust=False, zarr_format=2, **settings)


V3 = {
    "blosc": BloscCodec(cname="zstd", clevel=5),
    "zstd": ZstdCodec(level=1),
    "gzip": GzipCodec(level=1),
    "crc32c": Crc32cCodec(),
    "none": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("codec", V3)
@pytest.mark.parametrize("shards", [None, (4, 16, 32)])
@pytest.mark.parametrize(
    ("dtype", "endian"),
    [("uint8", None), ("uint16", "little"), ("uint16", "big"), ("float32", "little")],
)
def test_v3_goes_through_rust(
    tmp_path: Path,
    codec: str,
    shards: tuple[int, ...] | None,
    dtype: str,
    endian: str | None,
) -> None:
    serializer = BytesCodec(endian=endian)
    check_both_ways(
        tmp_path,
        dtype,
        rust=True,
        zarr_format=3,
        compressors=V3[codec],
        shards=shards,
        serializer=serializer,
    )


def test_v3_transposed(tmp_path: Path) -> None:
    filters = [TransposeCodec(order=(2, 0, 1))]
    check_both_ways(tmp_path, "uint16", rust=True, zarr_format=3, filters=filters)


@pytest.mark.parametrize("fill", [7, 65535])
def test_v3_fill_value_of_missing_chunks(tmp_path: Path, fill: int) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("a", shape=SHAPE, chunks=CHUNKS, dtype="uint16", fill_value=fill)
    array = open_array(str(tmp_path), "a")
    assert uses_rust(array)
    assert (array[...] == fill).all()


def test_v2_null_fill_value_reads_as_zero_under_both(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    group.create_array("a", shape=SHAPE, chunks=CHUNKS, dtype="uint16", fill_value=None)
    for pipeline in ("rust", "python"):
        assert (open_array(str(tmp_path), "a", pipeline=pipeline)[...] == 0).all()


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_v3_numcodecs_codec_is_left_to_python(tmp_path: Path) -> None:
    from zarr.codecs import numcodecs as extra

    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("a", shape=SHAPE, dtype="uint16", compressors=extra.LZ4())
    assert not uses_rust(open_array(str(tmp_path), "a"))


def test_memory_store_is_left_to_python() -> None:
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w", zarr_format=3)
    group.create_array("a", shape=SHAPE, chunks=CHUNKS, dtype="uint16")[...] = pixels("uint16")
    array = open_array(group, "a")
    assert not uses_rust(array)
    np.testing.assert_array_equal(array[...], pixels("uint16"))


def test_what_is_measured_about_zarrs_still_holds(tmp_path: Path) -> None:
    """The two kinds that the Rust pipeline raises on; should it learn them, allow them."""
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    for name, settings in {"big": {"dtype": ">u2"}, "F": {"dtype": "<u2", "order": "F"}}.items():
        created = group.create_array(name, shape=SHAPE, chunks=CHUNKS, **settings)
        created[...] = pixels("uint16")
        forced = open_array(group, name, pipeline="rust")
        with pytest.raises((RuntimeError, ValueError)):
            forced[...]


def test_the_configuration_of_zarr_is_left_as_it_was(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("a", shape=SHAPE, dtype="uint16")
    before = zarr.config.get("codec_pipeline.path")
    open_array(str(tmp_path), "a")
    assert zarr.config.get("codec_pipeline.path") == before


def test_missing_array_and_missing_group(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "g", mode="w", zarr_format=2).create_group("inner")
    with pytest.raises(ImageFormatError, match="'.*g/0' is missing"):
        open_array(str(tmp_path / "g"), "0")
    with pytest.raises(ImageFormatError, match="is a group"):
        open_array(str(tmp_path / "g"), "inner")
    with pytest.raises(ImageNotFoundError):
        open_array(str(tmp_path / "nothing"), "0")


def test_broken_array_metadata(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("a", shape=SHAPE, dtype="uint16")
    (tmp_path / "a" / "zarr.json").write_text("{")
    with pytest.raises(ImageFormatError, match="a/zarr.json' is no JSON that can be read"):
        open_array(str(tmp_path), "a")


def test_shards_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Several threads would put chunks into the file in the order in which they are ready."""
    rng = np.random.default_rng(3)
    values = rng.integers(0, 4000, (64, 64, 64)).astype("uint16")
    # Chunks that take very different times.
    values[:, ::2] &= np.uint16(3)
    zarr.open_group(tmp_path, mode="w", zarr_format=3).create_array(
        "a", shape=values.shape, chunks=(16, 16, 16), shards=values.shape, dtype="uint16",
        compressors=ZstdCodec(level=3),
    )  # fmt: skip
    array = open_array(str(tmp_path), "a", mode="r+")
    assert uses_rust(array)
    contents = set()
    for _ in range(20):
        array[...] = values
        contents.add((tmp_path / "a" / "c" / "0" / "0" / "0").read_bytes())
    assert len(contents) == 1


# --- The same bytes at any time ----------------------------------------------------------------

GZIP_V3 = [BytesCodec(endian="big"), GzipCodec(level=3)]
GZIPPED: dict[str, dict[str, Any]] = {
    "v2 in Rust": {"zarr_format": 2, "compressors": numcodecs.GZip(1), "dtype": "<u2"},
    "v2 big-endian": {"zarr_format": 2, "compressors": numcodecs.GZip(1), "dtype": ">u2"},
    "v2 order F": {
        "zarr_format": 2,
        "compressors": numcodecs.GZip(6),
        "dtype": "<u2",
        "order": "F",
    },
    "v2 filters": {
        "zarr_format": 2,
        "compressors": numcodecs.GZip(1),
        "filters": [numcodecs.Delta("<u2")],
        "dtype": "<u2",
    },
    "v2 gzip as a filter": {
        "zarr_format": 2,
        "compressors": numcodecs.Zlib(1),
        "filters": [numcodecs.GZip(1)],
        "dtype": "<u2",
    },
    "v3 in Rust": {"zarr_format": 3, "compressors": GzipCodec(level=1), "dtype": "<u2"},
    "v3 numcodecs": {"zarr_format": 3, "compressors": None, "dtype": "<u2"},
    "v3 sharded": {
        "zarr_format": 3,
        "compressors": GzipCodec(level=1),
        "shards": (4, 16, 32),
        "dtype": "<u2",
    },
}


def written_at(store: Any, clock: list[float], settings: dict[str, Any]) -> dict[str, bytes]:
    """Every chunk of an array that was written as the clock went on."""
    settings = dict(settings)
    if settings["compressors"] is None:
        from zarr.codecs.numcodecs import GZip

        settings["compressors"] = GZip(level=1)
    group = zarr.open_group(store, mode="w", zarr_format=settings.pop("zarr_format"))
    group.create_array("a", shape=SHAPE, chunks=CHUNKS, **settings)
    array = open_array(group, "a")
    array[...] = pixels("uint16")
    clock[0] += 1000
    np.testing.assert_array_equal(np.asarray(open_array(group, "a")[...]), pixels("uint16"))
    found = {}
    for key in sorted(str(k) for k in _sync_list(group.store)):
        if not key.endswith(("zarr.json", ".zarray", ".zattrs", ".zgroup")):
            found[key] = _sync_get(group.store, key)
    return found


def _sync_list(store: Any) -> list[str]:
    from zarr.core.sync import sync

    async def listed() -> list[str]:
        return [key async for key in store.list()]

    return sync(listed())


def _sync_get(store: Any, key: str) -> bytes:
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    return sync(store.get(key, default_buffer_prototype())).to_bytes()


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("kind", GZIPPED)
@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_gzip_does_not_hold_the_time_of_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, remote: bool
) -> None:
    clock = [1_700_000_000.0]
    monkeypatch.setattr("gzip.time.time", lambda: clock[0])
    stores = [zarr.storage.MemoryStore() if remote else tmp_path / name for name in "ab"]
    first, second = (written_at(store, clock, GZIPPED[kind]) for store in stores)
    assert first
    assert first == second


def test_gzip_metadata_on_disk_stay_what_they_were(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    group.create_array("a", shape=SHAPE, chunks=CHUNKS, dtype=">u2", compressors=numcodecs.GZip(7))
    array = open_array(group, "a")
    assert array.metadata.to_dict()["compressor"] == {"id": "gzip", "level": 7}
