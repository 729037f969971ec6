"""Zeros of blocks that cut tiles are told like those of whole planes."""

from __future__ import annotations

import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.zeros import zeros_without_data
from fractal_mesospim_shading.engine import zero_look
from fractal_mesospim_shading.engine.zero_look import (
    ZeroLook,
    no_data_held,
    no_data_met,
    tell_zeros,
)
from fractal_mesospim_shading.images.source import Axes

LAYOUT = TileLayout.from_origins([(0, 0), (0, 80), (90, 0), (90, 80)], (90, 80), (180, 160))


class Source:
    """An image in memory that counts what is read."""

    def __init__(self, data, grain):
        self.data, self.grain, self.boxes = data, grain, []
        self.dtype = data.dtype
        self.levels = (SimpleNamespace(shape=data.shape),)

    def read(self, level, box):
        self.boxes.append(box)
        return self.data[box].copy()

    def read_grain(self):
        return self.grain


def planes(seed=0, shape=(2, 7, 180, 160)):
    rng = np.random.default_rng(seed)
    data = np.rint(400 + rng.normal(0, 9, shape)).astype("uint16")
    data[:, :3, :11] = 0
    data[:, 2:4, 90:, 80:] = 0
    data[1, :, 20:70, 5:61] = 0
    data[0, 5, 100:140, 70:120] = 0  # across two tiles: 10 and 40 columns of it
    data[:, ::2, 50, 150] = 0
    return data


def tile_by_tile(data):
    without, blocks = np.zeros(data.shape, bool), 0
    for tile in LAYOUT.tiles:
        part = (..., slice(tile.y, tile.y + 90), slice(tile.x, tile.x + 80))
        mask, number = zeros_without_data(data[part], "look")
        without[part] = False if mask is None else mask
        blocks += number
    return without, blocks


@pytest.mark.parametrize("cut", [(7, 180, 160), (7, 90, 80), (2, 64, 64), (3, 50, 33), (1, 7, 160)])
def test_blocks_add_up_to_whole_planes(cut):
    data = planes()
    source = Source(data, (1, 2, 64, 48))
    look = ZeroLook(Axes("czyx"), (LAYOUT,), ("look", "look"))
    without, values = np.zeros(data.shape, bool), np.zeros(data.shape, bool)
    counts = PixelCounts()
    starts = [range(0, size, step) for size, step in zip(data.shape[1:], cut, strict=True)]
    for c, *start in product(range(2), *starts):
        z, y, x = (
            slice(a, min(a + step, size))
            for a, step, size in zip(start, cut, data.shape[1:], strict=True)
        )
        found = look.zeros(source, {"t": 0, "c": c}, z, (y, x), data[c, z, y, x])
        counts += PixelCounts(**found.counted())
        if found.without_data is not None:
            without[c, z, y, x] = found.without_data
        if found.values is not None:
            values[c, z, y, x] = found.values
    wanted, blocks = tile_by_tile(data)
    np.testing.assert_array_equal(without, wanted)
    np.testing.assert_array_equal(values, (data == 0) & ~wanted)
    assert blocks == 7 + 1
    assert (counts.zeros, counts.zero_blocks) == (values.sum(), blocks)
    # Whole tiles are at hand; of others each chunk of a tile is read no more than once.
    read = [(str(box)) for box in source.boxes]
    assert len(read) == len(set(read))
    assert bool(read) == (cut not in [(7, 180, 160), (7, 90, 80)])


def test_a_part_of_a_plane_is_counted():
    data = planes()
    look = ZeroLook(Axes("czyx"), (LAYOUT,), ("look", "look"))
    whole = look.zeros(None, {"t": 0, "c": 1}, slice(0, 7), (slice(0, 180), slice(0, 160)), data[1])
    assert whole.counted((slice(0, 7), slice(0, 30), slice(0, 30)))["zero_blocks"] == 7
    assert whole.counted((slice(0, 7), slice(30, 90), slice(0, 80)))["zero_blocks"] == 0
    one = look.zeros(
        None, {"t": 0, "c": 1}, slice(4, 5), (slice(0, 90), slice(0, 80)), data[1, 4:5, :90, :80]
    ).like(data[1, 4])
    assert one.values.shape == (90, 80)
    assert one.counted((slice(10, 90), slice(0, 80))) == {
        "zeros": 50 * 56,
        "zero_blocks": 1,
    }


def test_time_points_and_no_z():
    rng = np.random.default_rng(0)
    data = rng.integers(90, 110, (3, 180, 160)).astype("float32")
    data[1, :20] = 0
    source = Source(data, (1, 64, 64))
    look = ZeroLook(Axes("tyx"), (LAYOUT,), ("look",))
    part = (slice(0, 30), slice(40, 100))
    for t in range(3):
        found = look.zeros(
            source, {"t": t, "c": 0}, slice(0, 1), part, data[t : t + 1][(0, *part)][None]
        )
        if t == 1:
            np.testing.assert_array_equal(found.without_data[0], data[t][part] == 0)
        else:
            assert found.without_data is None
    assert source.boxes and all(box[0] == slice(1, 2) for box in source.boxes)


def test_threads_and_processes():
    """One thread looks, others wait; a kernel that was sent to another process looks anew."""
    data = planes()
    source = Source(data, (1, 7, 64, 64))
    look = pickle.loads(pickle.dumps(ZeroLook(Axes("czyx"), (LAYOUT,), ("look", "look"))))
    box = (slice(0, 40), slice(0, 40))

    def zeros(_):
        found = look.zeros(source, {"t": 0, "c": 0}, slice(0, 2), box, data[0, :2, :40, :40])
        return int(found.without_data.sum())

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(zeros, range(8))) == {2 * 11 * 40}
    assert len(source.boxes) == 2 * 2


def test_large_tiles_are_looked_at_in_bounded_memory(monkeypatch):
    data = planes()
    source = Source(data, (1, 7, 64, 64))
    monkeypatch.setattr(zero_look, "_TALLY_BYTES", 3 * 3500)
    look = ZeroLook(Axes("czyx"), (LAYOUT,), ("look", "look"))
    assert look.working_bytes(source) < 3 * 3500 + 2 * 7 * 64 * 64 * 2 + 1
    part = data[0, :, :90, :40]
    found = look.zeros(source, {"t": 0, "c": 0}, slice(0, 7), (slice(0, 90), slice(0, 40)), part)
    np.testing.assert_array_equal(found.without_data, tile_by_tile(data)[0][0, :, :90, :40])
    assert max(box[1].stop - box[1].start for box in source.boxes) < 7
    assert ZeroLook(Axes("czyx"), (LAYOUT,), ("data", "no_data")).working_bytes(source) == 0


def test_what_is_said(caplog):
    counts = {
        "A": PixelCounts(pixels=1000, no_data=100, zeros=50, zero_blocks=2),
        "B": PixelCounts(pixels=1000),
    }
    with caplog.at_level(logging.INFO):
        tell_zeros(counts)
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 3
    first, second, third = caplog.messages
    assert "Channel A: 100 pixels (10.00 %) were taken for no data" in first
    assert "50 pixels of 0 (5.00 %) were taken for values" in second
    assert "2 blocks of more than 32 x 32 zeros" in third and "zero_is" in third
    assert no_data_met(counts) == {"A": True, "B": False}


@pytest.mark.parametrize(
    ("mark", "wanted"),
    [
        ({"no_data": {"A": True, "B": False}}, {"A": True, "B": False}),
        ({"no_data": {"A": "yes", "B": False}}, {"B": False}),
        ({"no_data": [1]}, {}),
        ({}, {}),
        (None, {}),
        ("text", {}),
    ],
)
def test_what_a_result_says(mark, wanted):
    channels = [SimpleNamespace(label="A"), SimpleNamespace(label="B")]
    image = SimpleNamespace(attributes=lambda: {"mesospim_shading": mark}, channels=channels)
    assert no_data_held(image) == wanted


def test_a_stack_of_one_side_is_named_with_it():
    image = SimpleNamespace(
        attributes=lambda: {"mesospim_shading": {"no_data": {"A/left": False}}},
        channels=[SimpleNamespace(label="A")],
    )
    assert no_data_held(image) == {"A": False}
