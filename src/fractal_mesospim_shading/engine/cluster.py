"""Where blocks are computed: threads of this process, or the workers of a Dask cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from fractal_mesospim_shading.core.kernel_cache import scratch_folder
from fractal_mesospim_shading.core.threads import Shared, forget_runs, freed_memory_kept
from fractal_mesospim_shading.engine.crew import Crew, reached, workers_of
from fractal_mesospim_shading.engine.plan import CorrectionPlan, NodeResult
from fractal_mesospim_shading.engine.process import (
    logs_quieted,
    prepare_workers,
    process_prepared,
    process_put_back,
)
from fractal_mesospim_shading.engine.resources import (
    Resources,
    more_memory,
    refuse_no_jobqueue,
    room_to_share,
    scheduler_address,
)
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.local_files import sync_machine
from fractal_mesospim_shading.options.base import ExecutionOptions

if TYPE_CHECKING:
    from distributed import Client

OnRecord = Callable[[dict[str, Any]], None]

_CONNECT_SECONDS = 20.0
"""How long a Dask scheduler may take to answer."""

_FAREWELL = "2s"
"""How long a cluster of our own may take to answer when a run breaks off."""


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


def _no_room(plan: CorrectionPlan) -> int:
    """Blocks in different processes leave nothing for each other."""
    return 0


@dataclass(frozen=True)
class Workplace:
    """Threads or a cluster, open for the blocks of one or more plans.

    Attributes:
        engine: gives the engine of a plan.
        workers: blocks in flight.
        room: bytes that the blocks of a plan may leave in memory for others.
        sync: brings to the device what workers on other machines have written; those on this
            machine share its memory.
    """

    engine: Callable[[CorrectionPlan], Engine]
    workers: int
    room: Callable[[CorrectionPlan], int] = _no_room
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
        with process_prepared(use.workers), freed_memory_kept:
            room = partial(room_to_share, use=use)
            try:
                yield Workplace(lambda plan: _Threads(plan, use.workers), use.workers, room)
            finally:
                forget_runs()
        return
    import distributed  # noqa: F401  sets levels of its loggers, which `_quiet` changes after

    with process_put_back, _quiet, _client(options, use) as client, client.as_current():
        crew = Crew(client)
        crew.admit()
        prepare_workers(client)
        workers = max(use.workers, _threads_of(client))
        sync = _nothing
        if options.execution != "processes" and places.is_local(folder):
            # Those who left have had the half minute after which their system writes by itself.
            sync = partial(client.run, sync_machine, places.local_path(folder))

        def engine(plan: CorrectionPlan) -> Engine:
            return _Workers(client, crew, plan, more_memory(plan, options, use))

        yield Workplace(engine, workers, sync=sync)
        if options.execution == "dask":
            # These workers go on. After an error they may not answer, and forget with the next run.
            client.run(forget_runs, on_error="ignore")


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
        rank = {key: number for number, key in enumerate(graph)}

        def put_in_order(_: Any, state: dict[str, Any]) -> None:
            # Dask runs trees that have nothing to do with each other from the last to the first.
            # Blocks that share chunks would have more to keep for each other. The last is next.
            state["ready"].sort(key=rank.__getitem__, reverse=True)

        # A pool of its own: left only when the blocks in flight have ended, also after an error.
        # A callback of its own: a global one would see the blocks of jobs in other threads.
        callback = (None, put_in_order, None, finished, None)
        with ThreadPoolExecutor(self._workers) as pool:
            results = get(graph, list(tops.values()), pool=pool, callbacks=[callback])
        return dict(zip(tops, results, strict=True))


class _Workers:
    """Workers of a distributed scheduler; means travel between workers, not through here."""

    def __init__(self, client: Client, crew: Crew, plan: CorrectionPlan, advice: str) -> None:
        self._client = client
        self._crew = crew
        self._advice = advice
        self._plan = client.scatter(plan, broadcast=True, hash=False)

    def task(self, function: Callable[..., NodeResult], key: str, *arguments: Any) -> Any:
        from dask import delayed

        return delayed(function, pure=False)(self._plan, *arguments, dask_key_name=key)

    def compute(
        self, tasks: dict[str, Any], tops: dict[str, Any], on_record: OnRecord
    ) -> dict[str, NodeResult]:
        with reached(self._client, self._advice):
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
                self._crew.refuse_lost(self._advice)
                continue
            # Before what newcomers made counts.
            self._crew.admit()
            for future in state.done:
                on_record(future.result())
            waiting = set(state.not_done)
            self._crew.refuse_lost(self._advice)
        return dict(zip(tops, (future.result() for future in kept), strict=True))


def _threads_of(client: Client) -> int:
    return sum(int(worker["nthreads"]) for worker in workers_of(client).values())


def _record_of(result: NodeResult) -> dict[str, Any]:
    return result.record


@contextmanager
def _client(options: ExecutionOptions, use: Resources) -> Iterator[Client]:
    from distributed import Client
    from distributed.deploy.subprocess import SubprocessCluster

    if options.execution == "dask":
        address = scheduler_address(options)
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
        # Read by the workers' C library when they start: see `core.threads`.
        os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
        # Where the scheduler says its address, which is read while the cluster is made.
        with TemporaryDirectory(dir=scratch_folder()) as folder:
            # Processes of their own and not forks: the caller's script need not have a main guard.
            cluster = SubprocessCluster(
                n_workers=use.workers,
                threads_per_worker=1,
                worker_class="distributed.Worker",
                worker_kwargs={"memory_limit": 0, "dashboard": False},
                scheduler_kwargs={"scheduler_file": os.path.join(folder, "scheduler.json")},
                dashboard_address=None,  # type: ignore[arg-type]
                silence_logs=logging.CRITICAL,
            )
    with ExitStack() as farewell, cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1)
        try:
            yield client
        except BaseException:
            # What stopped this run may have stopped the cluster as well.
            farewell.enter_context(_short_farewell)
            raise


@contextmanager
def _hurried() -> Iterator[None]:
    import dask

    with (
        logs_quieted(logging.CRITICAL + 1, "tornado.application", "asyncio"),
        dask.config.set({"distributed.comm.timeouts.connect": _FAREWELL}),
    ):
        yield


_short_farewell = Shared(_hurried)
"""Gives a cluster that may be gone little time to answer, and keeps its complaints quiet."""

# Their chatter would mark a server's job as one with warnings; what is lost we say ourselves.
# Distributed gives some of these loggers levels of their own.
_quiet = Shared(
    partial(logs_quieted, logging.CRITICAL, "distributed", "distributed.client", "distributed.core")
)


def slurm_cluster(use: Resources, **settings: Any) -> Any:
    """A Dask cluster of SLURM jobs; settings come from dask-jobqueue's configuration file.

    Args:
        use: one job for each worker; the memory is that of each job.
        settings: anything dask_jobqueue.SLURMCluster takes (queue, account, walltime ...).

    Raises:
        ParameterError: the extra `slurm` is not installed.
    """
    refuse_no_jobqueue()
    from dask_jobqueue import SLURMCluster

    chosen: dict[str, Any] = {
        "cores": 1,
        "processes": 1,
        # A port that is taken would be a warning in the log.
        "scheduler_options": {"dashboard_address": ":0"},
        "memory": f"{use.memory}B",
    }
    return SLURMCluster(**{**chosen, **settings})
