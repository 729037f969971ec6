"""Bins of both views against a forward model: tissue, flat-field, gain, stage error, photons."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as shifted

from fractal_mesospim_shading.core.overlaps.neighbours import Neighbours
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.observing import Piece, Rejected, observe
from fractal_mesospim_shading.core.overlaps.residual import pair_residuals, summary

PAIR = Neighbours(1, 4, "x", (0, 200), ((0, 256), (200, 256)))


def log_flatfield(y, x):
    """Of a tile of 256 x 256 pixels."""
    return 0.4 * np.cos(x / 60) + 0.3 * np.sin(y / 90)


def pieces(shift=(0.0, 0.0), *, sample=300.0, sheets=3, planes=4, gain=0.5, ratio=1.0, seed=0):
    """What both tiles see of their overlap, the second farther by `shift` and brighter."""
    rng = np.random.default_rng(seed)
    result = []
    y, x = np.mgrid[0:256, 200:256]
    for sheet in range(sheets):
        scene = gaussian_filter(rng.standard_normal((planes, 316, 116)), (4, 4, 4))
        scene = 60 + sample * np.exp(0.3 * scene / scene.std())
        moved = shifted(scene, (0, *shift), order=3)
        pair = []
        for light, x_in_tile, factor in ((scene, x, 1.0), (moved, x - 200, ratio)):
            light = light[:, 30:-30, 30:-30] * factor * np.exp(log_flatfield(y, x_in_tile))
            pair.append((rng.poisson(light / gain) * gain).astype(np.float32))
        result.append(Piece(pair[0], pair[1], (0, 200), sheet))
    return result


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.4, -3.3)])
def test_the_true_flat_field_and_gain_leave_noise(shift):
    seen = observe(PAIR, pieces(shift, ratio=1.2))
    assert isinstance(seen, OverlapPair)
    left = (seen.log_ratio_after(log_flatfield) + np.log(1.2)) / np.sqrt(seen.variance)
    assert np.sqrt(np.mean(left**2)) == pytest.approx(1, abs=0.25)
    assert abs(np.mean(left)) < 0.2
    assert seen.roughness == pytest.approx(1, abs=0.3)
    assert (seen.axis, seen.first, seen.second) == ("x", 1, 4)
    assert set(seen.sheet) == {0, 1, 2}


def test_places_are_those_of_the_tissue():
    seen = observe(PAIR, pieces((2.4, -3.3)))
    np.testing.assert_allclose(seen.y_second - seen.y_first, 2.4, atol=0.05)
    np.testing.assert_allclose(seen.x_second - seen.x_first, -200 - 3.3, atol=0.05)
    assert seen.x_first.min() >= 200 and seen.x_first.max() < 256
    assert seen.x_second.min() >= 0


def test_means_are_those_of_whole_squares():
    """Without a shift they are plain means of 8 x 8 pixels."""
    rng = np.random.default_rng(0)
    light = rng.integers(50, 70, (2, 64, 32)).astype(np.float32)
    pair = Neighbours(1, 2, "x", (0, 100), ((0, 64), (100, 132)))
    seen = observe(pair, [Piece(light, 2 * light, (0, 100), 0)])
    expected = light.reshape(2, 8, 8, 4, 8).mean(axis=(0, 2, 4))
    np.testing.assert_allclose(seen.light_first, expected.ravel(), rtol=1e-6)
    np.testing.assert_allclose(seen.light_second, 2 * expected.ravel(), rtol=1e-6)
    assert set(seen.y_first) == {3.5 + 8 * k for k in range(8)}


@pytest.mark.parametrize("planes", [1, 4])
@pytest.mark.parametrize("sample", [0.0, 300.0])
def test_the_variance_is_that_of_photons(planes, sample):
    seen = observe(PAIR, pieces(sample=sample, planes=planes, sheets=4))
    expected = 0.5 / (64 * planes) * (1 / seen.light_first + 1 / seen.light_second)
    assert np.median(seen.variance / expected) == pytest.approx(1, abs=0.25)


def test_noise_that_neighbouring_pixels_share_counts_in_full():
    """It averages out less over a bin; second differences of pixels do not see it."""
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.standard_normal((2, 8, 256, 56)), (0, 0, 1.5, 1.5))
    light = (100 + 10 * noise / noise.std()).astype(np.float32)
    seen = observe(PAIR, [Piece(light[0], light[1], (0, 200), 0)])
    actual = np.var(seen.log_ratio)
    assert np.mean(seen.variance) == pytest.approx(actual, rel=0.3)
    assert actual > 5 * 2 * (10 / 100) ** 2 / 64 / 8


def test_even_light_needs_no_registration():
    seen = observe(PAIR, pieces(sample=0.0))
    assert isinstance(seen, OverlapPair) and not seen.registration.holds
    assert (seen.registration.y, seen.registration.x) == (0, 0)


def test_tissue_that_does_not_agree_is_rejected():
    mixed = [
        Piece(a.first, b.second, a.corner, a.sheet)
        for a, b in zip(pieces(), pieces(seed=1), strict=True)
    ]
    seen = observe(PAIR, mixed)
    assert isinstance(seen, Rejected) and "correlate" in seen.reason


def test_bins_with_unusable_pixels_are_left_out():
    holed = pieces()
    for piece in holed:
        piece.first[:, :32] = np.nan
        piece.second[2, 100, 30] = np.nan
    seen = observe(PAIR, holed)
    assert seen.y_first.min() > 32
    # One bin of each sheet, whose square the hole lies in.
    rows, columns = np.unique(seen.y_first), np.unique(seen.x_first)
    assert len(seen.y_first) == 3 * (len(rows) * len(columns) - 1)
    hole = (np.abs(seen.y_second - 100) < 4) & (np.abs(seen.x_second - 30) < 4)
    assert not hole.any()


def test_dark_views_say_nothing():
    dark = [Piece(p.first * 0 + 0.01, p.second * 0 - 0.01, p.corner, p.sheet) for p in pieces()]
    assert isinstance(observe(PAIR, dark), Rejected)


def test_pixels_without_noise_were_not_seen_by_a_camera():
    """A constant, as of a channel that was not recorded, is no tissue that both views show."""
    even = [Piece(p.first * 0 + 100, p.second * 0 + 100, p.corner, p.sheet) for p in pieces()]
    assert isinstance(observe(PAIR, even), Rejected)


def test_copies_of_one_image_differ_by_nothing():
    """As in a mosaic that was cut out of a fused image; nothing is divided by a noise of 0."""
    copies = [Piece(p.first, p.first, p.corner, p.sheet) for p in pieces()]
    seen = observe(PAIR, copies)
    assert isinstance(seen, OverlapPair) and not seen.log_ratio.any()
    assert (seen.variance > 0).all()
    found = summary(pair_residuals([seen, seen]))
    assert found.median == 0 and found.noise_floor == pytest.approx(0, abs=1e-4)
