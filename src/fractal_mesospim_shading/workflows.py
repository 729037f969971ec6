"""The story of one image, told once: open, plan, profiles, blocks, finish."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from fractal_mesospim_shading.compute import resources, run_blocks, run_guarded
from fractal_mesospim_shading.core.correct import PixelCounts, linear_correction
from fractal_mesospim_shading.core.histogram import Histogram
from fractal_mesospim_shading.estimation import (
    ChannelModel,
    EstimationPlan,
    estimate_channel,
    facts_line,
    model_digest,
    parameters_of,
    plan_estimation,
)
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.carrying import copy_tables_and_labels
from fractal_mesospim_shading.images.metadata import refuse_duplicate_labels
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import split_name, with_windows
from fractal_mesospim_shading.images.profiles import (
    load_darkfield,
    load_models,
    save_models,
)
from fractal_mesospim_shading.images.stores import normalise_url
from fractal_mesospim_shading.images.target import write_attributes
from fractal_mesospim_shading.job import Job, restore_replaced
from fractal_mesospim_shading.params import FlatfieldOptions
from fractal_mesospim_shading.plan import BLOCK_BYTES, CorrectionPlan, FlatfieldKernel
from fractal_mesospim_shading.preparation import (
    OutputPlan,
    Problems,
    make_request,
    marked,
    open_source,
    options_of,
    plan_output,
    refuse_full_disk,
)
from fractal_mesospim_shading.progress import Progress

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
        report: address of the report, if one was written.
    """

    image_url: str
    source_url: str
    models: dict[str, ChannelModel] = field(repr=False)
    counts: dict[str, PixelCounts] = field(repr=False)
    models_folder: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class FlatfieldJob:
    """A flat-field correction, checked, with no pixel read yet."""

    image: MosaicImage
    options: FlatfieldOptions
    output: OutputPlan
    estimation: EstimationPlan

    @property
    def plan(self) -> CorrectionPlan:
        """The plan, without its profiles."""
        wish = max(1, BLOCK_BYTES // self.image.dtype.itemsize)
        return CorrectionPlan(self.image, (self.output.target,), self.output.final_url, wish=wish)

    def request(self) -> dict[str, Any]:
        """What a continued run must match."""
        estimation = self.estimation
        details: dict[str, Any] = {"parameters": parameters_of(self.options)}
        if estimation.models:
            details["models"] = {k: model_digest(v) for k, v in estimation.models.items()}
        if estimation.dark:
            details["darkfield"] = {
                label: _digest_of(dark) for label, dark in estimation.dark.items()
            }
        return make_request("correct_flatfield", self.image, self.output, details)


def correct_flatfield(zarr_url: str, options: FlatfieldOptions) -> CorrectionResult:
    """Correct the shading of one image.

    Args:
        zarr_url: of the image.
        options: everything else.

    Raises:
        ShadingError: one readable error; the source is as it was, and so is any earlier
            result. What was finished is continued by the same call.
    """
    started = time.monotonic()
    restore_replaced(normalise_url(zarr_url))
    image = open_source(zarr_url, options)
    for note in image.notes:
        logger.info("%s", note)
    work = prepare_flatfield(image, options)
    with (
        run_guarded(),
        Job(work.output.final_url, work.request(), options_of(options)).start(
            restart=options.restart
        ) as job,
    ):
        if job.continued:
            logger.info("An unfinished run is continued: %d blocks are there.", len(job.done))
        # Also of a continued run: the earlier one may have been killed while it did this.
        work.output.target.create(marked(work.output.attributes, {}, complete=False))
        models = _models(work, job)
        plan = replace(work.plan, kernel=_kernel(work, models))
        run(plan, options, job)
        counts, histograms = _totals(image, job.records)
        attributes = _final_attributes(work, models, counts, histograms)
        _carry(work)
        write_attributes(
            work.output.target.url,
            work.output.target.zarr_format,
            attributes,
            options_of(options),
        )
        folder = _save_models(work, models)
        url = job.finish(
            replace=image.url if options.overwrite_input else None, overwrite=options.overwrite
        )
    result = CorrectionResult(url, image.url, models, counts, folder)
    logger.info("Done in %.0f s: %s", time.monotonic() - started, url)
    return result


def image_list_update(result: CorrectionResult) -> dict[str, Any]:
    """The entry of a corrected image for Fractal's image list."""
    if result.image_url == result.source_url:
        return {"zarr_url": result.image_url, "types": {"flatfield_corrected": True}}
    return {
        "zarr_url": result.image_url,
        "origin": result.source_url,
        "types": {"flatfield_corrected": True},
    }


def prepare_flatfield(image: MosaicImage, options: FlatfieldOptions) -> FlatfieldJob:
    """Check everything that can be checked without reading a pixel.

    Raises:
        ShadingError: one error with all problems.
    """
    problems = Problems()
    labels = [channel.label for channel in image.channels]
    with problems.collected():
        refuse_duplicate_labels(image.channels, image.url)
    output = problems.run(
        lambda: plan_output(
            image,
            options,
            name=options.output_image_name,
            overwrite_input=options.overwrite_input,
        )
    )
    models = problems.run(
        lambda: load_models(options.models_folder, labels) if options.models_folder else {}
    )
    dark = problems.run(
        lambda: load_darkfield(options.darkfield_file, labels) if options.darkfield_file else {}
    )
    estimation = problems.run(lambda: plan_estimation(image, options, models or {}, dark or {}))
    if output is not None:
        planned = output
        with problems.collected():
            refuse_full_disk(image, planned)
        with problems.collected():
            wish = max(1, BLOCK_BYTES // image.dtype.itemsize)
            resources(CorrectionPlan(image, (planned.target,), planned.final_url, wish=wish), options)
    problems.raise_all()
    if output is None or estimation is None:
        raise RuntimeError("a failed check left no error")
    return FlatfieldJob(image, options, output, estimation)


def estimate_models(zarr_url: str, folder: str, options: FlatfieldOptions) -> dict[str, ChannelModel]:
    """Estimate and save the models of an image without correcting it.

    Args:
        zarr_url: of the image.
        folder: for the models; `models_folder` of a later correction.
        options: of the estimate.
    """
    image = open_source(zarr_url, options)
    problems = Problems()
    labels = [channel.label for channel in image.channels]
    with problems.collected():
        refuse_duplicate_labels(image.channels, image.url)
    dark = problems.run(
        lambda: load_darkfield(options.darkfield_file, labels) if options.darkfield_file else {}
    )
    models = problems.run(
        lambda: load_models(options.models_folder, labels) if options.models_folder else {}
    )
    plan = problems.run(lambda: plan_estimation(image, options, models or {}, dark or {}))
    problems.raise_all()
    if plan is None:
        raise RuntimeError("a failed check left no error")
    estimated = _estimate_all(image, plan, options, zero_fill=_zero_fill(image))
    save_models(folder, {label: _with_offset(model) for label, model in estimated.items()})
    return estimated


def run(plan: CorrectionPlan, options: Any, job: Job) -> None:
    """Process the blocks that the job does not have yet, and show how far it is."""
    total = plan.grid.total
    with Progress(total, done=len(job.done)) as progress:

        def record(entry: dict[str, Any]) -> None:
            job.record(entry)
            progress.advance()

        run_blocks(plan, options, job.done, record)
    if len(job.done) != total:
        raise RuntimeError(f"{len(job.done)} of {total} blocks were written; please report this")


def _models(work: FlatfieldJob, job: Job) -> dict[str, ChannelModel]:
    """Models kept by an earlier run, else estimated now."""
    models: dict[str, ChannelModel] = {}
    missing = []
    for channel in work.image.channels:
        kept = job.recall(f"{channel.index}.npz")
        if kept is None:
            missing.append(channel)
        else:
            models[channel.label] = ChannelModel.from_bytes(kept)
    zero_fill = work.output.zero_fill
    made = _estimate_all(work.image, work.estimation, work.options, zero_fill=zero_fill, only=missing)
    for channel in missing:
        job.remember(f"{channel.index}.npz", made[channel.label].to_bytes())
    return {
        channel.label: models.get(channel.label) or made[channel.label]
        for channel in work.image.channels
    }


def _estimate_all(
    image: MosaicImage,
    plan: EstimationPlan,
    options: FlatfieldOptions,
    *,
    zero_fill: bool,
    only: Iterable[Any] | None = None,
) -> dict[str, ChannelModel]:
    from fractal_mesospim_shading.compute import estimate_workers

    workers = estimate_workers(image, plan.level, options)
    models = {}
    for channel in image.channels if only is None else only:
        model = estimate_channel(image, channel, plan, options, zero_fill=zero_fill, workers=workers)
        logger.info("%s", facts_line(channel.label, model))
        models[channel.label] = model
    return models


def _kernel(work: FlatfieldJob, models: dict[str, ChannelModel]) -> FlatfieldKernel:
    image, options = work.image, work.options
    corrections = {
        label: linear_correction(
            model.profile,
            image.layout.tile_shape,
            offset=model.offset,
            subtract_baseline=options.subtract_baseline,
            output_offset=options.output_offset,
        )
        for label, model in models.items()
    }
    no_data = {
        channel.index: work.output.zero_fill and _subtracts(models[channel.label])
        for channel in image.channels
    }
    names: dict[tuple[int, int | None], str] = {
        (channel.index, None): channel.label for channel in image.channels
    }
    return FlatfieldKernel(image.axes, image.layout, corrections, names, no_data)


def _subtracts(model: ChannelModel) -> bool:
    """Whether an offset above 0 is taken off: only then is a raw 0 no measurement."""
    dark = model.profile.darkfield
    return bool(model.offset > 0 if dark is None else np.mean(dark) > 0)


def _zero_fill(image: MosaicImage) -> bool:
    from fractal_mesospim_shading.images.documents import document_of, fill_value

    return fill_value(document_of(image.array(0))) == 0


def _totals(
    image: MosaicImage, records: Iterable[dict[str, Any]]
) -> tuple[dict[str, PixelCounts], dict[str, Histogram]]:
    """Sums over the journal, by channel label."""
    counts = {channel.label: PixelCounts() for channel in image.channels}
    histograms = {channel.label: Histogram() for channel in image.channels}
    labels = {str(channel.index): channel.label for channel in image.channels}
    for record in records:
        for index, entry in record.get("channels", {}).items():
            label = labels[index]
            counts[label] = counts[label] + PixelCounts(*entry["counts"])
            histograms[label] = histograms[label] + Histogram.from_text(entry["histogram"])
    return counts, histograms


def _final_attributes(
    work: FlatfieldJob,
    models: dict[str, ChannelModel],
    counts: dict[str, PixelCounts],
    histograms: dict[str, Histogram],
) -> dict[str, Any]:
    """Attributes with contrast windows, provenance and the completion mark."""
    image = work.image
    labels = [channel.label for channel in image.channels]
    windows = [window(histograms[label], work.output.target.levels[0].dtype) for label in labels]
    attributes = with_windows(work.output.attributes, windows, labels)
    channels = {
        label: {
            **models[label].facts,
            "profile": model_digest(models[label].profile),
            "pixels": vars(counts[label]),
        }
        for label in labels
    }
    provenance = {
        "task": "correct_flatfield",
        "package": "fractal-mesospim-shading",
        "version": version("fractal-mesospim-shading"),
        "parameters": parameters_of(work.options),
        "channels": channels,
    }
    return marked(attributes, provenance, complete=True)


def window(histogram: Histogram, dtype: np.dtype[Any]) -> dict[str, float]:
    """Contrast window of a channel: 0.1 to 99.9 % of its pixels, within the range of its type."""
    low, high = histogram.quantile(0.001), histogram.quantile(0.999)
    if not histogram.total:
        low, high = 0.0, 1.0
    if np.issubdtype(dtype, np.integer):
        bounds = (0.0, float(np.iinfo(dtype).max))
    else:
        bounds = (min(low, histogram.quantile(0.0)), max(high, histogram.quantile(1.0)))
        bounds = bounds if histogram.total else (0.0, 1.0)
    return {"min": bounds[0], "max": bounds[1], "start": low, "end": max(high, low + 1e-6)}


def _carry(work: FlatfieldJob) -> None:
    options = options_of(work.options)
    copy_tables_and_labels(work.image.url, work.output.target.url, options, options)


def _save_models(work: FlatfieldJob, models: dict[str, ChannelModel]) -> str | None:
    """Save the models used beside the result, readable again as models_folder."""
    if not work.options.save_models:
        return None
    parent, _ = places.parent_and_name(work.output.final_url)
    _, name = places.parent_and_name(work.image.url)
    folder = places.join(parent, f"{split_name(name)[0]}_shading_models")
    save_models(folder, {label: _with_offset(model) for label, model in models.items()})
    logger.info("The models used are in %s", folder)
    return folder


def _with_offset(model: ChannelModel) -> Any:
    """The profile with the offset used as its dark-field, so that it gives the same result."""
    if model.profile.darkfield is not None:
        return model.profile
    return replace(model.profile, darkfield=model.offset)


def _digest_of(dark: Any) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(dark, dtype=np.float32).tobytes()).hexdigest()[:16]
