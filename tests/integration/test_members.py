"""Whole jobs on images that hold more than a pyramid: nothing is lost, nothing leads out."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import cli, correct_background, correct_flatfield, import_mesospim
from fractal_mesospim_shading.errors import ImageFormatError, ParameterError, ProfileError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs import story
from fractal_mesospim_shading.views.inspection import as_text, describe
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

MEDIAN = {"method": "constant", "value": 5.0}
JOBS = ["flatfield", "background"]


@pytest.fixture
def run(make_models: Callable[..., Path]) -> Callable[..., Any]:
    """`run(job, image, **options)`: one of the two tasks on an image."""
    models = str(make_models())

    def call(job: str, image: Path, **options: Any) -> Any:
        if job == "background":
            return correct_background(str(image), method=MEDIAN, **options)
        return correct_flatfield(
            str(image), models_folder=models, camera_offset=100.0, report=False, **options
        )

    return call


@pytest.fixture
def no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading pixels, or beginning a job at all, fails the test."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pixel was read, or a job begun")

    monkeypatch.setattr(MosaicImage, "read", refuse)
    monkeypatch.setattr(story, "Job", refuse)


def _edit(image: Path, change: Callable[[dict[str, Any]], None]) -> None:
    group = zarr.open_group(image, mode="r+", use_consolidated=False)
    content = json.loads(json.dumps(dict(group.attrs)))
    change(content.get("ome", content))
    group.attrs.put(content)


def _fill(image: Path) -> dict[str, Any]:
    """A second pyramid, a group of masks, labels without a group file, and notes."""
    group = zarr.open_group(image, mode="r+", use_consolidated=False)
    rng = np.random.default_rng(3)
    arrays = {
        "mip": rng.integers(0, 900, (2, 1, 96, 80)).astype("uint16"),
        "masks/m": rng.integers(0, 9, (96, 80)).astype("uint8"),
        "labels/nuclei/0": rng.integers(0, 99, (4, 96, 80)).astype("uint32"),
    }
    for path, pixels in arrays.items():
        group.create_array(path, data=pixels, chunks=(*pixels.shape[:-2], 48, 40))

    def second(content: dict[str, Any]) -> None:
        entry = json.loads(json.dumps(content["multiscales"][0]))
        content["multiscales"].append(
            {**entry, "name": "mip", "datasets": [{**entry["datasets"][0], "path": "mip"}]}
        )

    _edit(image, second)
    for name in ("labels", "tables"):
        for document in (".zgroup", ".zattrs", "zarr.json"):
            (image / name / document).unlink(missing_ok=True)
    (image / "notes.txt").write_bytes(bytes(range(256)))
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(("version", "wanted"), [("0.4", "0.4"), ("0.5", "0.5"), ("0.4", "0.5")])
def test_everything_is_carried_in_place(
    make_mosaic: Any, run: Any, job: str, version: str, wanted: str, caplog: Any
) -> None:
    image = make_mosaic(ngff_version=version)
    arrays = _fill(image)
    raw = zarr.open_array(f"{image}/0", mode="r")[...]
    caplog.set_level(logging.INFO)
    result = run(job, image, overwrite_input=True, ngff_version=wanted)
    assert result.image_url == str(image)
    group = zarr.open_group(image, mode="r", use_consolidated=False)
    assert group.metadata.zarr_format == (2 if wanted == "0.4" else 3)
    for path, pixels in arrays.items():
        np.testing.assert_array_equal(group[path][...], pixels)
    assert (image / "notes.txt").read_bytes() == bytes(range(256))
    assert not np.array_equal(group["0"][...], raw)
    assert isinstance(group["labels"], zarr.Group)
    assert isinstance(group["tables"], zarr.Group)
    assert MosaicImage.open(image).layout.tile_shape == (48, 40)
    said = "\n".join(caplog.messages)
    assert "further pyramid, which is carried over uncorrected: mip." in said
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_what_would_be_lost_is_named_and_in_place_refused(
    make_mosaic: Any, run: Any, job: str, caplog: Any, request: Any
) -> None:
    image = make_mosaic()
    odd = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C"}
    odd |= {"fill_value": None, "compressor": None, "filters": [{"id": "pickle"}]}
    (image / "odd").mkdir()
    (image / "odd" / ".zarray").write_text(json.dumps(odd))
    run(job, image)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    result = run(job, image, ngff_version="0.5", output_image_name="new")
    lines = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lines[0].startswith("Not carried over into the result: odd (zarr v3 cannot take it over")
    assert not (Path(result.image_url) / "odd").exists()
    request.getfixturevalue("no_pixel")
    with pytest.raises(ParameterError, match="would delete what the result cannot hold.*odd"):
        run(job, image, ngff_version="0.5", overwrite_input=True)
    assert (image / "odd" / ".zarray").exists()


def test_companions_of_a_background_list_what_they_hold(make_mosaic: Any) -> None:
    image = make_mosaic()
    _fill(image)
    result = correct_background(str(image), method=MEDIAN, save_background=True)
    companion = zarr.open_group(result.companions["background"], mode="r")
    listed = companion.attrs["multiscales"]
    assert [entry["datasets"][0]["path"] for entry in listed] == ["0"]
    corrected = zarr.open_group(result.image_url, mode="r").attrs["multiscales"]
    assert [entry["datasets"][0]["path"] for entry in corrected] == ["0", "mip"]


def _archive(image: Path, name: str) -> Path:
    path = image.with_name("image.zarr.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(image.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(image).as_posix())
        archive.writestr(name, "owned")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(
    "name", ["tables/../../../../../home/x", "labels/..", "/x", "a\\..\\..\\x", "C:/x"]
)
def test_names_in_an_archive_never_leave_the_result(
    make_mosaic: Any, run: Any, no_pixel: None, tmp_path: Path, job: str, name: str
) -> None:
    archive = _archive(make_mosaic(folder=tmp_path / "deep" / "er"), name)
    before = {path for path in tmp_path.rglob("*") if "models" not in path.parts}
    with pytest.raises(ImageFormatError, match="holds the name"):
        run(job, archive)
    assert {path for path in tmp_path.rglob("*") if "models" not in path.parts} == before


def test_a_path_of_a_level_never_leaves_the_result(
    make_mosaic: Any, run: Any, no_pixel: None
) -> None:
    image = make_mosaic(factors=())
    (image / "0").rename(image.parent / "away")

    def lead_out(content: dict[str, Any]) -> None:
        content["multiscales"][0]["datasets"][0]["path"] = "../away"

    _edit(image, lead_out)
    with pytest.raises(ImageFormatError, match=r"holds the name '\.\./away'"):
        run("flatfield", image)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("member", ["tables/linked", "labels", "notes.txt"])
def test_links_out_of_the_image(
    make_mosaic: Any, run: Any, tmp_path: Path, job: str, member: str, request: Any
) -> None:
    image = make_mosaic()
    (tmp_path / "annex").mkdir()
    (tmp_path / "annex" / "object").write_text("content")
    (image / member).symlink_to(tmp_path / "annex")
    result = run(job, image, follow_links=True)
    copied = Path(result.image_url) / member
    assert not copied.is_symlink()
    assert (copied / "object").read_text() == "content"
    request.getfixturevalue("no_pixel")
    with pytest.raises(ImageFormatError, match=f"{member}' is a link that leads out of the image"):
        run(job, image, output_image_name="other")
    (tmp_path / "annex" / "object").unlink()
    (tmp_path / "annex").rmdir()
    for follow in (True, False):
        with pytest.raises(ImageFormatError, match=f"{member}' is a link to .* is not there"):
            run(job, image, follow_links=follow, output_image_name="other")


@pytest.mark.slow
def test_links_are_followed_by_the_command_line_and_not_by_the_server(
    make_mosaic: Any, make_models: Any, tmp_path: Path, capsys: Any
) -> None:
    from fractal_mesospim_shading.tasks.correct_flatfield import correct_flatfield as task

    image = make_mosaic()
    (tmp_path / "secret").write_text("x")
    (image / "notes.txt").symlink_to(tmp_path / "secret")
    arguments = [str(image), "--models-folder", str(make_models()), "--camera-offset", "100"]
    assert cli.main(["correct-flatfield", *arguments]) != 0
    assert "--follow-links" in capsys.readouterr().err
    assert cli.main(["correct-flatfield", *arguments, "--follow-links"]) == 0
    copied = image.with_name("brain_flatfield_corr.zarr") / "notes.txt"
    assert copied.read_text() == "x"
    assert "follow_links" not in task.__annotations__
    with pytest.raises(ParameterError):
        task(zarr_url=str(image), follow_links=True)


def _bare_axes(content: dict[str, Any]) -> None:
    for entry in content["multiscales"]:
        entry["axes"] = [{"name": axis["name"]} for axis in entry["axes"]]


def _no_version(content: dict[str, Any]) -> None:
    content["multiscales"][0].pop("version", None)


def _window(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["omero"]["channels"][0].update(window=value)


def _omero(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(omero=value)


ODD_FORMS = {
    "axes without type": _bare_axes,
    "no version": _no_version,
    "window text": _window("x"),
    "window number": _window(5),
    "omero list": _omero([{"channels": []}]),
    "omero empty list": _omero([]),
    "omero text": _omero("x"),
    "omero null": _omero(None),
    "omero empty": _omero({}),
    "fewer channels": lambda content: content["omero"]["channels"].pop(),
    "extra keys": lambda content: content.update(note={"deep": [1, {"x": None}]}),
    "scale text": lambda content: content["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ][0].update(scale=["1.0", "5.0", "1.3", "1.3"]),
    "history null": lambda content: content.update(
        mesospim_shading={"complete": True, "history": None}
    ),
    "second null": lambda content: content["multiscales"].append(None),
    "axis of odd type": lambda content: content["multiscales"][0]["axes"][1].update(type=5),
    "colour a number": lambda content: content["omero"]["channels"][0].update(color=5),
}


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["source", "0.5"])
@pytest.mark.parametrize("form", ODD_FORMS)
def test_attributes_of_unusual_form_are_carried(
    make_mosaic: Any, make_models: Any, form: str, wanted: str, caplog: Any
) -> None:
    image = make_mosaic(shape=(2, 2, 96, 80), factors=())
    _edit(image, ODD_FORMS[form])
    before = dict(zarr.open_group(image, mode="r").attrs)
    labels = [channel.label for channel in MosaicImage.open(image).channels]
    result = correct_flatfield(
        str(image),
        models_folder=str(make_models(labels=tuple(labels), name=f"m{form}")),
        camera_offset=100.0,
        report=False,
        ngff_version=wanted,
    )
    found = MosaicImage.open(result.image_url)
    assert found.shape if hasattr(found, "shape") else found.levels[0].shape == (2, 2, 96, 80)
    after = dict(zarr.open_group(result.image_url, mode="r").attrs)
    content = after.get("ome", after)
    if form.startswith("omero ") and form not in ("omero null", "omero empty"):
        assert content["omero"] == before["omero"]
    else:
        windows = [channel["window"] for channel in content["omero"]["channels"]]
        assert len(windows) == 2
        assert all(set(window) >= {"min", "max", "start", "end"} for window in windows)
    assert all(axis["type"] for axis in content["multiscales"][0]["axes"])
    if form == "extra keys":
        assert after["note"] == {"deep": [1, {"x": None}]}
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


LATE = {
    "well": (lambda content: content.update(well="x"), "ome-zarr cannot open"),
    "odd ome": (lambda content: content.update(ome={"multiscales": []}), "ome-zarr cannot open"),
    "image-label": (lambda content: content.update({"image-label": "x"}), "ome-zarr cannot open"),
    "more channels": (
        lambda content: content["omero"]["channels"].append({"label": "x"}),
        "name 3 channels, but the image holds 2",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("case", LATE)
def test_what_the_end_refuses_is_refused_at_the_start(
    make_mosaic: Any, run: Any, no_pixel: None, job: str, case: str
) -> None:
    change, said = LATE[case]
    image = make_mosaic()
    _edit(image, change)
    with pytest.raises(ImageFormatError, match=said):
        run(job, image)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(
    "extension", [{"storage_transformers": [{"name": "x"}]}, {"unheard_of": {"name": "x"}}]
)
def test_unknown_extensions_are_refused_at_the_start(
    make_mosaic: Any, run: Any, no_pixel: None, job: str, extension: dict[str, Any]
) -> None:
    image = make_mosaic(ngff_version="0.5")
    path = image / "1" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | extension))
    with pytest.raises(ImageFormatError, match="storage transformers|unheard_of"):
        run(job, image)


def test_an_extension_that_may_be_ignored_is_carried(make_mosaic: Any, run: Any) -> None:
    image = make_mosaic(ngff_version="0.5")
    path = image / "0" / "zarr.json"
    extension = {"own": {"must_understand": False, "x": 1}}
    path.write_text(json.dumps(json.loads(path.read_text()) | extension))
    result = run("flatfield", image)
    written = json.loads((Path(result.image_url) / "0" / "zarr.json").read_text())
    assert written["own"] == extension["own"]


@pytest.mark.parametrize("label", ["..", ".", " "])
def test_labels_that_cannot_be_folders_are_refused_at_the_start(
    make_mosaic: Any, no_pixel: None, label: str
) -> None:
    image = make_mosaic(channels=(label, "b"))
    with pytest.raises(ProfileError, match="cannot be the name of a folder"):
        correct_flatfield(str(image), fov_list=[1], camera_offset=100.0, save_models=True)


def test_info_names_the_members(make_mosaic: Any) -> None:
    image = make_mosaic()
    _fill(image)
    found = describe(str(image))
    assert {item["path"]: item["kind"] for item in found["members"]} == {
        "labels": "folder",
        "masks": "group",
        "mip": "array of a further pyramid",
        "notes.txt": "file",
        "tables": "folder",
    }
    assert "  mip (array of a further pyramid)" in as_text(found)


@pytest.fixture
def container(tmp_path: Path) -> tuple[Path, str]:
    """A native acquisition of two tiles, and models for it."""
    settings = SyntheticSettings(tile_shape=(20, 28), version="0.4", xml=True, chunks=(2, 20, 28))
    stacks = grid_stacks(1, 2, settings, overlap_px=6)
    path = write_acquisition(tmp_path / "data", "brain.ome.zarr", stacks, settings)
    (tmp_path / "models" / "488 nm").mkdir(parents=True)
    np.savez(tmp_path / "models" / "488 nm" / "profiles.npz", flatfield=np.ones((20, 28)))
    return path, str(tmp_path / "models")


@pytest.mark.parametrize("wanted", ["source", "0.5"])
def test_members_of_a_container_and_of_its_stacks(
    container: tuple[Path, str], wanted: str, caplog: Any
) -> None:
    path, models = container
    (path / "notes.txt").write_text("x")
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group.create_group("calibration").create_array("beads", data=np.arange(6.0))
    group.attrs["own"] = 1
    stack = sorted(name for name in group.group_keys() if name.startswith("Mag"))[0]
    group[stack].create_array("labels/cells/0", data=np.ones((3, 4), "uint8"))
    caplog.set_level(logging.INFO)
    result = correct_flatfield(
        str(path), models_folder=models, camera_offset=100.0, ngff_version=wanted
    )
    found = zarr.open_group(result.image_url, mode="r", use_consolidated=False)
    assert found.metadata.zarr_format == (2 if wanted == "source" else 3)
    np.testing.assert_array_equal(found["calibration/beads"][...], np.arange(6.0))
    np.testing.assert_array_equal(found[f"{stack}/labels/cells/0"][...], np.ones((3, 4)))
    assert (Path(result.image_url) / "notes.txt").read_text() == "x"
    assert found.attrs["own"] == 1
    assert f"not corrected: {stack}/labels, calibration, notes.txt." in "\n".join(caplog.messages)


def test_links_in_a_container(container: tuple[Path, str], tmp_path: Path) -> None:
    """A stack that lies on another disk is read there; what is carried must not lead out."""
    path, models = container
    stack = sorted(item for item in path.iterdir() if item.name.startswith("Mag"))[0]
    stack.rename(tmp_path / "moved")
    stack.symlink_to(tmp_path / "moved")
    options: dict[str, Any] = {"models_folder": models, "camera_offset": 100.0, "report": False}
    result = correct_flatfield(str(path), **options)
    assert (Path(result.image_url) / stack.name / "0").is_dir()
    assert not (Path(result.image_url) / stack.name).is_symlink()
    (tmp_path / "moved" / "notes.txt").write_text("x")
    with pytest.raises(ImageFormatError, match="leads out of the image"):
        correct_flatfield(str(path), output_image_name="b", **options)
    result = correct_flatfield(str(path), output_image_name="b", follow_links=True, **options)
    assert (Path(result.image_url) / stack.name / "notes.txt").read_text() == "x"


def test_stacks_of_a_container_are_rehearsed(container: tuple[Path, str], no_pixel: None) -> None:
    path, models = container
    stack = sorted(item for item in path.iterdir() if item.name.startswith("Mag"))[-1]
    _edit(stack, lambda content: content.update(well="x"))
    with pytest.raises(ImageFormatError, match=f"of the stack '{stack.name}' of source"):
        correct_flatfield(str(path), models_folder=models, camera_offset=100.0)


def test_an_import_is_rehearsed(
    container: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pixel: None
) -> None:
    from fractal_mesospim_shading.jobs import importing

    whole = importing.import_attributes

    def spoilt(*arguments: Any) -> dict[str, Any]:
        return {**whole(*arguments), "well": "x"}

    monkeypatch.setattr(importing, "import_attributes", spoilt)
    with pytest.raises(ImageFormatError, match="could not be read by others"):
        import_mesospim([str(container[0])], str(tmp_path / "out"), sign_x=1, sign_y=1)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "cp850"])
def test_metadata_texts_of_another_encoding_go_with_the_result(
    tmp_path: Path, encoding: str, caplog: Any
) -> None:
    settings = SyntheticSettings(tile_shape=(20, 28), version="0.4", chunks=(2, 20, 28))
    stacks = [replace(s) for s in grid_stacks(1, 2, settings, overlap_px=6)]
    path = write_acquisition(tmp_path / "data", "Größe.ome.zarr", stacks, settings)
    for text in path.parent.glob("*_meta.txt"):
        content = text.read_text().replace("[x_pos] ", "[x_pos]  ")
        text.write_bytes(content.replace(".0\n", ",0\n").encode(encoding))
    (tmp_path / "m" / "488 nm").mkdir(parents=True)
    np.savez(tmp_path / "m" / "488 nm" / "profiles.npz", flatfield=np.ones((20, 28)))
    result = correct_flatfield(
        str(path), models_folder=str(tmp_path / "m"), camera_offset=100.0, report=False
    )
    for url in (str(path), result.image_url):
        text = as_text(describe(url))
        assert "written for the container" not in text
        assert "cannot be read" not in text
    assert not [r for r in caplog.records if "written for the container" in r.message]


@pytest.mark.slow
def test_a_run_that_is_stopped_while_it_carries_is_continued(
    make_mosaic: Any, run: Any, monkeypatch: pytest.MonkeyPatch, tree: Any, caplog: Any
) -> None:
    from fractal_mesospim_shading.engine.job import Job
    from fractal_mesospim_shading.errors import StoppedError
    from fractal_mesospim_shading.images.carrying import carry as carrying

    image = make_mosaic()
    _fill(image)
    whole = run("flatfield", image, ngff_version="0.5", output_image_name="whole")
    monkeypatch.setattr(carrying, "_WATCH_SECONDS", 0.0)
    monkeypatch.setattr(carrying, "_REMEMBER_SECONDS", 0.0)
    owned, calls = Job.check_owned, []

    def stop(job: Job) -> None:
        calls.append(1)
        if len(calls) == stop_at:
            raise StoppedError("stopped")
        owned(job)

    carried, add = [], carrying._Progress.add

    def counted(progress: Any, size: int, files: int = 1) -> None:
        carried.append(files)
        add(progress, size, files)

    stop_at = 0
    monkeypatch.setattr(Job, "check_owned", stop)
    monkeypatch.setattr(carrying._Progress, "add", counted)
    run("flatfield", image, ngff_version="0.5", output_image_name="counted")
    chunks = carried.count(0)
    stop_at, calls[:], carried[:] = len(calls) - 8, [], []
    with pytest.raises(StoppedError):
        run("flatfield", image, ngff_version="0.5", output_image_name="broken")
    before = carried.count(0)
    assert 0 < before < chunks
    stop_at, carried[:] = 0, []
    result = run("flatfield", image, ngff_version="0.5", output_image_name="broken")
    assert carried.count(0) == chunks - before
    assert tree(Path(result.image_url)) == tree(Path(whole.image_url))
