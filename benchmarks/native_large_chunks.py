"""Import and correct an acquisition whose chunks are 480 MB, as shipped microscope settings write.

    python benchmarks/native_large_chunks.py FOLDER [--memory-limit 4GB] [--workers 2]

Writes two tiles of 128 x 2528 x 2960 pixels in chunks of 128 x 1264 x 1480 (0.4, no pyramid;
3.8 GB of pixels) once, then runs the import, the import with correction and the correction
of the container, each in a process of its own, and prints the time of each against a plain
copy of all chunks with zarr, the peak memory, and how often chunks were decoded.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import zarr
from measuring import measured, settle

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.acquisition import write_acquisition
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack

SHAPE, CHUNK = (128, 2528, 2960), (128, 1264, 1480)
TILES = 2

COPY = """
import json, sys, time, zarr
from itertools import product
from pathlib import Path
source, target = Path(sys.argv[1]), Path(sys.argv[2])
start = time.perf_counter()
for path in sorted(source.glob("Mag*")):
    array = zarr.open_array(str(path / "0"), mode="r")
    copy = zarr.create_array(
        str(target / path.name), shape=array.shape, chunks=array.chunks, dtype=array.dtype,
        compressors=array.compressors, zarr_format=2, fill_value=0,
    )
    ranges = (range(0, n, c) for n, c in zip(array.shape, array.chunks))
    for origin in product(*ranges):
        box = tuple(slice(o, o + c) for o, c in zip(origin, array.chunks))
        copy[box] = array[box]
print(json.dumps({'seconds': time.perf_counter() - start}))
"""

COUNTED = """
import sys
from collections import Counter
from itertools import product
from math import ceil
from fractal_mesospim_shading import cli
from fractal_mesospim_shading.images import mosaic
from fractal_mesospim_shading.images.native import stack
decoded = Counter()
def count(where, chunks, box):
    ranges = (range(s.start // c, ceil(s.stop / c)) for s, c in zip(box, chunks))
    decoded.update((where, *index) for index in product(*ranges))
plain, image = stack.read_array, mosaic.MosaicImage.read
def read_array(array, where, box):
    count(where, array.chunks, box)
    return plain(array, where, box)
def read(self, level, box):
    count(self.url, self.levels[level].chunks, box)
    return image(self, level, box)
stack.read_array, mosaic.MosaicImage.read = read_array, read
code = cli.main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(f"{len(decoded)} chunks decoded, each at most {max(decoded.values())} times")
sys.exit(code)
"""


def write(folder: Path) -> Path:
    """The acquisition; each plane is the same noise, moved along, so that writing is quick."""
    settings = SyntheticSettings(version="0.4", tile_shape=(8, 8), z_step_um=5.0, xml=False)
    step_um = 0.9 * SHAPE[2] * settings.pixel_um
    stacks = [
        SyntheticStack(i, x_um=i * step_um, y_um=0.0, z_end_um=5.0 * (SHAPE[0] - 1))
        for i in range(TILES)
    ]
    container = folder / "large.ome.zarr"
    if container.exists():
        return container
    write_acquisition(folder, container.name, [replace(s, planes=1) for s in stacks], settings)
    noise = np.random.default_rng(0).poisson(25, (SHAPE[1], SHAPE[2] + SHAPE[0])) + 100
    for number, stack in enumerate(stacks):
        group = zarr.open_group(str(container / stack.group_name), mode="r+")
        array = group.create_array(
            "0",
            shape=SHAPE,
            chunks=CHUNK,
            dtype="uint16",
            fill_value=0,
            overwrite=True,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        pixels = np.empty(SHAPE, np.uint16)
        for z in range(SHAPE[0]):
            pixels[z] = noise[:, z : z + SHAPE[2]] + 3 * number
        array[...] = pixels
    return container


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--memory-limit", default="4GB")
    parser.add_argument("--workers", default="2")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    # In a process of its own, whose memory is not handed down to those that are measured.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        container = pool.submit(write, given.folder).result()
    size = sum(path.stat().st_size for path in container.rglob("*") if path.is_file())
    print(f"{size / 1e9:.2f} GB on disk")
    out, counts = given.folder / "out", given.folder / "counts.txt"
    where = ["--memory-limit", given.memory_limit, "--n-workers", given.workers]
    signs = ["--sign-x", "-1", "--sign-y", "-1"]
    # Two steps of empty planes: a single chunk holds all of them.
    models = ["--z-levels", "4,123", "--camera-offset", "100", "--n-zplanes", "16"]
    imported = ["import", str(container), "--zarr-dir", str(out), *signs, *where]
    runs = {
        "plain copy": [sys.executable, "-c", COPY, str(container), str(out)],
        "import": [sys.executable, "-c", COUNTED, str(counts), *imported],
        "import, corrected": [
            *(sys.executable, "-c", COUNTED, str(counts), *imported),
            *("--correct-flatfield", *models),
        ],
        "correct container": [
            *(sys.executable, "-c", COUNTED, str(counts), "correct-flatfield", str(container)),
            *("--output-folder", str(out), *models, *where),
        ],
    }
    for name, command in runs.items():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        settle()
        found = measured(command)
        print(f"{name:20} {found.wall:7.1f} s  {found.cpu:7.1f} s CPU  {found.peak / 1e9:5.2f} GB")
        if counts.exists():
            print(f"{'':20} {counts.read_text()}")
            counts.unlink()
    shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
