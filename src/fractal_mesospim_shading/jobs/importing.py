"""Import of native acquisitions as Fractal mosaics in one pass, with or without correction."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from fractal_mesospim_shading.engine.earlier import left_to_its_job, steps_of
from fractal_mesospim_shading.engine.job_folder import unfinished_url
from fractal_mesospim_shading.errors import ImageFormatError, ParameterError, Problems
from fractal_mesospim_shading.flatfield.job_models import choose_models
from fractal_mesospim_shading.flatfield.kernel import CopyKernel
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.flatfield.side_gains import partners, refuse_one_sided
from fractal_mesospim_shading.flatfield.tile_gains import refuse_unplaced
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.opening import open_collection, tell_facts
from fractal_mesospim_shading.images.native.positions import SignOptions
from fractal_mesospim_shading.images.native.results import (
    ImportStyle,
    container_attributes,
    import_attributes,
    import_levels,
)
from fractal_mesospim_shading.images.ngff import ZARR_FORMATS, zarr_format_of
from fractal_mesospim_shading.images.output import mark_of, refuse_unwritable, split_name
from fractal_mesospim_shading.images.roi_tables import write_roi_tables
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.names import refuse_bad_name, refuse_long_name
from fractal_mesospim_shading.images.storage.places import join_url, normalise_url
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.ending import rehearse
from fractal_mesospim_shading.jobs.following import following
from fractal_mesospim_shading.jobs.import_facts import import_facts, listed_attributes
from fractal_mesospim_shading.jobs.preparation import (
    block_plan,
    refuse_taken,
    refuse_unfit,
    tell_notes,
)
from fractal_mesospim_shading.jobs.story import carry_out
from fractal_mesospim_shading.jobs.work import JobResult, Part, Work, prefix_of
from fractal_mesospim_shading.messages import warnings_heard
from fractal_mesospim_shading.options.flatfield import ImportOptions
from fractal_mesospim_shading.options.precedence import refuse_idle
from fractal_mesospim_shading.views.report_place import report_obstacle, report_url

logger = logging.getLogger(__name__)

TASK = "import_mesospim"


@dataclass(frozen=True)
class ImportUnit:
    """One image to be imported: what one compute unit of the task is told.

    Attributes:
        container: address of the acquisition.
        suffix: which of its mosaics.
        zarr_url: where the image goes.
    """

    container: str
    suffix: str
    zarr_url: str


def plan_imports(
    containers: Sequence[str], zarr_dir: str, options: ImportOptions
) -> list[ImportUnit]:
    """Find the images of all containers and check everything, before a pixel is written.

    Where the orientation is neither given nor in a BigStitcher file, the overlaps of the
    tiles are read to measure it.

    Args:
        containers: addresses of acquisitions.
        zarr_dir: folder that the images go to, each acquisition to `<name>.zarr`.
        options: everything else.

    Raises:
        ShadingError: one error with all problems.
    """
    if not containers:
        raise ParameterError("No container was given; expected at least one acquisition.")
    refuse_idle(options)
    problems = Problems()
    units: list[ImportUnit] = []
    finished: list[Work] = []
    for container in containers:
        with problems.collected(), workable(container):
            collection = _opened(container, options)
            for mosaic in collection.mosaics():
                unit = _unit(collection, mosaic, zarr_dir, options)
                _refuse_inside(unit.zarr_url, collection.url)
                units.append(unit)
                with problems.collected():
                    work = prepare_import(unit, collection, mosaic, options)
                    if imported_before(work):
                        finished.append(work)
    counted = Counter(unit.zarr_url for unit in units)
    repeated = sorted(url for url, number in counted.items() if number > 1)
    if repeated:
        problems.errors.append(
            ParameterError(
                f"Several acquisitions would be imported to {', '.join(repeated)}. Import them to "
                "different folders, or give them different names."
            )
        )
    if len(finished) == len(units):
        # Where some are missing, a run that broke off goes on with these.
        for work in finished:
            with problems.collected():
                _refuse_taken(work)
    problems.raise_all()
    return units


def import_image(unit: ImportUnit, options: ImportOptions) -> JobResult:
    """Import one image.

    Args:
        unit: from `plan_imports`.
        options: the same as there.

    Raises:
        ShadingError: one readable error; the acquisition is as it was.
    """
    with warnings_heard():
        work = plan_import(unit, options)
        if imported_before(work):
            logger.info("%s was finished by an earlier run and stays.", unit.zarr_url)
            return work.result(unit.zarr_url, report_url(unit.zarr_url) if work.reported else None)
        return carry_out(work)


def plan_import(unit: ImportUnit, options: ImportOptions) -> Work:
    """The work of one import, once everything is checked; nothing is written."""
    with workable(unit.container):
        collection = _opened(unit.container, options)
        tell_facts(collection)
        mark = container_attributes(collection.url, options.storage_options).get(MARK)
        mosaic = _mosaic_of(collection, unit)
        tell_notes(mosaic)
        earlier = mark if isinstance(mark, dict) else None
        return prepare_import(unit, collection, mosaic, options, earlier)


def _opened(container: str, options: ImportOptions) -> TileCollection:
    signs = SignOptions(options.sign_x, options.sign_y)
    excluded = tuple(options.exclude_groups or ())
    return open_collection(container, options.storage_options, signs, excluded)


def _mosaic_of(collection: TileCollection, unit: ImportUnit) -> NativeMosaic:
    for mosaic in collection.mosaics():
        if mosaic.suffix == unit.suffix:
            return mosaic
    raise ImageFormatError(
        f"The acquisition '{unit.container}' no longer has the image '{unit.suffix}': it has "
        f"{[mosaic.suffix for mosaic in collection.mosaics()]}. Plan the import again."
    )


def _refuse_inside(url: str, container: str) -> None:
    """Refuse a result that would lie within an acquisition: nothing is written there.

    Raises:
        ParameterError: it would.
    """
    inner, outer = (
        os.path.realpath(places.local_path(u)) if places.is_local(u) else u.rstrip("/")
        for u in (url, container)
    )
    if f"{inner}/".startswith(f"{outer}/"):
        raise ParameterError(
            f"{url} would lie within the acquisition '{container}', which is only read. Set "
            "`zarr_dir` to another folder."
        )


def _unit(
    collection: TileCollection, mosaic: NativeMosaic, zarr_dir: str, options: ImportOptions
) -> ImportUnit:
    parts = [options.image_name]
    if mosaic.suffix:
        parts.append(mosaic.suffix)
    if collection.time_point is not None:
        parts.append(f"Time{int(collection.time_point):03d}")
    if options.correct_flatfield:
        parts.append("flatfield_corr")
    if options.background is not None:
        parts.append("background_corr")
    name = "_".join(part.strip("_") for part in parts)
    refuse_bad_name(options.image_name.strip("_"), "image_name")
    refuse_bad_name(name, "image_name")
    url = join_url(normalise_url(zarr_dir), f"{split_name(collection.name)[0]}.zarr", name)
    refuse_long_name(url, "image_name", "zarr_dir")
    return ImportUnit(collection.url, mosaic.suffix, url)


def prepare_import(
    unit: ImportUnit,
    collection: TileCollection,
    mosaic: NativeMosaic,
    options: ImportOptions,
    earlier: Document | None = None,
) -> Work:
    """Check what can be checked for one image without reading a pixel of it.

    Args:
        unit: which image, and where it goes.
        collection, mosaic: where it comes from.
        options: everything else.
        earlier: our mark in the container, where it was corrected before.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    storage = options.storage_options
    obstacle = report_obstacle(unit.zarr_url)
    with problems.collected():
        refuse_idle(options, no_report=obstacle)
    source_format = ZARR_FORMATS[mosaic.placed[0].stack.ngff_version]
    zarr_format = zarr_format_of(options.ngff_version, source_format)
    with problems.collected():
        refuse_unwritable(unit.zarr_url, "zarr_dir")
    if options.output_shards is not None and zarr_format == 2:
        problems.errors.append(
            ParameterError("`output_shards` needs OME-Zarr 0.5. Give `ngff_version=0.5`.")
        )
    choices, compared = _choices(collection, mosaic, options, problems)
    style = ImportStyle(zarr_format, options.levels, options.chunks, options.output_shards)
    after = following(options)
    kernel = after.mosaic_kernel(mosaic, problems)
    made = problems.run(lambda: import_levels(mosaic, style, storage, after.dtype))
    levels = problems.passed(made)
    target = TargetImage(unfinished_url(unit.zarr_url, storage), zarr_format, levels, storage)
    copied = CopyKernel(mosaic.axes, {channel.index: True for channel in mosaic.channels})
    plan = block_plan(mosaic, target, unit.zarr_url, None if choices else copied)
    folder = f"{unit.zarr_url}_shading_models"
    attributes = import_attributes(mosaic, levels, zarr_format, collection.name)
    history = steps_of({MARK: earlier})
    before = {step.corrects for step in history}
    work = Work(
        task=TASK,
        source_url=unit.container,
        final_url=unit.zarr_url,
        options=options,
        parts=(Part(plan, attributes, facts=import_facts(collection, mosaic, earlier)),),
        source_states=tuple(image.state() for image in (mosaic, *(c.image for c in compared))),
        choices=choices,
        compared=compared,
        models_folder=folder if options.save_models and choices else None,
        parent_format=zarr_format,
        reported=options.report and bool(choices) and obstacle is None,
        addresses={"zarr_dir": places.parent_and_name(places.parent_and_name(unit.zarr_url)[0])[0]},
        add_tables=partial(_write_tables, mosaic),
        history=history,
        types={
            "is_3D": mosaic.depth > 1,
            "flatfield_corrected": options.correct_flatfield or "flatfield" in before,
            **({"background_corrected": True} if "background" in before else {}),
        },
        listed=listed_attributes(collection, mosaic),
    )
    work = _with_digest(work, mosaic)
    work = after.added_to(work, None if kernel is None else {"": kernel})
    if not imported_before(work):
        with problems.collected():
            _refuse_taken(work)
        refuse_unfit(work, problems, "zarr_dir")
    rehearse(work)
    return work


def _choices(
    collection: TileCollection, mosaic: NativeMosaic, options: ImportOptions, problems: Problems
) -> tuple[tuple[PlaneChoice, ...], tuple[PlaneChoice, ...]]:
    """What models are made from: those of the image, and those that its side is compared with."""
    if not options.correct_flatfield:
        return (), ()
    mosaics = collection.mosaics()
    with problems.collected():
        refuse_unplaced(mosaics, options)
    with problems.collected():
        refuse_one_sided(mosaics, options)
    own = choose_models(mosaic, options, problems)
    number = next(k for k, other in enumerate(mosaics) if other.suffix == mosaic.suffix)
    others = [m for m in partners(mosaics) if number in m] if options.side_gains else []
    compared = []
    for k in (k for members in others for k in members if k != number):
        choice = choose_models(mosaics[k], options, problems)
        if choice is not None:
            # What is said of it is not said of this image.
            compared.append(replace(choice, prefix=prefix_of(mosaics[k], mosaics)))
    return tuple(c for c in (own,) if c is not None), tuple(compared)


def imported_before(work: Work) -> bool:
    """Whether an earlier run of the same import has finished this image."""
    if work.options.overwrite or not places.exists(work.final_url, work.storage):
        return False
    if left_to_its_job(work.final_url, work.storage):
        # Its job does what is left to do, and says that it is complete.
        return False
    mark, request = mark_of(work.final_url, work.storage), work.parts[0].facts["request"]
    return mark.get("complete") is True and mark.get("request") == request


def _with_digest(work: Work, mosaic: NativeMosaic) -> Work:
    """The work whose provenance tells its request apart, whatever the paths and dates."""
    left_out = ("source", "source_state", "blocks")
    request = {k: v for k, v in work.request().items() if k not in left_out}
    request["layout"] = repr((mosaic.places, mosaic.shape, mosaic.z_start_um))
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    (part,) = work.parts
    facts = {**part.facts, "request": digest}
    return replace(work, parts=(replace(part, facts=facts, facts_then={"request": digest}),))


def _write_tables(mosaic: NativeMosaic, target: TargetImage) -> None:
    write_roi_tables(
        target.url,
        mosaic.layout,
        mosaic.voxel_size_um,
        mosaic.depth,
        original_um=mosaic.original_um(),
        storage_options=target.storage_options,
    )


def _refuse_taken(work: Work) -> None:
    overwrite = work.options.overwrite
    refuse_taken(work.final_url, work.storage, overwrite=overwrite, name_option="image_name")
