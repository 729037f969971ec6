"""Run a program and measure its wall time, its CPU time and the memory of its whole tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

_INTERVAL = 0.02


@dataclass(frozen=True)
class Measured:
    """What one run took.

    Attributes:
        wall: seconds, start of the interpreter included.
        cpu: seconds of user and system time of the process and its children.
        peak: bytes; largest sum of the resident memory of all processes of the tree.
        inside: seconds that the program itself reports, without its start; NaN if it does not.
    """

    wall: float
    cpu: float
    peak: int
    inside: float


def measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end.

    Args:
        command: its last line of output may be a JSON object with `seconds`.
        environment: variables in addition to those of this process.

    Raises:
        SystemExit: the command failed; its output is shown.
    """
    out = Path(f"/tmp/measured-{os.getpid()}.txt")
    start = time.perf_counter()
    with open(out, "wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        watch = _Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = max(watch.stop(), usage.ru_maxrss * 1024)
    text = out.read_text(errors="replace")
    out.unlink()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{text}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak, _reported(text))


class _Watch:
    """Looks at the resident memory of a process and its children, again and again."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._peak

    def _run(self) -> None:
        while not self._over.wait(_INTERVAL):
            try:
                root = psutil.Process(self._pid)
                tree = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            total = 0
            for process in tree:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self._peak = max(self._peak, total)


def _reported(text: str) -> float:
    lines = text.strip().splitlines()
    if lines and lines[-1].startswith("{"):
        return float(json.loads(lines[-1])["seconds"])
    return float("nan")


def medians(runs: Sequence[Measured]) -> Measured:
    """Median of the times, largest of the memory."""
    return Measured(
        median(run.wall for run in runs),
        median(run.cpu for run in runs),
        max(run.peak for run in runs),
        median(run.inside for run in runs),
    )


def settle() -> None:
    """Have earlier writes reach the disk, so that they do not slow down what follows."""
    os.sync()
