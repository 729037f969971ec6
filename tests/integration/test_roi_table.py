"""Tiles of a table of another name than the usual one: by every door, and in all that reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import (
    check_overlaps,
    correct_background,
    correct_flatfield,
    estimate_flatfield,
    find_empty,
)
from fractal_mesospim_shading.cli import main
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.synthetic.overlapping import (
    OverlappingWorld,
    write_overlapping_mosaic,
)
from fractal_mesospim_shading.tasks import correct_background as background_task
from fractal_mesospim_shading.tasks import correct_flatfield as flatfield_task
from fractal_mesospim_shading.views.preview import write_preview
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

pytestmark = pytest.mark.usefixtures("two_threads")

GRID = "grid_ROI_table"


def _renamed(url: Path, name: str = GRID) -> str:
    """The image, its table of tiles called otherwise."""
    tables = zarr.open_group(url / "tables", mode="r+")
    names = [name if old == "FOV_ROI_table" else old for old in tables.attrs["tables"]]
    tables.attrs["tables"] = names
    (url / "tables" / "FOV_ROI_table").rename(url / "tables" / name)
    return str(url)


@pytest.fixture(params=["0.4", "0.5"])
def both(request, make_mosaic):
    """The same image with its table called as usual, and otherwise."""
    usual, other = (make_mosaic(f"{name}.zarr", ngff_version=request.param) for name in "ab")
    return str(usual), _renamed(other)


def _pixels(url):
    return np.asarray(MosaicImage.open(url).array(0)[...])


@pytest.mark.slow
def test_both_corrections_take_the_tiles_from_it_by_every_door(both, make_models, capsys):
    usual, other = both
    models = {"models_folder": str(make_models()), "camera_offset": 100.0, "report": False}
    expected = _pixels(correct_flatfield(usual, **models).image_url)
    given = {**models, "input_roi_table": GRID}
    np.testing.assert_array_equal(_pixels(correct_flatfield(other, **given).image_url), expected)
    updates = flatfield_task.correct_flatfield(zarr_url=other, overwrite=True, **given)
    (update,) = updates["image_list_updates"]
    np.testing.assert_array_equal(_pixels(update["zarr_url"]), expected)
    words = ["--models-folder", models["models_folder"], "--camera-offset", "100", "--no-report"]
    words += ["--overwrite", "--input-roi-table", GRID]
    assert main(["correct-flatfield", other, *words]) == 0
    result = capsys.readouterr().out.strip()
    np.testing.assert_array_equal(_pixels(result), expected)
    # The result has the table, for whoever comes next.
    assert len(MosaicImage.open(result, roi_table=GRID).layout.tiles) == 4

    asked = {"method": "median:9", "report": False}
    expected = _pixels(correct_background(usual, **asked).image_url)
    whole = _pixels(correct_background(other, **asked).image_url)
    assert (whole != expected).any()
    asked |= {"input_roi_table": GRID, "overwrite": True}
    np.testing.assert_array_equal(_pixels(correct_background(other, **asked).image_url), expected)
    updates = background_task.correct_background(zarr_url=other, **asked)
    (update,) = updates["image_list_updates"]
    np.testing.assert_array_equal(_pixels(update["zarr_url"]), expected)


def test_both_corrections_in_one_pass_take_the_tiles_from_it(both, make_models):
    usual, other = both
    asked = {"models_folder": str(make_models()), "camera_offset": 100.0, "report": False}
    asked["background"] = "median:9"
    expected = _pixels(correct_flatfield(usual, **asked).image_url)
    found = correct_flatfield(other, input_roi_table=GRID, **asked)
    np.testing.assert_array_equal(_pixels(found.image_url), expected)


@pytest.mark.slow
def test_estimates_find_empty_info_and_previews_know_it(make_empty_mosaic, tmp_path, capsys):
    usual = str(make_empty_mosaic("a.zarr"))
    other = _renamed(make_empty_mosaic("b.zarr"))
    arguments = {"fov_list": [1, 4], "camera_offset": 100.0}
    expected = estimate_flatfield(usual, **arguments)
    for label, model in estimate_flatfield(other, input_roi_table=GRID, **arguments).items():
        np.testing.assert_array_equal(model.profile.flatfield, expected[label].profile.flatfield)
    found = find_empty(other, input_roi_table=GRID)
    assert [channel.tiles for channel in found.channels] == [
        channel.tiles for channel in find_empty(usual).channels
    ]
    assert f"--input-roi-table {GRID}" in found.command
    assert main(["find-empty", other, "--input-roi-table", GRID, "--dry-run"]) == 0
    assert "of 4 tiles" in capsys.readouterr().out
    assert main(["info", other, "--input-roi-table", GRID, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["tiles"]["rows"], facts["tiles"]["columns"], facts["notes"]) == (2, 2, [])
    shown = str(tmp_path / "shown.png")
    assert write_preview(other, shown, methods="median:9", tile=4, input_roi_table=GRID) == shown
    words = ["preview-flatfield", other, "--fov-list", "1", "4", "--tile", "4", "--output", shown]
    assert main([*words, "--camera-offset", "100", "--input-roi-table", GRID]) == 0


def test_overlaps_are_those_of_its_tiles(tmp_path):
    world = OverlappingWorld(tile_shape=(128, 160), grid=(1, 2), planes=8, contrast=0.3)
    for name in "ab":
        write_overlapping_mosaic(tmp_path / f"{name}.zarr", world)
    other = _renamed(tmp_path / "b.zarr")
    expected = check_overlaps(str(tmp_path / "a.zarr"))
    assert all(check.before.pairs for check in expected.channels)
    found = check_overlaps(other, input_roi_table=GRID)
    assert json.dumps(found.facts()["channels"]) == json.dumps(expected.facts()["channels"])
    assert check_overlaps(other, against=other, input_roi_table=GRID).channels


def test_without_it_the_plane_is_one_tile_and_a_line_names_the_option(both, capsys):
    _, other = both
    assert main(["info", other]) == 0
    assert f"set --input-roi-table {GRID}" in capsys.readouterr().out


ACTIONS = {
    "flat-field": lambda url, **given: correct_flatfield(url, fov_list=[1], **given),
    "background": lambda url, **given: correct_background(url, method="median:9", **given),
    "estimate": lambda url, **given: estimate_flatfield(url, fov_list=[1], **given),
    "check": check_overlaps,
    "find-empty": find_empty,
    "preview": lambda url, **given: write_preview(url, "none.png", **given),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_a_table_that_is_not_there_is_one_error_with_those_that_are(
    both, tmp_path, tree, action, monkeypatch
):
    _, other = both

    def read(*_):
        raise AssertionError("a pixel was read")

    monkeypatch.setattr(MosaicImage, "read", read)
    before = tree(tmp_path)
    for name in ("tiles", "../0", "FOV_ROI_table/X", "..", GRID + "/"):
        with pytest.raises(ParameterError) as caught:
            action(other, input_roi_table=name)
        text = str(caught.value)
        assert text.startswith(f"input_roi_table is '{name}', but the image '{other}' has no such")
        assert text.endswith(f"it has {GRID}, well_ROI_table.")
        assert "\n" not in text
    assert tree(tmp_path) == before


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_stacks_of_an_acquisition_need_no_table(tmp_path, action):
    settings = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))
    path = str(write_acquisition(tmp_path, "a.zarr", grid_stacks(1, 1, settings), settings))
    with pytest.raises(ParameterError, match="input_roi_table=? can do nothing with a native"):
        action(path, input_roi_table=GRID)


def test_an_empty_name_is_refused(both):
    with pytest.raises(ParameterError, match="input_roi_table is ''; expected a text that is not"):
        correct_background(both[1], input_roi_table="")
