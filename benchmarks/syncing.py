"""What it costs to bring a result to the device: one call for all, or each file by itself.

    python benchmarks/syncing.py --folder /a/folder/on/the/disk/in/question

Files of one size are written through the page cache, as chunks are, and then synced: not at all,
by one `syncfs`, or by `fsync` of each file and folder, as where `syncfs` does not help.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from pathlib import Path

from fractal_mesospim_shading.images.storage import local_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="/tmp/syncing")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    folder = Path(given.folder)
    print(f"file system: {local_files.file_system(folder.parent)}")
    print("| files | kB each | written, s | syncfs, s | each file, s | each file, ms a file |")
    print("|---|---|---|---|---|---|")
    for count, kilobytes in ((1000, 64), (10_000, 64), (1000, 2048), (10, 131_072)):
        written, whole, each = [], [], []
        for _ in range(given.repeats):
            written.append(_write(folder, count, kilobytes))
            whole.append(_timed(lambda: local_files.sync_machine(folder)))
            _write(folder, count, kilobytes)
            every = [os.path.join(path, n) for path, _, names in os.walk(folder) for n in names]
            each.append(_timed(lambda paths=every: local_files.sync_files([*paths, str(folder)])))
        a, b, c = (statistics.median(times) for times in (written, whole, each))
        print(f"| {count} | {kilobytes} | {a:.2f} | {b:.2f} | {c:.2f} | {1000 * c / count:.2f} |")
    shutil.rmtree(folder)


def _write(folder: Path, count: int, kilobytes: int) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    local_files.sync_machine(folder)
    content = os.urandom(1024) * kilobytes

    def write() -> None:
        for number in range(count):
            (folder / str(number)).write_bytes(content)

    return _timed(write)


def _timed(action) -> float:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
