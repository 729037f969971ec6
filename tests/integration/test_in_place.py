"""A result that takes the place of its source, and what must not happen twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_background, correct_flatfield
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.synthetic.images import write_image


@pytest.fixture
def image(tmp_path: Path) -> str:
    pixels = np.random.default_rng(1).integers(150, 900, (1, 4, 64, 96)).astype(np.uint16)
    return write_image(tmp_path / "brain.zarr", pixels, axes="czyx", channels=["a"])


def _models(folder: Path) -> str:
    (folder / "a").mkdir(parents=True)
    np.savez(folder / "a" / "profiles.npz", flatfield=np.linspace(0.5, 1.5, 96) * np.ones((64, 1)))
    return str(folder)


def test_the_same_command_does_not_correct_twice(image: str, tmp_path: Path) -> None:
    """As after a kill between the last renaming and the end of the process."""
    arguments = {
        "models_folder": _models(tmp_path / "models"),
        "camera_offset": 100.0,
        "overwrite_input": True,
        "report": False,
    }
    result = correct_flatfield(image, **arguments)
    assert result.image_url == image
    once = zarr.open_array(f"{image}/0", mode="r")[:]
    with pytest.raises(ParameterError, match="twice"):
        correct_flatfield(image, **arguments)
    np.testing.assert_array_equal(zarr.open_array(f"{image}/0", mode="r")[:], once)
    # Another task may follow in place.
    correct_background(image, method={"method": "constant", "value": 5.0}, overwrite_input=True)
    np.testing.assert_allclose(zarr.open_array(f"{image}/0", mode="r")[:], once - 5.0)
