"""Smoothing takes noise and keeps shape; pixels keep the means of their bins."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.smoothing import smooth_profile, upsample
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

RNG = np.random.Generator(np.random.PCG64(11))


def _rms(wrong: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wrong**2)))


@pytest.mark.parametrize("shape", ["sheet", "band", "tilted"])
def test_noise_goes_and_streaks_stay(shape: str) -> None:
    truth = LightSheetWorld(tile_shape=(128, 128), shape=shape).flatfield().astype(float)
    noisy = truth + RNG.normal(0, 0.01, truth.shape) * np.sqrt(truth)
    found = smooth_profile(noisy, np.ones(truth.shape, bool))
    assert found.noise_before == pytest.approx(0.01, rel=0.15)
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
