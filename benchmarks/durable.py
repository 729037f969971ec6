"""What `--durable` costs: each block on the device before the journal says that it is finished.

    python benchmarks/durable.py --folder /a/folder/on/the/disk/in/question

Two images, one of large chunks and one of some ten thousand small ones, with a measured model and
without a report; runs with and without it take turns.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from statistics import median

from bare_runs import bare_runs
from benchmark_images import ImageSetting
from measuring import settle

IMAGES = (
    ImageSetting("durable-large", "0.4", "lz4", (64, 1024, 1024)),
    ImageSetting("durable-small", "0.4", "lz4", (4, 128, 128), planes=64),
)


def run(command: list[str]) -> tuple[float, int]:
    """Wall time, and how many blocks there were."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    blocks = re.search(r"(\d+) blocks to write", done.stderr)
    assert blocks is not None, done.stderr
    return time.perf_counter() - start, int(blocks[1])


def main() -> None:
    """Measure and print."""
    print("| image | blocks | files | without, s | durable, s | ms a block | s for 10 000 files |")
    print("|---|---|---|---|---|---|---|")
    with bare_runs(__doc__, repeats=5) as given:
        for setting in IMAGES:
            (image, bare), output = given.prepared(setting), given.output
            times: dict[str, list[float]] = {"--no-durable": [], "--durable": []}
            for _ in range(given.repeats):
                for option, seconds in times.items():
                    shutil.rmtree(output, ignore_errors=True)
                    settle()
                    taken, blocks = run([*bare, option])
                    seconds.append(taken)
            files = sum(path.is_file() for path in output.rglob("*"))
            without, durable = (median(seconds) for seconds in times.values())
            more = durable - without
            found = f"{without:.2f} | {durable:.2f} | {1000 * more / blocks:.1f}"
            print(f"| {setting.chunks} | {blocks} | {files} | {found} "
                  f"| {10_000 * more / files:.2f} |", flush=True)  # fmt: skip
            shutil.rmtree(image.parents[1])


if __name__ == "__main__":
    main()
