"""Make the models of an image: flat-field and camera offset of each channel and side."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.core.flatfield.emptiness import refuse_darkness, without_margins
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.errors import NoLightError, ProfileError, SamplingError
from fractal_mesospim_shading.flatfield.camera_offset import find_offset, question_offset
from fractal_mesospim_shading.flatfield.estimation import (
    EstimationPlan,
    candidate_planes,
    drawn_planes,
)
from fractal_mesospim_shading.flatfield.models import (
    ChannelModel,
    Dark,
    dark_facts,
    given_facts,
    processor_warning,
    uncorrected_model,
)
from fractal_mesospim_shading.flatfield.sampling import (
    Sample,
    layout_at_level,
    plane_count,
    read_sample,
    time_count,
    z_factor,
)
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import (
    Basic,
    EmptyRegions,
    EstimationOptions,
    MeasuredProfile,
)

logger = logging.getLogger(__name__)

_MOST_STRUCTURE = 0.05
"""Fine structure of a flat-field, as a fraction, that may be a sample's."""

_DARK_STRUCTURE = 0.5
"""Counts of fine structure that a dark frame leaves which was not taken off."""


def estimate_model(
    image: MultitileImage,
    group: ModelGroup,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    workers: int,
) -> ChannelModel:
    """The model of one channel, or of one illumination side of it.

    Args:
        image: to read from.
        group: of the image's model groups.
        plan: from `plan_estimation`.
        options: number of planes, seed, offset, parameters of BaSiC.
        workers: boxes read at a time.

    Raises:
        NoLightError: the channel holds no light, and `skip_empty_channels` is off.
        SamplingError, ProfileError: no model can be made from the planes.
    """
    if isinstance(plan.scenario, MeasuredProfile):
        return _measured(image, group, plan, options, workers=workers)
    try:
        return _estimated(image, group, plan, options, workers=workers)
    except NoLightError as error:
        if isinstance(plan.scenario, EmptyRegions) and _lit(image, group, plan, options, workers):
            raise SamplingError(
                f"{error} Other planes of the channel hold light: choose planes in which the "
                "medium shines, or leave `fov_list` and `z_levels` out and let BaSiC estimate."
            ) from error
        if not options.skip_empty_channels:
            raise
        return uncorrected_model(image.layout.tile_shape, str(error))


def _lit(
    image: MultitileImage,
    group: ModelGroup,
    plan: EstimationPlan,
    options: EstimationOptions,
    workers: int,
) -> bool:
    """Whether any plane of a channel holds light, chosen or not."""
    planes = range(time_count(image) * plane_count(image, plan.level))
    every = replace(plan, candidates=dict.fromkeys((t.number for t in image.layout.tiles), planes))
    sampled = _sampled(image, group, every, options, workers=workers)
    try:
        refuse_darkness(
            sampled.stack, 0.0 if sampled.dark is not None else options.camera_offset or 0
        )
    except NoLightError:
        return False
    return True


def _estimated(
    image: MultitileImage,
    group: ModelGroup,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    workers: int,
) -> ChannelModel:
    """The model of a channel from planes chosen as empty, or from all with BaSiC."""
    sampled = _sampled(image, group, plan, options, workers=workers)
    stack, dark = sampled.stack, sampled.dark
    refuse_darkness(stack, 0.0)
    offset, facts = find_offset(image, group, stack, plan, options, workers=workers)
    if options.zero_is == "auto" and dark is None and options.camera_offset != 0 and offset <= 0:
        stack = _with_zeros(stack)
    dark_counts = 0.0 if dark is not None else offset
    refuse_darkness(stack, dark_counts)
    facts |= {"level": plan.level, "seed": options.seed, "tiles": sorted(set(sampled.tiles))}
    facts["saturated_sampled"] = stack.saturated
    sampled = replace(sampled, stack=stack)

    def doubt(flatfield: NDArray[np.float32] | None) -> str | None:
        return question_offset(
            stack,
            facts,
            flatfield,
            dark=dark,
            full_resolution=plan.level == 0,
            mostly_empty=isinstance(plan.scenario, EmptyRegions),
        )

    try:
        if isinstance(plan.scenario, Basic):
            profile, more = _basic(group, sampled, dark_counts, plan, image)
        else:
            profile, more = _empty(group, sampled, dark_counts, facts)
    except (SamplingError, ProfileError) as error:
        cause = doubt(None)
        if cause is None:
            raise
        raise type(error)(f"{error} Most likely because {cause}") from error
    warning = doubt(profile.flatfield)
    if warning is not None:
        logger.warning("Channel %s: %s", group.label, warning)
    if dark is not None:
        profile = replace(profile, darkfield=plan.dark[group.channel.label])
    return ChannelModel(profile, offset, _as_json({**facts, **more}))


@dataclass(frozen=True)
class _Sampled:
    """The planes of an estimate.

    Attributes:
        stack: in bins, the dark frame taken off where there is one.
        tiles: number of the tile of each.
        dark: the dark frame at the level that was read.
        available: planes that could have been drawn.
    """

    stack: BinnedStack
    tiles: tuple[int, ...]
    dark: Dark
    available: int


def _sampled(
    image: MultitileImage,
    group: ModelGroup,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    workers: int,
) -> _Sampled:
    layout = layout_at_level(image, plan.level)
    candidates = candidate_planes(image, group, plan)
    refs = drawn_planes(image, candidates, plan.level, options.n_zplanes, options.seed)
    dark = _dark_at(plan.dark.get(group.channel.label), layout.tile_shape)
    sample = Sample(group.channel.index, plan.level, refs, layout)
    no_offset = options.zero_is == "auto" and dark is None and options.camera_offset == 0
    no_data = options.zero_is != "data" and not no_offset
    stack = read_sample(image, sample, dark=dark, zero_is_no_data=no_data, workers=workers)
    if no_offset:
        stack = without_margins(stack)
    tiles = tuple(tile for tile, _ in refs)
    return _Sampled(stack, tiles, dark, sum(len(planes) for planes in candidates.values()))


def _as_json(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts that JSON can hold: a number that is not finite becomes None, for unknown."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in facts.items()
    }


def _dark_at(dark: Dark, tile_shape: tuple[int, int]) -> Dark:
    if isinstance(dark, np.ndarray) and dark.shape != tile_shape:
        return resample(dark, tile_shape)
    return dark


def _with_zeros(stack: BinnedStack) -> BinnedStack:
    """The same planes with single zeros counted as values: there is no offset to miss."""
    height, width = stack.tile_shape
    rows = np.diff(np.append(np.arange(0, height, stack.bin_px), height))
    columns = np.diff(np.append(np.arange(0, width, stack.bin_px), width))
    share = stack.count / (rows[:, None] * columns[None, :])
    return replace(stack, mean=(stack.mean * share).astype(np.float32))


def _measured(
    image: MultitileImage,
    group: ModelGroup,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    workers: int,
) -> ChannelModel:
    saved = plan.models[group.label]
    profile, facts = saved.profile, given_facts(saved)
    if profile.darkfield is None and group.channel.label in plan.dark:
        profile = replace(profile, darkfield=plan.dark[group.channel.label])
        facts |= dark_facts(profile.darkfield, "measured dark-field")
    if profile.darkfield is not None:
        frame = isinstance(profile.darkfield, np.ndarray) and bool(np.any(profile.darkfield))
        offset = None if frame else float(np.mean(profile.darkfield))
        warning = processor_warning(group, dark=frame, offset=offset)
        if warning:
            logger.warning("%s", warning)
        return ChannelModel(profile, 0.0, facts)
    offset, more = find_offset(image, group, None, plan, options, workers=workers)
    return ChannelModel(profile, offset, _as_json({**facts, **more}))


def _empty(
    group: ModelGroup, sampled: _Sampled, offset: float, facts: Mapping[str, Any]
) -> tuple[ShadingProfile, dict[str, Any]]:
    from fractal_mesospim_shading.core.flatfield.estimate import estimate_flatfield

    uncertainty = np.hypot(facts.get("offset_uncertainty", 0.0), facts.get("offset_rejected", 0.0))
    estimate = estimate_flatfield(
        sampled.stack, offset, offset_uncertainty=float(uncertainty), tiles=sampled.tiles
    )
    if not estimate.checked:
        logger.warning(
            "Channel %s: the flat-field rests on %d plane%s (tile %s). Sample cannot be told from "
            "shading in fewer than 3: choose more tiles or planes, or look at the flat-field.",
            group.label,
            len(estimate.planes_used),
            "" if len(estimate.planes_used) == 1 else "s",
            ", ".join(str(tile) for tile in sorted(set(sampled.tiles))),
        )
    found = estimate.unshared_structure
    if len({sampled.tiles[k] for k in estimate.planes_used}) == 1:
        # Planes of one tile may show the same sample.
        found = max(found, estimate.fine_structure)
    _warn_of_structure(
        group, found, estimate.brightness, sampled, "Choose more, or other, tiles or planes."
    )
    return estimate.profile, {
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


def _basic(
    group: ModelGroup,
    sampled: _Sampled,
    offset: float,
    plan: EstimationPlan,
    image: MultitileImage,
) -> tuple[ShadingProfile, dict[str, Any]]:
    from fractal_mesospim_shading.core.flatfield.basic import (
        FEW_PLANES,
        LEAST_PLANES,
        BasicParameters,
        basic_planes,
        fit_basic,
        profile_from_basic,
    )
    from fractal_mesospim_shading.core.flatfield.smoothing import fine_structure

    if not isinstance(plan.scenario, Basic):
        raise TypeError("the scenario is not that of BaSiC")
    parameters = BasicParameters(**plan.scenario.params.model_dump())
    number = int(np.isfinite(sampled.stack.mean).any(axis=(1, 2)).sum())
    if number < LEAST_PLANES:
        raise SamplingError(
            f"BaSiC was given {number} plane{'' if number == 1 else 's'} with data; it needs at "
            f"least {LEAST_PLANES}, better 100. {_more_planes(sampled, plan, image)}"
        )
    planes = basic_planes(sampled.stack, offset, parameters)
    fit = fit_basic(planes, parameters)
    profile = profile_from_basic(fit, image.layout.tile_shape, offset)
    if number < FEW_PLANES:
        logger.warning(
            "Channel %s: BaSiC was fitted to %d planes. From fewer than %d it prints the sample "
            "into the flat-field. %s",
            group.label,
            number,
            FEW_PLANES,
            _more_planes(sampled, plan, image),
        )
    else:
        structure = fine_structure(fit.flatfield)
        advice = _more_planes(sampled, plan, image)
        _warn_of_structure(group, structure, float(np.median(planes)), sampled, advice)
    return profile, {"scenario": "BaSiCPy", "planes_used": len(planes), "scale": profile.scale}


def _warn_of_structure(
    group: ModelGroup, structure: float, brightness: float, sampled: _Sampled, advice: str
) -> None:
    """Say where a flat-field may be a picture of the sample."""
    dark_frame = 0.0 if sampled.dark is not None else _DARK_STRUCTURE / brightness
    if structure <= np.hypot(_MOST_STRUCTURE, dark_frame):
        return
    logger.warning(
        "Channel %s: the flat-field has a structure of %.0f %% that is finer than a tenth of the "
        "tile and that no other planes confirm. It may be a picture of the sample. %s",
        group.label,
        100 * structure,
        advice,
    )


def _more_planes(sampled: _Sampled, plan: EstimationPlan, image: MultitileImage) -> str:
    """What gives BaSiC more planes, or another way where there are no more."""
    if len(sampled.tiles) < sampled.available:
        return "Raise `n_zplanes`."
    if z_factor(image, plan.level) > 1:
        return "Set `resolution_level=0`, which has more planes."
    return (
        "There are no more planes: name tiles or planes without sample (`fov_list`, `z_levels`), "
        "or give measured models (`models_folder`)."
    )
