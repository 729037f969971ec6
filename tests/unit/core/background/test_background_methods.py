"""Masks, missing data, small frames and bad input, for all methods alike."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import METHODS, check_fits, make_method
from fractal_mesospim_shading.core.background.masks import dilate_mask, fill_from_nearest, no_data
from fractal_mesospim_shading.core.background.noise import estimate_noise_sigma, noise_bias
from fractal_mesospim_shading.errors import BackgroundError

SMALL = {
    "tile_median": {"tile_size": 32, "dilation": 1},
    "difference_of_filters": {"small_radius_px": None, "big_radius_px": 8},
    "constant": {},
}


def _small(name):
    return make_method(name, **SMALL.get(name, {"radius_px": 8}))


@pytest.mark.parametrize("name", METHODS)
def test_an_object_under_the_mask_does_not_raise_the_background(name) -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(300, 2, (70, 80))
    mask = np.zeros(image.shape, np.int32)
    mask[20:42, 30:52] = 7
    image[mask > 0] += 4000
    result = _small(name).background(image.astype(np.uint16), mask)
    assert result.estimated
    assert np.abs(result.background - 300).max() < 12


@pytest.mark.parametrize("name", METHODS)
def test_pixels_without_data_stay_out_and_get_no_background(name) -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(300, 2, (70, 80)).astype(np.float32)
    image[:20, :30] = np.nan
    image[50, 60] = np.inf
    gone = np.zeros(image.shape, bool)
    gone[60:, :] = True
    dirty = np.where(gone, 0, image)
    result = _small(name).background(dirty, coverage=gone)
    missing = gone | ~np.isfinite(image)
    assert (result.background[missing] == 0).all()
    assert np.abs(result.background[~missing] - 300).max() < 12


@pytest.mark.parametrize("name", METHODS)
def test_a_frame_without_usable_pixels_is_flagged_and_passes_through(name) -> None:
    image = np.full((20, 30), 100, np.uint16)
    result = _small(name).background(image, np.ones(image.shape, bool))
    assert not result.estimated
    assert (result.background == 0).all()
    assert result.denoised is None


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 2), (9, 9)])
def test_a_flat_frame_of_any_size_is_its_own_background(name, shape) -> None:
    image = np.full(shape, 123, np.uint16)
    np.testing.assert_allclose(_small(name).background(image).background, 123, atol=1e-3)


@pytest.mark.parametrize("size", [20, 100, 300, 513])
def test_tile_median_works_with_few_tiles(size) -> None:
    y = np.indices((size, 90))[0]
    image = (100 + 2 * y).astype(np.uint16)
    found = make_method("tile_median", tile_size=256).background(image).background
    # The slope is followed between the outer centres, and held beyond.
    assert found.min() >= 100
    assert found.max() <= image.max()
    assert found[size // 2, 45] == pytest.approx(100 + 2 * (size - 1) / 2, abs=2)


@pytest.mark.parametrize("interpolation", ["spline", "linear"])
def test_tile_median_is_exact_on_a_slope_and_pyama_half_a_pixel_off(interpolation) -> None:
    y, x = np.indices((160, 240))
    image = (50 + 3.0 * x + 2.0 * y).astype(np.float32)
    inside = slice(40, 120), slice(40, 200)
    right = make_method("tile_median", tile_size=40, interpolation=interpolation)
    found = right.background(image).background
    np.testing.assert_allclose(found[inside], image[inside], rtol=1e-5)
    pyama = make_method(
        "tile_median", tile_size=40, interpolation=interpolation, compatibility="pyama"
    )
    biased = pyama.background(image).background
    np.testing.assert_allclose((image - biased)[inside], (3 + 2) / 2, atol=1e-3)


def test_tile_median_without_interpolation_takes_the_nearest_tile() -> None:
    image = np.zeros((40, 40), np.uint16)
    image[:, 20:] = 100
    found = (
        make_method("tile_median", tile_size=20, interpolation="none").background(image).background
    )
    assert set(np.unique(found)) <= {0.0, 50.0, 100.0}
    assert (found[:, :15] == 0).all()
    assert (found[:, 25:] == 100).all()


def test_tile_without_enough_pixels_takes_the_median_of_the_frame() -> None:
    image = np.full((60, 60), 100, np.uint16)
    image[:30, :30] = 200
    mask = np.zeros(image.shape, bool)
    mask[:30, 2:30] = True
    plain = make_method("tile_median", tile_size=30, dilation=0).surface(image, mask)
    strict = make_method(
        "tile_median", tile_size=30, dilation=0, min_unmasked_fraction=0.2
    ).surface(image, mask)
    assert plain.values[0, 0] == 200
    assert strict.values[0, 0] == np.median(image[~mask])


def test_tiles_of_a_few_pixels_give_medians_too() -> None:
    image = np.random.default_rng(0).integers(0, 4000, (300, 420)).astype(np.uint16)
    values = make_method("tile_median", tile_size=2).surface(image).values
    assert values.shape == (299, 419)
    assert values[7, 11] == np.median(image[7:9, 11:13])


@pytest.mark.parametrize("size", [7, 24])
@pytest.mark.parametrize("kind", ["noise", "whole", "one bright", "even", "large", "uint16"])
def test_medians_of_tiles_equal_numpy_to_the_last_bit(kind, size) -> None:
    """Whether most pixels share a number, none do, or all: they are told apart in the end."""
    rng = np.random.default_rng(5)
    image = rng.normal(100, 20, (60, 75)).astype(np.float32)
    if kind == "one bright":
        image[30, 40] = 1e30
    elif kind == "even":
        image[...] = 7.25
    elif kind == "large":
        image *= np.float32(1e34)
    elif kind != "noise":
        image = np.round(image).astype(np.uint16 if kind == "uint16" else np.float32)
    masked = rng.random(image.shape) < 0.3
    values = make_method("tile_median", tile_size=size, dilation=0).surface(image, masked).values
    edges = [np.rint(np.linspace(0, n, 2 * -(-n // size) + 1)).astype(int) for n in image.shape]
    for j, i in np.ndindex(*values.shape):
        box = slice(edges[0][j], edges[0][j + 2]), slice(edges[1][i], edges[1][i + 2])
        ordered = np.sort(image[box][~masked[box]].astype(np.float32))
        middle = ordered[(ordered.size - 1) // 2] + ordered[ordered.size // 2]
        assert values[j, i] == middle / 2


def test_sigma_clipping_equals_a_loop(scene) -> None:
    image = scene((40, 40), np.float32)
    mesh = make_method("tile_median", tile_size=20, sigma_clip=2.0).surface(image)
    edges = np.rint(np.linspace(0, 40, 5)).astype(int)
    for j in range(3):
        for i in range(3):
            values = image[edges[j] : edges[j + 2], edges[i] : edges[i + 2]].ravel()
            for _ in range(10):
                values = values[np.abs(values - np.median(values)) <= 2 * values.std()]
            assert mesh.values[j, i] == pytest.approx(np.median(values), rel=1e-6)


def test_mesh_filter_takes_the_median_of_neighbouring_tiles() -> None:
    image = np.full((100, 100), 50, np.uint16)
    image[41:57, 41:57] = 900
    plain = make_method("tile_median", tile_size=20).surface(image).values
    calm = make_method("tile_median", tile_size=20, filter_size=3).surface(image).values
    assert plain.max() == 900
    assert calm.max() == 50


def test_noise_map_is_the_standard_deviation() -> None:
    image = np.random.default_rng(0).normal(300, 7, (128, 128)).astype(np.float32)
    image[5:9, 5:9] = 9000
    noise = make_method("tile_median", tile_size=64, noise_map=True).background(image).noise
    np.testing.assert_allclose(noise, 7, rtol=0.08)


@pytest.mark.parametrize(
    "method",
    [
        make_method("median", radius_px=4, radius_z_px=1),
        make_method("opening", radius_px=4, radius_z_px=1),
        make_method("gaussian", radius_px=4.0, radius_z_px=3.0),
    ],
)
def test_three_dimensional_methods_take_stacks_only(scene, method) -> None:
    stack = scene((7, 24, 20), np.uint16)
    whole = method.background(stack).background
    assert whole.shape == stack.shape
    depth = method.depth_px
    part = method.background(stack[: 3 + depth]).background
    np.testing.assert_array_equal(part[:3], whole[:3])
    with pytest.raises(BackgroundError, match="z radius"):
        method.background(stack[0])


def test_planewise_methods_refuse_stacks(scene) -> None:
    with pytest.raises(BackgroundError, match=r"\(y, x\)"):
        make_method("median", radius_px=4).background(scene((3, 20, 20), np.uint16))


@pytest.mark.parametrize(
    ("method", "least"),
    [
        (make_method("rolling_ball", radius_px=0.5), "1"),
        (make_method("sliding_paraboloid", radius_px=0.1), "0.2"),
        (make_method("sliding_paraboloid", radius_px=0), "0.2"),
        (make_method("median", radius_px=0), "1"),
        (make_method("opening", radius_px=-2), "1"),
        (make_method("gaussian", radius_px=0.9), "1"),
        (make_method("gaussian", radius_px=(5.0, 0.1)), "1"),
    ],
)
def test_radius_below_the_least_is_refused(method, least) -> None:
    with pytest.raises(BackgroundError, match=f"{least} or more"):
        method.background(np.ones((10, 10), np.uint16))


@pytest.mark.parametrize(
    "bad",
    [
        {"tile_size": 1},
        {"min_unmasked_fraction": 1.5},
        {"sigma_clip": -1.0},
        {"filter_size": 2},
        {"interpolation": "cubic"},
        {"dilation": -1},
    ],
)
def test_bad_parameters_of_tile_median_are_refused(bad) -> None:
    image = np.ones((10, 10), np.uint16)
    with pytest.raises(BackgroundError, match="expected"):
        make_method("tile_median", **bad).background(image, np.eye(10))


def test_a_method_must_fit_the_tile() -> None:
    check_fits(make_method("rolling_ball", radius_px=20), (20, 30))
    for method in (
        make_method("opening", radius_px=21),
        make_method("median", radius_px=20.5),
        make_method("median", radius_px=0),
        make_method("difference_of_filters", small_radius_px=2, big_radius_px=21, filter="mean"),
        make_method("rolling_ball", radius_px=0.5),
        make_method("gaussian", radius_px=0.5),
    ):
        with pytest.raises(BackgroundError, match="20 x 30.*from 1 to"):
            check_fits(method, (20, 30))


def test_balls_paraboloids_and_gaussians_may_be_larger_than_the_tile() -> None:
    for method in (
        make_method("rolling_ball", radius_px=10_000),
        make_method("gaussian", radius_px=(3.0, 25.0)),
        make_method("sliding_paraboloid", radius_px=1e9),
        make_method("sliding_paraboloid", radius_px=0.2),
        make_method(
            "difference_of_filters", small_radius_px=2, big_radius_px=300, filter="gaussian"
        ),
    ):
        check_fits(method, (20, 30))
    for method in (
        make_method("rolling_ball", radius_px=10_001),
        make_method("gaussian", radius_px=1e5),
        make_method("sliding_paraboloid", radius_px=1e10),
    ):
        with pytest.raises(BackgroundError, match="expected a radius from .* to 10+ px"):
            check_fits(method, (20, 30))
    with pytest.raises(BackgroundError, match="from 0.2 to"):
        check_fits(make_method("sliding_paraboloid", radius_px=0.1), (20, 30))
    check_fits(make_method("rolling_ball", radius_px=12_000), (12_000, 15_000))


def test_unknown_names_are_refused_with_those_that_exist() -> None:
    with pytest.raises(BackgroundError, match="rolling_ball"):
        make_method("rolling ball")
    with pytest.raises(BackgroundError, match="radius_px"):
        make_method("median", radius=3)


def test_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(BackgroundError, match="same shape"):
        make_method("constant").background(np.ones((4, 5)), np.ones((5, 4)))


def test_dilation_is_a_square() -> None:
    mask = np.zeros((30, 30), np.int32)
    mask[12, 15] = 5
    expected = np.zeros((30, 30), bool)
    expected[2:23, 5:26] = True
    np.testing.assert_array_equal(dilate_mask(mask, 10), expected)


def test_no_data_is_none_where_all_pixels_hold_data() -> None:
    assert no_data(np.ones((2, 2))) is None
    assert no_data(np.zeros((2, 2), np.uint16)) is None
    assert no_data(np.full((2, 2), 3e38, np.float32)) is None
    assert no_data(np.array([[0, np.nan]])).tolist() == [[False, True]]


def test_filling_takes_the_nearest_value() -> None:
    image = np.array([[1, 0, 0, 0, 9]], np.float32)
    unknown = np.array([[False, True, False, True, False]])
    assert fill_from_nearest(image, unknown)[0, 3] in (0, 9)
    assert fill_from_nearest(image, image == 0).tolist()[0][::4] == [1, 9]


def test_noise_is_estimated_in_spite_of_objects_and_slope(scene) -> None:
    assert estimate_noise_sigma(scene((200, 200), np.float32)) == pytest.approx(4, rel=0.05)


def test_noise_bias_brings_an_opening_back_to_the_truth() -> None:
    image = np.random.default_rng(5).normal(1000, 18, (200, 200)).astype(np.float32)
    method = make_method("opening", radius_px=10, smoothing_sigma_px=0)
    raw = method.background(image).background.mean() - 1000
    bias = noise_bias(method, estimate_noise_sigma(image))
    assert raw < -30
    assert raw - bias == pytest.approx(0, abs=1.5)
    assert noise_bias(method, 0.0) == 0
    assert noise_bias(make_method("constant", value=3.0), 5.0) == 0
