"""The workers of a Dask cluster: who is there, and what is said when one of them has gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.engine.worker_versions import refuse_other_versions
from fractal_mesospim_shading.errors import WorkerLostError

if TYPE_CHECKING:
    from distributed import Client

_ANSWER_SECONDS = 60.0
"""How long a scheduler at work may take to answer; one that has gone refuses at once or never."""


@contextmanager
def reached(client: Client, advice: str) -> Iterator[None]:
    """Say in one sentence that a worker or the scheduler has gone.

    Args:
        client: of the cluster.
        advice: what to ask for if a worker had too little memory.

    Raises:
        WorkerLostError: what is lost, and that the run can be continued.
    """
    from concurrent.futures import CancelledError

    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise _lost(str(error), advice) from error
    except (CancelledError, CommClosedError) as error:
        # Distributed gives up all futures when it has lost its scheduler, and may do so before
        # its status tells: the scheduler is asked.
        if client.status != "running":
            raise _scheduler_lost() from error
        workers_of(client)
        raise _lost(str(error), advice) from error


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
        joined = set(workers_of(self._client)) - self._present
        refuse_other_versions(self._client, joined)
        self._present |= joined

    def refuse_lost(self, advice: str) -> None:
        """Stop where a worker has gone: most likely it had too little memory.

        Args:
            advice: what to ask for then.

        Raises:
            WorkerLostError: names it.
        """
        lost = self._present - set(workers_of(self._client))
        if lost:
            raise _lost(", ".join(sorted(lost)), advice)


def _lost(what: str, advice: str) -> WorkerLostError:
    return WorkerLostError(
        f"A Dask worker died while it computed ({what}); its log says why, most often too little "
        f"memory: {advice}. What was finished is kept: run the same command again to go on."
    )


def _scheduler_lost() -> WorkerLostError:
    return WorkerLostError(
        "The connection to the Dask scheduler was lost while blocks were computed. What was "
        "finished is kept: see that the scheduler runs, and run the same command again to go on."
    )


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """What the scheduler says of each worker, by address.

    It is asked itself: what `Client.scheduler_info` returns may be a look of the client's own, once
    in two seconds, that came between and names no worker.

    Raises:
        WorkerLostError: the scheduler does not answer.
    """
    scheduler: Any = client.scheduler
    ask = partial(scheduler.identity, n_workers=-1)
    try:
        return dict(client.sync(ask, callback_timeout=_ANSWER_SECONDS)["workers"])
    except (OSError, TimeoutError) as error:
        raise _scheduler_lost() from error
