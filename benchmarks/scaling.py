"""One thread, two threads, two worker processes and a cluster of two, as a Markdown table.

python benchmarks/scaling.py --folder /somewhere/with/room --repeats 3

All work on the same image. The cluster is a Dask scheduler and two workers of one thread each that
run before the command starts, as they do where a cluster is shared; their processor time counts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
from benchmark_images import made_apart, settings
from measuring import Measured, measured, medians, settle
from throughput import BARE, THREADS, ours, use_processors

WAYS = {
    "1 thread": ("--n-workers", "1"),
    "2 threads": ("--n-workers", "2"),
    "2 threads, as by default": (),
    "2 worker processes": ("--n-workers", "2", "--execution", "processes"),
    "cluster of two": ("--execution", "dask"),
}


def on(way: str, command: list[str], folder: Path) -> Measured:
    """Run a command, on a cluster where the way asks for one."""
    if way != "cluster of two":
        return measured(command)
    with cluster(folder) as (address, processes):
        before = _seconds(processes)
        run = measured([*command, "--scheduler-address", address])
        memory = sum(process.memory_info().rss for process in processes)
        return replace(run, cpu=run.cpu + _seconds(processes) - before, peak=run.peak + memory)


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """A scheduler and two workers, as processes: its address, and these."""
    told = folder / "scheduler.json"
    told.unlink(missing_ok=True)
    shared = ["--scheduler-file", str(told), "--no-dashboard"]
    worker = [*shared, "--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
    commands = [
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *shared, "--port", "0"],
        *2 * [[sys.executable, "-m", "distributed.cli.dask_worker", *worker]],
    ]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    try:
        from distributed import Client

        while not told.exists():
            time.sleep(0.1)
        with Client(scheduler_file=str(told)) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address, [psutil.Process(process.pid) for process in started]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def _seconds(processes: list[psutil.Process]) -> float:
    """Processor time of processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for images and results (default: temporary)")
    parser.add_argument("--image", default="lz4-big-0.4", help="name of its setting")
    parser.add_argument("--tiles", default="2x2", help="rows x columns; 1 GB each")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows, columns = (int(n) for n in given.tiles.split("x"))
    setting = next(s for s in settings((rows, columns), 2) if s.name == given.image)
    use_processors(THREADS)
    runs: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        image, output = made_apart(setting, folder), folder / "output"
        models = str(image.parents[1] / "models")
        for _ in range(given.repeats):
            for way, options in WAYS.items():
                shutil.rmtree(output, ignore_errors=True)
                settle()
                command = ours(str(image), str(output), models, *BARE, *options)
                runs.setdefault(way, []).append(on(way, command, folder))
        shutil.rmtree(output, ignore_errors=True)
    print("| way | wall s | CPU s | peak MB | wall / 1 thread | efficiency |")
    print("|---|---|---|---|---|---|")
    first = medians(runs["1 thread"]).wall
    for way, found in runs.items():
        run, number = medians(found), 1 if way == "1 thread" else 2
        print(f"| {way} | {run.wall:.1f} | {run.cpu:.1f} | {run.peak / 1e6:.0f} "
              f"| {run.wall / first:.2f} | {first / run.wall / number:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
