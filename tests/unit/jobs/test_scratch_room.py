"""Whether planes that go through files have room there, asked before a pixel is read."""

from __future__ import annotations

import gc
import weakref
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.images.source import Axes
from fractal_mesospim_shading.jobs import background_parts
from fractal_mesospim_shading.jobs.background import correct_background, plan_background
from fractal_mesospim_shading.local_background import kernel
from fractal_mesospim_shading.local_background.planes import PlaneCorrection
from fractal_mesospim_shading.local_background.regions import Regions
from fractal_mesospim_shading.local_background.scratch import scratch_file
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.synthetic.images import write_image

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("method", "masked", "side", "expected"),
    [
        ("sliding_paraboloid", False, 1000, 4 * 8 * 1000**2),
        ("gaussian", True, 1000, 4 * 8 * 1000**2),
        # The pixels that are corrected in place of the image's as well.
        ("difference_of_filters", True, 1000, 8 * 8 * 1000**2),
        # The raw planes are more than is read at a time.
        ("gaussian", True, 5000, (4 + 2) * 8 * 5000**2),
        ("tile_median", True, 5000, 2 * 8 * 5000**2),
        ("tile_median", True, 1000, 0),
        ("gaussian", False, 5000, 0),
    ],
)
def test_how_much_goes_through_files(method: str, masked: bool, side: int, expected: int) -> None:
    layout = TileLayout.single((side, side))
    found = Regions(Axes("zyx"), layout, (make_method(method),), 20, masked, False)
    arguments = (np.dtype("uint16"), (8, 256, 256))
    assert found.filed_bytes((8, 256, 256), *arguments) == expected
    assert found.filed_bytes((8, side, side), *arguments) == 0


@pytest.mark.parametrize("in_parts", [True, False])
def test_too_little_room_is_told_before_a_pixel_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_parts: bool
) -> None:
    image = str(tmp_path / "fused.zarr")
    pixels = np.full((4, 600, 600), 300, np.uint16)
    write_image(image, pixels, axes="zyx", chunks=(4, 100, 100))
    needed = 4 * pixels.size
    if in_parts:
        monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
        monkeypatch.setattr(background_parts, "_MOST_BLOCK_BYTES", 1)

    def planned(free: int) -> Any:
        usage = Usage(2 * needed, 0, free)
        monkeypatch.setattr(background_parts.shutil, "disk_usage", lambda _: usage)
        options = BackgroundOptions(method="sliding_paraboloid", output_folder=str(tmp_path / "o"))
        return plan_background(image, options)

    assert planned(10**12)
    monkeypatch.setattr("fractal_mesospim_shading.jobs.work.Work.expected_bytes", lambda _: 0)
    if in_parts:
        with pytest.raises(OutputWriteError, match="whole planes.*Set the environment variable"):
            planned(needed - 1)
    assert planned(needed)


@pytest.mark.parametrize("fails", [True, False])
def test_files_are_gone_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Not only with the process, which may be a notebook or a server."""
    image = str(tmp_path / "fused.zarr")
    pixels = np.full((4, 600, 600), 300, np.uint16)
    write_image(image, pixels, axes="zyx", chunks=(4, 100, 100))
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    monkeypatch.setattr(background_parts, "_MOST_BLOCK_BYTES", 1)
    files: list[weakref.ref[Any]] = []

    def noted() -> Any:
        file = scratch_file()
        files.append(weakref.ref(file))
        return file

    monkeypatch.setattr(kernel, "scratch_file", noted)
    if fails:
        monkeypatch.setattr(PlaneCorrection, "apply", None)
    options = BackgroundOptions(method="sliding_paraboloid", output_folder=str(tmp_path / "o"))
    with pytest.raises(TypeError) if fails else nullcontext():
        correct_background(image, options)
    gc.collect()
    assert files and all(file() is None for file in files)
