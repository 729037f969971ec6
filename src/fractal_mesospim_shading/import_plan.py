"""What an import consists of: its images, checked together before a pixel is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fractal_mesospim_shading.acquisition import (
    expected_bytes,
    open_collection,
    refuse_inside,
    source_state,
)
from fractal_mesospim_shading.compute import resources
from fractal_mesospim_shading.errors import ParameterError, ShadingError
from fractal_mesospim_shading.estimation import EstimationPlan
from fractal_mesospim_shading.flatfield import plan_models, request_details
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.collection import TileCollection
from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.images.mosaic_target import (
    ImportStyle,
    import_attributes,
    import_levels,
)
from fractal_mesospim_shading.images.native_mosaic import NativeMosaic
from fractal_mesospim_shading.images.native_state import container_attributes
from fractal_mesospim_shading.images.output import (
    refuse_existing,
    refuse_unwritable,
    split_name,
    zarr_format_of,
)
from fractal_mesospim_shading.images.stores import join_url, normalise_url
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.job import image_url
from fractal_mesospim_shading.params import ImportOptions, parameters_of
from fractal_mesospim_shading.plan import CorrectionPlan, block_wish
from fractal_mesospim_shading.preparation import Problems, options_of, refuse_little_room

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


@dataclass(frozen=True)
class ImportWork:
    """One image to be imported, checked, with no pixel read yet.

    Attributes:
        unit: which one.
        collection, mosaic: where it comes from.
        options: everything else.
        target: its arrays, where they are written.
        attributes: of its group, before windows and marks.
        estimation: where the models come from; None without correction.
    """

    unit: ImportUnit
    collection: TileCollection
    mosaic: NativeMosaic
    options: ImportOptions
    target: TargetImage
    attributes: dict[str, Any]
    estimation: EstimationPlan | None

    @property
    def plan(self) -> CorrectionPlan:
        """The plan, without its kernel."""
        wish = block_wish(self.target.levels[0].shape, self.mosaic.dtype)
        return CorrectionPlan(self.mosaic, (self.target,), self.unit.zarr_url, wish=wish)

    def request(self) -> dict[str, Any]:
        """What a continued run must match."""
        documents = [level.document for level in self.target.levels]
        details: dict[str, Any] = {"parameters": parameters_of(self.options)}
        if self.estimation is not None:
            details = request_details(self.options, self.estimation)
        return {
            "task": TASK,
            "version": version("fractal-mesospim-shading"),
            "source": self.unit.container,
            "source_state": source_state(self.mosaic),
            "output": hashlib.sha256(json.dumps(documents).encode()).hexdigest(),
            **details,
        }

    @property
    def digest(self) -> str:
        """Fingerprint of the request, whatever the paths and dates of the source."""
        request = {k: v for k, v in self.request().items() if not k.startswith("source")}
        request["layout"] = repr((self.mosaic.places, self.mosaic.shape, self.mosaic.z_start_um))
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def there(self) -> bool:
        """Whether an earlier run of the same import has finished this image."""
        storage = options_of(self.options)
        if self.options.overwrite or not places.exists(self.unit.zarr_url, storage):
            return False
        try:
            mark = container_attributes(self.unit.zarr_url, storage).get(MARK)
        except ShadingError:
            return False
        if not isinstance(mark, dict) or mark.get("complete") is not True:
            return False
        return bool(mark.get("request") == self.digest)


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
    finished: list[ImportWork] = []
    for container in containers:
        with problems.collected():
            collection = open_collection(container, options)
            for mosaic in collection.mosaics():
                unit = _unit(collection, mosaic, zarr_dir, options)
                refuse_inside(unit.zarr_url, collection.url)
                units.append(unit)
                with problems.collected():
                    work = prepare_import(unit, collection, mosaic, options)
                    if work.there:
                        finished.append(work)
    urls = [unit.zarr_url for unit in units]
    repeated = sorted({url for url in urls if urls.count(url) > 1})
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
                _refuse_existing(work)
    problems.raise_all()
    return units


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
        raise ParameterError(f"`image_name` gives {name!r}; expected a plain name without folders.")
    stem = split_name(collection.name)[0]
    return ImportUnit(
        collection.url, mosaic.suffix, join_url(normalise_url(zarr_dir), f"{stem}.zarr", name)
    )


def prepare_import(
    unit: ImportUnit, collection: TileCollection, mosaic: NativeMosaic, options: ImportOptions
) -> ImportWork:
    """Check what can be checked for one image without reading a pixel of it.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    storage = options_of(options)
    zarr_format = zarr_format_of(options.ngff_version, _source_format(mosaic))
    with problems.collected():
        refuse_unwritable(unit.zarr_url, "zarr_dir")
    if options.output_shards is not None and zarr_format == 2:
        problems.errors.append(
            ParameterError("`output_shards` needs OME-Zarr 0.5. Give `ngff_version=0.5`.")
        )
    estimation = plan_models(mosaic, options, problems) if options.correct_flatfield else None
    style = ImportStyle(zarr_format, options.levels, options.chunks, options.output_shards)
    levels = problems.run(lambda: import_levels(mosaic, style, storage))
    problems.raise_all()
    if levels is None:
        raise RuntimeError("a failed check left no error")
    target = TargetImage(image_url(unit.zarr_url), zarr_format, levels, storage)
    attributes = import_attributes(mosaic, levels, zarr_format, collection.name)
    work = ImportWork(unit, collection, mosaic, options, target, attributes, estimation)
    with problems.collected():
        resources(work.plan, options)
    if not work.there:
        with problems.collected():
            _refuse_existing(work)
        with problems.collected():
            refuse_little_room(unit.zarr_url, lambda: expected_bytes(mosaic, levels), "zarr_dir")
    problems.raise_all()
    return work


def _refuse_existing(work: ImportWork) -> None:
    refuse_existing(
        work.unit.zarr_url,
        options_of(work.options),
        overwrite=work.options.overwrite,
        name_option="image_name",
    )


def _source_format(mosaic: NativeMosaic) -> int:
    return 2 if mosaic.placed[0].stack.ngff_version == "0.4" else 3
