"""Planes that have no level small enough to look at shrink as they are read, some chunks a time."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading import correct_flatfield
from fractal_mesospim_shading.core.pyramid import block_mean
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.views import coarse, report_planes

SHAPE = (2, 12, 96, 80)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape, (z, y, x), of each box that is read."""
    shapes = []

    def spied(kind: type) -> None:
        original = kind.read

        def spy(self, level, box):
            shapes.append(tuple(s.stop - s.start for s in box[-3:]))
            return original(self, level, box)

        monkeypatch.setattr(kind, "read", spy)

    spied(MosaicImage)
    spied(TargetImage)
    monkeypatch.setattr(coarse, "_TOGETHER", 1)
    return shapes


@pytest.mark.parametrize("pixels", [24 * 20, 48 * 40 - 1, 96 * 80])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("chunks", [(5, 24, 20), (1, 17, 31), (12, 96, 80)])
def test_they_are_the_means_of_whole_planes(pixels, dtype, chunks, make_mosaic, monkeypatch, read):
    image = MosaicImage.open(
        str(make_mosaic(shape=SHAPE, channels=("A", "B"), factors=(), chunks=chunks, dtype=dtype))
    )
    whole = image.read(0, tuple(slice(0, n) for n in SHAPE))
    read.clear()
    monkeypatch.setattr(coarse, "PLANE_PIXELS", pixels)
    numbers = (0, 3, 4, 5, 6, 11)
    seen = coarse.seen_planes(image, image.axes, 0, 1, numbers)
    factor = coarse.seen_factor(image.levels, 0)
    assert prod(seen.shape[-2:]) <= pixels
    expected = whole[1, list(numbers)]
    shape = (len(numbers), *(n // f for n, f in zip(SHAPE[-2:], factor, strict=True)))
    np.testing.assert_array_equal(seen, block_mean(expected, (1, *factor), shape))
    if factor != (1, 1):
        held = [np.lcm(c, factor[0]) for c in chunks[-2:]]
        assert max(z for z, _, _ in read) <= chunks[0]
        assert max(y for _, y, _ in read) <= held[0]
        assert max(x for _, _, x in read) <= held[1]


def test_a_report_without_a_pyramid_holds_no_whole_planes(
    make_mosaic, make_models, monkeypatch, read
):
    source = make_mosaic(shape=SHAPE, channels=("A", "B"), factors=(), chunks=(1, 24, 20))
    monkeypatch.setattr(coarse, "PLANE_PIXELS", 24 * 20)
    monkeypatch.setattr(report_planes, "_CROP", 16)
    models = str(make_models(labels=("A", "B")))
    result = correct_flatfield(str(source), models_folder=models, camera_offset=100)
    # All planes at once are the one block of the job.
    looked = [shape for shape in read if shape[0] < SHAPE[1]]
    assert looked and max(prod(shape) for shape in looked) <= 24 * 20
    assert Path(result.report).exists()


@pytest.mark.parametrize(
    ("shape", "factor"), [((1024, 1024), 1), ((1025, 1024), 2), ((3072, 3072), 4), ((3, 2**22), 4)]
)
def test_no_plane_is_larger_than_what_is_looked_at(shape: tuple[int, int], factor: int) -> None:
    assert coarse._more(shape) == factor
