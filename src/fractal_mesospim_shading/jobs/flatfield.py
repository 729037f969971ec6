"""Flat-field correction of an image, or stack by stack of a native acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fractal_mesospim_shading.engine.earlier import steps_of
from fractal_mesospim_shading.engine.job_folder import unfinished_url
from fractal_mesospim_shading.engine.outside_tiles import check_outside
from fractal_mesospim_shading.engine.resources import estimate_workers
from fractal_mesospim_shading.errors import ParameterError, Problems
from fractal_mesospim_shading.flatfield.job_models import choose_models
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel, profile_names
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice, box_bytes
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.carrying.members import MemberPlan, plan_members
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import (
    TileCollection,
    is_container,
    is_stack_name,
)
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.results import container_attributes, plan_companions
from fractal_mesospim_shading.images.native.stack import laser_name
from fractal_mesospim_shading.images.ngff import (
    ZARR_FORMATS,
    converted_attributes,
    result_attributes,
    zarr_format_of,
)
from fractal_mesospim_shading.images.output import models_folder_url
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage.places import join_url, normalise_url
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.jobs.ending import rehearse
from fractal_mesospim_shading.jobs.preparation import (
    block_plan,
    open_collection,
    plan_address,
    plan_output,
    refuse_common,
    refuse_unfit,
    target_of,
    tell_facts,
    tell_notes,
)
from fractal_mesospim_shading.jobs.story import (
    carry_out,
    completed_in_place,
    correct_image,
    make_models,
    refuse_folder_of_models,
    save_all_models,
)
from fractal_mesospim_shading.jobs.work import Enclosure, JobResult, Part, Work, labelled
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.options.precedence import refuse_idle
from fractal_mesospim_shading.views.reporting import report_obstacle

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
    earlier = completed_in_place(zarr_url, TASK, options, _TYPES)
    if earlier is not None:
        return earlier
    storage = options.storage_options
    if not is_container(zarr_url, storage):
        return correct_image(zarr_url, storage, lambda image: prepare_flatfield(image, options))
    with workable(zarr_url):
        collection = open_collection(zarr_url, storage)
        tell_facts(collection)
        work = prepare_container(collection, options)
        for mosaic in collection.mosaics():
            tell_notes(mosaic)
    return carry_out(work)


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
    folder, storage = normalise_url(folder), options.storage_options
    images: Sequence[MultitileImage]
    with workable(zarr_url):
        if is_container(zarr_url, storage):
            collection = open_collection(zarr_url, storage)
            tell_facts(collection)
            images = collection.mosaics()
        else:
            images = [MosaicImage.open(zarr_url, storage)]
        problems = Problems()
        choices = _choices(images, options, problems, saves=True)
        problems.raise_all()
    refuse_folder_of_models(folder, choices)
    models = make_models(choices, options)
    save_all_models(folder, choices, models)
    return labelled(choices, models)


def _choices(
    images: Sequence[MultitileImage],
    options: FlatfieldOptions,
    problems: Problems,
    *,
    saves: bool = False,
) -> tuple[PlaneChoice, ...]:
    """The planes that the models of each image are made from."""
    choices = []
    for image in images:
        choice = choose_models(image, options, problems, saves=saves)
        suffix = image.suffix if len(images) > 1 else ""
        if choice is not None:
            prefix = f"{suffix}: " if suffix else ""
            choices.append(replace(choice, prefix=prefix, folder=suffix))
    return tuple(choices)


def prepare_flatfield(image: MosaicImage, options: FlatfieldOptions) -> Work:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    history = steps_of(image.attributes())
    planned = problems.run(lambda: plan_output(image, options))
    choices = _choices([image], options, problems)
    obstacle = report_obstacle(image, image.url if planned is None else planned.final_url)
    refuse_common(options, TASK, image.url, history, problems, no_report=obstacle)
    output = problems.passed(planned)
    plan = block_plan(image, output.target, output.final_url)
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
        reported=image if options.report and obstacle is None else None,
        members=output.members,
        history=history,
        types=_TYPES,
    )
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
    problems = Problems()
    with problems.collected():
        refuse_idle(options, no_report="with a native acquisition, which has no report")
    if options.overwrite_input:
        problems.errors.append(
            ParameterError(
                "`overwrite_input` does not go with a native acquisition: its files are never "
                "replaced. Leave it out, and remove the acquisition yourself when you are sure."
            )
        )
    storage = options.storage_options
    planned = plan_address(collection.url, options, problems)
    mosaics = problems.run(collection.mosaics) or ()
    choices = _choices(mosaics, options, problems)
    parts: list[Part] = []
    for number, mosaic in enumerate(mosaics if planned is not None else ()):
        with problems.collected():
            parts += _parts(collection, mosaic, number, str(planned), options)
    source = ZARR_FORMATS[collection.stacks[0].ngff_version]
    zarr_format = zarr_format_of(options.ngff_version, source)
    attributes = container_attributes(collection.url, storage)
    members = problems.run(partial(_members, collection, parts, attributes, zarr_format, options))
    names = {part.name for part in parts}
    texts = problems.run(
        lambda: (
            plan_companions(collection, names, str(planned), storage, overwrite=options.overwrite)
            if planned is not None
            else ()
        )
    )
    final = problems.passed(planned)
    work = Work(
        task=TASK,
        source_url=collection.url,
        final_url=final,
        options=options,
        parts=tuple(parts),
        source_states=tuple(mosaic.state() for mosaic in mosaics),
        choices=choices,
        enclosure=Enclosure(zarr_format, converted_attributes(attributes, source, zarr_format)),
        models_folder=models_folder_url(final, collection.url) if options.save_models else None,
        members=members,
        texts=texts or (),
        history=steps_of(attributes),
        types=_TYPES,
    )
    refuse_unfit(work, problems)
    rehearse(work)
    return work


def _members(
    collection: TileCollection,
    parts: Sequence[Part],
    attributes: Document,
    zarr_format: int,
    options: FlatfieldOptions,
) -> MemberPlan:
    """What the container and its stacks hold besides the stacks' pyramids.

    Stacks that are not corrected stay behind: beside corrected ones, stitchers would take them
    for such. The collection and its mosaics name them.
    """
    corrected = {part.name for part in parts}
    stacks = {stack.group for stack in collection.stacks} | {
        item.name for item in collection.left_out if is_stack_name(item.name)
    }
    levels = [f"{part.name}/{level.path}" for part in parts for level in part.plan.target.levels]
    plan = MemberPlan(
        collection.url,
        zarr_format,
        frozenset(levels),
        {"": attributes, **{part.name: part.attributes for part in parts}},
        frozenset(stacks - corrected),
        storage_options=options.storage_options,
        follow_links=options.follow_links,
    )
    return plan_members(plan)


def _parts(
    collection: TileCollection,
    mosaic: NativeMosaic,
    number: int,
    final: str,
    options: FlatfieldOptions,
) -> list[Part]:
    """The groups of a mosaic's stacks as images of their own."""
    storage = options.storage_options
    names = profile_names(mosaic)
    parts = []
    for group in dict.fromkeys(placed.stack.group for placed in mosaic.placed):
        image = MosaicImage.open(join_url(collection.url, group), storage)
        target = target_of(image, join_url(unfinished_url(final, storage), group), options)
        indices = _channels_in(mosaic, group, image)
        tile = next(placed.tile for placed in mosaic.placed if placed.stack.group == group)
        labels = [names.get((index, tile)) or names[index, None] for index in indices]
        parts.append(
            Part(
                block_plan(image, target, target.url),
                result_attributes(image.attributes(), image.zarr_format, target.zarr_format),
                name=group,
                choice=number,
                labels={c.label: label for c, label in zip(image.channels, labels, strict=True)},
                models=tuple(dict.fromkeys(labels)),
                narrowed=partial(_narrowed, image=image, channels=indices, labels=labels),
            )
        )
    return parts


def _channels_in(mosaic: NativeMosaic, group: str, image: MosaicImage) -> list[int]:
    """The channel of a mosaic for each channel of one of its groups.

    One that was never written holds no pixel; where no other tile has it, any stands for it.
    """
    placed = [item for item in mosaic.placed if item.stack.group == group]
    by_index = {item.stack.channel_index: item.channel for item in placed}
    by_laser = {channel.laser: i for i, channel in enumerate(mosaic.native_channels)}
    return [
        by_index.get(c.index, by_laser.get(laser_name(c.label), placed[0].channel))
        for c in image.channels
    ]


def _narrowed(
    whole: FlatfieldKernel, *, image: MosaicImage, channels: Sequence[int], labels: Sequence[str]
) -> FlatfieldKernel:
    """The kernel of one group, from that of its mosaic: the models of its channels and side."""
    return FlatfieldKernel(
        image.axes,
        image.layout,
        {label: whole.corrections[label] for label in labels},
        {(index, None): label for index, label in enumerate(labels)},
        whole.look.of_stack(channels, image.axes, image.layout),
    )
