"""The flat-field's part of a job: its checks, its models, its kernel."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.correct import tile_correction
from fractal_mesospim_shading.core.profile import range_warning
from fractal_mesospim_shading.core.zeros import ZeroRule, zero_rule
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.watching import remember_reads
from fractal_mesospim_shading.engine.zero_look import ZeroLook
from fractal_mesospim_shading.errors import (
    ImageFormatError,
    NoLightError,
    Problems,
    ProfileError,
    SamplingError,
)
from fractal_mesospim_shading.flatfield.estimation import EstimationPlan, plan_estimation
from fractal_mesospim_shading.flatfield.given_profiles import (
    GivenProfiles,
    notes_on_given,
    read_given_profiles,
    refuse_unclear_labels,
)
from fractal_mesospim_shading.flatfield.kernel import FlatfieldKernel
from fractal_mesospim_shading.flatfield.modelling import estimate_model
from fractal_mesospim_shading.flatfield.models import (
    ChannelModel,
    facts_line,
    model_digest,
    resampling,
    saved_model,
)
from fractal_mesospim_shading.images.arrays.file_states import noted_reads
from fractal_mesospim_shading.images.models.folder import ModelName, write_models
from fractal_mesospim_shading.images.source import (
    Channel,
    ModelGroup,
    MultitileImage,
)
from fractal_mesospim_shading.options.flatfield import EstimationOptions, choose_scenario
from fractal_mesospim_shading.options.precedence import passed_over, refuse_idle_baseline

logger = logging.getLogger(__name__)

Models = dict[str, ChannelModel]
"""Models by label of their group."""


def plan_models(
    image: MultitileImage,
    options: EstimationOptions,
    problems: Problems,
    *,
    saves: bool = False,
) -> EstimationPlan | None:
    """Check what the models will be made from; wrong things go to the problems.

    Reads model files and dark frames, but no pixel of the image.

    Args:
        image: to be corrected.
        options: of the estimate.
        problems: that take the errors.
        saves: whether the models are written to a folder even without `save_models`.
    """
    with problems.collected():
        refuse_duplicate_labels(image.channels, image.url)
    with problems.collected():
        refuse_unclear_labels(image, saves=saves or options.save_models)
    given = problems.run(lambda: read_given_profiles(image, options)) or GivenProfiles()
    scenario = choose_scenario(options)
    profiles = {label: model.profile for label, model in given.models.items()}
    with_dark = [label for label, found in profiles.items() if found.darkfield is not None]
    for line in passed_over(options, scenario, with_dark):
        logger.info("%s", line)
    with problems.collected():
        refuse_idle_baseline(options, scenario, [found.baseline for found in profiles.values()])
    return problems.run(lambda: plan_estimation(image, options, given.models, given.dark))


def refuse_duplicate_labels(channels: Sequence[Channel], url: str) -> None:
    """Refuse channels that share a label: models are known by it.

    Raises:
        ImageFormatError: a label occurs twice.
    """
    repeated = [label for label, n in Counter(c.label for c in channels).items() if n > 1]
    if repeated:
        listed = ", ".join(
            f"'{label}' ({', '.join(str(c.index) for c in channels if c.label == label)})"
            for label in repeated
        )
        raise ImageFormatError(
            f"Channels of '{url}' share a label: {listed}. Each channel needs a label of its "
            "own, because models are kept under it; rename them in 'omero.channels'."
        )


def request_details(plans: Mapping[str, EstimationPlan]) -> dict[str, Any]:
    """What of given models and dark frames decides the bytes of a result.

    Args:
        plans: by what goes before the labels of their models.
    """
    models = {
        prefix + label: model_digest(model.profile)
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
    workers: int,
    job: Job | None = None,
    prefix: str = "",
) -> Models:
    """The models of an image: kept by an earlier run of the job, else made now.

    Args:
        image: to estimate from.
        plan: from `plan_models`.
        options: of the estimate.
        workers: boxes read at a time.
        job: that keeps what was made.
        prefix: tells the images of one job apart.
    """
    models = {}
    dark: list[NoLightError] = []
    groups = image.model_groups
    tile_shape = image.layout.tile_shape
    for note in notes_on_given(GivenProfiles(plan.models, plan.dark), tile_shape):
        logger.info("%s", note)
    for index, group in enumerate(groups):
        name = f"{prefix}{index}.npz"
        kept = job.recall(name) if job is not None else None
        if kept is not None:
            model = ChannelModel.from_bytes(kept)
        else:
            try:
                with noted_reads() as notes, _named(group):
                    model = estimate_model(image, group, plan, options, workers=workers)
            except NoLightError as error:
                dark.append(error)
                continue
            model = _with_resampling(model, plan, group, tile_shape)
            level = logging.INFO if model.corrects else logging.WARNING
            logger.log(level, "%s", facts_line(group.label, model))
            if job is not None and not _at_hand(model, plan, group):
                job.remember(name, model.to_bytes())
            if job is not None:
                remember_reads(job, name, notes)
        if "resampled" in model.facts:
            logger.info("Channel %s: resampled: %s", group.label, model.facts["resampled"])
        strange = range_warning(model.profile.flatfield)
        if strange is not None:
            logger.warning("Channel %s: the flat-field %s", group.label, strange)
        models[group.label] = model
    if dark or not any(model.corrects for model in models.values()):
        raise _no_light(dark, models, len(groups))
    return models


def _no_light(
    errors: Sequence[NoLightError], models: Mapping[str, ChannelModel], channels: int
) -> NoLightError:
    """The error about channels without light, with what can help."""
    lines = [str(error) for error in errors]
    lines += [facts_line(label, model) for label, model in models.items() if not model.corrects]
    if len(lines) == channels:
        lines.append(
            "There is nothing to estimate from: was the light on? `models_folder` corrects with "
            "measured models."
        )
    else:
        lines.append(
            "Set `skip_empty_channels` to copy what holds no light as it is and to correct the "
            "rest, or give measured models (`models_folder`)."
        )
    return NoLightError("\n".join(lines))


@contextmanager
def _named(group: ModelGroup) -> Iterator[None]:
    """Let the error of a model name the channel that it is for."""
    try:
        yield
    except NoLightError as error:
        raise NoLightError(f"Channel {group.label} holds no light. {error}") from error
    except SamplingError as error:
        raise SamplingError(f"Channel {group.label}: {error}") from error
    except ProfileError as error:
        raise ProfileError(f"Channel {group.label}: {error}") from error


def _with_resampling(
    model: ChannelModel, plan: EstimationPlan, group: ModelGroup, tile_shape: tuple[int, int]
) -> ChannelModel:
    """The model with a fact about the profiles given that have to be resampled for it."""
    saved = plan.models.get(group.label)
    profile = saved.profile if saved is not None else None
    own = profile.darkfield if profile is not None else None
    dark = own if own is not None else plan.dark.get(group.channel.label)
    done = resampling(profile, dark, tile_shape)
    return model if done is None else replace(model, facts={**model.facts, "resampled": done})


def _at_hand(model: ChannelModel, plan: EstimationPlan, group: ModelGroup) -> bool:
    """Whether a continued run has the model without the pixels of the image.

    The job's request holds the fingerprint of models that were given.
    """
    estimated = (
        model.profile.darkfield is None and model.facts.get("offset_uncertainty") is not None
    )
    return group.label in plan.models and not estimated


def flatfield_kernel(
    image: MultitileImage,
    models: Mapping[str, ChannelModel],
    options: EstimationOptions,
) -> FlatfieldKernel:
    """Fold the models into what is done to each pixel."""
    corrections = {
        label: tile_correction(
            model.profile,
            image.layout.tile_shape,
            offset=model.offset,
            subtract_baseline=options.subtract_baseline,
            output_offset=options.output_offset if model.corrects else 0.0,
        )
        for label, model in models.items()
    }
    subtracts: dict[int, bool] = {}
    for group in image.model_groups:
        channel = group.channel.index
        # No camera gives 0 before its offset is gone; after that a raw 0 may be a measurement.
        subtracts[channel] = subtracts.get(channel, False) or models[group.label].subtracts
    rules: list[ZeroRule] = [
        "no_data"
        if options.zero_is == "auto" and subtracts[channel]
        else zero_rule(options.zero_is)
        for channel in range(len(image.channels))
    ]
    look = ZeroLook(image.axes, (image.layout,), tuple(rules))
    return FlatfieldKernel(image.axes, image.layout, corrections, profile_names(image), look)


def profile_names(image: MultitileImage) -> dict[tuple[int, int | None], str]:
    """The label of the model of each channel and tile; tile number None stands for all tiles."""
    names: dict[tuple[int, int | None], str] = {}
    for group in image.model_groups:
        channel = group.channel.index
        names[channel, None] = group.label
        names.update({(channel, tile): group.label for tile in group.planes})
    return names


def save_used_models(folder: str, image: MultitileImage, models: Models) -> None:
    """Write models so that `models_folder` reads them and they give the same result."""
    tile_shape = image.layout.tile_shape
    names = model_names(image)
    write_models(
        folder,
        {
            names[label]: saved_model(model, tile_shape)
            for label, model in models.items()
            if model.corrects
        },
    )


def model_names(image: MultitileImage) -> dict[str, ModelName]:
    """What each model is kept as, by the label of its group."""
    return {
        group.label: ModelName(group.channel.label, group.own_side) for group in image.model_groups
    }
