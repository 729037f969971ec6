"""What tiles lead to expect, against tiles whose sample is known to the last value."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fractal_mesospim_shading.core.overlaps.cosines import coefficients
from fractal_mesospim_shading.core.overlaps.expectations import (
    expectations,
    polynomials,
    tilt_error,
)

BINS = (48, 60)


def views(rng, count):
    """Light of tiles whose sample has a size of 3 bins, and the mean log of what they show."""
    logs = [0.4 * sample / sample.std() for sample in (_sample(rng) for _ in range(count))]
    return {k: 200 * np.exp(log) for k, log in enumerate(logs)}, np.mean(logs, axis=0)


def _sample(rng):
    return gaussian_filter(rng.standard_normal(BINS), 3)


def test_the_scatter_of_tiles_is_the_error_of_their_mean():
    """In bands of wave numbers, over 20 acquisitions of 9 tiles."""
    rng = np.random.default_rng(0)
    actual, told = np.zeros(BINS), np.zeros(BINS)
    for _ in range(20):
        light, mean = views(rng, 9)
        known = expectations(np.zeros(BINS), light)
        actual += coefficients(mean) ** 2
        told += known.scatter
    for low, high in ((1, 3), (3, 6), (6, 10)):
        band = (known.length >= low) & (known.length < high)
        assert told[band].sum() / actual[band].sum() == pytest.approx(1, abs=0.35), (low, high)


def test_too_few_tiles_tell_no_scatter():
    light, _ = views(np.random.default_rng(0), 3)
    few = expectations(np.zeros(BINS), light)
    np.testing.assert_array_equal(few.scatter, expectations(np.zeros(BINS), {}).scatter)


def test_bins_without_data_are_as_the_flat_field_says():
    light, _ = views(np.random.default_rng(0), 9)
    shape = np.broadcast_to(np.linspace(-0.3, 0.3, BINS[1]), BINS)
    seen = {k: view * np.exp(shape) for k, view in light.items()}
    seen[0] = seen[0].copy()
    seen[0][:, 50:] = np.nan
    known = expectations(np.asarray(shape), seen)
    whole = expectations(np.asarray(shape), {k: view * np.exp(shape) for k, view in light.items()})
    assert np.isfinite(known.scatter).all()
    assert np.sum(known.scatter) == pytest.approx(np.sum(whole.scatter), rel=0.3)


def test_a_ramp_through_all_tiles_tilts_their_mean():
    """By as much as it rises over a tile."""
    rows = np.repeat(np.arange(4.0), 4)
    ramp = coefficients(0.2 * (np.arange(60) + 0.5)[None, :] / 60)[0, 1]
    assert tilt_error(0.2 * rows, rows) == pytest.approx(ramp**2, rel=1e-3)
    assert tilt_error(np.cos(np.arange(16.0) * 2), rows) == 0
    assert tilt_error(0.2 * rows, np.zeros(16)) == 0


def test_polynomials_are_free_of_each_other():
    shapes = polynomials((40, 50)).reshape(9, -1)
    np.testing.assert_allclose(shapes @ shapes.T, np.eye(9), atol=0.02)
    assert np.abs(shapes[:, 0]).max() < 1e-3
