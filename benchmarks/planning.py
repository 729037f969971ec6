"""Plan images of 10 TB that consist of metadata alone, and read the journals of their runs.

    python benchmarks/planning.py --folder /somewhere

Each case runs in a process of its own: time and peak memory of opening and checking the
image, of walking through all blocks in batches as a run does, of the largest batch, and
of continuing a run whose journal lacks nothing but its last block.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "128 MB chunks": {
        "shape": (4, 1280, 32768, 32768),
        "chunks": (64, 1024, 1024),
        "shards": None,
    },
    "64^3 chunks in shards": {
        "shape": (2, 2560, 32768, 29696),
        "chunks": (64, 64, 64),
        "shards": (512, 512, 512),
    },
    "64^3 chunks, no shards": {
        "shape": (2, 2560, 32768, 29696),
        "chunks": (64, 64, 64),
        "shards": None,
    },
}


def make(folder: Path, case: str) -> tuple[Path, Path]:
    """Metadata, tables and models of an image without pixels."""
    import numpy as np
    import zarr
    from benchmark_images import ImageSetting, array_of_level, attributes_of

    from fractal_mesospim_shading.core.profile import ShadingProfile
    from fractal_mesospim_shading.images.models.folder import save_models
    from fractal_mesospim_shading.images.roi_tables import write_roi_tables
    from fractal_mesospim_shading.synthetic.world import grid_layout

    channels, planes, height, width = CASES[case]["shape"]
    rows, columns = 16, 16
    tile = (height // rows, width // columns)
    setting = ImageSetting(
        case,
        "0.5" if CASES[case]["shards"] else "0.4",
        "lz4",
        CASES[case]["chunks"],
        CASES[case]["shards"],
        tile,
        (rows, columns),
        planes,
        channels,
        levels=6,
    )
    image = folder / case.replace(" ", "_") / "image.zarr" / "0"
    image.mkdir(parents=True)
    group = zarr.open_group(str(image), mode="w", zarr_format=2 if setting.ngff == "0.4" else 3)
    group.attrs.put(attributes_of(setting))
    for level in range(setting.levels):
        array_of_level(group, setting, level)
    layout = grid_layout((height, width), tile)
    write_roi_tables(str(image), layout, {"z": 5.0, "y": 1.3, "x": 1.3}, planes)
    flat = ShadingProfile.create(np.linspace(0.5, 1.5, tile[0] * tile[1]).reshape(tile))
    models = folder / case.replace(" ", "_") / "models"
    save_models(models, {f"channel {c}": flat for c in range(channels)})
    return image, models


def child(image: str, models: str) -> None:
    """Measure one case, and print the figures as JSON."""
    from fractal_mesospim_shading.core.blocks import BATCH
    from fractal_mesospim_shading.engine.records import Journal
    from fractal_mesospim_shading.images.mosaic import MosaicImage
    from fractal_mesospim_shading.jobs.flatfield import prepare_flatfield
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    found: dict[str, Any] = {"start MB": peak_mb()}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        found[f"{name} s"] = round(time.perf_counter() - clock, 2)
        found[f"{name} MB"] = peak_mb()
        clock = time.perf_counter()

    options = FlatfieldOptions(models_folder=models, camera_offset=100, memory_limit="64GB")
    source = MosaicImage.open(image)
    work = prepare_flatfield(source, options)
    work.request()
    plan = work.parts[0].plan
    grid = plan.grid
    found["TB"] = round(2e-12 * product(source.levels[0].shape), 2)
    found["chunks"] = product(-(-n // c) for n, c in zip(
        source.levels[0].shape, source.levels[0].chunks, strict=True))  # fmt: skip
    found["blocks of level 0"], found["nodes"] = product(grid.counts(0)), grid.total
    lap("plan")
    nodes = batches = largest = 0
    for batch in grid.batches(BATCH):
        size = sum(1 for node in batch for _ in subtree(grid, node))
        nodes, batches, largest = nodes + size, batches + 1, max(largest, size)
    found["batches"], found["largest batch"], found["in batches"] = batches, largest, nodes
    lap("walk")
    folder = Path(image).parents[1] / "journal"
    write_journal(folder, grid, len(source.channels))
    found["journal MB on disk"] = round((folder / "blocks.jsonl").stat().st_size / 1e6, 1)
    lap("write journal")
    records = Journal(str(folder)).read()
    done = {record["node"] for record in records}
    lap("read journal")
    open_nodes = sum(1 for level in range(len(grid.shapes)) for node in grid.nodes(level)
                     if node.key not in done)  # fmt: skip
    found["left to do"] = open_nodes
    lap("find what is left")
    print(json.dumps(found))


def subtree(grid: Any, node: Any) -> Iterator[Any]:
    """A node and all below it, as a run visits them."""
    yield node
    for below in grid.children(node):
        yield from subtree(grid, below)


def write_journal(folder: Path, grid: Any, channels: int) -> None:
    """Records like those of a run, of all nodes but the last."""
    import numpy as np

    from fractal_mesospim_shading.core.pyramid import Histogram

    rng = np.random.default_rng(0)
    texts = [Histogram.of(rng.poisson(300, 200).astype("uint16")).to_text() for _ in range(64)]
    folder.mkdir()
    left = grid.total - 1
    with open(folder / "blocks.jsonl", "w") as file:
        for level in range(len(grid.shapes)):
            for number, node in enumerate(grid.nodes(level)):
                record: dict[str, Any] = {"node": node.key}
                if level == 0:
                    record["channels"] = {
                        str(number % channels): {
                            "counts": [67108864, 0, 12, 0, 3],
                            "histogram": texts[number % 64],
                        }
                    }
                if left:
                    file.write(json.dumps(record) + "\n")
                left -= 1


def product(numbers: Any) -> int:
    """Product of whole numbers."""
    result = 1
    for number in numbers:
        result *= int(number)
    return result


def peak_mb() -> int:
    """Largest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="default: temporary")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        rows = []
        for case in CASES:
            paths = make(Path(temporary), case)
            command = [sys.executable, __file__, "--child", *map(str, paths)]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(run.stdout.splitlines()[-1]))
        print("| | " + " | ".join(CASES) + " |\n|---|" + "---|" * len(CASES))
        for key in rows[0]:
            print(f"| {key} | " + " | ".join(str(row[key]) for row in rows) + " |")


if __name__ == "__main__":
    main()
