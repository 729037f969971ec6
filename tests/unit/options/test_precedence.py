from __future__ import annotations

import pytest

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.messages import Door, through
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions, ImportOptions
from fractal_mesospim_shading.options.precedence import (
    choose_scenario,
    given,
    passed_over,
    passed_over_in_method,
    passed_over_in_place,
    refuse_idle,
    refuse_idle_baseline,
)
from fractal_mesospim_shading.options.values import asked_for, validated


def _flatfield(**arguments) -> FlatfieldOptions:
    return validated(FlatfieldOptions, arguments)


def test_what_is_the_default_was_not_asked_for():
    options = _flatfield(seed=0, fov_list=[], models_folder="", report=True, overwrite=False)
    assert given(options, FlatfieldOptions.model_fields) == ["report"]
    assert given(_flatfield(report=False, seed=1), ["seed", "report"]) == ["seed"]


def test_forms_hold_all_parameters_and_ask_for_those_that_differ():
    form = _flatfield().model_dump(mode="json")
    assert asked_for(FlatfieldOptions, {**form, "seed": 3}).model_fields_set == {"seed"}
    typed = asked_for(FlatfieldOptions, form, {"report": True, "fov_list": "1,9"})
    assert typed.model_fields_set == {"report", "fov_list"}
    assert typed.fov_list == [1, 9]
    with pytest.raises(ParameterError, match="colour: there is no such parameter"):
        asked_for(FlatfieldOptions, {"colour": "blue"}, {"seed": 1})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"models_folder": "m"}, []),
        (
            {"models_folder": "m", "fov_list": [1], "z_levels": [2, 3], "n_zplanes": 5},
            [
                "Passed over: --fov-list, --z-levels and --n-zplanes; --models-folder goes first.",
            ],
        ),
        (
            {"fov_list": [1], "basicpy_model_params": {"epsilon": 0.2}},
            ["Passed over: --basicpy-model-params; empty regions go first."],
        ),
        (
            {"darkfield_file": "d.npy", "camera_offset": 0},
            ["Passed over: --camera-offset; --darkfield-file goes first."],
        ),
        ({"fov_list": [1], "n_zplanes": 5, "camera_offset": 90}, []),
    ],
)
def test_what_another_option_goes_before_is_a_plain_line(arguments, expected):
    options = _flatfield(**arguments)
    with through(Door.COMMAND):
        from fractal_mesospim_shading.messages import rendered

        lines = [rendered(line) for line in passed_over(options, choose_scenario(options), [])]
    assert lines == expected


def test_dark_fields_of_models_go_before_all():
    options = _flatfield(models_folder="m", camera_offset=90)
    assert passed_over(options, choose_scenario(options), ["488 nm"]) == [
        "Passed over: `camera_offset`; the dark-field in the models goes first ('488 nm')."
    ]


def _idle(options, **where) -> str:
    with through(Door.COMMAND), pytest.raises(ParameterError) as caught:
        refuse_idle(options, **where)
    with through(Door.COMMAND):
        return str(caught.value)


def test_what_can_do_nothing_is_an_error():
    imported = validated(ImportOptions, {"z_levels": "2,3", "seed": 4, "levels": 3})
    assert _idle(imported) == (
        "--z-levels and --seed can do nothing without --correct-flatfield. Leave them out."
    )
    refuse_idle(validated(ImportOptions, {"z_levels": "2,3", "correct_flatfield": True}))
    assert _idle(_flatfield(overwrite=True, save_models=True, seed=3), writes_image=False) == (
        "--overwrite and --save-models can do nothing where models are written and no image. "
        "Leave them out."
    )
    assert "--report can do nothing at night" in _idle(
        _flatfield(report=True), no_report="at night"
    )
    refuse_idle(_flatfield(report=False), no_report="at night")
    refuse_idle(_flatfield(), no_report="at night", writes_image=False)
    assert "without --execution dask" in _idle(_flatfield(scheduler_address="tcp://a:1"))
    refuse_idle(_flatfield(scheduler_address="tcp://a:1", execution="dask"))
    in_place = _flatfield(output_image_name="a", overwrite_input=True)
    refuse_idle(in_place)
    assert passed_over_in_place(in_place) == [
        "Passed over: `output_image_name`; `overwrite_input` goes first."
    ]
    assert passed_over_in_place(_flatfield(output_image_name="a")) == []
    assert passed_over_in_place(_flatfield(overwrite_input=True)) == []
    background = validated(BackgroundOptions, {"reference": 5.0})
    assert "--reference can do nothing without --mode divide" in _idle(background)
    refuse_idle(validated(BackgroundOptions, {"reference": 5.0, "mode": "divide"}))


def test_a_baseline_that_no_model_has():
    options = _flatfield(subtract_baseline=True, fov_list=[1])
    with pytest.raises(ParameterError, match="only models of BaSiC have a baseline"):
        refuse_idle_baseline(options, choose_scenario(options), [])
    options = _flatfield(subtract_baseline=True, models_folder="m")
    with pytest.raises(ParameterError, match="no model in models_folder has"):
        refuse_idle_baseline(options, choose_scenario(options), [None, None])
    refuse_idle_baseline(options, choose_scenario(options), [None, 3.0])
    options = _flatfield(subtract_baseline=True)
    refuse_idle_baseline(options, choose_scenario(options), [])


def test_in_a_background_method():
    method = {"method": "gaussian", "radius": 5, "radius_yx": [3, 4], "radius_per_channel": [2]}
    options = validated(BackgroundOptions, {"method": method})
    assert [line.split("; ")[0] for line in passed_over_in_method(options.method)] == [
        "Passed over in `method`: 'radius_yx'",
        "Passed over in `method`: 'radius'",
    ]
    assert passed_over_in_method(make_method("constant", value=3.0)) == []
