"""Whether planes that go through files have room there, asked before a pixel is read."""

from __future__ import annotations

import gc
import tempfile
import weakref
from collections import namedtuple
from collections.abc import Callable
from contextlib import nullcontext
from math import prod
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
from fractal_mesospim_shading.jobs.flatfield import plan_flatfield
from fractal_mesospim_shading.jobs.outlook import outlook
from fractal_mesospim_shading.local_background import deep, kernel, scratch
from fractal_mesospim_shading.local_background.planes import PlaneCorrection
from fractal_mesospim_shading.local_background.regions import Regions
from fractal_mesospim_shading.local_background.room import filed_bytes
from fractal_mesospim_shading.local_background.scratch import kept_in_files, scratch_file
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
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
    assert filed_bytes(found, (8, 256, 256), *arguments) == expected
    assert filed_bytes(found, (8, side, side), *arguments) == 0


@pytest.mark.parametrize(("side", "through"), [(1000, 0), (5000, 2 * 8)])
def test_how_much_of_a_stack_goes_through_files(side: int, through: int) -> None:
    """The planes of a block and those around it, in whole chunks, whatever the block."""
    layout, method = TileLayout.single((side, side)), make_method("median", radius_z_px=3)
    found = Regions(Axes("zyx"), layout, (method,), 100, True, False)
    for block in ((8, 256, 256), (8, side, side)):
        needed = filed_bytes(found, block, np.dtype("uint16"), (8, 256, 256))
        assert needed == (24 * (2 + 2) + through) * side**2


SHAPE = (4, 600, 600)
NEEDED = 4 * prod(SHAPE)


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A fused image of one chunk along z."""
    url = str(tmp_path / "fused.zarr")
    write_image(url, np.full(SHAPE, 300, np.uint16), axes="zyx", chunks=(4, 100, 100))
    return url


@pytest.fixture
def options(tmp_path: Path) -> BackgroundOptions:
    return BackgroundOptions(method="sliding_paraboloid", output_folder=str(tmp_path / "o"))


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes are cut into blocks."""
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    monkeypatch.setattr(background_parts, "_MOST_BLOCK_BYTES", 1)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how many bytes are free on all disks."""

    def says(number: int) -> None:
        usage = Usage(2 * NEEDED, 0, number)
        monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: usage)

    monkeypatch.setattr("fractal_mesospim_shading.jobs.work.Work.expected_bytes", lambda _: 0)
    return says


@pytest.mark.usefixtures("in_parts")
def test_too_little_room_is_told_before_a_pixel_is_read(
    image: str, options: BackgroundOptions, free: Callable[[int], None]
) -> None:
    free(NEEDED - 1)
    with pytest.raises(OutputWriteError, match="whole planes.*Set the environment variable"):
        plan_background(image, options)


@pytest.mark.usefixtures("in_parts")
def test_the_room_is_said_before_anything_is_done(
    image: str, options: BackgroundOptions, free: Callable[[int], None]
) -> None:
    free(NEEDED)
    said = outlook(plan_background(image, options))
    assert said.temporary_bytes == said.temporary_free_bytes == NEEDED
    (line,) = [line for line in said.lines() if "temporary files" in line]
    assert f"temporary files of 5.76 MB or more in {tempfile.gettempdir()}, of 5.76 MB" in line


@pytest.mark.usefixtures("in_parts")
def test_planes_that_the_first_correction_makes_are_kept_in_float32(
    image: str, free: Callable[[int], None]
) -> None:
    """In one pass the background is that of what the flat-field leaves, and not of the source."""
    free(2 * NEEDED)
    asked = {"method": '{"method": "gaussian", "radius_z_planes": 2}', "add_noise_bias": True}
    alone = outlook(plan_background(image, BackgroundOptions(**asked)))
    both = outlook(plan_flatfield(image, FlatfieldOptions(background=asked, fov_list=[1])))
    # Two bytes say whether a pixel has data, and whether it counts.
    assert alone.temporary_bytes == prod(SHAPE) * (2 + 2)
    assert both.temporary_bytes == prod(SHAPE) * (4 + 2)


def test_whole_planes_in_memory_need_no_room(
    image: str, options: BackgroundOptions, free: Callable[[int], None]
) -> None:
    free(1)
    said = outlook(plan_background(image, options))
    assert (said.temporary_bytes, said.temporary_folder) == (0, "")
    assert not [line for line in said.lines() if "temporary files" in line]


def test_what_is_kept_makes_way_where_there_is_no_room(free: Callable[[int], None]) -> None:
    kept = kept_in_files()
    for key, room in enumerate([5, 5, 4]):
        free(room)
        kept.get(key, lambda: "made", 5)
    made: list[int] = []
    for key in (2, 1, 0):
        kept.get(key, lambda key=key: made.append(key) or "again", 1)  # type: ignore[misc]
    assert made == [1, 0]


@pytest.mark.slow
@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(
    "method", ["sliding_paraboloid", '{"method": "gaussian", "radius_z_planes": 2}']
)
@pytest.mark.parametrize("fails", [True, False])
def test_files_are_gone_with_the_run(
    image: str,
    options: BackgroundOptions,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
    method: str,
) -> None:
    """Not only with the process, which may be a notebook or a server."""
    files: list[weakref.ref[Any]] = []

    def noted() -> Any:
        file = scratch_file()
        files.append(weakref.ref(file))
        return file

    for module in (kernel, deep):
        monkeypatch.setattr(module, "scratch_file", noted)
    if fails:
        monkeypatch.setattr(PlaneCorrection, "apply", None)
    asked = {"method": method, "add_noise_bias": True, "output_folder": options.output_folder}
    with pytest.raises(TypeError) if fails else nullcontext():
        correct_background(image, BackgroundOptions(**asked))
    gc.collect()
    assert files and all(file() is None for file in files)
