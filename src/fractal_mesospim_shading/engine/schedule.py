"""Run the blocks of plans in batches, and put each on record.

Nothing here knows what a block holds. A batch of subtrees becomes one Dask graph of
bounded size; a node's mean is handed from its task to its parent's and then dropped.
"""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fractal_mesospim_shading.core.blocks import BlockGrid, Node, batch_size, key_in_job, split_key
from fractal_mesospim_shading.engine.cluster import Engine, OnRecord, Workplace, workplace
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.plan import (
    CorrectionPlan,
    NodeResult,
    process_block,
    process_parent,
    recover,
)
from fractal_mesospim_shading.engine.progress import Progress
from fractal_mesospim_shading.engine.records import Record
from fractal_mesospim_shading.engine.resources import resources_of
from fractal_mesospim_shading.messages import counted
from fractal_mesospim_shading.options.base import ExecutionOptions

logger = logging.getLogger(__name__)

Accept = Callable[[Record], None]
"""Looks at the record of a block before it counts."""

RunPlan = Callable[[CorrectionPlan, "PartOfJob"], None]
"""Processes the blocks of a plan that its part of a job does not have yet."""


@contextmanager
def running(
    plans: Sequence[CorrectionPlan], options: ExecutionOptions, job: Job, accept: Accept
) -> Iterator[RunPlan]:
    """Open one workplace and one progress bar for the plans of a job.

    Args:
        plans: all that are going to be run; their kernels may come later.
        options: where to run.
        job: that has the blocks that an earlier run has finished.
        accept: looks at each record before it counts, and may refuse it with an error.
    """
    total = sum(plan.grid.total for plan in plans)
    use = resources_of(plans, options)
    folder = plans[0].target.url
    logger.info("%s to write", counted(total - len(job.done), "block"))
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


class PartOfJob:
    """One of the images that a job writes: its share of the journal.

    Args:
        job: that writes it.
        name: of the image within the job; empty where there is one image.
        done: keys of its blocks that the journal has, as the image itself has them.
    """

    def __init__(self, job: Job, name: str, done: Iterable[str]) -> None:
        self._job = job
        self._name = name
        self.done = set(done)

    def check_owned(self) -> None:
        """Look whether the output is still this run's own."""
        self._job.check_owned()

    def record(self, record: Record, written: Iterable[str] = ()) -> None:
        """Put a finished block of this image on record; `written` are its local files."""
        self._job.record({**record, "node": key_in_job(self._name, record["node"])}, written)
        self.done.add(record["node"])


def records_by_part(records: Iterable[Record]) -> Mapping[str, Sequence[Record]]:
    """The records of a job, as they are, by the names of its images."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        name, _ = split_key(record["node"])
        found[name].append(record)
    return found


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
    plan = plan.sharing(workplace.room(plan), done)
    driver = _Driver(plan, done, workplace.engine(plan), on_record)
    most = batch_size(workplace.workers)
    driver.recover_above(plan.grid.batch_level(most))
    for batch in plan.grid.batches(most):
        if before_batch is not None:
            before_batch()
        driver.run(batch)


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
                if node.key in self._done and self._is_needed(node):
                    self._arrived(node, recover(self._plan, node))

    def run(self, batch: list[Node]) -> None:
        tasks: dict[str, Any] = {}
        tops = {node.key: node for node in batch if self._is_needed(node)}
        delayed = {key: self._task(node, tasks) for key, node in tops.items()}
        if not delayed:
            return
        results = self._engine.compute(tasks, delayed, self._on_record)
        for key, node in tops.items():
            self._arrived(node, results[key])

    def _is_needed(self, node: Node) -> bool:
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
