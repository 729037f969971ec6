"""Whole chunks read and written without zarr's pipelines, against zarr's own."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

from fractal_mesospim_shading.core.threads import freed_memory_kept
from fractal_mesospim_shading.images.arrays import encodings, output_file
from fractal_mesospim_shading.images.arrays.chunk_files import chunk_files
from fractal_mesospim_shading.images.arrays.chunk_parts import in_parts
from fractal_mesospim_shading.images.arrays.output_file import (
    DIRECT_BYTES,
    STAGE_BYTES,
    OutputFile,
)

SHAPE, CHUNKS = (5, 19, 40), (2, 8, 16)
TYPES = ["uint8", "uint16", "float32"]
BLOSC = {
    "lz4": {"cname": "lz4", "clevel": 5, "shuffle": 1},
    "zstd, bits": {"cname": "zstd", "clevel": 3, "shuffle": 2},
    "lz4, plain": {"cname": "lz4", "clevel": 1, "shuffle": 0},
    "automatic": {"cname": "lz4", "clevel": 5, "shuffle": -1},
}


def pixels(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    values = np.random.default_rng(7).random(shape) * 250
    values[:2, :8, :16] = 3  # one chunk of nothing but the fill value
    return values.astype(dtype)


def made(path: Path, dtype: str, **settings: Any) -> zarr.Array[Any]:
    """An empty array in zarr's own pipeline."""
    settings = {"shape": SHAPE, "chunks": CHUNKS, "fill_value": 3, **settings}
    group = zarr.open_group(path, mode="w", zarr_format=settings.pop("zarr_format"))
    return group.create_array("a", dtype=dtype, **settings)


def whole(shape: tuple[int, ...]) -> list[slice]:
    return [slice(0, n) for n in shape]


def contents(array: zarr.Array[Any]) -> dict[str, bytes]:
    folder = Path(array.store.root) / array.path  # type: ignore[attr-defined]
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if not p.name.startswith(".")}


def check(tmp_path: Path, dtype: str, *, same_bytes: bool = True, **settings: Any) -> None:
    """Read what zarr writes, and write what zarr reads."""
    values = pixels(dtype)
    theirs = made(tmp_path / "theirs.zarr", dtype, **settings)
    theirs[...] = values
    files = chunk_files(theirs)
    assert files is not None
    for box in (
        whole(SHAPE),
        [slice(2, 4), slice(8, 19), slice(16, 40)],
        [slice(1, 2), slice(3, 18), slice(5, 39)],
    ):
        assert files.suits(box)
        out = np.zeros([s.stop - s.start for s in box], dtype)
        files.read(box, out)
        np.testing.assert_array_equal(out, values[tuple(box)])
    # Few pixels of a chunk are for us where no others are decoded for them.
    row = [slice(0, 1), slice(3, 4), slice(15, 30)]
    assert files.suits(row) == in_parts(files.encoding)
    assert not files.suits([slice(0, 2), slice(3, 4), slice(15, 16)])
    ours = made(tmp_path / "ours.zarr", dtype, **settings)
    target = chunk_files(ours)
    assert target is not None
    target.write(whole(SHAPE), values)
    np.testing.assert_array_equal(np.asarray(ours[...]), values)
    assert contents(ours).keys() == contents(theirs).keys()
    if same_bytes:
        assert contents(ours) == contents(theirs)
    forward = contents(ours)
    target.write(whole(SHAPE), values)
    assert contents(ours) == forward


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("codec", BLOSC)
def test_blosc_of_version_2(tmp_path: Path, codec: str, dtype: str) -> None:
    compressor = numcodecs.Blosc(**BLOSC[codec])
    check(tmp_path, dtype, zarr_format=2, compressors=compressor)


@pytest.mark.parametrize("dtype", TYPES)
def test_zstd_of_version_2(tmp_path: Path, dtype: str) -> None:
    check(tmp_path, dtype, zarr_format=2, compressors=numcodecs.Zstd(3))


@pytest.mark.parametrize("separator", [".", "/"])
def test_bare_chunks_of_version_2(tmp_path: Path, separator: Any) -> None:
    keys = {"name": "v2", "separator": separator}
    check(tmp_path, "uint16", zarr_format=2, compressors=None, chunk_key_encoding=keys)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("codec", ["blosc", "zstd", "zstd, checked", "bare"])
def test_version_3(tmp_path: Path, codec: str, dtype: str) -> None:
    compressor = {
        "blosc": BloscCodec(cname="lz4", typesize=np.dtype(dtype).itemsize, shuffle="shuffle"),
        "zstd": ZstdCodec(level=1),
        "zstd, checked": ZstdCodec(level=3, checksum=True),
        "bare": None,
    }[codec]
    check(tmp_path, dtype, zarr_format=3, compressors=compressor)


@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("codec", ["blosc", "zstd", "bare"])
def test_shards(tmp_path: Path, codec: str, checked: bool, place: Any) -> None:
    """The order of the chunks in a shard is free, so the bytes may differ from zarr's."""
    inner: list[Any] = [BytesCodec(endian="little")]
    if codec == "blosc":
        inner.append(BloscCodec(cname="lz4", typesize=2, shuffle="shuffle"))
    if codec == "zstd":
        inner.append(ZstdCodec(level=3))
    sharding = ShardingCodec(
        chunk_shape=CHUNKS,
        codecs=inner,
        index_codecs=[BytesCodec(), Crc32cCodec()] if checked else [BytesCodec()],
        index_location=place,
    )
    shards = (4, 16, 32)
    check(
        tmp_path,
        "uint16",
        same_bytes=False,
        zarr_format=3,
        chunks=shards,
        serializer=sharding,
        compressors=None,
    )


def test_a_null_fill_value_is_zero(tmp_path: Path) -> None:
    array = made(tmp_path / "a.zarr", "uint16", zarr_format=2, fill_value=None, compressors=None)
    files = chunk_files(array)
    assert files is not None
    out = np.ones(SHAPE, "uint16")
    files.read(whole(SHAPE), out)
    assert not out.any()


ELSEWHERE: dict[str, dict[str, Any]] = {
    "gzip": {"zarr_format": 2, "compressors": numcodecs.GZip(1)},
    "lz4 alone": {"zarr_format": 2, "compressors": numcodecs.LZ4()},
    "blosc and checksum": {"zarr_format": 3, "compressors": [BloscCodec(), Crc32cCodec()]},
    "another element": {"zarr_format": 3, "compressors": BloscCodec(typesize=4)},
    "big-endian": {"zarr_format": 3, "serializer": BytesCodec(endian="big")},
    "big-endian 2": {"zarr_format": 2, "dtype": ">u2"},
    "column-major": {"zarr_format": 2, "order": "F"},
    "filter": {"zarr_format": 2, "filters": [numcodecs.Delta("<u2")]},
    "gzip in shards": {"zarr_format": 3, "shards": (4, 16, 32), "compressors": GzipCodec()},
}


@pytest.mark.parametrize("layout", ELSEWHERE)
def test_all_else_is_left_to_zarr(tmp_path: Path, layout: str) -> None:
    assert chunk_files(made(tmp_path, **{"dtype": "uint16", **ELSEWHERE[layout]})) is None


def test_other_stores_are_left_to_zarr() -> None:
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=SHAPE, chunks=CHUNKS, dtype="uint16", compressors=None
    )
    assert chunk_files(array) is None


def _damaged(content: bytes, damage: str) -> bytes:
    return {
        "cut off": content[:-9],
        "longer": content + bytes(5),
        "empty": b"",
        "size": content[:4] + (2**30).to_bytes(4, "little") + content[8:],
        "nothing but sevens": b"\x07" * len(content),
    }[damage]


@pytest.mark.parametrize("damage", ["cut off", "longer", "empty", "size", "nothing but sevens"])
@pytest.mark.parametrize("codec", [numcodecs.Blosc("lz4"), numcodecs.Zstd(1), None])
def test_a_damaged_chunk_is_an_error(tmp_path: Path, codec: Any, damage: str) -> None:
    """Blosc itself trusts the header, and would read or write beyond the end of memory."""
    if codec is None and damage in ("size", "nothing but sevens"):
        pytest.skip("pixels without a codec cannot tell")
    array = made(tmp_path, "uint16", zarr_format=2, compressors=codec, shape=CHUNKS)
    array[...] = np.arange(256, dtype="uint16").reshape(CHUNKS)
    chunk = tmp_path / "a" / next(iter(contents(array)))
    chunk.write_bytes(_damaged(chunk.read_bytes(), damage))
    files = chunk_files(array)
    assert files is not None
    with pytest.raises((ValueError, RuntimeError)):
        files.read(whole(CHUNKS), np.empty(CHUNKS, "uint16"))


@pytest.mark.parametrize("size", [100, 255, 256, 300, 65_791, 65_792, 100_000])
def test_the_size_in_a_zstd_frame(size: int) -> None:
    frame = numcodecs.Zstd(1).encode(os.urandom(size))
    assert encodings._zstd_size(memoryview(frame)) == size


def test_zstd_frames_of_another_size(tmp_path: Path) -> None:
    """A chunk of fewer pixels would leave the rest of the block as it was."""
    codec = numcodecs.Zstd(1)
    array = made(tmp_path, "uint16", zarr_format=2, compressors=codec, shape=CHUNKS)
    array[...] = 7
    (tmp_path / "a" / "0.0.0").write_bytes(codec.encode(np.arange(100, dtype="uint16")))
    files = chunk_files(array)
    assert files is not None
    with pytest.raises(ValueError, match="200 bytes instead of 512"):
        files.read(whole(CHUNKS), np.empty(CHUNKS, "uint16"))


def test_zstd_frames_that_do_not_say_their_size(tmp_path: Path) -> None:
    """As streams are written: magic, no size, a window of 1 kB, one raw block."""
    values = np.arange(256, dtype="uint16").reshape(CHUNKS)
    frame = b"\x28\xb5\x2f\xfd\x00\x00" + (1 | 512 << 3).to_bytes(3, "little")
    array = made(tmp_path, "uint16", zarr_format=2, compressors=numcodecs.Zstd(1), shape=CHUNKS)
    array[...] = 7
    (tmp_path / "a" / "0.0.0").write_bytes(frame + values.tobytes())
    files = chunk_files(array)
    assert files is not None
    out = np.empty(CHUNKS, "uint16")
    files.read(whole(CHUNKS), out)
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize("damage", ["cut off", "empty", "checksum", "beyond"])
def test_a_damaged_shard_is_an_error(tmp_path: Path, damage: str) -> None:
    array = made(
        tmp_path, "uint16", zarr_format=3, shape=(4, 16, 32), shards=(4, 16, 32), compressors=None
    )
    array[...] = pixels("uint16", (4, 16, 32))
    shard = tmp_path / "a" / next(iter(contents(array)))
    content = shard.read_bytes()
    files = chunk_files(array)
    assert files is not None and files.encoding.index is not None
    if damage == "checksum":
        content = content[:-20] + b"\x01" + content[-19:]
    elif damage == "beyond":
        places = np.full((8, 2), 100_000, np.uint64)
        content = content[: -files.encoding.index.length(8)] + files.encoding.index.encode(places)
    else:
        content = content[:-9] if damage == "cut off" else b""
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="shard|file"):
        files.read(whole((4, 16, 32)), np.empty((4, 16, 32), "uint16"))


@pytest.fixture
def kept():
    """Buffers of whole pages, as while blocks are computed."""
    with freed_memory_kept:
        yield


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The flags with which the test opens its files; threads of others open theirs meanwhile."""
    flags: list[int] = []
    real = os.open

    def noted(path: Any, flag: int, *rest: Any, **more: Any) -> int:
        if str(path).startswith(str(tmp_path)):
            flags.append(flag)
        return real(path, flag, *rest, **more)

    monkeypatch.setattr(output_file.os, "open", noted)
    return flags


def written(path: Path, parts: list[bytes]) -> bytes:
    path.write_bytes(b"an older and longer file" * 2_000_000)
    with OutputFile(path, DIRECT_BYTES) as file:
        for part in parts:
            file.write(part)
    assert file.length == sum(map(len, parts))
    return path.read_bytes()


direct_only = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no direct writing here")
PARTS = [os.urandom(n) for n in (5, 9 * 2**20, 8 * 2**20 - 5, 3, 4096)]


@direct_only
def test_large_files_pass_by_the_page_cache(tmp_path: Path, kept: None, opened: list[int]) -> None:
    assert written(tmp_path / "file", PARTS) == b"".join(PARTS)
    assert opened[-1] & os.O_DIRECT


@pytest.mark.parametrize("room", [1, 4095, 4096, 5000, STAGE_BYTES, STAGE_BYTES + 1])
@pytest.mark.parametrize("length", [0, 7, STAGE_BYTES - 5000, STAGE_BYTES, 2 * STAGE_BYTES + 3])
def test_room_at_the_beginning_is_filled_at_the_end(
    tmp_path: Path, kept: None, opened: list[int], length: int, room: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"an older and longer file" * 2_000_000)
    begin, rest = os.urandom(room), os.urandom(length)
    opened.clear()
    with OutputFile(path, DIRECT_BYTES) as file:
        file.leave_room(room)
        file.write(rest)
        file.fill_room(begin)
        assert file.length == room + length
    assert path.read_bytes() == begin + rest
    assert len(opened) == 1, "past the cache and through it"


def test_room_is_filled_whole(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="3 bytes for the room of 4"),
        OutputFile(tmp_path / "file", 10) as file,
    ):
        file.leave_room(4)
        file.fill_room(b"abc")


@direct_only
def test_a_whole_chunk_is_written_directly(tmp_path: Path, kept: None, opened: list[int]) -> None:
    shape = (64, 256, 256)
    array = made(tmp_path, "uint16", zarr_format=2, shape=shape, chunks=shape, compressors=None)
    files = chunk_files(array)
    assert files is not None
    values = pixels("uint16", shape)
    opened.clear()
    files.write(whole(shape), values)
    assert [bool(flag & os.O_DIRECT) for flag in opened] == [True]
    np.testing.assert_array_equal(np.asarray(array[...]), values)


@direct_only
def test_zarrs_own_setting_is_followed(tmp_path: Path, kept: None, opened: list[int]) -> None:
    with zarr.config.set({"codec_pipeline.direct_io": False}):
        assert written(tmp_path / "file", PARTS) == b"".join(PARTS)
    assert not opened[-1] & os.O_DIRECT


@direct_only
@pytest.mark.parametrize("where", ["open", "write"])
def test_file_systems_that_need_their_cache(
    tmp_path: Path, kept: None, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    import fcntl

    opening, writing = os.open, os.write

    def refuse_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opening(path, flags, *rest, **more)

    def refuse_write(descriptor: int, data: Any) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return writing(descriptor, data)

    monkeypatch.setattr(output_file.os, where, refuse_open if where == "open" else refuse_write)
    assert written(tmp_path / "file", PARTS) == b"".join(PARTS)
    with OutputFile(tmp_path / "with room", DIRECT_BYTES) as file:
        file.leave_room(100)
        file.write(PARTS[1])
        file.fill_room(PARTS[0] * 20)
    assert (tmp_path / "with room").read_bytes() == PARTS[0] * 20 + PARTS[1]


def test_a_full_disk_is_an_error(
    tmp_path: Path, kept: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    monkeypatch.setattr(output_file.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path / "file", PARTS)
    after = set(os.listdir("/proc/self/fd")) if before else set()
    assert len(after) == len(before), "the file stays open"


def test_without_kept_buffers_the_cache_is_used(tmp_path: Path) -> None:
    assert written(tmp_path / "folder", PARTS) == b"".join(PARTS)
    path = tmp_path / "new" / "folders" / "file"
    with OutputFile(path, DIRECT_BYTES - 1) as file:
        file.write(b"content")
    assert path.read_bytes() == b"content"
