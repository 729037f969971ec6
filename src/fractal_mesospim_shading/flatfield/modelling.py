"""Make the models of an image: flat-field and camera offset of each channel and side."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fractal_mesospim_shading.core.flatfield.emptiness import refuse_darkness
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.together import both
from fractal_mesospim_shading.engine.progress import Progress
from fractal_mesospim_shading.errors import NoLightError, ProfileError, SamplingError
from fractal_mesospim_shading.flatfield.camera_offset import find_offset
from fractal_mesospim_shading.flatfield.estimate_planes import (
    SampledPlanes,
    sampled_planes,
    with_zeros,
)
from fractal_mesospim_shading.flatfield.model_texts import processor_warning
from fractal_mesospim_shading.flatfield.models import (
    ChannelModel,
    dark_facts,
    tiles_told,
    uncorrected_model,
)
from fractal_mesospim_shading.flatfield.offset_doubts import question_offset
from fractal_mesospim_shading.flatfield.sampling import (
    PlaneChoice,
    plane_count,
    time_count,
    z_factor,
)
from fractal_mesospim_shading.flatfield.saving import given_facts
from fractal_mesospim_shading.flatfield.thumbnails import planes_seen
from fractal_mesospim_shading.images.source import ModelGroup
from fractal_mesospim_shading.messages import counted
from fractal_mesospim_shading.options.precedence import Basic, MeasuredProfile

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.flatfield.estimate import EmptyEstimate
    from fractal_mesospim_shading.flatfield.empty_planes import EmptyPlanes

logger = logging.getLogger(__name__)

_MOST_STRUCTURE = 0.05
"""Fine structure of a flat-field, as a fraction, that may be a sample's."""


def estimate_model(choice: PlaneChoice, group: ModelGroup, workers: int) -> ChannelModel:
    """The model of one channel, or of one illumination side of it.

    Args:
        choice: of planes.
        group: of the image's model groups.
        workers: boxes read at a time.

    Raises:
        NoLightError: the channel holds no light, and `skip_empty_channels` is off.
        SamplingError, ProfileError: no model can be made from the planes.
    """
    if isinstance(choice.scenario, MeasuredProfile):
        return _measured(choice, group, workers)
    looked: EmptyPlanes | None = None
    if choice.automatic:
        from fractal_mesospim_shading.flatfield.empty_choice import resolved

        choice, looked = resolved(choice, group, workers)
    try:
        return _estimated(choice, group, workers, looked)
    except NoLightError as error:
        if choice.mostly_empty and _lit(choice, group, workers):
            raise SamplingError(
                f"{error} Other planes of the channel hold light: choose planes in which the "
                "medium shines, or leave `fov_list` and `z_levels` out and let BaSiC estimate."
            ) from error
        if not choice.options.skip_empty_channels:
            raise
        return uncorrected_model(choice.image.layout.tile_shape, str(error))


def _lit(choice: PlaneChoice, group: ModelGroup, workers: int) -> bool:
    """Whether any plane of a channel holds light, chosen or not."""
    image = choice.image
    planes = range(time_count(image) * plane_count(image, choice.level))
    every = dict.fromkeys((tile.number for tile in image.layout.tiles), planes)
    sampled = sampled_planes(replace(choice, candidates=every), group, workers)
    offset = 0.0 if sampled.dark is not None else choice.options.camera_offset or 0
    try:
        refuse_darkness(sampled.stack, offset)
    except NoLightError:
        return False
    return True


def _estimated(
    choice: PlaneChoice, group: ModelGroup, workers: int, looked: EmptyPlanes | None
) -> ChannelModel:
    """The model of a channel from planes chosen as empty, or from all with BaSiC.

    Args:
        choice: of planes.
        group: of the image's model groups.
        workers: boxes read at a time.
        looked: at for that choice.
    """
    options = choice.options
    sampled = sampled_planes(choice, group, workers)
    stack, dark = sampled.stack, sampled.dark
    refuse_darkness(stack, 0.0)
    offset, facts = find_offset(choice, group, stack, workers)
    if options.zero_is == "auto" and dark is None and options.camera_offset != 0 and offset <= 0:
        stack = with_zeros(stack)
    dark_counts = 0.0 if dark is not None else offset
    refuse_darkness(stack, dark_counts)
    facts |= {
        "light_path": group.light_path.facts(),
        "level": choice.level,
        "seed": options.seed,
        **tiles_told(choice.image, set(sampled.tiles)),
    }
    facts["saturated_sampled"] = stack.saturated
    sampled = replace(sampled, stack=stack)
    try:
        if isinstance(choice.scenario, Basic):
            profile, more, out = _basic(choice, choice.scenario, group, sampled, dark_counts, facts)
        else:
            profile, more, out = _empty(choice, group, sampled, dark_counts, facts)
    except (SamplingError, ProfileError) as error:
        cause = question_offset(choice, stack, facts, None, dark)
        if cause is None or cause.text is None:
            raise
        raise type(error)(f"{error} Most likely because {cause.text}") from error
    used = float(more.get("offset", offset))
    if options.overlap_refine:
        from fractal_mesospim_shading.flatfield.refining import light_of_tiles, refined_profile

        views = light_of_tiles(stack, sampled.tiles, 0.0 if dark is not None else used)
        doubt = float({**facts, **more}.get("offset_uncertainty") or 0.0)
        profile, told = refined_profile(profile, views, choice, group, used, doubt)
        more |= told
    question = question_offset(choice, stack, facts, profile.flatfield, dark)
    if question is not None:
        if question.text is not None:
            logger.warning("Channel %s: %s", choice.name_of(group), question.text)
        more |= question.facts
        if question.wrong > 0:
            uncertainty = more.get("relative_uncertainty", 0.0)
            more["relative_uncertainty"] = float(np.hypot(uncertainty, question.wrong))
    if dark is not None:
        profile = replace(profile, darkfield=choice.dark[group.channel.label])
    seen = planes_seen(choice, sampled, out, used, looked)
    return ChannelModel(profile, used, _as_json({**facts, **more}), seen)


def _as_json(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts that JSON can hold: a number that is not finite becomes None, for unknown."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in facts.items()
    }


def _measured(choice: PlaneChoice, group: ModelGroup, workers: int) -> ChannelModel:
    saved = choice.models[group.label]
    profile, facts = saved.profile, given_facts(saved)
    if profile.darkfield is None and group.channel.label in choice.dark:
        profile = replace(profile, darkfield=choice.dark[group.channel.label])
        facts |= dark_facts(profile.darkfield, "measured dark-field")
    if profile.darkfield is not None:
        dark = profile.darkfield
        # By rows: mostly the first one tells.
        frame = isinstance(dark, np.ndarray) and any(bool(row.any()) for row in dark)
        offset = None if frame else float(np.mean(dark))
        warning = processor_warning(group, dark=frame, offset=offset)
        if warning:
            logger.warning("Channel %s: %s", choice.name_of(group), warning)
        return ChannelModel(profile, 0.0, facts)
    offset, more = find_offset(choice, group, None, workers)
    return ChannelModel(profile, offset, _as_json({**facts, **more}))


def _empty(
    choice: PlaneChoice,
    group: ModelGroup,
    sampled: SampledPlanes,
    offset: float,
    facts: Mapping[str, Any],
) -> tuple[ShadingProfile, dict[str, Any], dict[int, str]]:
    """The flat-field, its facts, and indices of the planes left out, with why."""
    from fractal_mesospim_shading.core.flatfield.estimate import estimate_flatfield
    from fractal_mesospim_shading.flatfield.empty_choice import different_planes, tell_mistaken

    name = choice.name_of(group)
    uncertainty = np.hypot(facts.get("offset_uncertainty", 0.0), facts.get("offset_rejected", 0.0))

    def estimated() -> EmptyEstimate:
        doubt = float(uncertainty)
        return estimate_flatfield(
            sampled.stack, offset, offset_uncertainty=doubt, tiles=sampled.tiles
        )

    if choice.options.fov_list or choice.options.z_levels:
        estimate, wrong = both(estimated, lambda: different_planes(choice, sampled))
        wrong[list(estimate.planes_rejected)] = True
        tell_mistaken(choice, group, sampled, wrong)
    else:
        estimate = estimated()
    if not estimate.checked:
        logger.warning(
            "Channel %s: the flat-field rests on %d plane%s (tile %s). Sample cannot be told from "
            "shading in fewer than 3: choose more tiles or planes, or look at the flat-field.",
            name,
            len(estimate.planes_used),
            "" if len(estimate.planes_used) == 1 else "s",
            ", ".join(str(tile) for tile in sorted(set(sampled.tiles))),
        )
    structure = estimate.unshared_structure
    if len({sampled.tiles[k] for k in estimate.planes_used}) == 1:
        # Planes of one tile may show the same sample.
        structure = max(structure, estimate.fine_structure)
    _warn_of_structure(
        name, structure, estimate.brightness, sampled, "Choose more, or other, tiles or planes."
    )
    told = {
        "scenario": "empty regions",
        "planes_used": len(estimate.planes_used),
        "planes_rejected": len(estimate.planes_rejected),
        "planes_partly_used": len(estimate.planes_partly_used),
        "brightness": float(estimate.brightness),
        "masked_fraction": float(estimate.masked_fraction),
        "relative_noise": float(estimate.relative_noise),
        "relative_uncertainty": float(estimate.relative_uncertainty),
        "scale": estimate.profile.scale,
    }
    return estimate.profile, told, estimate.planes_rejected


def _basic(
    choice: PlaneChoice,
    scenario: Basic,
    group: ModelGroup,
    sampled: SampledPlanes,
    offset: float,
    facts: Mapping[str, Any],
) -> tuple[ShadingProfile, dict[str, Any], dict[int, str]]:
    """The flat-field, its facts, and indices of the planes left out, with why."""
    from fractal_mesospim_shading.core.flatfield.basic import (
        FEW_PLANES,
        LEAST_PLANES,
        fit_in_turn,
        profile_from_basic,
    )
    from fractal_mesospim_shading.core.flatfield.basic_python import find_basic_python
    from fractal_mesospim_shading.core.flatfield.smoothing import fine_structure

    without = np.flatnonzero(~np.isfinite(sampled.stack.mean).any(axis=(1, 2)))
    number = len(sampled.refs) - len(without)
    advice = _more_planes(sampled, choice)
    if number < LEAST_PLANES:
        raise SamplingError(
            f"BaSiC was given {number} plane{'' if number == 1 else 's'} with data; it needs at "
            f"least {LEAST_PLANES}, better 100. {advice}"
        )
    uncertainty = float(facts.get("offset_uncertainty", 0.0))
    settings, python = scenario.params.model_dump(), find_basic_python(scenario.python)
    logger.info("Channel %s: BaSiC is fitted to %s", group.label, counted(number, "plane"))
    with Progress(1, doing="Fitting BaSiC", unit="model") as progress:
        fit, planes, used, changed = fit_in_turn(
            sampled.stack, offset, uncertainty, settings, python
        )
        progress.advance()
    profile = profile_from_basic(fit, choice.image.layout.tile_shape, used)
    brightness = float(np.median(planes))
    if changed is not None:
        logger.warning(
            "Channel %s: BaSiC was %s. Look at the flat-field, or give `camera_offset`.",
            choice.name_of(group),
            changed,
        )
    if number < FEW_PLANES:
        logger.warning(
            "Channel %s: BaSiC was fitted to %d planes. From fewer than %d it prints the sample "
            "into the flat-field. %s",
            choice.name_of(group),
            number,
            FEW_PLANES,
            advice,
        )
    else:
        structure = fine_structure(fit.flatfield)
        _warn_of_structure(choice.name_of(group), structure, brightness, sampled, advice)
    more = {"scenario": "BaSiCPy", "planes_used": len(planes), "scale": profile.scale}
    if used != offset:
        more["offset"] = used
    if uncertainty:
        # BaSiC tells no error of its own.
        spread = float(np.std(profile.flatfield))
        more["relative_uncertainty_of_offset"] = spread * uncertainty / brightness
    return profile, more, {int(k): "holds no data" for k in without}


def _warn_of_structure(
    name: str, structure: float, brightness: float, sampled: SampledPlanes, advice: str
) -> None:
    """Say where a flat-field may be a picture of the sample."""
    from fractal_mesospim_shading.core.flatfield.estimate import dark_structure

    dark_frame = 0.0 if sampled.dark is not None else dark_structure(sampled.stack) / brightness
    if structure <= np.hypot(_MOST_STRUCTURE, dark_frame):
        return
    logger.warning(
        "Channel %s: the flat-field has a structure of %.0f %% that is finer than a tenth of the "
        "tile and that no other planes confirm. It may be a picture of the sample. %s",
        name,
        100 * structure,
        advice,
    )


def _more_planes(sampled: SampledPlanes, choice: PlaneChoice) -> str:
    """What gives BaSiC more planes, or another way where there are no more."""
    if len(sampled.tiles) < sampled.available:
        return "Raise `n_zplanes`."
    if z_factor(choice.image, choice.level) > 1:
        return "Set `resolution_level=0`, which has more planes."
    return (
        "There are no more planes: name tiles or planes without sample (`fov_list`, `z_levels`), "
        "or give measured models (`models_folder`)."
    )
