"""Both corrections in one pass against the two commands, one after the other.

    python benchmarks/one_pass.py --folder /somewhere/with/room --repeats 3

The background command reads a float32 result of the flat-field command. All three run in turn on
two processors with a measured model; the aim is a wall time of one pass of no more than that of
the slower command and a tenth.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr
from benchmark_images import ImageSetting, made_apart
from measuring import Measured, measured, medians, settle
from throughput import BARE, THREADS, ours, use_processors

IMAGE = ImageSetting("one-pass", "0.4", "lz4", (16, 512, 512), planes=16, levels=4)
METHODS = ("tile_median:64", "median:25", "opening:25", "gaussian:25")


def in_floats(image: Path, folder: Path) -> Path:
    """The image with its pixels in float32: a flat-field corrected copy of it is the image that
    lies between the two commands.
    """
    copy = folder / "float32.zarr"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(image, copy)
    for path in sorted(p.parent.name for p in image.glob("*/.zarray")):
        old = zarr.open_array(str(image / path), mode="r")
        made = zarr.create_array(
            str(copy / path),
            shape=old.shape,
            dtype="float32",
            chunks=old.chunks,
            compressors=old.compressors,
            fill_value=0,
            zarr_format=2,
            chunk_key_encoding={"name": "v2", "separator": "/"},
            overwrite=True,
        )
        made[...] = np.asarray(old[...]).astype("float32")
    return copy


def compare(
    image: Path, between: Path, output: Path, methods: Sequence[str], repeats: int
) -> dict[str, Measured]:
    """Medians of the flat-field, and for each method of the background alone and of both."""
    models = str(image.parent.parent / "models")
    flatfield = ours(str(image), str(output), models, *BARE)
    commands = {"flat-field": flatfield}
    for method in methods:
        commands[f"{method}, background"] = [
            *(sys.executable, "-m", "fractal_mesospim_shading.cli", "correct-background"),
            *(str(between), "--method", method, "--output-folder", str(output)),
        ]
        commands[f"{method}, both"] = [*flatfield, "--background", method]
    runs: dict[str, list[Measured]] = {}
    for _ in range(repeats):
        for name, command in commands.items():
            shutil.rmtree(output, ignore_errors=True)
            settle()
            runs.setdefault(name, []).append(measured(command))
    shutil.rmtree(output, ignore_errors=True)
    return {name: medians(found) for name, found in runs.items()}


def table(found: dict[str, Measured], methods: Sequence[str]) -> str:
    """One Markdown table; the ratio is to the slower command alone."""
    flat = found["flat-field"]
    lines = [
        "| method | flat-field: wall, CPU s | background | both | wall / slower | CPU / sum |",
        "|---|---|---|---|---|---|",
    ]
    for method in methods:
        alone, both = found[f"{method}, background"], found[f"{method}, both"]
        times = " | ".join(f"{run.wall:.1f}, {run.cpu:.1f}" for run in (flat, alone, both))
        wall = both.wall / max(flat.wall, alone.wall)
        lines.append(
            f"| {method} | {times} | {wall:.2f} | {both.cpu / (flat.cpu + alone.cpu):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--planes", type=int, default=IMAGE.planes, help="of the image")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="of the background")
    given = parser.parse_args()
    use_processors(THREADS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        image = made_apart(replace(IMAGE, planes=given.planes), folder)
        copy = in_floats(image, folder)
        models = str(image.parent.parent / "models")
        measured([*ours(str(copy), str(folder), models, *BARE), "--overwrite"])
        between = folder / "float32_flatfield_corr.zarr"
        found = compare(image, between, folder / "results", given.methods, given.repeats)
        print(table(found, given.methods))


if __name__ == "__main__":
    main()
