"""What a job is going to read, to write and to need, said before anything is done."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import prod

from fractal_mesospim_shading.core.kernel_cache import scratch_folder
from fractal_mesospim_shading.engine.earlier import UnfinishedJob, jobs_beside
from fractal_mesospim_shading.engine.job_folder import job_url, read_request
from fractal_mesospim_shading.engine.memory_needed import needed_memory
from fractal_mesospim_shading.engine.mismatch import other_job
from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.engine.records import same
from fractal_mesospim_shading.engine.resources import Resources, resources_of, room_to_share
from fractal_mesospim_shading.errors import JobLockedError
from fractal_mesospim_shading.flatfield.estimate_planes import planes_to_read
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.output import companion_url
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.jobs.certifying import overlap_bytes
from fractal_mesospim_shading.jobs.models import gains_url
from fractal_mesospim_shading.jobs.story import refuse_unwritable_work
from fractal_mesospim_shading.jobs.work import Work
from fractal_mesospim_shading.local_background.scratch import free_bytes
from fractal_mesospim_shading.messages import counted, shown
from fractal_mesospim_shading.views.report_place import report_url


@dataclass(frozen=True)
class Outlook:
    """What a job will do.

    Attributes:
        source: what it reads.
        result: what it writes: an image, a container, or a folder of models.
        beside: what else it writes, by kind: companions, report, models.
        models: where the flat-field of each channel comes from, a phrase.
        planes: which are read of each channel where nothing else is, a phrase.
        blocks: how many it computes; 0 where it writes no image.
        blocks_done: of these, how many an earlier run has finished.
        read_bytes: of the source, about, without the planes of estimates where it writes an image.
        overlap_bytes: of pixels that are decoded besides, where neighbouring tiles are compared.
        write_bytes: about.
        free_bytes: on the disk of the result; None where that is not known.
        temporary_bytes: in the folder for temporary files, at least, while it works.
        temporary_folder: that folder; empty where nothing is written there.
        temporary_free_bytes: on the disk of that folder.
        memory_bytes: at most; with `execution` dask or slurm, of each worker.
        memory_limit: bytes to stay within.
        workers: blocks computed at a time.
        execution: where.
        replaces: whether the result takes the place of something that is there.
    """

    source: str
    result: str
    beside: dict[str, str]
    models: dict[str, str]
    planes: dict[str, str] = field(default_factory=dict)
    blocks: int = 0
    blocks_done: int = 0
    read_bytes: int = 0
    overlap_bytes: int = 0
    write_bytes: int = 0
    free_bytes: int | None = None
    temporary_bytes: int = 0
    temporary_folder: str = ""
    temporary_free_bytes: int | None = None
    memory_bytes: int = 0
    memory_limit: int = 0
    workers: int = 1
    execution: str = "threads"
    replaces: bool = False

    def facts(self) -> Document:
        """The same as JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same to read."""
        rows = [("reads", self.source)]
        rows += [
            ("", f"channel {label}: {text}") for label, text in (self.models | self.planes).items()
        ]
        replaces = ", in the place of what is there" if self.replaces else ""
        rows += [("writes", f"{self.result}{replaces}")]
        rows += [("", f"{kind}: {url}") for kind, url in self.beside.items()]
        if self.blocks:
            left = counted(self.blocks, "block")
            if self.blocks_done:
                left = f"{left}, of which {self.blocks_done} are there"
            overlaps = ""
            if self.overlap_bytes:
                overlaps = (
                    f", and {size_text(self.overlap_bytes)} of pixels where tiles are compared"
                )
            free = (
                ""
                if self.free_bytes is None
                else f", of {size_text(self.free_bytes)} that are free"
            )
            each = " in each worker" if self.execution in ("dask", "slurm") else ""
            rows += [
                ("work", f"{left}; about {size_text(self.read_bytes)} to read{overlaps}"),
                ("disk", f"about {size_text(self.write_bytes)}{free}"),
                *self._temporary_rows(),
                (
                    "memory",
                    f"{size_text(self.memory_bytes)} at most{each}, of "
                    f"{size_text(self.memory_limit)} "
                    f"({counted(self.workers, 'block')} at a time, {self.execution})",
                ),
            ]
        elif self.read_bytes:
            rows += [("work", f"about {size_text(self.read_bytes)} to read")]
        return [f"{name:<8}{shown(text)}" for name, text in rows]

    def _temporary_rows(self) -> list[tuple[str, str]]:
        if not self.temporary_bytes:
            return []
        free = (
            ""
            if self.temporary_free_bytes is None
            else f", of {size_text(self.temporary_free_bytes)} that are free there"
        )
        return [
            (
                "",
                f"while it works, temporary files of {size_text(self.temporary_bytes)} or more in "
                f"{self.temporary_folder}{free}; they are gone when it ends",
            )
        ]


def outlook(work: Work) -> Outlook:
    """What a work that has been checked is going to do; the checks of its start are made as well.

    Raises:
        ShadingError: it would be refused.
    """
    refuse_unwritable_work(work)
    unfinished = _unfinished(work)
    use = resources_of((part.plan for part in work.parts), work.options)
    beside = {kind: companion_url(work.final_url, kind) for kind in work.companions}
    if work.models_folder is not None:
        beside["models"] = work.models_folder
    if any(c.options.tile_gains != "none" or c.options.side_gains for c in work.choices):
        beside["gains"] = gains_url(work.replaces or work.final_url)
    if work.reported:
        page = report_url(work.replaces or work.final_url)
        beside["report"] = page
        beside["numbers of the report"] = f"{page.removesuffix('.html')}.json"
    temporary = max(part.plan.temporary_bytes for part in work.parts)
    return Outlook(
        work.source_url,
        work.replaces or work.final_url,
        beside,
        models_from(work.choices),
        blocks=sum(part.plan.grid.total for part in work.parts),
        blocks_done=0 if unfinished is None else unfinished.blocks_done,
        read_bytes=_read_bytes(work),
        overlap_bytes=overlap_bytes(work.choices),
        write_bytes=work.expected_bytes(),
        free_bytes=_free_bytes(work.final_url),
        temporary_bytes=temporary,
        temporary_folder=scratch_folder() if temporary else "",
        temporary_free_bytes=free_bytes() if temporary else None,
        memory_bytes=max(_memory(part.plan, use, work.options.execution) for part in work.parts),
        memory_limit=use.memory,
        workers=use.workers,
        execution=work.options.execution,
        replaces=work.replaces is not None or places.exists(work.final_url, work.storage),
    )


def _memory(plan: CorrectionPlan, use: Resources, execution: str) -> int:
    """Bytes that the blocks of a plan take at most, with what threads leave for each other.

    On machines of a cluster those of one worker, which the limit is for as well.
    """
    if execution in ("dask", "slurm"):
        return needed_memory(plan, 1)
    shared = room_to_share(plan, use) if execution == "threads" else 0
    return needed_memory(plan, use.workers, processes=execution == "processes") + shared


def models_from(choices: Sequence[PlaneChoice]) -> dict[str, str]:
    """Where the flat-field of each channel comes from, by its label in the log."""
    found = {}
    for choice in choices:
        for group in choice.image.model_groups:
            text = "a model that was given"
            if choice.automatic:
                text = "planes that turn out to be empty, or else planes of all tiles for BaSiC"
            elif not choice.models:
                planes = planes_to_read(choice, group)
                tiles = ", ".join(map(str, sorted({tile for tile, _ in planes})))
                how = "thought empty" if choice.mostly_empty else "for BaSiC"
                number = counted(len(planes), "plane")
                text = f"{number} of level {choice.level} {how}, of tiles {tiles}"
            found[f"{choice.prefix}{group.label}"] = text
    return found


def _unfinished(work: Work) -> UnfinishedJob | None:
    """The run that the same command goes on with.

    Raises:
        JobLockedError: it is at work.
        JobMismatchError: the one that lies there is another one.
    """
    found = [
        job for job in jobs_beside(work.final_url, work.storage) if job.result == work.final_url
    ]
    if not found:
        return None
    (job,) = found
    if job.state == "running":
        raise JobLockedError(f"Another run is writing this result: {job.text()}.")
    url = job_url(work.final_url)
    request = read_request(url, work.storage)
    if work.options.restart or request is None:
        return None
    if same(request, work.request()):
        return job
    if job.blocks_done:
        raise other_job(url, request, work.request())
    return None


def _read_bytes(work: Work) -> int:
    """Bytes of the chunk files of what is corrected, from the share that they take on disk."""
    total = 0.0
    for number in {part.choice for part in work.parts}:
        parts = work.parts_of(number)
        source = work.choices[number].image if work.choices else parts[0].plan.source
        sources = [part.plan.source for part in parts]
        pixels = sum(prod(one.levels[0].shape) * one.dtype.itemsize for one in sources)
        total += pixels * source.stored_share()
    return int(total)


def _free_bytes(url: str) -> int | None:
    if not places.is_local(url):
        return None
    folder = places.local_path(url).parent
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def size_text(number: int) -> str:
    """Bytes as people say them, in steps of 1000."""
    size, units = float(number), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.3g} {units[0]}"
