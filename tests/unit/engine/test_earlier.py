"""What our marks say of the jobs that an image has gone through."""

from __future__ import annotations

import logging

import pytest

from fractal_mesospim_shading.engine.earlier import correction_of, steps_of, tell_history

FLAT = {"task": "correct_flatfield", "version": "0.1", "parameters": {"seed": 3}, "complete": True}
BACK = {"task": "correct_background", "version": "0.2", "parameters": {}}


def imported(corrected=False, before=None):
    acquisition = {"container": "brain.ome.zarr"} | ({"corrected_before": before} if before else {})
    parameters = {"correct_flatfield": corrected}
    return {
        "task": "import_mesospim",
        "version": "0.3",
        "parameters": parameters,
        "acquisition": acquisition,
    }


def tasks(mark):
    return [(step.task, step.corrects) for step in steps_of({"mesospim_shading": mark})]


def test_steps_are_told_in_the_order_in_which_they_were_made():
    assert tasks({**BACK, "history": [imported(), FLAT]}) == [
        ("import_mesospim", None),
        ("correct_flatfield", "flatfield"),
        ("correct_background", "background"),
    ]


def test_what_was_imported_may_have_been_corrected():
    assert tasks(imported(corrected=True)) == [("import_mesospim", "flatfield")]
    assert tasks(imported(before={**FLAT, "history": [BACK]})) == [
        ("correct_background", "background"),
        ("correct_flatfield", "flatfield"),
        ("import_mesospim", None),
    ]


@pytest.mark.parametrize("mark", [None, "yes", [], {}, {"complete": False}, {"history": 3}])
def test_marks_that_say_nothing(mark):
    assert tasks(mark) == []


def test_what_a_job_corrects():
    assert correction_of("correct_flatfield", with_models=True) == "flatfield"
    assert correction_of("import_mesospim", with_models=True) == "flatfield"
    assert correction_of("import_mesospim", with_models=False) is None
    assert correction_of("correct_background", with_models=False) == "background"


@pytest.mark.parametrize(
    ("mark", "corrections", "warned"),
    [
        (FLAT, ["flatfield"], True),
        (FLAT, ["background"], False),
        (FLAT, [], False),
        (BACK, ["background"], True),
        (BACK, ["flatfield", "background"], True),
        ({**BACK, "history": [FLAT]}, ["flatfield"], True),
        (imported(before=FLAT), ["flatfield"], True),
        (imported(corrected=True), ["flatfield"], True),
        (imported(), ["flatfield", "background"], False),
    ],
)
def test_the_same_correction_twice_is_worth_a_warning(mark, corrections, warned, caplog):
    with caplog.at_level(logging.INFO):
        tell_history("/data/a.zarr", steps_of({"mesospim_shading": mark}), corrections)
    (record,) = caplog.records
    assert (record.levelname == "WARNING") == warned
    assert ("second time" in record.getMessage()) == warned
    assert "/data/a.zarr" in record.getMessage()


def test_both_corrections_a_second_time_are_two_warnings(caplog):
    steps = steps_of({"mesospim_shading": {**BACK, "history": [FLAT]}})
    tell_history("/data/a.zarr", steps, ["flatfield", "background"])
    said = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "flat-field was corrected before (correct_flatfield" in said[0]
    assert "local background was corrected before (correct_background" in said[1]


def test_originals_are_not_spoken_of(caplog):
    with caplog.at_level(logging.INFO):
        tell_history("/data/a.zarr", (), ["flatfield"])
    assert not caplog.records
