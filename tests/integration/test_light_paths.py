"""Models say which zoom, camera, side and filter they were made with; another one is warned of."""

from __future__ import annotations

import html
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractal_mesospim_shading import correct_flatfield, estimate_flatfield, import_mesospim
from fractal_mesospim_shading.images.light_path import LightPath
from fractal_mesospim_shading.images.models.files import npz_bytes
from fractal_mesospim_shading.images.models.folder import ORIGIN_KEY
from fractal_mesospim_shading.images.native.collection import TileCollection
from tests.support import acquisition
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack
from tests.support.tile_images import write_tile_images

SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16), camera="Iris")
EMPTY = {"camera_offset": 100, "fov_list": [1, 2]}
SIGNS = {"sign_x": -1, "sign_y": -1}
LASERS = ("488 nm", "561 nm")
HERE = {
    "zoom": ["2x"],
    "camera": ["Iris"],
    "side": ["left"],
    "filter": ["520/35 BrightLine"],
    "pixel_size_um": [2.0, 2.0],
}

Write = Callable[..., Path]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads", "medium")]


@pytest.fixture
def medium(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that hold next to nothing but the medium, from which models can be made."""
    sample = acquisition.sample
    monkeypatch.setattr(acquisition, "sample", lambda *place: 60 + sample(*place) / 100)


def _stacks(**changed: Any) -> list[SyntheticStack]:
    stacks = grid_stacks(1, 2, SETTINGS, lasers=LASERS, overlap_px=6)
    return [replace(stack, **changed) for stack in stacks]


def _write(
    folder: Path, stacks: list[SyntheticStack], write: Write = write_acquisition, **more: Any
) -> str:
    return str(write(folder, "brain.ome.zarr", stacks, replace(SETTINGS, **more)))


def _file(folder: Path, *parts: str) -> dict[str, Any]:
    with np.load(folder.joinpath(*parts, "profiles.npz")) as content:
        facts: dict[str, Any] = json.loads(str(content[ORIGIN_KEY]))["facts"]
    return facts


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    return [line for line in lines if "made for something else" in line]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Models of an acquisition of zoom 2x, lit from the left."""
    folder = tmp_path / "models"
    estimate_flatfield(_write(tmp_path / "first", _stacks()), str(folder), **EMPTY)
    return folder


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("write", [write_acquisition, write_tile_images])
def test_a_model_says_what_the_acquisition_told(tmp_path: Path, write: Write, version: str) -> None:
    source = _write(tmp_path / "data", _stacks(), write, version=version)
    for name in ("one", "two"):
        estimate_flatfield(source, str(tmp_path / name), **EMPTY)
    for laser in LASERS:
        assert _file(tmp_path / "one", laser)["light_path"] == HERE
        files = [(tmp_path / name / laser / "profiles.npz").read_bytes() for name in ("one", "two")]
        assert files[0] == files[1]


def test_a_text_of_another_channel_does_not_tell_the_filter(tmp_path: Path) -> None:
    write = partial(write_tile_images, shared_texts=True)
    source = _write(tmp_path / "data", _stacks(), write)
    estimate_flatfield(source, str(tmp_path / "models"), **EMPTY)
    without = {key: value for key, value in HERE.items() if key != "filter"}
    found = [_file(tmp_path / "models", laser)["light_path"] for laser in LASERS]
    assert found == [without, HERE]


def test_where_there_is_no_text_the_names_tell(tmp_path: Path) -> None:
    source = _write(tmp_path / "data", _stacks(shutter="Right"), meta=False)
    estimate_flatfield(source, str(tmp_path / "models"), **EMPTY)
    # Sh1 may be right or both: that is no word about the side.
    assert _file(tmp_path / "models", "488 nm")["light_path"] == {
        "zoom": ["2"],
        "filter": ["520_35_BrightLine"],
        "pixel_size_um": [2.0, 2.0],
    }


def test_an_image_that_was_not_imported_tells_its_pixels(
    make_empty_mosaic: Any, tmp_path: Path
) -> None:
    estimate_flatfield(str(make_empty_mosaic()), str(tmp_path / "models"), fov_list=[1, 2, 3, 4])
    assert set(_file(tmp_path / "models", "488 nm")["light_path"]) == {"pixel_size_um"}


def test_two_filters_of_one_laser(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stacks = [
        replace(stack, laser="488 nm", filter="520/35" if stack.laser == "488 nm" else "600LP")
        for stack in _stacks()
    ]
    source, folder = _write(tmp_path / "data", stacks), tmp_path / "models"
    estimate_flatfield(source, str(folder), **EMPTY)
    filters = {path.name: _file(path)["light_path"]["filter"] for path in folder.iterdir()}
    assert filters == {"488 nm 520_35": ["520/35"], "488 nm 600LP": ["600LP"]}
    shutil.copytree(folder / "488 nm 600LP", folder / "488 nm 520_35", dirs_exist_ok=True)
    correct_flatfield(source, models_folder=str(folder))
    assert _told(caplog) == []


# --- What is warned of -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "settings", "differs"),
    [
        ({}, {}, None),
        ({"zoom": "5x"}, {}, ("zoom 2x", "zoom 5x")),
        ({}, {"camera": "Iris 15"}, ("camera Iris", "camera Iris 15")),
        ({"shutter": "Right"}, {}, ("illumination side left", "illumination side right")),
        (
            {"shutter": "Both", "zoom": "1.25x"},
            {"camera": "Kinetix"},
            (
                "zoom 2x, camera Iris, illumination side left",
                "zoom 1.25x, camera Kinetix, illumination side both",
            ),
        ),
        # What does not differ by what is told, or is not compared.
        ({"filter": "600LP"}, {"z_step_um": 4.0}, None),
        ({}, {"camera": ""}, None),
    ],
)
@pytest.mark.parametrize("write", [write_acquisition, write_tile_images])
def test_another_zoom_camera_or_side_is_named(
    tmp_path: Path,
    models: Path,
    caplog: pytest.LogCaptureFixture,
    write: Write,
    changed: dict[str, Any],
    settings: dict[str, Any],
    differs: tuple[str, str] | None,
) -> None:
    source = _write(tmp_path / "other", _stacks(**changed), write, **settings)
    caplog.set_level(logging.INFO)
    correct_flatfield(source, models_folder=str(models))
    lines = _told(caplog)
    if differs is None:
        assert lines == []
        return
    (line,) = lines
    assert line.startswith("Channels 488 nm, 561 nm: ")
    assert f"models of {differs[0]}, while this acquisition has {differs[1]}." in line
    # Before the stacks are written.
    assert caplog.messages.index(line) < next(
        i for i, text in enumerate(caplog.messages) if text.startswith("Stack 1 of")
    )


def test_names_that_tell_nothing_are_no_other_light_path(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stacks = _stacks(zoom="5x", shutter="Right")
    stacks = [replace(stack, group=f"s{i}-t0.zarr") for i, stack in enumerate(stacks)]
    for number, laser in enumerate(LASERS):
        shutil.copytree(models / laser, models / f"channel {number}")
    correct_flatfield(_write(tmp_path / "other", stacks, meta=False), models_folder=str(models))
    assert _told(caplog) == []


def test_a_folder_that_was_renamed_for_another_side(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One column lit from the left, one from the right: each has a model of its own."""
    stacks = [replace(stack, shutter="Left" if stack.tile == 0 else "Right") for stack in _stacks()]
    source, folder = _write(tmp_path / "data", stacks), tmp_path / "models"
    estimate_flatfield(source, str(folder), **EMPTY)
    sides = {
        side: _file(folder, "488 nm", side)["light_path"]["side"] for side in ("left", "right")
    }
    assert sides == {"left": ["left"], "right": ["right"]}
    correct_flatfield(source, models_folder=str(folder), output_image_name="own")
    assert _told(caplog) == []
    shutil.copytree(folder / "488 nm" / "left", folder / "488 nm" / "right", dirs_exist_ok=True)
    # One model for both sides is that of one of them.
    shutil.copytree(folder / "561 nm" / "right", folder / "561 nm", dirs_exist_ok=True)
    shutil.rmtree(folder / "561 nm" / "left")
    correct_flatfield(source, models_folder=str(folder), output_image_name="renamed")
    lines = _told(caplog)
    assert [line.partition(". ")[0] for line in lines] == [
        "Channel 488 nm/right: made for something else: a model of illumination side left, while "
        "this acquisition has illumination side right",
        "Channel 561 nm/left: made for something else: a model of illumination side right, while "
        "this acquisition has illumination side left",
    ]


def test_angles_with_one_model_are_told_of_once(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stacks = [s for angle in (0.0, 90.0) for s in _stacks(zoom="5x", rotation=angle)]
    correct_flatfield(_write(tmp_path / "other", stacks), models_folder=str(models))
    assert len(_told(caplog)) == 1


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_imported_image_knows_its_light_path(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    other = _write(tmp_path / "other", _stacks(zoom="5x"), version=version)
    folder = str(tmp_path / "out")
    import_mesospim(other, folder, correct_flatfield=True, models_folder=str(models), **SIGNS)
    (imported,) = import_mesospim(other, folder, image_name="raw", **SIGNS)
    assert len(_told(caplog)) == 1
    # Models of the image itself say what those of the acquisition say.
    own = tmp_path / "own"
    estimate_flatfield(imported.image_url, str(own), **EMPTY)
    assert _file(own, "561 nm")["light_path"] == {**HERE, "zoom": ["5x"]}
    result = correct_flatfield(imported.image_url, models_folder=str(own), report=False)
    assert len(_told(caplog)) == 1
    # So does what was made from it, by its history.
    caplog.clear()
    correct_flatfield(result.image_url, models_folder=str(models), report=False)
    (line,) = _told(caplog)
    assert "models of zoom 2x, while this acquisition has zoom 5x" in line


def test_the_report_warns_of_it(tmp_path: Path, models: Path, caplog: Any) -> None:
    other = _write(tmp_path / "other", _stacks(zoom="5x"))
    (imported,) = import_mesospim(other, str(tmp_path / "out"), **SIGNS)
    result = correct_flatfield(imported.image_url, models_folder=str(models))
    (line,) = _told(caplog)
    assert html.escape(line) in Path(str(result.report)).read_text()


def test_models_saved_before_they_said_so(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for laser in LASERS:
        path = models / laser / "profiles.npz"
        with np.load(path) as content:
            arrays = dict(content)
        origin = json.loads(str(arrays[ORIGIN_KEY]))
        del origin["facts"]["light_path"]
        arrays[ORIGIN_KEY] = np.array(json.dumps(origin))
        path.write_bytes(npz_bytes(arrays))
    other = _write(tmp_path / "other", _stacks(zoom="5x", shutter="Right"))
    result = correct_flatfield(other, models_folder=str(models), save_models=True)
    assert _told(caplog) == []
    # What is not known of a model is not made up when it is saved once more.
    assert "light_path" not in _file(Path(str(result.models_folder)), "488 nm")


def test_a_model_that_is_saved_again_keeps_where_it_comes_from(
    tmp_path: Path, models: Path
) -> None:
    other = _write(tmp_path / "other", _stacks(zoom="5x"))
    result = correct_flatfield(other, models_folder=str(models), save_models=True)
    assert _file(Path(str(result.models_folder)), "561 nm")["light_path"] == HERE


def test_models_of_other_programs_say_nothing(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for laser in LASERS:
        path = models / laser / "profiles.npz"
        with np.load(path) as content:
            np.savez(path, flatfield=content["flatfield"], darkfield=content["darkfield"])
    other = _write(tmp_path / "other", _stacks(zoom="5x"))
    result = correct_flatfield(other, models_folder=str(models), save_models=True)
    assert _told(caplog) == []
    assert "light_path" not in _file(Path(str(result.models_folder)), "488 nm")


# --- What the microscope's software wrote ------------------------------------------------------


def test_a_sample_tells_all_of_it(native: Any) -> None:
    (mosaic,) = TileCollection.open(str(native.container)).mosaics()
    zoom, pixel = ("2x", 2.125) if native.truth["variant"] == "v04" else ("5x", 0.85)
    filters = ("520/35 BrightLine", "405-488-561-640-Quadrupleblock")
    assert [group.light_path for group in mosaic.model_groups] == [
        LightPath((zoom,), ("Photometrics",), ("left",), (name,), (pixel, pixel))
        for name in filters
    ]


def test_models_of_another_sample(
    native: Any, native_v04: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tiles of either sample have the same aspect, so nothing but the zoom tells them apart."""
    folder = str(tmp_path / "models")
    given = {"z_levels": native.z_levels, "camera_offset": 100}
    estimate_flatfield(str(native.container), folder, **given)
    estimate_flatfield(str(native_v04.container), str(tmp_path / "again"), models_folder=folder)
    lines = _told(caplog)
    if native.truth["variant"] == "v04":
        assert lines == []
    else:
        (line,) = lines
        assert "models of zoom 5x, while this acquisition has zoom 2x" in line
