"""Labels of channels as names of folders, and those that would share one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.dark_frames import load_darkfield
from fractal_mesospim_shading.images.models.files import (
    folder_name,
    refuse_one_folder_for_two,
    refuse_shared_folders,
)
from fractal_mesospim_shading.images.models.folder import load_models, save_models

FLAT = np.linspace(0.5, 1.5, 48).reshape(6, 8)

ALIKE = [
    ("488_520/35", "488_520_35"),
    ("a\\b", "a/b"),
    ("DAPI", "dapi"),
    ("GFP", "GFP."),
    ("GFP ", "GFP"),
    ("Stra\u00dfe", "STRASSE"),
    ("caf\u00e9", "cafe\u0301"),
]
DIFFERENT = ["488", "488 nm", "488_left", "left", "right", ".488", " 488", "A.B", "A B"]


def test_labels_that_are_no_folder_names(tmp_path: Path) -> None:
    assert folder_name("488/561\\x") == "488_561_x"
    save_models(tmp_path, {"488_561": ShadingProfile.create(FLAT)})
    assert set(load_models(tmp_path, ["488/561"])) == {"488/561"}
    for label in ("..", ".", "", " ", "...", "a\0b"):
        with pytest.raises(ProfileError, match="cannot be the name of a folder"):
            folder_name(label)
    with pytest.raises(ProfileError, match="no file name"):
        folder_name("bad \ud800")
    assert folder_name("\u00e9" * 127)
    with pytest.raises(ProfileError, match="256 bytes long.*255.*Rename the channel"):
        folder_name("\u00e9" * 128)
    save_models(tmp_path.parent, {"escape_profiles": ShadingProfile.create(FLAT)})
    with pytest.raises(ProfileError):
        load_models(tmp_path, ["../escape_profiles"])
    with pytest.raises(ProfileError):
        load_models(tmp_path / "488_561", [".."])


@pytest.mark.parametrize("pair", ALIKE)
def test_labels_of_one_folder_are_not_written(tmp_path: Path, pair: tuple[str, str]) -> None:
    with pytest.raises(ProfileError, match="share the model folder") as caught:
        refuse_shared_folders(["other", *pair])
    assert all(repr(label) in str(caught.value) for label in pair)
    with pytest.raises(ProfileError, match="share the model folder"):
        save_models(tmp_path, dict.fromkeys(pair, ShadingProfile.create(FLAT)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pair", ALIKE)
def test_labels_of_one_folder_are_not_read(tmp_path: Path, pair: tuple[str, str]) -> None:
    # What a file system that takes both names for one would show.
    save_models(tmp_path, {pair[0]: ShadingProfile.create(FLAT, 100.0)})
    for read in (load_models, load_darkfield):
        with pytest.raises(ProfileError, match="share the model folder"):
            read(tmp_path, pair)
    assert load_models(tmp_path, pair[:1])


def test_labels_that_differ_only_in_case_are_read_from_folders_of_their_own(
    tmp_path: Path,
) -> None:
    for label in ("DAPI", "dapi"):
        (tmp_path / label).mkdir(exist_ok=True)
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system takes both names for one")
    refuse_one_folder_for_two(tmp_path, ["DAPI", "dapi"])


def test_other_labels_go_together(tmp_path: Path) -> None:
    refuse_shared_folders([*DIFFERENT, *DIFFERENT])
    profile = ShadingProfile.create(FLAT, 100.0)
    assert len(save_models(tmp_path, dict.fromkeys(DIFFERENT, profile))) == len(DIFFERENT)
    assert set(load_models(tmp_path, DIFFERENT)) == set(DIFFERENT)
    assert set(load_darkfield(tmp_path, DIFFERENT)) == set(DIFFERENT)
