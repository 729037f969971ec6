from __future__ import annotations

import pickle

import numpy as np
import pytest

from fractal_mesospim_shading.core.correct import TileCorrection
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.engine.plan import channel_stacks
from fractal_mesospim_shading.engine.zero_look import ZeroLook
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel
from fractal_mesospim_shading.images.source import Axes, SharingNothing

LAYOUT = TileLayout.from_origins([(0, 0), (4, 0), (0, 6), (4, 6)], (4, 6), (8, 12))


class Source(SharingNothing):
    """An image in memory."""

    def __init__(self, data, axes):
        self.data, self.axes = data, axes

    def read(self, level, box):
        return self.data[box].copy()


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("yx", (8, 12)), ("zyx", (3, 8, 12)), ("czyx", (2, 3, 8, 12)), ("tczyx", (2, 2, 3, 8, 12))],
)
def test_each_pixel_gets_its_own_gain(axes, shape):
    rng = np.random.default_rng(0)
    data = rng.integers(1, 1000, shape).astype("uint16")
    gains = {name: rng.uniform(0.5, 2, (4, 6)).astype("f4") for name in ("a", "b", "special")}
    kernel = FlatfieldKernel(
        Axes(axes),
        LAYOUT,
        {name: TileCorrection(1 / gain, 0.0, 0.0) for name, gain in gains.items()},
        {(0, None): "a", (1, None): "b", (0, 3): "special"},
        ZeroLook(Axes(axes), (LAYOUT,), ("data", "data")),
    )
    box = (*(slice(0, n) for n in shape[:-2]), slice(2, 7), slice(3, 11))
    done = kernel.process(Source(data, Axes(axes)), box)
    got, counts = done.pixels[0], done.counts
    for index in np.ndindex(got.shape):
        y, x = index[-2] + 2, index[-1] + 3
        channel = index[axes.index("c")] if "c" in axes else 0
        tile = (x // 6) * 2 + y // 4 + 1
        name = "special" if (channel, tile) == (0, 3) else "ab"[channel]
        expected = round(float(data[(*index[:-2], y, x)]) * float(gains[name][y % 4, x % 6]))
        assert abs(int(got[index]) - expected) <= 1
    assert sum(found.pixels for found in counts.values()) == got.size
    assert set(counts) == ({0, 1} if "c" in axes else {0})
    again = pickle.loads(pickle.dumps(kernel))
    np.testing.assert_array_equal(again.process(Source(data, Axes(axes)), box).pixels[0], got)


def test_the_gain_of_a_tile_comes_on_top_and_clipping_is_counted():
    data = np.full((2, 8, 12), 60_000, "uint16")
    data[1] = 101
    flat = np.full((4, 6), 1.0, "f4")
    kernel = FlatfieldKernel(
        Axes("zyx"),
        LAYOUT,
        {"a": TileCorrection(flat, 100.0, baseline=1.0, added=50.0)},
        {(0, None): "a"},
        ZeroLook(Axes("zyx"), (LAYOUT,), ("no_data",)),
        tile_gains={(0, 1): 1.5, (0, 4): 0.5},
    )
    done = kernel.process(Source(data, Axes("zyx")), (slice(0, 2), slice(0, 8), slice(0, 12)))
    got = done.pixels[0]
    for tile, gain in {1: 1.5, 2: 1.0, 3: 1.0, 4: 0.5}.items():
        column, row = divmod(tile - 1, 2)
        place = (slice(4 * row, 4 * row + 4), slice(6 * column, 6 * column + 6))
        bright = min(gain * (60_000 - 100 - 1) + 50, 65_535)
        assert (got[(0, *place)] == np.rint(bright)).all()
        assert (got[(1, *place)] == 50).all()
    assert done.counts[0].clipped_high == 4 * 6


def test_stacks_of_channels():
    data = np.arange(2 * 2 * 3 * 4 * 5).reshape(2, 2, 3, 4, 5)
    box = (slice(0, 2), slice(1, 3), slice(0, 3), slice(0, 4), slice(0, 5))
    stacks = channel_stacks(data, "tczyx", box)
    leads = [lead for lead, _, _ in stacks]
    assert leads == [{"t": t, "c": c} for t in (0, 1) for c in (1, 2)]
    assert all(z == slice(0, 3) for _, z, _ in stacks)
    np.testing.assert_array_equal(stacks[2][2], data[1, 0])
    (lead, z, planes), *more = channel_stacks(data[0, 0], "zyx", (slice(4, 7), *box[-2:]))
    assert (lead, z, more) == ({"t": 0, "c": 0}, slice(4, 7), [])
    np.testing.assert_array_equal(planes, data[0, 0])
    assert channel_stacks(data[0, 0, 0], "yx", box[-2:])[0][2].shape == (1, 4, 5)
