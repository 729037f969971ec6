"""Native acquisitions in, Fractal mosaics out, against the truth and the forward formula."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from itertools import product
from math import ceil
from pathlib import Path

import anndata
import fsspec
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield, errors, import_mesospim
from fractal_mesospim_shading.engine import plan
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native import stack as native_stack
from tests.support.acquisition import (
    grid_stacks,
    stack_pixels,
    write_acquisition,
)
from tests.support.acquisition_table import SyntheticSettings

LABELS = ("488 nm", "561 nm")
SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))
SIGNS = {"sign_x": -1, "sign_y": -1}

pytestmark = pytest.mark.usefixtures("two_threads")


def _levels(url):
    group = zarr.open_group(str(url), mode="r")
    content = dict(group.attrs)
    content = content.get("ome", content)
    return [np.asarray(group[d["path"]]) for d in content["multiscales"][0]["datasets"]]


def _attributes(url):
    return dict(zarr.open_group(str(url), mode="r").attrs)


def _flat(tile_shape, seed):
    """Falls off towards the edges, another one for each seed; mean 1."""
    y = np.linspace(-1, 1, tile_shape[0])[:, None]
    x = np.linspace(-1, 1, tile_shape[1])[None, :]
    flat = np.exp(-0.3 * (y**2 + (x - 0.3 * seed) ** 2)) * (1 + 0.1 * seed * x)
    return (flat / flat.mean()).astype(np.float32)


def _model(folder: Path, label: str, flat, dark=100.0) -> None:
    (folder / label).mkdir(parents=True)
    np.savez(folder / label / "profiles.npz", flatfield=flat, darkfield=dark)


def _within_one(got, raw, flats, offset=100.0):
    """Each pixel within one count of the float64 formula; raw 0 stays 0."""
    exact = np.clip(np.rint((raw.astype(float) - offset) / flats), 0, 65535)
    exact[raw == 0] = 0
    assert np.abs(got.astype(float) - exact).max() <= 1


def _expected(stacks, settings, shape, numbers, first_planes=None, lasers=LABELS):
    """A mosaic put together from the table's rows: `numbers` is stack's tile -> (row, column)."""
    result = np.zeros(shape, np.uint16)
    height, width = settings.tile_shape
    for stack in stacks:
        pixels = stack_pixels(stack, settings)
        if stack.z_end_um < stack.z_start_um:
            pixels = pixels[::-1]
        row, column = numbers[stack.tile]
        start = (first_planes or {}).get((stack.tile, stack.laser), 0)
        result[
            lasers.index(stack.laser),
            start : start + len(pixels),
            row * height : (row + 1) * height,
            column * width : (column + 1) * width,
        ] = pixels
    return result


# --- The samples that the microscope's own software wrote ------------------------------------


def test_sample_as_it_is(native, tmp_path):
    (result,) = import_mesospim(str(native.container), str(tmp_path))
    levels = _levels(result.image_url)
    np.testing.assert_array_equal(levels[0], native.mosaic())
    for above, level in zip(levels[:-1], levels[1:], strict=True):
        y, x = (np.arange(0, n, 2) for n in above.shape[2:])
        total = np.add.reduceat(np.add.reduceat(above.astype(float), y, 2), x, 3)
        number = np.add.reduceat(np.add.reduceat(np.ones(above.shape), y, 2), x, 3)
        assert np.abs(level - total / number).max() <= 0.5
    name = native.container.name.removesuffix(".ome.zarr")
    assert result.image_url == str(tmp_path / f"{name}.zarr" / "raw_image")
    assert result.attributes == {"sample": name, "rotation": "0", "side": "left"}
    assert result.types == {"is_3D": True, "flatfield_corrected": False}


@pytest.mark.slow
def test_positions_of_a_sample_are_exact(native, tmp_path):
    (result,) = import_mesospim(str(native.container), str(tmp_path))
    table = anndata.read_zarr(f"{result.image_url}/tables/FOV_ROI_table").to_df()
    pixel = native.truth["pixel_um"]
    height, width = native.truth["tile_shape_yx"]
    true = {(s["x0_px"], s["y0_px"]) for s in native.truth["acquisitions"]}
    assert len(table) == len(true) == 9
    xs, ys = sorted({x for x, _ in true}), sorted({y for _, y in true})
    for number, (_, row) in enumerate(table.iterrows()):
        column, line = divmod(number, 3)
        # Edge to edge in inverted N, and where the tile really was.
        assert row["x_micrometer"] == pytest.approx(column * width * pixel)
        assert row["y_micrometer"] == pytest.approx(line * height * pixel)
        assert row["x_micrometer_original"] / pixel == pytest.approx(xs[column], abs=1e-6)
        assert row["y_micrometer_original"] / pixel == pytest.approx(ys[line], abs=1e-6)
    well = anndata.read_zarr(f"{result.image_url}/tables/well_ROI_table").to_df()
    assert well["len_x_micrometer"].tolist() == pytest.approx([3 * width * pixel])


@pytest.mark.slow
def test_metadata_of_a_sample(native, tmp_path):
    (result,) = import_mesospim(str(native.container), str(tmp_path))
    image = MosaicImage.open(result.image_url)
    assert image.layout.map_text() == "1  4  7\n2  5  8\n3  6  9"
    assert image.metadata.version == ("0.4" if native.truth["variant"] == "v04" else "0.5")
    assert (image.levels[0].shards is not None) == (native.truth["variant"] == "v05")
    pixel = native.truth["pixel_um"]
    assert image.voxel_size_um == {"z": native.truth["z_step_um"], "y": pixel, "x": pixel}
    attributes = _attributes(result.image_url)
    content = attributes.get("ome", attributes)
    channels = content["omero"]["channels"]
    assert [(c["label"], c["wavelength_id"], c["color"]) for c in channels] == [
        ("488 nm", "488", "00FF00"),
        ("561 nm", "561", "FF8000"),
    ]
    mark = attributes["mesospim_shading"]
    assert mark["complete"] is True
    facts = mark["acquisition"]
    assert facts["container"] == native.container.name.removesuffix(".ome.zarr")
    assert (facts["orientation"]["sign_x"], facts["orientation"]["sign_y"]) == (-1, -1)
    source = {"v04": "xml", "v05": "measured"}[native.truth["variant"]]
    assert facts["orientation"]["source_x"] == facts["orientation"]["source_y"] == source
    assert {s["group"] for s in facts["stacks"]} == set(native.places())
    assert facts["metadata"]["common"]["CFG"]["Pixelsize in um"] == f"{pixel}"


@pytest.mark.slow
def test_sample_is_corrected_on_the_way(native, tmp_path):
    (result,) = import_mesospim(
        str(native.container),
        str(tmp_path),
        correct_flatfield=True,
        camera_offset=100,
        z_levels=native.z_levels,
    )
    assert result.image_url.endswith("raw_image_flatfield_corr")
    assert result.types["flatfield_corrected"] is True
    flats = np.zeros((2, 1, *_levels(result.image_url)[0].shape[2:]))
    for channel, label in enumerate(LABELS):
        profile = result.models[label].profile.flatfield.astype(float)
        true = native.flats[label] / native.flats[label].mean()
        # Measured: 0.11 to 0.19 %, from 8 planes of 256 x 320 or 16 of 128 x 160 pixels.
        assert np.sqrt(np.mean((profile / true - 1) ** 2)) < 0.0035
        flats[channel] = np.tile(profile, (3, 3))
    _within_one(_levels(result.image_url)[0], native.mosaic(), flats)


@pytest.mark.slow
def test_sample_with_an_estimated_offset(native, tmp_path):
    (result,) = import_mesospim(
        str(native.container), str(tmp_path), correct_flatfield=True, z_levels=native.z_levels
    )
    for label in LABELS:
        model = result.models[label]
        assert model.offset == pytest.approx(100, abs=2)
        true = native.flats[label] / native.flats[label].mean()
        # Measured 1.8 % at most: an offset wrong by 1.3 counts of 22 above it bends the profile.
        assert np.sqrt(np.mean((model.profile.flatfield / true - 1) ** 2)) < 0.02


@pytest.mark.slow
def test_import_then_correct_is_the_same_as_both_at_once(native, tmp_path):
    options = {"camera_offset": 100, "z_levels": native.z_levels}
    (raw,) = import_mesospim(str(native.container), str(tmp_path))
    (once,) = import_mesospim(
        str(native.container), str(tmp_path), correct_flatfield=True, **options
    )
    later = correct_flatfield(raw.image_url, output_image_name="later", report=False, **options)
    for label in LABELS:
        np.testing.assert_allclose(
            once.models[label].profile.flatfield,
            later.models[label].profile.flatfield,
            rtol=1e-5,
        )
    got, other = _levels(once.image_url)[0], _levels(later.image_url)[0]
    assert np.abs(got.astype(int) - other).max() <= 1


# --- Sides, angles, time ---------------------------------------------------------------------


@pytest.mark.slow
def test_tiles_lit_from_one_side_each_make_one_image_with_two_profiles(tmp_path):
    flats = {
        (f"{n} nm", side): _flat((20, 28), seed)
        for seed, (n, side) in enumerate(product((488, 561), ("Left", "Right")))
    }
    settings = replace(SETTINGS, flatfields=flats)
    stacks = [
        replace(s, shutter="Left" if s.tile < 2 else "Right")
        for s in grid_stacks(2, 2, settings, lasers=LABELS, overlap_px=6)
    ]
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks, settings)
    for (label, side), flat in flats.items():
        _model(tmp_path / "models" / label, side.lower(), flat)
    (result,) = import_mesospim(
        path,
        str(tmp_path / "out"),
        correct_flatfield=True,
        models_folder=str(tmp_path / "models"),
        save_models=True,
        **SIGNS,
    )
    assert set(result.models) == {
        f"{n} nm/{side}" for n in (488, 561) for side in ("left", "right")
    }
    assert "side" not in result.attributes
    # Tile 0 lies bottom right, as both stage axes run against the image.
    numbers = {0: (1, 1), 1: (0, 1), 2: (1, 0), 3: (0, 0)}
    raw = _expected(stacks, settings, (2, 6, 40, 56), numbers)
    field = np.zeros((2, 1, 40, 56))
    for stack in stacks:
        row, column = numbers[stack.tile]
        field[LABELS.index(stack.laser), 0, row * 20 : row * 20 + 20, column * 28 :][:, :28] = (
            flats[stack.laser, stack.shutter]
        )
    got = _levels(result.image_url)[0]
    _within_one(got, raw, field)
    # And the sample comes out as it is, to the half count that the camera rounded.
    plain = _expected(stacks, replace(settings, flatfields={}), (2, 6, 40, 56), numbers)
    assert np.abs(got - (plain.astype(float) - 100)).max() <= 0.5 / field.min() + 0.5

    (again,) = import_mesospim(
        path,
        str(tmp_path / "again"),
        correct_flatfield=True,
        models_folder=result.models_folder,
        **SIGNS,
    )
    np.testing.assert_array_equal(_levels(again.image_url)[0], got)


def test_tiles_lit_from_both_sides_make_an_image_of_each(tmp_path):
    stacks = grid_stacks(2, 1, SETTINGS, shutters=("Left", "Right"))
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks, SETTINGS)
    results = import_mesospim(str(path), str(tmp_path / "out"), **SIGNS)
    assert [r.attributes["side"] for r in results] == ["left", "right"]
    assert len({r.image_url for r in results}) == 2
    for result, shutter in zip(results, ("Left", "Right"), strict=True):
        own = [s for s in stacks if s.shutter == shutter]
        expected = _expected(own, SETTINGS, (1, 6, 40, 28), {0: (1, 0), 1: (0, 0)})
        np.testing.assert_array_equal(_levels(result.image_url)[0], expected)


@pytest.mark.slow
def test_angles_and_times_are_images_of_their_own(tmp_path):
    first = grid_stacks(1, 2, SETTINGS)
    stacks = first + [replace(s, tile=s.tile + 2, rotation=90.0) for s in first]
    paths = []
    for time in (0, 12):
        settings = replace(SETTINGS, seed=time)
        name = f"brain_Ch488.ome_Time{time:03d}.zarr"
        paths.append(str(write_acquisition(tmp_path, name, stacks, settings)))
    results = import_mesospim(paths, str(tmp_path / "out"), **SIGNS)
    found = [(r.attributes["time"], r.attributes["rotation"]) for r in results]
    assert found == [(0, "0"), (0, "90"), (12, "0"), (12, "90")]
    folder = tmp_path / "out" / "brain_Ch488.zarr"
    assert {Path(r.image_url).parent for r in results} == {folder}
    for result in results:
        settings = replace(SETTINGS, seed=result.attributes["time"])
        expected = _expected(first, settings, (1, 6, 20, 56), {0: (0, 1), 1: (0, 0)})
        np.testing.assert_array_equal(_levels(result.image_url)[0], expected)


# --- What can be wrong with stacks -----------------------------------------------------------


def test_missing_tile_short_stack_downward_scan_and_holes(tmp_path):
    """Everything at once, and the estimate's corner planes are only those that exist."""
    stacks = [s for s in grid_stacks(2, 2, SETTINGS, lasers=LABELS) if s.tile != 3]
    # Tile 0: stopped in one channel. Tile 1: scanned downward. Tile 2: begins two planes above.
    stacks = [
        replace(s, planes=3)
        if (s.tile, s.laser) == (0, "488 nm")
        else replace(s, z_start_um=25.0, z_end_um=0.0)
        if s.tile == 1
        else replace(s, z_start_um=10.0, z_end_um=35.0)
        if s.tile == 2
        else s
        for s in stacks
    ]
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks, SETTINGS)
    array = zarr.open_array(str(path / stacks[1].group_name / "0"), mode="r+")
    array[0:4, 0:16, 0:16] = 0
    (result,) = import_mesospim(str(path), str(tmp_path / "out"), **SIGNS)
    numbers = {0: (1, 1), 1: (0, 1), 2: (1, 0)}
    first_planes = {(2, label): 2 for label in LABELS}
    raw = _expected(stacks, SETTINGS, (2, 8, 40, 56), numbers, first_planes)
    lost = LABELS.index(stacks[1].laser), slice(0, 4), slice(20, 36), slice(28, 44)
    raw[lost] = 0
    np.testing.assert_array_equal(_levels(result.image_url)[0], raw)
    assert MosaicImage.open(result.image_url).layout.missing == (1,)

    models = tmp_path / "models"
    flats = {label: _flat((20, 28), i + 1) for i, label in enumerate(LABELS)}
    for label, flat in flats.items():
        _model(models, label, flat)
    (corrected,) = import_mesospim(
        str(path),
        str(tmp_path / "out"),
        correct_flatfield=True,
        models_folder=str(models),
        output_offset=50,
        **SIGNS,
    )
    got = _levels(corrected.image_url)[0]
    field = np.stack([np.tile(flats[label], (2, 2))[None] for label in LABELS])
    exact = np.where(raw > 0, np.rint((raw.astype(float) - 100) / field + 50), 0)
    assert np.abs(got - exact).max() <= 1
    # No data: lost blocks, planes that were never taken, the missing tile.
    assert (got[raw == 0] == 0).all()


@pytest.mark.slow
def test_a_stopped_corner_lends_only_the_planes_it_has(native_v04, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(native_v04.folder, folder)
    path = folder / native_v04.container.name
    places = native_v04.places()
    (group,) = (g for g, place in places.items() if place == (0, 0, 0))
    zarr.open_array(str(path / group / "0"), mode="r+").resize((10, 128, 160))
    (result,) = import_mesospim(
        str(path),
        str(tmp_path / "out"),
        correct_flatfield=True,
        camera_offset=100,
        z_levels=[2, 15],
    )
    # Planes 0, 1, 16, 17 of four tiles, but 0 and 1 of the stopped one.
    assert result.models["488 nm"].facts["planes_used"] == 14
    assert result.models["561 nm"].facts["planes_used"] == 16
    for label in LABELS:
        true = native_v04.flats[label] / native_v04.flats[label].mean()
        error = result.models[label].profile.flatfield / true - 1
        assert np.sqrt(np.mean(error**2)) < 0.0035
    got = _levels(result.image_url)[0]
    assert (got[0, 10:, :128, :160] == 0).all()
    assert (got[1, 10:, :128, :160] > 0).any()


@pytest.mark.parametrize("ending", [".ome.zarr", ".zarr"])
def test_names_with_odd_characters(tmp_path, ending):
    name = f"br ain (1) +50% é&{ending}"
    stacks = grid_stacks(1, 2, SETTINGS)
    stacks = [replace(s, filter="LP 600/40 (a)-b_c", zoom="4x Olympus") for s in stacks]
    stacks[1] = replace(stacks[1], group="s1-t0.zarr")
    path = write_acquisition(tmp_path, name, stacks, SETTINGS)
    (result,) = import_mesospim(str(path), str(tmp_path / "out put"), **SIGNS)
    expected = _expected(stacks, SETTINGS, (1, 6, 20, 56), {0: (0, 1), 1: (0, 0)})
    np.testing.assert_array_equal(_levels(result.image_url)[0], expected)
    assert Path(result.image_url).parent.name == f"{name.removesuffix(ending)}.zarr"


@pytest.mark.slow
@pytest.mark.parametrize(
    "processor, words",
    [
        ("BackgroundSubtractionProcessor", "no offset is subtracted again"),
        ("GaussianBlur", "estimated from the noise cannot be trusted"),
    ],
)
def test_image_processors(native_v04, tmp_path, caplog, processor, words):
    """Where the microscope took the offset away, it is not taken away again."""
    folder = tmp_path / "copy"
    shutil.copytree(native_v04.folder, folder)
    path = folder / native_v04.container.name
    for meta in folder.glob("*_meta.txt"):
        text = meta.read_text().replace(
            "[Processor count] 0", f"[Processor count] 1\n[Processor 1] {processor}"
        )
        assert processor in text
        meta.write_text(text)
    gone = processor.startswith("Background")
    if gone:
        for group in native_v04.places():
            array = zarr.open_array(str(path / group / "0"), mode="r+")
            array[...] = np.clip(native_v04.raw(group).astype(int) - 100, 0, None)
    options = {"correct_flatfield": True, "z_levels": [2, 15]}
    (result,) = import_mesospim(str(path), str(tmp_path / "out"), **options)
    said = [r for r in caplog.records if r.levelname == "WARNING" and words in r.message]
    assert len(said) == 2
    assert "camera_offset" in said[0].message
    model = result.models["488 nm"]
    if gone:
        assert (model.offset, model.facts["offset"]) == (0, 0)
        true = native_v04.flats["488 nm"] / native_v04.flats["488 nm"].mean()
        assert np.sqrt(np.mean((model.profile.flatfield / true - 1) ** 2)) < 0.0035
    else:
        assert model.offset == pytest.approx(100, abs=3)
    caplog.clear()
    import_mesospim(str(path), str(tmp_path / "given"), camera_offset=0 if gone else 100, **options)
    assert not [r for r in caplog.records if words in r.message]


def test_no_metadata_files_and_no_project_file(tmp_path, caplog):
    stacks = grid_stacks(1, 2, SETTINGS)
    path = write_acquisition(tmp_path, "a.zarr", stacks, replace(SETTINGS, meta=False))
    (result,) = import_mesospim(str(path), str(tmp_path / "out"), **SIGNS)
    expected = _expected(stacks, SETTINGS, (1, 6, 20, 56), {0: (0, 1), 1: (0, 0)})
    np.testing.assert_array_equal(_levels(result.image_url)[0], expected)
    assert any(
        r.levelname == "WARNING" and "positions come from the NGFF translations" in r.message
        for r in caplog.records
    )


# --- Reading and writing ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, chunks=(4, 10, 14)),
        replace(SETTINGS, version="0.4", chunks=(6, 20, 28)),
        replace(SETTINGS, shards=(8, 32, 32)),
    ],
    ids=["odd chunks", "dividing chunks", "whole tiles", "shards"],
)
@pytest.mark.parametrize("block_bytes", [1, 2**25], ids=["small blocks", "large blocks"])
def test_each_chunk_is_decoded_once(tmp_path, monkeypatch, settings, block_bytes):
    stacks = grid_stacks(2, 2, settings, lasers=LABELS)
    path = write_acquisition(tmp_path, "a.zarr", stacks, settings)
    decoded = Counter()
    read = native_stack.read_array

    def counted(array, where, box):
        ranges = (
            range(s.start // c, ceil(s.stop / c)) for s, c in zip(box, array.chunks, strict=True)
        )
        decoded.update((where, *index) for index in product(*ranges))
        return read(array, where, box)

    monkeypatch.setattr(native_stack, "read_array", counted)
    monkeypatch.setattr(plan, "BLOCK_BYTES", block_bytes)
    import_mesospim(str(path), str(tmp_path / "out"), **SIGNS)
    assert set(decoded.values()) == {1}
    chunks = (ceil(n / c) for n, c in zip((6, 20, 28), settings.chunks, strict=True))
    assert len(decoded) == len(stacks) * np.prod(list(chunks))


def test_chosen_version_chunks_shards_and_levels(tmp_path):
    settings = replace(SETTINGS, version="0.4", tile_shape=(64, 96), chunks=(4, 32, 32))
    path = write_acquisition(tmp_path, "a.zarr", grid_stacks(2, 2, settings), settings)
    (result,) = import_mesospim(
        str(path),
        str(tmp_path / "out"),
        image_name="mosaic",
        ngff_version="0.5",
        levels=2,
        chunks=[2, 16, 24],
        output_shards=[6, 32, 48],
        **SIGNS,
    )
    assert result.image_url == str(tmp_path / "out" / "a.zarr" / "mosaic")
    image = MosaicImage.open(result.image_url)
    assert image.metadata.version == "0.5"
    assert [level.shape for level in image.levels] == [(1, 6, 128, 192), (1, 6, 64, 96)]
    assert image.levels[0].chunks == (1, 2, 16, 24)
    assert image.levels[0].shards == (1, 6, 32, 48)


# --- Several at once, and what is refused ----------------------------------------------------


@pytest.fixture
def acquisition(tmp_path):
    return write_acquisition(tmp_path / "data", "a.zarr", grid_stacks(1, 2, SETTINGS), SETTINGS)


@pytest.fixture
def refused(tmp_path, state):
    def check(kind, words, containers, zarr_dir="out", **arguments):
        before = state(tmp_path)
        with pytest.raises(kind, match=words) as caught:
            import_mesospim(containers, str(tmp_path / zarr_dir), **{**SIGNS, **arguments})
        assert isinstance(caught.value, errors.ShadingError)
        assert state(tmp_path) == before
        return str(caught.value)

    return check


def test_two_of_one_name_are_refused(tmp_path, refused, acquisition):
    other = write_acquisition(tmp_path / "b", "a.zarr", grid_stacks(1, 2, SETTINGS), SETTINGS)
    refused(errors.ParameterError, "Several acquisitions would be", [str(acquisition), str(other)])
    refused(errors.ParameterError, "Several acquisitions", [str(acquisition), str(acquisition)])


def test_all_problems_come_at_once(tmp_path, refused, acquisition):
    empty = tmp_path / "data" / "empty.zarr"
    zarr.open_group(str(empty), mode="w")
    words = refused(
        errors.ShadingError,
        "2 problems",
        [str(acquisition), str(empty), str(tmp_path / "nowhere.zarr")],
    )
    assert "is empty" in words
    assert "nowhere.zarr" in words


def test_no_container_at_all(refused, acquisition):
    refused(errors.ParameterError, "No container was given", [])
    (group,) = (p for p in acquisition.iterdir() if "Tile1" in p.name)
    words = refused(errors.ImageFormatError, "single image, not a container", [str(group)])
    assert str(acquisition) in words
    refused(errors.ShadingError, "data", [str(acquisition.parent)])


def test_groups_that_cannot_be_read_are_listed(acquisition, refused):
    for group in list(acquisition.iterdir()):
        if group.is_dir():
            shutil.rmtree(group / "0")
    words = refused(
        errors.ImageFormatError, "no stack of a mesoSPIM acquisition", [str(acquisition)]
    )
    assert "Tile0" in words


def test_a_half_written_group_is_left_out(acquisition, tmp_path, caplog):
    (group,) = (p for p in acquisition.iterdir() if "Tile1" in p.name)
    shutil.rmtree(group / "0")
    (result,) = import_mesospim(str(acquisition), str(tmp_path / "out"), **SIGNS)
    assert MosaicImage.open(result.image_url).layout.plane_shape == (20, 28)
    said = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert any("Tile1" in line and "left out" in line for line in said)


def test_metadata_file_of_another_container(acquisition, tmp_path, caplog):
    (meta,) = (p for p in acquisition.parent.iterdir() if "Tile1" in p.name)
    text = meta.read_text().replace("\\a.zarr\\", "\\other.zarr\\")
    meta.write_text(text.replace("[y_pos] -400.0", "[y_pos] 77.0"))
    assert "[y_pos] 77.0" in meta.read_text()
    (result,) = import_mesospim(str(acquisition), str(tmp_path / "out"), **SIGNS)
    # Its place comes from the NGFF translation then, which is right.
    assert MosaicImage.open(result.image_url).layout.plane_shape == (20, 56)
    said = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert any("written for another container" in line for line in said)


def test_unequal_tiles_are_refused(tmp_path, refused, acquisition):
    other = replace(SETTINGS, tile_shape=(10, 14))
    write_acquisition(acquisition.parent, "a.zarr", grid_stacks(1, 3, SETTINGS)[2:], other)
    refused(errors.LayoutError, "differ in size", [str(acquisition)])


def test_a_damaged_chunk_is_named(acquisition, tmp_path, refused):
    (group,) = (p for p in acquisition.iterdir() if "Tile1" in p.name)
    (group / "0" / "c" / "1" / "0" / "1").write_bytes(b"not zstd")
    words = refused_in_the_run(acquisition, tmp_path)
    assert "Tile1" in words
    assert "c/1/0/1" in words


def refused_in_the_run(acquisition, tmp_path):
    with pytest.raises(errors.SourceReadError) as caught:
        import_mesospim(str(acquisition), str(tmp_path / "out"), **SIGNS)
    assert not (tmp_path / "out" / "a.zarr" / "raw_image").exists()
    return str(caught.value)


def test_existing_results_are_kept_unless_replaced(acquisition, tmp_path, refused, state):
    (first,) = import_mesospim(str(acquisition), str(tmp_path / "out"), **SIGNS)
    refused(errors.OutputExistsError, "raw_image", [str(acquisition)])
    (second,) = import_mesospim(
        str(acquisition), str(tmp_path / "out"), overwrite=True, chunks=[6, 5, 7], **SIGNS
    )
    assert second.image_url == first.image_url
    assert MosaicImage.open(second.image_url).levels[0].chunks == (1, 6, 5, 7)
    expected = _expected(
        grid_stacks(1, 2, SETTINGS), SETTINGS, (1, 6, 20, 56), {0: (0, 1), 1: (0, 0)}
    )
    np.testing.assert_array_equal(_levels(second.image_url)[0], expected)


def test_wrong_choices_are_refused(acquisition, refused):
    url = [str(acquisition)]
    refused(errors.ParameterError, "sign_x is 3", url, sign_x=3)
    refused(errors.ParameterError, "three positive numbers", url, chunks=[4, 16])
    refused(errors.ParameterError, "multiples of the chunk", url, output_shards=[4, 5, 5])
    refused(errors.ParameterError, "without folders", url, image_name="a/b")
    refused(errors.ParameterError, "without folders", url, image_name="___")
    refused(errors.ParameterError, "control characters", url, image_name="a\nb")
    refused(errors.ParameterError, "image_name gives a name of", url, image_name="x" * 300)
    refused(errors.ParameterError, "keep for themselves", url, image_name="zarr.json")
    refused(errors.ParameterError, "does not hold", url, exclude_groups=["nothing"])
    chosen = {"correct_flatfield": True}
    refused(errors.LayoutError, "fov_list", url, fov_list=[7], **chosen)
    refused(errors.ShadingError, "z_levels", url, z_levels=[0, 5], **chosen)
    refused(
        errors.ProfileError,
        "models_folder|no folder|does not exist",
        url,
        models_folder="/nowhere",
        **chosen,
    )


def test_nothing_is_written_into_an_acquisition(acquisition, refused):
    # `a.zarr` would be the home of the images of `a.zarr`.
    refused(errors.ParameterError, "within the acquisition", [str(acquisition)], zarr_dir="data")
    refused(
        errors.ParameterError,
        "Set zarr_dir",
        [str(acquisition)],
        zarr_dir=f"data/{acquisition.name}",
    )
    with pytest.raises(errors.ParameterError, match="within its own source"):
        correct_flatfield(str(acquisition), output_folder=str(acquisition))


def test_an_unwritable_folder(acquisition, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(errors.ParameterError, match="Set zarr_dir= to one that can"):
        import_mesospim(str(acquisition), str(blocked), **SIGNS)
    with pytest.raises(errors.ParameterError, match="Set output_folder= to one that can"):
        correct_flatfield(str(acquisition), output_folder=str(blocked))


# --- Other places, other ways to run ---------------------------------------------------------


def test_two_mosaics_in_one_table(tmp_path):
    far = replace(SETTINGS, seed=5)
    near = grid_stacks(1, 2, SETTINGS)
    away = [replace(s, tile=s.tile + 2) for s in grid_stacks(1, 2, SETTINGS, start_um=(9e4, 5e4))]
    write_acquisition(tmp_path, "a.zarr", near, SETTINGS)
    path = write_acquisition(tmp_path, "a.zarr", away, far)
    results = import_mesospim(str(path), str(tmp_path / "out"), **SIGNS)
    assert len({r.image_url for r in results}) == 2
    found = [_levels(r.image_url)[0] for r in results]
    for stacks, settings in ((near, SETTINGS), (away, far)):
        numbers = {stacks[0].tile: (0, 1), stacks[1].tile: (0, 0)}
        expected = _expected(stacks, settings, (1, 6, 20, 56), numbers)
        assert sum(np.array_equal(expected, got) for got in found) == 1


def test_remote_acquisition_to_remote_image(acquisition, tmp_path):
    memory = fsspec.filesystem("memory")
    for file in acquisition.parent.rglob("*"):
        if file.is_file():
            name = file.relative_to(acquisition.parent).as_posix()
            memory.pipe_file(f"/native/{name}", file.read_bytes())
    (local,) = import_mesospim(acquisition, str(tmp_path / "out"), **SIGNS)
    (remote,) = import_mesospim("memory://native/a.zarr", "memory://imported", **SIGNS)
    assert remote.image_url == "memory://imported/a.zarr/raw_image"
    home = Path(local.image_url)
    files = {p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()}
    found = memory.find("/imported/a.zarr/raw_image")
    assert {name.partition("raw_image/")[2] for name in found} == files
    for name in files:
        assert memory.cat_file(f"/imported/a.zarr/raw_image/{name}") == (home / name).read_bytes()


@pytest.mark.slow
def test_processes_write_the_same_bytes(acquisition, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    trees = []
    for name in ("threads", "processes"):
        (result,) = import_mesospim(
            acquisition, str(tmp_path / name), execution=name, n_workers=2, **SIGNS
        )
        home = Path(result.image_url)
        trees.append({p.relative_to(home): p.read_bytes() for p in home.rglob("*") if p.is_file()})
    assert trees[0] == trees[1]
