"""From a native acquisition to Fractal mosaics, in one pass, with or without correction."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from fractal_mesospim_shading.acquisition import (
    log_facts,
    note_earlier,
    open_collection,
    source_state,
)
from fractal_mesospim_shading.compute import estimate_workers, resources, run_guarded
from fractal_mesospim_shading.errors import ImageFormatError, ParameterError
from fractal_mesospim_shading.estimation import EstimationPlan
from fractal_mesospim_shading.finishing import complete, provenance, totals
from fractal_mesospim_shading.flatfield import (
    Models,
    find_models,
    flatfield_kernel,
    plan_models,
    request_details,
    save_used_models,
)
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.collection import TileCollection
from fractal_mesospim_shading.images.mosaic_target import (
    ImportStyle,
    acquisition_facts,
    import_attributes,
    import_levels,
)
from fractal_mesospim_shading.images.native_mosaic import NativeMosaic
from fractal_mesospim_shading.images.native_report import acquisition_metadata
from fractal_mesospim_shading.images.output import (
    refuse_existing,
    refuse_unwritable,
    split_name,
    zarr_format_of,
)
from fractal_mesospim_shading.images.places import StorageOptions
from fractal_mesospim_shading.images.roi_tables import write_roi_tables
from fractal_mesospim_shading.images.stores import join_url, normalise_url
from fractal_mesospim_shading.images.target import TargetImage, write_attributes
from fractal_mesospim_shading.job import Job, image_url
from fractal_mesospim_shading.params import ImportOptions, parameters_of
from fractal_mesospim_shading.plan import BLOCK_BYTES, CopyKernel, CorrectionPlan, Kernel
from fractal_mesospim_shading.preparation import Problems, marked, options_of
from fractal_mesospim_shading.running import run

logger = logging.getLogger(__name__)

_TASK = "import_mesospim"

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


@dataclass(frozen=True)
class ImportResult:
    """An imported image.

    Attributes:
        image_url: its address.
        container: the acquisition it comes from.
        attributes: for Fractal's image list.
        types: the same.
        models: by channel label (and side), where it was corrected.
        models_folder: where the models were saved, if they were.
    """

    image_url: str
    container: str
    attributes: dict[str, Any]
    types: dict[str, bool]
    models: Models
    models_folder: str | None = None


@dataclass(frozen=True)
class _Work:
    unit: ImportUnit
    collection: TileCollection
    mosaic: NativeMosaic
    options: ImportOptions
    target: TargetImage
    attributes: dict[str, Any]
    estimation: EstimationPlan | None

    @property
    def plan(self) -> CorrectionPlan:
        wish = max(1, BLOCK_BYTES // self.mosaic.dtype.itemsize)
        return CorrectionPlan(self.mosaic, (self.target,), self.unit.zarr_url, wish=wish)

    def request(self) -> dict[str, Any]:
        documents = [level.document for level in self.target.levels]
        details: dict[str, Any] = {"parameters": parameters_of(self.options)}
        if self.estimation is not None:
            details = request_details(self.options, self.estimation)
        return {
            "task": _TASK,
            "version": version("fractal-mesospim-shading"),
            "source": self.unit.container,
            "source_state": source_state(self.mosaic),
            "output": hashlib.sha256(json.dumps(documents).encode()).hexdigest(),
            **details,
        }


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
    problems = Problems()
    units: list[ImportUnit] = []
    for container in containers:
        with problems.collected():
            collection = open_collection(container, options)
            for mosaic in collection.mosaics():
                unit = _unit(collection, mosaic, zarr_dir, options)
                units.append(unit)
                with problems.collected():
                    _prepare(unit, collection, mosaic, options)
    urls = [unit.zarr_url for unit in units]
    repeated = sorted({url for url in urls if urls.count(url) > 1})
    if repeated:
        problems.errors.append(
            ParameterError(
                f"Several acquisitions would be imported to {', '.join(repeated)}. Import them to "
                "different folders, or give them different names."
            )
        )
    problems.raise_all()
    return units


def import_image(unit: ImportUnit, options: ImportOptions) -> ImportResult:
    """Import one image.

    Args:
        unit: from `plan_imports`.
        options: the same as there.

    Raises:
        ShadingError: one readable error; the acquisition is as it was.
    """
    started = time.monotonic()
    collection = open_collection(unit.container, options)
    log_facts(collection)
    earlier = note_earlier(collection, options, again=options.correct_flatfield)
    mosaic = _mosaic_of(collection, unit)
    for note in mosaic.notes:
        logger.info("%s", note)
    work = _prepare(unit, collection, mosaic, options)
    storage = options_of(options)
    _create_parent(unit.zarr_url, work.target.zarr_format, storage)
    with (
        run_guarded(),
        Job(unit.zarr_url, work.request(), storage).start(restart=options.restart) as job,
    ):
        work.target.create(marked(work.attributes, {}, complete=False))
        models = _models(work, job)
        run(replace(work.plan, kernel=_kernel(work, models)), options, job)
        counts, histograms = totals(mosaic.channels, job.records)
        write_roi_tables(
            work.target.url,
            mosaic.layout,
            mosaic.voxel_size_um,
            mosaic.shape[1],
            original_um=mosaic.original_um(),
            storage_options=storage,
        )
        folder = _save_models(unit, mosaic, models, options)
        mark = provenance(_TASK, parameters_of(options), models, counts)
        mark["acquisition"] = {
            "container": collection.name,
            "orientation": asdict(collection.orientation),
            **acquisition_facts(mosaic),
            "metadata": acquisition_metadata(collection),
        }
        if earlier is not None:
            mark["acquisition"]["corrected_before"] = earlier
        complete(work.target, work.attributes, mosaic.channels, histograms, mark)
        url = job.finish(overwrite=options.overwrite)
    logger.info("Done in %.0f s: %s", time.monotonic() - started, url)
    return ImportResult(
        url,
        unit.container,
        _list_attributes(collection, mosaic),
        {
            "is_3D": mosaic.shape[1] > 1,
            "flatfield_corrected": options.correct_flatfield or earlier is not None,
        },
        models,
        folder,
    )


def _save_models(
    unit: ImportUnit, mosaic: NativeMosaic, models: Models, options: ImportOptions
) -> str | None:
    """Save the models used beside the image, readable again as models_folder."""
    if not (options.save_models and models):
        return None
    folder = f"{unit.zarr_url}_shading_models"
    save_used_models(folder, mosaic, models)
    logger.info("The models used are in %s", folder)
    return folder


def image_list_update(result: ImportResult) -> dict[str, Any]:
    """The entry of an imported image for Fractal's image list."""
    return {
        "zarr_url": result.image_url,
        "attributes": result.attributes,
        "types": result.types,
    }


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
    name = "_".join(part.strip("_") for part in parts)
    if any(c in name for c in "/\\\0") or name in (".", ".."):
        raise ParameterError(f"image_name gives {name!r}; expected a plain name without folders.")
    stem = split_name(collection.name)[0]
    return ImportUnit(
        collection.url, mosaic.suffix, join_url(normalise_url(zarr_dir), f"{stem}.zarr", name)
    )


def _mosaic_of(collection: TileCollection, unit: ImportUnit) -> NativeMosaic:
    for mosaic in collection.mosaics():
        if mosaic.suffix == unit.suffix:
            return mosaic
    raise ImageFormatError(
        f"The acquisition '{unit.container}' no longer has the image '{unit.suffix}': it has "
        f"{[mosaic.suffix for mosaic in collection.mosaics()]}. Plan the import again."
    )


def _prepare(
    unit: ImportUnit, collection: TileCollection, mosaic: NativeMosaic, options: ImportOptions
) -> _Work:
    """Check what can be checked for one image.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    storage = options_of(options)
    zarr_format = zarr_format_of(options.ngff_version, _source_format(mosaic))
    with problems.collected():
        refuse_existing(
            unit.zarr_url, storage, overwrite=options.overwrite, name_option="image_name"
        )
    with problems.collected():
        refuse_unwritable(unit.zarr_url, "zarr_dir")
    if options.output_shards is not None and zarr_format == 2:
        problems.errors.append(
            ParameterError("output_shards needs OME-Zarr 0.5. Set ngff_version to 0.5.")
        )
    estimation = plan_models(mosaic, options, problems) if options.correct_flatfield else None
    style = ImportStyle(zarr_format, options.levels, options.chunks, options.output_shards)
    levels = problems.run(lambda: import_levels(mosaic, style, storage))
    problems.raise_all()
    if levels is None:
        raise RuntimeError("a failed check left no error")
    target = TargetImage(image_url(unit.zarr_url), zarr_format, levels, storage)
    attributes = import_attributes(mosaic, levels, zarr_format, collection.name)
    work = _Work(unit, collection, mosaic, options, target, attributes, estimation)
    resources(work.plan, options)
    return work


def _source_format(mosaic: NativeMosaic) -> int:
    return 2 if mosaic.placed[0].stack.ngff_version == "0.4" else 3


def _models(work: _Work, job: Job) -> Models:
    if work.estimation is None:
        return {}
    workers = estimate_workers(work.mosaic, work.estimation.level, work.options)
    return find_models(
        work.mosaic, work.estimation, work.options, zero_fill=True, workers=workers, job=job
    )


def _kernel(work: _Work, models: Models) -> Kernel:
    if work.estimation is None:
        no_data = {channel.index: True for channel in work.mosaic.channels}
        return CopyKernel(work.mosaic.axes, no_data)
    return flatfield_kernel(work.mosaic, models, work.options, zero_fill=True)


def _create_parent(zarr_url: str, zarr_format: int, storage: StorageOptions) -> None:
    """The group that holds the images of an acquisition."""
    parent, _ = places.parent_and_name(zarr_url)
    if not any(
        places.exists(places.join(parent, name), storage) for name in (".zgroup", "zarr.json")
    ):
        write_attributes(parent, zarr_format, {}, storage)


def _list_attributes(collection: TileCollection, mosaic: NativeMosaic) -> dict[str, Any]:
    attributes: dict[str, Any] = {"sample": collection.name}
    attributes["rotation"] = f"{mosaic.rotation:g}"
    if mosaic.side is not None:
        attributes["side"] = mosaic.side
    if collection.time_point is not None:
        attributes["time"] = int(collection.time_point)
    return attributes
