"""Where blocks are computed: threads of this process, or Dask workers.

Nothing here knows what a block holds. A batch of subtrees becomes one Dask graph of
bounded size; a node's mean is handed from its task to its parent's and then dropped.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

from fractal_mesospim_shading.core.blocks import BlockGrid, Node
from fractal_mesospim_shading.core.memory import freed_memory_kept, keep_freed_memory
from fractal_mesospim_shading.engine.plan import (
    CorrectionPlan,
    NodeResult,
    process_block,
    process_parent,
    recover,
)
from fractal_mesospim_shading.engine.worker_versions import refuse_other_versions
from fractal_mesospim_shading.errors import (
    MemoryLimitError,
    ParameterError,
    ShadingError,
    StoppedError,
    WorkerLostError,
)
from fractal_mesospim_shading.images.arrays.encodings import simple_encoding
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.local_files import sync_machine
from fractal_mesospim_shading.images.storage.places import split_zip
from fractal_mesospim_shading.options.base import ExecutionOptions

if TYPE_CHECKING:
    from distributed import Client

OnRecord = Callable[[dict[str, Any]], None]

_BASE_BYTES = 400 * 2**20
"""What the process holds before the first block: interpreter, libraries, kernels."""

_COPIES = 4.0
"""A block while it is worked on: its pixels, what zarr's pipelines make of them (two and a half),
and its means. Measured with chunks of 16 to 480 MB: benchmarks/memory.py."""

_FEW_COPIES = 2.5
"""The same where chunks go straight between file and block."""

_CONNECT_SECONDS = 20.0
"""How long a Dask scheduler may take to answer."""

_FAREWELL = "2s"
"""How long a cluster of our own may take to answer when a run breaks off."""

_WAITING = 2.0
"""Means that wait for their siblings, in blocks, over all levels."""

_SMALL_BYTES = 256 * 2**20
"""Blocks that take less than this are computed two at a time on each processor."""


@dataclass(frozen=True)
class Resources:
    """What a run may use.

    Attributes:
        workers: blocks in flight.
        memory: bytes to stay within; with SLURM, of each job.
    """

    workers: int
    memory: int


def available_cpus() -> int:
    """Processors this process may use: of the SLURM job, else of the affinity mask."""
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm) > 0:
        return int(slurm)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int:
    """Bytes this process may use: of the SLURM job, else the container, else the machine."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    megabytes = os.environ.get("SLURM_MEM_PER_NODE", "")
    per_cpu = os.environ.get("SLURM_MEM_PER_CPU", "")
    if megabytes.isdigit() and int(megabytes) > 0:
        limits.append(int(megabytes) * 2**20)
    elif per_cpu.isdigit() and int(per_cpu) > 0:
        limits.append(int(per_cpu) * 2**20 * available_cpus())
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def parse_memory(text: str | None) -> int:
    """Bytes of a text such as 4GB; the machine's or job's own limit where it is None.

    Raises:
        ParameterError: no amount of memory.
    """
    if text is None or not text.strip():
        return available_memory()
    from dask.utils import parse_bytes

    try:
        limit = int(parse_bytes(text))
        if limit < 0:
            raise ValueError("below 0")
        return limit
    except (ValueError, OverflowError):
        raise ParameterError(
            f"`memory_limit` is {text!r}; expected an amount such as 4GB or 1500MiB."
        ) from None


def needed_memory(plan: CorrectionPlan, workers: int) -> int:
    """Bytes that a number of blocks in flight take at most."""
    level = plan.target.levels[0]
    shape = [min(b, n) for b, n in zip(plan.grid.boxes[0], level.shape, strict=True)]
    block = prod(shape) * sum(target.levels[0].dtype.itemsize for target in plan.targets)
    plane = prod(shape[-2:])
    source = prod(plan.source.read_units(0)) * plan.source.dtype.itemsize
    copies = _FEW_COPIES if _straight(plan) else _COPIES
    per_worker = max(copies * block, block + 2.0 * source) + 8 * plane
    if plan.kernel is None:
        # Flat-field and dark-field of each channel, float32.
        shared = 2 * 4 * len(plan.source.channels) * prod(plan.source.layout.tile_shape)
    else:
        shared = plan.kernel.shared_bytes
        per_worker += plan.kernel.working_bytes(shape, plan.source)
    waiting = _WAITING * block if len(plan.target.levels) > 1 else 0
    return int(_BASE_BYTES + shared + workers * per_worker + waiting)


def _straight(plan: CorrectionPlan) -> bool:
    """Whether chunks are read and written without zarr's pipelines."""
    documents = [level.document for target in plan.targets for level in target.levels]
    urls = [plan.source.url, *(target.url for target in plan.targets)]
    plain = all(places.is_local(url) and split_zip(url) is None for url in urls)
    return plain and all(map(simple_encoding, documents))


def resources(plan: CorrectionPlan, options: ExecutionOptions) -> Resources:
    """How many blocks may be in flight, from the processors, the wish and the memory.

    Raises:
        MemoryLimitError: not even one block fits.
        ParameterError: a Dask scheduler is wanted, and none is named.
    """
    if options.execution == "dask":
        _scheduler_address(options)
    one = needed_memory(plan, 1)
    each = max(1, needed_memory(plan, 2) - one)
    wished = options.n_workers or available_cpus()
    if options.execution == "threads" and options.n_workers is None and each <= _SMALL_BYTES:
        # One block computes while another waits for the disk.
        wished *= 2
    if options.execution == "slurm" and options.memory_limit is None:
        # The memory of this machine says nothing about that of a job.
        return Resources(wished, max(int(1.3 * one), 4 * 2**30))
    limit = parse_memory(options.memory_limit)
    if limit < one:
        raise MemoryLimitError(
            f"The memory limit of {limit / 1e9:.2f} GB is too small: one block of this image needs "
            f"{one / 1e9:.2f} GB. Raise `memory_limit` to at least {one / 1e9 + 0.1:.1f}GB, or "
            "write smaller shards (`output_shards`)."
        )
    if options.execution == "slurm":
        return Resources(wished, limit)
    return Resources(max(1, min(wished, 1 + (limit - one) // each)), limit)


def estimate_workers(each: int, options: ExecutionOptions) -> int:
    """How many boxes of planes, of so many bytes each, may be read at a time for an estimate."""
    room = parse_memory(options.memory_limit) - _BASE_BYTES
    wished = options.n_workers or available_cpus()
    return max(1, min(wished, int(room // (3 * each))))


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

    zarr.config.set({"threading.max_workers": threads, "async.concurrency": max(2, threads)})


def _prepare_workers(client: Client) -> None:
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


def run_blocks(
    plan: CorrectionPlan,
    workplace: Workplace,
    done: set[str],
    on_record: OnRecord,
    before_batch: Callable[[], None] | None = None,
) -> None:
    """Process all blocks that are not done, at all levels.

    Args:
        plan: the job, or the part of it that makes one image.
        workplace: where to run.
        done: keys of the nodes that the journal has.
        on_record: called in this process for each finished node.
        before_batch: called before each batch; may raise to stop.

    Raises:
        WorkerLostError: a worker process died.
        SourceReadError, OutputWriteError: from a block.
    """
    driver = _Driver(plan, done, workplace.engine(plan), on_record)
    most = max(64, 32 * workplace.workers)
    driver.recover_above(plan.grid.batch_level(most))
    for batch in plan.grid.batches(most):
        if before_batch is not None:
            before_batch()
        driver.run(batch)


class Engine(Protocol):
    """Runs tasks of a plan somewhere."""

    def task(self, function: Callable[..., NodeResult], key: str, *arguments: Any) -> Any:
        """The delayed call `function(plan, *arguments)`."""

    def compute(
        self, tasks: dict[str, Any], tops: dict[str, Any], on_record: OnRecord
    ) -> dict[str, NodeResult]:
        """Run all tasks, hand over each record as it comes, and return the tops' results."""


def _nothing() -> None:
    """Nothing to sync."""


@dataclass(frozen=True)
class Workplace:
    """Threads or a cluster, open for the blocks of one or more plans.

    Attributes:
        engine: gives the engine of a plan.
        workers: blocks in flight.
        sync: brings to the device what workers on other machines have written; those on this
            machine share its memory.
    """

    engine: Callable[[CorrectionPlan], Engine]
    workers: int
    sync: Callable[[], None] = _nothing


@contextmanager
def workplace(options: ExecutionOptions, use: Resources, folder: str) -> Iterator[Workplace]:
    """Open the place where blocks are computed; a cluster of our own ends with the context.

    Args:
        options: where to run.
        use: of this machine, or of each job.
        folder: address that the blocks are written below.
    """
    if options.execution == "threads":
        prepare_process(use.workers)
        with freed_memory_kept():
            yield Workplace(lambda plan: _Threads(plan, use.workers), use.workers)
        return
    with _client(options, use) as client, client.as_current():
        crew = Crew(client)
        crew.admit()
        _prepare_workers(client)
        workers = max(use.workers, _threads_of(client))
        sync = _nothing
        if options.execution != "processes" and places.is_local(folder):
            # Those who left have had the half minute after which their system writes by itself.
            sync = partial(client.run, sync_machine, places.local_path(folder))
        yield Workplace(lambda plan: _Workers(client, crew, plan), workers, sync)


class _Driver:
    """Runs batches and joins the means of their top nodes into the levels above."""

    def __init__(
        self, plan: CorrectionPlan, done: set[str], engine: Engine, on_record: OnRecord
    ) -> None:
        self._plan = plan
        self._grid: BlockGrid = plan.grid
        self._done = plan.grid.settled(done)
        self._engine = engine
        self._on_record = on_record
        self._waiting: dict[Node, dict[Node, NodeResult]] = {}
        # A scheduler may serve several jobs, and takes tasks of one name for the same.
        self._name = uuid.uuid4().hex[:8]

    def recover_above(self, level: int) -> None:
        """Read back the nodes above a level that an earlier run made and whose parents lack them.

        Their children are done, so no batch comes upon them.
        """
        for coarser in range(level + 1, len(self._grid.shapes)):
            for node in self._grid.nodes(coarser):
                if node.key in self._done and self._wanted(node):
                    self._arrived(node, recover(self._plan, node))

    def run(self, batch: list[Node]) -> None:
        tasks: dict[str, Any] = {}
        tops = {node.key: node for node in batch if self._wanted(node)}
        wanted = {key: self._task(node, tasks) for key, node in tops.items()}
        if not wanted:
            return
        results = self._engine.compute(tasks, wanted, self._on_record)
        for key, node in tops.items():
            self._arrived(node, results[key])

    def _wanted(self, node: Node) -> bool:
        """Whether a node is to be made, or its mean is needed by a parent that is."""
        if node.key not in self._done:
            return True
        parent = self._grid.parent(node)
        return parent is not None and parent.key not in self._done

    def _task(self, node: Node, tasks: dict[str, Any]) -> Any:
        """The delayed result of a node; its own and its children's tasks go to `tasks`."""
        task = self._engine.task
        if node.key in self._done:
            return task(recover, f"recover-{self._name}-{node.key}", node)
        if node.level == 0:
            made = task(process_block, f"block-{self._name}-{node.key}", node)
        else:
            children = [self._task(child, tasks) for child in self._grid.children(node)]
            made = task(process_parent, f"block-{self._name}-{node.key}", node, children)
        tasks[node.key] = made
        return made

    def _arrived(self, node: Node, result: NodeResult) -> None:
        parent = self._grid.parent(node)
        if parent is None or parent.key in self._done:
            return
        siblings = self._waiting.setdefault(parent, {})
        siblings[node] = result
        if len(siblings) == sum(1 for _ in self._grid.children(parent)):
            del self._waiting[parent]
            joined = process_parent(self._plan, parent, list(siblings.values()))
            self._on_record(joined.record)
            self._arrived(parent, joined)


class _Threads:
    """Dask's threaded scheduler."""

    def __init__(self, plan: CorrectionPlan, workers: int) -> None:
        self._plan = plan
        self._workers = workers
        self._graph: dict[str, Any] = {}

    def task(self, function: Callable[..., NodeResult], key: str, *arguments: Any) -> Any:
        # A plain graph and no `delayed`, whose import alone takes as long as a gigabyte. The
        # plan is bound and not an argument, or Dask would walk through all of it.
        self._graph[key] = (partial(function, self._plan), *arguments)
        return key

    def compute(
        self, tasks: dict[str, Any], tops: dict[str, Any], on_record: OnRecord
    ) -> dict[str, NodeResult]:
        from dask.threaded import get

        def finished(key: Any, result: Any, *_: Any) -> None:
            if isinstance(result, NodeResult) and result.record:
                on_record(result.record)

        graph, self._graph = self._graph, {}
        # A pool of its own: left only when the blocks in flight have ended, also after an error.
        # A callback of its own: a global one would see the blocks of jobs in other threads.
        callback = (None, None, None, finished, None)
        with ThreadPoolExecutor(self._workers) as pool:
            results = get(graph, list(tops.values()), pool=pool, callbacks=[callback])
        return dict(zip(tops, results, strict=True))


class _Workers:
    """Workers of a distributed scheduler; means travel between workers, not through here."""

    def __init__(self, client: Client, crew: Crew, plan: CorrectionPlan) -> None:
        self._client = client
        self._crew = crew
        self._plan = client.scatter(plan, broadcast=True, hash=False)

    def task(self, function: Callable[..., NodeResult], key: str, *arguments: Any) -> Any:
        from dask import delayed

        return delayed(function, pure=False)(self._plan, *arguments, dask_key_name=key)

    def compute(
        self, tasks: dict[str, Any], tops: dict[str, Any], on_record: OnRecord
    ) -> dict[str, NodeResult]:
        with _reached(self._client):
            return self._computed(tasks, tops, on_record)

    def _computed(
        self, tasks: dict[str, Any], tops: dict[str, Any], on_record: OnRecord
    ) -> dict[str, NodeResult]:
        from dask import delayed
        from distributed import wait

        records = [delayed(_record_of, pure=False)(task) for task in tasks.values()]
        waiting = set(self._client.compute(records, optimize_graph=False))
        kept = self._client.compute(list(tops.values()), optimize_graph=False)
        while waiting:
            try:
                state = wait(waiting, timeout=2, return_when="FIRST_COMPLETED")
            except TimeoutError:
                self._crew.refuse_lost()
                continue
            # Before what newcomers made counts.
            self._crew.admit()
            for future in state.done:
                on_record(future.result())
            waiting = set(state.not_done)
            self._crew.refuse_lost()
        return dict(zip(tops, (future.result() for future in kept), strict=True))


@contextmanager
def _reached(client: Client) -> Iterator[None]:
    """Say in one sentence that a worker or the scheduler has gone.

    Raises:
        WorkerLostError: what is lost, and that the run can be continued.
    """
    from concurrent.futures import CancelledError

    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise _lost(str(error)) from error
    except (CancelledError, CommClosedError) as error:
        if client.status == "running":
            raise _lost(str(error)) from error
        # Distributed gives up all futures when it has lost its scheduler.
        raise WorkerLostError(
            "The connection to the Dask scheduler was lost while blocks were computed. What was "
            "finished is kept: see that the scheduler runs, and run the same command again to go "
            "on."
        ) from error


class Crew:
    """The workers of a cluster: who joins is asked for its version, who is lost is missed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._present: set[str] = set()

    def admit(self) -> None:
        """Ask the workers that have joined since.

        Raises:
            WorkerVersionError: one of them has another package.
        """
        joined = _worker_addresses(self._client) - self._present
        refuse_other_versions(self._client, joined)
        self._present |= joined

    def refuse_lost(self) -> None:
        """Stop where a worker has gone: most likely it had too little memory.

        Raises:
            WorkerLostError: names it.
        """
        lost = self._present - _worker_addresses(self._client)
        if lost:
            raise _lost(", ".join(sorted(lost)))


def _lost(what: str) -> WorkerLostError:
    return WorkerLostError(
        f"A Dask worker died while it computed ({what}); its log says why, most often too little "
        "memory. What was finished is kept: run the same command again to go on."
    )


def _threads_of(client: Client) -> int:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return sum(int(worker["nthreads"]) for worker in workers.values())


def _worker_addresses(client: Client) -> set[str]:
    return set(client.scheduler_info(n_workers=-1)["workers"])


def _record_of(result: NodeResult) -> dict[str, Any]:
    return result.record


def _scheduler_address(options: ExecutionOptions) -> str:
    address = options.scheduler_address or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        raise ParameterError(
            "`execution=dask` needs the address of a scheduler: give `scheduler_address`, such "
            "as tcp://host:8786, or set DASK_SCHEDULER_ADDRESS."
        )
    return address


@contextmanager
def _client(options: ExecutionOptions, use: Resources) -> Iterator[Client]:
    from distributed import Client
    from distributed.deploy.subprocess import SubprocessCluster

    # Their chatter would mark a server's job as one with warnings; what is lost we say ourselves.
    # Distributed gives some of these loggers levels of their own.
    for name in ("distributed", "distributed.client", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    if options.execution == "dask":
        address = _scheduler_address(options)
        try:
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ParameterError(
                f"There is no Dask scheduler at {address} ({error}). Start one with "
                "`dask scheduler`, or correct `scheduler_address`."
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=60)
            except TimeoutError as error:
                raise ParameterError(
                    f"The Dask scheduler at {address} has no worker. Start some with "
                    f"`dask worker {address}`."
                ) from error
            yield client
        return
    if options.execution == "slurm":
        cluster = slurm_cluster(use)
        cluster.scale(jobs=use.workers)
    else:
        # Read by the workers' C library when they start: see `allocation`.
        os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
        # Processes of their own and not forks: the caller's script need not have a main guard.
        cluster = SubprocessCluster(
            n_workers=use.workers,
            threads_per_worker=1,
            worker_class="distributed.Worker",
            worker_kwargs={"memory_limit": 0, "dashboard": False},
            dashboard_address=None,  # type: ignore[arg-type]
            silence_logs=logging.CRITICAL,
        )
    with ExitStack() as farewell, cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1)
        try:
            yield client
        except BaseException:
            # What stopped this run may have stopped the cluster as well.
            farewell.enter_context(_short_farewell())
            raise


@contextmanager
def _short_farewell() -> Iterator[None]:
    """Give a cluster that may be gone little time to answer, and keep its complaints quiet."""
    import dask

    quiet = [logging.getLogger(name) for name in ("tornado.application", "asyncio")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with dask.config.set({"distributed.comm.timeouts.connect": _FAREWELL}):
            yield
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)


def slurm_cluster(use: Resources, **settings: Any) -> Any:
    """A Dask cluster of SLURM jobs; settings come from dask-jobqueue's configuration file.

    Args:
        use: one job for each worker; the memory is that of each job.
        settings: anything dask_jobqueue.SLURMCluster takes (queue, account, walltime ...).

    Raises:
        ParameterError: the extra `slurm` is not installed.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ParameterError(
            "`execution=slurm` needs dask-jobqueue: pip install 'fractal-mesospim-shading[slurm]'."
        ) from None
    chosen: dict[str, Any] = {
        "cores": 1,
        "processes": 1,
        # A port that is taken would be a warning in the log.
        "scheduler_options": {"dashboard_address": ":0"},
        "memory": f"{use.memory}B",
    }
    return SLURMCluster(**{**chosen, **settings})
