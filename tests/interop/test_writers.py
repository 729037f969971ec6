"""What other programs write is read and corrected, and they correct with what is written here."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading import (
    correct_background,
    correct_flatfield,
    estimate_flatfield,
)
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.images.models.folder import load_model, save_models
from tests.support.environments import answer_of, made_environment

PROGRAMS = Path(__file__).parent / "programs"
LASERS = ("488 nm", "561 nm")
TILE = (48, 40)
OFFSET, BACKGROUND = 100.0, 50.0

# Mean 1, and powers of 2, so that what comes out is known to the last bit.
FLAT = np.repeat([0.5, 2.0, 1.0], [16, 8, 16])[None, :].repeat(TILE[0], axis=0)

BACKENDS = ("anndata", "csv", "json", "parquet")
NGIO = tuple(f"{version} {backend}" for version in ("0.4", "0.5") for backend in BACKENDS)
OME_ZARR = tuple(
    f"{version} {layout}" for version in ("0.4", "0.5") for layout in ("ome-zarr", "bioformats2raw")
)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint16]:
    noise = np.random.default_rng(3).poisson(400, (2, 4, 96, 80))
    return np.asarray(OFFSET + noise, np.uint16)


@pytest.fixture(scope="module")
def place(tmp_path_factory, pixels) -> Path:
    """A folder with the pixels, and the models for them."""
    folder = tmp_path_factory.mktemp("writers")
    np.save(folder / "pixels.npy", pixels)
    save_models(folder / "models", dict.fromkeys(LASERS, ShadingProfile.create(FLAT)))
    return folder


@pytest.fixture(scope="module")
def core() -> Path:
    """The interpreter of an environment with fractal-tasks-core, which wants an older ngio."""
    return made_environment("tasks-core", ["fractal-tasks-core"])


@pytest.fixture(scope="module")
def by_ngio(readers, place):
    return answer_of(readers, PROGRAMS / "write_ngio.py", place / "pixels.npy", *TILE, place)


@pytest.fixture(scope="module")
def by_ome_zarr(readers, place):
    return answer_of(readers, PROGRAMS / "write_ome_zarr.py", place / "pixels.npy", place)


@pytest.fixture(scope="module")
def by_tasks_core(core, place):
    program = PROGRAMS / "write_tasks_core.py"
    # anndata tells each who writes a table of zarr 2.
    return answer_of(core, program, place / "pixels.npy", *TILE, place, silent=False)


def flattened(pixels: NDArray[Any], flat: NDArray[np.float64]) -> NDArray[np.uint16]:
    """The formula, rounded half to even, as the tasks store it."""
    profile = np.tile(flat, (pixels.shape[-2] // flat.shape[0], pixels.shape[-1] // flat.shape[1]))
    return np.asarray(np.rint((pixels - OFFSET) / profile), np.uint16)


def finest(url: str) -> NDArray[Any]:
    """The pixels of full resolution, whatever their array is called."""
    group = zarr.open_group(url, mode="r")
    attributes: Any = dict(group.attrs)
    path = attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]["path"]
    return np.asarray(group[path][...])


def refuse_other_background(url: str, pixels: NDArray[np.uint16]) -> None:
    """Take a number away, and look at every pixel."""
    method = {"method": "constant", "value": BACKGROUND}
    result = correct_background(url, method=method).image_url
    assert np.array_equal(finest(result), pixels - BACKGROUND)


@pytest.mark.parametrize("name", NGIO)
def test_images_of_ngio(name, by_ngio, place, pixels):
    url = by_ngio[name]
    models = str(place / "models")
    result = correct_flatfield(url, models_folder=models, camera_offset=OFFSET, report=False)
    assert np.array_equal(finest(result.image_url), flattened(pixels, FLAT))
    label = finest(f"{result.image_url}/labels/nuclei")
    assert np.array_equal(label, pixels[0] > np.median(pixels[0]))
    refuse_other_background(url, pixels)


def test_ngio_reads_what_became_of_its_images(readers, by_ngio, place, tmp_path, pixels):
    options = {"models_folder": str(place / "models"), "camera_offset": OFFSET, "report": False}
    results = {
        name: correct_flatfield(url, output_image_name="{image_name}_again", **options).image_url
        for name, url in by_ngio.items()
    }
    found = answer_of(readers, PROGRAMS / "read_ngio.py", tmp_path, *results.values())
    corrected = flattened(pixels, FLAT)
    for url in results.values():
        seen = found[url]
        assert seen["channels"] == list(LASERS)
        assert list(seen["tables"]["FOV_ROI_table"]) == ["FOV_1", "FOV_2", "FOV_3", "FOV_4"]
        assert seen["levels"]["0"]["shape"] == list(corrected.shape)
        assert set(seen["labels"]) == {"nuclei"}


@pytest.mark.parametrize("name", OME_ZARR)
def test_images_of_ome_zarr_are_one_tile(name, by_ome_zarr, tmp_path, pixels):
    """They have no tables, and no channel metadata unless somebody adds it."""
    flat = np.repeat(FLAT, 2, axis=1).repeat(2, axis=0)
    np.save(tmp_path / "flat.npy", flat)
    result = correct_flatfield(
        by_ome_zarr[name],
        flatfield_files={"": str(tmp_path / "flat.npy")},
        camera_offset=OFFSET,
        report=False,
    )
    assert np.array_equal(finest(result.image_url), flattened(pixels, flat))
    refuse_other_background(by_ome_zarr[name], pixels)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_fields_of_view_of_fractal_tasks_core(backend, by_tasks_core, place, pixels):
    url = by_tasks_core[backend]
    models = str(place / "models")
    result = correct_flatfield(url, models_folder=models, camera_offset=OFFSET, report=False)
    assert np.array_equal(finest(result.image_url), flattened(pixels, FLAT))
    refuse_other_background(url, pixels)


@pytest.mark.slow
def test_fractal_tasks_core_corrects_what_we_have_written(core, by_tasks_core, place, tmp_path):
    """Its illumination correction runs on the fields of our result, wavelength by wavelength."""
    url = by_tasks_core["anndata"]
    options = {"models_folder": str(place / "models"), "camera_offset": OFFSET, "report": False}
    ours = correct_flatfield(url, output_image_name="for_core", **options).image_url
    half = np.linspace(0.5, 1.0, TILE[1], dtype=np.float32)[None, :].repeat(TILE[0], axis=0)
    channels = dict(zarr.open_group(ours, mode="r").attrs)["omero"]["channels"]
    for channel in channels:
        tifffile.imwrite(tmp_path / f"{channel['wavelength_id']}.tif", half)
    program = PROGRAMS / "correct_tasks_core.py"
    result = answer_of(core, program, ours, tmp_path, silent=False)
    # It divides in single precision, and cuts off what comes after the point.
    expected = finest(ours).astype(np.float32) / np.tile(half, (2, 2))
    assert np.array_equal(finest(result), expected.astype(np.uint16))


@pytest.fixture(scope="module")
def basic() -> Path:
    """The interpreter of an environment with BaSiCPy."""
    if find_spec("basicpy") is not None:
        return Path(sys.executable)
    named = os.environ.get("MESOSPIM_SHADING_BASIC_PYTHON")
    if not named:
        pytest.skip("BaSiCPy is not here, and MESOSPIM_SHADING_BASIC_PYTHON names no other Python")
    return Path(named)


@pytest.mark.slow
def test_basicpy_applies_a_profile_of_ours_and_we_one_of_its(basic, tmp_path, pixels):
    y = np.linspace(0.8, 1.2, TILE[0])[:, None]
    profile = ShadingProfile.create(y * np.ones(TILE), OFFSET, 3.0)
    saved = save_models(tmp_path / "ours", {"488 nm": profile})["488 nm"]
    planes = pixels[0, :, : TILE[0], : TILE[1]]
    np.save(tmp_path / "planes.npy", planes)
    folder, corrected = tmp_path / "theirs", tmp_path / "corrected.npy"
    program = PROGRAMS / "apply_basicpy.py"
    files = answer_of(basic, program, saved, tmp_path / "planes.npy", folder, corrected)
    assert files == ["profiles.npz", "settings.json"]
    expected = (planes - OFFSET) / profile.flatfield
    np.testing.assert_allclose(np.load(corrected), expected, rtol=1e-6)
    theirs = load_model(folder / "profiles.npz").profile
    assert np.array_equal(theirs.flatfield, profile.flatfield)
    assert np.array_equal(np.broadcast_to(theirs.darkfield, TILE), np.full(TILE, OFFSET))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["empty", "basic", "frame"])
def test_basicpy_loads_the_models_that_we_save(
    basic, make_empty_mosaic, tmp_path, monkeypatch, source
):
    """With `BaSiC.load_model`: those of empty planes, of BaSiC itself, and with a dark frame."""
    monkeypatch.setenv("MESOSPIM_SHADING_BASIC_PYTHON", str(basic))
    url, folder = str(make_empty_mosaic()), tmp_path / "models"
    dark = tmp_path / "dark.npy"
    np.save(dark, OFFSET + np.arange(64.0 * 64, dtype=np.float32).reshape(64, 64) / 1000)
    given = {
        "empty": {"fov_list": [1, 2, 3, 4], "camera_offset": OFFSET},
        "basic": {"camera_offset": OFFSET},
        "frame": {"fov_list": [1, 2, 3, 4], "darkfield_file": str(dark)},
    }
    models = estimate_flatfield(url, str(folder), **given[source])
    planes = finest(url)[0, :, :64, :64]
    np.save(tmp_path / "planes.npy", planes)
    for label, model in models.items():
        corrected = tmp_path / "corrected.npy"
        program = PROGRAMS / "load_basicpy.py"
        number = answer_of(basic, program, folder / label, tmp_path / "planes.npy", corrected)
        assert number == (1 if source == "basic" else 0)
        offset = model.profile.darkfield if source == "frame" else OFFSET
        expected = (planes - offset) / model.profile.flatfield
        np.testing.assert_allclose(np.load(corrected), expected, rtol=1e-5)


def test_profiles_in_tiff_have_their_axes(make_empty_mosaic, tmp_path):
    """An image of one page, y down and x along its rows, as other programs take it."""
    source = str(make_empty_mosaic())
    folder = tmp_path / "models"
    models = estimate_flatfield(source, str(folder), fov_list=[1, 2, 3, 4], tiff=True)
    for label, model in models.items():
        with tifffile.TiffFile(folder / label / "flatfield.tif") as file:
            [series] = file.series
            assert series.axes == "YX"
            assert series.dtype == np.float32
            assert np.array_equal(series.asarray(), model.profile.flatfield)
