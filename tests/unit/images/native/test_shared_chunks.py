"""Blocks of a mosaic whose stacks have their chunks elsewhere, against reading each by itself."""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import SourceReadError
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.arrays.file_states import noted_reads
from fractal_mesospim_shading.images.native import shared_chunks
from fractal_mesospim_shading.images.native.collection import SignOptions, TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack
from tests.support.sources import decoded_chunks

SETTINGS = SyntheticSettings(tile_shape=(32, 32), chunks=(4, 16, 16))
BLOCK = (1, 4, 16, 32)
STEP = SETTINGS.z_step_um
HUGE = 2**30


def _stacks(kind: str) -> list[SyntheticStack]:
    """Four tiles of two channels and 14 planes, of which each kind moves or turns some."""
    stacks = grid_stacks(2, 2, SETTINGS, lasers=("488 nm", "561 nm"), overlap_px=4)
    spans = {
        "aligned": lambda tile: (0, 13),
        "downward": lambda tile: (13, 0),
        "higher": lambda tile: (3 * tile, 3 * tile + 13),
        "mixed": lambda tile: (5 * tile, 5 * tile + 13) if tile % 2 else (17 - tile, 4 - tile),
    }
    spanned = [(stack, spans[kind](stack.tile)) for stack in stacks]
    return [replace(s, z_start_um=a * STEP, z_end_um=b * STEP) for s, (a, b) in spanned]


def _mosaic(folder: Path, kind: str, **more: Any) -> NativeMosaic:
    settings = replace(SETTINGS, **more)
    path = write_acquisition(folder, "brain.ome.zarr", _stacks(kind), settings)
    (mosaic,) = TileCollection.open(path, signs=SignOptions(-1, -1)).mosaics()
    return mosaic


def _index(box: Box, block: Sequence[int] = BLOCK) -> tuple[int, ...]:
    return tuple(s.start // b for s, b in zip(box, block, strict=True))


def _blocks(mosaic: NativeMosaic, block: Sequence[int] = BLOCK) -> list[Box]:
    counts = [range(ceil(n / b)) for n, b in zip(mosaic.shape, block, strict=True)]
    along = list(zip(block, mosaic.shape, strict=True))
    return [
        tuple(slice(i * b, min((i + 1) * b, n)) for i, (b, n) in zip(index, along, strict=True))
        for index in product(*counts)
    ]


def _whole(mosaic: NativeMosaic) -> NDArray[Any]:
    return mosaic.read(0, tuple(slice(0, size) for size in mosaic.shape))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Bytes of all that is left for other blocks, now and at most."""
    sizes = {"now": 0, "most": 0}
    lock, plain = threading.Lock(), shared_chunks.empty_array

    def gone(size: int) -> None:
        with lock:
            sizes["now"] -= size

    def watched(shape: Sequence[int], dtype: Any) -> Any:
        array = plain(shape, dtype)
        with lock:
            sizes["now"] += array.nbytes
            sizes["most"] = max(sizes["most"], sizes["now"])
        weakref.finalize(array, gone, array.nbytes)
        return array

    monkeypatch.setattr(shared_chunks, "empty_array", watched)
    yield sizes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["aligned", "downward", "higher", "mixed"])
@pytest.mark.parametrize("order", ["upward", "downward", "any"])
@pytest.mark.parametrize("shards", [None, (8, 32, 32)], ids=["chunks", "shards"])
def test_each_chunk_is_decoded_once_in_any_order(tmp_path, held, kind, order, shards):
    mosaic = _mosaic(tmp_path, kind, shards=shards)
    boxes = _blocks(mosaic)
    if order == "downward":
        boxes.reverse()
    elif order == "any":
        random.Random(3).shuffle(boxes)
    shared = mosaic.sharing(HUGE, BLOCK, ())
    with decoded_chunks() as decoded:
        found = [shared.read_block(box) for box in boxes]
    # Of 8 stacks, each 4 x 2 x 2.
    assert len(decoded) == 8 * 16
    assert set(decoded.values()) == {1}
    for box, pixels in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(pixels, mosaic.read(0, box))
    assert held["now"] == 0
    assert (held["most"] > 0) == (kind != "aligned")


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 8, 12])
def test_thinner_blocks_leave_nothing(tmp_path, held, depth):
    """More than two of them may share a chunk; thicker ones leave what two share."""
    mosaic = _mosaic(tmp_path, "mixed")
    whole, block = _whole(mosaic), (1, depth, 32, 16)
    shared = mosaic.sharing(HUGE, block, ())
    with decoded_chunks() as decoded:
        for box in _blocks(mosaic, block):
            np.testing.assert_array_equal(shared.read_block(box), whole[box])
    assert (max(decoded.values()) == 1) == (depth >= 4)
    assert held["now"] == 0
    assert (held["most"] > 0) == (depth >= 4)


def test_threads_wait_for_each_other(tmp_path, held):
    mosaic = _mosaic(tmp_path, "mixed")
    shared = mosaic.sharing(HUGE, BLOCK, ())
    boxes = sorted(_blocks(mosaic), key=lambda box: (box[0].start, box[2].start, box[3].start))
    with decoded_chunks() as decoded, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(shared.read_block, boxes))
    assert set(decoded.values()) == {1}
    for box, pixels in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(pixels, mosaic.read(0, box))
    assert held["now"] == 0


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.7, 1])
def test_no_more_is_held_than_there_is_room_for(tmp_path, held, share):
    """What does not fit is decoded for both blocks."""
    mosaic = _mosaic(tmp_path, "downward")
    whole, room = _whole(mosaic), int(share * mosaic.shared_bytes(BLOCK, 1))
    shared = mosaic.sharing(room, BLOCK, ())
    with decoded_chunks() as decoded:
        for box in _blocks(mosaic):
            np.testing.assert_array_equal(shared.read_block(box), whole[box])
    # Three of four chunks along z lie at a border.
    assert max(decoded.values()) <= 2
    again = sum(decoded.values()) - 8 * 16
    assert (again == 0) == (share == 1)
    assert (again == 8 * 12) == (share <= 0.02)
    assert held["most"] <= room
    assert held["now"] == 0


def test_what_is_foreseen_is_enough_from_the_first_block_to_the_last(tmp_path, held):
    for kind in ("downward", "higher", "mixed"):
        mosaic = _mosaic(tmp_path / kind, kind)
        room = mosaic.shared_bytes(BLOCK, 1)
        shared = mosaic.sharing(room, BLOCK, ())
        with decoded_chunks() as decoded:
            for box in _blocks(mosaic):
                shared.read_block(box)
        assert set(decoded.values()) == {1}, kind


def test_nothing_is_foreseen_where_chunks_begin_with_blocks(tmp_path):
    assert _mosaic(tmp_path / "a", "aligned").shared_bytes(BLOCK, 2) == 0
    mosaic = _mosaic(tmp_path / "b", "downward")
    # The last planes, which lie lowest, fill half a chunk: so at each border 2 planes lie above it.
    above = 2 * prod(mosaic.shape[-2:]) * 2
    assert mosaic.shared_bytes(BLOCK, 3) == above + 3 * 2 * prod(BLOCK) * 2
    # Thinner blocks share nothing.
    assert mosaic.shared_bytes((1, 3, 16, 32), 3) == 0


def test_nothing_is_left_for_blocks_that_are_done(tmp_path, held):
    mosaic = _mosaic(tmp_path, "mixed")
    boxes = _blocks(mosaic)
    random.Random(1).shuffle(boxes)
    done, rest = boxes[:40], boxes[40:]
    shared = mosaic.sharing(HUGE, BLOCK, {_index(box) for box in done})
    with decoded_chunks() as decoded:
        found = [shared.read_block(box) for box in rest]
    assert set(decoded.values()) == {1}
    for box, pixels in zip(rest, found, strict=True):
        np.testing.assert_array_equal(pixels, mosaic.read(0, box))
    assert held["most"] > 0
    assert held["now"] == 0


def test_both_blocks_note_the_file(tmp_path):
    mosaic = _mosaic(tmp_path, "mixed")
    shared = mosaic.sharing(HUGE, BLOCK, ())
    for box in _blocks(mosaic):
        with noted_reads() as wanted:
            mosaic.read(0, box)
        with noted_reads() as found:
            shared.read_block(box)
        assert sorted(found.records()) == sorted(wanted.records())


def test_a_block_that_is_read_again_is_the_same(tmp_path):
    mosaic = _mosaic(tmp_path, "downward")
    shared = mosaic.sharing(HUGE, BLOCK, ())
    for box in _blocks(mosaic):
        for _ in range(3):
            np.testing.assert_array_equal(shared.read_block(box), mosaic.read(0, box))


def test_a_damaged_chunk_is_named_by_both_blocks(tmp_path):
    mosaic = _mosaic(tmp_path, "downward")
    group = mosaic.placed[0].stack.group
    chunk = tmp_path / "brain.ome.zarr" / group / "0" / "c" / "1" / "0" / "0"
    chunk.write_bytes(b"no pixels")
    shared = mosaic.sharing(HUGE, BLOCK, ())
    failed = []
    for box in _blocks(mosaic):
        try:
            shared.read_block(box)
        except SourceReadError as error:
            assert f"{group}/0/c/1/0/0" in str(error)
            failed.append(box)
    assert len(failed) == 2


def test_planes_that_are_handed_on_are_counted(tmp_path):
    mosaic = _mosaic(tmp_path, "mixed")
    assert {placed.stack.downward for placed in mosaic.placed} == {False, True}
    for placed in mosaic.placed:
        chunk_of = {placed.plane_of(index): index // 4 for index in range(14)}
        assert sorted(chunk_of) == list(placed.planes)
        for z in range(mosaic.depth):
            above = [p for p, c in chunk_of.items() if p >= z and c == chunk_of.get(z - 1)]
            assert placed.handed_on(z) == len(above)
