"""Profiles that people bring, and models that were saved, through every door."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from fractal_mesospim_shading import (
    correct_flatfield,
    errors,
    estimate_flatfield,
    import_mesospim,
)
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

pytestmark = pytest.mark.usefixtures("two_threads")

TILE = (48, 40)
"""Of the mosaic that `make_mosaic` writes."""

NATIVE = SyntheticSettings(tile_shape=TILE, chunks=(4, 16, 16), levels=2)

Door = Callable[..., Any]


@pytest.fixture
def doors(make_mosaic: Any, tmp_path: Path) -> Callable[[tuple[str, str]], dict[str, Door]]:
    """`doors(labels)`: one function for each kind of job that makes or reads models."""

    def prepare(labels: tuple[str, str] = ("488 nm", "561 nm")) -> dict[str, Door]:
        mosaic = str(make_mosaic(channels=labels))
        stacks = grid_stacks(1, 2, NATIVE, lasers=("488 nm", "561 nm"))
        native = str(write_acquisition(tmp_path / "data", "b.ome.zarr", stacks, NATIVE))
        out = str(tmp_path / "out")
        return {
            "mosaic": lambda **given: correct_flatfield(mosaic, **given),
            "estimate": lambda **given: estimate_flatfield(mosaic, f"{out}/models", **given),
            "container": lambda **given: correct_flatfield(native, **given),
            "estimate container": lambda **given: estimate_flatfield(
                native, f"{out}/native", **given
            ),
            "import": lambda **given: import_mesospim(
                native, out, correct_flatfield=True, sign_x=-1, sign_y=-1, **given
            ),
        }

    return prepare


def _attributes(url: str) -> dict[str, Any]:
    return dict(zarr.open_group(url, mode="r").attrs)["mesospim_shading"]


def _level0(url: str) -> np.ndarray:
    return np.asarray(zarr.open_array(f"{url}/0", mode="r")[...])


def _formula(raw: np.ndarray, flat: np.ndarray, dark: Any) -> np.ndarray:
    """The float64 formula on 2 x 2 tiles; raw 0 stays 0."""
    tiles = (raw.shape[-2] // flat.shape[0], raw.shape[-1] // flat.shape[1])
    gain = np.tile(flat / flat.mean(), tiles)
    offset = np.tile(np.broadcast_to(dark, flat.shape), tiles)
    exact = np.clip(np.rint((raw - offset) / gain), 0, 65535)
    exact[raw == 0] = 0
    return exact


# --- The shape of what is given --------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "said"),
    [((40, 48), r"turned by 90 degrees, it fits.*np\.rot90"), ((48, 48), "differ by more than 2%")],
)
def test_every_door_refuses_a_flatfield_of_another_shape(
    doors: Any, make_models: Any, tmp_path: Path, shape: tuple[int, int], said: str
) -> None:
    models = str(make_models(shape, darkfield=100.0))
    for name, door in doors().items():
        with pytest.raises(errors.ProfileError, match=said) as caught:
            door(models_folder=models)
        assert "of channels '488 nm', '561 nm'" in str(caught.value), name
        assert not (tmp_path / "out").exists()


def test_every_door_refuses_a_dark_frame_of_another_shape(
    doors: Any, make_models: Any, tmp_path: Path
) -> None:
    models = str(make_models())
    np.save(tmp_path / "dark.npy", np.full((5, 40, 48), 100.0))
    tifffile.imwrite(tmp_path / "dark.tif", np.full((40, 48), 100, np.uint16))
    np.savez(tmp_path / "dark.npz", darkfield=np.full((40, 48), 100.0))
    (tmp_path / "dark" / "488 nm").mkdir(parents=True)
    (tmp_path / "dark" / "561 nm").mkdir(parents=True)
    for label in ("488 nm", "561 nm"):
        np.savez(tmp_path / "dark" / label / "profiles.npz", darkfield=np.full((40, 48), 100.0))
    prepared = doors()
    for name in ("dark.npy", "dark.tif", "dark.npz", "dark"):
        with pytest.raises(errors.ProfileError, match=r"darkfield_file.*np\.rot90"):
            prepared["mosaic"](models_folder=models, darkfield_file=str(tmp_path / name))
    for door in prepared.values():
        with pytest.raises(errors.ProfileError, match=r"darkfield_file.*np\.rot90"):
            door(models_folder=models, darkfield_file=str(tmp_path / "dark.npy"))


def test_the_turn_that_the_message_gives_corrects_rightly(
    make_mosaic: Any, flatfield: Any, tmp_path: Path
) -> None:
    """A camera frame is stored as np.rot90 of it; so is its dark frame."""
    source = make_mosaic(channels=("A",), shape=(1, 4, 96, 80))
    flat = flatfield(TILE)
    dark = 90 + np.add.outer(0.3 * np.arange(TILE[0]), 0.1 * np.arange(TILE[1]))
    (tmp_path / "models" / "A").mkdir(parents=True)
    np.savez(tmp_path / "models" / "A" / "profiles.npz", flatfield=flat)
    stored_by_maker = np.rot90(dark, -1)
    given = {
        "models_folder": str(tmp_path / "models"),
        "darkfield_file": f"{tmp_path}/dark.npy",
        "report": False,
    }
    np.save(tmp_path / "dark.npy", np.stack([stored_by_maker - 1, stored_by_maker + 1]))
    with pytest.raises(errors.ProfileError) as caught:
        correct_flatfield(source, **given)
    expression = re.search(r"np\.rot90\(frames, axes=\(-2, -1\)\)", str(caught.value))
    assert expression is not None
    frames = np.load(tmp_path / "dark.npy")
    np.save(tmp_path / "dark.npy", eval(expression[0], {"np": np, "frames": frames}))
    result = correct_flatfield(source, **given)
    exact = _formula(_level0(str(source)), flat, dark)
    assert np.abs(_level0(result.image_url) - exact).max() <= 1


@pytest.mark.slow
def test_stretching_is_done_where_it_is_asked_for_and_said(
    make_mosaic: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Profiles that are constant along y or x are known after stretching, too."""
    source = make_mosaic(channels=("A",), shape=(1, 4, 96, 80))
    across = 0.6 + 0.8 * (np.arange(TILE[1]) + 0.5) / TILE[1]
    (tmp_path / "models" / "A").mkdir(parents=True)
    np.savez(
        tmp_path / "models" / "A" / "profiles.npz",
        flatfield=across[None, :],
        darkfield=np.full((3, 3), 100.0),
    )
    given = {"models_folder": str(tmp_path / "models"), "profile_shape": "stretch"}
    with caplog.at_level(logging.INFO):
        result = correct_flatfield(source, save_models=True, **given)
    exact = _formula(_level0(str(source)), np.tile(across, (TILE[0], 1)), 100.0)
    assert np.abs(_level0(result.image_url) - exact).max() <= 1
    said = "flat-field from 1 x 40, dark-field from 3 x 3 to 48 x 40 pixels (y, x)"
    assert f"Channel A: resampled: {said}" in caplog.text
    assert _attributes(result.image_url)["models"]["A"]["resampled"] == said
    assert _attributes(result.image_url)["parameters"]["profile_shape"] == "stretch"
    assert said in Path(result.image_url.replace(".zarr", "_report.html")).read_text()
    assert "WARNING" not in {record.levelname for record in caplog.records}
    # What was saved has the shape of a tile: it needs no permission.
    again = correct_flatfield(source, models_folder=result.models_folder, output_image_name="again")
    np.testing.assert_array_equal(_level0(again.image_url), _level0(result.image_url))


def test_a_smaller_profile_of_the_same_field_of_view_is_resampled_and_said(
    make_mosaic: Any, make_models: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_mosaic(channels=("488 nm",), shape=(1, 2, 96, 80))
    models = str(make_models((24, 20), darkfield=np.full(TILE, 100.0)))
    with caplog.at_level(logging.INFO):
        result = correct_flatfield(source, models_folder=models, report=False)
    said = "flat-field from 24 x 20 to 48 x 40 pixels (y, x)"
    assert f"resampled: {said}" in caplog.text
    assert _attributes(result.image_url)["models"]["488 nm"]["resampled"] == said
    caplog.clear()
    with caplog.at_level(logging.INFO):
        result = correct_flatfield(
            source,
            models_folder=str(make_models(TILE, name="whole")),
            camera_offset=100,
            output_image_name="whole",
            report=False,
        )
    assert "resampled" not in caplog.text
    assert "resampled" not in _attributes(result.image_url)["models"]["488 nm"]


@pytest.mark.slow
@pytest.mark.parametrize("tile", [(40, 40), TILE])
def test_on_square_tiles_the_log_says_that_a_turn_cannot_be_seen(
    make_mosaic: Any,
    make_models: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    tile: tuple[int, int],
) -> None:
    shape = (1, 2, 2 * tile[0], 2 * tile[1])
    source = make_mosaic(channels=("488 nm",), shape=shape, tile_shape=tile)
    np.save(tmp_path / "dark.npy", 100 + np.arange(tile[0] * tile[1]).reshape(tile) / 1000)
    np.save(tmp_path / "even.npy", np.full(tile, 100.0))
    measured = {"models_folder": str(make_models(tile)), "save_models": True, "report": False}

    def said(**more: Any) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            correct_flatfield(source, overwrite=True, **{**measured, **more})
        assert {record.levelname for record in caplog.records} == {"INFO"}
        return [line for line in caplog.messages if "turned by 90 degrees" in line]

    square = tile[0] == tile[1]
    assert len(said(darkfield_file=str(tmp_path / "dark.npy"))) == square
    if square:
        both = said(darkfield_file=str(tmp_path / "dark.npy"))[0]
        assert "flat-field that was given" in both and "darkfield_file" in both
        # An even frame looks the same however it is turned.
        assert "darkfield_file" not in said(darkfield_file=str(tmp_path / "even.npy"))[0]
    # A saved model is known to lie as the tiles do.
    assert said(models_folder=str(tmp_path / "brain_shading_models")) == []


def test_a_dark_frame_that_no_model_needs_is_not_read(make_mosaic: Any, make_models: Any) -> None:
    models = str(make_models(darkfield=100.0))
    correct_flatfield(
        make_mosaic(), models_folder=models, darkfield_file="/nowhere/dark.npy", report=False
    )
    bare = str(make_models(name="bare"))
    with pytest.raises(errors.ProfileError, match="is not there"):
        correct_flatfield(make_mosaic("b.zarr"), models_folder=bare, darkfield_file="/nowhere.npy")


# --- Values that no optics gives -------------------------------------------------------------


def test_strange_values_of_a_flatfield(
    make_mosaic: Any, make_models: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_mosaic()
    models = make_models(darkfield=100.0)
    file = models / "561 nm" / "profiles.npz"
    flat = np.ones(TILE)

    def run(value: float) -> list[str]:
        flat[3, 5] = value
        np.savez(file, flatfield=flat, darkfield=100.0)
        caplog.clear()
        correct_flatfield(source, models_folder=str(models), report=False, overwrite=True)
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    assert run(0.06) == []
    (low,) = run(0.04)
    assert "561 nm" in low and "from 0.04 to 1 of its mean" in low and "1 of its pixels" in low
    assert run(20.1) == []  # the mean is a little above 1
    (high,) = run(25.0)
    assert "to 24.7 of its mean" in high
    for value in (0.009, 101.0):
        with pytest.raises(errors.ProfileError, match=r"561 nm.*spans a factor of 1\d\d"):
            run(value)


# --- Labels that share a folder --------------------------------------------------------------


@pytest.mark.parametrize("labels", [("488_520/35", "488_520_35"), ("DAPI", "dapi")])
def test_labels_of_one_folder_are_refused_before_a_pixel_is_read(
    doors: Any, make_models: Any, tmp_path: Path, labels: tuple[str, str]
) -> None:
    prepared = doors(labels)
    there = set(tmp_path.rglob("*"))
    given = {"fov_list": [1, 2, 3, 4], "camera_offset": 100}
    for run in (
        lambda: prepared["mosaic"](save_models=True, **given),
        lambda: prepared["estimate"](**given),
    ):
        with pytest.raises(errors.ProfileError, match="share the model folder") as caught:
            run()
        assert all(repr(label) in str(caught.value) for label in labels)
    assert set(tmp_path.rglob("*")) == there
    # A folder that holds one of them, as an earlier version has left it.
    models = make_models(labels=(labels[1].replace("/", "_"),), darkfield=100.0)
    bare = make_models(labels=("other",), name="bare")
    for given in (
        {"models_folder": str(models)},
        {"fov_list": [1], "darkfield_file": str(models)},
        {"models_folder": str(models), "darkfield_file": str(bare)},
    ):
        with pytest.raises(errors.ProfileError, match="share the model folder"):
            prepared["mosaic"](**given)


def _acquisition(folder: Path, lasers: tuple[str, str]) -> str:
    """Two tiles; the first channel was lit from another side in each, the second was not."""
    stacks = [
        replace(s, laser=lasers[n % 2], shutter=("Left", "Right")[n == 2], group=f"stack{n}")
        for n, s in enumerate(grid_stacks(1, 2, NATIVE, lasers=("488 nm", "561 nm")))
    ]
    return str(write_acquisition(folder, "brain.ome.zarr", stacks, NATIVE))


@pytest.mark.parametrize(
    ("lasers", "said"),
    [
        (("488 nm/a", "488 nm_a"), "share the model folder"),
        (("488 nm", "488 nm/left"), "'488 nm/left' is also the name of the model of .*'488 nm'"),
    ],
)
def test_labels_of_acquisitions_whose_models_could_not_be_told_apart(
    tmp_path: Path, lasers: tuple[str, str], said: str
) -> None:
    native, out = _acquisition(tmp_path / "data", lasers), str(tmp_path / "out")
    given = {"fov_list": [1, 2], "camera_offset": 100}
    for run in (
        lambda: correct_flatfield(native, save_models=True, **given),
        lambda: estimate_flatfield(native, out, **given),
        lambda: import_mesospim(
            native, out, correct_flatfield=True, save_models=True, sign_x=-1, sign_y=-1, **given
        ),
    ):
        with pytest.raises(errors.ProfileError, match=said):
            run()
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "data").glob("*.zarr")] == ["brain.ome.zarr"]


def test_labels_are_no_matter_where_no_model_is_kept(make_mosaic: Any) -> None:
    source = make_mosaic(channels=("488_520/35", "488_520_35"))
    result = correct_flatfield(source, fov_list=[1, 2, 3, 4], camera_offset=0, report=False)
    assert set(result.models) == {"488_520/35", "488_520_35"}


def test_a_folder_that_models_cannot_be_written_to_is_seen_before(
    doors: Any, make_models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, models = doors(), str(make_models(darkfield=100.0))
    given = {"models_folder": models, "save_models": True, "report": False}
    for path in (
        tmp_path / "brain_shading_models",
        tmp_path / "data" / "b_shading_models",
        tmp_path / "out" / "b.zarr" / "raw_image_flatfield_corr_shading_models",
        tmp_path / "out" / "models",
        tmp_path / "out" / "native",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    for name, door in prepared.items():
        own = {k: v for k, v in given.items() if k == "models_folder" or "estimate" not in name}
        if name == "import":
            del own["report"]
        with pytest.raises(errors.OutputWriteError, match="stands in its place"):
            door(**own)
    assert sorted(tmp_path.rglob("*")) == before
    # A folder within it that belongs to somebody else.
    (tmp_path / "brain_shading_models").unlink()
    (tmp_path / "brain_shading_models" / "561 nm").mkdir(parents=True)
    (tmp_path / "brain_shading_models" / "561 nm" / "profiles.npz").mkdir()
    with pytest.raises(errors.OutputWriteError, match="561 nm.*profiles.npz"):
        prepared["mosaic"](**given)


def test_models_are_read_and_written_on_file_systems_only(
    make_mosaic: Any, make_models: Any
) -> None:
    source, models = make_mosaic(), make_models(darkfield=100.0)
    with pytest.raises(errors.ParameterError, match="not to 's3://bucket/models'"):
        estimate_flatfield(source, "s3://bucket/models", models_folder=str(models))
    with pytest.raises(errors.ProfileError, match="models_folder.*is remote"):
        correct_flatfield(source, models_folder="s3://bucket/models")
    with pytest.raises(errors.ProfileError, match="darkfield_file.*is remote"):
        correct_flatfield(source, fov_list=[1], darkfield_file="s3://bucket/dark.npy")
    result = correct_flatfield(source, models_folder=f"file://{models}", report=False)
    assert result.models["561 nm"].offset == 0.0


# --- Models that were estimated before -------------------------------------------------------


def _empty_mosaic(path: Path) -> str:
    world = LightSheetWorld(tile_shape=(64, 64), grid=(2, 2), planes=24, sample=0.0)
    write_mosaic(path, world, ("A",), chunks=(2, 32, 32), codec="blosc")
    return str(path)


@pytest.mark.slow
def test_an_estimated_model_says_later_that_it_was_estimated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = _empty_mosaic(tmp_path / "brain.zarr")
    first = correct_flatfield(
        source, fov_list=[1, 2, 3, 4], save_models=True, n_zplanes=48, report=False
    )
    made = _attributes(first.image_url)["models"]["A"]
    assert made["offset_uncertainty"] is not None
    estimated = estimate_flatfield(
        source, str(tmp_path / "estimated"), fov_list=[1, 2, 3, 4], n_zplanes=48
    )
    file = Path(first.models_folder, "A", "profiles.npz").read_bytes()
    assert (tmp_path / "estimated" / "A" / "profiles.npz").read_bytes() == file
    assert estimated["A"].facts["offset_uncertainty"] == made["offset_uncertainty"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        again = correct_flatfield(
            source, models_folder=first.models_folder, output_image_name="again", save_models=True
        )
    offset = f"{made['offset']:.1f} +- {made['offset_uncertainty']:.1f}"
    (line,) = [text for text in caplog.messages if text.startswith("Channel A: estimated")]
    assert line.startswith("Channel A: estimated from empty regions, saved by fractal-mesospim")
    assert f", {made['planes_used']} planes used" in line
    assert f"camera offset {offset} (estimated)" in line
    assert "measured" not in line
    found = _attributes(again.image_url)["models"]["A"]
    assert found["scenario"].startswith("estimated from empty regions, saved by")
    assert found["offset_uncertainty"] == made["offset_uncertainty"]
    own = {key: value for key, value in made.items() if key != "profile"}
    assert found["origin"]["facts"] == own
    html = Path(again.image_url.replace(".zarr", "_report.html")).read_text()
    assert "estimated from empty regions, saved by" in html
    assert offset in html
    # The same pixels, and, saved once more, the same file: its origin stays.
    np.testing.assert_array_equal(_level0(again.image_url), _level0(first.image_url))
    assert Path(again.models_folder, "A", "profiles.npz").read_bytes() == file


def test_a_saved_model_from_a_coarse_level_fits_again(make_mosaic: Any, tmp_path: Path) -> None:
    """Of tiles of 42 x 34 pixels, level 1 has 21 x 17, their aspect, and level 2 has not."""
    shape = (1, 8, 84, 68)
    pixels = np.random.default_rng(1).poisson(900.0, shape).astype(np.uint16)
    source = make_mosaic(channels=("A",), tile_shape=(42, 34), array=pixels)
    given = {"fov_list": [1, 2, 3, 4], "camera_offset": 100, "report": False}
    for level in (1, 2):
        first = correct_flatfield(
            source, resolution_level=level, save_models=True, overwrite=True, **given
        )
        again = correct_flatfield(
            source,
            models_folder=first.models_folder,
            output_image_name="again",
            overwrite=True,
            report=False,
        )
        np.testing.assert_array_equal(_level0(again.image_url), _level0(first.image_url))


def test_what_is_said_of_models_by_other_programs(
    make_mosaic: Any, make_models: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_mosaic(channels=("488 nm",), shape=(1, 2, 96, 80))
    measured = str(make_models(darkfield=100.0))
    with caplog.at_level(logging.INFO):
        first = correct_flatfield(source, models_folder=measured, save_models=True, report=False)
    assert "Channel 488 nm: measured model; camera offset 100.0 (measured dark-field)" in (
        caplog.text
    )
    assert "origin" not in _attributes(first.image_url)["models"]["488 nm"]
    # With an offset that was given, the file says so.
    given = correct_flatfield(
        source,
        models_folder=str(make_models(name="bare")),
        camera_offset=90,
        save_models=True,
        overwrite=True,
        report=False,
    )
    caplog.clear()
    with caplog.at_level(logging.INFO):
        correct_flatfield(
            source, models_folder=given.models_folder, output_image_name="again", report=False
        )
    assert "measured model; camera offset 90.0 (given, saved with the model)" in caplog.text


# --- One tile --------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_number_is_said_of_seams_that_are_not_there(
    make_mosaic: Any, make_models: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_mosaic("one.zarr", shape=(2, 2, 48, 40))
    with caplog.at_level(logging.INFO):
        correct_flatfield(one, models_folder=str(make_models(darkfield=100.0)))
    assert "seams" not in caplog.text and "nan" not in caplog.text.lower()


@pytest.mark.parametrize(
    ("dark", "said"),
    [
        (np.full(TILE, 100.0), "a measured dark-field is subtracted"),
        (100.0, "an offset of 100 counts is subtracted"),
        (np.zeros(TILE), None),
        (0.0, None),
    ],
)
def test_what_is_said_where_the_microscope_took_the_offset_away(
    make_models: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, dark: Any, said: str | None
) -> None:
    stacks = [
        replace(stack, processors=("BackgroundSubtraction",))
        for stack in grid_stacks(1, 2, NATIVE, lasers=("488 nm",))
    ]
    native = str(write_acquisition(tmp_path / "data", "b.ome.zarr", stacks, NATIVE))
    models = str(make_models(labels=("488 nm",), darkfield=dark))
    correct_flatfield(native, models_folder=models)
    told = [line for line in caplog.messages if "is subtracted" in line]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


def test_a_flatfield_in_a_tiff_gives_the_pixels_of_a_models_folder(
    make_mosaic: Any, make_models: Any, tmp_path: Path
) -> None:
    source, folder = str(make_mosaic()), make_models()
    files = {}
    for label in ("488 nm", "561 nm"):
        with np.load(folder / label / "profiles.npz") as content:
            files[label.split()[0]] = path = str(tmp_path / f"{label}.tif")
            tifffile.imwrite(path, content["flatfield"])
    options: dict[str, Any] = {"camera_offset": 100.0, "report": False}
    one = correct_flatfield(source, models_folder=str(folder), **options)
    two = correct_flatfield(source, flatfield_files=files, output_image_name="two", **options)
    arrays = [
        zarr.open_array(f"{result.image_url}/0", mode="r")[:].astype(int) for result in (one, two)
    ]
    # A frame is read as float32, the models of the folder are float64: a count may round.
    np.testing.assert_allclose(*arrays, rtol=0, atol=1)
    assert np.mean(arrays[0] != arrays[1]) < 1e-3
    with pytest.raises(errors.ParameterError, match="no file for the channel '561 nm'"):
        correct_flatfield(
            source, flatfield_files={"488": files["488"]}, output_image_name="three", **options
        )
