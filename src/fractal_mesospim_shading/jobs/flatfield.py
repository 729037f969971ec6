"""Flat-field correction of an image, or stack by stack of a native acquisition."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fractal_mesospim_shading.core.threads import meanwhile
from fractal_mesospim_shading.engine.earlier import steps_of
from fractal_mesospim_shading.engine.outside_tiles import check_outside
from fractal_mesospim_shading.engine.resources import estimate_workers
from fractal_mesospim_shading.errors import Problems
from fractal_mesospim_shading.flatfield.job_models import look_at_given
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel
from fractal_mesospim_shading.flatfield.plane_sample import box_bytes
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import models_folder_url
from fractal_mesospim_shading.jobs.ending import load_reader, rehearse
from fractal_mesospim_shading.jobs.finished import completed_in_place
from fractal_mesospim_shading.jobs.following import following, named
from fractal_mesospim_shading.jobs.models import choose_all_models
from fractal_mesospim_shading.jobs.preparation import (
    beside_target,
    block_plan,
    plan_output,
    refuse_common,
    refuse_unfit,
)
from fractal_mesospim_shading.jobs.story import correct, planned_for
from fractal_mesospim_shading.jobs.work import JobResult, Part, Work
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.views.report_place import can_show, report_obstacle

if TYPE_CHECKING:
    from fractal_mesospim_shading.images.native.collection import TileCollection
    from fractal_mesospim_shading.jobs.containers import GroupImage

TASK = "correct_flatfield"
_TYPES = {"flatfield_corrected": True}


def correct_flatfield(zarr_url: str, options: FlatfieldOptions) -> JobResult:
    """Correct the shading of an image, or of all stacks of a native acquisition.

    Args:
        zarr_url: of the image, or of the container.
        options: everything else; tile numbers are those of `mesospim-shading info`.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    after = following(options)
    types = {**_TYPES, **after.types}
    earlier = completed_in_place(zarr_url, TASK, options, types, after.counted)
    if earlier is not None:
        return earlier
    return correct(lambda: plan_flatfield(zarr_url, options))


def plan_flatfield(zarr_url: str, options: FlatfieldOptions) -> Work:
    """The work of a correction, once everything is checked; nothing is written."""
    return planned_for(
        zarr_url,
        options,
        lambda image: prepare_flatfield(image, options),
        lambda collection: prepare_container(collection, options),
    )


def prepare_flatfield(image: MosaicImage, options: FlatfieldOptions) -> Work:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    history = steps_of(image.attributes())
    after = following(options)
    planned = problems.run(
        lambda: plan_output(image, named(options), dtype=after.dtype, companions=after.kinds)
    )
    with meanwhile(load_reader):
        choices = choose_all_models([image], options, problems)
        look_at_given(choices)
    obstacle = report_obstacle(image.url if planned is None else planned.final_url)
    tasks = (TASK, *after.tasks)
    refuse_common(options, tasks, image.url, history, problems, no_report=obstacle)
    kernel = after.kernel(image, problems)
    output = problems.passed(planned)
    beside = beside_target(image, output.target, after.kinds, options)
    plan = block_plan(image, output.target, output.final_url)
    plan = replace(plan, targets=(output.target, *beside))
    blank = partial(replace, blank_outside=options.outside_tiles == "zero")
    folder = models_folder_url(output.final_url, image.url) if options.save_models else None
    work = Work(
        task=TASK,
        source_url=image.url,
        final_url=output.final_url,
        options=options,
        parts=(Part(plan, output.attributes, narrowed=blank),),
        source_states=(image.state(),),
        choices=choices,
        replaces=image.url if options.overwrite_input else None,
        models_folder=folder,
        reported=options.report and obstacle is None,
        shown=image if can_show(image) else None,
        members=output.members,
        history=history,
        types=_TYPES,
    )
    work = after.added_to(work, None if kernel is None else {"": kernel})
    refuse_unfit(work, problems)
    workers = estimate_workers(box_bytes(image, 0), options)
    check_outside(image, image.layout, options.outside_tiles, workers)
    rehearse(work)
    return work


def prepare_container(collection: TileCollection, options: FlatfieldOptions) -> Work:
    """Check everything that can be checked before a pixel is corrected.

    Raises:
        ShadingError: one error with all problems.
    """
    # Not at the top: the start of a job with an image does without what acquisitions take.
    from fractal_mesospim_shading.jobs.containers import ContainerCorrection, container_work

    problems = Problems()
    mosaics = problems.run(collection.mosaics) or ()
    with meanwhile(load_reader):
        choices = choose_all_models(mosaics, options, problems)
        look_at_given(choices)
    after = following(options)
    kernels = after.group_kernels(collection, mosaics, problems)

    def made(part: Part, group: GroupImage) -> Part:
        if kernels is not None:
            kernels.make(part.name, group, after.passed_on(group.image))
        return _with_models(part, group)

    correction = ContainerCorrection(TASK, _TYPES, made, after.dtype, after.kinds)
    work = container_work(collection, mosaics, named(options), problems, correction)
    folder = models_folder_url(work.final_url, collection.url) if options.save_models else None
    reported = options.report and report_obstacle(work.final_url) is None
    work = replace(work, options=options, choices=choices, models_folder=folder, reported=reported)
    work = after.added_to(work, None if kernels is None else kernels.made)
    refuse_unfit(work, problems)
    rehearse(work)
    return work


def _with_models(part: Part, group: GroupImage) -> Part:
    """The part of a group that is corrected with the models of its channels and side."""
    narrowed = partial(_narrowed, group=group)
    return replace(
        part,
        models=tuple(dict.fromkeys(group.labels)),
        channels=group.channels,
        tile=group.tile,
        narrowed=narrowed,
    )


def _narrowed(whole: FlatfieldKernel, group: GroupImage) -> FlatfieldKernel:
    """The kernel of one group, from that of its mosaic: the models of its channels and side."""
    image = group.image
    return FlatfieldKernel(
        image.axes,
        image.layout,
        {label: whole.corrections[label] for label in group.labels},
        {(index, None): label for index, label in enumerate(group.labels)},
        whole.look.of_stack(group.channels, image.axes, image.layout),
        tile_gains={
            (index, tile.number): whole.tile_gains.get((channel, group.tile), 1.0)
            for index, channel in enumerate(group.channels)
            for tile in image.layout.tiles
        },
        offset_look=whole.offset_look,
    )
