"""The models and tile gains of a job: made or recalled, and written down."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import replace

from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.resources import estimate_workers
from fractal_mesospim_shading.errors import Problems
from fractal_mesospim_shading.flatfield.channel_gains import ChannelGains, ImageGains
from fractal_mesospim_shading.flatfield.job_models import choose_models, find_models
from fractal_mesospim_shading.flatfield.models import (
    Models,
    misfits,
    model_names,
)
from fractal_mesospim_shading.flatfield.plane_sample import box_bytes
from fractal_mesospim_shading.flatfield.sampling import (
    PlaneChoice,
)
from fractal_mesospim_shading.flatfield.saving import save_used_models
from fractal_mesospim_shading.images.models.folder import model_parts, refuse_models_folder
from fractal_mesospim_shading.images.output import split_name
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.jobs.work import Work, prefix_of
from fractal_mesospim_shading.options.base import ExecutionOptions
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

logger = logging.getLogger(__name__)


def choose_all_models(
    images: Sequence[MultitileImage],
    options: FlatfieldOptions,
    problems: Problems,
    *,
    saves: bool = False,
) -> tuple[PlaneChoice, ...]:
    """The planes that the models of each image of a job are made from.

    Args:
        images: that the job has.
        options: of the estimate.
        problems: that take the errors.
        saves: whether the models are written even without `save_models`.
    """
    _refuse_gains(images, options, problems)
    choices = []
    for image in images:
        choice = choose_models(image, options, problems, saves=saves)
        suffix = image.suffix if len(images) > 1 else ""
        if choice is not None:
            choices.append(replace(choice, prefix=prefix_of(image, images), folder=suffix))
    return tuple(choices)


def _refuse_gains(
    images: Sequence[MultitileImage], options: FlatfieldOptions, problems: Problems
) -> None:
    """Refuse to compare overlaps or sides that images do not have."""
    if options.tile_gains == "overlaps" or options.overlap_refine:
        from fractal_mesospim_shading.flatfield.tile_gains import refuse_unplaced

        with problems.collected():
            refuse_unplaced(images, options)
    if options.side_gains:
        from fractal_mesospim_shading.flatfield.side_gains import refuse_one_sided

        with problems.collected():
            refuse_one_sided(images, options)


def make_models(
    choices: Sequence[PlaneChoice], options: ExecutionOptions, job: Job | None = None
) -> list[Models]:
    """The models of each choice of planes, by the label of their group.

    Args:
        choices: of planes.
        options: where to run.
        job: that keeps what was made.
    """
    models = [
        find_models(
            choice,
            workers=estimate_workers(box_bytes(choice.image, choice.level), options),
            job=job,
            prefix=f"{number}-" if len(choices) > 1 else "",
        )
        for number, choice in enumerate(choices)
    ]
    images = [choice.image for choice in choices]
    for line in misfits(zip(images, models, strict=True)):
        logger.warning("%s", line)
    return models


def refuse_folder_of_models(folder: str, choices: Sequence[PlaneChoice]) -> None:
    """Refuse a folder in which the models of a job could not be kept.

    Raises:
        ShadingError: it cannot be written, or two models would share a file.
    """
    refuse_models_folder(
        folder,
        [
            ((choice.folder,) if choice.folder else ()) + model_parts(name)
            for choice in choices
            for name in model_names(choice.image).values()
        ],
    )


def save_all_models(
    folder: str, choices: Sequence[PlaneChoice], models: Sequence[Models], *, tiff: bool = False
) -> None:
    """Save models so that `models_folder` reads them again, with TIFFs beside them if wanted."""
    for choice, own in zip(choices, models, strict=True):
        inner = places.join_url(folder, choice.folder) if choice.folder else folder
        save_used_models(inner, choice.image, own, tiff=tiff)
    logger.info("The models used are in %s", folder)


def find_all_gains(
    choices: Sequence[PlaneChoice], models: Sequence[Models], job: Job | None = None
) -> list[ImageGains]:
    """The gains of tiles and sides of each choice of planes; none where they are not asked for.

    Args:
        choices: of planes.
        models: of these.
        job: that keeps what was found.
    """
    gains = [
        _gains_of_tiles(choice, own, job, f"{number}-" if len(choices) > 1 else "")
        for number, (choice, own) in enumerate(zip(choices, models, strict=True))
    ]
    if not any(choice.options.side_gains for choice in choices):
        return gains
    from fractal_mesospim_shading.flatfield.side_gains import find_side_gains

    images, seed = [choice.image for choice in choices], choices[0].options.seed
    return find_side_gains(images, models, gains, seed=seed, job=job)


def _gains_of_tiles(
    choice: PlaneChoice, models: Models, job: Job | None, prefix: str
) -> ImageGains:
    """The gains of the tiles of one choice; none where they are not asked for."""
    if choice.options.tile_gains != "overlaps":
        return {}
    from fractal_mesospim_shading.flatfield.tile_gains import find_gains

    seed, memory = choice.options.seed, choice.memory
    return find_gains(
        choice.image, models, seed=seed, memory=memory, job=job, prefix=prefix, mosaic=choice.prefix
    )


def labelled_gains(
    choices: Sequence[PlaneChoice], gains: Sequence[ImageGains]
) -> dict[str, ChannelGains]:
    """The gains of all choices of planes, under the labels that results show."""
    return {
        choice.prefix + own.label: own
        for choice, of_image in zip(choices, gains, strict=True)
        for own in of_image.values()
    }


def gains_url(url: str) -> str:
    """Where people find the table of the tile gains of a result."""
    parent, name = places.parent_and_name(url)
    return places.join_url(parent, f"{split_name(name)[0]}_tile_gains.csv")


def write_gains(work: Work, gains: Sequence[ImageGains], job: Job) -> str | None:
    """Write a table of all gains, to be placed beside the result with the result itself.

    It lies beside the result, whatever that is: a container of stacks has no tables, and
    every program reads CSV.

    Returns:
        Its address; None where there are no gains.
    """
    found = labelled_gains(work.choices, gains)
    if not found:
        return None
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = list(next(iter(found.values())).columns())
    table.writerow(("channel", *columns, "side_gain"))
    for label, own in found.items():
        side = "" if own.side is None else own.side.gain
        rows = zip(*own.columns().values(), strict=True)
        table.writerows((label, *row, side) for row in rows)
    url = gains_url(work.replaces or work.final_url)
    places.write_bytes(job.beside(url), text.getvalue().encode(), work.storage)
    return url
