"""Processes: what one sets and puts back, how a run is stopped, and whether another one lives."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.core.threads import Shared, keep_freed_memory
from fractal_mesospim_shading.errors import MemoryLimitError, ShadingError, StoppedError
from fractal_mesospim_shading.images.arrays.codecs import configuration_lock

if TYPE_CHECKING:
    from distributed import Client

DEAD_SECONDS = 120.0
"""Without a sign of life for so long, an owner counts as dead."""

_ENVIRONMENT = ("RAYON_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "GLIBC_TUNABLES")
_ZARR = ("threading.max_workers", "async.concurrency")


@contextmanager
def run_guarded() -> Iterator[None]:
    """Turn SIGTERM, which SLURM sends before the wall time ends, into an orderly stop.

    SLURM and shells send it to all processes of a group. Then workers and the child process of
    a fit die as well; what they leave behind is a consequence and not the error.

    Raises:
        StoppedError: SIGTERM or Ctrl-C came.
        MemoryLimitError: the memory of this process did not suffice.
    """
    stopped = False

    def stop(number: int, frame: Any) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise KeyboardInterrupt(f"signal {number}")

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if stopped or isinstance(error, KeyboardInterrupt):
            raise StoppedError(
                "The run was stopped. What was finished is kept: run the same command again to "
                "go on."
            ) from error
        if isinstance(error, MemoryError) and not isinstance(error, ShadingError):
            raise MemoryLimitError(
                f"The memory of this machine or job did not suffice ({error or 'no more of it'}). "
                "What was finished is kept: run the same command again with more memory, fewer "
                "workers (`n_workers`), or a `memory_limit` below what there is."
            ) from error
        raise
    finally:
        if main:
            # None: it was not set by Python, and cannot be.
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def logs_quieted(level: int, *names: str) -> Iterator[None]:
    """Within this context loggers of libraries say nothing below a level."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _put_back() -> Iterator[None]:
    """What `prepare_process` sets, and the memory of worker processes, are put back after."""
    import zarr

    environment = {name: os.environ.get(name) for name in _ENVIRONMENT}
    opencv = sys.modules.get("cv2")
    threads = opencv.getNumThreads() if opencv else None
    with configuration_lock:
        settings = {name: zarr.config.get(name) for name in _ZARR}
    try:
        yield
    finally:
        with configuration_lock:
            zarr.config.set(settings)
        opencv = sys.modules.get("cv2")
        if opencv:
            # Imported meanwhile, it has taken its number from the environment as it was then.
            own = environment["OPENCV_FOR_THREADS_NUM"] or ""
            usual = int(own) if own.isdigit() else opencv.getNumberOfCPUs()
            opencv.setNumThreads(usual if threads is None else threads)
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


process_put_back = Shared(_put_back)


@contextmanager
def process_prepared(threads: int) -> Iterator[None]:
    """Within this context libraries with threads of their own keep to a number of them."""
    with process_put_back:
        prepare_process(threads)
        yield


def prepare_process(threads: int) -> None:
    """Keep every library that has threads of its own to a number of them.

    Called in each process before its first block; some of these settings are read
    only once.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    # OpenCV works within one block; the blocks themselves run side by side.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    import zarr

    with configuration_lock:
        zarr.config.set({"threading.max_workers": threads, "async.concurrency": max(2, threads)})


def prepare_workers(client: Client) -> None:
    """Prepare each worker of a cluster, those too that join later."""
    from distributed.diagnostics.plugin import WorkerPlugin

    class PreparedWorker(WorkerPlugin):
        name = "mesospim-shading"

        def setup(self, worker: Any) -> None:
            # What was inherited from the process that started it was meant for that one.
            os.environ.pop("RAYON_NUM_THREADS", None)
            prepare_process(worker.state.nthreads)
            keep_freed_memory()

    client.register_plugin(PreparedWorker())


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        token: of this lock alone.
        host, pid, started: the process, and when it started.
        machine: names a running kernel: another one after each start of a machine.
        processes: names the space that process numbers are counted in: a container has its own.
        system_lock: whether it also holds a lock of the operating system.
    """

    token: str
    host: str
    pid: int
    started: str | None
    machine: str
    processes: str
    system_lock: bool = False

    @classmethod
    def me(cls, token: str) -> Holder:
        """This process."""
        pid = os.getpid()
        return cls(token, socket.gethostname(), pid, _started(pid), _machine(), _processes())

    @classmethod
    def parse(cls, content: bytes | None) -> Holder | None:
        """Who wrote the content of a lock; None where it says nothing."""
        try:
            found = json.loads(content or b"")
            host = str(found["host"])
            # Earlier versions named the host alone.
            here = host == socket.gethostname()
            return cls(
                str(found.get("token", "")),
                host,
                int(found["pid"]),
                found.get("started"),
                str(found.get("machine", _machine() if here else "")),
                str(found.get("processes", _processes() if here else "")),
                found.get("system_lock") is True,
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def to_bytes(self) -> bytes:
        """The content of a lock."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @property
    def is_neighbour(self) -> bool:
        """Whether it is, or was, a process that this one could see."""
        return bool(self.machine) and (self.machine, self.processes) == (_machine(), _processes())

    @property
    def runs(self) -> bool:
        """Whether it still runs; of a neighbour."""
        return self.started is not None and _started(self.pid) == self.started

    def describe(self) -> str:
        """Names it for a message."""
        if self.machine != _machine():
            return f"process {self.pid} on {self.host}"
        other = "" if self.processes == _processes() else ", in another container"
        return f"process {self.pid} on this machine{other}"


def seems_dead(
    holder: Holder, age: float | None, *, system_lock: bool | None, one_machine: bool
) -> bool:
    """Whether the holder of a lock that was not given back no longer lives.

    Args:
        holder: what the lock says.
        age: seconds since its last sign of life; None where that cannot be known.
        system_lock: True: we have the operating system's lock now; None: there is none here.
        one_machine: whether the file system belongs to one machine alone.
    """
    same_kernel = bool(holder.machine) and holder.machine == _machine()
    if system_lock and holder.system_lock and (one_machine or same_kernel):
        # It would still hold it.
        return True
    if holder.is_neighbour:
        return not holder.runs
    return age is not None and age >= DEAD_SECONDS


def _machine() -> str:
    """Names the running kernel; containers on one machine share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _processes() -> str:
    """Names the space that process numbers are counted in."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started, in a form that setting the clock does not change."""
    import psutil

    if not Path("/proc/self/stat").exists():
        try:
            return f"{psutil.Process(pid).create_time():.2f}"
        except psutil.NoSuchProcess:
            return None
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name of the program, in brackets, may hold blanks. Of what follows, the first is
    # the state (zombies write no more), the twentieth the start in ticks since boot.
    fields = content.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{_machine()} {fields[19]}"
