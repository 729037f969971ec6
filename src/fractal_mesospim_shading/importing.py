"""From a native acquisition to Fractal mosaics, in one pass, with or without correction."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fractal_mesospim_shading.acquisition import log_facts, note_earlier, open_collection
from fractal_mesospim_shading.compute import estimate_workers, run_guarded
from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.finishing import complete, provenance, totals
from fractal_mesospim_shading.flatfield import (
    Models,
    find_models,
    flatfield_kernel,
    save_used_models,
)
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.collection import TileCollection
from fractal_mesospim_shading.images.mosaic_target import acquisition_facts
from fractal_mesospim_shading.images.native_mosaic import NativeMosaic
from fractal_mesospim_shading.images.native_report import acquisition_metadata
from fractal_mesospim_shading.images.places import StorageOptions
from fractal_mesospim_shading.images.roi_tables import write_roi_tables
from fractal_mesospim_shading.images.target import write_attributes
from fractal_mesospim_shading.import_plan import (
    TASK,
    ImportUnit,
    ImportWork,
    plan_imports,
    prepare_import,
)
from fractal_mesospim_shading.job import Job
from fractal_mesospim_shading.params import ImportOptions, parameters_of
from fractal_mesospim_shading.plan import CopyKernel, Kernel
from fractal_mesospim_shading.preparation import marked, options_of
from fractal_mesospim_shading.running import run

__all__ = ["ImportResult", "ImportUnit", "image_list_update", "import_image", "plan_imports"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportResult:
    """An imported image.

    Attributes:
        image_url: its address.
        container: the acquisition it comes from.
        attributes: for Fractal's image list.
        types: the same.
        models: by channel label (and side), where it was corrected by this call.
        models_folder: where the models were saved, if they were.
    """

    image_url: str
    container: str
    attributes: dict[str, Any]
    types: dict[str, bool]
    models: Models = field(default_factory=dict)
    models_folder: str | None = None


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
    work = prepare_import(unit, collection, mosaic, options)
    result = ImportResult(
        unit.zarr_url,
        unit.container,
        _list_attributes(collection, mosaic),
        {
            "is_3D": mosaic.shape[1] > 1,
            "flatfield_corrected": options.correct_flatfield or earlier is not None,
        },
    )
    if work.there:
        logger.info("%s was finished by an earlier run and stays.", unit.zarr_url)
        return result
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
        mark = provenance(TASK, parameters_of(options), models, counts)
        mark["acquisition"] = {
            "container": collection.name,
            "orientation": asdict(collection.orientation),
            **acquisition_facts(mosaic),
            "metadata": acquisition_metadata(collection),
        }
        mark["request"] = work.digest
        if earlier is not None:
            mark["acquisition"]["corrected_before"] = earlier
        complete(work.target, work.attributes, mosaic.channels, histograms, mark)
        url = job.finish(overwrite=options.overwrite)
    logger.info("Done in %.0f s: %s", time.monotonic() - started, url)
    return replace(result, image_url=url, models=models, models_folder=folder)


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


def _mosaic_of(collection: TileCollection, unit: ImportUnit) -> NativeMosaic:
    for mosaic in collection.mosaics():
        if mosaic.suffix == unit.suffix:
            return mosaic
    raise ImageFormatError(
        f"The acquisition '{unit.container}' no longer has the image '{unit.suffix}': it has "
        f"{[mosaic.suffix for mosaic in collection.mosaics()]}. Plan the import again."
    )


def _models(work: ImportWork, job: Job) -> Models:
    if work.estimation is None:
        return {}
    workers = estimate_workers(work.mosaic, work.estimation.level, work.options)
    return find_models(
        work.mosaic, work.estimation, work.options, zero_fill=True, workers=workers, job=job
    )


def _kernel(work: ImportWork, models: Models) -> Kernel:
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
