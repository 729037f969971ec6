"""What all kinds of jobs check and plan before a pixel is read: source, result, blocks, space."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fractal_mesospim_shading.engine.earlier import Step, left_to_its_job, sweep
from fractal_mesospim_shading.engine.job_folder import job_url, unfinished_url
from fractal_mesospim_shading.engine.plan import CorrectionPlan, Kernel, least_block_pixels
from fractal_mesospim_shading.engine.resources import Allowance, refuse_no_workers, resources
from fractal_mesospim_shading.errors import OutputWriteError, ParameterError, Problems
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.carrying.members import MemberPlan, plan_members
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.ngff import result_attributes, zarr_format_of
from fractal_mesospim_shading.images.output import (
    companion_url,
    output_url,
    refuse_existing,
    refuse_unwritable,
    target_levels,
)
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import StorageOptions, split_zip
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.work import CorrectionOptions, Work
from fractal_mesospim_shading.options.precedence import passed_over_in_place, refuse_idle

logger = logging.getLogger(__name__)


def tell_notes(image: MultitileImage) -> None:
    """Say what a person should know of an image."""
    for note in image.notes:
        logger.info("%s", note)


def block_plan(
    source: MultitileImage, target: TargetImage, final_url: str, kernel: Kernel | None = None
) -> CorrectionPlan:
    """The plan of an image, with a kernel that needs no models, or without one."""
    least = least_block_pixels(target.levels[0].shape, source.dtype)
    return CorrectionPlan(source, (target,), final_url, kernel=kernel, least_pixels=least)


def target_of(
    image: MosaicImage, url: str, options: CorrectionOptions, dtype: np.dtype[Any] | None = None
) -> TargetImage:
    """An image with the pyramid, chunks and codec of its source.

    Args:
        image: the source.
        url: where it is written.
        options: of the output.
        dtype: of the pixels where it is not the source's.

    Raises:
        ParameterError: shards that do not fit.
    """
    zarr_format = zarr_format_of(options.ngff_version, image.zarr_format)
    levels = target_levels(
        image.levels,
        image.documents,
        zarr_format=zarr_format,
        axes=image.axes,
        shards=options.output_shards,
        dtype=dtype,
    )
    return TargetImage(url, zarr_format, levels, options.storage_options)


def beside_target(
    image: MosaicImage, target: TargetImage, kinds: Sequence[str], options: CorrectionOptions
) -> list[TargetImage]:
    """The float32 images of some kinds that are written beside the result of an image."""
    float32 = np.dtype(np.float32)
    return [target_of(image, companion_url(target.url, k), options, float32) for k in kinds]


@dataclass(frozen=True)
class OutputPlan:
    """Where the result goes and what it looks like.

    Attributes:
        final_url: where people will find it.
        target: its arrays, where they are written.
        attributes: of its group, before windows and marks.
        members: what goes into the result besides the pyramid.
    """

    final_url: str
    target: TargetImage
    attributes: Document
    members: MemberPlan


def plan_address(
    source_url: str,
    options: CorrectionOptions,
    problems: Problems,
    companions: tuple[str, ...] = (),
) -> str | None:
    """Where people will find a result; what is wrong with the place goes to the problems.

    Args:
        source_url: of what is corrected.
        options: of the output.
        problems: that take the errors.
        companions: kinds of images written beside the result.
    """
    named = partial(output_url, source_url, options.output_image_name, options.output_folder)
    final = problems.run(named)
    if final is None:
        return None
    for kind in (None, *companions):
        with problems.collected():
            # A result that ends up in the place of the source has no name of its own.
            overwrite = options.overwrite or (kind is None and options.overwrite_input)
            refuse_taken(final, options.storage_options, overwrite=overwrite, companion=kind)
    with problems.collected():
        refuse_unwritable(final)
    return final


def plan_output(
    image: MosaicImage,
    options: CorrectionOptions,
    *,
    dtype: np.dtype[Any] | None = None,
    companions: tuple[str, ...] = (),
) -> OutputPlan:
    """Decide on the output; everything about it that can be wrong is found here.

    Args:
        image: the source.
        options: of the output.
        dtype: of the result where it is not the source's.
        companions: kinds of images written beside the result.

    Raises:
        ShadingError: one error with all problems.
    """
    for line in passed_over_in_place(options):
        logger.info("%s", line)
    problems = Problems()
    final = plan_address(image.url, options, problems, companions)
    if options.overwrite_input and options.output_folder is not None:
        problems.errors.append(
            ParameterError(
                "`overwrite_input` and `output_folder` were both given: the result can take the "
                "source's place, or lie in another folder."
            )
        )
    if options.overwrite_input:
        with problems.collected():
            refuse_unreplaceable(image)
    url = "" if final is None else unfinished_url(final, options.storage_options, companions)
    target = problems.run(partial(target_of, image, url, options, dtype))
    members = problems.run(partial(_members, image, options))
    target, members = problems.passed(target), problems.passed(members)
    attributes = result_attributes(image.attributes(), image.zarr_format, target.zarr_format)
    return OutputPlan(problems.passed(final), target, attributes, members)


def _members(image: MosaicImage, options: CorrectionOptions) -> MemberPlan:
    """What the image holds besides its pyramid.

    Raises:
        ParameterError: the result is to replace the source, and cannot hold all of it.
    """
    plan = MemberPlan(
        image.url,
        zarr_format_of(options.ngff_version, image.zarr_format),
        frozenset(level.path for level in image.levels),
        {"": image.attributes()},
        storage_options=options.storage_options,
        follow_links=options.follow_links,
    )
    members = plan_members(plan)
    if options.overwrite_input and members.loss is not None:
        raise ParameterError(
            f"`overwrite_input` would delete what the result cannot hold. {members.loss} Move it "
            "away, or leave `overwrite_input` out: then the source stays."
        )
    return members


def refuse_unreplaceable(image: MosaicImage) -> None:
    """Refuse a source whose place no result can take.

    Raises:
        ParameterError: it is no folder of a file system, or it is, or its pixels are, a link to
            another place, where the data would stay.
    """
    if not places.is_local(image.url) or split_zip(image.url):
        raise ParameterError(
            f"`overwrite_input` cannot be used with {image.url}: only a folder of a file "
            "system can be replaced by renaming. Leave it out, and remove the source yourself."
        )
    path = places.local_path(image.url)
    if path.is_symlink():
        raise ParameterError(
            f"{image.url} is a link; `overwrite_input` would replace the link, and leave the "
            f"data where they are. The image lies at {path.resolve()}: give that address, or leave "
            "`overwrite_input` out."
        )
    for level in image.levels:
        parts = Path(level.path).parts
        for end in range(1, len(parts) + 1):
            folder = path.joinpath(*parts[:end])
            if folder.is_symlink():
                raise ParameterError(
                    f"{folder} is a link; `overwrite_input` would replace the image around it, and "
                    f"leave the pixels at {folder.resolve()}. Put these into the image, or leave "
                    "`overwrite_input` out."
                )


def refuse_taken(
    final_url: str,
    storage: StorageOptions,
    *,
    overwrite: bool,
    companion: str | None = None,
    name_option: str = "output_image_name",
) -> None:
    """Refuse a result that is there already; one whose job is at its end is left to that job.

    Args:
        final_url: where the result goes.
        storage: options of a remote address.
        overwrite: whether it may be replaced.
        companion: kind of an image that goes with it, to be looked at instead.
        name_option: the parameter that gives another name.

    Raises:
        OutputExistsError: it exists and is not to be replaced, or is no image at all.
    """
    if not left_to_its_job(final_url, storage):
        sweep(final_url)
        url = final_url if companion is None else companion_url(final_url, companion)
        refuse_existing(url, storage, overwrite=overwrite, name_option=name_option)


def refuse_common(
    options: CorrectionOptions,
    tasks: Collection[str],
    url: str,
    history: Sequence[Step],
    problems: Problems,
    no_report: str | None = None,
) -> None:
    """Refuse options that can do nothing, and to correct in place what was corrected in place.

    Such a run is mostly the repetition of one that was killed at its very end, when the
    result had taken the place of the source.

    Args:
        options: of the correction.
        tasks: that are going to be done.
        url: of the source.
        history: what was done to it before.
        problems: that take the errors.
        no_report: why no report can be written; None where it can.
    """
    with problems.collected():
        refuse_idle(options, no_report=no_report)
    done = {step.task for step in history} if options.overwrite_input else ()
    for task in (task for task in tasks if task in done):
        problems.errors.append(
            ParameterError(
                f"{url} is a result of {task} already; `overwrite_input` would correct it twice. "
                "If an earlier run was stopped at its end, it has done its work. To correct it "
                "once more all the same, leave `overwrite_input` out."
            )
        )


def refuse_unfit(work: Work, problems: Problems, folder_option: str = "output_folder") -> None:
    """Refuse a work that memory, or the disk of its result, has too little room for.

    Args:
        work: of any kind.
        problems: that take the errors, and are raised with them.
        folder_option: the parameter that gives another folder.

    Raises:
        ShadingError: one error with all problems.
    """
    with problems.collected():
        refuse_no_workers(work.options)
    allowed = Allowance(work.options)
    for part in work.parts:
        with problems.collected():
            resources(part.plan, work.options, allowed)
    with problems.collected():
        _refuse_full_disk(work, folder_option)
    problems.raise_all()


def _refuse_full_disk(work: Work, folder_option: str) -> None:
    journal = places.join_url(job_url(work.final_url), "journal")
    if not places.is_local(work.final_url) or places.exists(journal):
        # A run that is continued needs room for the rest only.
        return
    folder = places.local_path(work.final_url).parent
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free, needed = shutil.disk_usage(existing).free, work.expected_bytes()
    if needed > free:
        raise OutputWriteError(
            f"The result needs about {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            f"free. Make room, or set `{folder_option}` to another disk."
        )
