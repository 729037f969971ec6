"""Flat-field correction of a native acquisition, stack by stack, into one of the same structure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from fractal_mesospim_shading.engine.history import steps_of
from fractal_mesospim_shading.engine.job_folder import image_url
from fractal_mesospim_shading.engine.plan import CorrectionPlan, least_block_pixels
from fractal_mesospim_shading.engine.resources import resources
from fractal_mesospim_shading.errors import ParameterError, Problems
from fractal_mesospim_shading.flatfield.finding import plan_models, profile_names
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel
from fractal_mesospim_shading.images.arrays.documents import Document, document_of
from fractal_mesospim_shading.images.carrying.members import MemberPlan, plan_members
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic, PlacedStack
from fractal_mesospim_shading.images.native.results import (
    Companion,
    container_attributes,
    plan_companions,
)
from fractal_mesospim_shading.images.native.stack import parse_group_name
from fractal_mesospim_shading.images.ngff import (
    ZARR_FORMATS,
    converted_attributes,
    result_attributes,
    zarr_format_of,
)
from fractal_mesospim_shading.images.output import (
    models_folder_url,
    output_url,
    refuse_unwritable,
    target_levels,
)
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import join_url
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.acquisition import (
    log_facts,
    open_collection,
)
from fractal_mesospim_shading.jobs.preparation import (
    expected_bytes,
    refuse_little_room,
    refuse_taken,
)
from fractal_mesospim_shading.jobs.rehearsal import rehearse
from fractal_mesospim_shading.jobs.story import carry_out
from fractal_mesospim_shading.jobs.work import Choice, Enclosure, JobResult, Part, Work
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.options.precedence import refuse_idle

logger = logging.getLogger(__name__)

TASK = "correct_flatfield"


def correct_container(url: str, options: FlatfieldOptions) -> JobResult:
    """Correct the flat-field of all stacks of a container.

    Args:
        url: of the container.
        options: as for a mosaic; tile numbers are those of `mesospim-shading info`.

    Raises:
        ShadingError: one readable error; no file of the acquisition has been changed.
    """
    with workable(url):
        collection = open_collection(url, options)
        log_facts(collection)
        work = prepare_container(collection, options)
        for mosaic in collection.mosaics():
            for note in mosaic.notes:
                logger.info("%s", note)
    return carry_out(work)


def container_choices(url: str, options: FlatfieldOptions) -> tuple[Choice, ...]:
    """The planes that the models of a container are made from.

    Raises:
        ShadingError: one error with all problems.
    """
    collection = open_collection(url, options)
    log_facts(collection)
    problems = Problems()
    choices = _choices(collection.mosaics(), options, problems, saves=True)
    problems.raise_all()
    return choices


def _choices(
    mosaics: Sequence[NativeMosaic],
    options: FlatfieldOptions,
    problems: Problems,
    *,
    saves: bool = False,
) -> tuple[Choice, ...]:
    choices = []
    for mosaic in mosaics:
        plan = plan_models(mosaic, options, problems, saves=saves)
        several = len(mosaics) > 1 and bool(mosaic.suffix)
        prefix, folder = (f"{mosaic.suffix}: ", mosaic.suffix) if several else ("", "")
        if plan is not None:
            choices.append(Choice(mosaic, plan, options, prefix, folder))
    return tuple(choices)


@dataclass(frozen=True)
class _Stacks:
    """The stacks of one mosaic of a container, to be corrected."""

    mosaic: NativeMosaic
    parts: tuple[Part, ...]


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
    final = problems.run(
        lambda: output_url(collection.url, options.output_image_name, options.output_folder)
    )
    if final is not None:
        with problems.collected():
            refuse_taken(final, storage, overwrite=options.overwrite)
        with problems.collected():
            refuse_unwritable(final)
    mosaics = problems.run(collection.mosaics) or ()
    choices = _choices(mosaics, options, problems)
    planned: list[_Stacks] = []
    for number, mosaic in enumerate(mosaics if final is not None else ()):
        parts = problems.run(partial(_parts, collection, mosaic, number, str(final), options))
        if parts is not None:
            planned.append(_Stacks(mosaic, parts))
            with problems.collected():
                for part in parts:
                    resources(part.plan, options)
    source = ZARR_FORMATS[collection.stacks[0].ngff_version]
    zarr_format = zarr_format_of(options.ngff_version, source)
    all_parts = tuple(part for stacks in planned for part in stacks.parts)
    attributes = container_attributes(collection.url, storage)
    members = problems.run(
        partial(_members, collection, all_parts, attributes, zarr_format, options)
    )
    companions: tuple[Companion, ...] = ()
    if final is not None:
        with problems.collected():
            carried = members.expected_bytes if members is not None else 0
            refuse_little_room(final, lambda: _expected_bytes(planned) + carried)
        with problems.collected():
            companions = plan_companions(
                collection,
                {part.name for part in all_parts},
                final,
                storage,
                overwrite=options.overwrite,
            )
    problems.raise_all()
    if final is None or members is None:
        raise RuntimeError("a failed check left no error")
    work = Work(
        task=TASK,
        source_url=collection.url,
        final_url=final,
        options=options,
        parts=all_parts,
        source_states=tuple(mosaic.state() for mosaic in mosaics),
        choices=choices,
        enclosure=Enclosure(zarr_format, converted_attributes(attributes, source, zarr_format)),
        models_folder=models_folder_url(final, collection.url) if options.save_models else None,
        members=members,
        texts=companions,
        history=steps_of(container_attributes(collection.url, storage)),
        types={"flatfield_corrected": True},
    )
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
        item.name for item in collection.left_out if parse_group_name(item.name) is not None
    }
    levels = [f"{part.name}/{level.path}" for part in parts for level in part.plan.target.levels]
    return plan_members(
        collection.url,
        levels,
        zarr_format,
        {"": attributes, **{part.name: part.attributes for part in parts}},
        apart=stacks - corrected,
        storage_options=options.storage_options,
        follow_links=options.follow_links,
    )


def _expected_bytes(planned: Iterable[_Stacks]) -> int:
    return sum(
        expected_bytes(stacks.mosaic, [part.plan.target for part in stacks.parts])
        for stacks in planned
    )


def _parts(
    collection: TileCollection,
    mosaic: NativeMosaic,
    number: int,
    final: str,
    options: FlatfieldOptions,
) -> tuple[Part, ...]:
    """The stacks of a mosaic as images of their own."""
    storage = options.storage_options
    names = profile_names(mosaic)
    parts = []
    for placed in mosaic.placed:
        group = placed.stack.group
        image = MosaicImage.open(join_url(collection.url, group), storage)
        zarr_format = zarr_format_of(options.ngff_version, image.zarr_format)
        documents = [document_of(image.array(level)) for level in range(len(image.levels))]
        levels = target_levels(
            image.levels,
            documents,
            zarr_format=zarr_format,
            axes=image.axes,
            shards=options.output_shards,
        )
        url = places.join_url(image_url(final, storage), group)
        target = TargetImage(url, zarr_format, levels, storage)
        attributes = result_attributes(image.attributes(), image.zarr_format, zarr_format)
        least_pixels = least_block_pixels(levels[0].shape, image.dtype)
        label = names.get((placed.channel, placed.tile)) or names[placed.channel, None]
        parts.append(
            Part(
                CorrectionPlan(image, (target,), url, least_pixels=least_pixels),
                attributes,
                name=group,
                choice=number,
                labels={channel.label: label for channel in image.channels},
                models=(label,),
                narrowed=partial(_narrowed, image=image, placed=placed, label=label),
            )
        )
    return tuple(parts)


def _narrowed(
    whole: FlatfieldKernel, *, image: MosaicImage, placed: PlacedStack, label: str
) -> FlatfieldKernel:
    """The kernel of one stack, from that of its mosaic: the model of its channel and side."""
    return FlatfieldKernel(
        image.axes,
        image.layout,
        {label: whole.corrections[label]},
        {(0, None): label},
        whole.look.of_stack(placed.channel, image.axes, image.layout),
    )
