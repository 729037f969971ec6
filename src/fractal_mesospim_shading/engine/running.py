"""Run the blocks of plans, put each on record, and show how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fractal_mesospim_shading.engine.compute import Resources, resources, run_blocks, workplace
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.journal import Record
from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.engine.progress import Progress

Accept = Callable[[Record], None]
"""Looks at the record of a block before it counts."""

RunPlan = Callable[[CorrectionPlan, "PartOfJob"], None]
"""Processes the blocks of a plan that its part of a job does not have yet."""


@contextmanager
def running(
    plans: Sequence[CorrectionPlan], options: Any, job: Job, accept: Accept
) -> Iterator[RunPlan]:
    """Open one workplace and one progress bar for the plans of a job.

    Args:
        plans: all that are going to be run; their kernels may come later.
        options: where to run.
        job: that has the blocks that an earlier run has finished.
        accept: looks at each record before it counts, and may refuse it with an error.
    """
    total = sum(plan.grid.total for plan in plans)
    use = _common(plans, options)
    folder = plans[0].target.url
    with (
        Progress(total, done=len(job.done)) as progress,
        workplace(options, use, folder) as place,
    ):

        def run_plan(plan: CorrectionPlan, job: PartOfJob) -> None:
            def record(entry: dict[str, Any]) -> None:
                accept(entry)
                job.record(entry, plan.files(entry["node"]))
                progress.advance()

            run_blocks(plan, place, job.done, record, before_batch=job.check_owned)
            if len(job.done) != plan.grid.total:
                raise RuntimeError(
                    f"{len(job.done)} of {plan.grid.total} blocks were written; please report this"
                )

        job.syncs_elsewhere(place.sync)
        try:
            yield run_plan
            place.sync()
        finally:
            job.syncs_elsewhere(None)


def _common(plans: Sequence[CorrectionPlan], options: Any) -> Resources:
    """What suits the plan with the largest blocks."""
    return min((resources(plan, options) for plan in plans), key=lambda use: use.workers)


class PartOfJob:
    """One of the images that a job writes: its share of the journal.

    Args:
        job: that writes it.
        name: of the image within the job; empty where there is one image.
    """

    def __init__(self, job: Job, name: str) -> None:
        self._job = job
        self._prefix = f"{name}:" if name else ""
        mine = [key for key in job.done if key.startswith(self._prefix)]
        self.done = {key.removeprefix(self._prefix) for key in mine}

    @property
    def records(self) -> list[dict[str, Any]]:
        """Records of this image."""
        return [r for r in self._job.records if r["node"].startswith(self._prefix)]

    def check_owned(self) -> None:
        """Look whether the output is still this run's own."""
        self._job.check_owned()

    def record(self, record: dict[str, Any], written: Iterable[str] = ()) -> None:
        """Put a finished block of this image on record; `written` are its local files."""
        self._job.record({**record, "node": self._prefix + record["node"]}, written)
        self.done.add(record["node"])
