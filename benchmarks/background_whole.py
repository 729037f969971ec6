"""A whole image through each background method, against a plain copy and the method alone.

    python benchmarks/background_whole.py --folder /somewhere/with/room --repeats 3

The command writes a float32 image with its pyramid; *copy* is level 0 of such a result by the
faster of zarrs and tensorstore; *alone* is the processor time in which the background of each plane
of each tile is estimated and taken away in memory; its wall time is taken for the half of it, both
processors busy to the end. Each with its default parameters, without the report.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from benchmark_images import ImageSetting, made_apart
from measuring import Measured, measured, medians, settle
from throughput import COPIES, THREADS, programs, use_processors

IMAGE = ImageSetting("background-whole", "0.4", "lz4", (32, 512, 512), planes=64)
SAMPLED = 8
"""Every so many planes go through the method alone."""


def method_alone(image: str, name: str) -> None:
    """Processor time of a method for all tiles and planes of an image, as JSON."""
    import numpy as np
    import zarr

    from fractal_mesospim_shading.core.background import make_method

    pixels = zarr.open_array(f"{image}/0", mode="r")[0, ::SAMPLED]
    height, width = IMAGE.tile_shape
    starts = product(range(0, pixels.shape[1], height), range(0, pixels.shape[2], width))
    tiles = [plane[y : y + height, x : x + width] for y, x in starts for plane in pixels]
    method = make_method(name)

    def one(tile: np.ndarray) -> None:
        background = method.background(tile).background
        np.clip(np.rint(tile - background), 0, 65535).astype(tile.dtype)

    one(tiles[0])  # kernels are compiled or loaded
    start = time.process_time()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, tiles))
    print(json.dumps({"seconds": (time.process_time() - start) * SAMPLED}))


def correct(image: Path, method: str, output: Path) -> list[str]:
    """The command of a method with its default parameters."""
    return [
        *(sys.executable, "-m", "fractal_mesospim_shading.cli", "correct-background"),
        *(str(image), "--method", method, "--output-folder", str(output), "--no-report"),
    ]


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        method_alone(*sys.argv[2:])
        return
    from fractal_mesospim_shading.core.background import METHODS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    given = parser.parse_args()
    use_processors(THREADS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        image, output = made_apart(IMAGE, folder), folder / "output"
        result = folder / "results" / f"{image.name}_background_corr"
        measured([*correct(image, "gaussian", result.parent), "--overwrite"])
        commands = programs(result, output, ("zarrs", "tensorstore"), False, False)
        commands.pop("ours")
        for name in given.methods:
            commands[name] = correct(image, name, output)
            commands[f"{name} alone"] = [sys.executable, __file__, "--child", str(image), name]
        runs: dict[str, list[Measured]] = {}
        for _ in range(given.repeats):
            for name, command in commands.items():
                shutil.rmtree(output, ignore_errors=True)
                settle()
                runs.setdefault(name, []).append(measured(command))
        shutil.rmtree(output, ignore_errors=True)
        found = {name: medians(some) for name, some in runs.items()}
        copy = min((found[name] for name in COPIES if name in found), key=lambda run: run.wall)
        print(f"\ncopy: {copy.wall:.1f} s, {copy.cpu:.1f} s of CPU\n")
        print("| method | whole: wall, CPU s | alone, CPU s | wall / (copy + alone) | CPU |")
        print("|---|---|---|---|---|")
        for name in given.methods:
            whole, alone = found[name], found[f"{name} alone"].inside
            print(
                f"| {name} | {whole.wall:.1f}, {whole.cpu:.1f} | {alone:.1f} "
                f"| {whole.wall / (copy.wall + alone / THREADS):.2f} "
                f"| {whole.cpu / (copy.cpu + alone):.2f} |"
            )


if __name__ == "__main__":
    main()
