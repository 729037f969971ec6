"""Median, opening and difference against SciPy and loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import norm
from skimage.morphology import disk

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.filters import footprint
from fractal_mesospim_shading.errors import BackgroundError


def median_background(image, mask=None, **parameters):
    return make_method("median", **parameters).background(image, mask).background


def opening_background(image, mask=None, *, smoothing_sigma_px=0, **parameters):
    method = make_method("opening", smoothing_sigma_px=smoothing_sigma_px, **parameters)
    return method.background(image, mask).background


def _median_by_loops(image, reach, ignored=None, depth=0):
    """The middle of the pixels that lie in the image, in float64."""
    stack = np.atleast_3d(image.astype(np.float64).T).T
    kept = np.ones(stack.shape, bool) if ignored is None else ~np.atleast_3d(ignored.T).T
    half = reach.shape[0] // 2
    padded = np.pad(stack, ((depth, depth), (half, half), (half, half)))
    usable = np.pad(kept, ((depth, depth), (half, half), (half, half)))
    result = np.empty(stack.shape)
    for z, y, x in np.ndindex(*stack.shape):
        at = slice(z, z + 2 * depth + 1), slice(y, y + 2 * half + 1), slice(x, x + 2 * half + 1)
        result[z, y, x] = np.median(padded[at][usable[at] & (reach > 0)])
    return result.reshape(image.shape)


@pytest.mark.parametrize("shape", ["disk", "imagej_disk", "square"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32])
def test_exact_median_equals_loops(scene, shape, dtype) -> None:
    image = scene((17, 14), dtype)
    reach = footprint(3, shape)
    found = median_background(image, radius_px=3, shape=shape, exact=True)
    np.testing.assert_allclose(found, _median_by_loops(image, reach), rtol=1e-6)


@pytest.mark.parametrize("top", [2**16 - 1, 2**21])
def test_exact_median_of_the_full_range_of_numbers(top) -> None:
    image = np.random.default_rng(1).integers(0, top, (15, 16)).astype(np.uint32)
    found = median_background(image, radius_px=2, exact=True)
    np.testing.assert_allclose(found, _median_by_loops(image, footprint(2, "disk")), rtol=1e-7)


@pytest.mark.parametrize("places", [None, 1, 7])
@pytest.mark.parametrize("kept", [1.0, 0.4])
def test_exact_median_of_floats_equals_loops_to_the_last_bit(places, kept) -> None:
    """Of many groups of ranks, with and without equal values, of even and odd numbers of pixels."""
    rng = np.random.default_rng(3)
    image = rng.normal(100, 30, (41, 47)).astype(np.float32)
    image = image if places is None else (np.round(image / places) * places).astype(np.float32)
    ignored = rng.random(image.shape) >= kept
    found = median_background(image, ignored if ignored.any() else None, radius_px=4, exact=True)
    expected = _median_by_loops(image, footprint(4, "disk"), ignored)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_exact_median_agrees_with_scipy_inside(scene) -> None:
    image = scene((50, 60), np.uint16)
    expected = ndimage.median_filter(image, footprint=disk(6))
    found = median_background(image, radius_px=6, exact=True)
    np.testing.assert_array_equal(found[6:-6, 6:-6], expected[6:-6, 6:-6])


def test_masked_median_leaves_pixels_out_and_fills_from_the_nearest(scene) -> None:
    image = scene((20, 24), np.uint16)
    ignored = np.zeros(image.shape, bool)
    ignored[4:9, 5:12] = True
    image[ignored] = 60000
    reach = footprint(3, "square")
    expected = _median_by_loops(image, reach, ignored)
    found = median_background(image, ignored, radius_px=3, shape="square", exact=True)
    known = ~np.isnan(expected)
    np.testing.assert_allclose(found[known], expected[known])
    assert found.max() < 300


def test_median_in_three_dimensions(scene) -> None:
    image = scene((4, 12, 11), np.uint16)
    found = median_background(image, radius_px=2, radius_z_px=1, exact=True)
    np.testing.assert_allclose(found, _median_by_loops(image, footprint(2, "disk"), depth=1))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_median_of_block_means_follows_a_slope_and_not_the_objects(dtype) -> None:
    y, x = np.indices((97, 110))
    truth = 300 + 0.8 * x + 0.5 * y
    image = truth.copy()
    image[30:38, 40:48] += 5000
    found = median_background(image.astype(dtype), radius_px=25)
    inside = found[30:-30, 30:-30] - truth[30:-30, 30:-30]
    assert np.abs(inside).max() < 4


def test_imagej_disk_has_its_own_size() -> None:
    assert footprint(5, "imagej_disk").sum() == 89
    np.testing.assert_array_equal(footprint(5, "disk"), disk(5))


@pytest.mark.parametrize("shape", ["disk", "imagej_disk", "square"])
@pytest.mark.parametrize("radius", [1, 4, 9.5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_opening_equals_scipy(scene, shape, radius, dtype) -> None:
    image = scene((40, 37), dtype)
    reach = footprint(radius, shape)
    expected = ndimage.grey_opening(image, footprint=reach, mode="reflect")
    found = opening_background(image, radius_px=radius, shape=shape)
    np.testing.assert_array_equal(found, expected)
    closed = opening_background(image, radius_px=radius, shape=shape, light_background=True)
    np.testing.assert_array_equal(closed, ndimage.grey_closing(image, footprint=reach))


def test_opening_larger_than_the_image_equals_opencv(scene) -> None:
    image = scene((9, 21), np.uint16)
    expected = cv2.morphologyEx(image, cv2.MORPH_OPEN, footprint(30, "disk"))
    np.testing.assert_array_equal(opening_background(image, radius_px=30), expected)


def test_masked_opening_ignores_dark_pixels(scene) -> None:
    image = scene((40, 40), np.uint16)
    dirty, ignored = image.copy(), np.zeros(image.shape, bool)
    ignored[10:13, 20:23] = True
    dirty[ignored] = 0
    found = opening_background(dirty, ignored, radius_px=8)
    lifted = image.copy()
    lifted[ignored] = 65535
    expected = ndimage.grey_opening(lifted, footprint=footprint(8, "disk"))
    np.testing.assert_array_equal(found, expected)


def test_opening_in_three_dimensions_is_a_cylinder(scene) -> None:
    image = scene((6, 20, 18), np.uint16)
    reach = np.stack([footprint(3, "disk")] * 3)
    expected = ndimage.grey_opening(image, footprint=reach)
    found = opening_background(image, radius_px=3, radius_z_px=1)
    np.testing.assert_array_equal(found, expected)


def test_smoothing_takes_the_noise_bias_of_the_opening_away() -> None:
    image = np.random.default_rng(0).normal(500, 18, (200, 200)).astype(np.float32)
    raw = opening_background(image, radius_px=25).mean() - 500
    smooth = opening_background(image, radius_px=25, smoothing_sigma_px=4).mean() - 500
    assert raw < -40
    assert -6 < smooth < 0


@pytest.mark.parametrize("kind", ["median", "gaussian", "mean"])
@pytest.mark.parametrize("small", [None, 2])
def test_difference_of_filters(scene, kind, small) -> None:
    image = scene((40, 44), np.float32)

    def scipy_filter(radius):
        if radius is None:
            return image
        if kind == "median":
            return ndimage.median_filter(image, footprint=disk(radius))
        if kind == "mean":
            return ndimage.uniform_filter(image, 2 * radius + 1, mode="nearest")
        half = int(2.5758 * radius / 2)
        edges = (np.arange(-half, half + 2) - 0.5) * 2 / radius
        kernel = np.diff(norm.cdf(edges))
        kernel /= kernel.sum()
        rows = ndimage.correlate1d(image, kernel, axis=0, mode="nearest")
        return ndimage.correlate1d(rows, kernel, axis=1, mode="nearest")

    method = make_method(
        "difference_of_filters", small_radius_px=small, big_radius_px=7, filter=kind
    )
    result = method.background(image)
    found = (image if small is None else result.denoised) - result.background
    expected = scipy_filter(small) - scipy_filter(7)
    inside = slice(7, -7), slice(7, -7)
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)


@pytest.mark.parametrize("radius", [0, 0.5, -1])
def test_radius_below_one_is_refused(radius) -> None:
    image = np.ones((8, 8), np.uint16)
    for function in (median_background, opening_background):
        with pytest.raises(BackgroundError, match="expected 1 or more"):
            function(image, radius_px=radius)
