"""Dark frames from .npy, .npz and TIFF files and folders."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.dark_frames import load_darkfield
from fractal_mesospim_shading.images.models.frames import averaged, read_tiff

RNG = np.random.default_rng(3)
FLAT = 0.5 + RNG.random((6, 8))
DARK = 100 + RNG.random((6, 8))


def model(folder: Path, label: str, **content: object) -> Path:
    path = folder / label / "profiles.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **content)
    return path


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
    np.save(tmp_path / "bool.npy", DARK > 100.5)
    np.save(tmp_path / "complex.npy", DARK + 1j)
    np.save(tmp_path / "time.npy", DARK.astype("m8[s]"))
    np.save(tmp_path / "large.npy", DARK * 1e39)
    np.save(tmp_path / "number.npy", np.inf)
    np.save(tmp_path / "huge.npy", np.float64(1e39))
    np.save(tmp_path / "one_bad.npy", np.stack([DARK, np.where(DARK > 100.5, -np.inf, DARK)]))
    (tmp_path / "broken.tif").write_bytes(b"II*\0 and no more")
    (tmp_path / "frame.png").write_bytes(b"")
    for name, said in {
        "nan.npy": "NaN",
        "bool.npy": "expected numbers",
        "complex.npy": "expected numbers",
        "time.npy": "expected numbers",
        "large.npy": "too large",
        "number.npy": "finite number",
        "huge.npy": "finite number",
        "one_bad.npy": "infinite",
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


TILE = (64, 80)


@pytest.mark.parametrize(
    "shape",
    [(64, 80), (64, 80, 1), (1, 64, 80), (5, 64, 80), (2, 5, 64, 80), (5, 64, 80, 1), (3, 64, 80)],
)
def test_frames_and_stacks_of_them(shape: tuple[int, ...]) -> None:
    frame = 100 + RNG.random(TILE)
    number = int(np.prod(shape)) // frame.size
    stack = frame * (1 + np.arange(number))[:, None, None]
    values = stack.reshape(shape)
    np.testing.assert_allclose(averaged(values, TILE), frame * (1 + number) / 2, rtol=1e-6)
    np.testing.assert_allclose(averaged(values), frame * (1 + number) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((64, 80, 3), "samples of a colour"),
        ((64, 80, 4), "samples of a colour"),
        ((5, 64, 80, 3), "samples of a colour"),
        ((128, 160, 3), "samples of a colour"),
        ((64, 80, 2), r"np\.moveaxis\(frames, -1, 0\)"),
        # 64 images of 80 x 100 pixels have the aspect of the tile.
        ((64, 80, 100), r"np\.moveaxis\(frames, -1, 0\)"),
        ((32, 40, 7), r"np\.moveaxis\(frames, -1, 0\)"),
    ],
)
def test_a_last_axis_that_is_not_x(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        averaged(np.ones(shape), TILE)


def test_single_numbers_of_any_shape() -> None:
    for values in (np.array(101.5), np.array([101.5]), np.full((1, 1, 1), 101.5)):
        assert averaged(values, TILE) == 101.5


def test_files_that_only_pretend(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", DARK)
    whole = (tmp_path / "whole.npy").read_bytes()
    for cut in (0, 5, 60, len(whole) - 1):
        (tmp_path / "cut.npy").write_bytes(whole[:cut])
        with pytest.raises(ProfileError, match="cannot be read"):
            load_darkfield(tmp_path / "cut.npy", ["A"])
    for shape in (b"(6, 1000000000000000,)", b"(" * 5000, b"(6, 8, ", b"(-6, -8), "):
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + b"}"
        length = len(header).to_bytes(2, "little")
        (tmp_path / "declared.npy").write_bytes(whole[:8] + length + header)
        with pytest.raises(ProfileError, match="cannot be read"):
            load_darkfield(tmp_path / "declared.npy", ["A"])
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npy")
        with pytest.raises(ProfileError, match="not a regular file"):
            load_darkfield(tmp_path / "pipe.npy", ["A"])


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
