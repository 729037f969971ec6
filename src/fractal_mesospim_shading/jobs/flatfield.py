"""Flat-field correction of an image: its checks, and the choice between image and container."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from fractal_mesospim_shading.engine.history import steps_of
from fractal_mesospim_shading.engine.outside_tiles import check_outside
from fractal_mesospim_shading.engine.plan import CorrectionPlan, least_block_pixels
from fractal_mesospim_shading.engine.resources import estimate_workers, resources
from fractal_mesospim_shading.errors import Problems
from fractal_mesospim_shading.flatfield.finding import plan_models
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.flatfield.sampling import box_bytes
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import is_container
from fractal_mesospim_shading.images.output import models_folder_url
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage.places import normalise_url
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.jobs.container import container_choices, correct_container
from fractal_mesospim_shading.jobs.preparation import (
    OutputPlan,
    open_source,
    plan_output,
    refuse_full_disk,
    refuse_second_replacement,
)
from fractal_mesospim_shading.jobs.rehearsal import rehearse
from fractal_mesospim_shading.jobs.story import (
    carry_out,
    completed_in_place,
    labelled,
    make_models,
    refuse_folder_of_models,
    save_all_models,
)
from fractal_mesospim_shading.jobs.work import Choice, JobResult, Part, Work
from fractal_mesospim_shading.messages import warnings_heard
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.options.precedence import refuse_idle
from fractal_mesospim_shading.views.reporting import report_obstacle

logger = logging.getLogger(__name__)

TASK = "correct_flatfield"
_TYPES = {"flatfield_corrected": True}


def block_plan(image: MultitileImage, output: OutputPlan) -> CorrectionPlan:
    """The plan of an image, without its kernel."""
    least_pixels = least_block_pixels(image.levels[0].shape, image.dtype)
    return CorrectionPlan(image, (output.target,), output.final_url, least_pixels=least_pixels)


def correct_flatfield(zarr_url: str, options: FlatfieldOptions) -> JobResult:
    """Correct the shading of an image, or of all stacks of a native acquisition.

    Args:
        zarr_url: of the image, or of the container.
        options: everything else.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    earlier = completed_in_place(zarr_url, TASK, options, _TYPES)
    if earlier is not None:
        return earlier
    if is_container(zarr_url, options.storage_options):
        return correct_container(zarr_url, options)
    return correct_mosaic(zarr_url, options)


def correct_mosaic(zarr_url: str, options: FlatfieldOptions) -> JobResult:
    """Correct the shading of one image."""
    with warnings_heard():
        with workable(zarr_url):
            image = open_source(zarr_url, options)
            for note in image.notes:
                logger.info("%s", note)
            work = prepare_flatfield(image, options)
        return carry_out(work)


def prepare_flatfield(image: MosaicImage, options: FlatfieldOptions) -> Work:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    name, overwrite_input = options.output_image_name, options.overwrite_input
    history = steps_of(image.attributes())
    output = problems.run(
        lambda: plan_output(image, options, name=name, overwrite_input=overwrite_input)
    )
    estimation = plan_models(image, options, problems)
    obstacle = report_obstacle(image, image.url if output is None else output.final_url)
    with problems.collected():
        refuse_idle(options, no_report=obstacle)
    with problems.collected():
        refuse_second_replacement(TASK, image.url, history, overwrite_input=overwrite_input)
    if output is not None:
        planned = output
        with problems.collected():
            refuse_full_disk(image, planned)
        with problems.collected():
            resources(block_plan(image, planned), options)
    problems.raise_all()
    if output is None or estimation is None:
        raise RuntimeError("a failed check left no error")
    workers = estimate_workers(box_bytes(image, 0), options)
    check_outside(image, image.layout, options.outside_tiles, workers)
    blank = partial(replace, blank_outside=options.outside_tiles == "zero")
    folder = models_folder_url(output.final_url, image.url) if options.save_models else None
    work = Work(
        task=TASK,
        source_url=image.url,
        final_url=output.final_url,
        options=options,
        parts=(Part(block_plan(image, output), output.attributes, narrowed=blank),),
        source_states=(image.state(),),
        choices=(Choice(image, estimation, options),),
        replaces=image.url if overwrite_input else None,
        models_folder=folder,
        reported=image if options.report and obstacle is None else None,
        members=output.members,
        history=history,
        types=_TYPES,
    )
    rehearse(work)
    return work


def estimate_models(
    zarr_url: str, folder: str, options: FlatfieldOptions
) -> dict[str, ChannelModel]:
    """Estimate and save the models of an image or a container without correcting it.

    Args:
        zarr_url: of the image, or of the container.
        folder: for the models; `models_folder` of a later correction or import.
        options: of the estimate.
    """
    refuse_idle(options, writes_image=False)
    folder = normalise_url(folder)
    with workable(zarr_url):
        if is_container(zarr_url, options.storage_options):
            choices = container_choices(zarr_url, options)
        else:
            choices = _mosaic_choices(open_source(zarr_url, options), options)
    refuse_folder_of_models(folder, choices)
    models = make_models(choices, options)
    save_all_models(folder, choices, models)
    return labelled(choices, models)


def _mosaic_choices(image: MosaicImage, options: FlatfieldOptions) -> tuple[Choice, ...]:
    problems = Problems()
    plan = plan_models(image, options, problems, saves=True)
    problems.raise_all()
    if plan is None:
        raise RuntimeError("a failed check left no error")
    return (Choice(image, plan, options),)
