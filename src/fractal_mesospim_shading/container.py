"""Correct a native acquisition into a container of the same structure.

Stitchers go on with the result as with the original: the same groups, the same
positions, metadata texts beside it, and a BigStitcher file that points at it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fractal_mesospim_shading.acquisition import log_facts, note_earlier, open_collection
from fractal_mesospim_shading.compute import estimate_workers, run_guarded
from fractal_mesospim_shading.container_plan import (
    TASK,
    ContainerWork,
    StackWork,
    prefix_of,
    prepare_container,
)
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.estimation import EstimationPlan
from fractal_mesospim_shading.finishing import complete, provenance, totals
from fractal_mesospim_shading.flatfield import (
    Models,
    find_models,
    flatfield_kernel,
    plan_models,
    save_used_models,
)
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.native_companions import write_companions
from fractal_mesospim_shading.images.native_mosaic import NativeMosaic
from fractal_mesospim_shading.images.native_state import container_attributes
from fractal_mesospim_shading.images.output import split_name
from fractal_mesospim_shading.images.target import write_attributes
from fractal_mesospim_shading.job import Job
from fractal_mesospim_shading.params import FlatfieldOptions, parameters_of
from fractal_mesospim_shading.plan import FlatfieldKernel
from fractal_mesospim_shading.preparation import Problems, marked, options_of
from fractal_mesospim_shading.running import PartOfJob, RunPlan, running

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContainerResult:
    """A corrected container.

    Attributes:
        image_url: its address.
        source_url: the original.
        models: by channel label (and side), of all mosaics in it.
        counts: the same.
        models_folder: where the models were saved, if they were.
    """

    image_url: str
    source_url: str
    models: Models
    counts: dict[str, PixelCounts]
    models_folder: str | None = None


def correct_container(url: str, options: FlatfieldOptions) -> ContainerResult:
    """Correct the flat-field of all stacks of a container.

    Args:
        url: of the container.
        options: as for a mosaic; tile numbers are those of `mesospim-shading info`.

    Raises:
        ShadingError: one readable error; no file of the acquisition has been changed.
    """
    started = time.monotonic()
    collection = open_collection(url, options)
    log_facts(collection)
    note_earlier(collection, options, again=True)
    attributes = container_attributes(url, options_of(options))
    work = prepare_container(collection, options)
    storage = options_of(options)
    all_models: Models = {}
    all_counts: dict[str, PixelCounts] = {}
    for mosaic, _, _ in work.mosaics:
        for note in mosaic.notes:
            logger.info("%s", note)
    with (
        run_guarded(),
        Job(work.final_url, work.request(), storage).start(restart=options.restart) as job,
    ):
        started_as = marked(attributes, {}, complete=False)
        write_attributes(job.image_url, work.zarr_format, started_as, storage)
        found = [
            _models(mosaic, plan, options, job, f"{index}-")
            for index, (mosaic, plan, _) in enumerate(work.mosaics)
        ]
        plans = [stack.plan for _, _, stacks in work.mosaics for stack in stacks]
        with running(plans, options, done=len(job.done)) as run_plan:
            for (mosaic, _, stacks), models in zip(work.mosaics, found, strict=True):
                counts = _correct_stacks(mosaic, stacks, models, options, job, run_plan)
                prefix = prefix_of(mosaic, len(work.mosaics))
                all_models |= {prefix + label: model for label, model in models.items()}
                all_counts |= {prefix + label: counted for label, counted in counts.items()}
        folder = _save_models(work, all_models) if options.save_models else None
        groups = {stack.placed.stack.group for _, _, stacks in work.mosaics for stack in stacks}
        write_companions(collection, groups, work.final_url, storage)
        mark = provenance(TASK, parameters_of(options), all_models, all_counts)
        final = marked(attributes, mark, complete=True)
        write_attributes(job.image_url, work.zarr_format, final, storage)
        result = job.finish(overwrite=options.overwrite)
    logger.info("Done in %.0f s: %s", time.monotonic() - started, result)
    return ContainerResult(result, collection.url, all_models, all_counts, folder)


def estimate_container(url: str, folder: str, options: FlatfieldOptions) -> Models:
    """Estimate and save the models of a container without correcting it.

    Args:
        url: of the container.
        folder: for the models; `models_folder` of a later correction or import.
        options: of the estimate.
    """
    collection = open_collection(url, options)
    log_facts(collection)
    problems = Problems()
    mosaics = collection.mosaics()
    plans = [plan_models(mosaic, options, problems) for mosaic in mosaics]
    problems.raise_all()
    found: Models = {}
    for mosaic, plan in zip(mosaics, plans, strict=True):
        if plan is None:
            raise RuntimeError("a failed check left no error")
        prefix = prefix_of(mosaic, len(mosaics))
        models = _models(mosaic, plan, options)
        save_used_models(places.join(folder, mosaic.suffix) if prefix else folder, mosaic, models)
        found |= {prefix + label: model for label, model in models.items()}
    return found


def _models(
    mosaic: NativeMosaic,
    plan: EstimationPlan,
    options: FlatfieldOptions,
    job: Job | None = None,
    prefix: str = "",
) -> Models:
    workers = estimate_workers(mosaic, plan.level, options)
    return find_models(
        mosaic, plan, options, zero_fill=True, workers=workers, job=job, prefix=prefix
    )


def _correct_stacks(
    mosaic: NativeMosaic,
    stacks: Sequence[StackWork],
    models: Models,
    options: FlatfieldOptions,
    job: Job,
    run_plan: RunPlan,
) -> dict[str, PixelCounts]:
    """Correct each stack with the model of its channel and side."""
    shared = flatfield_kernel(mosaic, models, options, zero_fill=True)
    counts: dict[str, PixelCounts] = {label: PixelCounts() for label in models}
    for number, stack in enumerate(stacks, start=1):
        placed = stack.placed
        label = shared.profile_names[placed.channel, placed.tile]
        kernel = FlatfieldKernel(
            stack.image.axes,
            stack.image.layout,
            {label: shared.corrections[label]},
            {(0, None): label},
            {0: shared.zero_is_no_data[placed.channel]},
        )
        part = PartOfJob(job, placed.stack.group)
        logger.info("Stack %d of %d: %s", number, len(stacks), placed.stack.group)
        stack.target.create(marked(stack.attributes, {}, complete=False))
        run_plan(replace(stack.plan, kernel=kernel), part)
        found, histograms = totals(stack.image.channels, part.records)
        own = next(iter(found.values()))
        counts[label] = counts[label] + own
        mark = provenance(TASK, parameters_of(options), {label: models[label]}, {label: own})
        complete(stack.target, stack.attributes, stack.image.channels, histograms, mark)
    return counts


def _save_models(work: ContainerWork, models: Models) -> str:
    parent, _ = places.parent_and_name(work.final_url)
    _, name = places.parent_and_name(work.collection.url)
    folder = places.join(parent, f"{split_name(name)[0]}_shading_models")
    for mosaic, _, _ in work.mosaics:
        prefix = prefix_of(mosaic, len(work.mosaics))
        own = {k.removeprefix(prefix): m for k, m in models.items() if k.startswith(prefix)}
        target = places.join(folder, mosaic.suffix) if prefix else folder
        save_used_models(target, mosaic, own)
    return folder
