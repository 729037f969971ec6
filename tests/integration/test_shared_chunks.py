"""Imports of stacks whose chunks do not begin where blocks do: decoded once, and the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading import errors, import_mesospim
from fractal_mesospim_shading.engine import cluster, plan, resources
from fractal_mesospim_shading.engine.memory_needed import needed_memory
from fractal_mesospim_shading.images import target
from fractal_mesospim_shading.jobs import background_parts
from fractal_mesospim_shading.jobs.importing import plan_import, plan_imports
from fractal_mesospim_shading.jobs.outlook import outlook
from fractal_mesospim_shading.options.flatfield import ImportOptions
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings
from tests.support.sources import decoded_chunks

SETTINGS = SyntheticSettings(tile_shape=(40, 56), chunks=(4, 20, 28))
SIGNS = {"sign_x": -1, "sign_y": -1}
CHUNKS = 6 * 4 * 2 * 2

pytestmark = pytest.mark.usefixtures("two_threads")

KINDS = {
    "copied": {},
    "corrected": {"correct_flatfield": True},
    "corrected to float32": {"correct_flatfield": True, "output_type": "float32"},
    "corrected twice": {"correct_flatfield": True, "background": {"method": "tile_median"}},
}


@pytest.fixture
def container(tmp_path, monkeypatch) -> str:
    """Six tiles of 14 planes: downward, upward, from several heights; a block for each chunk.

    They do not overlap, so that nothing but the blocks reads them.
    """
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    step, spans = SETTINGS.z_step_um, [(13, 0), (0, 13), (3, 16), (14, 1), (17, 4), (5, 18)]
    tiles = grid_stacks(3, 2, SETTINGS, overlap_px=0)
    stacks = [
        replace(stack, z_start_um=start * step, z_end_um=end * step)
        for stack, (start, end) in zip(tiles, spans, strict=True)
    ]
    return str(write_acquisition(tmp_path, "brain.ome.zarr", stacks, SETTINGS))


def _arguments(tmp_path: Path, kind: str) -> dict:
    folder = tmp_path / "models" / "488 nm"
    if not folder.exists():
        folder.mkdir(parents=True)
        x = np.linspace(-1, 1, 56)
        flat = np.tile(1 - 0.3 * x**2, (40, 1))
        np.savez(folder / "profiles.npz", flatfield=flat / flat.mean(), darkfield=100.0)
    given = {"models_folder": str(tmp_path / "models")} if KINDS[kind] else {}
    return {**SIGNS, **KINDS[kind], **given, "report": False}


def _imported(container: str, folder: Path, tree, **arguments):
    (result,) = import_mesospim(container, str(folder), **arguments)
    return tree(Path(result.image_url))


@pytest.fixture
def each_by_itself(monkeypatch):
    """Runs a function with no room for what blocks share."""

    def run(function, *arguments, **named):
        with monkeypatch.context() as patched:
            patched.setattr(cluster, "room_to_share", lambda plan, use: 0)
            return function(*arguments, **named)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 5])
def test_each_chunk_is_decoded_once(tmp_path, container, tree, each_by_itself, kind, workers):
    arguments = _arguments(tmp_path, kind)
    with decoded_chunks() as decoded:
        wanted = each_by_itself(_imported, container, tmp_path / "before", tree, **arguments)
    # Most chunks belong to two blocks.
    assert len(decoded) == CHUNKS
    assert sum(decoded.values()) > 1.5 * CHUNKS
    with decoded_chunks() as decoded:
        found = _imported(container, tmp_path / "out", tree, n_workers=workers, **arguments)
    assert len(decoded) == CHUNKS
    assert set(decoded.values()) == {1}
    assert found == wanted


def test_little_memory_decodes_again(tmp_path, container, tree, each_by_itself):
    arguments = _arguments(tmp_path, "copied")
    wanted = each_by_itself(_imported, container, tmp_path / "before", tree, **arguments)
    (unit,) = plan_imports([container], str(tmp_path / "planned"), ImportOptions(**SIGNS))
    work = plan_import(unit, ImportOptions(**SIGNS))
    least = needed_memory(work.parts[0].plan, 1)
    sums = []
    for number, more in enumerate((0, 60_000, 10_000_000)):
        with decoded_chunks() as decoded:
            found = _imported(
                container,
                tmp_path / f"out{number}",
                tree,
                n_workers=1,
                memory_limit=str(least + more),
                **arguments,
            )
        assert found == wanted
        assert max(decoded.values()) <= 2
        sums.append(sum(decoded.values()))
    assert sums[0] > sums[1] > sums[2] == CHUNKS


def test_what_broke_off_goes_on(tmp_path, container, tree, each_by_itself, monkeypatch):
    """What blocks left for each other is gone; the others decode what they need, once."""
    arguments = {**_arguments(tmp_path, "corrected"), "n_workers": 2}
    wanted = each_by_itself(_imported, container, tmp_path / "before", tree, **arguments)
    written, write = [], target.TargetImage.write

    def failing(self, level, box, data):
        if len(written) >= 40:
            raise errors.OutputWriteError("the disk is full")
        written.append(box)
        return write(self, level, box, data)

    with monkeypatch.context() as patched:
        patched.setattr(target.TargetImage, "write", failing)
        with pytest.raises(errors.OutputWriteError, match="full"):
            import_mesospim(container, str(tmp_path / "out"), **arguments)
    with decoded_chunks() as decoded:
        found = _imported(container, tmp_path / "out", tree, **arguments)
    assert found == wanted
    assert len(decoded) < CHUNKS
    assert set(decoded.values()) == {1}


@pytest.mark.slow
def test_processes_give_the_same_bytes(tmp_path, container, tree, each_by_itself):
    arguments = _arguments(tmp_path, "corrected")
    wanted = each_by_itself(_imported, container, tmp_path / "before", tree, **arguments)
    elsewhere = {"execution": "processes", "n_workers": 2}
    assert _imported(container, tmp_path / "out", tree, **arguments, **elsewhere) == wanted


def test_the_memory_is_foreseen(tmp_path, container):
    options = ImportOptions(**SIGNS, n_workers=2)
    (unit,) = plan_imports([container], str(tmp_path / "out"), options)
    work = plan_import(unit, options)
    blocks = work.parts[0].plan
    block = needed_memory(blocks, 2)
    whole = blocks.source.shared_bytes(blocks.grid.boxes[0], 2)
    assert whole > 0
    assert outlook(work).memory_bytes == block + whole

    def room(more: int) -> int:
        return resources.room_to_share(blocks, resources.Resources(2, block + more))

    assert [room(more) for more in (0, 1000, 2 * whole, 9 * whole)] == [0, 500, whole, whole]
    assert room(-1000) == 0
    processes = ImportOptions(**SIGNS, n_workers=2, execution="processes")
    needed = needed_memory(blocks, 2, processes=True)
    assert outlook(plan_import(unit, processes)).memory_bytes == needed > block
