"""Import of native acquisitions as Fractal mosaics, with or without correction."""

from __future__ import annotations

import logging

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.jobs.acquisition import earlier_mark, log_facts, open_collection
from fractal_mesospim_shading.jobs.import_plan import (
    ImportUnit,
    is_there,
    plan_imports,
    prepare_import,
)
from fractal_mesospim_shading.jobs.story import carry_out
from fractal_mesospim_shading.jobs.work import JobResult
from fractal_mesospim_shading.options.importing import ImportOptions

__all__ = ["ImportUnit", "import_image", "plan_imports"]

logger = logging.getLogger(__name__)


def import_image(unit: ImportUnit, options: ImportOptions) -> JobResult:
    """Import one image.

    Args:
        unit: from `plan_imports`.
        options: the same as there.

    Raises:
        ShadingError: one readable error; the acquisition is as it was.
    """
    with workable(unit.container):
        collection = open_collection(unit.container, options)
        log_facts(collection)
        earlier = earlier_mark(collection, options)
        mosaic = _mosaic_of(collection, unit)
        for note in mosaic.notes:
            logger.info("%s", note)
        work = prepare_import(unit, collection, mosaic, options, earlier)
    if is_there(work):
        logger.info("%s was finished by an earlier run and stays.", unit.zarr_url)
        return JobResult(
            unit.zarr_url,
            unit.container,
            attributes=dict(work.listed),
            types=dict(work.types),
        )
    return carry_out(work)


def _mosaic_of(collection: TileCollection, unit: ImportUnit) -> NativeMosaic:
    for mosaic in collection.mosaics():
        if mosaic.suffix == unit.suffix:
            return mosaic
    raise ImageFormatError(
        f"The acquisition '{unit.container}' no longer has the image '{unit.suffix}': it has "
        f"{[mosaic.suffix for mosaic in collection.mosaics()]}. Plan the import again."
    )
