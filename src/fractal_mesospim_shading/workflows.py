"""The story of one image, told once: open, plan, profiles, blocks, finish."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

from fractal_mesospim_shading.compute import estimate_workers, resources, run_guarded
from fractal_mesospim_shading.container import (
    ContainerResult,
    correct_container,
    estimate_container,
)
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.estimation import EstimationPlan
from fractal_mesospim_shading.finishing import complete, provenance, totals
from fractal_mesospim_shading.flatfield import (
    find_models,
    flatfield_kernel,
    plan_models,
    request_details,
    save_used_models,
)
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.carrying import copy_tables_and_labels
from fractal_mesospim_shading.images.collection import is_container
from fractal_mesospim_shading.images.documents import document_of, fill_value
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import split_name
from fractal_mesospim_shading.images.stores import normalise_url
from fractal_mesospim_shading.job import Job, restore_replaced
from fractal_mesospim_shading.models import ChannelModel
from fractal_mesospim_shading.params import FlatfieldOptions, parameters_of
from fractal_mesospim_shading.plan import CorrectionPlan, block_wish
from fractal_mesospim_shading.preparation import (
    OutputPlan,
    Problems,
    make_request,
    marked,
    open_source,
    options_of,
    plan_output,
    refuse_full_disk,
    refuse_second_replacement,
)
from fractal_mesospim_shading.reporting import gather_views, write_flatfield_report
from fractal_mesospim_shading.running import run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorrectionResult:
    """What a correction left.

    Attributes:
        image_url: address of the corrected image.
        source_url: address of the image it was made from.
        models: by channel label.
        counts: by channel label.
        models_folder: where the models were saved, if they were.
        report: the report, if one was written.
    """

    image_url: str
    source_url: str
    models: dict[str, ChannelModel] = field(repr=False)
    counts: dict[str, PixelCounts] = field(repr=False)
    models_folder: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class FlatfieldWork:
    """A flat-field correction, checked, with no pixel read yet.

    Attributes:
        image: the source.
        options: what was asked for.
        output: where the result goes.
        estimation: where the models come from.
    """

    image: MosaicImage
    options: FlatfieldOptions
    output: OutputPlan
    estimation: EstimationPlan

    @property
    def plan(self) -> CorrectionPlan:
        """The plan, without its profiles."""
        return block_plan(self.image, self.output)

    def request(self) -> dict[str, Any]:
        """What a continued run must match."""
        details = request_details(self.options, self.estimation)
        return make_request("correct_flatfield", self.image, self.output, details)


def block_plan(image: Any, output: OutputPlan) -> CorrectionPlan:
    """The plan of an image, without its kernel."""
    wish = block_wish(image.levels[0].shape, image.dtype)
    return CorrectionPlan(image, (output.target,), output.final_url, wish=wish)


def correct_flatfield(
    zarr_url: str, options: FlatfieldOptions
) -> CorrectionResult | ContainerResult:
    """Correct the shading of an image, or of all stacks of a native acquisition.

    Args:
        zarr_url: of the image, or of the container.
        options: everything else.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    restore_replaced(normalise_url(zarr_url))
    if is_container(zarr_url, options_of(options)):
        return correct_container(zarr_url, options)
    return correct_mosaic(zarr_url, options)


def correct_mosaic(zarr_url: str, options: FlatfieldOptions) -> CorrectionResult:
    """Correct the shading of one image."""
    started = time.monotonic()
    image = open_source(zarr_url, options)
    for note in image.notes:
        logger.info("%s", note)
    work = prepare_flatfield(image, options)
    target, zero_fill = work.output.target, work.output.zero_fill
    storage = options_of(options)
    with (
        run_guarded(),
        Job(work.output.final_url, work.request(), storage).start(restart=options.restart) as job,
    ):
        if job.continued:
            logger.info("An unfinished run is continued: %d blocks are there.", len(job.done))
        # Also of a continued run: the earlier one may have been killed while it did this.
        target.create(marked(work.output.attributes, {}, complete=False))
        workers = estimate_workers(image, work.estimation.level, options)
        models = find_models(
            image, work.estimation, options, zero_fill=zero_fill, workers=workers, job=job
        )
        kernel = flatfield_kernel(image, models, options, zero_fill=zero_fill)
        run(replace(work.plan, kernel=kernel), options, job)
        counts, histograms = totals(image.channels, job.records)
        copy_tables_and_labels(image.url, target.url, storage, storage)
        folder = _save_models(work, models)
        mark = provenance("correct_flatfield", parameters_of(options), models, counts)
        complete(target, work.output.attributes, image.channels, histograms, mark)
        # Now, for the source may be gone after the next line.
        views = gather_views(image, target) if options.report else {}
        url = job.finish(
            replace=image.url if options.overwrite_input else None, overwrite=options.overwrite
        )
    seconds = time.monotonic() - started
    report = write_flatfield_report(
        url,
        image,
        views,
        models,
        counts,
        output_offset=options.output_offset,
        seconds=seconds,
    )
    logger.info("Done in %.0f s: %s", seconds, url)
    return CorrectionResult(url, image.url, models, counts, folder, report)


def prepare_flatfield(image: MosaicImage, options: FlatfieldOptions) -> FlatfieldWork:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    name, overwrite_input = options.output_image_name, options.overwrite_input
    output = problems.run(
        lambda: plan_output(image, options, name=name, overwrite_input=overwrite_input)
    )
    estimation = plan_models(image, options, problems)
    with problems.collected():
        refuse_second_replacement("correct_flatfield", image, overwrite_input=overwrite_input)
    if output is not None:
        planned = output
        if options.save_models and not places.is_local(planned.final_url):
            problems.errors.append(
                ParameterError(
                    "`save_models` writes folders beside the result, which lies on remote storage. "
                    "Estimate the models with `mesospim-shading estimate` into a local folder."
                )
            )
        with problems.collected():
            refuse_full_disk(image, planned)
        with problems.collected():
            resources(block_plan(image, planned), options)
    problems.raise_all()
    if output is None or estimation is None:
        raise RuntimeError("a failed check left no error")
    return FlatfieldWork(image, options, output, estimation)


def estimate_models(
    zarr_url: str, folder: str, options: FlatfieldOptions
) -> dict[str, ChannelModel]:
    """Estimate and save the models of an image or a container without correcting it.

    Args:
        zarr_url: of the image, or of the container.
        folder: for the models; `models_folder` of a later correction.
        options: of the estimate.
    """
    if is_container(zarr_url, options_of(options)):
        return estimate_container(zarr_url, folder, options)
    image = open_source(zarr_url, options)
    problems = Problems()
    plan = plan_models(image, options, problems)
    problems.raise_all()
    if plan is None:
        raise RuntimeError("a failed check left no error")
    zero_fill = fill_value(document_of(image.array(0))) == 0
    workers = estimate_workers(image, plan.level, options)
    models = find_models(image, plan, options, zero_fill=zero_fill, workers=workers)
    save_used_models(folder, image, models)
    return models


def image_list_update(result: CorrectionResult | ContainerResult) -> dict[str, Any]:
    """The entry of a corrected image for Fractal's image list."""
    update: dict[str, Any] = {
        "zarr_url": result.image_url,
        "types": {"flatfield_corrected": True},
    }
    if result.image_url != result.source_url:
        update["origin"] = result.source_url
    return update


def _save_models(work: FlatfieldWork, models: dict[str, ChannelModel]) -> str | None:
    """Save the models used beside the result, readable again as models_folder."""
    if not work.options.save_models:
        return None
    parent, _ = places.parent_and_name(work.output.final_url)
    _, name = places.parent_and_name(work.image.url)
    folder = places.join(parent, f"{split_name(name)[0]}_shading_models")
    save_used_models(folder, work.image, models)
    logger.info("The models used are in %s", folder)
    return folder
