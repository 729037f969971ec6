"""What all corrections of native acquisitions share: every group in it is an image of its own.

The result is a container of the same structure: the groups under their names, what the container
holds besides, and beside it the metadata texts and the project file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fractal_mesospim_shading.engine.earlier import steps_of
from fractal_mesospim_shading.engine.job_folder import unfinished_url
from fractal_mesospim_shading.errors import ParameterError, Problems
from fractal_mesospim_shading.flatfield.kernel import profile_names
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.carrying.members import MemberPlan, plan_members
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.channels import laser_name
from fractal_mesospim_shading.images.native.collection import TileCollection, is_stack_name
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.results import container_attributes, plan_companions
from fractal_mesospim_shading.images.ngff import (
    ZARR_FORMATS,
    converted_attributes,
    result_attributes,
    zarr_format_of,
)
from fractal_mesospim_shading.images.storage.places import join_url
from fractal_mesospim_shading.jobs.preparation import block_plan, plan_address, target_of
from fractal_mesospim_shading.jobs.work import CorrectionOptions, Enclosure, Part, Work
from fractal_mesospim_shading.options.precedence import refuse_idle


@dataclass(frozen=True)
class GroupImage:
    """A group of an acquisition as an image of its own.

    Attributes:
        image: the group.
        mosaic: number of the mosaic that its stacks belong to.
        channels: of this mosaic, one for each channel of the image.
        labels: of the models of these, as results and provenance name them.
    """

    image: MosaicImage
    mosaic: int
    channels: tuple[int, ...]
    labels: tuple[str, ...]


PartMaker = Callable[[Part, GroupImage], Part]
"""Makes the part of a group, which has no kernel yet, what a correction needs."""


def container_work(
    collection: TileCollection,
    mosaics: Sequence[NativeMosaic],
    options: CorrectionOptions,
    problems: Problems,
    made: PartMaker,
    *,
    task: str,
    types: Mapping[str, bool],
) -> Work:
    """The work of a correction of a container, as far as all of them have it.

    Args:
        collection: the source.
        mosaics: that its stacks form.
        options: of the correction.
        problems: that take the errors, and are raised with them.
        made: what makes the part of a group that of this correction.
        task: its name.
        types: of the result, for Fractal's image list.

    Raises:
        ShadingError: one error with all problems.
    """
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
    parts: list[Part] = []
    for number, mosaic in enumerate(mosaics if planned is not None else ()):
        with problems.collected():
            parts += _parts(collection, mosaic, number, str(planned), options, made)
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
    return Work(
        task=task,
        source_url=collection.url,
        final_url=problems.passed(planned),
        options=options,
        parts=tuple(parts),
        source_states=tuple(mosaic.state() for mosaic in mosaics),
        enclosure=Enclosure(zarr_format, converted_attributes(attributes, source, zarr_format)),
        members=members,
        texts=texts or (),
        history=steps_of(attributes),
        types=types,
    )


def _members(
    collection: TileCollection,
    parts: Sequence[Part],
    attributes: Document,
    zarr_format: int,
    options: CorrectionOptions,
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
    options: CorrectionOptions,
    made: PartMaker,
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
        part = Part(
            block_plan(image, target, target.url),
            result_attributes(image.attributes(), image.zarr_format, target.zarr_format),
            name=group,
            choice=number,
            labels={c.label: label for c, label in zip(image.channels, labels, strict=True)},
        )
        parts.append(made(part, GroupImage(image, number, tuple(indices), tuple(labels))))
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
