"""Dark frames in TIFF files: which axis is what, and which files are refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.tiff_frames import read_tiff

RNG = np.random.default_rng(0)
STACK = RNG.integers(90, 110, (5, 40, 32)).astype(np.uint16)
FRAME = STACK[0]


@pytest.fixture(autouse=True)
def silent(caplog: pytest.LogCaptureFixture) -> Any:
    """The library's own chatter stays out of the log: it would mark a server's job."""
    with caplog.at_level(logging.DEBUG):
        yield
    assert not [record for record in caplog.records if record.name == "tifffile"]
    assert not logging.getLogger("tifffile").filters


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        (STACK, {"photometric": "minisblack"}),
        (STACK, {"imagej": True}),
        (STACK, {"imagej": True, "metadata": {"axes": "TYX"}}),
        (STACK, {"metadata": {"axes": "TYX"}, "ome": True}),
        (STACK, {"metadata": {"axes": "ZYX"}, "ome": True}),
        (STACK.astype(np.float32), {"photometric": "minisblack"}),
        (STACK, {"photometric": "minisblack", "compression": "zlib"}),
        (STACK, {"photometric": "minisblack", "bigtiff": True, "byteorder": ">"}),
        (FRAME, {}),
        (FRAME[..., None], {"photometric": "minisblack"}),
        (FRAME[None, None], {"photometric": "minisblack"}),
        (FRAME[None, :, :, None], {"photometric": "minisblack", "metadata": {"axes": "CYXS"}}),
    ],
)
def test_greyscale_frames(tmp_path: Path, values: np.ndarray, settings: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "dark.tif", values, **settings)
    read = read_tiff(tmp_path / "dark.tif")
    np.testing.assert_array_equal(read, values.squeeze())


def test_hyperstacks_of_times_and_planes(tmp_path: Path) -> None:
    values = RNG.integers(0, 9, (2, 4, 40, 32)).astype(np.uint16)
    path = tmp_path / "dark.tif"
    tifffile.imwrite(path, values, imagej=True, metadata={"axes": "TZYX"})
    np.testing.assert_array_equal(read_tiff(path), values)


def test_frames_written_one_by_one_are_one_stack(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "dark.tif") as writer:
        for frame in STACK:
            writer.write(frame, photometric="minisblack")
    np.testing.assert_array_equal(read_tiff(tmp_path / "dark.tif"), STACK)


def test_smaller_copies_of_a_frame_are_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "sub.tif") as writer:
        writer.write(FRAME, subifds=1)
        writer.write(FRAME[::2, ::2], subfiletype=1)
    with tifffile.TiffWriter(tmp_path / "page.tif") as writer:
        writer.write(FRAME)
        writer.write(FRAME[::2, ::2], subfiletype=1)
    for name in ("sub.tif", "page.tif"):
        np.testing.assert_array_equal(read_tiff(tmp_path / name), FRAME)


@pytest.mark.parametrize(
    ("values", "settings", "said"),
    [
        (np.stack([FRAME] * 3, -1), {"photometric": "rgb"}, "3 samples a pixel"),
        (
            np.stack([FRAME] * 3),
            {"photometric": "rgb", "planarconfig": "separate"},
            "3 samples a pixel",
        ),
        (np.stack([FRAME] * 4, -1), {"photometric": "rgb", "extrasamples": [2]}, "4 samples"),
        (
            np.stack([FRAME] * 2, -1),
            {"photometric": "minisblack", "planarconfig": "contig"},
            "2 samples a pixel",
        ),
        (np.stack([STACK] * 3, -1), {"photometric": "rgb"}, "3 samples a pixel"),
        (
            FRAME.astype(np.uint8),
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "palette",
        ),
        (FRAME, {"photometric": "miniswhite"}, "white is zero"),
        (STACK, {"ome": True, "metadata": {"axes": "CYX"}}, "5 channels"),
        (
            np.stack([STACK, STACK], 1),
            {"imagej": True, "metadata": {"axes": "TCYX"}},
            "2 channels",
        ),
    ],
)
def test_what_is_no_frame_of_counts(
    tmp_path: Path, values: np.ndarray, settings: dict[str, Any], said: str
) -> None:
    tifffile.imwrite(tmp_path / "dark.tif", values, **settings)
    with pytest.raises(ProfileError, match=said) as caught:
        read_tiff(tmp_path / "dark.tif")
    assert "dark.tif" in str(caught.value) and "Save" in str(caught.value)


def test_images_that_form_no_stack(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "dark.tif") as writer:
        writer.write(FRAME)
        writer.write(FRAME[:20])
    with pytest.raises(ProfileError, match="2 images that do not form a stack"):
        read_tiff(tmp_path / "dark.tif")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    "settings",
    [
        {"photometric": "minisblack"},
        {"imagej": True},
        {"metadata": {"axes": "TYX"}, "ome": True},
        {"photometric": "minisblack", "compression": "zlib"},
    ],
)
def test_files_that_were_cut_off(tmp_path: Path, settings: dict[str, Any], share: float) -> None:
    path = tmp_path / "dark.tif"
    tifffile.imwrite(path, STACK, **settings)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ProfileError, match="cannot be read"):
        read_tiff(path)


def test_sets_of_files_of_which_some_are_missing(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "dark.ome.tif", ome=True) as writer:
        writer.write(STACK, metadata={"axes": "TYX"}, photometric="minisblack")
    path = tmp_path / "dark.ome.tif"
    with tifffile.TiffFile(path) as file:
        told = file.pages[0].description
    # The same description on the first plane alone.
    tifffile.imwrite(path, FRAME, description=told, metadata=None, photometric="minisblack")
    with pytest.raises(ProfileError, match="cannot be read"):
        read_tiff(path)
