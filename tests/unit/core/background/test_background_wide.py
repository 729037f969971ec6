"""Counts that float32 does not hold: large integers, float64, and the largest of a type."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import METHODS, make_method
from fractal_mesospim_shading.core.background.apply import (
    Application,
    apply_background,
)
from fractal_mesospim_shading.core.background.arrays import correct_array, estimate_array
from fractal_mesospim_shading.core.background.masks import no_data
from fractal_mesospim_shading.errors import BackgroundError

SMALL = {
    "tile_median": {"tile_size": 16},
    "difference_of_filters": {"small_radius_px": 2, "big_radius_px": 6},
    "constant": {},
}
each_method = pytest.mark.parametrize("name", METHODS)
LEVELS = [
    ("int32", 2**25 + 1),
    ("int32", -(2**31) + 300),
    ("uint32", 2**32 - 1000),
    ("int64", -(2**40) - 7),
    ("uint64", 2**50 + 3),
    ("float64", 2.0**30 + 0.25),
    (">i4", 2**30),
]


def small(name: str):
    return make_method(name, **SMALL.get(name, {"radius_px": 6}))


# --- Estimates ----------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize(("dtype", "level"), LEVELS)
def test_a_common_level_changes_no_digit(scene, name, dtype, level) -> None:
    image = scene((40, 50), np.uint16)
    mask = np.zeros(image.shape, bool)
    mask[5:12, 30:40] = True
    raised = (image.astype(object) + level).astype(dtype)
    if name != "difference_of_filters":
        # Hidden objects may hold anything; that method also smooths them.
        raised[mask] = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1e30
    method, saved = small(name), np.empty(image.shape, np.float64)
    found = correct_array(raised, method, mask=mask, background_out=saved)
    wanted = correct_array(image, method, mask=mask).image
    # The median of block means counts in sixteenths for integers, and exactly for floats.
    # And never better than the last digit of float64 there.
    atol = max(1 / 16 if name == "median" else 2e-4, float(np.spacing(abs(float(level)))))
    np.testing.assert_allclose(found.image[~mask], wanted[~mask], rtol=0, atol=atol)
    np.testing.assert_allclose(
        saved - float(level), estimate_array(image, method, mask=mask), rtol=0, atol=atol
    )


def test_the_median_of_large_integers_is_exact() -> None:
    image = np.random.default_rng(0).integers(0, 1000, (9, 9)).astype(np.int64) + 2**45
    found = (
        make_method("median", radius_px=2, exact=True, shape="square").background(image).background
    )
    assert found.dtype == np.float64
    wanted = sorted(image[2:7, 1:6].ravel().tolist())[12]
    assert found[4, 3] == wanted


@each_method
@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64", "float64"])
def test_small_counts_in_large_types_have_the_bits_of_small_types(scene, name, dtype) -> None:
    image = scene((40, 50), np.uint16)
    method = small(name)
    alike = np.float32 if name == "median" and dtype == "float64" else np.uint16
    found = method.background(image.astype(dtype))
    assert found.background.dtype == np.float32
    wanted = method.background(image.astype(alike)).background
    np.testing.assert_array_equal(found.background, wanted)


@each_method
@pytest.mark.parametrize("huge", [1e300, -1e300, 3.5e38, np.finfo(np.float64).max])
def test_what_float32_makes_infinite_is_no_data_and_does_not_spread(scene, name, huge) -> None:
    image = scene((40, 50), np.float64)
    clean, image[11, 12], image[30, 3] = image.copy(), huge, np.nan
    gone = np.zeros(image.shape, bool)
    gone[11, 12] = gone[30, 3] = True
    method = small(name)
    found = correct_array(image, method, dtype=np.float64)
    wanted = method.background(np.where(gone, 0, clean).astype(np.float32), coverage=gone)
    np.testing.assert_allclose(
        (image - found.image)[~gone] if wanted.denoised is None else 0,
        wanted.background[~gone] if wanted.denoised is None else 0,
        atol=1e-4 if name != "median" else 1 / 16,
    )
    assert np.isfinite(found.image[~gone]).all()
    assert found.image[11, 12] == huge and np.isnan(found.image[30, 3])
    assert found.counts.no_data == 2
    in_float32 = correct_array(image, method).image
    assert np.isfinite(in_float32[~gone]).all()


@each_method
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_number_of_float32_stands_for_nothing(scene, name, sign) -> None:
    image = scene((40, 50), np.float32)
    image[:, :15] = image[30, 40] = sign * np.finfo(np.float32).max
    gone = np.abs(image) > 1e38
    found = correct_array(image, small(name))
    wanted = correct_array(np.where(gone, np.float32(np.nan), image), small(name))
    np.testing.assert_array_equal(found.image[~gone], wanted.image[~gone])
    np.testing.assert_array_equal(found.image[gone], image[gone])
    assert found.counts.no_data == gone.sum()


def test_how_large_a_count_may_be() -> None:
    assert no_data(np.full((2, 2), 3e38, np.float32)) is None
    assert no_data(np.array([[3e38, 1.0]])).tolist() == [[True, False]]
    assert no_data(np.array([[2.0**100, -1.0]])) is None


def test_a_single_bright_pixel_takes_nothing_from_the_others(scene) -> None:
    image = scene((40, 50), np.int64)
    image[20, 20] = 2**60 + 1
    found = correct_array(image, make_method("constant", value=100.0), dtype=np.int64).image
    assert found[20, 20] > 2**60 - 200
    found[20, 20] = image[20, 20] = 0
    np.testing.assert_array_equal(found[:20], image[:20] - 100)


# --- Taking it away -----------------------------------------------------------------------------


def brute(value, background, how: Application, low: int, high: int) -> int:
    """One pixel in exact fractions."""
    v, b, w = Fraction(value), Fraction(float(background)), Fraction(how.weight)
    result = v - w * b + Fraction(how.output_offset) + (high if how.light_background else 0)
    whole = int((result + Fraction(1, 2)) // 1) if how.rounding == "half_up" else round(result)
    return min(max(whole, low), high)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("rounding", ["half_even", "half_up"])
def test_large_integers_equal_fractions(dtype, light, rounding) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(3)
    base = 2**31 - 9000 if limits.max > 2**31 - 1 else 2**30
    image = (base + rng.integers(0, 9000, (6, 7))).astype(dtype)
    image[0, :3] = 0, 1, 5
    background = (base + rng.integers(0, 9 * 4000, (6, 7)) / 4).astype(np.float64)
    background[0, :3] = 3.25, 0.5, 2.5
    how = Application(weight=0.75, output_offset=-3.5, light_background=light, rounding=rounding)
    found, counts = apply_background(image, background, how, dtype=dtype)
    ends = int(limits.min), int(limits.max)
    exact = [
        [brute(int(v), b, how, *ends) for v, b in zip(vs, bs, strict=True)]
        for vs, bs in zip(image, background, strict=True)
    ]
    assert found.tolist() == exact
    free = [
        brute(int(v), b, how, -(2**70), 2**70)
        if not light
        else brute(
            int(v),
            b,
            Application(weight=0.75, output_offset=-3.5, rounding=rounding),
            -(2**70),
            2**70,
        )
        + ends[1]
        for v, b in zip(image.ravel(), background.ravel(), strict=True)
    ]
    assert counts.clipped_low == sum(one < ends[0] for one in free)
    assert counts.clipped_high == sum(one > ends[1] for one in free)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
@pytest.mark.parametrize(
    "method",
    [
        make_method("rolling_ball", radius_px=10, light_background=True),
        make_method("sliding_paraboloid", radius_px=10, light_background=True),
        make_method("opening", radius_px=6, light_background=True),
    ],
    ids=["ball", "paraboloid", "opening"],
)
def test_dark_objects_stay_apart_on_white_in_every_type(scene, method, dtype) -> None:
    image = (255 - scene((40, 50), np.uint8)).astype(dtype)
    found = correct_array(image, method, dtype=dtype)
    in_float = correct_array(image, method, dtype=np.float64).image
    top = int(np.iinfo(dtype).max)
    down = [top - int(one) for one in found.image.ravel()]
    # By how much each pixel is below white: the same as in floats, whatever the type.
    np.testing.assert_allclose(down, np.maximum(-in_float.ravel(), 0), atol=0.51)
    assert len(set(down)) > 20


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64", "int32", "uint32"])
def test_what_is_kept_is_kept_to_the_last_digit(dtype) -> None:
    kind = np.dtype(dtype)
    top = 2**53 + 3 if kind.kind == "f" else int(np.iinfo(kind).max)
    image = np.array([[top, top - 1, 16777217, 5]], dtype)
    gone = np.array([[True, True, True, False]])
    found, counts = apply_background(
        image,
        np.full(image.shape, 2, np.float32),
        Application(output_offset=9),
        dtype=dtype,
        coverage=gone,
    )
    assert found.tolist() == [[*image[0, :3].tolist(), 12]]
    assert counts.no_data == 3
    whole = correct_array(
        image, make_method("tile_median"), mask=np.ones(image.shape, bool), dtype=dtype
    )
    assert whole.unestimated == ((),)
    np.testing.assert_array_equal(whole.image, image)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64", "int32"])
@pytest.mark.parametrize("mode", ["subtract", "divide"])
def test_the_result_may_lie_where_the_image_does(dtype, mode) -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 500, (30, 41)).astype(dtype)
    background = rng.uniform(50, 200, image.shape).astype(np.float32)
    coverage, terms = rng.random(image.shape) < 0.2, Application(mode=mode)
    apart = apply_background(image, background, terms, dtype=dtype, coverage=coverage)
    place = image.copy()
    result, counts = apply_background(place, background, terms, coverage=coverage, out=place)
    assert result is place and counts == apart[1]
    np.testing.assert_array_equal(place, apart[0])


def test_what_is_kept_is_cut_off_where_it_does_not_fit() -> None:
    gone, none = np.ones((1, 4), bool), np.zeros((1, 4), np.float32)
    image = np.array([[-5, 3, 2**40, 2**63 - 1]])
    assert apply_background(image, none, dtype=np.uint16, coverage=gone)[0].tolist() == [
        [0, 3, 65535, 65535]
    ]
    floats = np.array([[-5.7, np.nan, 1e300, 3.7]])
    assert apply_background(floats, none, dtype=np.int32, coverage=gone)[0].tolist() == [
        [-5, 0, 2**31 - 1, 3]
    ]


@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_division_of_large_counts(dtype) -> None:
    image = np.array([[2**30 + 1, 2**29, 7]], dtype)
    background = np.array([[2.0**30, 2.0**30 + 2, 3.5]])
    found, _ = apply_background(image, background, Application("divide"), dtype=np.float64)
    np.testing.assert_allclose(found, 1000 * image.astype(np.float64) / background, rtol=1e-15)
    with pytest.raises(BackgroundError, match="1 of 3 pixels"):
        apply_background(image, background * [[1, 0, 1]], Application("divide"))


def test_float64_results_have_its_digits() -> None:
    image = np.array([[1 / 3, 2 / 3]])
    found, _ = apply_background(image, np.full((1, 2), 0.25, np.float32), dtype=np.float64)
    assert found.tolist() == [[1 / 3 - 0.25, 2 / 3 - 0.25]]


# --- Light backgrounds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["median", "gaussian", "tile_median", "constant", "difference_of_filters"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_light_background_needs_a_method_that_follows_it(scene, name, dtype) -> None:
    image = scene((40, 50), np.uint16)
    with pytest.raises(BackgroundError, match="light_background.*rolling_ball.*paraboloid"):
        correct_array(
            image, small(name), application=Application(light_background=True), dtype=dtype
        )
    with pytest.raises(BackgroundError, match="no parameter light_background"):
        make_method(name, light_background=True)


def test_a_light_background_of_the_result_alone_is_refused(scene) -> None:
    how = Application(light_background=True)
    with pytest.raises(BackgroundError, match="not for the method rolling_ball; set it there"):
        correct_array(
            scene((40, 50), np.uint16),
            make_method("rolling_ball", radius_px=10),
            application=how,
            dtype="u2",
        )


def test_a_division_puts_nothing_on_white(scene) -> None:
    image = 255 - scene((40, 50), np.uint8)
    method = make_method("rolling_ball", radius_px=10, light_background=True)
    how = Application("divide", reference=200.0)
    found = correct_array(image, method, application=how, dtype=np.uint8).image
    in_float = correct_array(image, method, application=how).image
    np.testing.assert_allclose(found, np.clip(in_float, 0, 255), atol=0.5)
    assert found.min() < 150 < np.median(found) <= 205
