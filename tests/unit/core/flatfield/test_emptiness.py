"""Planes and regions that hold sample are found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.emptiness import (
    find_empty,
    median_along_first,
    refuse_darkness,
)
from fractal_mesospim_shading.errors import NoLightError, SamplingError
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

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
    with pytest.raises(NoLightError, match="brighter than the camera offset of 500"):
        find_empty(bin_world(world, [(1, range(4))]), 500.0)


def test_planes_that_share_nothing_are_an_error() -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    planes = 100 + rng.uniform(10, 400, (30, 64, 64))
    found = find_empty(_stack_of(planes, noise=1.0), 100.0)
    with pytest.raises(SamplingError, match="of 30 planes chosen as empty"):
        found.refuse_few()


@pytest.mark.parametrize(
    ("total", "odd", "enough"),
    [
        (8, 0, True),
        (8, 2, True),
        (8, 3, True),
        (2, 0, True),
        (2, 1, False),
        (3, 1, False),
        (4, 1, True),
    ],
)
def test_how_many_planes_have_to_be_left(total: int, odd: int, enough: bool) -> None:
    flat = LightSheetWorld(tile_shape=(64, 64)).flatfield()
    planes = 100 + 50 * np.repeat(flat[None], total, axis=0)
    rng = np.random.Generator(np.random.PCG64(3))
    planes[:odd] += rng.uniform(50, 400, (odd, *flat.shape))
    found = find_empty(_stack_of(planes, noise=1.0), 100.0)
    assert len(found.reasons) == odd
    assert found.enough == enough
    assert found.checked == (total >= 3)
    tiles = [5] * odd + [9] * (total - odd)
    if enough:
        found.refuse_few(tiles)
    else:
        with pytest.raises(SamplingError, match=f"{odd} of {odd} planes of tile 5") as error:
            found.refuse_few(tiles)
        assert "tile 9" not in str(error.value)


def test_a_quarter_of_many_planes_has_to_be_left() -> None:
    flat = LightSheetWorld(tile_shape=(64, 64)).flatfield()
    planes = 100 + 50 * np.repeat(flat[None], 40, axis=0)
    rng = np.random.Generator(np.random.PCG64(3))
    for odd, enough in ((19, True), (31, False)):
        planes[:odd] = 100 + rng.uniform(200, 900, (odd, *flat.shape))
        found = find_empty(_stack_of(planes, noise=1.0), 100.0)
        assert (len(found.used) >= 10) == enough
        assert found.enough == enough


def test_planes_without_data_are_none_of_those_chosen() -> None:
    flat = LightSheetWorld(tile_shape=(64, 64)).flatfield()
    planes = 100 + 50 * np.repeat(flat[None], 10, axis=0)
    planes[2:] = np.nan
    found = find_empty(_stack_of(planes, noise=1.0), 100.0)
    assert found.with_data == 2
    assert found.enough
    assert not found.checked


@pytest.mark.parametrize(("medium", "lit"), [(0.0, False), (2.0, True), (5.0, True)])
def test_what_counts_as_light(bin_world: BinWorld, medium: float, lit: bool) -> None:
    world = LightSheetWorld(tile_shape=(128, 128), planes=8, sample=0.0, medium=medium)
    stack = bin_world(world, [(1, range(8))])
    if lit:
        refuse_darkness(stack, 100.0)
    else:
        with pytest.raises(NoLightError, match="as dark as the camera without light"):
            refuse_darkness(stack, 100.0)


def test_a_few_cells_in_the_dark_are_light() -> None:
    planes = np.full((4, 64, 64), 100.0)
    planes[2, 10:30, 20:40] = 130
    refuse_darkness(_stack_of(planes, noise=9.0), 100.0)


def test_an_offset_far_above_all_planes_is_no_lack_of_light(bin_world: BinWorld) -> None:
    world = LightSheetWorld(tile_shape=(64, 64), planes=4, sample=0.0)
    with pytest.raises(SamplingError, match="darker than the camera offset") as error:
        refuse_darkness(bin_world(world, [(1, range(4))]), 700.0)
    assert not isinstance(error.value, NoLightError)


def test_zeros_and_planes_without_data_hold_no_light() -> None:
    with pytest.raises(NoLightError, match="Every pixel of the 3 planes drawn is 0"):
        refuse_darkness(_stack_of(np.zeros((3, 8, 8))), 0.0)
    with pytest.raises(NoLightError, match="hold no data"):
        refuse_darkness(_stack_of(np.full((3, 8, 8), np.nan)), 100.0)


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
