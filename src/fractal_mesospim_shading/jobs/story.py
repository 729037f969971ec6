"""The story of every job, told once: take it, find the models, run the blocks, finish."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.core.blocks import keys_by_part
from fractal_mesospim_shading.core.threads import meanwhile
from fractal_mesospim_shading.engine.earlier import tell_history
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.engine.process import run_guarded
from fractal_mesospim_shading.engine.schedule import PartOfJob, running
from fractal_mesospim_shading.engine.watching import Watch, arrays_read
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains
from fractal_mesospim_shading.flatfield.kernel import flatfield_kernel
from fractal_mesospim_shading.flatfield.models import Models
from fractal_mesospim_shading.flatfield.offset_doubts import is_given
from fractal_mesospim_shading.flatfield.offset_look import OffsetLook, offset_look
from fractal_mesospim_shading.images.arrays.documents import write_attributes
from fractal_mesospim_shading.images.carrying.carry import carry_members
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.target import refuse_useless_codecs
from fractal_mesospim_shading.images.tile_tables import refuse_table_of_acquisition
from fractal_mesospim_shading.jobs.ending import begin, complete_all
from fractal_mesospim_shading.jobs.finished import told_counts, with_counts
from fractal_mesospim_shading.jobs.models import (
    find_all_gains,
    labelled_gains,
    make_models,
    refuse_folder_of_models,
    save_all_models,
    write_gains,
)
from fractal_mesospim_shading.jobs.preparation import tell_notes
from fractal_mesospim_shading.jobs.work import CorrectionOptions, JobResult, Part, Work, labelled
from fractal_mesospim_shading.messages import counted, heard_so_far, warnings_heard
from fractal_mesospim_shading.views import drawing
from fractal_mesospim_shading.views.report_place import report_url

if TYPE_CHECKING:
    from fractal_mesospim_shading.images.native.collection import TileCollection

logger = logging.getLogger(__name__)

_WARNINGS = "warnings.json"


def correct(planned: Callable[[], Work]) -> JobResult:
    """Plan a job, and do it.

    Args:
        planned: makes the work, with all its checks.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    with warnings_heard():
        return carry_out(planned())


def planned_for(
    url: str,
    options: CorrectionOptions,
    of_image: Callable[[MosaicImage], Work],
    of_container: Callable[[TileCollection], Work],
) -> Work:
    """The work of an image, or of all stacks of a native acquisition.

    Args:
        url: of the image, or of the container.
        options: of the correction.
        of_image, of_container: make the work, with all its checks.

    Raises:
        ShadingError: one readable error; nothing was written.
    """
    storage = options.storage_options
    container = is_container(url, storage)
    with workable(url):
        if not container:
            image = MosaicImage.open(url, storage, options.input_roi_table)
            tell_notes(image)
            return of_image(image)
        # Not at the top: the start of a job with an image does without.
        from fractal_mesospim_shading.images.native.opening import open_collection, tell_facts

        refuse_table_of_acquisition(options.input_roi_table)
        collection = open_collection(url, storage)
        tell_facts(collection)
        work = of_container(collection)
        for mosaic in collection.mosaics():
            tell_notes(mosaic)
    return work


def refuse_unwritable_work(work: Work) -> None:
    """Refuse models and pixels that could not be written.

    Raises:
        ShadingError: which, and why.
    """
    if work.models_folder is not None:
        refuse_folder_of_models(work.models_folder, work.choices)
    refuse_useless_codecs(target for part in work.parts for target in part.plan.targets)


def carry_out(work: Work) -> JobResult:
    """Do a job that has been checked.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    started = time.monotonic()
    options = work.options
    refuse_unwritable_work(work)
    tell_history(work.source_url, work.history, work.corrections)
    _tell_members(work)
    _make_parent(work)
    with (
        run_guarded(),
        Job(
            work.final_url,
            work.request(),
            work.storage,
            companions=work.companions,
            durable=options.durable,
        ).start(
            restart=options.restart, overwrite=options.overwrite or work.replaces is not None
        ) as job,
    ):
        if job.finished:
            report = report_url(work.final_url) if work.reported else None
            told = told_counts(work.final_url, work.kinds_of_counts, work.storage)
            return with_counts(work.result(work.final_url, report), told)
        if job.continued:
            done = counted(len(job.done), "block")
            logger.info("An unfinished run is continued, with %s that it had finished.", done)
        # Also of a continued run: the earlier one may have been killed while it did this.
        begin(work, job.unfinished_url)
        watch = _watch(work, job)
        every = (*work.choices, *work.compared)
        models = make_models(every, options, job)
        gains = find_all_gains(every, models, job)[: len(work.choices)]
        models = models[: len(work.choices)]
        _keep_warnings(job)
        _run(work, models, gains, job, watch)
        with workable(work.source_url):
            _carry(work, job)
        if work.models_folder is not None:
            save_all_models(work.models_folder, work.choices, models)
        table = write_gains(work, gains, job)
        # Not at the top: what judges and reports is not needed before the first block.
        from fractal_mesospim_shading.jobs.outcome import judge_job, report_job

        with meanwhile(drawing.load) if work.reported and work.choices else nullcontext():
            # Nothing is marked as complete that a power cut could take away.
            job.sync()
            watch.confirm()
            counts = complete_all(work, models, gains, job)
            outcome = judge_job(work, models, gains, job, counts)
        used = labelled(work.choices, models)
        # Now: a run that is killed after the next lines has nothing left to do, and the source may
        # be gone.
        seconds = time.monotonic() - started
        report = report_job(work, models, gains, counts, outcome, seconds, job.beside)
        url = job.finish(replace=work.replaces, overwrite=options.overwrite)
    outcome.tell()
    logger.info("Done in %.0f s: %s", time.monotonic() - started, url)
    result = replace(
        work.result(url, report),
        models=used,
        noise_factors=_noise_factors(work),
        tile_gains=labelled_gains(work.choices, gains),
        gains_table=table,
        overlaps=outcome.looked.checks,
        verdict=outcome.verdict,
    )
    return with_counts(result, counts)


def _noise_factors(work: Work) -> dict[str, Any]:
    """By how much the noise of pixels grew where local backgrounds were taken away, by label."""
    return {
        part.prefix + label: factors
        for part in work.parts
        for facts in (part.facts, part.facts_then)
        for label, factors in facts.get("noise_factors", {}).items()
    }


def _keep_warnings(job: Job) -> None:
    """Keep what was warned of until now for a run that goes on, and say it again in such a one."""
    kept: list[str] = json.loads(job.recall(_WARNINGS) or b"[]")
    for line in kept:
        if line not in heard_so_far():
            logger.warning("%s", line)
    # Where no model is kept, all is looked at again, and warned of again.
    if heard_so_far() and places.list_names(places.join_url(job.url, "profiles"), job.options):
        job.remember(_WARNINGS, json.dumps(heard_so_far()).encode())


def _make_parent(work: Work) -> None:
    """The group that holds the images of an acquisition."""
    if work.parent_format is None:
        return
    parent, _ = places.parent_and_name(work.final_url)
    names = (".zgroup", "zarr.json")
    if not any(places.exists(places.join_url(parent, name), work.storage) for name in names):
        write_attributes(parent, work.parent_format, {}, work.storage)


def _watch(work: Work, job: Job) -> Watch:
    """Look at the files of the source, and at what an earlier run has left."""
    plans = {part.name: part.plan for part in work.parts}
    wholly = [array for plan in plans.values() for array in arrays_read(plan)]
    partly = [
        array
        for choice in (*work.choices, *work.compared)
        for level in range(len(choice.image.levels))
        for array in choice.image.stored(level)
    ]
    return Watch.begin(job, plans, wholly, partly)


def _run(
    work: Work, models: Sequence[Models], gains: Sequence[ImageGains], job: Job, watch: Watch
) -> None:
    """Process all blocks of all images that the job does not have yet."""
    kernels = [
        flatfield_kernel(choice.image, own, choice.options, own_gains)
        for choice, own, own_gains in zip(work.choices, models, gains, strict=True)
    ]

    sharing = Counter((part.choice, part.models) for part in work.parts)

    def finished_plan(part: Part) -> CorrectionPlan:
        if not work.choices:
            return part.plan
        look = _planned_look(part, models[part.choice], sharing[part.choice, part.models])
        whole = replace(kernels[part.choice], offset_look=look)
        own = whole if part.narrowed is None else part.narrowed(whole)
        return replace(part.plan, kernel=own if part.joined is None else part.joined(own))

    plans = [part.plan for part in work.parts]
    done = keys_by_part(job.done)
    with running(plans, work.options, job, watch.accept) as run_plan:
        for number, part in enumerate(work.parts, start=1):
            if part.name:
                logger.info("Stack %d of %d: %s", number, len(work.parts), part.name)
            run_plan(finished_plan(part), PartOfJob(job, part.name, done[part.name]))


def _planned_look(part: Part, models: Models, sharing: int) -> OffsetLook | None:
    """The planes of a part that tell whether a given offset fits; None where none was given.

    Args:
        part: of the job.
        models: of its choice of planes.
        sharing: how many parts are corrected with the same ones.
    """
    given = {label for label in part.models or models if is_given(models[label])}
    if not given:
        return None
    return offset_look(part.plan.source, given, sharing)


def _carry(work: Work, job: Job) -> None:
    """Add what the result holds besides the images: members of the source, tables, texts."""
    if work.members is not None:
        carry_members(work.members, job.unfinished_url, work.storage, job, watch=job.check_owned)
    for part in work.parts:
        work.add_tables(part.plan.target)
    for text in work.texts:
        places.write_bytes(job.beside(text.url), text.data, work.storage)


def _tell_members(work: Work) -> None:
    """Lines about what is carried over, and one about what cannot be."""
    if work.members is None:
        return
    for line in work.members.notes:
        logger.info("%s", line)
    if work.members.loss is not None:
        logger.warning("%s", work.members.loss)
