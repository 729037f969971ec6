"""Correction against plain copies of the same images, as Markdown tables.

    python benchmarks/throughput.py --folder /somewhere/with/room
    python benchmarks/throughput.py --images lz4-big-0.4 --repeats 5
    python benchmarks/throughput.py --estimate

Each program runs in a process of its own on the same two processors, the programs take
turns, and the medians of all rounds are printed with their ranges. Copies write level 0 alone,
and end as the correction does: what they wrote is brought to the device. The correction
applies a measured model with its dark-field and writes all levels of the pyramid.
tensorstore is measured where it can be imported.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from measuring import Measured, measured, medians, settle

COPIES = ("zarr-python", "zarrs", "tensorstore")
THREADS = 2


def boxes(shape: tuple[int, ...], unit: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The write units of an array."""
    ranges = [range(0, n, u) for n, u in zip(shape, unit, strict=True)]
    for start in product(*ranges):
        ends = zip(start, unit, shape, strict=True)
        yield tuple(slice(a, min(a + u, n)) for a, u, n in ends)


def copy_with_zarr(source: Path, target: Path, pipeline: str) -> None:
    """Copy an array unit by unit on two threads."""
    import zarr

    if pipeline == "zarrs":
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    zarr.config.set({"threading.max_workers": THREADS, "async.concurrency": THREADS})
    array = zarr.open_array(str(source), mode="r")
    copy_metadata(source, target)
    result = zarr.open_array(str(target), mode="r+")

    def one(box: tuple[slice, ...]) -> None:
        result[box] = array[box]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, boxes(array.shape, array.shards or array.chunks)))


def copy_with_tensorstore(source: Path, target: Path) -> None:
    """The same with tensorstore, two units in flight."""
    import tensorstore

    copy_metadata(source, target)
    document = json.loads(next(source.glob(".zarray"), source / "zarr.json").read_text())
    driver = "zarr" if document["zarr_format"] == 2 else "zarr3"
    context = tensorstore.Context({"data_copy_concurrency": {"limit": THREADS}})

    def opened(path: Path) -> Any:
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
        return tensorstore.open(spec, context=context, open=True).result()

    array, result = opened(source), opened(target)
    unit = tuple(result.chunk_layout.write_chunk.shape)

    def one(box: tuple[slice, ...]) -> None:
        result[box].write(array[box].read().result()).result()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, boxes(tuple(array.shape), unit)))


def copy_metadata(source: Path, target: Path) -> None:
    """The metadata of an array, so that all programs write the same codec."""
    target.mkdir(parents=True)
    for name in (".zarray", ".zattrs", "zarr.json"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def sync(folder: Path) -> None:
    """Wait for what was written, by the call that a correction ends with."""
    descriptor = os.open(folder, os.O_RDONLY)
    if ctypes.CDLL(None).syncfs(descriptor):
        sys.exit("the file system cannot be synced")
    os.close(descriptor)


def child(arguments: list[str]) -> None:
    """What runs in a process of its own: `program, image, output[, models]`."""
    program, image, output, *rest = arguments
    start = time.perf_counter()
    if program == "tensorstore":
        import tensorstore  # noqa: F401

        start = time.perf_counter()
        copy_with_tensorstore(Path(image) / "0", Path(output) / "0")
        sync(Path(output))
    elif program in COPIES:
        import zarr  # noqa: F401

        start = time.perf_counter()
        copy_with_zarr(Path(image) / "0", Path(output) / "0", program)
        sync(Path(output))
    elif program == "inside":
        from fractal_mesospim_shading import cli

        start = time.perf_counter()
        if cli.main(ours(image, output, rest[0], *BARE)[3:]):
            sys.exit("the correction failed")
    elif program == "read":
        read_all(Path(image) / "0")
    elif program == "estimate":
        from fractal_mesospim_shading import cli

        start = time.perf_counter()
        if cli.main(["estimate", image, "--output", output, "--z-levels", rest[0], "--no-report"]):
            sys.exit("the estimate failed")
    else:
        sys.exit(f"no program {program}")
    print(json.dumps({"seconds": time.perf_counter() - start}))


BARE = ("--no-save-models", "--no-report")
"""Options that leave out all but the correction."""


def ours(image: str, output: str, models: str, *more: str) -> list[str]:
    """The command that corrects an image."""
    command = [sys.executable, "-m", "fractal_mesospim_shading.cli", "correct-flatfield", image]
    return [*command, "--models-folder", models, "--output-folder", output, *more]


def programs(
    image: Path, output: Path, copies: Sequence[str], inside: bool, defaults: bool
) -> dict[str, list[str]]:
    """Commands by name; see the options of the same names."""
    own = [sys.executable, __file__, "--child"]
    found = {name: [*own, name, str(image), str(output)] for name in copies}
    if importlib.util.find_spec("tensorstore") is None:
        found.pop("tensorstore", None)
    models = str(image.parent.parent / "models")
    found["ours"] = ours(str(image), str(output), models, *BARE)
    if defaults:
        found["ours, all defaults"] = ours(str(image), str(output), models)
    if inside:
        found["ours, inside"] = [*own, "inside", str(image), str(output), models]
    return found


def compare(
    output: Path, commands: dict[str, list[str]], repeats: int
) -> dict[str, list[Measured]]:
    """Run all programs in turn; all runs by program."""
    runs: dict[str, list[Measured]] = {}
    for _ in range(repeats):
        for name, command in commands.items():
            shutil.rmtree(output, ignore_errors=True)
            settle()
            runs.setdefault(name, []).append(measured(command))
    shutil.rmtree(output, ignore_errors=True)
    return runs


def table(runs: dict[str, list[Measured]]) -> str:
    """One Markdown table of medians; ratios are to the fastest copy, and the one of least CPU."""
    found = {name: medians(some) for name, some in runs.items()}
    copies = [found[name] for name in COPIES if name in found]
    wall, cpu = min(c.wall for c in copies), min(c.cpu for c in copies)
    lines = [
        "| program | wall s | from, to | CPU s | peak MB | inside s "
        "| wall / fastest | CPU / least |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found.items():
        inside = "" if run.inside != run.inside else f"{run.inside:.2f}"
        walls = [one.wall for one in runs[name]]
        lines.append(
            f"| {name} | {run.wall:.2f} | {min(walls):.2f}, {max(walls):.2f} | {run.cpu:.2f} "
            f"| {run.peak / 1e6:.0f} | {inside} "
            f"| {run.wall / wall:.2f} | {run.cpu / cpu:.2f} |"
        )
    return "\n".join(lines)


def use_processors(number: int) -> None:
    """Keep this process and its children to some processors, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:number])


def read_all(array_path: Path) -> None:
    """Read every chunk of an array, and nothing else, two at a time."""
    from fractal_mesospim_shading.images.arrays.reading import open_array

    array = open_array(str(array_path.parent), array_path.name)

    def one(box: tuple[slice, ...]) -> None:
        array[box]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, boxes(array.shape, array.shards or array.chunks)))


def estimate(image: Path, output: Path, planes: int, repeats: int) -> dict[str, Measured]:
    """Estimation from the eighth of the planes at each end, and reading all of those chunks."""
    own = [sys.executable, __file__, "--child"]
    levels = f"{planes // 8},{planes - planes // 8 - 1}"
    commands = {
        "reading the chunks": [*own, "read", str(image), str(output)],
        "estimation": [*own, "estimate", str(image), str(output), levels],
    }
    runs: dict[str, list[Measured]] = {}
    for _ in range(repeats):
        for name, command in commands.items():
            runs.setdefault(name, []).append(measured(command))
    shutil.rmtree(output, ignore_errors=True)
    return {name: medians(found) for name, found in runs.items()}


def estimate_table(found: dict[str, Measured]) -> str:
    """Times without the start of the interpreter."""
    reading = found["reading the chunks"].inside
    lines = ["| program | inside s | CPU s | peak MB | / reading |", "|---|---|---|---|---|"]
    for name, run in found.items():
        lines.append(f"| {name} | {run.inside:.2f} | {run.cpu:.2f} | {run.peak / 1e6:.0f} "
                     f"| {run.inside / reading:.2f} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    from benchmark_images import made_apart, settings

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    parser.add_argument("--images", nargs="*", help="names; default all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiles", default="2x2", help="rows x columns; 0.5 GB a channel each")
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--copies", nargs="*", choices=COPIES, default=COPIES)
    parser.add_argument("--inside", action="store_true", help="also without the start")
    parser.add_argument("--defaults", action="store_true", help="also with all defaults")
    parser.add_argument("--estimate", action="store_true", help="estimation against reading")
    given = parser.parse_args()
    rows, columns = (int(n) for n in given.tiles.split("x"))
    every = settings((rows, columns), given.channels)
    chosen = [setting for setting in every if not given.images or setting.name in given.images]
    use_processors(THREADS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for setting in chosen:
            if given.estimate:
                ends = replace(setting, name=f"{setting.name}-ends", empty_ends=True)
                image = made_apart(ends, folder)
                times = estimate(image, folder / "output", setting.planes, given.repeats)
                print(f"\n**{setting.name}**\n\n{estimate_table(times)}", flush=True)
                shutil.rmtree(image.parents[1])
                continue
            image = made_apart(setting, folder)
            output = folder / "output"
            commands = programs(image, output, given.copies, given.inside, given.defaults)
            found = compare(output, commands, given.repeats)
            shards = f", shards {setting.shards}" if setting.shards else ""
            layout = f"chunks {setting.chunks}{shards}"
            print(f"\n**{setting.name}**: {setting.raw_bytes / 1e9:.1f} GB, tiles "
                  f"{setting.tile_shape}, {layout}\n")  # fmt: skip
            print(table(found), flush=True)


if __name__ == "__main__":
    main()
