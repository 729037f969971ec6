"""Planes as means over windows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fractal_mesospim_shading.core.emptiness.deciding import decide
from fractal_mesospim_shading.core.emptiness.windows import Windows, choose_window_bin
from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, bin_block
from fractal_mesospim_shading.errors import SamplingError


def _windows(pixels, refs, bin_px, n_z=100):
    binned = BinnedPlanes(len(pixels), pixels.shape[1:], bin_px)
    binned.add(bin_block(pixels, 0, 0, bin_px, None, True), range(len(pixels)))
    return Windows.of(binned.finish(), refs, n_z)


def _pixels(planes=12, shape=(83, 120), mean=150.0):
    rng = np.random.default_rng(1)
    return rng.normal(mean, 5, (planes, *shape)).round().astype(np.uint16)


def test_a_window_is_the_mean_of_its_pixels_also_where_the_tile_ends_in_a_bin():
    pixels = _pixels()
    found = _windows(pixels, [(1, z) for z in range(12)], 2)
    means = found.means[0].reshape(12, -1, 19)
    assert means[3, 0, 0] == pytest.approx(pixels[3, :8, :12].mean(), rel=1e-6)
    assert means[5, -1, -1] == pytest.approx(pixels[5, 76:, 108:].mean(), rel=1e-6)
    assert found.pixels[0].reshape(-1, 19)[-1, -1] == 7 * 12


def test_windows_of_all_sizes_are_means_of_all_their_pixels():
    pixels = _pixels(planes=3, shape=(118, 165))
    found = _windows(pixels, [(1, z) for z in range(3)], 2)
    bins = (59, 83)
    for side, means, number in zip((0.1, 0.2, 0.4), found.means, found.pixels, strict=True):
        length = [round(side * n) for n in bins]
        starts = [
            sorted({*range(0, n - long + 1, long // 2), n - long})
            for n, long in zip(bins, length, strict=True)
        ]
        boxes = [
            pixels[:, 2 * y : 2 * (y + length[0]), 2 * x : 2 * (x + length[1])]
            for y in starts[0]
            for x in starts[1]
        ]
        expected = np.stack([box.mean(axis=(1, 2)) for box in boxes], axis=1)
        np.testing.assert_allclose(means, expected, rtol=1e-6)
        np.testing.assert_array_equal(number, [box[0].size for box in boxes])


def test_windows_with_pixels_of_no_data_are_left_out():
    pixels = _pixels()
    pixels[4, 30:50, 30:60] = 0
    found = _windows(pixels, [(1, z) for z in range(12)], 2)
    missing = np.isnan(found.means[0])
    assert missing[4].any()
    assert not missing[[k for k in range(12) if k != 4]].any()
    assert abs(np.nanmean(found.means[0][4]) - 150) < 0.5


def test_zeros_of_a_dark_image_are_values():
    pixels = np.random.default_rng(1).poisson(1.5, (12, 80, 80)).astype(np.uint16)
    found = _windows(pixels, [(1, z) for z in range(12)], 2)
    assert np.nanmean(found.means[0]) == pytest.approx(pixels.mean(), rel=0.01)


def test_the_noise_is_that_of_the_pixels_beside_planes_of_sample():
    pixels = _pixels(planes=40).astype(np.float64)
    waves = np.sin(np.arange(40)[:, None, None] + np.linspace(0, 20, 120)[None, None, :])
    pixels[10:30] += 40 * waves[10:30]
    found = _windows(pixels.round().astype(np.uint16), [(1, z) for z in range(40)], 2)
    assert found.variance(0, np.full(found.means[0].shape[1], 150.0)) == pytest.approx(
        25 / found.pixels[0], rel=0.3
    )


def test_only_neighbours_in_one_time_point_and_tile_are_one_run():
    refs = [(1, 0), (1, 1), (1, 9), (1, 10), (2, 11), (2, 12)]
    found = _windows(_pixels(planes=6), refs, 2, n_z=10)
    assert found.run.tolist() == [1, 1, 2, 3, 4, 4]


def test_planes_without_neighbours_are_refused():
    with pytest.raises(SamplingError, match="neighbouring planes"):
        _windows(_pixels(planes=3), [(1, 0), (1, 2), (2, 3)], 2)


@pytest.mark.parametrize(("shape", "side"), [((128, 128), 4), ((2048, 2960), 52), ((20, 20), 2)])
def test_bins_are_a_fortieth_of_a_tile(shape, side):
    assert choose_window_bin(shape) == side


def test_a_margin_that_no_plane_has_is_passed_over_in_silence():
    pixels = _pixels(planes=24, shape=(80, 80))
    pixels = (pixels * np.linspace(1, 1.4, 80)).astype(np.uint16)
    pixels[:, :20] = 0
    pixels[5, :60] = 0
    refs = [(tile, z) for tile in (1, 2, 3) for z in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decision = decide(_windows(pixels, refs, 2))
    assert decision.empty.mean() > 0.7
    assert not decision.known[5]
