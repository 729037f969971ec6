"""A native container in, a corrected container of the same structure out."""

from __future__ import annotations

import logging
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import product
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import (
    correct_flatfield,
    errors,
    estimate_flatfield,
    import_mesospim,
)
from fractal_mesospim_shading.images import mosaic, target
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.positions import SignOptions
from tests.support.acquisition import (
    grid_stacks,
    stack_pixels,
    write_acquisition,
)
from tests.support.acquisition_table import SyntheticSettings
from tests.support.kills import kill_after

LABELS = ("488 nm", "561 nm")
SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16), levels=2)

pytestmark = pytest.mark.usefixtures("two_threads")


def _pixels(path, group, level="0"):
    return np.asarray(zarr.open_array(str(Path(path) / group / level), mode="r")[...])


def _flat(seed, tile_shape=(20, 28)):
    y = np.linspace(-1, 1, tile_shape[0])[:, None]
    x = np.linspace(-1, 1, tile_shape[1])[None, :]
    flat = np.exp(-0.3 * (y**2 + (x - 0.3 * seed) ** 2)) * (1 + 0.1 * seed * x)
    return (flat / flat.mean()).astype(np.float32)


@pytest.fixture
def sides(tmp_path):
    """Tiles with two channels and both sides, a model of each, and the rows of the table."""
    flats = {
        (f"{n} nm", side): _flat(seed)
        for seed, (n, side) in enumerate(product((488, 561), ("Left", "Right")))
    }
    settings = replace(SETTINGS, version="0.4", xml=True, flatfields=flats)
    stacks = [
        replace(s, shutter="Left" if s.tile < 2 else "Right")
        for s in grid_stacks(2, 2, settings, lasers=LABELS, overlap_px=6)
    ]
    path = write_acquisition(tmp_path / "data", "brain.ome.zarr", stacks, settings)
    for (label, side), flat in flats.items():
        folder = tmp_path / "models" / label / side.lower()
        folder.mkdir(parents=True)
        np.savez(folder / "profiles.npz", flatfield=flat, darkfield=100.0)
    return path, str(tmp_path / "models"), stacks, settings


def _check_stacks(result, stacks, settings):
    for stack in stacks:
        raw = stack_pixels(stack, settings)
        flat = settings.flatfields[stack.laser, stack.shutter].astype(float)
        exact = np.rint((raw - 100.0) / flat)
        assert np.abs(_pixels(result, stack.group_name) - exact).max() <= 1


# --- The samples -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def corrected(native, tmp_path_factory):
    """A sample, and its correction as a container."""
    folder = tmp_path_factory.mktemp("corrected")
    result = correct_flatfield(
        str(native.container),
        output_folder=str(folder),
        camera_offset=100,
        z_levels=native.z_levels,
        n_workers=2,
    )
    return native, result


@pytest.mark.slow
def test_each_pixel_of_a_sample(corrected):
    native, result = corrected
    assert Path(result.image_url).name == native.container.name.replace(
        ".ome.zarr", "_flatfield_corr.ome.zarr"
    )
    for label in LABELS:
        true = native.flats[label] / native.flats[label].mean()
        error = result.models[label].profile.flatfield / true - 1
        assert np.sqrt(np.mean(error**2)) < 0.0035
    for group, (channel, _, _) in native.places().items():
        raw = native.raw(group).astype(float)
        flat = result.models[LABELS[channel]].profile.flatfield.astype(float)
        exact = np.clip(np.rint((raw - 100) / flat), 0, 65535)
        exact[raw == 0] = 0
        assert np.abs(_pixels(result.image_url, group) - exact).max() <= 1
    assert sum(found.pixels for found in result.counts.values()) == sum(
        native.raw(group).size for group in native.places()
    )


@pytest.mark.slow
def test_the_result_opens_as_the_original(corrected):
    native, result = corrected
    before, after = TileCollection.open(native.container), TileCollection.open(result.image_url)
    assert after.warnings == before.warnings == ()
    (old,), (new,) = before.mosaics(), after.mosaics()
    assert new.places == old.places
    assert new.layout == old.layout
    assert new.shape == old.shape
    assert [c.label for c in new.channels] == list(LABELS)
    for one, other in zip(before.stacks, after.stacks, strict=True):
        # Names, places, sides, filters, pyramids: all but shards and names of files beside it.
        same = {"meta_file": None, "projection_file": None, "fingerprint": ""}
        found = replace(other, levels=tuple(replace(v, shards=None) for v in other.levels), **same)
        known = replace(one, levels=tuple(replace(v, shards=None) for v in one.levels), **same)
        assert found == known
        source = dict(zarr.open_group(str(native.container / one.group), mode="r").attrs)
        attributes = dict(zarr.open_group(f"{result.image_url}/{one.group}", mode="r").attrs)
        assert attributes.pop("mesospim_shading")["complete"] is True
        assert attributes == source
    assert (after.xml_file is None) == (before.xml_file is None)


@pytest.mark.slow
def test_files_beside_the_result(corrected):
    native, result = corrected
    folder, name = Path(result.image_url).parent, Path(result.image_url).name
    for group in native.places():
        old = (native.folder / f"{native.container.name}_{group}_meta.txt").read_text()
        new = (folder / f"{name}_{group}_meta.txt").read_text()
        assert new == old.replace(native.container.name, name)
    project = native.folder / f"{native.container.name}.xml"
    if project.exists():
        old, new = project.read_text(), (folder / f"{name}.xml").read_text()
        assert re.search(r"<zarr[^>]*>([^<]*)</zarr>", new)[1] == name
        assert new == old.replace(f">{native.container.name}<", f">{name}<")
    assert Path(result.report).parent == folder
    beside = {p.name for p in folder.iterdir() if Path(result.report).stem != p.stem}
    assert len(beside) == 1 + len(native.places()) + project.exists()
    # Planes of stacks are told and shown as those of mosaics are.
    page = Path(result.report).read_text()
    for model in result.models.values():
        assert sum(map(len, model.planes.used.values())) == model.planes_used
        for own in model.planes.thumbnails:
            assert f'alt="tile {own.tile}, plane {own.plane} ' in page
            assert np.isfinite(own.light).all()


@pytest.mark.slow
def test_import_of_the_result_is_the_import_with_correction(corrected, tmp_path):
    native, result = corrected
    (later,) = import_mesospim(result.image_url, str(tmp_path / "later"))
    (once,) = import_mesospim(
        str(native.container),
        str(tmp_path / "once"),
        correct_flatfield=True,
        camera_offset=100,
        z_levels=native.z_levels,
    )
    images = (Path(found.image_url) for found in (later, once))
    got, expected = (_pixels(image.parent, image.name) for image in images)
    np.testing.assert_array_equal(got, expected)
    # It is known to be corrected, and by what.
    assert later.types["flatfield_corrected"] is True
    mark = dict(zarr.open_group(later.image_url, mode="r").attrs)["mesospim_shading"]
    assert mark["acquisition"]["corrected_before"]["task"] == "correct_flatfield"


def test_pyramid_of_a_sample(corrected):
    native, result = corrected
    group = next(iter(native.places()))
    fine, coarse = _pixels(result.image_url, group), _pixels(result.image_url, group, "1")
    y, x = (np.arange(0, n, 2) for n in fine.shape[1:])
    total = np.add.reduceat(np.add.reduceat(fine.astype(float), y, 1), x, 2)
    number = np.add.reduceat(np.add.reduceat(np.ones(fine.shape), y, 1), x, 2)
    assert np.abs(coarse - total / number).max() <= 0.5


@pytest.mark.slow
def test_estimating_only(native, tmp_path):
    options = {"camera_offset": 100, "z_levels": native.z_levels}
    models = estimate_flatfield(str(native.container), str(tmp_path / "models"), **options)
    assert set(models) == set(LABELS)
    first, second = (
        correct_flatfield(str(native.container), output_folder=str(tmp_path / name), **chosen)
        for name, chosen in (("a", options), ("b", {"models_folder": str(tmp_path / "models")}))
    )
    for group in native.places():
        np.testing.assert_array_equal(
            _pixels(first.image_url, group), _pixels(second.image_url, group)
        )


# --- Sides, angles, what is odd --------------------------------------------------------------


def _check_equal(one, other, stacks):
    for stack in stacks:
        np.testing.assert_array_equal(
            _pixels(one.image_url, stack.group_name), _pixels(other.image_url, stack.group_name)
        )


@pytest.mark.slow
def test_each_side_and_channel_has_its_own_profile(sides, state):
    path, models, stacks, settings = sides
    before = state(path.parent)
    result = correct_flatfield(str(path), models_folder=models, save_models=True)
    after = state(path.parent)
    assert {k: v for k, v in after.items() if k in before} == before
    _check_stacks(result.image_url, stacks, settings)
    assert set(result.models) == {f"{n} nm/{s}" for n in (488, 561) for s in ("left", "right")}
    again = correct_flatfield(
        str(path), models_folder=result.models_folder, output_image_name="again"
    )
    _check_equal(again, result, stacks)


def test_what_is_said_of_an_estimate_names_the_side(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    stacks = grid_stacks(2, 1, SETTINGS, shutters=("Left", "Right"))
    light = np.random.default_rng(0).poisson(200 * _flat(0), (6, *SETTINGS.tile_shape))
    settings = replace(SETTINGS, pixels=lambda stack: light[: stack.planes].astype(np.uint16))
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks, settings)
    correct_flatfield(str(path), fov_list=[1], n_zplanes=2, camera_offset=0.0)
    for words in ("reading 2 planes", "the flat-field rests on 2 planes"):
        said = [line.partition(f": {words}")[0] for line in caplog.messages if words in line]
        assert said == [f"Channel {side}: {LABELS[0]}" for side in ("left", "right")]


def test_one_model_for_all_sides_where_there_is_no_other(sides):
    path, models, stacks, settings = sides
    for label, side in product(LABELS, ("left", "right")):
        shutil.rmtree(Path(models) / label / side)
    for label in LABELS:
        np.savez(Path(models) / label / "profiles.npz", flatfield=_flat(1), darkfield=100.0)
    result = correct_flatfield(str(path), models_folder=models)
    same = {key: _flat(1) for key in settings.flatfields}
    for stack in stacks:
        raw = stack_pixels(stack, settings)
        exact = np.clip(np.rint((raw - 100.0) / same[stack.laser, stack.shutter]), 0, None)
        assert np.abs(_pixels(result.image_url, stack.group_name) - exact).max() <= 1


@pytest.mark.slow
def test_angles_both_sides_short_and_downward_stacks(tmp_path):
    flats = {("488 nm", side): _flat(i) for i, side in enumerate(("Left", "Right"))}
    settings = replace(SETTINGS, flatfields=flats)
    stacks = grid_stacks(1, 2, settings, shutters=("Left", "Right"))
    stacks[0] = replace(stacks[0], planes=2)
    stacks[1] = replace(stacks[1], z_start_um=25.0, z_end_um=0.0)
    stacks += [replace(s, tile=s.tile + 2, rotation=90.0) for s in stacks]
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks, settings)
    for (label, side), flat in flats.items():
        folder = tmp_path / "models" / label / side.lower()
        folder.mkdir(parents=True)
        np.savez(folder / "profiles.npz", flatfield=flat, darkfield=100.0)
    # The models of one angle are of its own.
    own = tmp_path / "models" / "Rot90_left" / "488 nm"
    own.mkdir(parents=True)
    np.savez(own / "profiles.npz", flatfield=_flat(3), darkfield=100.0)
    result = correct_flatfield(str(path), models_folder=str(tmp_path / "models"), save_models=True)
    assert [stack.shutter for stack in stacks[4::2]] == ["Left", "Left"]
    other = replace(settings, flatfields={("488 nm", "Left"): _flat(3)})
    _check_stacks(result.image_url, stacks[:4] + stacks[5::2], settings)
    for stack in stacks[4::2]:
        raw = stack_pixels(stack, settings)
        exact = np.rint((raw - 100.0) / other.flatfields["488 nm", "Left"].astype(float))
        assert np.abs(_pixels(result.image_url, stack.group_name) - exact).max() <= 1
    again = correct_flatfield(
        str(path), models_folder=result.models_folder, output_image_name="again"
    )
    _check_equal(again, result, stacks)
    assert len(TileCollection.open(result.image_url, signs=SignOptions(-1, -1)).mosaics()) == 4


def test_each_chunk_is_decoded_once(sides, monkeypatch):
    path, models, stacks, _ = sides
    decoded = Counter()
    read = mosaic.MosaicImage.read

    def counted(image, level, box):
        units = image.levels[level].chunks
        ranges = (range(s.start // c, ceil(s.stop / c)) for s, c in zip(box, units, strict=True))
        decoded.update((image.url, level, *index) for index in product(*ranges))
        return read(image, level, box)

    monkeypatch.setattr(mosaic.MosaicImage, "read", counted)
    correct_flatfield(str(path), models_folder=models)
    assert set(decoded.values()) == {1}
    assert len(decoded) == len(stacks) * 2 * 2 * 2


def test_another_version(sides):
    path, models, stacks, settings = sides
    result = correct_flatfield(str(path), models_folder=models, ngff_version="0.5")
    _check_stacks(result.image_url, stacks, settings)
    assert (Path(result.image_url) / "zarr.json").exists()
    found = TileCollection.open(result.image_url)
    assert {stack.ngff_version for stack in found.stacks} == {"0.5"}
    assert found.mosaics()[0].places == TileCollection.open(path).mosaics()[0].places


# --- Given again, broken off, refused --------------------------------------------------------


@pytest.mark.slow
def test_a_result_given_again_is_worth_a_warning(sides, caplog):
    path, models, _, _ = sides
    first = correct_flatfield(str(path), models_folder=models)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    second = correct_flatfield(first.image_url, models_folder=models)
    said = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == 1
    assert "is a result of this package already" in said[0]
    assert "corrected a second time" in said[0]
    mark = dict(zarr.open_group(second.image_url, mode="r").attrs)["mesospim_shading"]
    assert [entry["task"] for entry in mark["history"]] == ["correct_flatfield"]


def test_an_unfinished_container_is_refused(sides, tmp_path):
    path, models, _, _ = sides
    first = correct_flatfield(str(path), models_folder=models)
    group = zarr.open_group(first.image_url, mode="r+")
    group.attrs["mesospim_shading"] = {"complete": False}
    with pytest.raises(errors.ImageFormatError, match="is unfinished"):
        correct_flatfield(first.image_url, models_folder=models)
    with pytest.raises(errors.ImageFormatError, match="is unfinished"):
        import_mesospim(first.image_url, str(tmp_path / "out"))


def test_refusals(sides, state):
    path, models, _, _ = sides
    before = state(path.parent)
    with pytest.raises(errors.ParameterError, match="never replaced"):
        correct_flatfield(str(path), models_folder=models, overwrite_input=True)
    with pytest.raises(errors.ProfileError):
        correct_flatfield(str(path), models_folder=str(path))
    with pytest.raises(errors.MemoryLimitError):
        correct_flatfield(str(path), models_folder=models, memory_limit="1MB")
    assert state(path.parent) == before


@pytest.mark.slow
def test_replacing_an_earlier_result(sides):
    path, models, stacks, settings = sides
    first = correct_flatfield(str(path), models_folder=models)
    with pytest.raises(errors.OutputExistsError):
        correct_flatfield(str(path), models_folder=models)
    second = correct_flatfield(
        str(path),
        models_folder=models,
        overwrite=True,
        ngff_version="0.5",
        output_shards=[4, 16, 16],
    )
    assert second.image_url == first.image_url
    _check_stacks(second.image_url, stacks, settings)
    array = zarr.open_array(f"{second.image_url}/{stacks[0].group_name}/0", mode="r")
    assert array.shards == (4, 16, 16)


# --- Killed and continued; other ways to run -------------------------------------------------


def _files(folder: Path):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.slow
def test_killed_and_continued(sides, tmp_path):
    path, models, _, _ = sides
    expected = correct_flatfield(str(path), models_folder=models, output_folder=str(tmp_path / "a"))
    out = tmp_path / "b"
    out.mkdir()
    command = [
        "correct-flatfield",
        str(path),
        "--models-folder",
        models,
        "--output-folder",
        str(out),
    ]
    recorded = kill_after(5, command, out / "brain_flatfield_corr.ome.zarr")
    assert len(recorded) >= 4
    made = []
    write = target.TargetImage.write

    def counted(image, level, box, data):
        made.append((image.url.rpartition("/")[2], level))
        return write(image, level, box, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target.TargetImage, "write", counted)
        result = correct_flatfield(str(path), models_folder=models, output_folder=str(out))
    # A stack of one block a level: nothing on record was made again.
    done = {node.rpartition(":")[0] + "/" + node.rpartition(":")[2][0] for node in recorded}
    assert not done & {f"{group}/{level}" for group, level in made}
    assert _files(Path(result.image_url)) == _files(Path(expected.image_url))


@pytest.mark.slow
def test_processes_write_the_same_bytes(sides, tmp_path):
    path, models, _, _ = sides
    first = correct_flatfield(str(path), models_folder=models, output_folder=str(tmp_path / "a"))
    second = correct_flatfield(
        str(path),
        models_folder=models,
        output_folder=str(tmp_path / "b"),
        execution="processes",
        n_workers=2,
    )
    assert _files(Path(second.image_url)) == _files(Path(first.image_url))


def test_stacks_of_an_earlier_run_are_left_out_and_named(sides, caplog):
    path, models, stacks, settings = sides
    group = stacks[0].group_name.replace("Rot0.0", "Rot1.0")
    old = replace(stacks[0], started="20250101-000000", group=group)
    write_acquisition(path.parent, path.name, [old], replace(settings, xml=False))
    meta = path.parent / f"{path.name}_{old.group_name}_meta.txt"
    assert "[rot] 0.0" in meta.read_text()
    caplog.set_level("INFO")
    result = correct_flatfield(str(path), models_folder=models)
    assert any(
        "Several stacks show the same place" in r.message and old.group_name in r.message
        for r in caplog.records
    )
    groups = {p.name for p in Path(result.image_url).iterdir() if p.is_dir()}
    assert groups == {stack.group_name for stack in stacks}
    beside = {p.name for p in Path(result.image_url).parent.glob("*flatfield_corr*_meta.txt")}
    assert len(beside) == len(stacks)
    assert not any(old.group_name in name for name in beside)


def test_a_project_file_with_a_full_path(sides):
    path, models, _, _ = sides
    project = path.parent / f"{path.name}.xml"
    relative = '<zarr type="relative">brain.ome.zarr</zarr>'
    text = project.read_text()
    assert relative in text
    project.write_text(
        text.replace(relative, '<zarr type="absolute">C:\\data\\brain.ome.zarr</zarr>')
    )
    result = correct_flatfield(str(path), models_folder=models, output_image_name="a & b")
    assert Path(result.image_url).name == "a & b.ome.zarr"
    found = (path.parent / "a & b.ome.zarr.xml").read_text()
    assert found == text.replace(relative, '<zarr type="relative">a &amp; b.ome.zarr</zarr>')


def test_a_full_disk_is_seen_before(sides, tmp_path, monkeypatch, state):
    path, models, _, _ = sides
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    before = state(tmp_path)
    with pytest.raises(errors.OutputWriteError, match="set output_folder= to another disk"):
        correct_flatfield(str(path), models_folder=models)
    with pytest.raises(errors.OutputWriteError, match="set zarr_dir= to another disk"):
        import_mesospim(str(path), str(tmp_path / "out"))
    assert state(tmp_path) == before
