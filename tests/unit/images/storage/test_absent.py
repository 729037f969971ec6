"""Where an image was expected and there is none."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.errors import ImageFormatError, ImageNotFoundError
from fractal_mesospim_shading.images.storage.stores import open_group


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.TIF", "a TIFF"),
        ("a.npy", "a NumPy array"),
        ("a.h5", "an HDF5 file"),
        ("a.txt", "exists"),
    ],
)
def test_other_files_are_told_the_way_in(tmp_path, name, what):
    path = tmp_path / name
    with path.open("wb") as file:
        np.save(file, np.ones((3, 4, 4)))
    with pytest.raises(ImageFormatError, match=what) as caught:
        open_group(str(path))
    assert ("local_background.py" in str(caught.value)) == (name != "a.txt")


def test_a_folder_of_images_names_them(tmp_path):
    for inner in ("b.ome.zarr", "a.zarr/raw_image", "a.zarr/other", "plain/c.zarr", ".hidden"):
        (tmp_path / inner).mkdir(parents=True)
        (tmp_path / inner / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(ImageFormatError) as caught:
        open_group(str(tmp_path))
    assert "in it lie: 'a.zarr/other', 'a.zarr/raw_image', 'b.ome.zarr'." in str(caught.value)


def test_a_folder_of_many_names_some(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02d}.zarr").mkdir()
        (tmp_path / f"{number:02d}.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(ImageFormatError, match=r"'19.zarr' and 10 more\."):
        open_group(str(tmp_path))


def test_an_empty_folder_and_nothing_at_all(tmp_path):
    with pytest.raises(ImageFormatError, match="holds no zarr group"):
        open_group(str(tmp_path))
    (tmp_path / "b.tif").symlink_to(tmp_path / "a.tif")
    for name in ("a.tif", "b.tif"):
        with pytest.raises(ImageNotFoundError, match="There is no image"):
            open_group(str(tmp_path / name))
