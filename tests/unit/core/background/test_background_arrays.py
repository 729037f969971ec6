"""Applying a background, and the functions for people with arrays."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.apply import (
    Application,
    apply_background,
)
from fractal_mesospim_shading.core.background.arrays import correct_array, estimate_array
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.errors import BackgroundError

IMAGE = np.array([[10, 20, 30, 0]], np.uint16)
BACKGROUND = np.array([[12.5, 12.5, 10, 5]], np.float32)


def test_subtraction_is_signed_and_weighted() -> None:
    plain, counts = apply_background(IMAGE, BACKGROUND)
    assert plain.dtype == np.float32
    assert plain.tolist() == [[-2.5, 7.5, 20, -5]]
    half, _ = apply_background(IMAGE, BACKGROUND, Application(weight=0.5, output_offset=1))
    assert half.tolist() == [[4.75, 14.75, 26, -1.5]]
    assert counts == PixelCounts(pixels=4)


def test_integers_are_rounded_clipped_and_counted() -> None:
    found, counts = apply_background(IMAGE, BACKGROUND, dtype=np.uint8)
    assert found.tolist() == [[0, 8, 20, 0]]
    assert (counts.clipped_low, counts.clipped_high) == (2, 0)
    shifted, counts = apply_background(
        IMAGE, BACKGROUND, Application(output_offset=240), dtype=np.uint8
    )
    assert shifted.tolist() == [[238, 248, 255, 235]]
    assert (counts.clipped_low, counts.clipped_high) == (0, 1)


def test_rounding_half_even_and_half_up() -> None:
    image, background = np.array([[3, 4]], np.uint16), np.full((1, 2), 0.5, np.float32)
    assert apply_background(image, background, dtype=np.uint16)[0].tolist() == [[2, 4]]
    up = Application(rounding="half_up")
    assert apply_background(image, background, up, dtype=np.uint16)[0].tolist() == [[3, 4]]


def test_pixels_without_data_keep_their_value() -> None:
    gone = np.array([[False, False, True, True]])
    how = Application(output_offset=100)
    found, counts = apply_background(IMAGE, BACKGROUND, how, dtype=np.uint16, coverage=gone)
    assert found.tolist() == [[98, 108, 30, 0]]
    assert counts.no_data == 2
    infinite = np.array([[np.nan, 7]], np.float32)
    found, _ = apply_background(
        infinite, np.zeros((1, 2), np.float32), dtype=np.uint16, coverage=np.isnan(infinite)
    )
    assert found.tolist() == [[0, 7]]


def test_division() -> None:
    how = Application(mode="divide", reference=10.0)
    found, _ = apply_background(IMAGE, BACKGROUND, how)
    np.testing.assert_allclose(found, [[8, 16, 30, 0]])
    root, _ = apply_background(IMAGE, BACKGROUND, Application("divide", 0.5, reference=10.0))
    np.testing.assert_allclose(root, [[10 * 0.8**0.5, 20 * 0.8**0.5, 30, 0]], rtol=1e-6)


@pytest.mark.parametrize("low", [0.0, -1.0, np.nan, 1e-38])
def test_division_by_a_background_that_reaches_zero_is_refused(low) -> None:
    background = BACKGROUND.copy()
    background[0, 1] = low
    with pytest.raises(BackgroundError, match="1 of 4 pixels"):
        apply_background(IMAGE, background, Application(mode="divide"))
    gone = np.array([[False, True, False, False]])
    found, _ = apply_background(IMAGE, background, Application(mode="divide"), coverage=gone)
    assert found[0, 1] == 20


@pytest.mark.parametrize("bad", [{"mode": "add"}, {"weight": 1.5}, {"weight": -0.1},
                                 {"mode": "divide", "reference": 0.0}])  # fmt: skip
def test_bad_applications_are_refused(bad) -> None:
    with pytest.raises(BackgroundError, match="expected"):
        Application(**bad)


def test_every_plane_for_itself_with_its_own_mask(scene, tmp_path) -> None:
    stack = np.stack([scene((2, 40, 50), np.uint16, seed) for seed in range(3)])
    labels = (stack > 150).astype(np.int32)
    labels[1, 1] = 1
    method = make_method("tile_median", tile_size=20, dilation=1)
    steps: list[tuple[int, int]] = []
    out = np.memmap(tmp_path / "out.bin", np.float32, "w+", shape=stack.shape)
    saved = np.empty(stack.shape, np.float32)
    source = np.memmap(tmp_path / "in.bin", np.uint16, "w+", shape=stack.shape)
    source[:] = stack
    result = correct_array(
        source, method, mask=labels, out=out, background_out=saved,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert result.image is out
    assert steps == [(n, 6) for n in range(1, 7)]
    assert result.unestimated == ((1, 1),)
    np.testing.assert_array_equal(out[1, 1], stack[1, 1])
    for index in [(0, 0), (2, 1)]:
        expected = method.background(stack[index], labels[index]).background
        np.testing.assert_array_equal(saved[index], expected)
        np.testing.assert_array_equal(out[index], stack[index] - expected)


def test_one_mask_for_all_planes_and_the_background_alone(scene) -> None:
    stack = scene((2, 30, 30), np.uint16)
    mask = np.zeros((30, 30), bool)
    mask[5:9, 5:9] = True
    found = estimate_array(stack, make_method("gaussian", radius_px=5.0), mask=mask)
    expected = make_method("gaussian", radius_px=5.0).background(stack[1], mask).background
    np.testing.assert_array_equal(found[1], expected)


def test_zeros_without_data_stay_zero_whatever_the_offset(scene) -> None:
    image = scene((40, 40), np.uint16)
    image[:, :10] = 0
    how = Application(output_offset=50)
    method = make_method("median", radius_px=6, exact=True)
    found = correct_array(image, method, application=how, dtype=np.uint16, zero_is="no_data")
    assert (found.image[:, :10] == 0).all()
    assert found.counts.no_data == 400
    # The column beside the gap sees the background of its own side only.
    alone = method.background(image[:, 10:]).background
    np.testing.assert_array_equal(estimate_array(image, method, zero_is="no_data")[:, 10:], alone)


def test_stack_methods_walk_over_time(scene) -> None:
    series = scene((2, 5, 20, 20), np.uint16)
    method = make_method("gaussian", radius_px=4.0, radius_z_px=3.0)
    found = estimate_array(series, method)
    np.testing.assert_array_equal(found[1], method.background(series[1]).background)


def test_light_background_of_an_integer_image_is_white(scene) -> None:
    image = 255 - scene((40, 40), np.uint8)
    found = correct_array(
        image, make_method("rolling_ball", radius_px=10, light_background=True), dtype=np.uint8
    ).image
    assert np.median(found) > 235


def test_difference_of_filters_corrects_the_smoothed_image(scene) -> None:
    image = scene((40, 40), np.float32)
    image[3, 4] = np.nan
    found = correct_array(
        image,
        make_method("difference_of_filters", small_radius_px=2, big_radius_px=8, filter="gaussian"),
    ).image
    assert np.isnan(found[3, 4])
    filled = scene((40, 40), np.float32)
    result = make_method(
        "difference_of_filters", small_radius_px=2, big_radius_px=8, filter="gaussian"
    ).background(filled)
    expected = result.denoised - result.background
    np.testing.assert_allclose(found[20:, 20:], expected[20:, 20:], atol=1e-4)


def test_arrays_that_do_not_fit_are_refused() -> None:
    image = np.ones((3, 20, 20), np.uint16)
    with pytest.raises(BackgroundError, match="array for the result"):
        correct_array(image, make_method("constant", value=1.0), out=np.empty((3, 20, 21)))
    with pytest.raises(BackgroundError, match="mask"):
        estimate_array(image, make_method("constant", value=1.0), mask=np.ones((3, 20)))
    with pytest.raises(BackgroundError, match="axes"):
        estimate_array(image[0, 0], make_method("constant", value=1.0))
    with pytest.raises(BackgroundError, match="20 x 20"):
        estimate_array(image, make_method("median", radius_px=21))
    with pytest.raises(BackgroundError, match="equal shapes"):
        apply_background(IMAGE, BACKGROUND.T)
