"""Both corrections in one pass: block by block the same as one after the other on whole images."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import METHODS as CATALOGUE
from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.apply import Application
from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.pyramid import Histogram
from fractal_mesospim_shading.core.zeros import zero_rule
from fractal_mesospim_shading.engine.zero_look import ZeroLook, no_data_met
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel
from fractal_mesospim_shading.flatfield.offset_look import OffsetLook
from fractal_mesospim_shading.images.source import Axes, Channel, SharingNothing
from fractal_mesospim_shading.jobs.one_pass import OnePassKernel
from fractal_mesospim_shading.jobs.steps import SecondStep
from fractal_mesospim_shading.local_background import scratch
from fractal_mesospim_shading.local_background.kernel import BackgroundKernel
from fractal_mesospim_shading.local_background.planes import BackgroundCounts, PlaneCorrection

AXES = Axes("czyx")
SHAPE = (2, 6, 96, 80)
GRID = TileLayout.from_origins([(0, 0), (0, 40), (48, 0), (48, 40)], (48, 40), (96, 80))
WHOLE = tuple(slice(0, size) for size in SHAPE)

METHODS = {
    "halo": make_method("median", radius_px=5, exact=True),
    "surface": make_method("tile_median", tile_size=16),
    "deep": make_method("gaussian", radius_px=3.0, radius_z_px=2),
    "whole tile": make_method("sliding_paraboloid", radius_px=8),
}


class Source(SharingNothing):
    """An image in memory that counts what is read of it."""

    def __init__(self, data, grain=(1, 2, 32, 32)):
        self.data, self.grain, self.reads = data, grain, np.zeros(data.shape, int)
        self.dtype, self.axes, self.layout = data.dtype, AXES, GRID
        self.levels = (SimpleNamespace(shape=data.shape),)
        self.channels = (Channel(0, "a"), Channel(1, "b"))

    def read(self, level, box):
        self.reads[box] += 1
        return self.data[box].copy()

    def read_grain(self):
        return self.grain


def scene(seed=0):
    """A slope with bright squares and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(SHAPE[-2:])
    data = 400 + 2 * x + y + rng.normal(0, 9, SHAPE)
    for top, left in rng.integers(0, 70, (8, 2)):
        data[..., top : top + 6, left : left + 6] += 900
    return np.rint(data).astype("uint16")


def with_margins(data):
    """Margins of some tiles, a tile that is 0, and a block of zeros within."""
    data[0, :, :5] = 0
    data[0, 1, 48:, :40] = 0
    data[0, :, 20:30, 50:60] = 0
    return data


def sparse(data):
    """Rows of zeros that are values along all edges, as in deconvolved images; 0 is common."""
    values = np.where(np.random.default_rng(5).random(SHAPE) < 0.3, data, 0)
    values[..., :3, :] = values[..., -3:, :] = values[..., :4] = 0
    return values.astype("uint16")


def sparse_with_an_empty_plane(data):
    values = sparse(data)
    values[1, 5, 48:, 40:] = 0
    return values


SCENES = {
    "no zeros": (scene(), 100.0),
    "margins": (with_margins(scene()), 100.0),
    "margins without an offset": (with_margins(scene()), 0.0),
    "sparse": (sparse(scene()), 0.0),
    "sparse with an empty plane": (sparse_with_an_empty_plane(scene()), 0.0),
    # A whole row that is nothing but the offset comes out at exactly 0.
    "equal to the offset": (np.where(np.arange(96)[:, None] < 3, 100, scene()), 100.0),
}


def kernels(method, offset, *, zero_is="auto", blank=False, threshold=None, layout=GRID):
    rng = np.random.default_rng(1)
    flat = (1 + 0.4 * rng.random((48, 40))).astype(np.float32)
    rules = tuple(("no_data" if offset and zero_is == "auto" else zero_rule(zero_is),) * 2)
    first = FlatfieldKernel(
        AXES,
        GRID,
        {"a": TileCorrection(flat, offset), "b": TileCorrection(flat**2, offset)},
        {(0, None): "a", (1, None): "b"},
        ZeroLook(AXES, (GRID,), rules),
        blank_outside=blank,
    )
    second = ("margins" if zero_is == "auto" else zero_rule(zero_is),) * 2
    correction = PlaneCorrection(Application(), np.dtype(np.float32), threshold, 2)
    layouts = (GRID,) if layout == GRID else (GRID, layout)
    background = BackgroundKernel(
        AXES,
        layout,
        (method, method),
        correction,
        ZeroLook(AXES, layouts, second),
        None,
        ("background",),
        SHAPE[1],
    )
    return first, background


def one_after_the_other(data, first, background, *, auto=True):
    """Both kernels on whole images in memory, with a float32 image between them."""
    done = first.process(Source(data.astype(np.float32)), WHOLE)
    between = Source(done.pixels[0])
    if auto:
        held = no_data_met({str(c): counts for c, counts in done.counts.items()})
        rules = tuple(zero_rule("auto", held[str(channel)]) for channel in range(2))
        background = replace(background, look=replace(background.look, rules=rules, run="two"))
    background = replace(background, run=f"{background.run} two")
    return done, background.process(between, WHOLE)


def blocks(cut):
    starts = [range(0, size, step) for size, step in zip(SHAPE, cut, strict=True)]
    for corner in product(*starts):
        yield tuple(
            slice(a, min(a + step, size)) for a, step, size in zip(corner, cut, SHAPE, strict=True)
        )


def in_parts(source, kernel, cut):
    images = [np.full(SHAPE, np.nan, np.float32) for _ in range(2)]
    before = {channel: PixelCounts() for channel in range(2)}
    counts = {channel: BackgroundCounts() for channel in range(2)}
    for box in blocks(cut):
        done = kernel.process(source, box)
        for image, pixels in zip(images, done.pixels, strict=True):
            image[box] = pixels
        for channel in done.counts:
            before[channel] += done.before.get(channel, PixelCounts())
            counts[channel] += done.counts[channel]
    return images, before, counts


def settled(counts, before):
    """What is said of the second step in the end."""
    step = SecondStep("", {}, BackgroundCounts, print, True, {}, 0.0)
    last, histograms = step.settled(counts, dict.fromkeys(counts, Histogram()), before)
    assert histograms.keys() == counts.keys()
    return last


CUTS = [(2, 6, 96, 80), (1, 2, 48, 40), (1, 3, 32, 33), (2, 2, 17, 64)]
CASES = [
    (scene_name, method, CUTS[(first + second) % len(CUTS)])
    for first, scene_name in enumerate(SCENES)
    for second, method in enumerate(METHODS)
]


@pytest.mark.parametrize(("name", "method", "cut"), CASES)
def test_the_same_as_one_after_the_other(name, method, cut):
    data, offset = SCENES[name]
    data = data.astype("uint16")
    first, background = kernels(METHODS[method], offset)
    flat, wanted = one_after_the_other(data, first, background)
    kernel = pickle.loads(pickle.dumps(OnePassKernel(background, 0, first)))
    images, before, counts = in_parts(Source(data), kernel, cut)
    for found, expected in zip(images, wanted.pixels, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert before == flat.counts
    assert settled(counts, before) == wanted.counts


@pytest.mark.parametrize("name", ["margins", "sparse with an empty plane"])
@pytest.mark.parametrize("zero_is", ["data", "no_data"])
def test_what_a_person_says_of_zeros_counts_for_both(name, zero_is):
    data, offset = SCENES[name]
    first, background = kernels(METHODS["halo"], offset, zero_is=zero_is)
    flat, wanted = one_after_the_other(data, first, background, auto=False)
    images, before, _ = in_parts(Source(data), OnePassKernel(background, 0, first), (1, 3, 32, 33))
    np.testing.assert_array_equal(images[0], wanted.pixels[0])
    assert before == flat.counts


def test_planes_across_tiles_and_a_threshold():
    data, offset = SCENES["margins"]
    single = TileLayout.single(SHAPE[-2:])
    first, background = kernels(METHODS["halo"], offset, threshold=900.0, layout=single)
    _, wanted = one_after_the_other(data, first, background)
    images, _, _ = in_parts(Source(data), OnePassKernel(background, 0, first), (1, 3, 32, 33))
    np.testing.assert_array_equal(images[0], wanted.pixels[0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_types_of_the_source(dtype):
    data = scene()
    data = np.minimum(data, 255).astype(dtype)
    if dtype == "float32":
        data[0, 2, 60:63, 10:20] = np.nan
    first, background = kernels(METHODS["surface"], 100.0)
    flat, wanted = one_after_the_other(data, first, background)
    images, before, _ = in_parts(Source(data), OnePassKernel(background, 0, first), (1, 3, 32, 33))
    np.testing.assert_array_equal(images[0], wanted.pixels[0])
    # A float32 copy of the source knows nothing of the end of its type.
    saturated = [0, 0] if dtype != "uint8" else [int((one == 255).sum()) for one in data]
    assert [before[c].saturated for c in range(2)] == saturated
    assert [replace(before[c], saturated=0) for c in range(2)] == list(flat.counts.values())


def test_blocks_of_whole_tiles_read_each_pixel_once():
    data, offset = SCENES["margins"]
    for method in METHODS.values():
        if method.depth_px:
            continue
        first, background = kernels(method, offset)
        source = Source(data, grain=(1, 2, 48, 40))
        in_parts(source, OnePassKernel(background, 0, first), (1, 2, 48, 40))
        assert (source.reads == 1).all()


FROM_WHOLE_PLANES = {
    "tile_median": ({}, None, False),
    "masked tile_median": ({}, 700.0, False),
    "noise bias of tile_median": ({}, None, True),
    "constant": ({}, None, False),
    "masked constant": ({}, 700.0, False),
    "sliding_paraboloid": ({"radius_px": 8}, None, False),
    "masked median": ({"radius_px": 4}, 700.0, False),
    "masked gaussian": ({"radius_px": 4.0}, 700.0, False),
    "masked opening": ({"radius_px": 4}, 700.0, False),
    "masked difference_of_filters": ({"small_radius_px": 2, "big_radius_px": 5}, 700.0, False),
    "noise bias of rolling_ball": ({"radius_px": 9}, None, True),
    "masked noise bias of sliding_paraboloid": ({"radius_px": 8}, 700.0, True),
    "noise bias of deep median": ({"radius_px": 4, "radius_z_px": 1}, None, True),
    "masked deep median": ({"radius_px": 13, "radius_z_px": 2}, 700.0, False),
    "masked deep gaussian": ({"radius_px": 4.0, "radius_z_px": 3.0}, 700.0, False),
    "masked noise bias of deep opening": ({"radius_px": 4, "radius_z_px": 1}, 700.0, True),
    "deep gaussian all under the mask": ({"radius_px": 4.0, "radius_z_px": 3.0}, 1.0, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("slab_bytes", [2**28, 1], ids=["in memory", "in strips"])
@pytest.mark.parametrize("zeros", [False, True], ids=["no zeros", "margins"])
@pytest.mark.parametrize("name", FROM_WHOLE_PLANES)
def test_planes_that_are_cut_are_read_once_for_their_backgrounds(
    name, zeros, slab_bytes, monkeypatch
):
    """Plane by plane, each chunk would be decoded as many times as it is deep; and block by
    block as many times as there are blocks. Which zeros are no data is seen on the way.
    """
    monkeypatch.setattr(scratch, "SLAB_BYTES", slab_bytes)
    parameters, threshold, bias = FROM_WHOLE_PLANES[name]
    fused = TileLayout.single(SHAPE[-2:])
    (named,) = set(name.split()) & set(CATALOGUE)
    method = make_method(named, **parameters)
    _, background = kernels(method, 100.0, threshold=threshold, layout=fused)
    correction = replace(background.correction, add_noise_bias=bias)
    background = replace(background, correction=correction)
    source = Source(with_margins(scene()) if zeros else scene(), grain=(1, 4, 16, 16))
    wanted = background.process(source, WHOLE)
    look = replace(background.look, run=f"{background.look.run} in parts")
    background = replace(background, look=look, run=f"{background.run} in parts")
    decoded = np.zeros(source.data.shape, int)
    plain = source.read

    def read(level, box):
        # Whole chunks are decoded, whatever of them is asked for.
        touched = tuple(
            slice(part.start // chunk * chunk, -(-part.stop // chunk) * chunk)
            for part, chunk in zip(box, source.grain, strict=True)
        )
        decoded[touched] += 1
        return plain(level, box)

    source.read = read
    images, _, counts = in_parts(source, background, source.grain)
    assert (decoded == 2).all()
    for found, expected in zip(images, wanted.pixels, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert counts == wanted.counts


def test_the_noise_of_a_block_is_taken_once():
    """A block with planes around it notes the same as one without."""
    data, offset = SCENES["margins"]
    first, background = kernels(METHODS["deep"], offset)
    every = frozenset(range(SHAPE[1]))
    tiles = {tile.number: every for tile in GRID.tiles}
    look = OffsetLook(frozenset("ab"), {0: tiles, 1: tiles}, SHAPE[1], 4)
    first = replace(first, offset_look=look)
    box = (slice(0, 1), slice(2, 4), slice(0, 48), slice(0, 80))
    wanted = first.process(Source(data), box).noise
    found = OnePassKernel(background, 0, first).process(Source(data), box).noise
    assert found == wanted and len(found["a"]) == 2


def test_a_kernel_without_models_does_nothing():
    _, background = kernels(METHODS["halo"], 100.0)
    with pytest.raises(RuntimeError, match="no models yet"):
        OnePassKernel(background, 0).process(Source(scene()), WHOLE)
