"""Measured flat-fields as people have them: TIFF, npy and npz, for all channels or for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import ParameterError, ProfileError
from fractal_mesospim_shading.images.models.dark_frames import load_darkfield
from fractal_mesospim_shading.images.models.flatfield_files import load_flatfield_files
from fractal_mesospim_shading.images.models.folder import load_models
from fractal_mesospim_shading.images.models.frames import write_tiffs
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.options.values import validated

CHANNELS = (Channel(0, "488 nm"), Channel(1, "red", "A02_C561"), Channel(2, "Ch640"))


@pytest.fixture
def flat() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(100, 300, (32, 40)).astype(np.float32)


def _written(folder: Path, flat: np.ndarray) -> dict[str, str]:
    np.save(folder / "flat.npy", flat)
    np.savez(folder / "flat.npz", flatfield=flat)
    tifffile.imwrite(folder / "flat.tif", flat)
    # Frames that have to be averaged: their mean is the flat-field.
    tifffile.imwrite(
        folder / "stack.tiff", np.stack([flat - 5, flat + 5]), photometric="minisblack"
    )
    return {path.name: str(path) for path in folder.iterdir()}


def test_every_kind_of_file_gives_the_same_flatfield(tmp_path, flat):
    expected = flat / flat.mean(dtype=np.float64)
    for name, path in _written(tmp_path, flat).items():
        models = load_flatfield_files({"": path}, CHANNELS)
        assert set(models) == {"488 nm", "red", "Ch640"}
        for model in models.values():
            np.testing.assert_allclose(model.profile.flatfield, expected, rtol=2e-6, err_msg=name)
            assert model.profile.darkfield is None and model.origin is None


def test_channels_by_label_wavelength_and_all_the_rest(tmp_path, flat):
    files = {}
    for number, key in enumerate(("", "488", "A02_C561")):
        path = tmp_path / f"{number}.npy"
        tilt = np.linspace(1, 2 + number, 40, dtype=np.float32)
        np.save(path, np.broadcast_to(tilt, (32, 40)))
        files[key] = str(path)
    models = load_flatfield_files(files, CHANNELS)
    ends = {label: model.profile.flatfield[0, -1] for label, model in models.items()}
    # A ramp from 1 to r over its mean ends at 2 r / (1 + r).
    assert ends == pytest.approx({"Ch640": 4 / 3, "488 nm": 6 / 4, "red": 8 / 5}, rel=1e-5)


def test_a_channel_that_the_image_does_not_have(tmp_path, flat):
    files = _written(tmp_path, flat)
    with pytest.raises(ParameterError, match="'405', but the image has '488 nm', 'red', 'Ch640'"):
        load_flatfield_files({"405": files["flat.tif"]}, CHANNELS)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("a.npy", np.zeros((4, 4), np.float32), "a.npy"),
        ("a.npy", np.float32(3), "a.npy"),
        ("a.npz", {"dark": np.ones((4, 4))}, "no key 'flatfield'"),
        ("a.txt", None, r"kind '.txt'; expected .npy, .npz, .tif or .tiff"),
        ("b.tif", None, "b.tif"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, values, said):
    path = tmp_path / name
    if isinstance(values, dict):
        np.savez(path, **values)
    elif values is not None:
        np.save(path, values)
    with pytest.raises(ProfileError, match=said):
        load_flatfield_files({"": str(path)}, CHANNELS)


def test_a_models_folder_of_tiffs(tmp_path, flat):
    """As `<label>/flatfield.tif`, with or without `darkfield.tif`; `profiles.npz` goes first."""
    for label in ("a", "b", "c"):
        (tmp_path / label).mkdir()
        tifffile.imwrite(tmp_path / label / "flatfield.tif", flat)
    dark = np.full((5, 32, 40), 100, np.uint16)
    dark[0] += 5
    tifffile.imwrite(tmp_path / "b" / "darkfield.tif", dark, photometric="minisblack")
    np.savez(tmp_path / "c" / "profiles.npz", flatfield=np.ones((8, 8)))
    models = load_models(tmp_path, ["a", "b", "c"])
    np.testing.assert_allclose(models["a"].profile.flatfield, flat / flat.mean(), rtol=2e-6)
    assert models["a"].profile.darkfield is None
    np.testing.assert_allclose(models["b"].profile.darkfield, 101.0)
    assert models["c"].profile.flatfield.shape == (8, 8)
    assert np.all(load_darkfield(tmp_path, ["b"])["b"] == 101)
    with pytest.raises(ProfileError, match="'a'"):
        load_darkfield(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("flat.tif", {"": "flat.tif"}),
        (["488=a.tif", "561 nm = b.tif"], {"488": "a.tif", "561 nm": "b.tif"}),
        ('{"488": "a=b.tif"}', {"488": "a=b.tif"}),
        ({"": "flat.tif"}, {"": "flat.tif"}),
        (None, None),
    ],
)
def test_spellings(given, expected):
    assert validated(FlatfieldOptions, {"flatfield_files": given}).flatfield_files == expected


@pytest.mark.parametrize("keys", [("488", "488 nm"), ("640", "Ch640"), ("640", "Ch640", "")])
def test_two_keys_of_one_channel(tmp_path, flat, keys):
    path = _written(tmp_path, flat)["flat.tif"]
    with pytest.raises(ParameterError, match=f"several files.*'{keys[0]}' and '{keys[1]}'"):
        load_flatfield_files(dict.fromkeys(keys, path), CHANNELS)


def test_two_files_for_one_channel():
    with pytest.raises(ParameterError, match="expected each key once; '488' is there twice"):
        validated(FlatfieldOptions, {"flatfield_files": '{"488": "a.tif", "488": "b.tif"}'})
    with pytest.raises(ParameterError, match="expected one file for the channel 488"):
        validated(FlatfieldOptions, {"flatfield_files": ["488=a.tif", "488=b.tif"]})


def test_what_is_written_as_tiff_is_read_as_it_was(tmp_path, flat):
    """By tifffile, as other programs would, and by ourselves."""
    profile = ShadingProfile.create(flat, 99.5, None)
    (tmp_path / "a").mkdir()
    write_tiffs(tmp_path / "a", profile)
    read = tifffile.imread(tmp_path / "a" / "flatfield.tif")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, profile.flatfield)
    dark = tifffile.imread(tmp_path / "a" / "darkfield.tif")
    np.testing.assert_array_equal(dark, np.full((32, 40), 99.5, np.float32))
    again = load_models(tmp_path, ["a"])["a"].profile
    np.testing.assert_allclose(again.flatfield, profile.flatfield, rtol=1e-6)
    np.testing.assert_array_equal(again.darkfield, dark)
    before = (tmp_path / "a" / "flatfield.tif").read_bytes()
    write_tiffs(tmp_path / "a", profile)
    assert (tmp_path / "a" / "flatfield.tif").read_bytes() == before


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    for path in (str(tmp_path), "."):
        with pytest.raises(ProfileError, match="is a folder; expected a file"):
            load_flatfield_files({"": path}, CHANNELS)
