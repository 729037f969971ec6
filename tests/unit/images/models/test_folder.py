"""Model folders and dark frames: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import OutputWriteError, ProfileError
from fractal_mesospim_shading.images.models.folder import (
    ORIGIN_KEY,
    ModelName,
    Origin,
    SavedModel,
    load_model,
    load_models,
    model_parts,
    refuse_models_folder,
    save_models,
    write_models,
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
    loaded = load_models(tmp_path, ["DAPI", "GFP"])
    assert [model.origin for model in loaded.values()] == [None, None]
    models = {label: model.profile for label, model in loaded.items()}
    np.testing.assert_allclose(models["DAPI"].flatfield, FLAT / FLAT.mean(), rtol=1e-6)
    np.testing.assert_allclose(models["DAPI"].darkfield, DARK, rtol=1e-6)
    assert models["DAPI"].baseline == 4.0
    assert models["DAPI"].scale == pytest.approx(3 * FLAT.mean())
    assert models["GFP"].darkfield == 102.0
    assert models["GFP"].baseline is None


def test_a_baseline_for_each_plane_counts_by_its_median(tmp_path: Path) -> None:
    model(tmp_path, "DAPI", flatfield=FLAT, baseline=np.array([5.0, 1.0, 3.0]))
    assert load_models(tmp_path, ["DAPI"])["DAPI"].profile.baseline == 3.0


def test_sides(tmp_path: Path) -> None:
    model(tmp_path, "A", flatfield=FLAT)
    model(tmp_path, "A/left", flatfield=FLAT[::-1])
    model(tmp_path, "B/right", flatfield=FLAT)
    left = load_models(tmp_path, ["A"], side="left")["A"].profile
    np.testing.assert_allclose(left.flatfield, FLAT[::-1] / FLAT.mean(), rtol=1e-6)
    for side in ("right", "both", None):
        found = load_models(tmp_path, ["A"], side=side)["A"].profile
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
        ({"flatfield": FLAT[None]}, "shape.*np.squeeze"),
        ({"flatfield": FLAT[..., None]}, "shape.*np.squeeze"),
        ({"flatfield": np.stack([FLAT] * 3, -1)}, "shape"),
        ({"flatfield": FLAT > 1}, "real numbers"),
        ({"flatfield": FLAT.astype("m8[s]")}, "real numbers"),
        ({"flatfield": np.where(FLAT > 1.4, 1e3, FLAT)}, "spans a factor of"),
        ({"flatfield": FLAT * 1e308}, "not finite"),
        ({"flatfield": FLAT, "darkfield": 1e39}, "finite number"),
        ({"flatfield": FLAT, "darkfield": np.array("5")}, "darkfield"),
        ({"flatfield": FLAT, "darkfield": np.array(True)}, "darkfield"),
        ({"flatfield": FLAT, "darkfield": FLAT * 1e39}, "as large as"),
        ({"flatfield": FLAT, "darkfield": np.stack([DARK] * 3, -1)}, "darkfield"),
        ({"flatfield": FLAT, "baseline": np.inf}, "baseline"),
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
            load_model(path)
    with open(path, "wb") as file:
        np.save(file, FLAT)
    with pytest.raises(ProfileError, match="single array"):
        load_model(path)


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
    loaded = load_models(tmp_path / "models", profiles)
    again = {label: model.profile for label, model in loaded.items()}
    assert files["488 / GFP"] == tmp_path / "models" / "488 _ GFP" / "profiles.npz"
    for label, profile in profiles.items():
        np.testing.assert_array_equal(again[label].flatfield, profile.flatfield)
        np.testing.assert_array_equal(
            np.asarray(again[label].darkfield), np.asarray(profile.darkfield)
        )
        assert again[label].baseline == profile.baseline
    with np.load(files["DAPI"], allow_pickle=False) as plain:
        assert set(plain.files) == {"flatfield", "darkfield", "baseline"}
        assert plain["baseline"].shape == (0,)
    # What is not known is not told: a dark-field of 0 would be a number.
    with np.load(files["plain"], allow_pickle=False) as plain:
        assert set(plain.files) == {"flatfield", "baseline"}


def test_saving_twice_gives_equal_bytes_and_leaves_no_drafts(tmp_path: Path) -> None:
    profile = {"A": ShadingProfile.create(FLAT, DARK)}
    first = save_models(tmp_path, profile)["A"].read_bytes()
    save_models(tmp_path, {"A": ShadingProfile.create(FLAT)})
    assert save_models(tmp_path, profile)["A"].read_bytes() == first
    assert b"\x00\x00\x21\x00" in first[:20]  # the zip epoch, not the time of day
    write_models(tmp_path, {ModelName("A", "left"): SavedModel(profile["A"])})
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")) == [
        "A/left/profiles.npz",
        "A/left/settings.json",
        "A/profiles.npz",
        "A/settings.json",
    ]


FACTS = {
    "scenario": "empty regions",
    "offset": 99.0,
    "offset_uncertainty": 1.25,
    "offset_from": "estimated (noise of pairs of planes)",
    "planes_used": 24,
    "relative_uncertainty": None,
}


def test_where_a_model_comes_from_goes_with_it(tmp_path: Path) -> None:
    model = SavedModel(ShadingProfile.create(FLAT, 99.0), Origin("1.2", FACTS))
    name = ModelName("488/GFP", "left")
    file = write_models(tmp_path, {name: model})[name]
    assert load_models(tmp_path, ["488/GFP"], "left")["488/GFP"].origin == model.origin
    first = file.read_bytes()
    write_models(tmp_path, {name: load_model(file)})
    assert file.read_bytes() == first
    # As other programs read it.
    with np.load(file, allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["flatfield"], model.profile.flatfield)
        assert plain["darkfield"] == 99.0
        told = json.loads(str(plain[ORIGIN_KEY]))
    assert (told["channel"], told["side"], told["version"]) == ("488/GFP", "left", "1.2")
    assert told["facts"] == FACTS


def test_numbers_that_are_not_known_do_not_keep_a_model_from_being_saved(tmp_path: Path) -> None:
    odd = {**FACTS, "offset_uncertainty": float("inf"), "parts": {"a": [1.5, float("nan")]}}
    model = SavedModel(ShadingProfile.create(FLAT, 99.0), Origin("1.2", odd))
    file = next(iter(write_models(tmp_path, {ModelName("A"): model}).values()))
    origin = load_model(file).origin
    assert origin is not None
    assert origin.facts == {**FACTS, "offset_uncertainty": None, "parts": {"a": [1.5, None]}}


def test_what_a_file_says_of_other_arrays_is_not_believed(tmp_path: Path) -> None:
    model = SavedModel(ShadingProfile.create(FLAT, 99.0), Origin("1.2", FACTS))
    file = next(iter(write_models(tmp_path, {ModelName("A"): model}).values()))
    with np.load(file, allow_pickle=False) as plain:
        arrays = dict(plain)
    told = json.loads(str(arrays[ORIGIN_KEY]))

    def origin(**changed: object) -> Origin | None:
        np.savez(file, **{**arrays, **changed})
        return load_model(file).origin

    assert origin() == model.origin
    assert origin(darkfield=np.float64(98)) is None
    assert origin(flatfield=arrays["flatfield"][::-1]) is None
    assert origin(baseline=np.float64(3)) is None
    for text in ("", "[]", "{}", "null", "no JSON", "[" * 100_000):
        assert origin(**{ORIGIN_KEY: np.array(text)}) is None
    assert origin(**{ORIGIN_KEY: np.array([1.0, 2.0])}) is None
    for key, value in (
        ("scenario", None),
        ("offset_from", 3),
        ("offset", "99"),
        ("offset", float("nan")),
        ("offset", None),
        ("offset_uncertainty", [1]),
        ("planes_used", "24"),
    ):
        text = json.dumps({**told, "facts": {**FACTS, key: value}})
        assert origin(**{ORIGIN_KEY: np.array(text)}) is None
    for key in ("facts", "version", "arrays"):
        assert origin(**{ORIGIN_KEY: np.array(json.dumps({**told, key: 1}))}) is None


def test_where_models_cannot_be_saved(tmp_path: Path) -> None:
    profile = ShadingProfile.create(FLAT)
    with pytest.raises(ProfileError, match="share the model folder"):
        save_models(tmp_path, {"a/b": profile, "a_b": profile})
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputWriteError, match="cannot be written"):
        save_models(tmp_path / "file", {"a": profile})


def test_files_of_several_mosaics_that_would_be_one(tmp_path: Path) -> None:
    folder = str(tmp_path / "models")
    two_sides = [model_parts(ModelName("Rot90", side)) for side in ("left", "right")]
    refuse_models_folder(folder, [*two_sides, ("Rot90", *model_parts(ModelName("488 nm")))])
    for label in ("left", "Left", "left."):
        of_another = ("rot90", *model_parts(ModelName(label)))
        with pytest.raises(ProfileError, match="written to one file"):
            refuse_models_folder(folder, [*two_sides, of_another])
    assert not (tmp_path / "models").exists()


def test_links_that_lead_nowhere_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputWriteError, match="stands in its place"):
        refuse_models_folder(str(tmp_path / "models"), [model_parts(ModelName("A"))])
