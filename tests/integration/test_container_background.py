"""The local background of a native container: every stack by itself, in a container like it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from itertools import product
from math import ceil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import (
    cli,
    correct_background,
    correct_flatfield,
    errors,
    import_mesospim,
)
from fractal_mesospim_shading.images import mosaic, target
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.positions import SignOptions
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.tasks.correct_background import correct_background as task
from fractal_mesospim_shading.views import preview
from fractal_mesospim_shading.views.inspection import as_text, describe
from fractal_mesospim_shading.views.preview import write_preview
from tests.support.acquisition import grid_stacks, stack_pixels, write_acquisition
from tests.support.acquisition_table import SyntheticSettings
from tests.support.kills import kill_after
from tests.support.tile_images import tile_group_name, write_tile_images

SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16), levels=2)
LASERS = ("488 nm", "561 nm")
SIGNS = {"sign_x": -1, "sign_y": -1}
MEDIAN = {"method": "constant"}

pytestmark = pytest.mark.usefixtures("two_threads")


def _pixels(*parts):
    return np.asarray(zarr.open_array(str(Path(*map(str, parts))), mode="r")[...])


def _table(settings, **more):
    """Tiles of both channels, the first column lit from the left, the second from the right."""
    stacks = grid_stacks(2, 2, settings, lasers=LASERS, overlap_px=6, **more)
    return [replace(s, shutter="Left" if s.tile < 2 else "Right") for s in stacks]


def _medians(raw):
    """The background that the method `constant` takes away: the median of each plane."""
    planes = np.median(raw.reshape(len(raw), -1).astype(np.float64), axis=1)
    return np.broadcast_to(planes[:, None, None], raw.shape)


def _files(folder):
    folder = Path(folder)
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        # A report holds the date.
        if p.is_file() and "_report." not in p.name
    }


def _mark(url):
    return dict(zarr.open_group(str(url), mode="r").attrs)["mesospim_shading"]


def _warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.fixture
def brain(tmp_path):
    """A container of eight stacks with a project file, and its table."""
    settings = replace(SETTINGS, version="0.4", xml=True)
    stacks = _table(settings)
    return write_acquisition(tmp_path / "data", "brain.ome.zarr", stacks, settings), stacks


# --- Pixels and files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "version", "shards"),
    [
        ("stacks", "0.4", None),
        ("tile images", "0.5", (4, 32, 32)),
        *(
            pytest.param(*kind, marks=pytest.mark.slow)
            for kind in (
                ("stacks", "0.5", None),
                ("stacks", "0.5", (4, 32, 32)),
                ("tile images", "0.4", None),
                ("tile images", "0.5", None),
            )
        ),
    ],
)
def test_each_pixel_and_each_file(tmp_path, state, layout, version, shards):
    settings = replace(SETTINGS, version=version, shards=shards)
    stacks = _table(settings)
    write = write_acquisition if layout == "stacks" else write_tile_images
    container = write(tmp_path, "brain.ome.zarr", stacks, settings)
    before = state(tmp_path)
    result = correct_background(str(container), method=MEDIAN, save_background=True)
    after = state(tmp_path)
    assert {path: after[path] for path in before} == before
    url, background = Path(result.image_url), Path(result.companions["background"])
    assert url.name == "brain_background_corr.ome.zarr"
    assert background.name == "brain_background_corr_background.ome.zarr"
    for stack in stacks:
        group, place = stack.group_name, ()
        if layout == "tile images":
            group, place = tile_group_name(stack), (0, LASERS.index(stack.laser))
        raw = stack_pixels(stack, settings)
        got, taken = (_pixels(path, group, "0")[place] for path in (url, background))
        assert got.dtype == taken.dtype == np.float32
        np.testing.assert_array_equal(taken, _medians(raw))
        np.testing.assert_array_equal(got, raw - _medians(raw))
        means = _pixels(url, group, "1")[place]
        pairs = got.astype(np.float64).reshape(len(got), 10, 2, 14, 2)
        np.testing.assert_allclose(means, pairs.mean(axis=(2, 4)), atol=1e-4)
    groups = {p.name for p in container.iterdir() if p.is_dir()}
    for path, name in product((url, background), sorted(groups)):
        source, made = (zarr.open_group(str(p / name), mode="r") for p in (container, path))
        content = [dict(g.attrs).get("ome", dict(g.attrs)) for g in (source, made)]
        assert content[1]["multiscales"] == content[0]["multiscales"]
        assert made["0"].chunks == source["0"].chunks
        assert (made["0"].shards is None) == (source["0"].shards is None)
    texts = sorted(tmp_path.glob("brain.ome.zarr_*_meta.txt"))
    assert len(texts) == len(stacks)
    for path in (url, background):
        assert {p.name for p in path.iterdir() if p.is_dir()} == groups
        for old in texts:
            new = old.with_name(old.name.replace(container.name, path.name))
            assert new.read_text() == old.read_text().replace(container.name, path.name)
    signs = SignOptions(-1, -1)
    mosaics = [TileCollection.open(c, signs=signs).mosaics() for c in (container, url, background)]
    assert len({(m.places, m.layout, m.shape) for (m,) in mosaics}) == 1
    # Of the two results and of what they were made from: nothing else is left.
    known = {container.name, url.name, background.name}
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == known


@pytest.mark.slow
def test_a_project_file_goes_with_each_container(brain):
    container, _ = brain
    result = correct_background(
        str(container), method="tile_median:8", save_background=True, save_noise=True
    )
    old = (container.parent / "brain.ome.zarr.xml").read_text()
    for url in (result.image_url, *result.companions.values()):
        name = Path(url).name
        new = (container.parent / f"{name}.xml").read_text()
        assert new == old.replace(f">{container.name}<", f">{name}<")
    assert list(result.companions) == ["background", "noise"]


@pytest.mark.slow
def test_an_import_of_the_result_is_the_result_of_an_import(tmp_path):
    """Tile by tile it is the same, whatever the order of planes, the method and the mask."""
    stacks = _table(SETTINGS)
    stacks[0] = replace(stacks[0], planes=3)
    stacks[3] = replace(stacks[3], z_start_um=25.0, z_end_um=0.0)
    given = {
        "method": {"method": "tile_median", "tile_size": 8, "dilation": 1},
        "mask": {
            "kind": "threshold",
            "threshold": 600,
            "dilation": 2,
            "dilation_unit": "micrometers",
        },
        "output_type": "source",
        "output_offset": 200,
        "save_noise": True,
    }
    for layout, write in (("stacks", write_acquisition), ("images", write_tile_images)):
        if layout == "images":
            stacks = [replace(stack, planes=None, z_start_um=0.0) for stack in _table(SETTINGS)]
        container = write(tmp_path / layout, "brain.ome.zarr", stacks, SETTINGS)
        results = []
        once = correct_background(str(container), **given)
        for url in (once.image_url, once.companions["noise"]):
            (later,) = import_mesospim(url, str(tmp_path / layout / "later"), **SIGNS)
            results.append(_pixels(later.image_url, "0"))
        (first,) = import_mesospim(str(container), str(tmp_path / layout / "first"), **SIGNS)
        mosaic_result = correct_background(first.image_url, **given)
        for got, url in zip(
            results, (mosaic_result.image_url, mosaic_result.companions["noise"]), strict=True
        ):
            np.testing.assert_array_equal(got, _pixels(url, "0"))


@pytest.mark.slow
def test_numbers_for_each_channel_are_those_of_the_acquisition(brain):
    container, stacks = brain
    result = correct_background(
        str(container), method={"method": "constant", "value_per_channel": [30, 70]}
    )
    for stack in stacks:
        raw = stack_pixels(stack, SETTINGS).astype(np.float32)
        value = {"488 nm": 30, "561 nm": 70}[stack.laser]
        np.testing.assert_array_equal(_pixels(result.image_url, stack.group_name, "0"), raw - value)
    with pytest.raises(errors.ParameterError, match="1 numbers, but the image has 2 channels"):
        correct_background(
            str(container), method={"method": "constant", "value_per_channel": [30]}, overwrite=True
        )


def test_sides_and_angles(tmp_path):
    """Four mosaics; one angle lacks a channel, so that its numbers are those of the other."""
    stacks = grid_stacks(1, 2, SETTINGS, lasers=LASERS, shutters=("Left", "Right"))
    stacks += [replace(s, tile=s.tile + 2, rotation=90.0) for s in stacks if s.laser == "561 nm"]
    container = write_acquisition(tmp_path, "brain.ome.zarr", stacks, SETTINGS)
    result = correct_background(
        str(container), method={"method": "gaussian", "radius_per_channel": [2, 4]}
    )
    angles = {"Rot0_left": LASERS, "Rot0_right": LASERS, "Rot90_left": LASERS[1:]}
    angles["Rot90_right"] = LASERS[1:]
    labels = [f"{suffix}: {laser}" for suffix, lasers in angles.items() for laser in lasers]
    assert sorted(result.counts) == sorted(result.noise_factors) == labels
    by_laser = {tuple(result.noise_factors[label].items()) for label in labels if "561" in label}
    assert len(by_laser) == 1
    for label, found in result.counts.items():
        assert found.pixels == 2 * 6 * 20 * 28, label
    for stack in stacks:
        own = _mark(Path(result.image_url) / stack.group_name)
        assert own["complete"] is True
        assert list(own["pixels"]) == list(own["noise_factors"]) == [stack.laser]
    found = TileCollection.open(result.image_url, signs=SignOptions(-1, -1)).mosaics()
    assert [m.suffix for m in found] == list(angles)


def test_a_time_lapse_with_an_end_that_was_not_reached(tmp_path):
    points = [replace(SETTINGS, seed=seed) for seed in (1, 2)]
    stacks = _table(SETTINGS)
    unwritten = [(1, tile, laser) for tile in (2, 3) for laser in LASERS] + [(1, 1, LASERS[1])]
    container = write_tile_images(
        tmp_path, "brain.ome.zarr", stacks, SETTINGS, times=points, unwritten=unwritten
    )
    result = correct_background(str(container), method=MEDIAN, save_background=True)
    background = result.companions["background"]
    for (time, point), stack in product(enumerate(points), stacks):
        group, channel = tile_group_name(stack), LASERS.index(stack.laser)
        got, taken = (_pixels(url, group, "0") for url in (result.image_url, background))
        if (time, stack.tile, stack.laser) not in unwritten:
            raw = stack_pixels(stack, point)
            np.testing.assert_array_equal(got[time, channel], raw - _medians(raw))
            np.testing.assert_array_equal(taken[time, channel], _medians(raw))
        elif time < got.shape[0]:
            assert not got[time, channel].any()
            assert not taken[time, channel].any()
    # Nothing is stored of what was never written.
    for url in (result.image_url, background):
        missing = Path(url) / tile_group_name(stacks[2]) / "0" / "c" / "1"
        assert [path.name for path in sorted(missing.iterdir())] == ["0"]
    absent = result.counts["561 nm/left"].no_data
    assert absent == 6 * 20 * 28


# --- Masks by label images -------------------------------------------------------------------


def _write_cells(container, stack, settings):
    """Objects where the raw pixels are bright."""
    group = container / stack.group_name
    labels = zarr.open_group(str(group / "labels"), mode="a", zarr_format=2)
    labels.attrs["labels"] = ["cells"]
    cells = (stack_pixels(stack, settings) > 400).astype(np.uint16)
    write_image(group / "labels" / "cells", cells, axes="zyx", chunks=(2, 20, 20))


@pytest.mark.slow
def test_label_images_of_the_stacks(brain):
    container, stacks = brain
    for stack in stacks:
        _write_cells(container, stack, SETTINGS)
    mask = {"kind": "label", "label_name": "cells"}
    result = correct_background(str(container), method=MEDIAN, mask=mask)
    for stack in stacks:
        raw = stack_pixels(stack, SETTINGS).astype(np.float64)
        medians = np.nanmedian(np.where(raw > 400, np.nan, raw).reshape(6, -1), axis=1)
        got = _pixels(result.image_url, stack.group_name, "0")
        np.testing.assert_array_equal(got, raw - medians[:, None, None])
        # They go with the result.
        cells = _pixels(result.image_url, stack.group_name, "labels", "cells", "0")
        np.testing.assert_array_equal(cells, raw > 400)
    by_threshold = correct_background(
        str(container),
        method=MEDIAN,
        mask={"kind": "threshold", "threshold": 400},
        output_image_name="other",
    )
    for stack in stacks:
        one, other = (_pixels(r.image_url, stack.group_name, "0") for r in (result, by_threshold))
        np.testing.assert_array_equal(one, other)


def test_stacks_without_the_label_image_are_named(brain, state):
    container, stacks = brain
    for stack in stacks[:-2]:
        _write_cells(container, stack, SETTINGS)
    before = state(container.parent)
    with pytest.raises(errors.ParameterError) as caught:
        correct_background(
            str(container), method=MEDIAN, mask={"kind": "label", "label_name": "cells"}
        )
    text = str(caught.value)
    assert "2 of the 8 images" in text
    assert "no label image 'cells'" in text
    named = {stack.group_name for stack in stacks if stack.group_name in text}
    assert named == {stack.group_name for stack in stacks[-2:]}
    assert state(container.parent) == before


# --- What was done before --------------------------------------------------------------------


@pytest.fixture
def flat_models(tmp_path):
    """A flat model that takes 100 counts of offset away, for every channel and side."""
    for laser in LASERS:
        folder = tmp_path / "models" / laser
        folder.mkdir(parents=True)
        flat = np.ones(SETTINGS.tile_shape, np.float32)
        np.savez(folder / "profiles.npz", flatfield=flat, darkfield=100.0)
    return str(tmp_path / "models")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["stacks", "tile images"])
def test_after_a_flat_field(tmp_path, flat_models, caplog, layout):
    """What held no data before is none now, and any other 0 is a value."""
    caplog.set_level(logging.INFO)
    settings = replace(SETTINGS, offset=100)
    stacks = _table(settings)
    write = write_acquisition if layout == "stacks" else write_tile_images
    container = write(tmp_path, "brain.ome.zarr", stacks, settings)
    holed = stacks[0].group_name if layout == "stacks" else tile_group_name(stacks[0])
    array = zarr.open_array(str(container / holed / "0"), mode="r+")
    plane = (2,) if layout == "stacks" else (0, 0, 2)
    array[plane] = 0
    flat = correct_flatfield(str(container), models_folder=flat_models)
    result = correct_background(flat.image_url, method=MEDIAN)
    assert Path(result.image_url).name == "brain_flatfield_corr_background_corr.ome.zarr"
    assert not _pixels(result.image_url, holed, "0")[plane].any()
    side = "left" if stacks[0].shutter == "Left" else "right"
    assert result.counts[f"488 nm/{side}"].no_data == 20 * 28
    assert sum(found.no_data for found in result.counts.values()) == 20 * 28
    said = [r.getMessage() for r in caplog.records]
    assert f"Channel 488 nm/{side}: planes and margins of 0 are no data, as the" in "\n".join(said)
    assert "561 nm/left: every 0 is a value, as the correction says that made" in "\n".join(said)
    mark = _mark(result.image_url)
    assert [mark["task"], *(step["task"] for step in mark["history"])] == [
        "correct_background",
        "correct_flatfield",
    ]
    text = as_text(describe(result.image_url))
    assert "made by correct_flatfield" in text
    assert "made by correct_background" in text
    (later,) = import_mesospim(result.image_url, str(tmp_path / "later"), **SIGNS)
    assert later.types["flatfield_corrected"] is True
    assert later.types["background_corrected"] is True
    assert not _warnings(caplog)
    correct_background(result.image_url, method=MEDIAN)
    (line,) = _warnings(caplog)
    assert "its local background was corrected before" in line


@pytest.mark.slow
def test_an_import_knows_what_was_corrected(brain, tmp_path):
    container, _ = brain
    result = correct_background(str(container), method=MEDIAN)
    (later,) = import_mesospim(result.image_url, str(tmp_path / "later"))
    assert later.types == {
        "is_3D": True,
        "flatfield_corrected": False,
        "background_corrected": True,
    }


def test_what_info_says_of_the_containers(brain):
    container, _ = brain
    result = correct_background(str(container), method=MEDIAN, save_background=True)
    for url in (result.image_url, result.companions["background"]):
        found = describe(url)
        assert found["kind"] == "mesoSPIM acquisition"
        assert [step["corrects"] for step in found["history"]] == ["background"]
        assert found["mosaics"][0]["dtype"] == "float32"
        said = found["suspicious"][0]
        if url == result.image_url:
            assert "a result of this package already (correct_background" in said
        else:
            assert said.startswith("This container holds no images but the background of some")
    assert _mark(result.companions["background"])["content"] == "background"


# --- Blocks, doors, kills --------------------------------------------------------------------


def test_each_chunk_is_read_once(brain, monkeypatch):
    container, stacks = brain
    read = mosaic.MosaicImage.read
    decoded = Counter()

    def counted(image, level, box):
        units = image.levels[level].chunks
        ranges = (range(s.start // c, ceil(s.stop / c)) for s, c in zip(box, units, strict=True))
        decoded.update((image.url, level, *index) for index in product(*ranges))
        return read(image, level, box)

    monkeypatch.setattr(mosaic.MosaicImage, "read", counted)
    correct_background(
        str(container), method="median:3", mask={"kind": "threshold", "threshold": 500}
    )
    assert set(decoded.values()) == {1}
    assert len(decoded) == len(stacks) * 2 * 2 * 2


@pytest.mark.slow
def test_all_doors_write_the_same_bytes(brain, tmp_path, capsys):
    container, _ = brain
    options = {"method": "median:3", "save_background": True}
    named = [str(tmp_path / name) for name in ("python", "command", "task")]
    correct_background(str(container), output_folder=named[0], n_workers=1, **options)
    arguments = ["--method", "median:3", "--save-background", "--n-workers", "2"]
    assert (
        cli.main(["correct-background", str(container), *arguments, "--output-folder", named[1]])
        == 0
    )
    printed = capsys.readouterr().out.split()
    assert [Path(line).name for line in printed] == [
        "brain_background_corr.ome.zarr",
        "brain_background_corr_background.ome.zarr",
    ]
    updates = task(
        zarr_url=str(container),
        method={"method": "median", "radius": 3},
        save_background=True,
        output_folder=named[2],
    )
    (entry,) = updates["image_list_updates"]
    assert entry["types"] == {"background_corrected": True}
    first, *others = (_files(folder) for folder in named)
    assert len(first) > 100
    for other in others:
        assert other == first


@pytest.mark.slow
def test_processes_write_the_same_bytes(brain, tmp_path):
    container, _ = brain
    options = {"method": "rolling_ball:5", "save_background": True}
    for name, more in (("a", {}), ("b", {"execution": "processes", "n_workers": 2})):
        correct_background(str(container), output_folder=str(tmp_path / name), **options, **more)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["stacks", "tile images"])
def test_what_broke_off_goes_on(tmp_path, monkeypatch, layout):
    write = write_acquisition if layout == "stacks" else write_tile_images
    stacks = _table(SETTINGS)
    container = write(tmp_path / "data", "brain.ome.zarr", stacks, SETTINGS)
    options = {"method": "tile_median:8", "save_background": True, "n_workers": 1}
    whole = correct_background(str(container), output_folder=str(tmp_path / "whole"), **options)
    written = []
    wrote = target.TargetImage.write

    def failing(self, level, box, data):
        if len(written) == 9:
            raise errors.OutputWriteError("the disk is full")
        written.append((self.url, level, str(box)))
        return wrote(self, level, box, data)

    folder = str(tmp_path / "broken")
    with monkeypatch.context() as patched:
        patched.setattr(target.TargetImage, "write", failing)
        with pytest.raises(errors.OutputWriteError, match="full"):
            correct_background(str(container), output_folder=folder, **options)
    journal = Path(folder, ".brain_background_corr.ome.zarr.job", "journal", "blocks.jsonl")
    done = [json.loads(line) for line in journal.read_bytes().splitlines()]
    assert done
    again = []

    def remembering(self, level, box, data):
        again.append((self.url, level, str(box)))
        return wrote(self, level, box, data)

    with monkeypatch.context() as patched:
        patched.setattr(target.TargetImage, "write", remembering)
        result = correct_background(str(container), output_folder=folder, **options)
    # Two images for each block; what is on record is not made again.
    assert not set(written[: 2 * len(done)]) & set(again)
    assert _files(folder) == _files(tmp_path / "whole")
    assert result.counts == whole.counts


@pytest.mark.slow
def test_killed_and_continued(brain, tmp_path, monkeypatch):
    container, _ = brain
    options = {"method": "median:3", "save_background": True}
    correct_background(str(container), output_folder=str(tmp_path / "whole"), **options)
    out = tmp_path / "killed"
    out.mkdir()
    command = ["correct-background", str(container), "--output-folder", str(out)]
    command += ["--method", "median:3", "--save-background"]
    recorded = kill_after(5, command, out / "brain_background_corr.ome.zarr")
    assert len(recorded) >= 4
    made = []
    write = target.TargetImage.write

    def counted(image, level, box, data):
        made.append(f"{image.url.rpartition('/')[2]}/{level}")
        return write(image, level, box, data)

    monkeypatch.setattr(target.TargetImage, "write", counted)
    correct_background(str(container), output_folder=str(out), **options)
    # A stack of one block a level: nothing on record was made again, in either container.
    done = {node.rpartition(":")[0] + "/" + node.rpartition(":")[2][0] for node in recorded}
    assert made
    assert not done & set(made)
    assert _files(out) == _files(tmp_path / "whole")


@pytest.mark.slow
def test_an_object_store_gets_the_same_bytes(brain, tmp_path):
    container, _ = brain
    options = {"method": "median:3", "save_background": True}
    correct_background(str(container), output_folder=str(tmp_path / "local"), **options)
    store, home = fsspec.filesystem("memory"), f"/{tmp_path.name}"
    store.put(f"{container.parent}/", f"{home}/", recursive=True)
    before = {path: store.cat(path) for path in store.find(home)}
    for more in ({}, {"overwrite": True}):
        result = correct_background(f"memory:/{home}/brain.ome.zarr", **options, **more)
        after = {path: store.cat(path) for path in store.find(home)}
        made = {
            path.removeprefix(f"{home}/"): content
            for path, content in after.items()
            if path not in before
        }
        assert {path: after[path] for path in before} == before
        assert made == _files(tmp_path / "local")
        assert describe(result.image_url)["finished"] is True


# --- The preview -----------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """What the figure was given, in place of the figure."""
    seen = {}

    def remember(image, methods, **more):
        seen.update(image=image, methods=methods, **more)
        return b"picture"

    monkeypatch.setattr(preview, "background_preview", remember)
    return seen


@pytest.mark.parametrize("layout", ["stacks", "tile images"])
def test_a_preview_shows_what_the_run_does(tmp_path, drawn, capsys, layout):
    settings = replace(SETTINGS, version="0.4", xml=layout == "stacks")
    stacks = _table(settings)
    write = write_acquisition if layout == "stacks" else write_tile_images
    container = write(tmp_path, "brain.ome.zarr", stacks, settings)
    result = correct_background(str(container), method="median:3", save_background=True)
    (mosaic_of,) = TileCollection.open(container).mosaics()
    picture = str(tmp_path / "p.png")
    command = ["preview", str(container), "--tile", "4", "--method", "median:3"]
    for channel in ("488", "1", "561 nm"):
        assert cli.main([*command, "--channel", channel, "--z", "2", "--output", picture]) == 0
        assert capsys.readouterr().out.split() == [picture]
        index = 0 if channel == "488" else 1
        stack = mosaic_of.stack_of(index, 4)
        place = (*stack.lead, 2)
        # Tile0 of the microscope's table lies at the end, since the stage runs against the image.
        (own,) = (s for s in stacks if s.tile == 0 and s.laser == LASERS[index])
        np.testing.assert_array_equal(drawn["image"], stack_pixels(own, settings)[2])
        background, corrected = drawn["methods"]["median, radius 3 px"]
        taken = _pixels(result.companions["background"], stack.group, "0")[place]
        np.testing.assert_array_equal(background, taken)
        np.testing.assert_array_equal(corrected, _pixels(result.image_url, stack.group, "0")[place])


def test_a_preview_with_a_label_image(brain, tmp_path, drawn):
    container, stacks = brain
    (own,) = (s for s in stacks if s.tile == 0 and s.laser == "488 nm")
    _write_cells(container, own, SETTINGS)
    options = {"methods": ["constant"], "channel": "488 nm", "z": 1, "mask": "cells"}
    write_preview(str(container), str(tmp_path / "p.png"), tile=4, **options)
    raw = stack_pixels(own, SETTINGS)[1].astype(np.float64)
    ((background, _),) = drawn["methods"].values()
    assert background.max() == background.min() == np.median(raw[raw <= 400])
    with pytest.raises(errors.ParameterError, match="no label image 'cells'"):
        write_preview(str(container), str(tmp_path / "p.png"), tile=1, **options)


def test_a_preview_of_a_time_point_that_was_written(tmp_path, drawn):
    points = [replace(SETTINGS, seed=seed) for seed in (1, 2)]
    stacks = _table(SETTINGS)
    unwritten = [(0, 0, LASERS[0])]
    container = write_tile_images(
        tmp_path, "brain.ome.zarr", stacks, SETTINGS, times=points, unwritten=unwritten
    )
    (mosaic_of,) = TileCollection.open(container, signs=SignOptions(-1, -1)).mosaics()
    write_preview(
        str(container), str(tmp_path / "p.png"), methods=["constant"], tile=4, channel="488", z=3
    )
    assert mosaic_of.place_of(4).name == "Tile0"
    (own,) = (s for s in stacks if s.tile == 0 and s.laser == "488 nm")
    np.testing.assert_array_equal(drawn["image"], stack_pixels(own, points[1])[3])


def test_which_mosaic_a_preview_shows(tmp_path, drawn):
    stacks = grid_stacks(1, 2, SETTINGS, shutters=("Left", "Right"))
    stacks += [replace(s, tile=s.tile + 2, rotation=90.0) for s in stacks]
    stacks[-1] = replace(stacks[-1], laser="561 nm")
    settings = replace(SETTINGS, xml=True)
    container = write_acquisition(tmp_path, "brain.ome.zarr", stacks, settings)
    picture = str(tmp_path / "p.png")

    def shown(**wanted):
        write_preview(str(container), picture, methods=["constant"], z=0, **wanted)
        return drawn["image"]

    for suffix, row in (("Rot0_left", 0), ("Rot0_right", 1), ("Rot90_left", 4)):
        expected = stack_pixels(stacks[row], settings)[0]
        # Two tiles in a row: the first of the table is the second in the image.
        np.testing.assert_array_equal(shown(mosaic=suffix, tile=2), expected)
    with pytest.raises(errors.ParameterError) as caught:
        shown(tile=2)
    for suffix in ("Rot0_left", "Rot0_right", "Rot90_left", "Rot90_right"):
        assert f"'{suffix}'" in str(caught.value)
    assert "by mosaic=" in str(caught.value)
    for wanted, error, words in (
        ({"mosaic": "Rot45"}, errors.ParameterError, "no mosaic 'Rot45'"),
        ({"mosaic": "Rot0_left", "channel": "999"}, errors.ParameterError, "no channel '999'"),
        ({"mosaic": "Rot0_left", "tile": 7}, errors.LayoutError, "7"),
        (
            {"mosaic": "Rot90_right", "channel": "561", "tile": 2},
            errors.ParameterError,
            "channel '561 nm' was not taken in tile 2; it was in 1",
        ),
    ):
        with pytest.raises(error, match=words):
            shown(**wanted)
    (first,) = import_mesospim(
        str(container), str(tmp_path / "out"), exclude_groups=[s.group_name for s in stacks[1:]]
    )
    with pytest.raises(errors.ParameterError, match="an image holds one"):
        write_preview(first.image_url, picture, mosaic="Rot0_left")


# --- Refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"overwrite_input": True}, errors.ParameterError, "never replaced"),
        ({"save_noise": True, "method": "median:3"}, errors.ParameterError, "save_noise"),
        ({"method": "median:300"}, errors.BackgroundError, "300"),
        ({"memory_limit": "1MB"}, errors.MemoryLimitError, "at least 0.5GB"),
    ],
)
def test_refusals(brain, state, options, error, text):
    container, _ = brain
    before = state(container.parent)
    with pytest.raises(error, match=text) as caught:
        correct_background(str(container), **{"method": "median:3", **options})
    assert "problems were found" not in str(caught.value)
    assert state(container.parent) == before


@pytest.mark.parametrize("layout", ["stacks", "tile images"])
def test_a_plane_that_cannot_be_corrected_is_named_with_its_stack(tmp_path, layout):
    """A background of 0 cannot be divided by; nothing is left of the job."""
    stacks = _table(SETTINGS)
    write = write_acquisition if layout == "stacks" else write_tile_images
    container = write(tmp_path, "brain.ome.zarr", stacks, SETTINGS)
    name, lead, said = stacks[1].group_name, (), ""
    if layout == "tile images":
        name, lead, said = tile_group_name(stacks[1]), (0, 1), "channel '561', time point 0, "
    array = zarr.open_array(str(container / name / "0"), mode="r+")
    array[(*lead, 3, slice(0, 14))] = 0
    array[(*lead, 3, 0, 0)] = 9
    before = _files(tmp_path)
    with pytest.raises(errors.BackgroundError) as caught:
        correct_background(str(container), method=MEDIAN, mode="divide", zero_is="data")
    assert str(caught.value).startswith(
        f"In stack '{name}', {said}plane z=3: The background is 0 or less"
    )
    assert _files(tmp_path) == before


@pytest.mark.slow
def test_what_is_in_the_way_stays(brain, state):
    container, _ = brain
    options = {"method": MEDIAN, "save_background": True}
    first = correct_background(str(container), **options)
    before = state(container.parent)
    with pytest.raises(errors.OutputExistsError):
        correct_background(str(container), **options)
    assert state(container.parent) == before
    # The container of backgrounds alone is in the way as well.
    Path(first.image_url).rename(container.parent / "elsewhere.ome.zarr")
    with pytest.raises(errors.OutputExistsError, match="_background.ome.zarr"):
        correct_background(str(container), **options)
    second = correct_background(str(container), overwrite=True, weight=0.5, **options)
    assert second.image_url == first.image_url
    group = next(p.name for p in Path(second.image_url).iterdir() if p.is_dir())
    raw = _pixels(container, group, "0")
    np.testing.assert_array_equal(
        _pixels(second.image_url, group, "0"), (raw - 0.5 * _medians(raw)).astype(np.float32)
    )
