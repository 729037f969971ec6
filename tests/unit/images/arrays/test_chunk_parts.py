"""Parts of chunks decoded without the rest: the same pixels, from no more bytes than they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from numcodecs import blosc
from zarr.codecs import BloscCodec

from fractal_mesospim_shading.images.arrays import chunk_parts, encodings
from fractal_mesospim_shading.images.arrays.chunk_files import chunk_files
from fractal_mesospim_shading.images.arrays.chunk_parts import Piece, decode_all, decoded_between
from fractal_mesospim_shading.images.arrays.encodings import Encoding
from fractal_mesospim_shading.images.arrays.reading import read_pixels

SHAPE = (16, 128, 160)
BLOCK = 65536
"""Bytes of the blocks that blosc makes of these, where fewer are asked for."""
CODECS = {
    f"{name}, {shuffle}, blocks of {block or 'its own size'}": blosc.Blosc(name, 5, shuffle, block)
    for name, shuffle, block in [
        ("lz4", 1, 0),
        ("lz4", 1, 8192),
        ("lz4", 2, 5000),
        ("lz4", 0, 1024),
        ("zstd", 1, 0),
        ("zstd", 2, 16384),
        ("blosclz", 1, 4096),
        ("zlib", 1, 30_000),
        ("lz4hc", 2, 512),
    ]
}
CODECS["lz4, as it is"] = blosc.Blosc("lz4", 0, 1, 8192)
CODECS["none"] = None


def planes(dtype: str, shape: tuple[int, ...] = SHAPE, *, random: bool = False) -> np.ndarray:
    values = np.random.default_rng(3).poisson(200.0, shape)
    if random:
        values = np.random.default_rng(4).integers(0, 255, shape)
    return values.astype(dtype)


Made = Callable[..., Piece]


@pytest.fixture
def piece_of(tmp_path: Path) -> Iterator[Made]:
    """A chunk in a file, between other bytes: its content, and the size of its pixels."""
    with ExitStack() as files:

        def made_of(content: bytes, size: int, before: int = 0) -> Piece:
            path = tmp_path / "chunk"
            path.write_bytes(bytes(before) + content + b"what follows")
            return Piece(files.enter_context(FileIO(path)), before, len(content), size)

        yield made_of


def encoded(codec: Any, values: np.ndarray) -> bytes:
    flat = values.reshape(-1)
    return flat.tobytes() if codec is None else bytes(codec.encode(flat))


def check(piece: Piece, codec: Any, values: np.ndarray) -> None:
    """Ranges at the ends and in the middle, and some at random, against the whole."""
    content, size = values.tobytes(), values.nbytes
    rng = np.random.default_rng(5)
    ranges = [(0, 1), (size - 1, size), (0, size), (1, size - 1), (size // 2, size // 2 + 7)]
    ranges += [tuple(sorted(rng.integers(0, size + 1, 2).tolist())) for _ in range(30)]
    for first, stop in ranges:
        if first == stop:
            continue
        found, begin = decoded_between(Encoding(codec, None), piece, first, stop)
        assert begin <= first and begin + len(found) >= stop
        assert found.tobytes()[first - begin : stop - begin] == content[first:stop]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("codec", CODECS)
def test_any_bytes_of_a_chunk(piece_of: Made, codec: str, dtype: str) -> None:
    values = planes(dtype)
    content = encoded(CODECS[codec], values)
    check(piece_of(content, values.nbytes, 77), CODECS[codec], values)


def check_all(
    monkeypatch: pytest.MonkeyPatch, piece: Piece, codec: Any, values: np.ndarray
) -> None:
    """The whole chunk at once and in runs of blocks: some at a time, one, more than there are."""
    for run in (1, 7000, 20_000, values.nbytes // 3, values.nbytes // 2, values.nbytes):
        monkeypatch.setattr(chunk_parts, "RUN_BYTES", run)
        out = np.full(values.shape, 7, values.dtype)
        decode_all(Encoding(codec, None), piece, out)
        assert out.tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planes_less", [0, 1, 5])
@pytest.mark.parametrize("codec", CODECS)
def test_all_of_a_chunk_in_runs_of_blocks(
    monkeypatch: pytest.MonkeyPatch, piece_of: Made, codec: str, dtype: str, planes_less: int
) -> None:
    values = planes(dtype, (SHAPE[0] - planes_less, SHAPE[1] - planes_less, SHAPE[2]))
    content = encoded(CODECS[codec], values)
    check_all(monkeypatch, piece_of(content, values.nbytes, 77), CODECS[codec], values)


@pytest.mark.parametrize("more", [0, 1, 999, 65_535])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_a_last_block_that_is_shorter_than_a_run(
    monkeypatch: pytest.MonkeyPatch, piece_of: Made, blocks: int, more: int
) -> None:
    """Whatever is left for the last run, blosc takes a shorter block behind a whole one only."""
    values = planes("uint8", (blocks * BLOCK + more,))
    codec = CODECS["lz4, 1, blocks of 8192"]
    content = one_after_the_other(codec, values)
    check_all(monkeypatch, piece_of(content, values.nbytes), codec, values)


def test_a_large_chunk_is_decoded_with_some_of_its_file_in_memory(
    monkeypatch: pytest.MonkeyPatch, piece_of: Made
) -> None:
    codec, values = CODECS["lz4, 1, blocks of 8192"], planes("uint16")
    piece = piece_of(encoded(codec, values), values.nbytes)
    monkeypatch.setattr(chunk_parts, "RUN_BYTES", BLOCK)
    held, reading = [], encodings.read_into

    def noting(file: FileIO, start: int, view: memoryview) -> None:
        held.append(len(view))
        reading(file, start, view)

    monkeypatch.setattr(encodings, "read_into", noting)
    monkeypatch.setattr(chunk_parts, "read_into", noting)
    decode_all(Encoding(codec, None), piece, np.empty_like(values))
    assert max(held) < 2 * BLOCK
    assert sum(held) < piece.length + 2 * chunk_parts._HEAD


@pytest.mark.parametrize("codec", ["lz4, 1, blocks of 8192", "zstd, 2, blocks of 16384"])
def test_a_chunk_that_cannot_be_made_smaller(
    monkeypatch: pytest.MonkeyPatch, piece_of: Made, codec: str
) -> None:
    """Blosc leaves such bytes as they are, with a flag."""
    values = planes("uint8", random=True)
    content = encoded(CODECS[codec], values)
    assert content[2] & chunk_parts.BARE
    check(piece_of(content, values.nbytes), CODECS[codec], values)
    check_all(monkeypatch, piece_of(content, values.nbytes), CODECS[codec], values)


def one_after_the_other(codec: Any, values: np.ndarray) -> bytes:
    """Encoded by one thread of blosc."""
    before, blosc.use_threads = blosc.use_threads, False
    try:
        return encoded(codec, values)
    finally:
        blosc.use_threads = before


def in_another_order(content: bytes, order: np.ndarray) -> bytes:
    """A blosc chunk whose blocks lie in another order, as several threads write them."""
    count = len(order)
    table = 16 + 4 * count
    starts = np.frombuffer(content[16:table], "<i4")
    stops = np.append(starts[1:], len(content))
    parts, places, place = [], np.zeros(count, "<i4"), table
    for block in order:
        places[block] = place
        parts.append(content[starts[block] : stops[block]])
        place += len(parts[-1])
    return content[:16] + places.tobytes() + b"".join(parts)


def test_blocks_in_any_order(monkeypatch: pytest.MonkeyPatch, piece_of: Made) -> None:
    codec, values = CODECS["lz4, 1, blocks of 8192"], planes("uint16")
    content = one_after_the_other(codec, values)
    order = np.random.default_rng(1).permutation(values.nbytes // BLOCK)
    shuffled = in_another_order(content, order)
    assert shuffled != content and codec.decode(shuffled) == values.tobytes()
    check(piece_of(shuffled, values.nbytes), codec, values)
    check_all(monkeypatch, piece_of(shuffled, values.nbytes), codec, values)


def test_more_blocks_than_are_looked_at_first(piece_of: Made) -> None:
    codec, values = blosc.Blosc("lz4hc", 5, 2, 512), planes("float64")
    content = encoded(codec, values)
    assert 4 * values.nbytes // int.from_bytes(content[8:12], "little") > chunk_parts._HEAD
    check(piece_of(content, values.nbytes), codec, values)


def test_what_threads_of_blosc_write(piece_of: Made) -> None:
    values = planes("uint16", (32, 256, 256))
    before, blosc.use_threads = blosc.use_threads, True
    threads = blosc.set_nthreads(4)
    try:
        content = bytes(blosc.compress(values.tobytes(), b"lz4", 5, 1, 65536))
    finally:
        blosc.use_threads = before
        blosc.set_nthreads(threads)
    check(
        piece_of(content, values.nbytes),
        CODECS["lz4, 1, blocks of 8192"],
        values,
    )


def test_a_damaged_header_of_a_chunk_that_cannot_be_made_smaller(
    monkeypatch: pytest.MonkeyPatch, piece_of: Made
) -> None:
    """Its pixels need no header; blosc refuses it, and so does a part of it."""
    codec, values = CODECS["lz4, as it is"], planes("uint16")
    content = encoded(codec, values)
    assert content[2] & chunk_parts.BARE
    wrong = content[:8] + (2**31).to_bytes(4, "little") + content[12:]
    monkeypatch.setattr(chunk_parts, "RUN_BYTES", BLOCK)
    piece, encoding = piece_of(wrong, values.nbytes), Encoding(codec, None)
    with pytest.raises((ValueError, RuntimeError)):
        decode_all(encoding, piece, np.empty_like(values))
    with pytest.raises((ValueError, RuntimeError)):
        decoded_between(encoding, piece, 100, 300)


def damaged(content: bytes, damage: str) -> bytes:
    return {
        "cut off": content[:-9],
        "longer": content + bytes(5),
        "of other pixels": content[:4] + (2**20).to_bytes(4, "little") + content[8:],
        "blocks beyond": content[:16] + np.full(10, 10**9, "<i4").tobytes() + content[56:],
        "blocks before": content[:16] + np.full(10, -5, "<i4").tobytes() + content[56:],
        "blocks of nothing": content[:8] + bytes(4) + content[12:],
        "size in the first block": content[:56] + b"\xff\xff\xff\x7f" + content[60:],
        "sevens": b"\x07" * len(content),
        "empty": b"",
    }[damage]


@pytest.mark.parametrize(
    "damage",
    ["cut off", "longer", "of other pixels", "blocks beyond", "blocks before", "blocks of nothing",
     "sevens", "empty"],
)  # fmt: skip
def test_a_damaged_chunk_is_an_error(
    monkeypatch: pytest.MonkeyPatch, piece_of: Made, damage: str
) -> None:
    codec, values = CODECS["lz4, 1, blocks of 8192"], planes("uint16")
    content = damaged(encoded(codec, values), damage)
    piece = piece_of(content, values.nbytes)
    with pytest.raises((ValueError, RuntimeError)):
        decoded_between(Encoding(codec, None), piece, 100, 300)
    monkeypatch.setattr(chunk_parts, "RUN_BYTES", BLOCK)
    with pytest.raises((ValueError, RuntimeError)):
        decode_all(Encoding(codec, None), piece, np.empty_like(values))


def test_a_damaged_block_is_an_error_where_it_is_asked_for(piece_of: Made) -> None:
    codec, values = CODECS["lz4, 1, blocks of 8192"], planes("uint16")
    content = damaged(one_after_the_other(codec, values), "size in the first block")
    piece = piece_of(content, values.nbytes)
    with pytest.raises((ValueError, RuntimeError)):
        decoded_between(Encoding(codec, None), piece, 0, 300)
    found, begin = decoded_between(Encoding(codec, None), piece, values.nbytes - 300, values.nbytes)
    assert found.tobytes() == values.tobytes()[begin:]


def made(path: Path, codec: Any, version: int, **settings: Any) -> zarr.Array[Any]:
    group = zarr.open_group(path, mode="w", zarr_format=version)
    return group.create_array(
        "a", shape=(48, 192, 160), dtype="uint16", compressors=codec, **settings
    )


LAYOUTS: dict[str, dict[str, Any]] = {
    "2": {"version": 2, "codec": numcodecs.Blosc("lz4", 5, 1, 4096), "chunks": SHAPE},
    "3": {"version": 3, "codec": BloscCodec(cname="lz4", blocksize=4096), "chunks": SHAPE},
    "3 in shards": {
        "version": 3,
        "codec": BloscCodec(cname="zstd", shuffle="bitshuffle", blocksize=4096),
        "chunks": SHAPE,
        "shards": (32, 128, 160),
    },
    "bare": {"version": 2, "codec": None, "chunks": SHAPE},
    "zstd": {"version": 2, "codec": numcodecs.Zstd(3), "chunks": SHAPE},
}
BOXES = [
    (slice(0, 1), slice(0, 192), slice(0, 160)),
    (slice(15, 17), slice(10, 90), slice(3, 96)),
    (slice(7, 9), slice(0, 192), slice(0, 160)),
    (slice(47, 48), slice(191, 192), slice(159, 160)),
    (slice(5, 6), slice(20, 21), slice(3, 90)),
    (slice(3, 44), slice(127, 130), slice(0, 160)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_of_an_array(tmp_path: Path, layout: str) -> None:
    array = made(tmp_path, **LAYOUTS[layout])
    values = planes("uint16", (48, 192, 160))
    values[:16, :128] = 0  # A chunk that is not there.
    array[...] = values
    files = chunk_files(array)
    assert files is not None
    for box in BOXES:
        out = np.full([part.stop - part.start for part in box], 7, "uint16")
        files.read(box, out)
        np.testing.assert_array_equal(out, values[box])


@pytest.mark.parametrize("layout", ["2", "3", "3 in shards", "bare"])
def test_one_plane_takes_no_more_bytes_than_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    array = made(tmp_path, **LAYOUTS[layout])
    values = planes("uint16", (48, 192, 160))
    array[...] = values
    taken = {"read": 0, "decoded": 0}
    read_into, decode = encodings.read_into, Encoding.decode

    def reading(file: FileIO, start: int, view: memoryview) -> None:
        taken["read"] += len(view)
        read_into(file, start, view)

    def decoding(self: Encoding, piece: memoryview, out: np.ndarray) -> None:
        taken["decoded"] += out.nbytes
        decode(self, piece, out)

    monkeypatch.setattr(encodings, "read_into", reading)
    monkeypatch.setattr(chunk_parts, "read_into", reading)
    monkeypatch.setattr(Encoding, "decode", decoding)
    found, _ = read_pixels(array, BOXES[0])
    np.testing.assert_array_equal(found, values[BOXES[0]])
    chunk = int(np.prod(SHAPE)) * 2
    # A plane and less than two blocks beside it, in two chunks; headers and the index of shards.
    most = 2 * (chunk // 16 + 2 * BLOCK)
    assert taken["decoded"] <= most < chunk
    assert taken["read"] <= most + 2 * chunk_parts._HEAD + 4096
