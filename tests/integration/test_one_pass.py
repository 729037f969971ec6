"""Flat-field and local background in one pass: the same as both tasks, one after the other.

The image between the two tasks is float32 where the source is: so the two tasks are given a float32
copy of the source.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from itertools import product
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import (
    cli,
    correct_background,
    correct_flatfield,
    errors,
    estimate_flatfield,
    import_mesospim,
)
from fractal_mesospim_shading.engine import plan
from fractal_mesospim_shading.engine.memory_needed import needed_memory
from fractal_mesospim_shading.images import mosaic, target
from fractal_mesospim_shading.jobs import background as background_job
from fractal_mesospim_shading.jobs import background_parts, flatfield
from fractal_mesospim_shading.jobs.work import image_list_update
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.tasks.correct_flatfield import correct_flatfield as task
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings
from tests.support.sources import decoded_chunks
from tests.support.tile_images import write_tile_images

LABELS = ("488 nm", "561 nm")
SHAPE = (2, 4, 96, 80)
OFFSET = {"camera_offset": 100}
MARK = "mesospim_shading"


def scene(shape=SHAPE, seed=0):
    """A slope with noise and bright squares; some tiles have margins, one plane of one is 0."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape[-2:])
    image = 400 + 2 * x + y + rng.normal(0, 9, shape)
    for top, left in rng.integers(0, 60, (6, 2)):
        image[..., top : top + 6, left : left + 6] += 900
    image[..., :5] = 0
    image[..., 20:30, 50:60] = 0
    image.reshape(-1, *shape[-2:])[-1, 48:, :40] = 0
    return np.rint(image).astype("uint16")


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of one chunk each, which cut tiles."""
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    monkeypatch.setattr(background_parts, "_MOST_BLOCK_BYTES", 1)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)


@pytest.fixture
def run_both(make_mosaic, make_models):
    """`run_both(array, options, **style)`: the result of one pass, and that of two tasks."""
    models = {"models_folder": str(make_models())}

    def run(array, background, *, style=None, image=None, **options):
        style, shared = style or {}, {**models, **OFFSET, "report": False, **options}
        source = make_mosaic("one.zarr", array=array, **style)
        copy = make_mosaic("two.zarr", array=array.astype("float32"), **style)
        one = correct_flatfield(source, background=background, **shared)
        between = correct_flatfield(copy, **shared)
        alone = {"method": background} if isinstance(background, str) else dict(background)
        same = ("zero_is", "outside_tiles", "ngff_version")
        alone |= {name: options[name] for name in same if name in options}
        return one, between, correct_background(between.image_url, **alone)

    return run


def _arrays(url):
    group = zarr.open_group(str(url), mode="r")
    return {path: np.asarray(array[...]) for path, array in group.arrays()}


def _same_pixels(one, other):
    found, expected = _arrays(one), _arrays(other)
    assert found.keys() == expected.keys() and found
    for path, array in expected.items():
        assert found[path].dtype == array.dtype
        np.testing.assert_array_equal(found[path], array)


def _attributes(url):
    return zarr.open_group(str(url), mode="r").attrs.asdict()


METHODS = {
    "halo": {"method": {"method": "median", "radius": 5, "exact": True}},
    "surface": {"method": {"method": "tile_median", "tile_size": 16}, "save_background": True},
    "noise": {"method": "gaussian:5"},
    "deep": {"method": {"method": "gaussian", "radius": 3, "radius_z_planes": 1}},
    "threshold": {
        "method": "tile_median:16",
        "mask": {"kind": "threshold", "threshold": 900, "dilation": 2},
    },
    "divided": {"method": "opening:6", "mode": "divide", "weight": 0.5, "add_noise_bias": True},
}


CASES = [(name, {}) for name in METHODS]
CASES += [("halo", {"ngff_version": "0.5"})]
CASES += [("surface", {"ngff_version": "0.5", "shards": (2, 48, 64)})]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "style"), CASES)
def test_equal_to_both_tasks(name, style, run_both, small_blocks):
    one, first, second = run_both(scene(), METHODS[name], style=style)
    _same_pixels(one.image_url, second.image_url)
    # Windows and provenance as well, of the channels and of both steps.
    assert _attributes(one.image_url) == _attributes(second.image_url)
    assert one.background_counts == second.counts
    assert one.counts == first.counts
    assert one.noise_factors == second.noise_factors
    for kind, url in second.companions.items():
        _same_pixels(one.companions[kind], url)
        assert _attributes(one.companions[kind]) == _attributes(url)


def test_names_and_types(run_both):
    one, _, second = run_both(scene(), "median:5")
    assert Path(one.image_url).name == "one_flatfield_corr_background_corr.zarr"
    assert Path(second.image_url).name == "two_flatfield_corr_background_corr.zarr"
    assert image_list_update(one) == {
        "zarr_url": one.image_url,
        "origin": one.source_url,
        "types": {"flatfield_corrected": True, "background_corrected": True},
    }
    _same_pixels(one.image_url, second.image_url)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "shape"),
    [("zyx", (3, 96, 80)), ("cyx", (2, 96, 80)), ("tczyx", (2, 2, 3, 96, 80)), ("yx", (96, 80))],
)
def test_axes_in_front_of_the_plane(axes, shape, make_mosaic, make_models, small_blocks):
    style = {"axes": axes, "chunks": (2, 16, 32), "ngff_version": "0.5"}
    labels = LABELS if "c" in axes else ("channel_0",)
    models = {"models_folder": str(make_models(labels=labels)), "report": False, **OFFSET}
    array = scene(shape)
    names = {"channels": LABELS if "c" in axes else None, "shape": shape, **style}
    source = make_mosaic("one.zarr", array=array, **names)
    copy = make_mosaic("two.zarr", array=array.astype("float32"), **names)
    one = correct_flatfield(source, background="median:5", **models)
    between = correct_flatfield(copy, **models)
    second = correct_background(between.image_url, method="median:5")
    _same_pixels(one.image_url, second.image_url)
    assert one.background_counts == second.counts


@pytest.mark.slow
@pytest.mark.parametrize("zero_is", ["auto", "data", "no_data"])
@pytest.mark.parametrize("offset", [0, 100])
def test_zeros_are_what_they_are_to_both_tasks(offset, zero_is, run_both, small_blocks, tmp_path):
    """Also values of 0 along the edges, with and without a plane that holds no data."""
    for seed, empty in ((1, False), (2, True)):
        array = scene(seed=seed)
        sparse = np.random.default_rng(seed).random(SHAPE) < 0.3
        array[1] = np.where(sparse[1], array[1], 0)
        array[1, :, :4] = array[1, :, -3:] = 0
        if empty:
            array[1, 2, :48, :40] = 0
        options = {"camera_offset": offset, "zero_is": zero_is}
        style = {"folder": tmp_path / str(seed)}
        one, first, second = run_both(array, {"method": "tile_median:16"}, style=style, **options)
        _same_pixels(one.image_url, second.image_url)
        assert one.counts == first.counts
        assert one.background_counts == second.counts


@pytest.mark.slow
@pytest.mark.parametrize("outside", ["keep", "zero"])
def test_pixels_of_no_tile(outside, run_both, small_blocks):
    style = {"missing": (2,)}
    one, first, second = run_both(scene(), "median:5", style=style, outside_tiles=outside)
    _same_pixels(one.image_url, second.image_url)
    assert one.counts == first.counts
    gone = _arrays(one.image_url)["0"][..., 48:, :40]
    assert gone.any() == (outside == "keep")


@pytest.mark.slow
def test_planes_across_tiles_and_offsets(run_both, small_blocks):
    """The offset of the flat-field lies between the steps, that of the background behind them."""
    background = {
        "method": "gaussian:9",
        "tiles": "plane",
        "output_offset": 50,
        "mode": "divide",
        "reference": 300,
    }
    one, _, second = run_both(scene(), background, output_offset=30)
    _same_pixels(one.image_url, second.image_url)
    assert _attributes(one.image_url) == _attributes(second.image_url)


@pytest.mark.slow
def test_whole_counts_are_rounded_once(run_both):
    """The float32 result, rounded and cut; between two tasks whole counts are rounded as well."""
    background = {"method": "median:5", "output_offset": 40}
    one, _, second = run_both(scene(), background)
    exact = _arrays(second.image_url)["0"]
    options = {"background": {**background, "output_type": "source"}, "report": False}
    models = str(Path(one.source_url).parent / "models")
    whole = correct_flatfield(
        one.source_url, models_folder=models, output_image_name="whole", **OFFSET, **options
    )
    found = _arrays(whole.image_url)["0"]
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.clip(np.rint(exact), 0, 65535))
    low = {label: int((plane < -0.5).sum()) for label, plane in zip(LABELS, exact, strict=True)}
    assert {k: c.clipped_low for k, c in whole.background_counts.items()} == low
    assert all(low.values())
    rounded = correct_flatfield(one.source_url, models_folder=models, report=False, **OFFSET)
    background |= {"output_type": "source", "output_image_name": "twice"}
    twice = correct_background(rounded.image_url, **background)
    different = _arrays(twice.image_url)["0"].astype(int) - found
    assert 0 < np.abs(different).max() <= 2


@pytest.mark.slow
def test_label_masks(make_mosaic, make_models, small_blocks):
    models = {"models_folder": str(make_models()), "report": False, **OFFSET}
    cells = np.zeros((4, 96, 80), "uint16")
    cells[1:3, 10:40, 12:50] = 4
    results = []
    for name, dtype in (("one.zarr", "uint16"), ("two.zarr", "float32")):
        source = make_mosaic(name, array=scene().astype(dtype))
        labels = zarr.open_group(str(source / "labels"), mode="a", zarr_format=2)
        labels.attrs["labels"] = ["cells"]
        write_image(source / "labels" / "cells", cells, axes="zyx", chunks=(2, 20, 20))
        results.append(source)
    background = {"method": "gaussian:5", "mask": {"kind": "label", "label_name": "cells"}}
    one = correct_flatfield(results[0], background=background, **models)
    between = correct_flatfield(results[1], **models)
    second = correct_background(between.image_url, **background)
    _same_pixels(one.image_url, second.image_url)


# --- Acquisitions ----------------------------------------------------------------------------

SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16), levels=2)
LASERS = ("561 nm", "488 nm")
SIGNS = {"sign_x": -1, "sign_y": -1}
FORMS = [("0.4", None), ("0.5", None), ("0.5", (4, 32, 32))]


@pytest.fixture
def side_models(tmp_path):
    """A folder with a model of each channel and side."""
    y, x = np.linspace(-1, 1, 20)[:, None], np.linspace(-1, 1, 28)[None, :]
    for seed, (laser, side) in enumerate(product(LASERS, ("left", "right"))):
        folder = tmp_path / "models" / laser / side
        folder.mkdir(parents=True)
        flat = np.exp(-0.3 * (y**2 + (x - 0.3 * seed) ** 2))
        np.savez(folder / "profiles.npz", flatfield=flat / flat.mean(), darkfield=100.0)
    return str(tmp_path / "models")


def _acquisition(folder, layout, version, shards):
    """Tiles of both channels, the first column lit from the left, the second from the right."""
    settings = replace(SETTINGS, version=version, shards=shards)
    stacks = [
        replace(s, shutter="Left" if s.tile < 2 else "Right")
        for s in grid_stacks(2, 2, settings, lasers=LASERS, overlap_px=6)
    ]
    write = write_acquisition if layout == "stacks" else write_tile_images
    return write(folder, "brain.ome.zarr", stacks, settings)


def _in_floats(container):
    """Make all arrays of a container float32."""
    names = (".zarray", "zarr.json")
    for path in [p for name in names for p in Path(container).rglob(name)]:
        document = json.loads(path.read_text())
        if document.get("node_type") == "group":
            continue
        old = zarr.open_array(str(path.parent), mode="r")
        pixels, attributes = np.asarray(old[...]).astype("float32"), old.attrs.asdict()
        more = (
            {}
            if old.metadata.zarr_format == 2
            else {"dimension_names": old.metadata.dimension_names}
        )
        if old.metadata.zarr_format == 2:
            more["chunk_key_encoding"] = {
                "name": "v2",
                "separator": document.get("dimension_separator", "."),
            }
        made = zarr.create_array(
            str(path.parent),
            shape=old.shape,
            dtype="float32",
            chunks=old.chunks,
            shards=old.shards,
            fill_value=0,
            zarr_format=old.metadata.zarr_format,
            attributes=attributes,
            overwrite=True,
            **more,
        )
        made[...] = pixels


@pytest.fixture
def acquired(tmp_path):
    """`acquired(layout, version, shards)`: an acquisition, and a copy of it in float32."""

    def make(layout="stacks", version="0.4", shards=None):
        one = _acquisition(tmp_path / "one", layout, version, shards)
        two = _acquisition(tmp_path / "two", layout, version, shards)
        _in_floats(two)
        return str(one), str(two)

    return make


def _images(container):
    return sorted(p.name for p in Path(container).iterdir() if p.is_dir() and p.name != "OME")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["stacks", "tile images"])
@pytest.mark.parametrize(("version", "shards"), FORMS)
def test_containers(layout, version, shards, acquired, side_models):
    one, two = acquired(layout, version, shards)
    background = {"method": "gaussian:3", "save_background": True}
    made = correct_flatfield(one, models_folder=side_models, background=background)
    between = correct_flatfield(two, models_folder=side_models)
    second = correct_background(between.image_url, **background)
    assert Path(made.image_url).name == "brain_flatfield_corr_background_corr.ome.zarr"
    pairs = [(made.image_url, second.image_url)]
    pairs += [(made.companions["background"], second.companions["background"])]
    for (found, expected), name in product(pairs, _images(one)):
        _same_pixels(f"{found}/{name}", f"{expected}/{name}")
        assert _attributes(f"{found}/{name}") == _attributes(f"{expected}/{name}")
    assert _attributes(made.image_url) == _attributes(second.image_url)
    assert made.background_counts == second.counts
    assert made.counts == between.counts
    assert made.noise_factors == second.noise_factors
    assert made.types == {"flatfield_corrected": True, "background_corrected": True}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["stacks", "tile images"])
@pytest.mark.parametrize(("version", "shards"), FORMS)
def test_imports(layout, version, shards, acquired, side_models, tmp_path):
    one, two = acquired(layout, version, shards)
    options = {"models_folder": side_models, "correct_flatfield": True, **SIGNS}
    (made,) = import_mesospim(one, str(tmp_path), background="tile_median:8", **options)
    (between,) = import_mesospim(two, str(tmp_path / "float"), **options)
    second = correct_background(between.image_url, method="tile_median:8")
    assert Path(made.image_url).name == "raw_image_flatfield_corr_background_corr"
    _same_pixels(made.image_url, second.image_url)
    found, expected = _attributes(made.image_url), _attributes(second.image_url)
    marks = [content.pop(MARK) for content in (found, expected)]
    assert found == expected
    assert marks[0].pop("request") == marks[0]["history"][0].pop("request")
    marks[1]["history"][0].pop("request")
    assert marks[0] == marks[1]
    assert made.background_counts == second.counts
    assert made.types == {"is_3D": True, "flatfield_corrected": True, "background_corrected": True}


def test_an_import_that_is_finished_stays(acquired, side_models, tmp_path, caplog):
    container, _ = acquired()
    options = {"models_folder": side_models, "correct_flatfield": True, **SIGNS}
    options["background"] = "median:3"
    import_mesospim(container, str(tmp_path), **options)
    with pytest.raises(errors.OutputExistsError, match="already something at"):
        import_mesospim(container, str(tmp_path), **options)
    with pytest.raises(errors.ParameterError, match="correct_flatfield"):
        import_mesospim(container, str(tmp_path), background="median:3", **SIGNS)
    for wrong in ({"save_background": True}, {"mask": {"kind": "label", "label_name": "cells"}}):
        with pytest.raises(errors.ParameterError, match="import first"):
            import_mesospim(container, str(tmp_path / "b"), **{**options, "background": wrong})


# --- The run -----------------------------------------------------------------------------------


def _decoded(monkeypatch, kind, url=None):
    """Counts how often each chunk of an image is decoded."""
    read, counted = kind.read, Counter()

    def counting(image, level, box):
        if url is None or image.url == str(url):
            units = image.read_units(level)
            ranges = (
                range(s.start // c, ceil(s.stop / c)) for s, c in zip(box, units, strict=True)
            )
            counted.update((image.url, level, *index) for index in product(*ranges))
        return read(image, level, box)

    monkeypatch.setattr(kind, "read", counting)
    return counted


def test_each_chunk_of_a_mosaic_is_read_once(make_mosaic, make_models, monkeypatch):
    source = make_mosaic(array=scene(), chunks=(2, 48, 40))
    models = str(make_models())
    counted = _decoded(monkeypatch, mosaic.MosaicImage, source)
    masked = {"method": "gaussian:9", "mask": "threshold:900"}
    for number, background in enumerate(("tile_median:16", "median:9", masked)):
        counted.clear()
        correct_flatfield(
            source,
            models_folder=models,
            background=background,
            report=False,
            output_image_name=f"r{number}",
            **OFFSET,
        )
        found = {key: times for key, times in counted.items() if key[1] == 0}
        assert set(found.values()) == {1}
        assert len(found) == 2 * 2 * 2 * 2


@pytest.mark.slow
def test_each_chunk_of_an_acquisition_is_read_once(acquired, side_models, tmp_path, monkeypatch):
    container, _ = acquired()
    stacks = _decoded(monkeypatch, mosaic.MosaicImage)
    correct_flatfield(container, models_folder=side_models, background="median:3")
    assert set(stacks.values()) == {1} and len(stacks) == 8 * 2 * 2 * 2
    options = {"models_folder": side_models, "correct_flatfield": True, **SIGNS}
    with decoded_chunks() as whole:
        import_mesospim(container, str(tmp_path), background="median:3", **options)
    assert set(whole.values()) == {1} and len(whole) == len(stacks)


@pytest.mark.slow
def test_all_doors_write_the_same_bytes(make_mosaic, make_models, tree, tmp_path):
    source, models = str(make_mosaic(array=scene())), str(make_models())
    background = {
        "method": {"method": "median", "radius": 9},
        "mask": {"kind": "threshold", "threshold": 900},
        "save_background": True,
    }
    options = {"models_folder": models, "camera_offset": 100, "report": False}
    folders = [str(tmp_path / name) for name in ("python", "command", "task")]
    correct_flatfield(
        source, background=background, output_folder=folders[0], n_workers=1, **options
    )
    command = ["correct-flatfield", source, "--models-folder", models, "--camera-offset", "100"]
    command += ["--no-report", "--output-folder", folders[1], "--n-workers", "2", "--background"]
    short = {"method": "median:9", "mask": "threshold:900", "save_background": True}
    assert cli.main([*command, json.dumps(short)]) == 0
    update = task(
        zarr_url=source, output_folder=folders[2], n_workers=3, background=background, **options
    )
    types = {"flatfield_corrected": True, "background_corrected": True}
    assert update["image_list_updates"][0]["types"] == types
    trees = [tree(Path(folder)) for folder in folders]
    assert trees[0] == trees[1] == trees[2]
    assert any("_background.zarr" in name for name in trees[0])


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [12, 60])
def test_a_run_that_was_stopped_goes_on_to_equal_bytes(
    blocks, make_mosaic, make_models, tree, tmp_path, monkeypatch, small_blocks
):
    source, models = make_mosaic(array=scene()), str(make_models())
    options = {"models_folder": models, "report": False, "n_workers": 1, **OFFSET}
    options["background"] = {"method": "median:9", "save_background": True}
    whole = correct_flatfield(source, output_folder=str(tmp_path / "whole"), **options)
    write, seen = target.TargetImage.write, []

    def failing(image, level, box, data):
        seen.append(box)
        if len(seen) > blocks:
            raise errors.OutputWriteError("No space left on device")
        return write(image, level, box, data)

    with monkeypatch.context() as patch:
        patch.setattr(target.TargetImage, "write", failing)
        with pytest.raises(errors.OutputWriteError):
            correct_flatfield(source, **options)
    with pytest.raises(errors.JobMismatchError, match="background"):
        correct_flatfield(
            source,
            **{**options, "background": "median:8"},
            output_image_name=("{image_name}_flatfield_corr_background_corr"),
        )
    result = correct_flatfield(source, **options)
    assert tree(Path(result.image_url)) == tree(Path(whole.image_url))
    other = result.companions["background"]
    assert tree(Path(other)) == tree(Path(whole.companions["background"]))
    assert result.counts == whole.counts
    assert result.background_counts == whole.background_counts


@pytest.mark.slow
def test_the_report_and_the_log_tell_of_both(run_both, caplog):
    with caplog.at_level(logging.INFO):
        one, _, _ = run_both(scene(), "median:5", report=True)
    page = Path(one.report).read_text()
    # A row each in the table of what was done, with a cell for each channel.
    assert page.count("Local background") == page.count("Pixels cut off after it") == 1
    assert page.count("median, radius 5 px; taken away in the same pass") == len(LABELS)
    assert "Pixels never acquired" in page
    assert one.facts()["background_pixels"].keys() == set(LABELS)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_second_correction_of_either_kind_is_warned_of(run_both, caplog):
    one, _, _ = run_both(scene(), "median:5")
    models = str(Path(one.source_url).parent / "models")
    for again, said in (
        (lambda: correct_background(one.image_url, method="median:5"), "local background"),
        (
            lambda: correct_flatfield(one.image_url, models_folder=models, report=False, **OFFSET),
            "flat-field",
        ),
    ):
        caplog.clear()
        again()
        lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert any(f"its {said} was corrected before" in line for line in lines)


def test_what_can_do_nothing_is_refused(make_mosaic, make_models, tmp_path):
    source, models = make_mosaic(array=scene()), str(make_models())
    with pytest.raises(
        errors.ParameterError, match="In `?background`?: `?reference`? can do nothing"
    ):
        correct_flatfield(source, models_folder=models, background={"reference": 5})
    with pytest.raises(errors.ParameterError, match="background"):
        estimate_flatfield(source, str(tmp_path / "m"), camera_offset=100, background="median:5")
    with pytest.raises(errors.ParameterError, match="save_noise.*tile_median"):
        wrong = {"method": "median:5", "save_noise": True}
        correct_flatfield(source, models_folder=models, background=wrong)
    with pytest.raises(errors.BackgroundError, match="48 x 40"):
        correct_flatfield(source, models_folder=models, background="median:100")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["brain.zarr", "models"]


def test_the_memory_that_is_foreseen_holds_both(make_mosaic, make_models):
    """The same blocks as the background alone, whose result takes the place of the corrected
    pixels, and room for the gain and shift of each pixel of a plane.
    """
    source = make_mosaic(array=scene())
    image = mosaic.MosaicImage.open(str(source))
    options = {"models_folder": str(make_models()), "camera_offset": 100, "report": False}
    both = flatfield.prepare_flatfield(image, FlatfieldOptions(background="median:5", **options))
    alone = background_job.prepare_background(image, BackgroundOptions(method="median:5"))
    plans = [work.parts[0].plan for work in (both, alone)]
    assert plans[0].grid.boxes == plans[1].grid.boxes
    shape = [min(b, n) for b, n in zip(plans[0].grid.boxes[0], SHAPE, strict=True)]
    plane = int(np.prod(shape[-2:]))
    assert needed_memory(plans[0], 1) >= needed_memory(plans[1], 1) + 8 * plane
