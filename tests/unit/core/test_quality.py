"""Seams and flatness on images whose steps are known in closed form."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest

from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.quality import ShadingQuality, flatness, flattened
from fractal_mesospim_shading.core.seams import coarse_spans, medium_steps, seam_step
from tests.support.steps import steps

GRID = TileLayout.from_origins([(0, 0), (0, 32), (24, 0), (24, 32)], (24, 32), (48, 64))
PAIR = TileLayout.from_origins([(0, 0), (0, 32)], (24, 32), (24, 64))


def checkerboard(low: float, high: float) -> np.ndarray:
    """Tiles 1 and 4 of one brightness, 2 and 3 of another: the same step at every seam."""
    plane = np.full((48, 64), high)
    plane[:24, :32] = plane[24:, 32:] = low
    return plane


def test_step_between_uniform_tiles() -> None:
    # 2 (120 - 80) / (120 + 80)
    assert seam_step(checkerboard(80, 120), GRID) == pytest.approx(0.4)
    assert seam_step(checkerboard(180, 220), GRID, 100) == pytest.approx(0.4)
    assert seam_step(checkerboard(90, 90), GRID) == 0
    assert seam_step(np.stack([checkerboard(80, 120)] * 3), GRID) == pytest.approx(0.4)
    assert seam_step(checkerboard(80, 120).astype(np.uint16), GRID) == pytest.approx(0.4)


@pytest.mark.parametrize("factor", [(3, 3), (5, 7)])
def test_coarse_pixels_on_the_seam_belong_to_no_side(factor: tuple[int, int]) -> None:
    """At 5 x 7 a coarse pixel mixes both tiles, which would soften the step."""
    fine = checkerboard(80, 120)
    height, width = 48 // factor[0], 64 // factor[1]
    blocks = fine[: height * factor[0], : width * factor[1]]
    coarse = blocks.reshape(height, factor[0], width, factor[1]).mean(axis=(1, 3))
    assert seam_step(coarse, GRID, factor=factor, depth=1) == pytest.approx(0.4)


def test_a_ramp_within_the_tiles() -> None:
    """Brightness 1 + x / 32 in each tile: means of the outer pixels differ by a known amount."""
    ramp = np.tile(1 + np.arange(32) / 32, (24, 2))
    for depth in (1, 4):
        inner = (depth - 1) / 2 / 32
        last, first = 1 + 31 / 32 - inner, 1 + inner
        expected = 2 * (last - first) / (last + first)
        assert seam_step(ramp, PAIR, depth=depth) == pytest.approx(expected)


def test_edges_of_the_sample_do_not_count() -> None:
    plane = np.full((24, 64), 100.0)
    plane[:8, 32:] = 1000
    assert seam_step(plane, PAIR, length=2) == 0


def test_nothing_acquired_and_no_light_are_left_out() -> None:
    plane = np.full((24, 64), 110.0)
    plane[:, 32:] = 90
    plane[:16, 30:] = 0
    assert seam_step(plane, PAIR, length=4) == pytest.approx(0.2)
    assert math.isnan(seam_step(plane, PAIR, 200.0))
    assert math.isnan(seam_step(np.ones((24, 64)), TileLayout.single((24, 64))))


def test_only_tiles_that_touch_have_a_seam() -> None:
    diagonal = TileLayout.from_origins([(0, 0), (24, 32)], (24, 32), (48, 64))
    assert math.isnan(seam_step(checkerboard(1, 2), diagonal))
    apart = TileLayout.from_origins([(0, 0), (0, 40)], (24, 24), (24, 64))
    assert math.isnan(seam_step(np.ones((24, 64)), apart))


def test_flatness_of_a_step_profile() -> None:
    """Half of each tile at 0.8, half at 1.2 of its mean: a root mean square of 0.2."""
    tile = np.repeat([0.8, 1.2], 16)[None, :] * np.ones((24, 1))
    plane = 100 + np.concatenate([50 * tile, 300 * tile], axis=1)
    assert flatness(plane, PAIR, 100) == pytest.approx(0.2)
    assert flatness(plane[:, ::2], PAIR, 100, factor=(1, 2)) == pytest.approx(0.2)
    assert flatness(np.full((24, 64), 7), PAIR) == 0
    assert math.isnan(flatness(np.full((24, 64), 7), PAIR, 10))


def test_flatness_of_tiles_of_different_numbers_of_coarse_pixels() -> None:
    """Tiles of 25 rows hold 8 or 9 coarse rows each; the profile along x is that of all."""
    layout = TileLayout.from_origins([(0, 0), (25, 0), (50, 0)], (25, 32), (75, 32))
    fine = np.tile(np.where(np.arange(32) < 16, 80.0, 120.0), (75, 1))
    coarse = fine[1::3]
    numbers = {
        high - low for (low, high), _ in (coarse_spans(t, layout, (3, 1)) for t in layout.tiles)
    }
    assert len(numbers) > 1
    assert flatness(coarse, layout, factor=(3, 1)) == pytest.approx(0.2)


def test_flatness_takes_what_tiles_have_in_common() -> None:
    plane = np.full((24, 96), 100.0)
    plane[:9, :9] = 900
    plane[12:, 64:70] = 300
    layout = TileLayout.from_origins([(0, 0), (0, 32), (0, 64)], (24, 32), (24, 96))
    assert flatness(plane, layout) == 0


def test_quality_of_a_perfect_correction() -> None:
    flat = np.linspace(0.5, 1.5, 32)[None, :] * np.ones((24, 1))
    after = np.full((24, 64), 400.0)
    before = 100 + after * np.tile(flat, (1, 2))
    counts = PixelCounts(pixels=1000, no_data=50, clipped_low=2, clipped_high=1, saturated=4)
    quality = ShadingQuality.measure(
        ShadingProfile.create(flat), before, after, PAIR, offset=100, counts=counts
    )
    assert quality.seam_after == 0 and quality.flatness_after == 0
    # 1.5 - 3 / 62 and 0.5 + 3 / 62 are the means of the outer four pixels.
    assert quality.seam_before == pytest.approx(1 - 3 / 31)
    assert quality.profile_low == pytest.approx(0.5, abs=0.02)
    assert quality.profile_high == pytest.approx(1.5, abs=0.02)
    assert (quality.clipped, quality.saturated, quality.no_data) == (0.003, 0.004, 0.05)
    rows = dict(quality.rows())
    assert rows["Step across tile seams, in empty medium"] == "90.3% before, 0.0% after"
    assert rows["Pixels clipped"] == "0.30%"


def test_rows_leave_out_what_was_not_measured() -> None:
    assert ShadingQuality(0.8, 1.1).rows() == (("Profile, 1st to 99th percentile", "0.80 to 1.10"),)
    rows = dict(ShadingQuality(1, 1, clipped=0, saturated=3e-6).rows())
    assert rows["Pixels clipped"] == "none"
    assert rows["Pixels saturated in the source"] == "3 in a million"


def test_what_is_said_of_seams() -> None:
    def said(before: float, after: float) -> str | None:
        return ShadingQuality(0.5, 1.5, before, after).seam_text

    nan = float("nan")
    assert said(0.1234, 0.004) == "12.3 % before, 0.4 % after"
    assert said(0.1, nan) == "10.0 % before; nothing is left to measure after"
    assert said(nan, nan) is None
    assert said(nan, 0.1) is None


@pytest.mark.parametrize("factor", [(1, 1), (2, 4), (5, 3)])
def test_planes_without_their_shading(factor: tuple[int, int]) -> None:
    """An even sample comes out even, at the brightness that it has without the fall-off."""
    y, x = np.linspace(-1, 1, 24)[:, None], np.linspace(-1, 1, 32)[None]
    flat = (1 - 0.1 * (x**2 + y**2)).astype(np.float32)
    dark = (100 + 3 * y + x).astype(np.float32)
    fine = np.tile(200 * flat + dark, (2, 2))
    height, width = 48 // factor[0], 64 // factor[1]
    blocks = fine[: height * factor[0], : width * factor[1]]
    coarse = blocks.reshape(height, factor[0], width, factor[1]).mean(axis=(1, 3))
    coarse[0, 0] = 0
    found = flattened(coarse, GRID, lambda tile: TileCorrection(flat, dark), factor=factor)
    assert found.shape == (1, height, width)
    assert found[0, 0, 0] == 0
    inside = found[found != 0]
    np.testing.assert_allclose(inside, 200, rtol=1e-6)
    assert (
        inside.size
        == sum(
            ((t.y + 24) // factor[0] - -(-t.y // factor[0]))
            * ((t.x + 32) // factor[1] - -(-t.x // factor[1]))
            for t in GRID.tiles
        )
        - 1
    )


def test_steps_in_medium_are_those_of_the_flat_field_without_noise() -> None:
    rng = np.random.default_rng(0)
    flat = np.linspace(0.9, 1.1, 48)[None, :] * np.ones((256, 1))
    layout = TileLayout.from_origins([(0, 0), (0, 48), (0, 96)], (256, 48), (256, 144))
    light = 60 + 2.0 * rng.standard_normal((256, 144))
    # Different tissue on both sides of half of each seam is no step.
    light[128:, 48:96] += 900
    before, after = medium_steps(light * np.tile(flat, (1, 3)), light, layout)
    # Of the means of the outer four pixels.
    assert before == pytest.approx(0.2 - 3 * 0.2 / 47, rel=0.1)
    assert after < 0.004, "noise of 2 counts in boxes of 64 pixels, without itself"
    assert seam_step(light, layout) > 0.05


def test_tissue_alone_tells_no_step_in_medium() -> None:
    assert all(math.isnan(step) for step in medium_steps(*(np.zeros((24, 64)),) * 2, PAIR))


@pytest.mark.parametrize(("size", "factor"), [(32, (1, 1)), (30, (4, 3)), (16, (2, 2))])
def test_flatness_of_all_tiles_together_is_that_of_one_by_one(
    size: int, factor: tuple[int, int]
) -> None:
    origins = [(size * row, size * column) for column in range(4) for row in range(4)]
    layout = TileLayout.from_origins(origins, (size, size), (4 * size, 4 * size))
    shape = (2, *(4 * size // f for f in factor))
    planes = np.random.default_rng(5).integers(0, 300, shape).astype("uint16")
    maps = []
    for tile, plane in product(layout.tiles, planes):
        rows, columns = (
            np.linspace(*span, min(8, span[1] - span[0]) + 1).astype(int)
            for span in coarse_spans(tile, layout, factor)
        )
        medians = np.array(
            [
                [np.median(plane[a:b, c:d].astype(float)) - 20.0 for c, d in pairwise(columns)]
                for a, b in pairwise(rows)
            ]
        )
        if np.median(medians) > 0:
            maps.append(medians / np.median(medians))
    common = np.median(np.stack(maps), axis=0)
    expected = float(np.sqrt(np.mean((common / common.mean() - 1) ** 2)))
    assert flatness(planes, layout, 20.0, factor=factor) == expected


def test_flatness_of_many_tiles_takes_few_more_steps() -> None:
    """The medians of a cell are taken of many tiles at once."""
    numbers = {}
    for side in (8, 16):
        origins = [(16 * row, 16 * column) for column in range(side) for row in range(side)]
        layout = TileLayout.from_origins(origins, (16, 16), (16 * side, 16 * side))
        numbers[side] = steps(partial(flatness, np.ones((16 * side, 16 * side)), layout))
    assert (numbers[16] - numbers[8]) / (16**2 - 8**2) < 300
