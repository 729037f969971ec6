"""Arrays and arguments of every form: axes, masked arrays, lists, and what makes no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.core.background import METHODS, gaussian_backgrounds, make_method
from fractal_mesospim_shading.core.background.apply import Application, apply_background
from fractal_mesospim_shading.core.background.arrays import correct_array, estimate_array
from fractal_mesospim_shading.core.background.masks import dilate_mask
from fractal_mesospim_shading.core.background.noise import estimate_noise_sigma, noise_bias
from fractal_mesospim_shading.errors import BackgroundError

SMALL = {
    "tile_median": {"tile_size": 16, "dilation": 2},
    "difference_of_filters": {"small_radius_px": None, "big_radius_px": 6},
    "constant": {},
}
each_method = pytest.mark.parametrize("name", METHODS)


def small(name: str) -> Any:
    return make_method(name, **SMALL.get(name, {"radius_px": 6}))


# --- Which axes ---------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("shape", [(30, 40, 3), (30, 40, 4), (30, 40, 1), (2, 30, 40, 3)])
def test_a_last_axis_that_may_be_colour_is_refused(name, shape) -> None:
    image = np.full(shape, 9, np.uint8)
    for function in (correct_array, estimate_array):
        with pytest.raises(BackgroundError, match="axes='z?yxc' if it holds channels") as caught:
            function(image, small(name))
        assert f"last axis of {shape[-1]}" in str(caught.value)


@each_method
def test_colours_in_the_last_axis_are_corrected_one_by_one(scene, name) -> None:
    image = np.stack([scene((40, 50), np.uint8, seed) for seed in range(3)], axis=-1)
    method, saved = small(name), np.empty(image.shape, np.float32)
    mask = np.zeros((40, 50), bool)
    mask[10:20, 30:35] = True
    result = correct_array(image, method, mask=mask, axes="YXC", background_out=saved)
    for colour in range(3):
        alone = correct_array(np.ascontiguousarray(image[..., colour]), method, mask=mask)
        np.testing.assert_array_equal(result.image[..., colour], alone.image)
        background = method.background(image[..., colour], mask).background
        np.testing.assert_array_equal(saved[..., colour], background)
    assert result.counts.pixels == image.size


def test_a_narrow_stack_is_taken_once_its_axes_are_named(scene) -> None:
    stack = scene((5, 40, 3), np.uint16)
    named = estimate_array(stack, make_method("constant"), axes="zyx")
    np.testing.assert_array_equal(named[:, 0, 0], np.median(stack, axis=(1, 2)))


def test_axes_in_any_order(scene) -> None:
    stack = scene((7, 24, 20), np.uint16)
    mask = np.zeros((24, 20), np.uint8)
    mask[3:9, 2:5] = 1
    for method in (
        make_method("gaussian", radius_px=4.0),
        make_method("gaussian", radius_px=4.0, radius_z_px=3.0),
    ):
        wanted = estimate_array(stack, method, mask=mask)
        turned = estimate_array(stack.transpose(2, 0, 1), method, mask=mask.T, axes="xzy")
        np.testing.assert_array_equal(turned.transpose(1, 2, 0), wanted)
        whole = np.broadcast_to(mask, stack.shape).transpose(2, 0, 1)
        again = estimate_array(stack.transpose(2, 0, 1), method, mask=whole, axes="xzy")
        np.testing.assert_array_equal(again, turned)


def test_planes_that_passed_through_are_numbered_along_the_other_axes() -> None:
    image = np.full((20, 25, 3), 7, np.float32)
    image[..., 2] = np.nan
    assert correct_array(image, make_method("median", radius_px=5), axes="yxc").unestimated == (
        (2,),
    )


@pytest.mark.parametrize("axes", ["yx", "zyxc", "zyy", "z x", 3, "yxs1", ""])
def test_axes_that_do_not_fit_are_refused(axes) -> None:
    with pytest.raises(BackgroundError, match="different letters|expected y, x"):
        correct_array(np.ones((20, 20, 20)), make_method("constant"), axes=axes)


def test_axes_without_those_that_the_method_needs_are_refused() -> None:
    image = np.ones((20, 20, 20))
    with pytest.raises(BackgroundError, match="without x"):
        correct_array(image, make_method("constant"), axes="zyc")
    with pytest.raises(BackgroundError, match="without z.*z radius"):
        correct_array(image, make_method("gaussian", radius_px=4.0, radius_z_px=3.0), axes="tyx")


# --- Masked arrays ------------------------------------------------------------------------------


@each_method
def test_the_mask_of_a_masked_array_is_a_mask(scene, name) -> None:
    image = scene((2, 40, 50), np.uint16)
    hidden = np.zeros(image.shape, bool)
    hidden[0, 8:20, 10:25] = True
    image[hidden] += 3000
    other = np.zeros((40, 50), np.int32)
    other[30:35, 40:45] = 2
    masked, method = np.ma.array(image, mask=hidden), small(name)
    for mask in (None, other):
        both = hidden if mask is None else hidden | (mask > 0)
        wanted = correct_array(image, method, mask=both)
        found = correct_array(masked, method, mask=mask)
        assert isinstance(found.image, np.ma.MaskedArray)
        np.testing.assert_array_equal(found.image.mask, hidden)
        np.testing.assert_array_equal(found.image.data, wanted.image)
        background = estimate_array(masked, method, mask=mask)
        assert type(background) is np.ndarray
        np.testing.assert_array_equal(background, estimate_array(image, method, mask=both))
        out = np.empty(image.shape, np.float32)
        assert correct_array(masked, method, mask=mask, out=out).image is out
    np.testing.assert_array_equal(
        method.background(masked[0]).background, method.background(image[0], hidden[0]).background
    )


@each_method
def test_methods_take_masked_arrays_and_lists(scene, name) -> None:
    def function(image, mask=None):
        return small(name).background(image, mask).background

    image = scene((30, 40), np.uint16)
    hidden = np.zeros(image.shape, bool)
    hidden[5:12, 9:22] = True
    wanted = function(image, hidden)
    found = function(np.ma.array(image, mask=hidden))
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(function(image.tolist(), hidden.tolist()), wanted)


def test_masked_pixels_do_not_enter_the_noise_and_stay_masked_when_applied(scene) -> None:
    image = scene((30, 40), np.float32)
    hidden = np.zeros(image.shape, bool)
    hidden[:, 20:] = True
    dirty = np.where(hidden, 1e4 * np.arange(40), image)
    masked = np.ma.array(dirty, mask=hidden)
    assert estimate_noise_sigma(masked) == estimate_noise_sigma(image[:, :20])
    found, _ = apply_background(masked, np.zeros(image.shape, np.float32))
    assert isinstance(found, np.ma.MaskedArray)
    np.testing.assert_array_equal(found.mask, hidden)


def test_nothing_masked_is_no_mask(scene) -> None:
    image = scene((30, 40), np.uint16)
    plain = correct_array(image, make_method("tile_median", tile_size=16)).image
    found = correct_array(np.ma.array(image), make_method("tile_median", tile_size=16)).image
    np.testing.assert_array_equal(np.asarray(found), plain)


# --- Other forms --------------------------------------------------------------------------------


def test_lists_and_arrays_of_other_libraries(scene, tmp_path) -> None:
    image = scene((2, 30, 40), np.uint16)
    wanted = correct_array(image, make_method("median", radius_px=5), mask=image > 130).image
    listed = correct_array(
        image.tolist(), make_method("median", radius_px=5), mask=(image > 130).tolist()
    ).image  # type: ignore[arg-type]
    np.testing.assert_array_equal(listed, wanted)
    stored = zarr.create_array(str(tmp_path / "a.zarr"), data=image, chunks=(1, 30, 20))
    out = zarr.create_array(str(tmp_path / "b.zarr"), shape=image.shape, dtype="float32")
    assert (
        correct_array(stored, make_method("median", radius_px=5), mask=image > 130, out=out).image
        is out
    )  # type: ignore[arg-type]
    np.testing.assert_array_equal(out[...], wanted)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "<u2", ">u2", "i4", "u4", "i8", "u8",
                                   "f2", ">f4", "f8", "g"])  # fmt: skip
@each_method
def test_every_type_of_numbers_gives_the_background_of_its_values(scene, name, dtype) -> None:
    image = scene((40, 50), np.uint16) // (200 if dtype == "?" else 3)
    wanted = small(name).background(image.astype(np.float32)).background
    found = small(name).background(image.astype(dtype)).background
    assert found.dtype == np.float32
    # Medians of block means of integers are counted in sixteenths.
    np.testing.assert_allclose(found, wanted, atol=1 / 16 if name == "median" else 1e-4)


# --- Wrong types --------------------------------------------------------------------------------

IMAGE = np.full((20, 24), 100, np.float32)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", ["9", [9, 9], (9, 9, 9), float("nan"), float("inf"), 3 + 2j,
                                 True, np.ones(3), {}, b"9"])  # fmt: skip
def test_parameters_of_a_wrong_type_are_refused_in_one_sentence(name, bad) -> None:
    keys = {"tile_median": "tile_size", "difference_of_filters": "big_radius_px",
            "constant": "value"}  # fmt: skip
    key = keys.get(name, "radius_px")
    with pytest.raises(BackgroundError, match=f"^{key} of the method {name} is .*; expected"):
        make_method(name, **{key: bad})


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("median", {"radius_z_px": 1.5}),
        ("median", {"exact": "yes"}),
        ("median", {"shape": "circle"}),
        ("median", {"radius_px": None}),
        ("opening", {"radius_z_px": "1"}),
        ("opening", {"light_background": 1}),
        ("rolling_ball", {"smooth": None}),
        ("gaussian", {"radius_z_px": [2]}),
        ("gaussian", {"radius_px": (3, "4")}),
        ("tile_median", {"tile_size": 20.5}),
        ("tile_median", {"tile_size": (20, 20.5)}),
        ("tile_median", {"dilation": 1.5}),
        ("tile_median", {"interpolation": ["spline"]}),
        ("difference_of_filters", {"filter": "box"}),
    ],
)
def test_each_parameter_says_what_it_may_be(name, bad) -> None:
    with pytest.raises(BackgroundError, match=f"{next(iter(bad))} of the method {name} is"):
        make_method(name, **bad)


def test_whole_numbers_may_come_as_floats_and_as_numpy() -> None:
    assert make_method("median", radius_px=np.int32(9), radius_z_px=2.0).depth_px == 2
    assert make_method("tile_median", tile_size=np.float32(64)).tile_size == 64  # type: ignore[arg-type]
    assert make_method("gaussian", radius_px=(np.float64(3), 4)).largest_radius_px == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image": "image.tif"}, "image is .* of type <U9"),
        ({"image": None}, "image is None .*object"),
        ({"image": [[1, 2], [3]]}, "image is .* no array"),
        ({"image": np.ones((5, 5), complex)}, "image is an array of type complex128"),
        ({"image": np.array([["a"]])}, "of type <U1"),
        ({"mask": "cells"}, "mask"),
        ({"mask": np.full(IMAGE.shape, None)}, "mask is .* of type object"),
        ({"method": "median"}, "method is 'median'; expected one made by make_method"),
        ({"method": METHODS["median"]}, "method is .*expected one made by"),
        ({"method": None}, "method is None"),
        ({"application": "divide"}, "application is 'divide'; expected an Application"),
        ({"dtype": np.float16}, "dtype is float16; expected an integer type, float32 or float64"),
        ({"dtype": "image"}, "dtype is 'image', which is no type"),
        ({"dtype": bool}, "dtype is bool"),
        ({"dtype": complex}, "dtype is complex128"),
        ({"out": "result.tif"}, "result has no shape"),
        ({"out": np.empty(IMAGE.shape, bool)}, "array for the result is bool"),
        ({"out": np.broadcast_to(np.float32(0), IMAGE.shape)}, "result is read-only"),
        ({"background_out": np.empty(IMAGE.shape, np.uint16)}, "background is uint16; expected fl"),
        ({"progress": 3}, "progress is 3; expected a function"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_in_one_sentence(arguments, words) -> None:
    with pytest.raises(BackgroundError, match=words):
        correct_array(**{"image": IMAGE, "method": make_method("constant"), **arguments})


@pytest.mark.parametrize("bad", [{"weight": "1"}, {"mode": None}, {"output_offset": [1]},
                                 {"reference": "1000"}, {"rounding": "up"},
                                 {"light_background": 1}])  # fmt: skip
def test_an_application_of_wrong_types_is_refused(bad) -> None:
    with pytest.raises(BackgroundError, match="of the application is .*; expected"):
        Application(**bad)


@each_method
@pytest.mark.parametrize("shape", [(20, 24, 3), (3, 20, 24), (20,), (0, 5)])
def test_methods_refuse_what_is_no_plane(name, shape) -> None:
    with pytest.raises(BackgroundError, match=r"expected \(y, x\)"):
        small(name).background(np.ones(shape, np.uint8))
    with pytest.raises(BackgroundError, match="image is .* of type <U9"):
        small(name).background("image.tif")


def test_lengths_in_micrometers_are_given_in_pixels_first() -> None:
    method = METHODS["median"](radius=13.0, radius_unit="micrometers")  # type: ignore[call-arg]
    with pytest.raises(BackgroundError, match="in micrometers; give it in pixels"):
        method.background(IMAGE)
    assert method.in_pixels((1.3, 1.3)) == make_method("median", radius_px=13.0 / 1.3)


@pytest.mark.parametrize("shape", [(20, 24, 3), (20, 24), (2, 20, 24, 30), (0, 20, 24)])
def test_stacks_of_channels_have_three_axes_and_no_colours(shape) -> None:
    with pytest.raises(BackgroundError, match=r"expected a stack \(n, y, x\)"):
        gaussian_backgrounds([np.ones(shape)])


@pytest.mark.parametrize("radius", ["99", None, 3j, [3, "4"], [3, None]])
def test_radii_of_channels_of_wrong_types_are_refused(radius) -> None:
    with pytest.raises(BackgroundError, match="expected"):
        gaussian_backgrounds([IMAGE[None], IMAGE[None]], radius)


def test_noise_needs_a_method_and_a_number() -> None:
    with pytest.raises(BackgroundError, match="method is 'opening'"):
        noise_bias("opening", 3.0)  # type: ignore[arg-type]
    with pytest.raises(BackgroundError, match="noise is '3'"):
        noise_bias(make_method("opening", radius_px=5), "3")  # type: ignore[arg-type]


# --- What marks an object -----------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("nothing", [-1, 0])
def test_labels_below_1_are_no_objects(scene, name, nothing) -> None:
    image = scene((40, 50), np.uint16)
    labels = np.full(image.shape, nothing, np.int16)
    labels[10:20, 5:15] = 4
    wanted = correct_array(image, small(name), mask=labels > 0).image
    np.testing.assert_array_equal(correct_array(image, small(name), mask=labels).image, wanted)
    grown = dilate_mask(labels, 2)
    assert grown.sum() == 14 * 14
