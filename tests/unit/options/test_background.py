"""What users write becomes the parameters of the methods."""

from __future__ import annotations

import dataclasses
import re

import pytest
from pydantic import TypeAdapter

from fractal_mesospim_shading.core.background import METHODS, make_method, method_of_radius
from fractal_mesospim_shading.core.background.apply import Application
from fractal_mesospim_shading.errors import BackgroundError, ParameterError
from fractal_mesospim_shading.messages import Door, through
from fractal_mesospim_shading.options import background
from fractal_mesospim_shading.options.values import validated

model_of = TypeAdapter(background.Method).validate_python


@pytest.mark.parametrize("name", METHODS)
def test_python_has_the_defaults_of_the_command(name):
    """A method without a word, by `make_method` and by the task."""
    method = model_of({"method": name}).in_pixels()
    assert make_method(name) == method
    assert method.name == name


def test_an_application_has_the_defaults_of_the_command():
    options = background.LocalBackgroundOptions()
    shared = {field.name for field in dataclasses.fields(Application)} - {"rounding"}
    assert {name: getattr(options, name) for name in shared} == {
        name: getattr(Application(), name) for name in shared
    }


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_of_a_method_can_be_set_in_python(name):
    """None is forgotten when a method gets a new parameter."""
    fields = set(METHODS[name].model_fields) - {"method", "radius_unit"}
    # Python gives a pair as the radius, and makes a method for each channel.
    elsewhere = {"radius_yx", "radius_per_channel", "value_per_channel"}
    given = {METHODS[name].field_of(argument, None) for argument in METHODS[name].arguments}
    assert fields - elsewhere == {field for field in given if not field.startswith("_")}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_in_short_and_in_full_what_it_is(name):
    kind = METHODS[name]
    assert kind.short in kind.model_fields
    assert kind.of().title.startswith(name.replace("_", " "))
    assert set(kind.precedence) <= set(kind.model_fields)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "median", "radius": 13}, {"radius": 10.0}),
        (
            {"method": "opening", "radius": 26, "smoothing_sigma": 1.3},
            {"radius": 20.0, "smoothing_sigma": 1.0},
        ),
        ({"method": "tile_median", "tile_size": 100}, {"tile_size": 77}),
        ({"method": "tile_median", "tile_size": 0.1}, {"tile_size": 1}),
        ({"method": "gaussian", "radius_yx": (13, 26)}, {"radius_yx": (10.0, 20.0)}),
        (
            {"method": "difference_of_filters", "small_radius": 2.6, "big_radius": 26},
            {"small_radius": 2.0, "big_radius": 20.0},
        ),
        ({"method": "difference_of_filters", "small_radius": None}, {"small_radius": None}),
    ],
)
def test_micrometers(given, expected):
    method = model_of({**given, "radius_unit": "micrometers"}).in_pixels((1.3, 1.3))
    values = dict(method)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value)
    assert method.radius_unit == "pixels"
    assert method.in_pixels((1.3, 1.3)) == method


def test_pixels_that_are_no_squares_count_by_their_area():
    model = model_of({"method": "median", "radius": 12, "radius_unit": "micrometers"})
    assert model.in_pixels((1.0, 4.0)).radius == 6


def test_per_channel_goes_before_the_others():
    model = model_of({"method": "gaussian", "radius": 5, "radius_yx": (2, 3)})
    assert model.in_pixels(channel=1) == make_method("gaussian", radius_px=(2, 3)).model_copy(
        update={"radius": 5}
    )
    model = model_of({"method": "gaussian", "radius_yx": (2, 3), "radius_per_channel": [4, 6]})
    assert model.in_pixels(channel=1) == make_method("gaussian", radius_px=6)
    model = model_of({"method": "constant", "value": 5, "value_per_channel": "1,2"})
    assert model.in_pixels(channel=1) == make_method("constant", value=2)


@pytest.mark.parametrize("name", ["opening", "rolling_ball", "sliding_paraboloid"])
def test_light_background_goes_to_the_methods_that_know_it(name):
    method = model_of({"method": name}).in_pixels(light_background=True)
    assert method == make_method(name, light_background=True)
    assert method.light_background and not make_method(name).light_background
    assert not make_method("median").in_pixels(light_background=True).light_background


def test_texts_of_the_command_line():
    options = validated(
        background.BackgroundOptions,
        {
            "method": '{"method": "gaussian", "radius_per_channel": "3, 4"}',
            "mask": '{"kind": "label", "label_name": "cells"}',
            "weight": "0.5",
        },
    )
    assert isinstance(options.method, METHODS["gaussian"])
    assert options.method.radius_per_channel == [3, 4]
    assert isinstance(options.mask, background.LabelMask)
    assert options.weight == 0.5


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "{"},
        {"method": '{"method": "median", "radius_per_channel": [1]}'},
        {"mask": {"kind": "circle"}},
        {"light_background": "perhaps"},
        {"reference": 0},
        {"weight": -0.1},
        {"output_offset": "nan"},
        {"output_offset": 1e39},
        {"reference": 1e39},
        {"method": {"method": "constant", "value": -1e39}},
        {"method": {"method": "constant", "value": "inf"}},
        {"mask": {"kind": "threshold", "threshold": float("nan")}},
    ],
)
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(ParameterError):
        validated(background.BackgroundOptions, arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("median", {"method": "median", "radius": 25.0}),
        ("rolling_ball:40", {"method": "rolling_ball", "radius": 40.0}),
        ("tile_median:64", {"method": "tile_median", "tile_size": 64.0}),
        ("difference_of_filters:30", {"big_radius": 30.0}),
        ("constant:12", {"value": 12.0}),
        ('{"method": "gaussian", "radius": 3}', {"method": "gaussian", "radius": 3.0}),
        ("median:15um", {"radius": 15.0, "radius_unit": "micrometers"}),
        ("median: 15 \u00b5m", {"radius": 15.0, "radius_unit": "micrometers"}),
        ("median:15px", {"radius": 15.0, "radius_unit": "pixels"}),
        ("tophat", {"method": "opening", "radius": 25.0}),
        ("top-hat:12", {"method": "opening", "radius": 12.0}),
        ("rolling-ball:12", {"method": "rolling_ball", "radius": 12.0}),
    ],
)
def test_a_method_in_short(text, expected):
    chosen = validated(background.BackgroundOptions, {"method": text}).method.model_dump()
    assert expected.items() <= chosen.items()


@pytest.mark.parametrize(
    ("text", "radius", "expected"),
    [
        ("median", "25", {"method": "median", "radius": 25.0, "radius_unit": "pixels"}),
        ("tophat", "15um", {"method": "opening", "radius": 15.0, "radius_unit": "micrometers"}),
        ("tile_median", "16", {"tile_size": 64.0}),
        ("difference_of_filters", "30", {"big_radius": 30.0}),
    ],
)
def test_a_radius_beside_the_method(text, radius, expected):
    text = method_of_radius(text, radius)
    chosen = validated(background.BackgroundOptions, {"method": text}).method.model_dump()
    assert expected.items() <= chosen.items()


@pytest.mark.parametrize(
    ("text", "radius", "said"),
    [
        ("median:3", "25", "has one already"),
        ('{"method": "median"}', "25", "has one already"),
        ("constant", "25", "has none"),
        ("median", "big", "'big'; expected a number"),
    ],
)
def test_a_radius_that_the_method_cannot_take(text, radius, said):
    with pytest.raises(BackgroundError, match=said):
        method_of_radius(text, radius)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", {"kind": "none"}),
        ("nuclei", {"kind": "label", "label_name": "nuclei", "dilation": 0.0}),
        ("nuclei:3", {"label_name": "nuclei", "dilation": 3.0, "dilation_unit": "pixels"}),
        ("nuclei:2.5um", {"dilation": 2.5, "dilation_unit": "micrometers"}),
        ("threshold:400", {"kind": "threshold", "threshold": 400.0, "dilation": 0.0}),
        ("threshold:400:2um", {"threshold": 400.0, "dilation": 2.0}),
        ('{"kind": "label", "label_name": "a:b"}', {"label_name": "a:b"}),
    ],
)
def test_a_mask_in_short(text, expected):
    chosen = validated(background.BackgroundOptions, {"mask": text}).mask.model_dump()
    assert expected.items() <= chosen.items()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "foo"}, "'foo'; expected one of tile_median, median, opening"),
        ({"method": "median:x"}, "'radius' of method = median is 'x'; expected a number"),
        ({"method": {"method": "median", "radii": 3}}, "radii of method = median: there is no"),
        ({"mask": '{"mask": "threshold"}'}, "name of a label image, threshold:COUNTS"),
        ({"mask": "threshold"}, "name of a label image, threshold:COUNTS"),
        ({"mask": "nuclei:1:2"}, "name of a label image, threshold:COUNTS"),
        ({"mask": {"kind": "threshold"}}, "'threshold' of mask = threshold is missing"),
        ({"mask": "nuclei:x"}, "'dilation' of mask = label is 'x'; expected a number"),
        ({"mask": "{kind"}, "expected JSON such as .*; this is none at line 1, column 2"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(arguments, said):
    with through(Door.TASK), pytest.raises(ParameterError) as caught:
        validated(background.BackgroundOptions, arguments)
    with through(Door.TASK):
        text = str(caught.value)
    assert re.search(said, text), text
    for word in ("Input", "validation", "tag", "discriminator", "dict", "char 0"):
        assert word not in text
