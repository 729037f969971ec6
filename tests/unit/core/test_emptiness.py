"""Planes and regions that hold sample are found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fractal_mesospim_shading.core.binning import BinnedStack
from fractal_mesospim_shading.core.emptiness import find_empty, median_along_first
from fractal_mesospim_shading.errors import SamplingError
from fractal_mesospim_shading.synthetic import LightSheetWorld

BinWorld = Callable[..., BinnedStack]


def test_median_equals_numpy() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    values = rng.normal(size=(7, 5, 6))
    values[rng.uniform(size=values.shape) < 0.4] = np.nan
    values[:, 0, 0] = np.nan
    values[:, 0, 1] = [np.nan] * 6 + [3.0]
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(RuntimeWarning)
        expected = np.nanmedian(values, axis=0)
    np.testing.assert_array_equal(median_along_first(values), expected)


def test_planes_full_of_sample_are_rejected_and_empty_ones_kept(bin_world: BinWorld) -> None:
    world = LightSheetWorld(tile_shape=(128, 128), planes=40, sample_radius=0.65)
    # Tile 5 is in the middle: full of sample from plane 12 to 27.
    stack = bin_world(world, [(1, range(8)), (3, range(8)), (9, range(32, 40)), (5, range(14, 22))])
    found = find_empty(stack, 100.0)
    assert set(found.reasons) == set(range(24, 32))
    assert all("area" in why or "differs" in why for why in found.reasons.values())
    assert found.keep[:24].mean() > 0.98
    truth = world.medium * np.median(world.flatfield())
    np.testing.assert_allclose(found.brightness[:24] / truth, 1, atol=0.3)


def test_a_corner_of_sample_is_masked_and_the_rest_used(bin_world: BinWorld) -> None:
    world = LightSheetWorld(tile_shape=(128, 128), planes=40, sample_radius=0.6)
    planes = [z for z in range(12, 20) if not world.is_empty(1, z)][:4]
    assert planes
    stack = bin_world(world, [(1, range(6)), (9, range(34, 40)), (1, planes)])
    found = find_empty(stack, 100.0)
    for k, z in enumerate(planes, start=12):
        if k in found.reasons:
            continue
        # The sample lies at the bottom right of the first tile.
        light = world.clean_plane(1, z) > world.medium + 20
        squares = light.reshape(8, 16, 8, 16).mean(axis=(1, 3)) > 0.2
        assert not found.keep[k][squares].any()
        assert found.keep[k][:4, :4].all()


def test_planes_of_different_brightness_are_all_kept() -> None:
    # No noise at all: shape times brightness.
    flat = LightSheetWorld(tile_shape=(64, 64)).flatfield()
    levels = np.linspace(20, 60, 12)
    stack = _stack_of(100 + levels[:, None, None] * flat)
    found = find_empty(stack, 100.0)
    assert not found.reasons
    assert found.keep.all()
    np.testing.assert_allclose(found.brightness / levels, found.brightness[0] / 20, rtol=1e-5)


def test_a_dark_or_missing_plane_is_rejected() -> None:
    flat = LightSheetWorld(tile_shape=(64, 64)).flatfield()
    planes = 100 + 50 * np.repeat(flat[None], 10, axis=0)
    planes[3] = 100 + 2 * flat
    planes[7] = np.nan
    found = find_empty(_stack_of(planes), 100.0)
    assert set(found.reasons) == {3, 7}
    assert "holds no data" in found.reasons[7]


def test_nothing_above_the_offset_is_an_error(bin_world: BinWorld) -> None:
    world = LightSheetWorld(tile_shape=(64, 64), planes=4, sample=0.0)
    with pytest.raises(SamplingError, match="brighter than the camera offset of 500"):
        find_empty(bin_world(world, [(1, range(4))]), 500.0)


def test_planes_that_share_nothing_are_an_error() -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    planes = 100 + rng.uniform(10, 400, (30, 64, 64))
    with pytest.raises(SamplingError, match="Of 30 planes chosen as empty"):
        find_empty(_stack_of(planes, noise=1.0), 100.0)


def _stack_of(planes: np.ndarray, noise: float = 0.0) -> BinnedStack:
    """Planes whose squares are given directly, 16 pixels each side."""
    shape = planes.shape
    cells = np.full(shape, 64, np.int64)
    return BinnedStack(
        tile_shape=(shape[1] * 16, shape[2] * 16),
        bin_px=16,
        integer=False,
        mean=planes.astype(np.float32),
        count=np.full(shape, 256, np.uint16),
        noise_mean=planes.astype(np.float32),
        spatial=np.full(shape, noise),
        spatial_cells=cells,
        temporal=np.full(shape, noise),
        temporal_cells=cells,
        third=np.zeros(shape),
        third_pixels=cells,
        saturated=0,
    )
