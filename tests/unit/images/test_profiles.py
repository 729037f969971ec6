"""Model folders and dark frames: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import OutputWriteError, ProfileError
from fractal_mesospim_shading.images.profiles import (
    folder_name,
    load_darkfield,
    load_models,
    load_profile,
    save_models,
)

RNG = np.random.default_rng(3)
FLAT = 0.5 + RNG.random((6, 8))
DARK = 100 + RNG.random((6, 8))


def model(folder: Path, label: str, **content: object) -> Path:
    path = folder / label / "profiles.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **content)
    return path


def test_models_as_numpy_writes_them(tmp_path: Path) -> None:
    model(tmp_path, "DAPI", flatfield=3 * FLAT, darkfield=DARK, baseline=np.array([4.0]), more=1)
    model(tmp_path, "GFP", flatfield=FLAT.astype(np.float32), darkfield=102)
    models = load_models(tmp_path, ["DAPI", "GFP"])
    np.testing.assert_allclose(models["DAPI"].flatfield, FLAT / FLAT.mean(), rtol=1e-6)
    np.testing.assert_allclose(models["DAPI"].darkfield, DARK, rtol=1e-6)
    assert models["DAPI"].baseline == 4.0
    assert models["DAPI"].scale == pytest.approx(3 * FLAT.mean())
    assert models["GFP"].darkfield == 102.0
    assert models["GFP"].baseline is None


def test_a_baseline_for_each_plane_counts_by_its_median(tmp_path: Path) -> None:
    model(tmp_path, "DAPI", flatfield=FLAT, baseline=np.array([5.0, 1.0, 3.0]))
    assert load_models(tmp_path, ["DAPI"])["DAPI"].baseline == 3.0


def test_labels_that_are_no_folder_names(tmp_path: Path) -> None:
    assert folder_name("488/561\\x") == "488_561_x"
    model(tmp_path, "488_561", flatfield=FLAT)
    assert set(load_models(tmp_path, ["488/561"])) == {"488/561"}
    for label in ("..", ".", "", " ", "...", "a\0b"):
        with pytest.raises(ProfileError, match="cannot be the name of a folder"):
            folder_name(label)
    model(tmp_path.parent, "escape_profiles", flatfield=FLAT)
    with pytest.raises(ProfileError):
        load_models(tmp_path, ["../escape_profiles"])
    with pytest.raises(ProfileError):
        load_models(tmp_path / "488_561", [".."])


def test_sides(tmp_path: Path) -> None:
    model(tmp_path, "A", flatfield=FLAT)
    model(tmp_path, "A/left", flatfield=FLAT[::-1])
    model(tmp_path, "B/right", flatfield=FLAT)
    left = load_models(tmp_path, ["A"], side="left")["A"]
    np.testing.assert_allclose(left.flatfield, FLAT[::-1] / FLAT.mean(), rtol=1e-6)
    for side in ("right", "both", None):
        found = load_models(tmp_path, ["A"], side=side)["A"]
        np.testing.assert_allclose(found.flatfield, FLAT / FLAT.mean(), rtol=1e-6)
    assert load_models(tmp_path, ["B"], side="right")
    with pytest.raises(ProfileError, match="models for right only"):
        load_models(tmp_path, ["B"], side="left")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"flat": FLAT}, "no key 'flatfield'"),
        ({"flatfield": np.where(FLAT > 1, np.nan, FLAT)}, "NaN"),
        ({"flatfield": FLAT - FLAT.min()}, "0 or below"),
        ({"flatfield": -FLAT}, "0 or below"),
        ({"flatfield": FLAT[None]}, "shape"),
        ({"flatfield": np.float32(1)}, "shape"),
        ({"flatfield": FLAT + 1j}, "real numbers"),
        ({"flatfield": np.array([[None, 1]], dtype=object)}, "pickled"),
        ({"flatfield": FLAT, "darkfield": np.full((2, 2), np.inf)}, "darkfield"),
        ({"flatfield": FLAT, "darkfield": np.ones(5)}, "darkfield"),
        ({"flatfield": FLAT, "baseline": np.nan}, "baseline"),
    ],
)
def test_unusable_models(tmp_path: Path, content: dict[str, object], said: str) -> None:
    path = model(tmp_path, "DAPI", **content)
    with pytest.raises(ProfileError, match=said) as caught:
        load_models(tmp_path, ["DAPI"])
    assert str(path) in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    whole = model(tmp_path, "DAPI", flatfield=FLAT).read_bytes()
    path = tmp_path / "DAPI" / "profiles.npz"
    damaged = bytearray(whole)
    damaged[250] ^= 0xFF
    for content in (b"", b"text", whole[:-40], whole[:100], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(ProfileError, match="cannot be read"):
            load_profile(path)
    with open(path, "wb") as file:
        np.save(file, FLAT)
    with pytest.raises(ProfileError, match="single array"):
        load_profile(path)


def test_all_problems_in_one_error(tmp_path: Path) -> None:
    model(tmp_path, "good", flatfield=FLAT)
    model(tmp_path, "negative", flatfield=-FLAT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProfileError) as caught:
        load_models(tmp_path, ["good", "negative", "empty", "absent"])
    lines = str(caught.value).splitlines()
    assert [line.split("'")[1] for line in lines[1:]] == ["negative", "empty", "absent"]
    assert "it has: empty, good, negative" in lines[3]
    for folder in (tmp_path / "none", tmp_path / "good" / "profiles.npz"):
        with pytest.raises(ProfileError, match="models_folder"):
            load_models(folder, ["good"])


def test_saved_models_are_read_again_exactly(tmp_path: Path) -> None:
    profiles = {
        "488 / GFP": ShadingProfile.create(FLAT, DARK, 12.5),
        "DAPI": ShadingProfile.create(FLAT[::-1], 101.5),
        "plain": ShadingProfile.create(RNG.random((64, 64)) + 0.01),
    }
    files = save_models(tmp_path / "models", profiles)
    again = load_models(tmp_path / "models", profiles)
    assert files["488 / GFP"] == tmp_path / "models" / "488 _ GFP" / "profiles.npz"
    for label, profile in profiles.items():
        np.testing.assert_array_equal(again[label].flatfield, profile.flatfield)
        np.testing.assert_array_equal(
            np.asarray(again[label].darkfield), np.asarray(profile.darkfield)
        )
        assert again[label].baseline == profile.baseline
    with np.load(files["DAPI"], allow_pickle=False) as plain:
        assert set(plain.files) == {"flatfield", "darkfield"}


def test_saving_twice_gives_equal_bytes_and_leaves_no_drafts(tmp_path: Path) -> None:
    profile = {"A": ShadingProfile.create(FLAT, DARK)}
    first = save_models(tmp_path, profile)["A"].read_bytes()
    save_models(tmp_path, {"A": ShadingProfile.create(FLAT)})
    assert save_models(tmp_path, profile)["A"].read_bytes() == first
    assert b"\x00\x00\x21\x00" in first[:20]  # the zip epoch, not the time of day
    save_models(tmp_path, profile, side="left")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")) == [
        "A/left/profiles.npz",
        "A/profiles.npz",
    ]


def test_where_models_cannot_be_saved(tmp_path: Path) -> None:
    profile = ShadingProfile.create(FLAT)
    with pytest.raises(ProfileError, match="share the model folder"):
        save_models(tmp_path, {"a/b": profile, "a_b": profile})
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputWriteError, match="choose another folder"):
        save_models(tmp_path / "file", {"a": profile})


def test_dark_frames(tmp_path: Path) -> None:
    stack = RNG.integers(90, 110, (3, 2, 6, 8)).astype(np.uint16)
    mean = stack.astype(np.float64).mean(axis=(0, 1))
    np.save(tmp_path / "stack.npy", stack)
    np.save(tmp_path / "number.npy", np.float64(101.5))
    np.savez(tmp_path / "frame.npz", darkfield=DARK, other=1)
    tifffile.imwrite(tmp_path / "frame.tif", stack[0, 0])
    tifffile.imwrite(tmp_path / "stack.tiff", stack, photometric="minisblack")
    expected = {
        "stack.npy": mean,
        "number.npy": 101.5,
        "frame.npz": DARK,
        "frame.tif": stack[0, 0],
        "stack.tiff": mean,
    }
    for name, value in expected.items():
        frames = load_darkfield(tmp_path / name, ["A", "B"])
        assert set(frames) == {"A", "B"}
        np.testing.assert_allclose(frames["B"], value, rtol=1e-6)
        assert isinstance(frames["A"], float) == (name == "number.npy")


def test_dark_frames_for_each_channel(tmp_path: Path) -> None:
    model(tmp_path, "A", darkfield=DARK)
    model(tmp_path, "B", flatfield=FLAT, darkfield=np.array(99))
    frames = load_darkfield(tmp_path, ["A", "B"])
    np.testing.assert_allclose(frames["A"], DARK, rtol=1e-6)
    assert frames["B"] == 99.0
    model(tmp_path, "C", flatfield=FLAT)
    with pytest.raises(ProfileError, match="no key 'darkfield'"):
        load_darkfield(tmp_path, ["A", "C"])


def test_unusable_dark_frames(tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.where(DARK > 100.5, np.nan, DARK))
    np.save(tmp_path / "row.npy", DARK[0])
    np.save(tmp_path / "empty.npy", DARK[:0])
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "object.npy", np.array([[None, 1]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "key.npz", dark=DARK)
    (tmp_path / "broken.tif").write_bytes(b"II*\0 and no more")
    (tmp_path / "frame.png").write_bytes(b"")
    for name, said in {
        "nan.npy": "NaN",
        "row.npy": "shape",
        "empty.npy": "shape",
        "text.npy": "expected numbers",
        "object.npy": "pickled",
        "key.npz": "no key 'darkfield'",
        "broken.tif": "cannot be read",
        "frame.png": r"expected \.npy",
        "none.npy": "not there",
    }.items():
        with pytest.raises(ProfileError, match=said) as caught:
            load_darkfield(tmp_path / name, ["A"])
        assert name in str(caught.value)
