"""Large chunks encoded some blocks at a time: the bytes that the codec makes of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import freed_memory_kept
from fractal_mesospim_shading.images.arrays import chunk_parts, output_file
from fractal_mesospim_shading.images.arrays.chunk_files import chunk_files
from fractal_mesospim_shading.images.arrays.chunk_runs import encoded_bytes, written_in_runs
from fractal_mesospim_shading.images.arrays.encodings import Encoding
from fractal_mesospim_shading.images.arrays.output_file import OutputFile

CODECS = {
    f"{name}-{level}, shuffle {shuffle}, blocks of {block or 'its own size'}": blosc.Blosc(
        name, level, shuffle, block
    )
    for name, level, shuffle, block in [
        ("lz4", 5, 1, 0),
        ("lz4", 1, 2, 0),
        ("lz4", 9, -1, 8192),
        ("lz4", 5, 0, 5000),
        ("lz4", 5, 1, 777),
        ("lz4hc", 5, 2, 4096),
        ("zstd", 1, 1, 0),
        ("zstd", 5, 2, 0),
        ("zstd", 9, 1, 30_000),
        ("blosclz", 5, 1, 0),
        ("blosclz", 9, 0, 4096),
        ("zlib", 3, 1, 0),
    ]
}
RUN = 2**21
"""Bytes of a run in these tests: more than the longest blocks, of 1 MiB."""


def noise(count: int, dtype: str, seed: int = 1) -> NDArray[Any]:
    """Numbers of which no block becomes smaller."""
    itemsize = np.dtype(dtype).itemsize
    return np.frombuffer(np.random.default_rng(seed).bytes(count * itemsize), dtype)


def light(count: int, dtype: str) -> NDArray[Any]:
    return np.random.default_rng(2).poisson(200.0, count).astype(dtype)


def written(folder: Path, codec: Any, values: NDArray[Any]) -> bytes | None:
    """What is in the file; None where the chunk is left to the codec."""
    path = folder / "chunk"
    done = written_in_runs(Encoding(codec, None), values, lambda: OutputFile(path, values.nbytes))
    return path.read_bytes() if done else None


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_parts, "RUN_BYTES", RUN)


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("codec", CODECS)
def test_the_same_bytes(tmp_path: Path, codec: str, dtype: str) -> None:
    itemsize = np.dtype(dtype).itemsize
    for size in (2 * RUN, 3 * RUN + 8, 5 * RUN - 4096):
        values = light(size // itemsize, dtype)
        assert written(tmp_path, CODECS[codec], values) == CODECS[codec].encode(values)


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize("codec", CODECS)
def test_noise_among_light(tmp_path: Path, codec: str) -> None:
    """Runs of which no block becomes smaller lie between others, at the beginning, at the end."""
    part = RUN // 2
    some, none = light(part, "uint16"), noise(part, "uint16")
    for order in ([none, some, some], [some, none, none, some], [some, some, none]):
        values = np.concatenate(order)
        assert written(tmp_path, CODECS[codec], values) == CODECS[codec].encode(values)


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize("codec", CODECS)
def test_nothing_but_noise(tmp_path: Path, codec: str) -> None:
    values = noise(3 * RUN // 2 + 5, "uint16")
    whole = CODECS[codec].encode(values)
    assert whole[2] & chunk_parts.BARE
    assert written(tmp_path, CODECS[codec], values) == whole


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize("codec", CODECS)
def test_zeros_and_a_single_pixel(tmp_path: Path, codec: str) -> None:
    values = np.zeros(3 * RUN // 2, "uint16")
    values[-1] = 7
    assert written(tmp_path, CODECS[codec], values) == CODECS[codec].encode(values)


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize("zeros", range(0, 2600, 100))
@pytest.mark.parametrize("codec", [blosc.Blosc("lz4", 5, 1, 8192), blosc.Blosc("zstd", 3, 1, 8192)])
def test_hardly_any_room(tmp_path: Path, codec: Any, zeros: int) -> None:
    """Noise that becomes about as much smaller as header and table take, anywhere in it."""
    in_last_block = 3 * RUN // 2 - 3000
    for place in (0, RUN // 2, in_last_block):
        values = noise(3 * RUN // 2, "uint16").copy()
        values[place : place + zeros] = 0
        content, whole = written(tmp_path, codec, values), codec.encode(values)
        if content is None:
            # What the last block leaves comes too late for it.
            assert zeros and (values.nbytes + 16 - len(whole) < 64 or place == in_last_block)
        else:
            assert content == whole


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(1, 40_000), st.integers(0, 2**16), st.booleans()), min_size=1
    ),
    block=st.sampled_from([0, 512, 3000, 8192, 40_000]),
    name=st.sampled_from(["lz4", "zstd", "blosclz"]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    run=st.sampled_from([20_000, 2**15, 100_000]),
)
def test_whatever_the_pixels(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[tuple[int, int, bool]],
    block: int,
    name: str,
    dtype: str,
    run: int,
) -> None:
    pixels = [
        noise(count, dtype, seed) if noisy else np.full(count, seed % 251, dtype)
        for count, seed, noisy in parts
    ]
    values = np.concatenate(pixels)
    codec = blosc.Blosc(name, 5, 1, block)
    run = run // 8 * 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_parts, "RUN_BYTES", run)
        content = written(tmp_path_factory.mktemp("any"), codec, values)
    assert content is None or content == codec.encode(values)


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize(
    ("codec", "size"),
    [
        (None, 4 * RUN),
        (Zstd(1), 4 * RUN),
        (blosc.Blosc("lz4", 0, 1), 4 * RUN),
        (blosc.Blosc("zstd", 5, 1, 2 * RUN), 4 * RUN),
        (blosc.Blosc("lz4", 5, 1), 2 * RUN - 2),
    ],
    ids=["none", "zstd", "as it is", "blocks longer than a run", "small"],
)
def test_others_are_left_to_their_codec(tmp_path: Path, codec: Any, size: int) -> None:
    assert written(tmp_path, codec, light(size // 2, "uint16")) is None


class Counted(blosc.Blosc):
    """Notes what it is given."""

    given: list[int]

    def encode(self, buf: Any) -> Any:
        self.given.append(memoryview(buf).nbytes)
        return super().encode(buf)


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize("noisy", [False, True])
def test_no_more_than_a_run_is_encoded_at_a_time(tmp_path: Path, noisy: bool) -> None:
    codec = Counted("lz4", 5, 1)
    codec.given = []
    values = (noise if noisy else light)(8 * RUN, "uint16")
    assert written(tmp_path, codec, values) is not None
    block = 2**19
    assert max(codec.given) < RUN + 2 * block
    assert sum(codec.given) < (3 if noisy else 1.1) * values.nbytes
    assert encoded_bytes(Encoding(codec, None), values.nbytes) == 4 * RUN


@pytest.mark.usefixtures("short_runs")
def test_blocks_in_another_order_are_left_to_the_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As several threads of blosc write them."""
    codec = CODECS["lz4-5, shuffle 0, blocks of 5000"]
    real = blosc.Blosc.encode

    def turned(self: Any, buf: Any) -> bytes:
        content = bytearray(real(self, buf))
        content[16:20], content[20:24] = content[20:24], content[16:20]
        return bytes(content)

    monkeypatch.setattr(blosc.Blosc, "encode", turned)
    assert written(tmp_path, codec, light(2 * RUN, "uint16")) is None


@pytest.mark.parametrize("kept", [False, True], ids=["through the cache", "past the cache"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("noisy", [False, True])
def test_chunks_of_an_array(tmp_path: Path, zarr_format: Any, noisy: bool, kept: bool) -> None:
    """Runs as long as they are; the last chunks are cut off by the end of the array."""
    shape, chunk = (20, 1024, 1000), (12, 1024, 1024)
    settings: dict[str, Any] = {"shape": shape, "chunks": chunk, "dtype": "uint16"}
    if zarr_format == 2:
        settings["compressors"] = blosc.Blosc("zstd", 1, 2)
    else:
        settings["compressors"] = zarr.codecs.BloscCodec(
            typesize=2, cname="zstd", clevel=1, shuffle="bitshuffle"
        )
    make = (noise if noisy else light)(20 * 1024 * 1000, "uint16")
    values = make.reshape(shape)
    theirs = zarr.create_array(str(tmp_path / "theirs"), zarr_format=zarr_format, **settings)
    theirs[...] = values
    ours = zarr.create_array(str(tmp_path / "ours"), zarr_format=zarr_format, **settings)
    files = chunk_files(ours)
    assert files is not None
    if kept:
        with freed_memory_kept:
            files.write([slice(0, n) for n in shape], values)
    else:
        files.write([slice(0, n) for n in shape], values)
    for path in sorted(p for p in (tmp_path / "theirs").rglob("*") if p.is_file()):
        other = tmp_path / "ours" / path.relative_to(tmp_path / "theirs")
        assert other.read_bytes() == path.read_bytes()


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_file.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, blosc.Blosc("lz4", 5, 1), light(2**24, "uint16"))
