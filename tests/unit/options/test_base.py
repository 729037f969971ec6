from __future__ import annotations

import pytest

from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.base import ExecutionOptions, parameters_of
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions, ImportOptions
from fractal_mesospim_shading.options.precedence import (
    Basic,
    EmptyRegions,
    MeasuredProfile,
    choose_scenario,
)
from fractal_mesospim_shading.options.values import Bearing, validated


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 9], [1, 9]),
        ((1, 9), [1, 9]),
        ("1,9", [1, 9]),
        ("[1, 9]", [1, 9]),
        (["1", "9"], [1, 9]),
        (["1,2", "9"], [1, 2, 9]),
        ("7", [7]),
        ([], []),
        ("", []),
        (None, None),
    ],
)
def test_spellings_of_a_list(given, expected):
    assert validated(FlatfieldOptions, {"fov_list": given}).fov_list == expected


FOLDER = "/models"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"models_folder": FOLDER}, MeasuredProfile(FOLDER)),
        ({"models_folder": FOLDER, "fov_list": [1], "z_levels": [2, 3]}, MeasuredProfile(FOLDER)),
        ({"fov_list": [1, 2]}, EmptyRegions((1, 2), None)),
        ({"z_levels": [5, 9]}, EmptyRegions(None, (5, 9))),
        ({"fov_list": [1], "z_levels": [5, 9]}, EmptyRegions((1,), (5, 9))),
        ({"fov_list": [], "z_levels": [], "models_folder": ""}, None),
        ({}, None),
    ],
)
def test_precedence(arguments, expected):
    found = choose_scenario(validated(FlatfieldOptions, arguments))
    if expected is None:
        assert isinstance(found, Basic)
    else:
        assert found == expected


def test_json_texts_from_the_command_line():
    options = validated(
        FlatfieldOptions,
        {"basicpy_model_params": '{"epsilon": 0.2}', "storage_options": '{"anon": true}'},
    )
    assert options.basicpy_model_params.epsilon == 0.2
    assert options.storage_options == {"anon": True}
    assert "storage_options" not in options.model_dump()
    with pytest.raises(ParameterError, match="expected JSON"):
        validated(FlatfieldOptions, {"basicpy_model_params": "epsilon=0.2"})


def test_options_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        FlatfieldOptions().seed = 3  # type: ignore[misc]


def test_every_field_is_described():
    for name, field in FlatfieldOptions.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize("model", [FlatfieldOptions, BackgroundOptions, ImportOptions])
def test_every_option_says_whether_it_decides_bytes(model):
    """One that says nothing, or both, would make a continued run another job, or the same."""
    marks = {
        name: [m for m in Bearing if m in f.metadata] for name, f in model.model_fields.items()
    }
    assert {name: found for name, found in marks.items() if len(found) != 1} == {}
    shown = {name for name, field in model.model_fields.items() if not field.exclude}
    decisive = {name for name in shown if marks[name] == [Bearing.DECISIVE]}
    assert set(parameters_of(model())) == decisive


def test_what_decides_no_byte():
    """Where it goes, where it runs, what lies beside it, and paths to what is recorded itself."""
    models = (FlatfieldOptions, BackgroundOptions, ImportOptions)
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    assert {name for name, field in fields.items() if Bearing.NEUTRAL in field.metadata} == {
        *ExecutionOptions.model_fields,
        "output_folder",
        "output_image_name",
        "image_name",
        "overwrite",
        "overwrite_input",
        "restart",
        "follow_links",
        "save_models",
        "report",
        "models_folder",
        "flatfield_files",
        "darkfield_file",
        "basic_python",
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "-inf", "nan", 1e39, -1e308])
@pytest.mark.parametrize("name", ["camera_offset", "output_offset"])
def test_counts_are_numbers_that_a_pixel_can_hold(name, value):
    with pytest.raises(ParameterError, match=name):
        validated(FlatfieldOptions, {name: value})
    assert getattr(validated(FlatfieldOptions, {name: -5}), name) == -5


@pytest.mark.parametrize("name", ["epsilon", "smoothness_darkfield", "smoothness_flatfield"])
def test_parameters_of_basicpy_are_finite(name):
    with pytest.raises(ParameterError, match=f"{name}.*finite"):
        validated(FlatfieldOptions, {"basicpy_model_params": {name: float("inf")}})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flatfield_files": {"488": 5}}, "'488' of `flatfield_files` is 5; expected a text."),
        ({"flatfield_files": ""}, "`flatfield_files` is ''; expected a text that is not empty."),
        ({"fov_list": [1, "x"]}, "Value 2 of `fov_list` is 'x'; expected a whole number."),
        (
            {"background": "median:-3"},
            "'radius' of the method median of `background` is '-3'; expected a number above 0.",
        ),
        (
            {"background": "nothing:3"},
            "'method' of `background` is 'nothing'; expected one of tile_median, median, opening, "
            "rolling_ball, sliding_paraboloid, gaussian, difference_of_filters, constant.",
        ),
        (
            {"background": {"method": "median", "stength": 1}},
            "stength of `background`: there is no such parameter.",
        ),
    ],
)
def test_what_is_wrong_within_an_option_is_one_sentence(given, said):
    with pytest.raises(ParameterError) as error:
        validated(FlatfieldOptions, given)
    assert error.value.args[0] == said


def test_an_array_in_place_of_an_address_is_told_the_way_in():
    import numpy as np

    from fractal_mesospim_shading.options.values import address, addresses

    for read in (address, addresses):
        with pytest.raises(ParameterError, match=r"shape \(4, 5\).*apply of a model.*correct_arr"):
            read(np.zeros((4, 5)), "zarr_url")
        with pytest.raises(ParameterError) as caught:
            read(5, "zarr_url")
        assert "apply" not in str(caught.value)
