"""How far objects may be widened before no background is left."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.arrays import correct_array
from fractal_mesospim_shading.core.background.masks import dilate_mask, largest_dilation


def _by_trying(objects, absent):
    for radius in range(max(objects.shape) + 1):
        if (dilate_mask(objects, radius) | absent).all():
            return radius - 1 if radius else None
    return max(objects.shape)


@pytest.mark.parametrize("density", [0.0, 0.002, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(31, 23), (1, 40), (1, 1), (64, 64)])
def test_the_largest_dilation_equals_trying_all(density, shape) -> None:
    rng = np.random.default_rng(int(100 * density) + shape[0])
    for _ in range(5):
        objects = rng.random(shape) < density
        absent = rng.random(shape) < 0.3
        for gone in (np.zeros(shape, bool), absent):
            wanted = _by_trying(objects, gone)
            found = largest_dilation(objects, gone)
            if gone.all():
                assert found is None
            elif not objects.any():
                assert found is not None and found >= max(shape) - 1
            else:
                assert found == wanted


def test_a_stack_is_widened_plane_by_plane() -> None:
    stack = np.zeros((3, 20, 30), bool)
    stack[0] = True
    stack[1, :, ::9] = True
    stack[2, :, ::5] = True
    assert largest_dilation(stack) == 3
    assert largest_dilation(np.ones((2, 5, 5), bool)) is None


def dense() -> tuple[np.ndarray, np.ndarray]:
    """Cells of 25 pixels with gaps of 15, on 300 counts."""
    labels = np.zeros((120, 120), np.uint16)
    for y in range(0, 120, 40):
        for x in range(0, 120, 40):
            labels[y : y + 25, x : x + 25] = 1 + y + x
    image = 300 + 500 * (labels > 0) + np.random.default_rng(3).normal(0, 5, labels.shape)
    return np.rint(image).astype(np.uint16), labels


def test_arrays_say_which_dilation_would_have_left_some() -> None:
    image, labels = dense()
    # 15 px to the lower and right edge, where nothing grows in: 14 leave one pixel.
    result = correct_array(
        image, make_method("tile_median", tile_size=60, dilation=15), mask=labels
    )
    assert result.unestimated == ((),) and result.largest_dilation == 14
    np.testing.assert_array_equal(result.image, image)
    kept = correct_array(image, make_method("tile_median", tile_size=60, dilation=14), mask=labels)
    assert kept.unestimated == () and kept.largest_dilation is None
    assert abs(np.median(kept.image[labels == 0])) < 10
    # A mask of everything is not the fault of a dilation.
    for method in (
        make_method("tile_median", tile_size=60),
        make_method("gaussian", radius_px=9.0),
    ):
        found = correct_array(image, method, mask=np.ones_like(labels))
        assert found.unestimated == ((),) and found.largest_dilation is None


def test_the_least_of_all_planes_counts() -> None:
    image, labels = dense()
    labels = np.stack([labels, np.roll(labels, (20, 20), (0, 1)), np.zeros_like(labels)])
    result = correct_array(
        np.stack([image] * 3), make_method("tile_median", tile_size=60, dilation=40), mask=labels
    )
    assert result.unestimated == ((0,), (1,))
    single = [
        correct_array(image, make_method("tile_median", dilation=40), mask=plane).largest_dilation
        for plane in labels[:2]
    ]
    assert result.largest_dilation == min(single) == 7


def test_a_background_says_what_it_rests_on() -> None:
    image, labels = dense()
    for method in (
        make_method("tile_median", tile_size=30, dilation=0),
        make_method("gaussian", radius_px=9.0),
    ):
        assert method.background(image).share == 1
        found = method.background(image, labels)
        assert found.share == pytest.approx((labels == 0).mean()) and not found.even
        gone = np.zeros(labels.shape, bool)
        gone[:30] = True
        part = method.background(image, labels, gone)
        assert part.share == pytest.approx((labels[30:] == 0).mean())
    strict = make_method("tile_median", tile_size=30, dilation=0, min_unmasked_fraction=0.99)
    assert strict.background(image, labels).even
    assert not make_method("tile_median", tile_size=200).background(image, labels[::-1]).even
