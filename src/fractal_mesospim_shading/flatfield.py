"""The flat-field's part of a job: its checks, its models, its kernel."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.correct import tile_correction
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.estimation import EstimationPlan, plan_estimation
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.metadata import refuse_duplicate_labels
from fractal_mesospim_shading.images.native_mosaic import NativeMosaic
from fractal_mesospim_shading.images.profiles import load_darkfield, load_models, save_models
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.job import Job
from fractal_mesospim_shading.modelling import estimate_model
from fractal_mesospim_shading.models import (
    ChannelModel,
    ModelGroup,
    facts_line,
    model_digest,
    model_groups,
)
from fractal_mesospim_shading.params import EstimationOptions
from fractal_mesospim_shading.plan import FlatfieldKernel
from fractal_mesospim_shading.preparation import Problems

logger = logging.getLogger(__name__)

Models = dict[str, ChannelModel]
"""Models by label of their group."""


def plan_models(
    image: MultitileImage, options: EstimationOptions, problems: Problems
) -> EstimationPlan | None:
    """Check what the models will be made from; wrong things go to the problems.

    Reads model files and dark frames, but no pixel of the image.
    """
    labels = [channel.label for channel in image.channels]
    with problems.collected():
        refuse_duplicate_labels(image.channels, image.url)
    models = problems.run(lambda: _measured_models(image, options))
    dark = problems.run(
        lambda: load_darkfield(options.darkfield_file, labels) if options.darkfield_file else {}
    )
    return problems.run(lambda: plan_estimation(image, options, models or {}, dark or {}))


def _measured_models(
    image: MultitileImage, options: EstimationOptions
) -> dict[str, ShadingProfile]:
    if not options.models_folder:
        return {}
    folder = options.models_folder
    if isinstance(image, NativeMosaic) and image.suffix:
        # Of a container with several mosaics, each may have models of its own.
        own = places.join(folder, image.suffix)
        folder = own if places.exists(own) else folder
    by_side: dict[Any, list[ModelGroup]] = {}
    for group in model_groups(image):
        by_side.setdefault(group.side, []).append(group)
    models = {}
    for side, groups in by_side.items():
        found = load_models(folder, [g.channel.label for g in groups], side)
        models.update({group.label: found[group.channel.label] for group in groups})
    return models


def request_details(plans: Mapping[str, EstimationPlan]) -> dict[str, Any]:
    """What of given models and dark frames decides the bytes of a result.

    Args:
        plans: by what goes before the labels of their models.
    """
    models = {
        prefix + label: model_digest(model)
        for prefix, plan in plans.items()
        for label, model in plan.models.items()
    }
    dark = {
        prefix + label: hashlib.sha256(np.ascontiguousarray(frame, np.float32).tobytes())
        for prefix, plan in plans.items()
        for label, frame in plan.dark.items()
    }
    details: dict[str, Any] = {}
    if models:
        details["models"] = models
    if dark:
        details["darkfield"] = {label: found.hexdigest()[:16] for label, found in dark.items()}
    return details


def find_models(
    image: MultitileImage,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    zero_fill: bool,
    workers: int,
    job: Job | None = None,
    prefix: str = "",
) -> Models:
    """The models of an image: kept by an earlier run of the job, else made now.

    Args:
        image: to estimate from.
        plan: from `plan_models`.
        options: of the estimate.
        zero_fill: whether chunks that are not there read as 0.
        workers: boxes read at a time.
        job: that keeps what was made.
        prefix: tells the images of one job apart.
    """
    models = {}
    for index, group in enumerate(model_groups(image)):
        name = f"{prefix}{index}.npz"
        kept = job.recall(name) if job is not None else None
        if kept is not None:
            models[group.label] = ChannelModel.from_bytes(kept)
            continue
        model = estimate_model(image, group, plan, options, zero_fill=zero_fill, workers=workers)
        logger.info("%s", facts_line(group.label, model))
        # A measured model is at hand again, and the job's request holds its fingerprint.
        given = group.label in plan.models and model.facts.get("offset_uncertainty") is None
        if job is not None and not given:
            job.remember(name, model.to_bytes())
        models[group.label] = model
    return models


def flatfield_kernel(
    image: MultitileImage,
    models: Mapping[str, ChannelModel],
    options: EstimationOptions,
    *,
    zero_fill: bool,
) -> FlatfieldKernel:
    """Fold the models into what is done to each pixel."""
    corrections = {
        label: tile_correction(
            model.profile,
            image.layout.tile_shape,
            offset=model.offset,
            subtract_baseline=options.subtract_baseline,
            output_offset=options.output_offset,
        )
        for label, model in models.items()
    }
    no_data: dict[int, bool] = {}
    for group in model_groups(image):
        channel = group.channel.index
        # Without an offset taken off, a raw 0 may be a measurement. A native stack has
        # zeros only where nothing was written: no camera gives 0 before its offset is gone.
        subtracts = zero_fill and models[group.label].subtracts
        no_data[channel] = no_data.get(channel, False) or subtracts
    return FlatfieldKernel(image.axes, image.layout, corrections, profile_names(image), no_data)


def profile_names(image: MultitileImage) -> dict[tuple[int, int | None], str]:
    """The label of the model of each channel and tile; tile number None stands for all tiles."""
    names: dict[tuple[int, int | None], str] = {}
    for group in model_groups(image):
        channel = group.channel.index
        names[channel, None] = group.label
        names.update({(channel, tile): group.label for tile in group.planes})
    return names


def save_used_models(folder: str, image: MultitileImage, models: Models) -> None:
    """Write models so that `models_folder` reads them and they give the same result."""
    for group in model_groups(image):
        model = models[group.label]
        profile = model.profile
        if profile.darkfield is None:
            profile = replace(profile, darkfield=model.offset)
        several = isinstance(image, NativeMosaic) and len(image.sides(group.channel.index)) > 1
        side: Any = group.side if several else None
        save_models(folder, {group.channel.label: profile}, side)
