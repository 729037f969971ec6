"""Cosines over the tile: scaled as they say, and the same in places and in bins."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.overlaps.cosines import (
    coefficients,
    image_of,
    shading_cosines,
    wave_lengths,
)

TILE = (192, 256)


def centres(bins):
    """Of bins that fill the tile, in pixels."""
    y, x = ((np.arange(n) + 0.5) * size / n - 0.5 for n, size in zip(bins, TILE, strict=True))
    return (axis.ravel() for axis in np.meshgrid(y, x, indexing="ij"))


def test_places_and_bins_agree():
    """The image of one coefficient is its cosine at the centres of bins."""
    cosines = shading_cosines(TILE, (24, 32))
    values = cosines.at(*centres((24, 32)))
    for number in (0, 7, len(cosines.y) - 1):
        one = np.zeros((24, 32))
        one[cosines.y[number], cosines.x[number]] = 1
        np.testing.assert_allclose(image_of(one).ravel(), values[:, number], atol=1e-12)


def test_the_sum_of_squares_is_the_mean_square():
    image = np.random.default_rng(0).standard_normal((24, 32))
    found = coefficients(image)
    assert np.sum(found**2) == pytest.approx(np.mean(image**2))
    assert found[0, 0] == pytest.approx(image.mean())
    np.testing.assert_allclose(image_of(found), image, atol=1e-12)


def test_no_cosine_is_finer_than_its_bins():
    cosines = shading_cosines((64, 2048), (16, 128))
    assert cosines.y.max() == 6 and cosines.x.max() == 32
    assert (cosines.length > 0).all()
    assert cosines.length.max() == wave_lengths((16, 128))[cosines.y, cosines.x].max()
