"""Run the blocks of a plan, put each on record, and show how far it is."""

from __future__ import annotations

from typing import Any

from fractal_mesospim_shading.compute import run_blocks
from fractal_mesospim_shading.job import Job
from fractal_mesospim_shading.plan import CorrectionPlan
from fractal_mesospim_shading.progress import Progress


def run(plan: CorrectionPlan, options: Any, job: Job | PartOfJob) -> None:
    """Process the blocks that the job does not have yet, and show how far it is."""
    total = plan.grid.total
    with Progress(total, done=len(job.done)) as progress:

        def record(entry: dict[str, Any]) -> None:
            job.record(entry)
            progress.advance()

        run_blocks(plan, options, job.done, record)
    if len(job.done) != total:
        raise RuntimeError(f"{len(job.done)} of {total} blocks were written; please report this")


class PartOfJob:
    """One of several images that a job writes: its share of the journal."""

    def __init__(self, job: Job, name: str) -> None:
        self._job = job
        self._prefix = f"{name}:"
        mine = [key for key in job.done if key.startswith(self._prefix)]
        self.done = {key.removeprefix(self._prefix) for key in mine}

    @property
    def records(self) -> list[dict[str, Any]]:
        """Records of this image."""
        return [r for r in self._job.records if r["node"].startswith(self._prefix)]

    def record(self, record: dict[str, Any]) -> None:
        """Put a finished block of this image on record."""
        self._job.record({**record, "node": self._prefix + record["node"]})
        self.done.add(record["node"])
