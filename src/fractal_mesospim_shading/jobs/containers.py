"""What all corrections of native acquisitions share: every group in it is an image of its own.

The result is a container of the same structure: the groups under their names, what the container
holds besides, and beside it the metadata texts and the project file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fractal_mesospim_shading.engine.earlier import steps_of
from fractal_mesospim_shading.engine.job_folder import unfinished_url
from fractal_mesospim_shading.errors import ParameterError, Problems
from fractal_mesospim_shading.flatfield.kernel import profile_names
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.carrying.members import MemberPlan, plan_members
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.channels import laser_name
from fractal_mesospim_shading.images.native.collection import (
    TileCollection,
    is_stack_name,
)
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.placement import PlacedStack
from fractal_mesospim_shading.images.native.results import (
    Companion,
    container_attributes,
    plan_companions,
)
from fractal_mesospim_shading.images.ngff import (
    ZARR_FORMATS,
    converted_attributes,
    result_attributes,
    zarr_format_of,
)
from fractal_mesospim_shading.images.output import companion_url
from fractal_mesospim_shading.images.storage.places import join_url
from fractal_mesospim_shading.jobs.preparation import (
    block_plan,
    plan_address,
    target_of,
)
from fractal_mesospim_shading.jobs.work import (
    CorrectionOptions,
    Enclosure,
    Part,
    Work,
    prefix_of,
)
from fractal_mesospim_shading.options.precedence import refuse_idle
from fractal_mesospim_shading.views.report_place import report_obstacle


@dataclass(frozen=True)
class GroupImage:
    """A group of an acquisition as an image of its own.

    Attributes:
        image: the group.
        mosaic: number of the mosaic that its stacks belong to.
        tile: number of its tile there.
        channels: of this mosaic, one for each channel of the image.
        labels: of the models of these, as results and provenance name them.
    """

    image: MosaicImage
    mosaic: int
    tile: int
    channels: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """The labels of its channels in results, by those that it has itself."""
        own = (channel.label for channel in self.image.channels)
        return dict(zip(own, self.labels, strict=True))


@dataclass(frozen=True)
class ContainerCorrection:
    """What one correction of containers differs in from another.

    Attributes:
        task: its name.
        types: of the result, for Fractal's image list.
        made: makes the part of a group, which has no kernel yet, what the correction needs.
        dtype: of the result; None for that of the source.
        companions: kinds of containers written beside the result, with float32 images.
    """

    task: str
    types: Mapping[str, bool]
    made: Callable[[Part, GroupImage], Part]
    dtype: np.dtype[Any] | None = None
    companions: tuple[str, ...] = ()


def container_work(
    collection: TileCollection,
    mosaics: Sequence[NativeMosaic],
    options: CorrectionOptions,
    problems: Problems,
    correction: ContainerCorrection,
) -> Work:
    """The work of a correction of a container, as far as all of them have it.

    Args:
        collection: the source.
        mosaics: that its stacks form.
        options: of the correction.
        problems: that take the errors, and are raised with them.
        correction: which one.

    Raises:
        ShadingError: one error with all problems.
    """
    if options.overwrite_input:
        problems.errors.append(
            ParameterError(
                "`overwrite_input` does not go with a native acquisition: its files are never "
                "replaced. Leave it out, and remove the acquisition yourself when you are sure."
            )
        )
    storage, kinds = options.storage_options, correction.companions
    planned = plan_address(collection.url, options, problems, kinds)
    with problems.collected():
        refuse_idle(options, no_report=report_obstacle(planned or collection.url))
    parts: list[Part] = []
    if planned is not None:
        unfinished = unfinished_url(planned, storage, kinds)
        for number in range(len(mosaics)):
            with problems.collected():
                parts += _parts(collection, mosaics, number, unfinished, options, correction)
    source = ZARR_FORMATS[collection.stacks[0].ngff_version]
    zarr_format = zarr_format_of(options.ngff_version, source)
    attributes = container_attributes(collection.url, storage)
    members = problems.run(partial(_members, collection, parts, attributes, zarr_format, options))
    texts = problems.run(partial(_texts, collection, parts, planned, options, kinds))
    return Work(
        task=correction.task,
        source_url=collection.url,
        final_url=problems.passed(planned),
        options=options,
        parts=tuple(parts),
        source_states=tuple(mosaic.state() for mosaic in mosaics),
        enclosure=Enclosure(zarr_format, converted_attributes(attributes, source, zarr_format)),
        companions=kinds,
        members=members,
        texts=texts or (),
        history=steps_of(attributes),
        types=correction.types,
    )


def _texts(
    collection: TileCollection,
    parts: Sequence[Part],
    planned: str | None,
    options: CorrectionOptions,
    kinds: Sequence[str],
) -> tuple[Companion, ...]:
    """The files beside the result, and beside the containers that go with it."""
    if planned is None:
        return ()
    names, storage = {part.name for part in parts}, options.storage_options
    return tuple(
        text
        for url in (planned, *(companion_url(planned, kind) for kind in kinds))
        for text in plan_companions(collection, names, url, storage, overwrite=options.overwrite)
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
    mosaics: Sequence[NativeMosaic],
    number: int,
    unfinished: str,
    options: CorrectionOptions,
    correction: ContainerCorrection,
) -> list[Part]:
    """The groups of a mosaic's stacks as images of their own."""
    mosaic = mosaics[number]
    urls = (unfinished, *(companion_url(unfinished, kind) for kind in correction.companions))
    dtypes = (correction.dtype, *(np.dtype(np.float32) for _ in correction.companions))
    names, parts = profile_names(mosaic), []
    for group, placed in _by_group(mosaic).items():
        image = collection.image(group)
        target, *beside = (
            target_of(image, join_url(url, group), options, dtype)
            for url, dtype in zip(urls, dtypes, strict=True)
        )
        plan = block_plan(image, target, target.url)
        described = _described(mosaic, placed, names, image, number)
        part = Part(
            replace(plan, targets=(target, *beside)),
            result_attributes(image.attributes(), image.zarr_format, target.zarr_format),
            name=group,
            prefix=prefix_of(mosaic, mosaics),
            choice=number,
            labels=described.names,
        )
        parts.append(correction.made(part, described))
    return parts


def _by_group(mosaic: NativeMosaic) -> dict[str, list[PlacedStack]]:
    """The stacks of a mosaic by the group that they lie in."""
    found: dict[str, list[PlacedStack]] = {}
    for placed in mosaic.placed:
        found.setdefault(placed.stack.group, []).append(placed)
    return found


def _described(
    mosaic: NativeMosaic,
    placed: Sequence[PlacedStack],
    names: Mapping[tuple[int, int | None], str],
    image: MosaicImage,
    number: int,
) -> GroupImage:
    """What the mosaic knows of one of its groups.

    Args:
        mosaic: of several.
        placed: stacks of the group.
        names: of models, see `profile_names`.
        image: the group.
        number: of the mosaic.
    """
    indices, tile = _channels_in(mosaic, placed, image), placed[0].tile
    labels = [names.get((index, tile)) or names[index, None] for index in indices]
    return GroupImage(image, number, tile, tuple(indices), tuple(labels))


def _channels_in(
    mosaic: NativeMosaic, placed: Sequence[PlacedStack], image: MosaicImage
) -> list[int]:
    """The channel of a mosaic for each channel of one of its groups.

    One that was never written holds no pixel; where no other tile has it, any stands for it.
    """
    by_index = {item.stack.channel_index: item.channel for item in placed}
    by_laser = {channel.laser: i for i, channel in enumerate(mosaic.native_channels)}
    return [
        by_index.get(c.index, by_laser.get(laser_name(c.label), placed[0].channel))
        for c in image.channels
    ]
