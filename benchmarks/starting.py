"""How long a command takes until the first block is begun, and until it ends.

    python benchmarks/starting.py --folder /somewhere/with/room

A small image with a measured model, everything in the page cache, `--no-report`: the seconds until
the line of the log that tells how many blocks there are to write, and of the whole command. Python
keeps what it compiles, whatever the environment says: as it is of a package that was installed, so
that no run but the first compiles a module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from statistics import median

from bare_runs import bare_runs
from benchmark_images import settings

LINE = b" to write"


def run(command: list[str]) -> tuple[float, float]:
    """Seconds until blocks are begun, and of the whole command."""
    compiled = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start, begun = time.perf_counter(), float("nan")
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=compiled
    ) as process:
        for line in process.stderr or ():
            if LINE in line:
                begun = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return begun, time.perf_counter() - start


def main() -> None:
    small = next(setting for setting in settings(channels=2) if setting.name == "lz4-small-0.4")
    print("| tiles | until the first block, s | from, to | whole command, s |\n|---|---|---|---|")
    with bare_runs(__doc__, repeats=9) as given:
        for shape in ((512, 512), (2048, 2048), (2960, 5056)):
            setting = replace(small, name=f"{shape}", tile_shape=shape, grid=(1, 1), planes=4)
            _, command = given.prepared(setting)
            times = []
            for _ in range(given.repeats + 1):
                shutil.rmtree(given.output, ignore_errors=True)
                times.append(run(command))
            # The first one reads what the others find in memory.
            begun, ended = zip(*times[1:], strict=True)
            print(f"| {shape[0]} x {shape[1]} | {median(begun):.2f} | {min(begun):.2f}, "
                  f"{max(begun):.2f} | {median(ended):.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
