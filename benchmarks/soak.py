"""Correct an image of very many blocks: memory and time per block have to stay what they are.

    python benchmarks/soak.py --gigabytes 100 --folder /somewhere/with/15/GB

The source has that many bytes of raw pixels. Within a plane its rows repeat, and so do those of
the result, since the flat-field falls off along x alone: zstd makes both together less than a tenth
of it. Planes repeat after some hundred: only so many are made and encoded, and the files of the
others are copies of theirs, each of its own bytes on disk. For each tenth of the blocks, the
processor time and the wall time of a block and the largest memory of the process are printed, and
the whole as JSON in the last line. Pixels of some planes are held against the formula.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from numpy.typing import NDArray

TILE = 512
GRID = 4
DEEP = 32
"""Planes of a chunk."""

ROWS = 32
"""After so many rows a plane repeats itself."""

PERIOD = 128
"""After so many planes the image repeats itself."""

OFFSET = 100.0
CHANNEL = "488 nm"


def flatfield() -> NDArray[np.float32]:
    """Of mean 1, falling off along x."""
    profile = 1.2 - 0.4 * np.linspace(-1, 1, TILE) ** 2
    return np.broadcast_to(profile / profile.mean(), (TILE, TILE)).astype(np.float32)


def pool() -> NDArray[np.uint16]:
    """The noise that all planes show, each turned on from the one before."""
    light = np.random.default_rng(0).poisson(400, (ROWS, TILE))
    return np.asarray(OFFSET + light, np.uint16)


def plane(noise: NDArray[np.uint16], z: int) -> NDArray[np.uint16]:
    """What a plane shows: the same in each tile."""
    turned = np.roll(noise, (z % ROWS, z % PERIOD * 37 % TILE), axis=(0, 1))
    return np.tile(turned, (GRID * TILE // ROWS, GRID))


def write_source(folder: str, planes: int) -> None:
    """Write the image and its model: one period of planes, and copies of its files."""
    from fractal_mesospim_shading.core.profile import ShadingProfile
    from fractal_mesospim_shading.images.models.folder import save_models
    from fractal_mesospim_shading.images.roi_tables import write_roi_tables
    from fractal_mesospim_shading.synthetic.images import ImageStyle, new_image
    from fractal_mesospim_shading.synthetic.world import grid_layout

    side = GRID * TILE
    noise = pool()

    def pixels(lead: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        return np.stack([plane(noise, z) for z in range(start, stop)])

    style = ImageStyle(chunks=(DEEP, TILE, TILE), factors=((1, 2, 2),) * 3, codec="zstd")
    url = f"{folder}/image.zarr"
    new_image(
        url,
        (1, min(planes, PERIOD), side, side),
        np.dtype(np.uint16),
        pixels,
        style,
        layout=None,
        original_um=None,
        channels=[CHANNEL],
        overwrite=False,
        storage_options=None,
    )
    for _, array in zarr.open_group(url, mode="r+").arrays():
        array.resize((1, planes, *array.shape[2:]))
        # The files of channel 0, a folder for each layer of chunks.
        layers = Path(url, array.basename, "0")
        for layer in range(PERIOD // DEEP, planes // DEEP):
            shutil.copytree(layers / str(layer % (PERIOD // DEEP)), layers / str(layer))
    layout = grid_layout((side, side), (TILE, TILE))
    voxel_um = dict(zip("zyx", style.pixel_size_um, strict=True))
    write_roi_tables(url, layout, voxel_um, planes, None, None)
    save_models(f"{folder}/models", {CHANNEL: ShadingProfile.create(flatfield())})


@dataclass
class Record:
    """When each block was finished, and how much memory there was then.

    Attributes:
        total: how many blocks there are.
        wall, cpu: seconds since the start.
        memory: bytes.
    """

    total: int = 0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def note(self, what: str, done: int, total: int) -> None:
        """As the correction tells how far it is."""
        if what == "Correcting":
            self.total = total
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())
            self.memory.append(psutil.Process().memory_info().rss)


@dataclass(frozen=True)
class Tenth:
    """A tenth of the blocks: seconds of a block, and the largest memory in bytes."""

    blocks: int
    wall: float
    cpu: float
    memory: int


def tenths(record: Record) -> list[Tenth]:
    """The record in ten parts, from the end of the first block on."""
    edges = np.linspace(1, len(record.wall) - 1, 11).astype(int)
    return [
        Tenth(
            int(stop - start),
            (record.wall[stop] - record.wall[start]) / (stop - start),
            (record.cpu[stop] - record.cpu[start]) / (stop - start),
            max(record.memory[start : stop + 1]),
        )
        for start, stop in pairwise(edges)
    ]


def wrong_planes(source: Path, result: Path) -> list[int]:
    """Planes of a sample that are not what the formula says, to the last count."""
    before, after = (zarr.open_array(image / "0", mode="r") for image in (source, result))
    profile = np.tile(flatfield().astype(np.float64), (GRID, GRID))
    wrong = []
    for z in np.linspace(0, before.shape[1] - 1, 7).astype(int).tolist():
        expected = (np.asarray(before[0, z], np.float64) - OFFSET) / profile
        # Single precision rounds a half this way or that.
        if np.abs(np.asarray(after[0, z]) - expected).max() > 0.501:
            wrong.append(z)
    return wrong


def size_of(folder: Path) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=100)
    parser.add_argument("--folder", default="/tmp/soak")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    folder = Path(given.folder)
    if folder.exists():
        sys.exit(f"{folder} is there already; name a folder that is not.")
    folder.mkdir(parents=True)
    try:
        return soaked(folder, given.gigabytes, given.workers)
    finally:
        shutil.rmtree(folder)


def made(folder: Path, planes: int) -> Path:
    """Write a source, in a process of its own: what it leaves in memory is not counted."""
    folder.mkdir()
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        executor.submit(write_source, str(folder), planes).result()
    return folder / "image.zarr"


def corrected(source: Path, workers: int, record: Record) -> Path:
    """Correct the image of a source with the model beside it."""
    from fractal_mesospim_shading import correct_flatfield

    result = correct_flatfield(
        str(source),
        models_folder=str(source.with_name("models")),
        camera_offset=OFFSET,
        n_workers=workers,
        report=False,
        progress=record.note,
    )
    return Path(result.image_url)


def soaked(folder: Path, gigabytes: float, workers: int) -> int:
    """Write, correct, look: 0 where every plane is right."""
    plane_bytes = 2 * (GRID * TILE) ** 2
    planes = max(DEEP, round(gigabytes * 1e9 / plane_bytes / DEEP) * DEEP)
    # What is loaded or compiled once is not counted either.
    corrected(made(folder / "small", DEEP), workers, Record())
    start = time.perf_counter()
    source = made(folder / "large", planes)
    written = time.perf_counter()
    record = Record()
    result = corrected(source, workers, record)
    ended = time.perf_counter()
    parts = tenths(record)
    for number, part in enumerate(parts, 1):
        print(
            f"tenth {number:2}: {part.blocks} blocks, {part.cpu:.3f} s of a processor and "
            f"{part.wall:.3f} s each, at most {part.memory / 2**20:.0f} MiB"
        )
    wrong = wrong_planes(source, result)
    summary = {
        "raw_gigabytes": planes * plane_bytes / 1e9,
        "stored_gigabytes": (size_of(source) + size_of(result)) / 1e9,
        "seconds_to_write": written - start,
        "seconds_to_correct": ended - written,
        "blocks": record.total,
        "cpu_last_to_first": parts[-1].cpu / parts[0].cpu,
        "memory_last_to_first": parts[-1].memory / parts[0].memory,
        "wrong_planes": wrong,
        "tenths": [asdict(part) for part in parts],
    }
    print(json.dumps(summary))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
