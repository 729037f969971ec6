"""A Dask cluster whose scheduler and workers are processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PATIENCE = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "120s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "300s",
}
"""A machine that is busy otherwise may let a process wait; it is not lost for that."""


class Cluster:
    """A real scheduler and real workers, each in a working folder of its own.

    Attributes:
        scheduler: its process.
        workers: their processes.
        address: of the scheduler.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """Start a scheduler, at an address of its own."""
        self._file = self._folder / f"scheduler-{len(self._processes)}.json"
        options = ["--port", "0", "--no-show", "--no-dashboard", "--host", "127.0.0.1"]
        self.scheduler = self._start("scheduler", *options)
        self._wait(self._file.exists)
        time.sleep(0.2)
        self.address = json.loads(self._file.read_text())["address"]

    def _start(self, kind: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        home = self._folder / f"process-{len(self._processes)}"
        home.mkdir()
        command = [sys.executable, "-m", "dask", kind, "--scheduler-file", str(self._file)]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=(home / "log.txt").open("wb"),
            env={**os.environ, **_PATIENCE, **environment},
        )
        self._processes.append(process)
        return process

    @staticmethod
    def _wait(ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.05)

    def add_worker(self, **environment: str) -> None:
        """Start a worker of one thread."""
        options = ["--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--no-dashboard"]
        self.workers.append(
            self._start("worker", *options, "--local-directory", ".", **environment)
        )

    def wait_for_workers(self, number: int) -> None:
        """Wait until so many have joined."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(number, timeout=60)

    def close(self) -> None:
        """Kill whoever is left."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
