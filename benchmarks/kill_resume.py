"""Kill a correction at random moments, continue it, and compare with an uninterrupted run.

    python benchmarks/kill_resume.py --kills 20 --folder /tmp/kill_resume

Each run is a process of its own, ended by SIGKILL. A job is killed several times before it
may come to its end; its result must then equal that of an uninterrupted run byte for byte.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

_RUN = """
import sys
from fractal_mesospim_shading import correct_flatfield
from fractal_mesospim_shading.engine import plan
plan.BLOCK_BYTES = 1  # many small blocks
source, models, output = sys.argv[1:]
correct_flatfield(source, models_folder=models, camera_offset=100, output_folder=output,
                  n_workers=2, report=False)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="/tmp/kill_resume")
    given = parser.parse_args()
    folder = Path(given.folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return 0 if kill_and_resume(folder, given.kills, given.seed, side=384) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kill_and_resume(
    folder: Path, kills: int, seed: int, each: int = 4, side: int = 192, **style: object
) -> bool:
    """Whether every result that was killed and continued equals the uninterrupted one.

    Args:
        folder: to work in.
        kills: how many, all together.
        seed: of the moments.
        each: how often a job is killed at most before it may end.
        side: of the mosaic, pixels.
        style: of the image, see `synthetic.images.write_image`.
    """
    moments = random.Random(seed)
    source, models = _image(folder, side, **style)
    expected = folder / "expected"
    run = _start(source, models, expected)
    _wait_for(expected, run, 0)
    started = time.monotonic()
    run.wait()
    duration = time.monotonic() - started
    wanted = tree(expected)
    print(f"an uninterrupted run works for {duration:.1f} s and leaves {len(wanted)} files")
    done = job = 0
    good = True
    while done < kills:
        job += 1
        output = folder / f"killed{job}"
        for _ in range(min(each, kills - done)):
            before = _locked(output)
            run = _start(source, models, output)
            _wait_for(output, run, before)
            time.sleep(moments.random() * duration / 2)
            if run.poll() is not None:
                break
            run.send_signal(signal.SIGKILL)
            run.wait()
            done += 1
            print(f"kill {done}: {_recorded(output)} blocks on record")
        # A run may have come to its end before it was killed; there is nothing to continue then.
        if list(output.glob(".*.job")) or not list(output.iterdir()):
            last = _start(source, models, output)
            said = last.communicate()[1]
            if last.returncode != 0:
                print(f"job {job}: the continued run failed:\n{said}")
                good = False
                continue
        equal = tree(output) == wanted
        print(f"job {job}: {'equal' if equal else 'NOT EQUAL'}")
        good = good and equal
        shutil.rmtree(output)
    return good


def tree(root: Path) -> dict[str, bytes]:
    """Every file with its content."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


def _image(folder: Path, side: int, **style: object) -> tuple[Path, Path]:
    from fractal_mesospim_shading.synthetic.images import write_image

    settings = {"chunks": (2, 16, 16), "codec": "blosc", "tile_shape": (64, 64), **style}
    pixels = np.random.default_rng(0).integers(90, 4000, (1, 8, side, side)).astype("uint16")
    source, models = folder / "source.zarr", folder / "models"
    write_image(source, pixels, channels=["488 nm"], **settings)
    (models / "488 nm").mkdir(parents=True)
    flatfield = np.outer(np.linspace(0.6, 1.4, 64), np.linspace(1.2, 0.8, 64))
    np.savez(models / "488 nm" / "profiles.npz", flatfield=flatfield)
    return source, models


def _start(source: Path, models: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _RUN, str(source), str(models), str(output)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _wait_for(output: Path, run: subprocess.Popen[str], before: int) -> None:
    """Until the run has taken the lock of its job, which a killed one has left behind."""
    while run.poll() is None and _locked(output) == before:
        time.sleep(0.005)


def _locked(output: Path) -> int:
    """When a job's lock was taken, 0 where there is none."""
    for path in output.glob(".*.job/lock"):
        with suppress(FileNotFoundError):
            return path.stat().st_mtime_ns
    return 0


def _recorded(output: Path) -> int:
    records = 0
    for path in output.glob(".*.job/journal/blocks.jsonl"):
        records = path.read_bytes().count(b"\n")
    return records


if __name__ == "__main__":
    sys.exit(main())
