from __future__ import annotations

from collections import Counter
from itertools import product
from math import ceil

import numpy as np
import pytest

from fractal_mesospim_shading.flatfield.plane_sample import Sample, runs_of
from fractal_mesospim_shading.flatfield.sampling import (
    layout_at_level,
    plane_count,
    time_count,
    z_factor,
)
from fractal_mesospim_shading.images.mosaic import MosaicImage


@pytest.mark.parametrize(
    "style",
    [
        {},
        {"chunks": (3, 17, 23)},
        {"ngff_version": "0.5", "shards": (4, 32, 64)},
        {"axes": "tczyx", "shape": (2, 2, 4, 96, 80)},
    ],
)
def test_each_chunk_is_in_one_box_at_most_and_all_planes_are_there(make_mosaic, style):
    image = MosaicImage.open(make_mosaic(**style))
    count = plane_count(image, 0) * time_count(image)
    planes = tuple((tile, z) for tile in (1, 4) for z in range(0, count, 2))
    boxes = list(Sample(image, 1, 0, planes).boxes())
    seen: Counter[tuple[int, ...]] = Counter()
    for box in boxes:
        units = image.read_units(0)
        ranges = [range(s.start // u, ceil(s.stop / u)) for s, u in zip(box, units, strict=True)]
        seen.update(product(*ranges))
    assert set(seen.values()) == {1}
    assert all(index[image.axes.index("c")] == 1 for index in seen)


@pytest.mark.parametrize("workers", [1, 3])
def test_means_are_those_of_the_pixels(make_mosaic, workers):
    image = MosaicImage.open(make_mosaic())
    raw = np.asarray(image.array(0)[...])
    planes = ((1, 0), (1, 3), (4, 2))
    sample = Sample(image, 0, 0, planes)
    stack = sample.read(dark=None, zero_is_no_data=True, workers=workers)
    assert stack.bin_px == 2
    for mean, (tile, z) in zip(stack.mean, planes, strict=True):
        found = image.layout.tile(tile)
        part = raw[0, z, found.y : found.y + 48, found.x : found.x + 40].astype(float)
        part[part == 0] = np.nan
        expected = np.nanmean(part.reshape(24, 2, 20, 2), axis=(1, 3))
        np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_tiles_at_a_coarse_level(make_mosaic):
    image = MosaicImage.open(make_mosaic(factors=((2, 2, 2), (2, 2, 2))))
    layout = layout_at_level(image, 2)
    assert layout.tile_shape == (12, 10)
    assert [(tile.number, tile.y, tile.x) for tile in layout.tiles] == [
        (1, 0, 0),
        (2, 12, 0),
        (3, 0, 10),
        (4, 12, 10),
    ]
    assert z_factor(image, 2) == 4
    assert (plane_count(image, 2), plane_count(image, 0)) == (1, 4)


def test_tiles_that_do_not_divide_keep_one_shape(make_mosaic):
    image = MosaicImage.open(make_mosaic(shape=(1, 2, 94, 111), tile_shape=(47, 37), channels=None))
    layout = layout_at_level(image, 2)
    assert layout.tile_shape == (11, 9)
    assert all(tile.y + 11 <= 23 and tile.x + 9 <= 27 for tile in layout.tiles)
    assert len(layout.tiles) == 6


DEEP = {"shape": (2, 24, 96, 80), "chunks": (24, 48, 40)}
"""Chunks of which an estimate uses both ends."""


def all_of(stack):
    arrays = ("mean", "count", "noise_mean", "spatial", "temporal", "third", "third_pixels")
    return [getattr(stack, name).tobytes() for name in arrays]


@pytest.mark.parametrize(
    "planes",
    [
        [(tile, z) for tile in (1, 4) for z in (0, 1, 2, 21, 22, 23)],
        [(1, 0), (1, 23), (4, 12)],
        [(2, z) for z in range(0, 24, 3)],
        [(tile, z) for tile in (1, 2, 3, 4) for z in range(24)],
    ],
)
def test_planes_are_the_same_however_much_of_their_chunks_is_decoded(make_mosaic, planes):
    images = [MosaicImage.open(make_mosaic(name, codec=name, **DEEP)) for name in ("blosc", "zstd")]
    assert [image.planes_apart(0) for image in images] == [True, False]
    found = [
        all_of(Sample(image, 0, 0, tuple(planes)).read(dark=5.0, zero_is_no_data=True, workers=2))
        for image in images
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(("codec", "expected"), [("blosc", [3, 3]), ("zstd", [24])])
def test_long_gaps_are_left_out_where_planes_are_decoded_apart(
    make_mosaic, monkeypatch, codec, expected
):
    image = MosaicImage.open(make_mosaic(codec=codec, **DEEP))
    read, depths = MosaicImage.read, []

    def noting(self, level, box):
        depths.append(box[1].stop - box[1].start)
        return read(self, level, box)

    monkeypatch.setattr(MosaicImage, "read", noting)
    planes = tuple((1, z) for z in (0, 1, 2, 21, 22, 23))
    Sample(image, 0, 0, planes).read(dark=None, zero_is_no_data=True, workers=1)
    assert depths == expected


@pytest.mark.parametrize(
    ("planes", "gap", "runs"),
    [
        ([], 4, []),
        ([7], 4, [range(7, 8)]),
        ([3, 1, 2], 4, [range(1, 4)]),
        ([1, 5, 10], 4, [range(1, 6), range(10, 11)]),
        ([1, 5, 10], 5, [range(1, 11)]),
    ],
)
def test_runs_of_planes(planes, gap, runs):
    assert runs_of(planes, gap) == runs
