"""The processes of a run: all with the same package, kept to their processors, stopped in order."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_mesospim_shading.core.memory import keep_freed_memory
from fractal_mesospim_shading.core.threads import Shared
from fractal_mesospim_shading.errors import (
    MemoryLimitError,
    ShadingError,
    StoppedError,
    WorkerVersionError,
)
from fractal_mesospim_shading.images.arrays.codecs import configuration_lock

if TYPE_CHECKING:
    from distributed import Client

_PACKAGE = "fractal_mesospim_shading"
_SHOWN = 5
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
            signal.signal(signal.SIGTERM, before)


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
            opencv.setNumThreads(opencv.getNumberOfCPUs() if threads is None else threads)
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


class PackageState(NamedTuple):
    """Which package a process has.

    Attributes:
        version: of the package.
        sources: digest of its source files; empty where it has none.
        folder: where it lies.
    """

    version: str
    sources: str
    folder: str


def own_state() -> PackageState:
    """The package of this process."""
    return PackageState(*_question(_PACKAGE)())


def refuse_other_versions(client: Client, workers: Iterable[str]) -> None:
    """Ask workers which package they have, and refuse those that have another one.

    Editable installs of one version may differ in their sources; so these are compared.

    Args:
        client: of the cluster.
        workers: addresses of those to ask.

    Raises:
        WorkerVersionError: names each worker and what it has.
    """
    asked = sorted(workers)
    if asked:
        found = client.run(_question(_PACKAGE), workers=asked, on_error="return")
        refuse_differing(own_state(), found)


def refuse_differing(own: PackageState, found: Mapping[str, Any]) -> None:
    """Compare this package with what workers answered.

    Args:
        own: of this process.
        found: by address: the fields of a `PackageState`, or the error of a worker that
            could not answer.

    Raises:
        WorkerVersionError: some have another package, or none.
    """
    lines = [
        f"{address}: {difference}"
        for address, answer in sorted(found.items())
        if (difference := _difference(own, answer)) is not None
    ]
    if not lines:
        return
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    raise WorkerVersionError(
        f"Dask workers have another fractal-mesospim-shading than this process "
        f"({own.version}, from {own.folder}):\n  "
        + "\n  ".join([*lines[:_SHOWN], *more])
        + "\n- Install the same package for all of them, restart the workers, and run it again."
    )


def _difference(own: PackageState, answer: Any) -> str | None:
    if isinstance(answer, OSError):
        # It has just gone; whoever waits for its blocks will notice.
        return None
    if isinstance(answer, BaseException):
        return f"it could not tell its version ({type(answer).__name__}: {answer})"
    other = PackageState(*answer)
    if not other.version:
        return f"the package is not installed there (Python in {other.folder})"
    if other.version != own.version:
        return f"version {other.version}, from {other.folder}"
    if own.sources and other.sources and own.sources != other.sources:
        return f"version {other.version} as well, but other source files, in {other.folder}"
    return None


def _question(package: str) -> Callable[[], tuple[str, str, str]]:
    """The question, as a function that travels by value: workers of another version lack it."""

    def state() -> tuple[str, str, str]:
        import hashlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import sys

        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return "", "", sys.prefix
        try:
            version = importlib.metadata.version(package.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
        folder = pathlib.Path(spec.origin).parent
        digest = hashlib.sha256()
        sources = sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix())
        for path in sources:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
        return version, digest.hexdigest() if sources else "", str(folder)

    return state
