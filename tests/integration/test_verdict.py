"""Did it work: what a whole job says of itself, in its log, its report and its result."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from fractal_mesospim_shading import (
    correct_background,
    correct_flatfield,
    errors,
    estimate_flatfield,
)
from fractal_mesospim_shading.cli import main
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

LABEL = "488 nm"
OFFSET = 100.0

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Tiles that overlap in truth, and the ones of them that are empty."""
    world = LightSheetWorld(
        tile_shape=(128, 128), overlap=0.15, planes=12, offset=OFFSET, sample_radius=0.39
    )
    folder = tmp_path_factory.mktemp("mosaic")
    path = write_mosaic(folder / "brain.zarr", world, [LABEL], chunks=(4, 128, 128))
    return str(path), {"fov_list": [1, 3, 7, 9]}


def _told(result: Any) -> dict[str, Any]:
    """The verdict of a report, which is that of the result."""
    written = json.loads(Path(result.report).with_suffix(".json").read_text())
    assert written["verdict"] == result.verdict.facts() == result.facts()["verdict"]
    assert result.verdict.headline in Path(result.report).read_text()
    return dict(written["verdict"])


def test_a_good_correction_is_called_good(
    mosaic: tuple[str, dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, empty = mosaic
    with caplog.at_level(logging.INFO):
        result = correct_flatfield(source, output_folder=str(tmp_path), **empty)
    told = _told(result)
    assert told["word"] == "good", told
    # The last lines of the log, before where the result is.
    _, *reasons, done = caplog.messages[caplog.messages.index("Good: it worked.") :]
    assert done.startswith("Done in")
    assert reasons[0].startswith(f"{LABEL}: The same tissue in two tiles differs by ")
    about_overlaps = [line for line in caplog.messages if "tissue" in line or "overlaps" in line]
    assert len(about_overlaps) > 2 and max(map(len, about_overlaps)) <= 120


@pytest.mark.parametrize("given", [0, 60, 140])
def test_a_wrong_offset_is_called_wrong_and_no_uncertainty_hides_it(
    mosaic: tuple[str, dict[str, Any]],
    tmp_path: Path,
    given: int,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The flat-field of it is off by more than the noise tells: that is said beside the number."""
    source, empty = mosaic
    caplog.set_level(logging.INFO)
    try:
        result = correct_flatfield(
            source, output_folder=str(tmp_path), camera_offset=given, **empty
        )
    except errors.ShadingError as error:
        # Above all the light there is nothing to correct.
        assert given > OFFSET and "Most likely because you gave a camera offset" in str(error)
        return
    told = _told(result)
    assert told["word"] == "wrong", told
    # It is a warning, once; what was warned of before is not said again, in no line.
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [line for line in warned if line.startswith("Wrong: ")] == warned[-1:]
    sentences = [part for line in caplog.messages for part in re.split(r"(?<=[a-z])\. |: ", line)]
    long = [sentence for sentence in sentences if len(sentence) > 40]
    assert len(set(long)) == len(long) and "Wrong: " not in capsys.readouterr().err
    shape = "flat" if given < OFFSET else "steep"
    assert any(f"too {shape}" in own["text"] for own in told["channels"][0]["findings"])
    assert "leave `camera_offset` out to have it estimated." in " ".join(told["todo"])
    page = Path(result.report).read_text()
    assert "for the counts at no light are in doubt" in page


def test_the_right_offset_is_seen_to_agree(
    mosaic: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    source, empty = mosaic
    result = correct_flatfield(source, output_folder=str(tmp_path), camera_offset=OFFSET, **empty)
    told = _told(result)
    assert told["word"] == "good", told
    texts = [own["text"] for own in told["channels"][0]["findings"]]
    assert any(text.startswith("100.0 counts at no light were taken off, and") for text in texts)


def test_an_estimate_has_a_verdict_and_a_report(
    mosaic: tuple[str, dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, empty = mosaic
    folder = tmp_path / "models"
    with caplog.at_level(logging.INFO):
        models = estimate_flatfield(source, str(folder), **empty)
    assert "Good: it worked." in caplog.messages
    page = (tmp_path / "models_report.html").read_text()
    assert "<h1>Estimated flat-fields of models</h1>" in page
    assert "Pairs of tiles of channel 488 nm" in page
    told = json.loads((tmp_path / "models_report.json").read_text())
    assert told["verdict"]["word"] == "good" and list(told["models"]) == list(models)
    # What is given back is read like a dict of the models, and holds the same verdict.
    assert models.verdict is not None and models.verdict.facts() == told["verdict"]
    assert models.report == str(tmp_path / "models_report.html") and len(models) == 1
    assert models.models_folder == str(folder) and models[LABEL] is dict(models)[LABEL]
    assert models.facts()["overlaps"][LABEL] == told["channels"][0]
    assert repr(models).startswith(f"EstimateResult({LABEL}; ") and "verdict: good" in repr(models)
    every = "; ".join(f"tile {tile}: planes 0 to 11" for tile in (1, 3, 7, 9))
    assert f"<td>{every}</td>" in page
    used = {str(tile): [[0, 11]] for tile in (1, 3, 7, 9)}
    assert told["models"][LABEL]["planes"] == {"used": used, "left_out": {}}
    command = "mesospim-shading estimate "
    assert f"{command}{source} --output {folder} --fov-list 1,3,7,9" in page
    # What was measured on the image holds for what is corrected with the models.
    result = correct_flatfield(source, models_folder=str(folder), output_folder=str(tmp_path))
    assert told["channels"][0]["after"] == result.overlaps[LABEL].facts()["after"]
    # Without a report, nothing lies beside the folder.
    arguments = ["estimate", source, "--output", str(tmp_path / "other"), "--fov-list", "1,3,7,9"]
    assert main([*arguments, "--no-report"]) == 0
    assert not list(tmp_path.glob("other_report*"))
    unwritten = estimate_flatfield(source, **empty)
    assert (unwritten.models_folder, unwritten.report) == (None, None)
    assert unwritten.verdict is not None and unwritten.verdict.word == "good"
    with pytest.raises(errors.ParameterError, match="report can do nothing where no models"):
        estimate_flatfield(source, report=True, **empty)


def test_planes_that_were_used_and_left_out_are_told_and_shown(
    mosaic: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    """By number, in the result, the page and its JSON; each tile with its own range along z."""
    source, _ = mosaic
    given = correct_flatfield(source, output_folder=str(tmp_path), fov_list=[1, 2, 3, 7, 9])
    auto = correct_flatfield(
        source, output_folder=str(tmp_path), output_image_name="auto", scenario="auto"
    )
    for result in (given, auto):
        model = result.models[LABEL]
        planes, page = model.planes, Path(str(result.report)).read_text()
        assert planes is not None and set(planes.left_out)
        assert sum(map(len, planes.used.values())) == model.planes_used
        for numbers in (planes.used, planes.left_out):
            assert f"<td>{planes.text_of(numbers)}</td>" in page
        told = json.loads(Path(str(result.report)).with_suffix(".json").read_text())
        assert told["models"][LABEL]["planes"] == planes.facts()
        assert result.facts()["models"][LABEL]["planes"] == planes.facts()
        shown = [(own.tile, own.plane, bool(own.left_out)) for own in planes.thumbnails]
        assert {left for _, _, left in shown} == {True, False} and len(shown) <= 24
        for tile, plane, left in shown:
            assert plane in (planes.left_out if left else planes.used)[int(tile)]
            what = "left out: it " if left else "used"
            assert f'alt="tile {tile}, plane {plane} {what}' in page
    rejected = given.models[LABEL].facts["planes_rejected"]
    assert sum(map(len, given.models[LABEL].planes.left_out.values())) == rejected  # type: ignore[union-attr]
    # The sample lies in the middle of the mosaic: of its tile few planes are empty, if any.
    own = auto.models[LABEL].planes
    assert own is not None and len(own.left_out[5]) > len(own.left_out.get(1, ()))


def test_tiles_that_are_known_not_to_overlap_leave_it_to_the_eye(
    make_mosaic: Any, make_models: Any
) -> None:
    result = correct_flatfield(
        str(make_mosaic()), models_folder=str(make_models()), camera_offset=100
    )
    assert _told(result)["word"] == "look"


def test_a_background_has_a_verdict_and_a_report(
    make_empty_mosaic: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source = str(make_empty_mosaic())
    with caplog.at_level(logging.INFO):
        result = correct_background(source, method="median:5", output_type="float32")
    assert _told(result)["word"] == "good"
    assert any(line.startswith("Good: no light was lost.") for line in caplog.messages)
    page = Path(result.report).read_text()
    assert "<h1>Background correction of brain_background_corr.zarr</h1>" in page
    # The whole mosaic, and at full resolution a place where tiles meet; one tile meets none.
    assert page.count("data:image/png;base64,") == 4 * len(result.counts)
    where = r"step is largest before the correction, between tiles (\d) and (\d) "
    first, second = map(int, re.findall(where, page)[0])
    assert second - first in (1, 2)
    assert "median, radius 5 px" in page
    assert f"mesospim-shading correct-background {source} --method" in page
    # Cut at 0, half of the noise is gone.
    cut = correct_background(source, method="median:5", output_type="source", overwrite=True)
    assert _told(cut)["word"] == "look" and "output_type" in " ".join(_told(cut)["todo"])
    plain = correct_background(source, report=False, output_image_name="plain")
    assert plain.report is None and plain.verdict is not None
