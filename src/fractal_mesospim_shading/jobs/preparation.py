"""What is found out about a job before a pixel is read: the output, the request, the space."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fractal_mesospim_shading.engine.history import Step
from fractal_mesospim_shading.engine.job_folder import image_url, job_url
from fractal_mesospim_shading.engine.settling import left_to_its_job, sweep
from fractal_mesospim_shading.errors import OutputWriteError, ParameterError, Problems
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.carrying.members import MemberPlan, plan_members
from fractal_mesospim_shading.images.mosaic import MARK, MosaicImage
from fractal_mesospim_shading.images.ngff import result_attributes, zarr_format_of
from fractal_mesospim_shading.images.output import (
    companion_url,
    output_url,
    pixel_bytes,
    refuse_existing,
    refuse_unwritable,
    target_levels,
)
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import split_zip
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.options.base import OutputOptions
from fractal_mesospim_shading.options.precedence import passed_over_in_place

logger = logging.getLogger(__name__)

T = TypeVar("T")


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


def plan_output(
    image: MosaicImage,
    options: OutputOptions,
    *,
    name: str,
    overwrite_input: bool = False,
    dtype: np.dtype[Any] | None = None,
    companions: tuple[str, ...] = (),
) -> OutputPlan:
    """Decide on the output; everything about it that can be wrong is found here.

    Args:
        image: the source.
        options: of the output.
        name: template of the result's name.
        overwrite_input: the result takes the source's place in the end.
        dtype: of the result where it is not the source's.
        companions: kinds of images written beside the result.

    Raises:
        ShadingError: one error with all problems.
    """
    for line in passed_over_in_place(options):
        logger.info("%s", line)
    problems = Problems()
    final = problems.run(lambda: output_url(image.url, name, options.output_folder))
    if final is not None:
        with problems.collected():
            # A result that ends up in the place of the source has no name of its own.
            overwrite = options.overwrite or overwrite_input
            refuse_taken(final, options_of(options), overwrite=overwrite)
        for kind in companions:
            with problems.collected():
                refuse_taken(
                    final, options_of(options), overwrite=options.overwrite, companion=kind
                )
        with problems.collected():
            refuse_unwritable(final)
    if overwrite_input and options.output_folder is not None:
        problems.errors.append(
            ParameterError(
                "`overwrite_input` and `output_folder` were both given: the result can take the "
                "source's place, or lie in another folder."
            )
        )
    if overwrite_input:
        with problems.collected():
            refuse_unreplaceable(image)
    zarr_format = zarr_format_of(options.ngff_version, image.zarr_format)
    levels = problems.run(
        lambda: target_levels(
            image.levels,
            image.documents,
            zarr_format=zarr_format,
            axes=image.axes,
            shards=options.output_shards,
            dtype=dtype,
        )
    )
    members = problems.run(lambda: _members(image, options, zarr_format, overwrite_input))
    problems.raise_all()
    if final is None or levels is None or members is None:
        raise RuntimeError("a failed check left no error")
    url = image_url(final, options_of(options), companions)
    target = TargetImage(url, zarr_format, levels, options_of(options))
    attributes = result_attributes(image.attributes(), image.zarr_format, zarr_format)
    return OutputPlan(final, target, attributes, members)


def _members(
    image: MosaicImage, options: OutputOptions, zarr_format: int, overwrite_input: bool
) -> MemberPlan:
    """What the image holds besides its pyramid."""
    members = plan_members(
        image.url,
        [level.path for level in image.levels],
        zarr_format,
        {"": image.attributes()},
        storage_options=options_of(options),
        follow_links=options.follow_links,
    )
    refuse_loss(members, overwrite_input=overwrite_input)
    return members


def refuse_loss(members: MemberPlan, *, overwrite_input: bool) -> None:
    """Refuse to replace a source by a result that lacks something of it.

    Raises:
        ParameterError: names what would be lost.
    """
    if overwrite_input and members.loss is not None:
        raise ParameterError(
            f"`overwrite_input` would delete what the result cannot hold. {members.loss} Move it "
            "away, or leave `overwrite_input` out: then the source stays."
        )


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
    storage: places.StorageOptions,
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


def options_of(options: Any) -> places.StorageOptions:
    """The storage options among all options."""
    found: places.StorageOptions = getattr(options, "storage_options", None)
    return found


def refuse_second_replacement(
    task: str, url: str, history: Sequence[Step], *, overwrite_input: bool
) -> None:
    """Refuse to correct in place what stands in place corrected already.

    Such a run is mostly the repetition of one that was killed at its very end, when the
    result had taken the place of the source.

    Args:
        task: that is going to be done.
        url: of the source.
        history: what was done to it before.
        overwrite_input: whether the result is to take its place.

    Raises:
        ParameterError: the source is a result of the same task.
    """
    if overwrite_input and task in [step.task for step in history]:
        raise ParameterError(
            f"{url} is a result of {task} already; `overwrite_input` would correct it twice. "
            "If an earlier run was stopped at its end, it has done its work. To correct it once "
            "more all the same, leave `overwrite_input` out."
        )


def refuse_full_disk(
    image: MosaicImage, output: OutputPlan, companions: Iterable[TargetImage] = ()
) -> None:
    """Refuse a disk that has less room than the result, and images beside it, will need.

    Raises:
        OutputWriteError: says how much is needed and how much there is.
    """
    refuse_little_room(
        output.final_url,
        lambda: expected_bytes(image, (output.target, *companions)) + output.members.expected_bytes,
    )


def refuse_little_room(
    final_url: str, needed_bytes: Callable[[], int], folder_option: str = "output_folder"
) -> None:
    """Refuse a disk that has less room than a result will need.

    Args:
        final_url: of the result.
        needed_bytes: asked only where it matters.
        folder_option: the parameter that gives another folder.

    Raises:
        OutputWriteError: says how much is needed and how much there is.
    """
    if not places.is_local(final_url) or places.exists(
        places.join_url(job_url(final_url), "journal")
    ):
        # A run that is continued needs room for the rest only.
        return
    folder = places.local_path(final_url).parent
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    needed = needed_bytes()
    if needed > free:
        raise OutputWriteError(
            f"The result needs about {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            f"free. Make room, or set `{folder_option}` to another disk."
        )


def expected_bytes(source: MultitileImage, targets: Iterable[TargetImage]) -> int:
    """Bytes of what is written, as far as the source tells."""
    return int(sum(pixel_bytes(target.levels) for target in targets) * source.stored_share())


def marked(attributes: Document, mark: dict[str, Any], *, complete: bool) -> Document:
    """Attributes with our mark; an earlier mark goes into its history."""
    earlier = attributes.get(MARK)
    history: list[Any] = []
    if isinstance(earlier, dict):
        history = [
            *_as_list(earlier.get("history")),
            {k: v for k, v in earlier.items() if k != "history"},
        ]
    own: dict[str, Any] = {"complete": complete, **mark}
    if history:
        own["history"] = history
    return {**attributes, MARK: own}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def open_source(url: str, options: Any) -> MosaicImage:
    """Open the image to correct."""
    return MosaicImage.open(url, options_of(options))
