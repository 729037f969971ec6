"""The models of a job: those given are read and checked, the others estimated or recalled."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.flatfield.basic_python import find_basic_python
from fractal_mesospim_shading.core.profile import ShadingProfile, range_warning
from fractal_mesospim_shading.core.threads import freed_memory_kept, in_order
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.watching import remember_reads
from fractal_mesospim_shading.errors import NoLightError, Problems, ProfileError, SamplingError
from fractal_mesospim_shading.flatfield.given_profiles import (
    GivenProfiles,
    notes_on_given,
    read_given_profiles,
)
from fractal_mesospim_shading.flatfield.model_texts import facts_line
from fractal_mesospim_shading.flatfield.modelling import estimate_model
from fractal_mesospim_shading.flatfield.models import (
    ChannelModel,
    Models,
    refuse_duplicate_labels,
    resampling,
)
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice, choose
from fractal_mesospim_shading.images.arrays.file_states import noted_reads
from fractal_mesospim_shading.images.models.files import (
    refuse_shared_folders,
)
from fractal_mesospim_shading.images.models.frames import DarkFrame
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import EstimationOptions
from fractal_mesospim_shading.options.precedence import (
    Basic,
    choose_scenario,
    passed_over,
    refuse_idle_baseline,
)

logger = logging.getLogger(__name__)


def choose_models(
    image: MultitileImage,
    options: EstimationOptions,
    problems: Problems,
    *,
    saves: bool = False,
) -> PlaneChoice | None:
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
    if isinstance(scenario, Basic):
        with problems.collected():
            find_basic_python(scenario.python)
    profiles = {label: model.profile for label, model in given.models.items()}
    with_dark = [label for label, one in profiles.items() if one.darkfield is not None]
    for line in passed_over(options, scenario, with_dark):
        logger.info("%s", line)
    with problems.collected():
        refuse_idle_baseline(options, scenario, [one.baseline for one in profiles.values()])
    return problems.run(lambda: choose(image, options, given.models, given.dark))


def look_at_given(choices: Sequence[PlaneChoice]) -> None:
    """Find out, two at a time, what a job is going to ask of profiles that were given.

    They keep it. Of large tiles it takes long, and can be done while something else is waited for.
    """

    def look(profile: ShadingProfile) -> tuple[object, ...]:
        return profile.digest, profile.ends, profile.typical_range

    profiles = [model.profile for choice in choices for model in choice.models.values()]
    deque(in_order(look, profiles, workers=2), maxlen=0)


def request_details(choices: Sequence[PlaneChoice]) -> dict[str, Any]:
    """What of given models and dark frames decides the bytes of a result, by label."""
    models = {
        choice.prefix + label: model.profile.digest
        for choice in choices
        for label, model in choice.models.items()
    }
    dark = {
        choice.prefix + label: _digest(frame)
        for choice in choices
        for label, frame in choice.dark.items()
    }
    details = {"models": models, "darkfield": dark}
    return {name: digests for name, digests in details.items() if digests}


def _digest(frame: DarkFrame) -> str:
    return hashlib.sha256(np.ascontiguousarray(frame, np.float32).data).hexdigest()[:16]


@freed_memory_kept
def find_models(
    choice: PlaneChoice, *, workers: int, job: Job | None = None, prefix: str = ""
) -> Models:
    """The models of an image: kept by an earlier run of the job, else made now.

    Args:
        choice: from `choose_models`.
        workers: boxes read at a time.
        job: that keeps what was made.
        prefix: tells the images of one job apart.
    """
    models = {}
    dark: list[NoLightError] = []
    groups, tile_shape = choice.image.model_groups, choice.image.layout.tile_shape
    for note in notes_on_given(GivenProfiles(choice.models, choice.dark), tile_shape):
        logger.info("%s", note)
    for index, group in enumerate(groups):
        name, label = f"{prefix}{index}.npz", choice.prefix + group.label
        kept = job.recall(name) if job is not None else None
        if kept is not None:
            model = ChannelModel.from_bytes(kept)
        else:
            try:
                with noted_reads() as notes, _named(label):
                    model = estimate_model(choice, group, workers)
            except NoLightError as error:
                dark.append(error)
                continue
            model = _with_resampling(model, choice, group)
            level = logging.INFO if model.corrects else logging.WARNING
            logger.log(level, "%s", facts_line(label, model))
            if job is not None and not _at_hand(model, choice, group):
                job.remember(name, model.to_bytes())
            if job is not None:
                remember_reads(job, name, notes)
        if "resampled" in model.facts:
            logger.info("Channel %s: resampled: %s", label, model.facts["resampled"])
        strange = range_warning(model.profile)
        if strange is not None:
            logger.warning("Channel %s: the flat-field %s", label, strange)
        models[group.label] = model
    if dark or not any(model.corrects for model in models.values()):
        named = {choice.prefix + label: model for label, model in models.items()}
        raise _no_light(dark, named, len(groups))
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
def _named(label: str) -> Iterator[None]:
    """Let the error of a model name the channel that it is for."""
    try:
        yield
    except (NoLightError, SamplingError, ProfileError) as error:
        start = f"Channel {label}"
        start += " holds no light." if isinstance(error, NoLightError) else ":"
        raise type(error)(f"{start} {error}") from error


def _with_resampling(model: ChannelModel, choice: PlaneChoice, group: ModelGroup) -> ChannelModel:
    """The model with a fact about the profiles given that have to be resampled for it."""
    saved = choice.models.get(group.label)
    profile = saved.profile if saved is not None else None
    own = profile.darkfield if profile is not None else None
    dark = own if own is not None else choice.dark.get(group.channel.label)
    text = resampling(profile, dark, choice.image.layout.tile_shape)
    return model if text is None else replace(model, facts={**model.facts, "resampled": text})


def _at_hand(model: ChannelModel, choice: PlaneChoice, group: ModelGroup) -> bool:
    """Whether a continued run has the model without the pixels of the image.

    The job's request holds the fingerprint of models that were given.
    """
    estimated = (
        model.profile.darkfield is None and model.facts.get("offset_uncertainty") is not None
    )
    return group.label in choice.models and not estimated


def refuse_unclear_labels(image: MultitileImage, *, saves: bool) -> None:
    """Refuse channels whose models could not be told apart.

    Args:
        image: to be corrected.
        saves: whether its models are going to be written to a folder.

    Raises:
        ProfileError: two labels share a folder, or one is the name of another's side.
    """
    labels = [group.label for group in image.model_groups]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ProfileError(
            f"The channel label {repeated[0]!r} is also the name of the model of channel "
            f"{repeated[0].rpartition('/')[0]!r} for that illumination side. Rename the channel in "
            "'omero.channels'."
        )
    if saves:
        refuse_shared_folders(channel.label for channel in image.channels)
