"""Run the blocks of a plan, put each on record, and show how far it is."""

from __future__ import annotations

from typing import Any

from fractal_mesospim_shading.compute import run_blocks
from fractal_mesospim_shading.job import Job
from fractal_mesospim_shading.plan import CorrectionPlan
from fractal_mesospim_shading.progress import Progress


def run(plan: CorrectionPlan, options: Any, job: Job) -> None:
    """Process the blocks that the job does not have yet, and show how far it is."""
    total = plan.grid.total
    with Progress(total, done=len(job.done)) as progress:

        def record(entry: dict[str, Any]) -> None:
            job.record(entry)
            progress.advance()

        run_blocks(plan, options, job.done, record)
    if len(job.done) != total:
        raise RuntimeError(f"{len(job.done)} of {total} blocks were written; please report this")
