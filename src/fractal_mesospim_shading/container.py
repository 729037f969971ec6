"""Correct a native acquisition into a container of the same structure.

Stitchers go on with the result as with the original: the same groups, the same
positions, metadata texts beside it, and a BigStitcher file that points at it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from fractal_mesospim_shading.acquisition import (
    log_facts,
    note_earlier,
    open_collection,
    source_state,
)
from fractal_mesospim_shading.compute import estimate_workers, resources, run_guarded
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.estimation import EstimationPlan
from fractal_mesospim_shading.finishing import complete, provenance, totals
from fractal_mesospim_shading.flatfield import (
    Models,
    find_models,
    flatfield_kernel,
    plan_models,
    request_details,
    save_used_models,
)
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.collection import TileCollection
from fractal_mesospim_shading.images.documents import document_of
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native_companions import write_companions
from fractal_mesospim_shading.images.native_mosaic import NativeMosaic, PlacedStack
from fractal_mesospim_shading.images.native_state import container_attributes
from fractal_mesospim_shading.images.output import (
    convert_attributes,
    output_url,
    refuse_existing,
    refuse_unwritable,
    split_name,
    target_levels,
    zarr_format_of,
)
from fractal_mesospim_shading.images.stores import join_url
from fractal_mesospim_shading.images.target import TargetImage, write_attributes
from fractal_mesospim_shading.job import Job, image_url
from fractal_mesospim_shading.params import FlatfieldOptions, parameters_of
from fractal_mesospim_shading.plan import BLOCK_BYTES, CorrectionPlan, FlatfieldKernel
from fractal_mesospim_shading.preparation import Problems, marked, options_of
from fractal_mesospim_shading.running import PartOfJob, RunPlan, running

logger = logging.getLogger(__name__)

_TASK = "correct_flatfield"


@dataclass(frozen=True)
class StackWork:
    """One stack to be corrected.

    Attributes:
        placed: the stack at its place in its mosaic.
        image: the stack as an image of its own.
        target: where it is written.
        attributes: of its group.
    """

    placed: PlacedStack
    image: MosaicImage
    target: TargetImage
    attributes: dict[str, Any]

    @property
    def plan(self) -> CorrectionPlan:
        """The plan, without its profile."""
        wish = max(1, BLOCK_BYTES // self.image.dtype.itemsize)
        return CorrectionPlan(self.image, (self.target,), self.target.url, wish=wish)


@dataclass(frozen=True)
class ContainerWork:
    """A container to be corrected, checked, with no pixel corrected yet."""

    collection: TileCollection
    options: FlatfieldOptions
    final_url: str
    zarr_format: int
    mosaics: tuple[tuple[NativeMosaic, EstimationPlan, tuple[StackWork, ...]], ...]

    def prefix(self, mosaic: NativeMosaic) -> str:
        """What goes before the labels of a mosaic's models where there are several mosaics."""
        return f"{mosaic.suffix}: " if len(self.mosaics) > 1 and mosaic.suffix else ""

    def request(self) -> dict[str, Any]:
        """What a continued run must match."""
        documents = [
            level.document
            for _, _, stacks in self.mosaics
            for stack in stacks
            for level in stack.target.levels
        ]
        return {
            "task": _TASK,
            "version": version("fractal-mesospim-shading"),
            "source": self.collection.url,
            "source_state": [source_state(mosaic) for mosaic, _, _ in self.mosaics],
            "output": hashlib.sha256(json.dumps(documents).encode()).hexdigest(),
            "mosaics": [request_details(self.options, plan) for _, plan, _ in self.mosaics],
        }


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
        found = [_models(work, index, job) for index in range(len(work.mosaics))]
        plans = [stack.plan for _, _, stacks in work.mosaics for stack in stacks]
        with running(plans, options, done=len(job.done)) as run_plan:
            for (mosaic, _, stacks), models in zip(work.mosaics, found, strict=True):
                counts = _correct_stacks(mosaic, stacks, models, options, job, run_plan)
                prefix = work.prefix(mosaic)
                all_models |= {prefix + label: model for label, model in models.items()}
                all_counts |= {prefix + label: counted for label, counted in counts.items()}
        folder = _save_models(work, all_models) if options.save_models else None
        write_companions(collection, work.final_url, storage)
        mark = provenance(_TASK, parameters_of(options), all_models, all_counts)
        final = marked(attributes, mark, complete=True)
        write_attributes(job.image_url, work.zarr_format, final, storage)
        result = job.finish(overwrite=options.overwrite)
    logger.info("Done in %.0f s: %s", time.monotonic() - started, result)
    return ContainerResult(result, collection.url, all_models, all_counts, folder)


def _models(work: ContainerWork, index: int, job: Job) -> Models:
    mosaic, plan, _ = work.mosaics[index]
    workers = estimate_workers(mosaic, plan.level, work.options)
    return find_models(
        mosaic,
        plan,
        work.options,
        zero_fill=True,
        workers=workers,
        job=job,
        prefix=f"{index}-",
    )


def prepare_container(collection: TileCollection, options: FlatfieldOptions) -> ContainerWork:
    """Check everything that can be checked before a pixel is corrected.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    if options.overwrite_input:
        problems.errors.append(
            ParameterError(
                "overwrite_input does not go with a native acquisition: its files are never "
                "replaced. Leave it out, and remove the acquisition yourself when you are sure."
            )
        )
    storage = options_of(options)
    final = problems.run(
        lambda: output_url(collection.url, options.output_image_name, options.output_folder)
    )
    planned = []
    if final is not None:
        with problems.collected():
            refuse_existing(final, storage, overwrite=options.overwrite)
        with problems.collected():
            refuse_unwritable(final)
    mosaics = problems.run(collection.mosaics) or ()
    for mosaic in mosaics:
        plan = plan_models(mosaic, options, problems)
        stacks = problems.run(partial(_stacks, collection, mosaic, final, options))
        if plan is not None and stacks:
            planned.append((mosaic, plan, stacks))
            with problems.collected():
                for stack in stacks:
                    resources(stack.plan, options)
    problems.raise_all()
    if final is None:
        raise RuntimeError("a failed check left no error")
    source = 2 if collection.stacks[0].ngff_version == "0.4" else 3
    zarr_format = zarr_format_of(options.ngff_version, source)
    return ContainerWork(collection, options, final, zarr_format, tuple(planned))


def _stacks(
    collection: TileCollection,
    mosaic: NativeMosaic,
    final: str | None,
    options: FlatfieldOptions,
) -> tuple[StackWork, ...]:
    if final is None:
        return ()
    storage = options_of(options)
    works = []
    for placed in mosaic.placed:
        image = MosaicImage.open(join_url(collection.url, placed.stack.group), storage)
        zarr_format = zarr_format_of(options.ngff_version, image.zarr_format)
        documents = [document_of(image.array(level)) for level in range(len(image.levels))]
        levels = target_levels(
            image.levels,
            documents,
            zarr_format=zarr_format,
            axes=image.axes,
            shards=options.output_shards,
        )
        url = places.join(image_url(final), placed.stack.group)
        attributes = convert_attributes(image.attributes(), image.zarr_format, zarr_format)
        target = TargetImage(url, zarr_format, levels, storage)
        works.append(StackWork(placed, image, target, attributes))
    return tuple(works)


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
        mark = provenance(_TASK, parameters_of(options), {label: models[label]}, {label: own})
        complete(stack.target, stack.attributes, stack.image.channels, histograms, mark)
    return counts


def _save_models(work: ContainerWork, models: Models) -> str:
    parent, _ = places.parent_and_name(work.final_url)
    _, name = places.parent_and_name(work.collection.url)
    folder = places.join(parent, f"{split_name(name)[0]}_shading_models")
    for mosaic, _, _ in work.mosaics:
        prefix = work.prefix(mosaic)
        own = {k.removeprefix(prefix): m for k, m in models.items() if k.startswith(prefix)}
        target = places.join(folder, mosaic.suffix) if prefix else folder
        save_used_models(target, mosaic, own)
    return folder
