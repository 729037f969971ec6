"""Smoothing takes noise and keeps shape; pixels keep the means of their bins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, BinnedStack, bin_block
from fractal_mesospim_shading.core.flatfield.estimate import (
    HalfEstimate,
    estimate_flatfield,
    fine_structure,
    split_in_halves,
    unshared_structure,
)
from fractal_mesospim_shading.core.flatfield.pixels import upsample
from fractal_mesospim_shading.core.flatfield.smoothing import smooth_profile
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

RNG = np.random.Generator(np.random.PCG64(11))


def _rms(wrong: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wrong**2)))


@pytest.mark.parametrize("shape", ["sheet", "band", "tilted"])
def test_noise_goes_and_streaks_stay(shape: str) -> None:
    truth = LightSheetWorld(tile_shape=(128, 128), shape=shape).flatfield().astype(float)
    noisy = truth + RNG.normal(0, 0.01, truth.shape) * np.sqrt(truth)
    found = smooth_profile(noisy, np.ones(truth.shape, bool))
    assert _rms(found.image / truth - 1) < 0.003
    assert _rms(found.image / truth - 1) < 2 * found.relative_noise
    # The streaks: what is left after a smooth fall-off, 3 % at most in the truth.
    streaks = LightSheetWorld(tile_shape=(128, 128), shape=shape, streaks=0.0).flatfield()
    lines = (truth / streaks).mean(axis=1)
    assert np.corrcoef((found.image / streaks).mean(axis=1), lines)[0, 1] > 0.98


def test_without_noise_nothing_changes() -> None:
    truth = LightSheetWorld(tile_shape=(64, 96)).flatfield().astype(float)
    found = smooth_profile(truth, np.ones(truth.shape, bool))
    assert np.abs(found.image / truth - 1).max() < 2e-3


def test_holes_are_filled_from_around() -> None:
    truth = LightSheetWorld(tile_shape=(96, 96)).flatfield().astype(float)
    valid = np.ones(truth.shape, bool)
    valid[30:45, 50:60] = False
    noisy = np.where(valid, truth + RNG.normal(0, 0.004, truth.shape), np.nan)
    found = smooth_profile(noisy, valid)
    assert np.abs(found.image / truth - 1)[~valid].max() < 0.04


def test_hot_pixels_leave_no_mark_and_thin_streaks_do() -> None:
    truth = LightSheetWorld(tile_shape=(128, 128)).flatfield().astype(float)
    truth[77] *= 0.96
    noisy = truth + RNG.normal(0, 0.004, truth.shape)
    for y, x in RNG.integers(0, 128, (60, 2)):
        noisy[y, x] += RNG.uniform(0.05, 0.5)
    noisy[0, 60] += 0.4
    noisy[127, 127] += 0.4
    found = smooth_profile(noisy, np.ones(truth.shape, bool)).image
    assert _rms(found / truth - 1) < 0.0015
    assert found[77].mean() / found[[75, 79]].mean() == pytest.approx(0.96, abs=0.01)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5), (2, 2)])
def test_tiny_images_work(shape: tuple[int, int]) -> None:
    image = RNG.uniform(0.9, 1.1, shape)
    found = smooth_profile(image, np.ones(shape, bool))
    assert found.image.shape == shape
    assert np.isfinite(found.image).all()


@pytest.mark.parametrize("shape", [(64, 64), (61, 70), (5, 64), (1, 250)])
def test_pixels_keep_the_means_of_their_bins(shape: tuple[int, int]) -> None:
    truth = LightSheetWorld(tile_shape=shape, streaks=0.0).flatfield().astype(float)
    edges = [np.arange(0, size, 8) for size in shape]
    area = np.add.reduceat(np.add.reduceat(np.ones(shape), edges[0], 0), edges[1], 1)
    means = np.add.reduceat(np.add.reduceat(truth, edges[0], 0), edges[1], 1) / area
    pixels = upsample(means, 8, shape)
    again = np.add.reduceat(np.add.reduceat(pixels, edges[0], 0), edges[1], 1) / area
    np.testing.assert_allclose(again, means, rtol=2e-3)


def test_the_fall_off_goes_on_to_the_edge() -> None:
    # Bins of a parabola; half a bin is extrapolated at each end.
    x = (np.arange(256) + 0.5) / 256 - 0.5
    truth = 1 - 1.6 * x**2
    image = np.tile(truth.reshape(-1, 8).mean(1), (4, 1))
    pixels = upsample(image, 8, (32, 256))
    assert np.abs(pixels - truth).max() < 1e-3


def test_a_step_does_not_swing_beyond_its_neighbours() -> None:
    image = np.ones((8, 8))
    image[:, 4:] = 2
    pixels = upsample(image, 4, (32, 32))
    assert pixels.min() >= 0.5
    assert pixels.max() <= 2.5
    assert np.abs(pixels[:, :12] - 1).max() < 1e-9


BinWorld = Callable[..., BinnedStack]

WORLD = LightSheetWorld(tile_shape=(256, 256), planes=32, sample=0.0)
ONES = np.ones((64, 64))


def test_halves_are_of_different_tiles_or_depths() -> None:
    assert split_in_halves([0, 1, 2, 4, 5], None) == [[0, 1, 2], [4, 5]]
    assert split_in_halves([0, 1, 2, 3], [7, 7, 7, 7]) == [[0, 1], [2, 3]]
    assert split_in_halves([0, 1, 2, 3, 4], [1, 1, 1, 3, 9]) == [[0, 1, 2], [3, 4]]
    assert split_in_halves([6], [1] * 7) == [[6], []]


def test_waves_differ_by_their_own_size() -> None:
    # A wave of 4 bins in 64: its RMS is the amplitude over the root of 2.
    wave = 0.2 * np.sin(2 * np.pi * np.arange(64) / 4)[None, :] * ONES
    found = unshared_structure(HalfEstimate(ONES + wave, 0 * ONES), HalfEstimate(ONES, 0 * ONES))
    assert found == pytest.approx(0.2 / np.sqrt(2), rel=0.02)
    slow = 0.2 * np.sin(2 * np.pi * np.arange(64) / 64)[None, :] * ONES
    found = unshared_structure(HalfEstimate(ONES + slow, 0 * ONES), HalfEstimate(ONES, 0 * ONES))
    assert found < 0.01
    assert fine_structure(ONES + wave) == pytest.approx(0.2 / np.sqrt(2), rel=0.02)
    assert fine_structure(ONES + slow) < 0.01


@pytest.mark.parametrize("blurred", [False, True])
def test_noise_is_no_structure(blurred: bool) -> None:
    """Nor where neighbouring pixels share it, as after an interpolation."""
    rng = np.random.Generator(np.random.PCG64(4))

    def noise() -> NDArray[np.float64]:
        values = 0.3 * rng.standard_normal((2, 64, 64))
        return values + np.roll(values, 1, axis=2) if blurred else values

    halves = []
    for _ in range(2):
        one, other = noise()
        halves.append(HalfEstimate(1 + (one + other) / 2, 0.045 * ONES, (one - other) / 2))
    assert unshared_structure(*halves) < 0.05
    cells = np.kron(rng.standard_normal((16, 16)), np.ones((4, 4)))
    with_cells = HalfEstimate(halves[0].flat + 0.3 * cells, halves[0].variance, halves[0].noise)
    # What of the cells is longer than the surroundings is not fine.
    assert 0.18 < unshared_structure(with_cells, halves[1]) < 0.3


@pytest.mark.parametrize("shape", ["sheet", "band"])
@pytest.mark.parametrize("medium", [5.0, 60.0])
def test_empty_planes_share_all_but_their_noise(
    bin_world: BinWorld, shape: str, medium: float
) -> None:
    world = LightSheetWorld(
        tile_shape=(256, 256), planes=16, sample=0.0, shape=shape, medium=medium
    )
    stack = bin_world(world, [(1, range(8)), (9, range(8))])
    for tiles in ([1] * 8 + [9] * 8, [1] * 16):
        found = estimate_flatfield(stack, 100.0, tiles=tiles)
        assert found.unshared_structure < 0.02
        # A dark frame with a structure of 1 count is printed where it is not taken off.
        assert found.fine_structure < np.hypot(0.02, 0.5 / medium)
        assert found.checked


def test_cells_that_pass_for_medium_are_seen() -> None:
    """Each square of bins has the mean brightness of the others: no plane is left out."""
    stack = _with_cells([1, 2, 3], planes=8, contrast=0.1, sigma_px=1.5)
    tiles = [1] * 8 + [2] * 8 + [3] * 8
    found = estimate_flatfield(stack, 100.0, tiles=tiles)
    assert len(found.planes_used) > 12
    assert found.unshared_structure > 0.05


def test_cells_in_neighbouring_planes_of_one_tile_are_printed() -> None:
    stack = _with_cells([1], planes=3, contrast=0.1, sigma_px=3.0)
    found = estimate_flatfield(stack, 100.0, tiles=[1] * 3)
    assert found.fine_structure > 0.05


def _with_cells(
    tiles: Sequence[int], *, planes: int, contrast: float, sigma_px: float
) -> BinnedStack:
    """Empty medium times a texture of cells that go on through some planes."""
    from scipy.ndimage import gaussian_filter

    gathered = BinnedPlanes(planes * len(tiles), WORLD.tile_shape)
    for slot, tile in enumerate(tiles):
        rng = np.random.Generator(np.random.PCG64(tile))
        texture = gaussian_filter(
            rng.standard_normal((planes + 8, *WORLD.tile_shape)), (2, sigma_px, sigma_px)
        )
        light = np.exp(contrast * texture / texture.std())[4 : planes + 4]
        light *= WORLD.medium * WORLD.flatfield() / light.mean()
        counts = rng.poisson(light / WORLD.gain) * WORLD.gain + WORLD.dark_frame()
        block = np.rint(counts + 3 * rng.standard_normal(light.shape)).astype(np.uint16)
        gathered.add(
            bin_block(block, 0, 0, gathered.bin_px), range(slot * planes, (slot + 1) * planes)
        )
    return gathered.finish()
