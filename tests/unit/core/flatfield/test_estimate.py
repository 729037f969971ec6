"""The flat-field against the one that made the planes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, BinnedStack, bin_block
from fractal_mesospim_shading.core.flatfield.emptiness import EmptySquares
from fractal_mesospim_shading.core.flatfield.estimate import (
    _combine,
    _shrunk,
    estimate_flatfield,
)
from fractal_mesospim_shading.core.flatfield.offset import estimate_offset
from fractal_mesospim_shading.errors import SamplingError
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

BinWorld = Callable[..., BinnedStack]

WORLD = LightSheetWorld(tile_shape=(256, 256), planes=24, sample=0.0)
SLABS = [(tile, range(16)) for tile in (1, 5, 9)]


def _rms(world: LightSheetWorld, flatfield: np.ndarray) -> float:
    return float(np.sqrt(np.mean((flatfield / world.flatfield() - 1) ** 2)))


@pytest.mark.parametrize("shape", ["sheet", "band"])
def test_nothing_given_reaches_one_percent(bin_world: BinWorld, shape: str) -> None:
    world = replace(WORLD, shape=shape)
    stack = bin_world(world, SLABS)
    offset = estimate_offset(stack, mostly_empty=True)
    found = estimate_flatfield(stack, offset.value, offset_uncertainty=offset.uncertainty)
    rms = _rms(world, found.profile.flatfield)
    assert rms < 0.01
    assert rms < 2 * found.relative_uncertainty
    assert found.profile.shape == world.tile_shape
    assert found.profile.flatfield.mean() == pytest.approx(1, abs=1e-6)
    assert found.profile.darkfield == pytest.approx(offset.value)
    assert found.brightness == pytest.approx(60, rel=0.1)
    # The same planes with the offset left in, as most scripts do it.
    assert _rms(world, estimate_flatfield(stack, 0.0).profile.flatfield) > 0.07


def test_a_measured_dark_frame_does_better(bin_world: BinWorld) -> None:
    dark = WORLD.measured_dark_frame()
    found = estimate_flatfield(bin_world(WORLD, SLABS, dark), dark_frame=dark)
    rms = _rms(WORLD, found.profile.flatfield)
    assert rms < 0.002
    assert rms < 2 * found.relative_uncertainty
    np.testing.assert_array_equal(found.profile.darkfield, dark)


def test_a_few_planes_with_sample_change_little(bin_world: BinWorld) -> None:
    world = replace(WORLD, sample=600.0, sample_radius=0.65)
    dark = world.measured_dark_frame()
    stack = bin_world(
        world, [(1, range(8)), (7, range(16, 24)), (9, range(8)), (5, [10, 11])], dark
    )
    found = estimate_flatfield(stack, dark_frame=dark)
    assert set(found.planes_rejected) >= {24, 25}
    assert set(found.planes_used).isdisjoint(found.planes_rejected)
    assert len(found.planes_used) >= 16
    assert _rms(world, found.profile.flatfield) < 0.003


def test_particles_are_clipped(bin_world: BinWorld) -> None:
    planes = WORLD.tile_stack(1)
    for z, (y, x) in enumerate(zip(range(20, 240, 10), range(30, 250, 10), strict=True)):
        planes[z, y : y + 3, x : x + 3] = 30000
    dark = WORLD.measured_dark_frame()
    gathered = BinnedPlanes(24, WORLD.tile_shape)
    gathered.add(bin_block(planes, 0, 0, gathered.bin_px, dark), range(24))
    found = estimate_flatfield(gathered.finish(), dark_frame=dark)
    assert _rms(WORLD, found.profile.flatfield) < 0.004


def test_missing_blocks_are_left_out(bin_world: BinWorld) -> None:
    planes = WORLD.tile_stack(2)
    planes[::2, 64:192, :100] = 0
    planes[3:9] = 0
    dark = WORLD.measured_dark_frame()
    gathered = BinnedPlanes(24, WORLD.tile_shape)
    partial = bin_block(planes, 0, 0, gathered.bin_px, dark, zero_is_no_data=True)
    gathered.add(partial, range(24))
    found = estimate_flatfield(gathered.finish(), dark_frame=dark)
    assert _rms(WORLD, found.profile.flatfield) < 0.004
    assert all(found.planes_rejected[k] == "holds no data" for k in range(3, 9))


@pytest.mark.parametrize("shape", [(1, 64), (5, 7), (130, 161), (33, 1)])
def test_tiles_of_any_size(bin_world: BinWorld, shape: tuple[int, int]) -> None:
    world = replace(WORLD, tile_shape=shape, medium=300.0, streaks=0.0)
    found = estimate_flatfield(bin_world(world, [(1, range(8))]), 100.0)
    assert found.profile.shape == shape
    assert found.profile.flatfield.min() > 0


def test_one_plane_is_enough_to_go_on(bin_world: BinWorld) -> None:
    found = estimate_flatfield(bin_world(WORLD, [(1, [3])]), 100.0)
    assert found.planes_used == (0,)
    assert _rms(WORLD, found.profile.flatfield) < 0.03


def test_float_planes_without_noise(bin_world: BinWorld) -> None:
    flat = WORLD.flatfield()
    planes = np.stack([flat * level for level in (0.5, 0.7, 0.6, 0.55)]).astype(np.float32)
    gathered = BinnedPlanes(4, WORLD.tile_shape)
    gathered.add(bin_block(planes, 0, 0, gathered.bin_px), range(4))
    found = estimate_flatfield(gathered.finish(integer=False))
    assert _rms(WORLD, found.profile.flatfield) < 0.002


def test_no_data_at_all_is_an_error() -> None:
    gathered = BinnedPlanes(3, (64, 64))
    planes = np.zeros((3, 64, 64), np.uint16)
    gathered.add(bin_block(planes, 0, 0, 2, zero_is_no_data=True), range(3))
    with pytest.raises(SamplingError, match="None of the 3 planes"):
        estimate_flatfield(gathered.finish(), 0.0)


def test_half_a_tile_is_an_error() -> None:
    planes = WORLD.tile_stack(1)[:8]
    planes[:, :, :140] = 0
    gathered = BinnedPlanes(8, WORLD.tile_shape)
    gathered.add(bin_block(planes, 0, 0, gathered.bin_px, zero_is_no_data=True), range(8))
    with pytest.raises(SamplingError, match="% of the tile was seen empty"):
        estimate_flatfield(gathered.finish(), 100.0)


@pytest.mark.parametrize("spoilt", [0.0, 0.02, 0.2])
def test_a_bin_is_the_mean_of_what_lies_near_the_median(spoilt: float) -> None:
    """By the median of every bin: the estimate looks for it only where it could matter."""
    rng = np.random.default_rng(4)
    planes, shape = 9, (40, 56)
    level = 100 * rng.uniform(0.5, 4, planes)
    shading = np.linspace(0.5, 1.5, shape[1])
    mean = 20 + level[:, None, None] * shading + rng.normal(0, 1, (planes, *shape))
    mean[rng.random(mean.shape) < spoilt] += 200
    mean[2, :10] = np.nan
    count = np.where(np.isfinite(mean), rng.integers(1, 5, mean.shape), 0)
    stack = replace(
        _empty_stack(planes, shape), mean=mean.astype(np.float32), count=count.astype(np.uint16)
    )
    keep = rng.random((planes, 5, 7)) > 0.03
    empty = EmptySquares(keep, level, {})
    flat, valid = _combine(stack, 20.0, empty)

    wide = np.kron(_shrunk(keep), np.ones((8, 8), np.bool_)).astype(np.bool_)
    signal = stack.mean.astype(np.float64) - 20
    scaled = np.where(wide & np.isfinite(signal), signal / level[:, None, None], np.nan)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmedian(scaled, axis=0)
        limit = 5 * 3 / np.sqrt(np.maximum(count, 1))
        good = np.abs(scaled - middle) * level[:, None, None] <= limit
    weight = (1 / np.maximum(level / (2 * np.median(level)), 1))[:, None, None]
    total = np.where(good, signal * weight, 0).sum(axis=0)
    expected = np.where(good, weight * level[:, None, None], 0).sum(axis=0)
    np.testing.assert_array_equal(valid, expected > 0)
    assert valid.mean() > 0.5
    assert (good != np.isfinite(scaled)).any() == (spoilt > 0)
    np.testing.assert_allclose(flat[valid], (total / np.maximum(expected, 1))[valid], rtol=1e-12)


def _empty_stack(planes: int, shape: tuple[int, int]) -> BinnedStack:
    """Without pixels, but with a noise of 3 counts."""
    stack = BinnedPlanes(planes, (2 * shape[0], 2 * shape[1]), 2).finish()
    return replace(stack, spatial=np.full_like(stack.spatial, 9.0))
