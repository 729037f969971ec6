"""Local background correction of an image, or stack by stack of a native acquisition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fractal_mesospim_shading.engine.earlier import steps_of
from fractal_mesospim_shading.engine.outside_tiles import check_outside
from fractal_mesospim_shading.engine.plan import CorrectionPlan
from fractal_mesospim_shading.engine.resources import estimate_workers
from fractal_mesospim_shading.engine.zero_look import no_data_held, tell_held
from fractal_mesospim_shading.errors import Problems
from fractal_mesospim_shading.flatfield.plane_sample import box_bytes
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.jobs.background_parts import (
    TASK,
    TYPES,
    GroupKernels,
    background_plan,
    blocks_begun,
    image_kernel,
    judge_counts,
    label_state,
    label_states,
    noise_facts,
    result_type,
    tell_remarks,
    teller,
    titles_of,
)
from fractal_mesospim_shading.jobs.containers import (
    ContainerCorrection,
    GroupImage,
    container_work,
)
from fractal_mesospim_shading.jobs.ending import rehearse
from fractal_mesospim_shading.jobs.finished import completed_in_place
from fractal_mesospim_shading.jobs.preparation import (
    beside_target,
    plan_output,
    refuse_common,
    refuse_unfit,
)
from fractal_mesospim_shading.jobs.story import correct, planned_for
from fractal_mesospim_shading.jobs.work import JobResult, Part, Work
from fractal_mesospim_shading.local_background.job_kernel import companion_kinds
from fractal_mesospim_shading.local_background.planes import BackgroundCounts
from fractal_mesospim_shading.options.background import BackgroundOptions
from fractal_mesospim_shading.views.report_place import can_show, report_obstacle


def correct_background(zarr_url: str, options: BackgroundOptions) -> JobResult:
    """Take the local background of an image away, or of all stacks of a native acquisition.

    Args:
        zarr_url: of the image, or of the container.
        options: everything else.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    earlier = completed_in_place(zarr_url, TASK, options, TYPES, (BackgroundCounts,))
    if earlier is not None:
        return earlier
    return correct(lambda: plan_background(zarr_url, options))


def plan_background(zarr_url: str, options: BackgroundOptions) -> Work:
    """The work of a correction, once everything is checked; nothing is written."""
    return planned_for(
        zarr_url,
        options,
        lambda image: prepare_background(image, options),
        lambda collection: prepare_container(collection, options),
    )


def prepare_background(image: MosaicImage, options: BackgroundOptions) -> Work:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    history = steps_of(image.attributes())
    dtype, kinds = result_type(image.dtype, options), companion_kinds(options)
    planned = problems.run(lambda: plan_output(image, options, dtype=dtype, companions=kinds))
    held = no_data_held(image) if options.zero_is == "auto" else {}
    checked = image_kernel(image, options, held, problems)
    obstacle = report_obstacle(image.url if planned is None else planned.final_url)
    refuse_common(options, (TASK,), image.url, history, problems, no_report=obstacle)
    output, kernel = problems.passed(planned), problems.passed(checked)
    tell_held(held)
    tell_remarks([kernel], image.dtype, options)
    beside = beside_target(image, output.target, kinds, options)
    plan = CorrectionPlan(image, (output.target, *beside), output.final_url)
    begun = blocks_begun(output.final_url, options)
    part = Part(
        background_plan(plan, kernel, options, begun.get("")),
        output.attributes,
        facts=noise_facts([channel.label for channel in image.channels], kernel),
    )
    work = Work(
        task=TASK,
        source_url=image.url,
        final_url=output.final_url,
        options=options,
        parts=(part,),
        source_states=(image.state(),),
        companions=kinds,
        details={"zeros": list(kernel.look.rules), **label_state(kernel)},
        replaces=image.url if options.overwrite_input else None,
        counted=BackgroundCounts,
        members=output.members,
        tell=teller([(part, kernel)]),
        judge=judge_counts,
        titles=titles_of([(part, kernel)]),
        reported=options.report and obstacle is None,
        shown=image if can_show(image) else None,
        history=history,
        types=TYPES,
    )
    refuse_unfit(work, problems)
    workers = estimate_workers(box_bytes(image, 0), options)
    check_outside(image, kernel.layout, options.outside_tiles, workers)
    rehearse(work)
    return work


def prepare_container(collection: TileCollection, options: BackgroundOptions) -> Work:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    mosaics = problems.run(collection.mosaics) or ()
    kernels = GroupKernels(collection, mosaics, options, problems)
    held: dict[str, bool] = {}

    def made(part: Part, group: GroupImage) -> Part:
        known = no_data_held(group.image, group.names) if options.zero_is == "auto" else {}
        for name, some in known.items():
            said = part.prefix + group.names[name]
            held[said] = held.get(said, False) or some
        kernel = kernels.make(part.name, group, known)
        return part if kernel is None else replace(part, facts=noise_facts(group.labels, kernel))

    dtype = np.dtype(np.float32) if options.output_type == "float32" else None
    correction = ContainerCorrection(TASK, TYPES, made, dtype, companion_kinds(options))
    work = container_work(collection, mosaics, options, problems, correction)
    tell_held(held)
    tell_remarks(kernels.made.values(), mosaics[0].dtype, options)
    begun = blocks_begun(work.final_url, options)
    parts = tuple(
        replace(
            part,
            plan=background_plan(part.plan, kernels.made[part.name], options, begun.get(part.name)),
        )
        for part in work.parts
    )
    done = [(part, kernels.made[part.name]) for part in parts]
    zeros = {name: list(kernel.look.rules) for name, kernel in kernels.made.items()}
    work = replace(
        work,
        parts=parts,
        details={"zeros": zeros, **label_states(kernels.made)},
        counted=BackgroundCounts,
        tell=teller(done),
        judge=judge_counts,
        titles=titles_of(done),
        reported=options.report and report_obstacle(work.final_url) is None,
    )
    refuse_unfit(work, problems)
    rehearse(work)
    return work
