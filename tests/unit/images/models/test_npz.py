"""Archives of arrays are read as numpy reads them, and whatever is damaged is told in its words."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.files import read_npz
from fractal_mesospim_shading.images.models.folder import load_model

ARRAYS = {
    "image": np.arange(12, dtype=np.float32).reshape(3, 4),
    "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big_endian": np.arange(5, dtype=">u2"),
    "number": np.array(7),
    "nothing": np.empty(0),
    "text": np.array("words"),
    "no_text": np.array(""),
    "time": np.array(["2020-01-01"], "datetime64[D]"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_that_were_saved(save, tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    save(path, **ARRAYS)
    found = read_npz(path, ARRAYS)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert not found[name].flags.writeable


@pytest.mark.parametrize("where", ["content", "description", "name"])
def test_a_changed_byte_is_told_as_zipfile_tells_it(where: str, tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, image=ARRAYS["image"])
    content = bytearray(path.read_bytes())
    at = {
        "content": content.index(ARRAYS["image"].tobytes()),
        "description": content.index(b"'shape': (3, 4)") + len("'shape': ("),
        "name": content.index(b"image.npy"),
    }[where]
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ProfileError) as told:
        _ = read_npz(path, ["image"])
    with np.load(path) as file, pytest.raises(Exception) as usual:
        _ = file["image"]
    assert f"({type(usual.value).__name__}: {usual.value})" in str(told.value)


def test_what_a_member_lacks_is_not_taken_from_the_next(tmp_path: Path) -> None:
    path, short = tmp_path / "arrays.npz", tmp_path / "short.npy"
    np.save(short, np.zeros((4, 4), np.float32))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flatfield.npy", short.read_bytes()[:-8])
        archive.writestr("more.npy", short.read_bytes())
    with pytest.raises(ProfileError, match="cannot be read"):
        read_npz(path, ["flatfield"])


def test_a_model_is_scaled_and_its_origin_still_told(tmp_path: Path) -> None:
    flatfield: NDArray[np.float32] = np.linspace(1, 3, 400, dtype=np.float32).reshape(20, 20)
    np.savez(tmp_path / "profiles.npz", flatfield=flatfield, darkfield=flatfield)
    profile = load_model(tmp_path / "profiles.npz").profile
    np.testing.assert_array_equal(profile.flatfield, (flatfield.astype(float) / 2.0).astype("f4"))
    np.testing.assert_array_equal(profile.darkfield, flatfield)
    assert not profile.flatfield.flags.writeable
