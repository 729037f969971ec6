"""The models of a job: those given are read and checked, the others estimated or recalled."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import (
    range_warning,
    shape_problem,
    shape_text,
    turn_is_unseen,
)
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.watching import remember_reads
from fractal_mesospim_shading.errors import NoLightError, Problems, ProfileError, SamplingError
from fractal_mesospim_shading.flatfield.modelling import estimate_model
from fractal_mesospim_shading.flatfield.models import (
    ChannelModel,
    Models,
    facts_line,
    profile_digest,
    refuse_duplicate_labels,
    resampling,
)
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice, choose
from fractal_mesospim_shading.images.arrays.file_states import noted_reads
from fractal_mesospim_shading.images.models.dark_frames import DarkFrame, load_darkfield
from fractal_mesospim_shading.images.models.files import (
    local_file,
    refuse_one_folder_for_two,
    refuse_shared_folders,
)
from fractal_mesospim_shading.images.models.folder import SavedModel, load_models
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import EstimationOptions
from fractal_mesospim_shading.options.precedence import (
    choose_scenario,
    passed_over,
    refuse_idle_baseline,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GivenProfiles:
    """What a person gives for the correction of an image.

    Attributes:
        models: by label of the model group.
        dark: dark frames by channel label; only of channels that have a use for one.
    """

    models: Mapping[str, SavedModel] = field(default_factory=dict)
    dark: Mapping[str, DarkFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class _GivenArray:
    """One flat-field or dark-field, under the name that a message calls it by."""

    name: str
    label: str
    values: NDArray[np.float32]
    orientation_known: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]


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
    profiles = {label: model.profile for label, model in given.models.items()}
    with_dark = [label for label, one in profiles.items() if one.darkfield is not None]
    for line in passed_over(options, scenario, with_dark):
        logger.info("%s", line)
    with problems.collected():
        refuse_idle_baseline(options, scenario, [one.baseline for one in profiles.values()])
    return problems.run(lambda: choose(image, options, given.models, given.dark))


def request_details(choices: Sequence[PlaneChoice]) -> dict[str, Any]:
    """What of given models and dark frames decides the bytes of a result, by label."""
    models = {
        choice.prefix + label: profile_digest(model.profile)
        for choice in choices
        for label, model in choice.models.items()
    }
    dark = {
        choice.prefix + label: hashlib.sha256(
            np.ascontiguousarray(frame, np.float32).tobytes()
        ).hexdigest()[:16]
        for choice in choices
        for label, frame in choice.dark.items()
    }
    details = {"models": models, "darkfield": dark}
    return {name: digests for name, digests in details.items() if digests}


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
        name = f"{prefix}{index}.npz"
        kept = job.recall(name) if job is not None else None
        if kept is not None:
            model = ChannelModel.from_bytes(kept)
        else:
            try:
                with noted_reads() as notes, _named(group):
                    model = estimate_model(choice, group, workers)
            except NoLightError as error:
                dark.append(error)
                continue
            model = _with_resampling(model, choice, group)
            level = logging.INFO if model.corrects else logging.WARNING
            logger.log(level, "%s", facts_line(group.label, model))
            if job is not None and not _at_hand(model, choice, group):
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
    except (NoLightError, SamplingError, ProfileError) as error:
        start = f"Channel {group.label}"
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


def read_given_profiles(image: MultitileImage, options: EstimationOptions) -> GivenProfiles:
    """Read models_folder and darkfield_file.

    A dark frame is left unread where every model has a dark-field of its own, which goes
    before it.

    Raises:
        ProfileError: files that are missing or unusable, labels that share a folder, profiles
            of another shape than a tile's.
    """
    models = _read_models(image, options)
    without = [
        group.channel.label
        for group in image.model_groups
        if group.label not in models or models[group.label].profile.darkfield is None
    ]
    dark: Mapping[str, DarkFrame] = {}
    if options.darkfield_file and without:
        labels = tuple(dict.fromkeys(without))
        dark = load_darkfield(options.darkfield_file, labels, image.layout.tile_shape)
    given = GivenProfiles(models, dark)
    if options.profile_shape == "keep_aspect":
        _refuse_other_shapes(given, image.layout.tile_shape)
    return given


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


def notes_on_given(given: GivenProfiles, tile_shape: tuple[int, int]) -> tuple[str, ...]:
    """What a person should know of the profiles given: that a turn could not be seen."""
    names = {
        array.name
        for array in _arrays(given)
        if not array.orientation_known
        and turn_is_unseen(array.shape, tile_shape)
        and array.values.min() < array.values.max()
    }
    if not names:
        return ()
    return (
        f"Tiles are {shape_text(tile_shape)} pixels (y, x): whether {' and '.join(sorted(names))} "
        "are turned by 90 degrees cannot be seen from their shape. A frame saved by the camera "
        "maker's software needs np.rot90(frame), one saved by mesoSPIM-control does not.",
    )


def _read_models(image: MultitileImage, options: EstimationOptions) -> dict[str, SavedModel]:
    if not options.models_folder:
        return {}
    folder = local_file(options.models_folder, "models_folder")
    if image.suffix:
        # Of a container with several mosaics, each may have models of its own.
        own = folder / image.suffix
        folder = own if own.is_dir() else folder
    if folder.is_dir():
        refuse_one_folder_for_two(folder, [channel.label for channel in image.channels])
    by_side: dict[str | None, list[ModelGroup]] = {}
    for group in image.model_groups:
        by_side.setdefault(group.side, []).append(group)
    models = {}
    for side, groups in by_side.items():
        loaded = load_models(folder, [g.channel.label for g in groups], side)
        models.update({group.label: loaded[group.channel.label] for group in groups})
    return models


def _refuse_other_shapes(given: GivenProfiles, tile_shape: tuple[int, int]) -> None:
    labels: dict[tuple[str, str], list[str]] = {}
    for array in _arrays(given):
        problem = shape_problem(array.shape, tile_shape)
        if problem is not None:
            labels.setdefault((array.name, problem), []).append(f"'{array.label}'")
    lines = [
        f"{name[0].upper()}{name[1:]} of {_channels(same)} is {problem}"
        for (name, problem), same in labels.items()
    ]
    if lines:
        raise ProfileError("\n  ".join(lines))


def _channels(labels: Sequence[str]) -> str:
    return f"channel{'s' if len(labels) > 1 else ''} {', '.join(labels)}"


def _arrays(given: GivenProfiles) -> Iterator[_GivenArray]:
    for label, model in given.models.items():
        known = model.origin is not None
        profile = model.profile
        name = "the flat-field in `models_folder`"
        yield _GivenArray(name, label, profile.flatfield, known)
        if isinstance(profile.darkfield, np.ndarray):
            name = "the dark-field in `models_folder`"
            yield _GivenArray(name, label, profile.darkfield, known)
    for label, dark in given.dark.items():
        if isinstance(dark, np.ndarray):
            yield _GivenArray("the dark frame in `darkfield_file`", label, dark, False)
