"""Guards and limits that nobody notices as long as all goes well.

Each test fails when the line that it is about is taken out.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import weakref
from collections import namedtuple
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zarr

import fractal_mesospim_shading as shading
from fractal_mesospim_shading.core.blocks import BlockGrid, Node
from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.emptiness import find_empty
from fractal_mesospim_shading.core.pyramid import Histogram
from fractal_mesospim_shading.engine import job_folder, resources
from fractal_mesospim_shading.engine import plan as engine_plan
from fractal_mesospim_shading.engine.memory_needed import needed_memory
from fractal_mesospim_shading.engine.plan import CorrectionPlan, Mean, NodeResult, process_parent
from fractal_mesospim_shading.engine.records import Move
from fractal_mesospim_shading.errors import (
    ImageFormatError,
    MemoryLimitError,
    OutputWriteError,
)
from fractal_mesospim_shading.images.models.folder import load_models
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs.ending import complete
from fractal_mesospim_shading.jobs.preparation import OutputPlan, block_plan, plan_output
from fractal_mesospim_shading.options.base import ExecutionOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

Write = Callable[..., Path]
GB = 10**9


def _planned(source: Path) -> tuple[MosaicImage, OutputPlan]:
    image = MosaicImage.open(source)
    return image, plan_output(image, FlatfieldOptions(output_image_name="out"))


def _blocks(source: Path) -> CorrectionPlan:
    image, output = _planned(source)
    return block_plan(image, output.target, output.final_url)


# --- A result is opened with ome-zarr before it counts as complete ----------------------------


def _complete(image: MosaicImage, output: OutputPlan) -> None:
    histograms = {channel.label: Histogram.of(np.arange(10)) for channel in image.channels}
    complete(output.target, output.attributes, image.channels, histograms, {})


def test_a_result_that_ome_zarr_reads_is_completed(make_mosaic: Write) -> None:
    image, output = _planned(make_mosaic())
    output.target.create(output.attributes)
    _complete(image, output)
    assert MosaicImage.open(output.target.url).finished


def test_a_result_without_one_of_its_levels_is_not_completed(make_mosaic: Write) -> None:
    image, output = _planned(make_mosaic())
    output.target.create(output.attributes)
    shutil.rmtree(Path(output.target.url) / image.levels[1].path)
    with pytest.raises(ImageFormatError, match="ome-zarr cannot open"):
        _complete(image, output)


def test_a_result_with_another_pyramid_is_not_completed(make_mosaic: Write) -> None:
    image, output = _planned(make_mosaic())
    output.target.create(output.attributes)
    document = Path(output.target.url) / image.levels[1].path / ".zarray"
    content = json.loads(document.read_text())
    content["shape"][-1] -= 1
    document.write_text(json.dumps(content))
    with pytest.raises(ImageFormatError, match="ome-zarr reads the levels"):
        _complete(image, output)


# --- What stood in the place of a result comes back when the renaming fails --------------------


def test_what_was_put_aside_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, place = tmp_path / "job", tmp_path / "out.zarr"
    (job / "image").mkdir(parents=True)
    place.mkdir()
    (place / "earlier").write_text("result")
    rename = os.rename

    def refused(source: Path, target: Path) -> None:
        if Path(source) == job / "image":
            raise OSError(errno.EACCES, "no permission")
        rename(source, target)

    monkeypatch.setattr(job_folder.os, "rename", refused)
    moves = (Move("image", "out.zarr", True),)
    with pytest.raises(OutputWriteError, match="only the last step is left"):
        job_folder.place_local(str(job), moves)
    assert (place / "earlier").read_text() == "result"
    assert (job / "image").is_dir()
    monkeypatch.undo()
    job_folder.place_local(str(job), moves)
    assert list(place.iterdir()) == []


# --- Single zeros count as values where no offset is taken off ----------------------------------


def test_zeros_of_dim_planes_count_where_the_offset_comes_out_as_0(
    make_mosaic: Write, tmp_path: Path
) -> None:
    """Without them the dim half would look as bright as the other one.

    The planes are all alike, so there is no noise; but no camera with an offset measures zeros.
    """
    tile = np.full((64, 64), 40, np.uint16)
    # Half of the pixels, in every cell and bin.
    tile[::2, :32:2] = tile[1::2, 1:32:2] = 0
    planes = np.broadcast_to(np.tile(tile, (2, 2)), (1, 8, 128, 128))
    source = make_mosaic(
        array=planes, tile_shape=(64, 64), channels=("488 nm",), chunks=(4, 64, 64)
    )
    shading.estimate_flatfield(str(source), str(tmp_path / "out"), n_zplanes=16, fov_list=[1, 2])
    flatfield = load_models(tmp_path / "out", ["488 nm"])["488 nm"].profile.flatfield
    left, right = flatfield[16:48, 8:20].mean(), flatfield[16:48, 44:56].mean()
    assert left / right == pytest.approx(0.5, abs=0.05)


# --- Memory ------------------------------------------------------------------------------------


def test_means_that_wait_take_memory(make_mosaic: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the grid says, each of the size of what a block adds to the next level."""
    monkeypatch.setattr(engine_plan, "BLOCK_BYTES", 1)
    plan = _blocks(make_mosaic())
    needed = needed_memory(plan, 1)

    def with_waiting(number: int) -> int:
        monkeypatch.setattr(BlockGrid, "waiting", lambda grid, level, _: number * (level == 0))
        return needed_memory(plan, 1)

    box, factor = plan.grid.boxes[0], plan.grid.factors[1]
    mean = prod(-(-b // f) for b, f in zip(box, factor, strict=True)) * 2
    assert with_waiting(3) - with_waiting(0) == 3 * mean
    assert needed > with_waiting(0)


def test_planes_read_at_a_time_stay_within_the_limit() -> None:
    """Three times the pixels of a box for each, beside what the process holds."""

    def workers(limit: int) -> int:
        options = ExecutionOptions(n_workers=7, memory_limit=str(limit))
        return resources.estimate_workers(GB, options)

    assert [workers(n * 3 * GB + GB // 2) for n in (1, 2, 3, 6, 100)] == [1, 2, 3, 6, 7]
    assert workers(1) == 1


def test_the_memory_of_the_machine_is_a_limit(
    make_mosaic: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_plan, "BLOCK_BYTES", 1)
    plan = _blocks(make_mosaic())
    blocks = prod(plan.grid.counts(0))
    one, two, every, more = (needed_memory(plan, workers) for workers in (1, 2, blocks, blocks + 1))
    assert one < two < every == more
    Memory = namedtuple("Memory", ["total", "available"])

    def machine(total: int) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(total, total))

    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        monkeypatch.delenv(name, raising=False)
    machine(two)
    assert resources.resources(plan, ExecutionOptions(n_workers=7)).workers == 2
    machine(one - 1)
    with pytest.raises(MemoryLimitError, match="at least"):
        resources.resources(plan, ExecutionOptions(n_workers=7))


# --- A mean is given away ----------------------------------------------------------------------


def test_a_mean_is_let_go_when_it_is_taken() -> None:
    pixels = np.zeros((4, 4))
    mean = Mean((slice(0, 4), slice(0, 4)), [pixels])
    held = weakref.ref(pixels)
    del pixels
    assert mean.take(0).shape == (4, 4)
    assert held() is None
    with pytest.raises(RuntimeError, match="taken twice"):
        mean.take(0)


def test_no_mean_is_held_while_its_parent_is_written(
    make_mosaic: Write, many_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: CorrectionPlan = _blocks(make_mosaic())
    node = Node(1, (0,) * len(plan.target.levels[0].shape))
    children = [
        NodeResult({}, Mean(plan.grid.coarse_box(child), [_pixels_of(plan, child)]))
        for child in plan.grid.children(node)
    ]
    assert children
    pixels = [weakref.ref(child.mean.data[0]) for child in children if child.mean is not None]
    held: list[object] = []

    def write(self: Any, *_: object) -> str:
        held.extend(one() for one in pixels)
        return ""

    monkeypatch.setattr(type(plan.target), "write", write)
    process_parent(plan, node, children)
    assert held == [None] * len(children)


def _pixels_of(plan: CorrectionPlan, node: Node) -> np.ndarray:
    return np.zeros([part.stop - part.start for part in plan.grid.coarse_box(node)], np.uint16)


# --- A plane that is rough everywhere holds sample ----------------------------------------------


@pytest.mark.parametrize(
    ("amplitude", "others", "rough"),
    [(0.013, 0.0, True), (0.008, 0.0, False), (0.013, 0.012, False)],
)
def test_a_plane_that_differs_a_little_everywhere(
    amplitude: float, others: float, rough: bool
) -> None:
    """No square of it differs by as much as counts as sample, but all of them differ.

    What all planes do, none is left out for.
    """
    planes = 1 + np.random.Generator(np.random.PCG64(4)).uniform(-others, others, (20, 8, 8))
    planes[4] = 1 + amplitude * np.where(np.indices((8, 8)).sum(axis=0) % 2 == 0, 1, -1)
    squares = find_empty(_stack_of(100 + 50 * planes), 100.0)
    assert set(squares.reasons) == ({4} if rough else set())
    assert all("differs from the common shape by 1.3 %" in why for why in squares.reasons.values())


def _stack_of(planes: np.ndarray) -> BinnedStack:
    """Planes without noise, of which each value is a square."""
    shape = planes.shape
    cells = np.full(shape, 64, np.int64)
    return BinnedStack(
        tile_shape=(shape[1] * 16, shape[2] * 16),
        bin_px=16,
        integer=False,
        mean=planes.astype(np.float32),
        count=np.full(shape, 256, np.uint16),
        noise_mean=planes.astype(np.float32),
        spatial=np.zeros(shape),
        spatial_cells=cells,
        temporal=np.zeros(shape),
        temporal_cells=cells,
        third=np.zeros(shape),
        third_pixels=cells,
        saturated=0,
    )


# --- Names of axes ------------------------------------------------------------------------------


def test_a_converted_array_names_its_axes_once(make_mosaic: Write, tmp_path: Path) -> None:
    """Zarr v3 has a place for them; the attribute of v2 goes."""
    source = make_mosaic()
    group = zarr.open_group(str(source), mode="r+")
    for name, kind in (("numbers", "uint16"), ("texts", str)):
        group.create_array(
            name, shape=(4,), chunks=(2,), dtype=kind, attributes={"_ARRAY_DIMENSIONS": ["x"]}
        )
    for level in ("0", "1"):
        group[level].attrs["_ARRAY_DIMENSIONS"] = ["c", "z", "y", "x"]
    models = tmp_path / "models" / "488 nm"
    models.mkdir(parents=True)
    np.savez(models / "profiles.npz", flatfield=np.ones((48, 40)))
    shutil.copytree(models, models.parent / "561 nm")
    result = shading.correct_flatfield(
        str(source),
        models_folder=str(models.parent),
        camera_offset=0,
        ngff_version="0.5",
        report=False,
    )
    for name, axes in (("numbers", ["x"]), ("texts", ["x"]), ("0", list("czyx"))):
        document = json.loads((Path(result.image_url) / name / "zarr.json").read_text())
        assert document["dimension_names"] == axes
        assert document["attributes"] == {}
