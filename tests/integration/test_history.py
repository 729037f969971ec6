"""Images that were corrected before, links as sources, and what `info` says of the past."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zarr

import fractal_mesospim_shading
from fractal_mesospim_shading import errors, import_mesospim
from fractal_mesospim_shading.images import target
from fractal_mesospim_shading.views.inspection import as_text, describe
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

SLOW = str(Path(__file__).parents[1] / "slow_cli.py")


@pytest.fixture
def flatfield(make_models):
    models = str(make_models())

    def correct(source, **arguments):
        arguments = {"models_folder": models, "camera_offset": 100, "report": False, **arguments}
        return fractal_mesospim_shading.correct_flatfield(source, **arguments).image_url

    return correct


def background(source, **arguments):
    method = {"method": "constant"}
    return fractal_mesospim_shading.correct_background(source, method=method, **arguments).image_url


def warnings_of(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def test_a_mosaic_corrected_twice(make_mosaic, flatfield, caplog):
    once = flatfield(make_mosaic())
    assert not warnings_of(caplog)
    twice = flatfield(once)
    (said,) = warnings_of(caplog)
    assert once in said and "flat-field was corrected before" in said and "second time" in said
    mark = dict(zarr.open_group(twice, mode="r").attrs)["mesospim_shading"]
    assert [entry["task"] for entry in mark["history"]] == ["correct_flatfield"]


@pytest.mark.slow
def test_a_background_taken_away_twice(make_mosaic, flatfield, caplog):
    first = background(flatfield(make_mosaic()))
    assert not warnings_of(caplog)
    background(first)
    (said,) = warnings_of(caplog)
    assert "local background was corrected before" in said


def test_a_mosaic_imported_from_a_corrected_container(tmp_path, make_models, caplog):
    settings = SyntheticSettings(xml=True)
    stacks = grid_stacks(2, 2, settings, overlap_px=6)
    container = write_acquisition(tmp_path / "data", "brain.ome.zarr", stacks, settings)
    models = str(make_models((48, 64)))
    arguments = {"models_folder": models, "camera_offset": 100}
    label = "488 nm"
    corrected = fractal_mesospim_shading.correct_flatfield(str(container), **arguments)
    assert not warnings_of(caplog)
    (image,) = import_mesospim([corrected.image_url], str(tmp_path / "out"))
    assert not warnings_of(caplog)
    fractal_mesospim_shading.correct_flatfield(image.image_url, report=False, **arguments)
    (said,) = warnings_of(caplog)
    assert "second time" in said
    assert label in corrected.models


def test_the_same_command_in_place_after_another_one_is_refused(make_mosaic, flatfield):
    source = make_mosaic()
    flatfield(source, overwrite_input=True)
    background(source, overwrite_input=True)
    with pytest.raises(errors.ParameterError, match="is a result of correct_flatfield already"):
        flatfield(source, overwrite_input=True)


def test_a_link_is_not_replaced(make_mosaic, flatfield, tmp_path, tree):
    source = make_mosaic(folder=tmp_path / "store")
    link = tmp_path / "brain.zarr"
    link.symlink_to(source)
    before = tree(tmp_path / "store")
    for correct in (flatfield, background):
        with pytest.raises(errors.ParameterError) as caught:
            correct(link, overwrite_input=True)
        assert str(source) in str(caught.value) and "link" in str(caught.value)
    assert link.is_symlink() and tree(tmp_path / "store") == before
    # A folder on the way may be a link, and a link may be read.
    assert Path(flatfield(link)).exists()
    (tmp_path / "way").symlink_to(tmp_path / "store")
    assert flatfield(tmp_path / "way" / "brain.zarr", overwrite_input=True)
    assert zarr.open_group(str(source), mode="r").attrs["mesospim_shading"]["complete"] is True


def test_pixels_behind_a_link_are_not_left_behind(make_mosaic, flatfield, tmp_path):
    source = make_mosaic()
    (source / "1").rename(tmp_path / "level")
    (source / "1").symlink_to(tmp_path / "level")
    with pytest.raises(errors.ParameterError, match="leave the pixels at"):
        flatfield(source, overwrite_input=True)
    assert (tmp_path / "level" / ".zarray").exists()
    assert Path(flatfield(source)).exists()


# --- What info says --------------------------------------------------------------------------


def test_info_shows_the_history(make_mosaic, flatfield):
    source = make_mosaic()
    assert describe(str(source))["history"] == []
    assert "History" not in as_text(describe(str(source)))
    found = describe(background(flatfield(source, output_offset=12)))
    assert [step["corrects"] for step in found["history"]] == ["flatfield", "background"]
    lines = as_text(found).splitlines()
    first, second = lines[lines.index("History:") + 1 :][:2]
    version = importlib.metadata.version("fractal-mesospim-shading")
    assert first == f"  made by correct_flatfield, version {version}: camera_offset 100, " + (
        "output_offset 12"
    )
    assert second.startswith("  made by correct_background") and "constant" in second


@pytest.mark.slow
def test_info_shows_a_job_that_was_stopped(
    make_mosaic, flatfield, many_blocks, monkeypatch, tmp_path, tree
):
    source = make_mosaic()
    write, seen = target.TargetImage.write, []

    def failing(image, level, box, data):
        seen.append(box)
        if len(seen) > 40:
            raise errors.OutputWriteError("No space left on device")
        return write(image, level, box, data)

    with monkeypatch.context() as patch, pytest.raises(errors.OutputWriteError):
        patch.setattr(target.TargetImage, "write", failing)
        flatfield(source, n_workers=1)
    journal = tmp_path / ".brain_flatfield_corr.zarr.job" / "journal" / "blocks.jsonl"
    with open(journal, "a") as file:
        file.write('{"node": "0/0.0')
    done = journal.read_bytes().count(b"\n")
    before = tree(tmp_path)
    found = describe(str(source))
    assert tree(tmp_path) == before
    (job,) = found["jobs"]
    assert (job["task"], job["blocks_done"], job["blocks"]) == ("correct_flatfield", done, 104)
    assert (job["state"], job["holder"], job["at_end"]) == ("stopped", None, False)
    assert job["source"] == str(source)
    (line,) = [line for line in as_text(found).splitlines() if "of 104 blocks" in line]
    assert "has stopped" in line and "brain_flatfield_corr.zarr" in line
    assert json.dumps(found)
    # An image that it has nothing to do with does not show it.
    assert describe(str(make_mosaic("other.zarr")))["jobs"] == []
    flatfield(source)
    assert describe(str(source))["jobs"] == []


@pytest.mark.slow
def test_info_shows_a_job_that_runs(make_mosaic, make_models, tmp_path):
    source, models = make_mosaic(), make_models()
    arguments = ["correct-flatfield", str(source), "--models-folder", str(models)]
    arguments += ["--camera-offset", "100", "--n-workers", "2", "--no-report"]
    child = subprocess.Popen(
        [sys.executable, SLOW, "0.2", "engine.plan", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        journal = tmp_path / ".brain_flatfield_corr.zarr.job" / "journal" / "blocks.jsonl"
        end = time.monotonic() + 60
        while not journal.exists():
            assert child.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        (job,) = describe(str(source))["jobs"]
        assert job["state"] == "running"
        assert f"process {child.pid} on this machine" in job["holder"]
        assert job["sign_of_life_s"] < 60
        assert "it is running" in as_text(describe(str(source)))
        child.kill()
        child.wait()
        (job,) = describe(str(source))["jobs"]
        assert job["state"] == "stopped"
    finally:
        child.kill()
        child.wait()


def test_info_of_a_result_names_the_job_that_makes_it_anew(
    make_mosaic, flatfield, many_blocks, monkeypatch
):
    source = make_mosaic()
    result = flatfield(source)
    write = target.TargetImage.write

    def failing(image, level, box, data):
        if level == 1:
            raise errors.OutputWriteError("No space left on device")
        return write(image, level, box, data)

    with monkeypatch.context() as patch, pytest.raises(errors.OutputWriteError):
        patch.setattr(target.TargetImage, "write", failing)
        flatfield(source, overwrite=True, n_workers=1)
    (job,) = describe(result)["jobs"]
    assert job["result"] == result
