"""One thread, two threads and two worker processes on the same image, as a Markdown table.

python benchmarks/scaling.py --folder /somewhere/with/room --repeats 3
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmark_images import made_apart, settings
from measuring import Measured, measured, medians, settle
from throughput import ours

WAYS = {
    "1 thread": ("--n-workers", "1"),
    "2 threads": ("--n-workers", "2"),
    "2 worker processes": ("--n-workers", "2", "--execution", "processes"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    parser.add_argument("--image", default="lz4-big-0.4", help="name of its setting")
    parser.add_argument("--tiles", default="2x2", help="rows x columns; 1 GB each")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows, columns = (int(n) for n in given.tiles.split("x"))
    setting = next(s for s in settings((rows, columns), 2) if s.name == given.image)
    runs: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        image, output = made_apart(setting, folder), folder / "output"
        models = str(image.parents[1] / "models")
        for _ in range(given.repeats):
            for name, options in WAYS.items():
                shutil.rmtree(output, ignore_errors=True)
                settle()
                run = measured(ours(str(image), str(output), models, *options))
                runs.setdefault(name, []).append(run)
        shutil.rmtree(output, ignore_errors=True)
    print("| way | wall s | CPU s | peak MB | wall / 1 thread |\n|---|---|---|---|---|")
    first = medians(runs["1 thread"]).wall
    for name, found in runs.items():
        run = medians(found)
        print(f"| {name} | {run.wall:.1f} | {run.cpu:.1f} | {run.peak / 1e6:.0f} "
              f"| {run.wall / first:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
