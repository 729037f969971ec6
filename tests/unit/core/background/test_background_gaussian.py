"""The local mean, its radii and its noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fractal_mesospim_shading.core.background import gaussian_backgrounds, make_method
from fractal_mesospim_shading.core.background.filters import gaussian_kernel
from fractal_mesospim_shading.core.background.gaussian import noise_factor, radii_per_channel
from fractal_mesospim_shading.errors import BackgroundError


def gaussian_background(image, mask=None, **parameters):
    return make_method("gaussian", **parameters).background(image, mask).background


@pytest.mark.parametrize("radius", [1.0, 7.0, (2.0, 9.0), 40.0, 700.0])
def test_plane_equals_scipy_with_nearest_edges(scene, radius) -> None:
    image = scene((33, 41), np.float32)
    pair = radius if isinstance(radius, tuple) else (radius, radius)
    expected = image.astype(np.float64)
    for axis, r in enumerate(pair):
        expected = ndimage.correlate1d(expected, gaussian_kernel(r / 2), axis, mode="nearest")
    # Sums of 2 000 numbers in float32 where the kernel is much larger than the image.
    rtol = 2e-6 if np.max(radius) < 100 else 5e-6
    np.testing.assert_allclose(gaussian_background(image, radius_px=radius), expected, rtol=rtol)


def test_stack_equals_scipy(scene) -> None:
    image = scene((6, 20, 23), np.uint16)
    expected = image.astype(np.float64)
    for axis, r in enumerate((4.0, 5.0, 5.0)):
        expected = ndimage.correlate1d(expected, gaussian_kernel(r / 2), axis, mode="nearest")
    found = gaussian_background(image, radius_px=5.0, radius_z_px=4.0)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_masked_form_is_a_weighted_mean(scene) -> None:
    image = scene((9, 9), np.float32)
    mask = np.zeros(image.shape, bool)
    mask[2:5, 3:6] = True
    kernel = np.outer(*[gaussian_kernel(1.5)] * 2)
    half = kernel.shape[0] // 2
    values = np.pad(np.where(mask, 0, image), half, mode="edge")
    weights = np.pad(1.0 - mask, half, mode="edge")
    expected = np.empty(image.shape)
    for y, x in np.ndindex(9, 9):
        at = slice(y, y + 2 * half + 1), slice(x, x + 2 * half + 1)
        expected[y, x] = (kernel * values[at]).sum() / (kernel * weights[at]).sum()
    found = gaussian_background(image, mask, radius_px=3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mean_equals_scipy(scene) -> None:
    image = scene((30, 31), np.float32)
    expected = ndimage.uniform_filter(image.astype(np.float64), 9, mode="nearest")
    method = make_method("difference_of_filters", big_radius_px=4, filter="mean")
    np.testing.assert_allclose(method.background(image).background, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        (3, [(3, 3), (3, 3)]),
        ((3, 5), [(3, 5), (3, 5)]),
        ([3, 5], [(3, 3), (5, 5)]),
        ([(3, 4), 5.0], [(3, 4), (5, 5)]),
        (((3, 4), (5, 6)), [(3, 4), (5, 6)]),
        (np.array([3, 5]), [(3, 3), (5, 5)]),
        (np.float32(2), [(2, 2), (2, 2)]),
    ],
)
def test_radii_of_two_channels_are_without_ambiguity(radius, expected) -> None:
    assert radii_per_channel(radius, 2) == expected


@pytest.mark.parametrize("radius", [[3.0], [3.0, 4.0], (3.0, 4.0, 5.0, 6.0), 0.5, [3, 3, 0.2]])
def test_wrong_radii_are_refused(radius) -> None:
    with pytest.raises(BackgroundError, match=r"expected|entries"):
        radii_per_channel(radius, 3)


def test_wrong_number_of_noise_corrections_is_refused() -> None:
    with pytest.raises(BackgroundError, match="1 noise corrections for 2"):
        gaussian_backgrounds([np.ones((1, 9, 9))] * 2, 3.0, [1.0])


@pytest.mark.parametrize(
    ("radius", "published", "exact"), [(3, 0.659, 0.946), (7, 0.853, 0.990), (15, 0.931, 0.997)]
)
def test_noise_factors_and_monte_carlo(radius, published, exact) -> None:
    factor = noise_factor(float(radius))
    assert factor.published == pytest.approx(published, abs=1e-3)
    assert factor.exact == pytest.approx(exact, abs=1e-3)
    noise = np.random.default_rng(0).normal(0, 1, (600, 600)).astype(np.float32)
    left = (noise - gaussian_background(noise, radius_px=float(radius)))[20:-20, 20:-20]
    assert left.std() == pytest.approx(exact, abs=5e-3)


def test_noise_factor_of_a_stack_by_monte_carlo() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (30, 90, 90)).astype(np.float32)
    left = noise - gaussian_background(noise, radius_px=2.0, radius_z_px=2.0)
    assert left[3:-3, 3:-3, 3:-3].std() == pytest.approx(noise_factor(2.0, 2.0).exact, abs=5e-3)
