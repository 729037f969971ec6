"""What all kinds of jobs check: everything that is wrong is said at once."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace

import pytest

from fractal_mesospim_shading.errors import OutputExistsError, Problems, ShadingError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import pixel_bytes
from fractal_mesospim_shading.jobs.flatfield import prepare_flatfield
from fractal_mesospim_shading.jobs.preparation import plan_output, refuse_unfit
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions


@pytest.fixture
def work(make_mosaic, make_models):
    options = FlatfieldOptions(models_folder=str(make_models()), camera_offset=100)
    return prepare_flatfield(MosaicImage.open(make_mosaic()), options)


def test_all_that_is_wrong_with_an_output_is_one_error(make_mosaic):
    image = MosaicImage.open(make_mosaic())
    make_mosaic("taken.zarr")
    options = FlatfieldOptions(output_image_name="taken", output_shards=[1, 7, 7])
    with pytest.raises(OutputExistsError, match="2 problems were found") as raised:
        plan_output(image, options)
    assert len(raised.value.problems) == 2
    assert "output_shards" in str(raised.value)


def test_too_little_memory_and_room_are_one_error(work, monkeypatch):
    Usage = namedtuple("Usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    small = replace(work, options=work.options.model_copy(update={"memory_limit": "1000"}))
    with pytest.raises(ShadingError, match="2 problems were found") as raised:
        refuse_unfit(small, Problems(), "zarr_dir")
    assert "zarr_dir" in str(raised.value)


def test_expected_bytes_are_those_of_all_targets_as_the_source_is_compressed(work, monkeypatch):
    monkeypatch.setattr(MosaicImage, "stored_share", lambda _: 0.5)
    (part,) = work.parts
    carried = work.members.expected_bytes
    expected = pixel_bytes(part.plan.target.levels) // 2 + carried
    assert work.expected_bytes() == expected
    twice = replace(part, plan=replace(part.plan, targets=part.plan.targets * 2))
    assert replace(work, parts=(twice,)).expected_bytes() == 2 * (expected - carried) + carried


def test_a_check_that_passed_gives_its_value_and_one_that_failed_raises():
    problems = Problems()
    assert problems.passed(problems.run(lambda: 3)) == 3

    def fails() -> int:
        raise OutputExistsError("it is there")

    value = problems.run(fails)
    with pytest.raises(OutputExistsError, match="it is there"):
        problems.passed(value)
    with pytest.raises(RuntimeError, match="left no error"):
        Problems().passed(None)
