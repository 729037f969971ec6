"""Make the models of an image: flat-field and camera offset of each channel and side."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.binning import BinnedStack, without_margins
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.core.sampling import choose_planes
from fractal_mesospim_shading.estimation import EstimationPlan, candidate_planes
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.models import (
    ChannelModel,
    Dark,
    ModelGroup,
    dark_facts,
    given_facts,
    processor_warning,
)
from fractal_mesospim_shading.params import (
    Basic,
    BasicpyModelParams,
    EmptyRegions,
    EstimationOptions,
    MeasuredProfile,
)
from fractal_mesospim_shading.sampling import (
    PlaneRef,
    Sample,
    layout_at_level,
    plane_count,
    read_sample,
    time_count,
    z_factor,
)

logger = logging.getLogger(__name__)

_OFFSET_PLANES = 48
"""Planes at full resolution from which the offset is estimated where nothing else is read."""

_OFFSET_PIXELS = 2**23
"""Pixels that tell the offset well; more planes are read where those of the estimate hold fewer."""

_WORST_OFFSET = 5.0
_WORST_SHARE = 0.1
"""Counts of uncertainty, and share of the offset, above both of which it is not used."""


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
    """
    if isinstance(plan.scenario, MeasuredProfile):
        return _measured(image, group, plan, options, workers=workers)
    layout = layout_at_level(image, plan.level)
    candidates = candidate_planes(image, group, plan)
    refs = _drawn(image, candidates, plan.level, options.n_zplanes, options.seed)
    dark = _dark_at(plan.dark.get(group.channel.label), layout.tile_shape)
    sample = Sample(group.channel.index, plan.level, refs, layout)
    looked_at = options.zero_is == "auto" and dark is None
    no_offset = looked_at and options.camera_offset == 0
    no_data = options.zero_is != "data" and not no_offset
    stack = read_sample(image, sample, dark=dark, zero_is_no_data=no_data, workers=workers)
    if no_offset:
        stack = without_margins(stack)
    offset, facts = _offset(image, group, stack, plan, options, workers=workers)
    if looked_at and not no_offset and offset <= 0:
        stack = _with_zeros(stack)
    facts |= {"level": plan.level, "seed": options.seed, "tiles": sorted(candidates)}
    facts["saturated_sampled"] = stack.saturated
    dark_counts = 0.0 if dark is not None else offset
    if isinstance(plan.scenario, Basic):
        profile, more = _basic(stack, image.layout.tile_shape, dark_counts, plan.scenario.params)
    else:
        profile, more = _empty(stack, dark_counts, facts.get("offset_uncertainty", 0.0))
    if dark is not None:
        profile = replace(profile, darkfield=plan.dark[group.channel.label])
    return ChannelModel(profile, offset, _as_json({**facts, **more}))


def _as_json(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts that JSON can hold: a number that is not finite becomes None, for unknown."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in facts.items()
    }


def _drawn(
    image: MultitileImage,
    candidates: Mapping[int, Sequence[int]],
    level: int,
    n_planes: int,
    seed: int,
) -> tuple[PlaneRef, ...]:
    depth = image.read_units(level)[image.axes.index("z")] if "z" in image.axes else 1
    return tuple(choose_planes(candidates, n_planes, seed, depth))


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
    offset, more = _offset(image, group, None, plan, options, workers=workers)
    return ChannelModel(profile, offset, _as_json({**facts, **more}))


def _offset(
    image: MultitileImage,
    group: ModelGroup,
    stack: BinnedStack | None,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    workers: int,
) -> tuple[float, dict[str, Any]]:
    """The camera offset in counts: measured, given, or estimated from the noise."""
    measured = group.channel.label in plan.dark
    warning = processor_warning(group, dark=measured, offset=options.camera_offset)
    if warning:
        logger.warning("%s", warning)
    if measured:
        return 0.0, dark_facts(plan.dark[group.channel.label], "measured dark-field")
    if options.camera_offset is not None:
        return options.camera_offset, {"offset": options.camera_offset, "offset_from": "given"}
    if group.offset_gone:
        return 0.0, {"offset": 0.0, "offset_from": "taken away by an image processor"}
    from fractal_mesospim_shading.core.offset import estimate_offset

    no_data = options.zero_is != "data"
    if stack is None or plan.level > 0:
        # The noise of averaged pixels says nothing about the camera.
        candidates = _full_resolution(image, group, plan, like_estimate=stack is not None)
        refs = _drawn(image, candidates, 0, _OFFSET_PLANES, options.seed)
        sample = Sample(group.channel.index, 0, refs, image.layout)
        stack = read_sample(image, sample, dark=None, zero_is_no_data=no_data, workers=workers)
    estimate = estimate_offset(stack, mostly_empty=isinstance(plan.scenario, EmptyRegions))
    candidates = _full_resolution(image, group, plan, like_estimate=False)
    wanted = -(-_OFFSET_PIXELS // prod(stack.tile_shape))
    if len(stack.mean) < min(wanted, sum(len(planes) for planes in candidates.values())):
        refs = _drawn(image, candidates, 0, wanted, options.seed)
        sample = Sample(group.channel.index, 0, refs, image.layout)
        stack = read_sample(image, sample, dark=None, zero_is_no_data=no_data, workers=workers)
        more = estimate_offset(stack, mostly_empty=False)
        estimate = min(estimate, more, key=lambda found: found.uncertainty)
    facts: dict[str, Any] = {
        "offset": estimate.value,
        "offset_uncertainty": estimate.uncertainty,
        "offset_from": f"estimated ({estimate.method})",
    }
    facts |= {
        key: estimate.details[key] for key in ("gain", "read_noise") if key in estimate.details
    }
    if not estimate.uncertainty <= max(_WORST_OFFSET, _WORST_SHARE * estimate.value):
        logger.warning(
            "Channel %s: the camera offset cannot be told from the noise (%.1f +- %.1f counts); 0 "
            "is used, and the flat-field will be too flat. Give `camera_offset` or "
            "`darkfield_file`.",
            group.label,
            estimate.value,
            estimate.uncertainty,
        )
        return 0.0, {**facts, "offset": 0.0, "offset_rejected": estimate.value}
    if estimate.uncertainty > _WORST_OFFSET:
        logger.warning(
            "Channel %s: the camera offset is not well known (%.1f +- %.1f counts). Give "
            "`camera_offset` or `darkfield_file` for a better flat-field.",
            group.label,
            estimate.value,
            estimate.uncertainty,
        )
    value = estimate.value if estimate.value > estimate.uncertainty else 0.0
    return value, {**facts, "offset": value}


def _full_resolution(
    image: MultitileImage, group: ModelGroup, plan: EstimationPlan, *, like_estimate: bool
) -> dict[int, list[int]]:
    """Planes at full resolution to estimate the offset from."""
    n_z = plane_count(image, 0)
    if like_estimate and isinstance(plan.scenario, EmptyRegions):
        coarse, factor = plane_count(image, plan.level), z_factor(image, plan.level)
        return {
            tile: [
                plane // coarse * n_z + z
                for plane in planes
                for z in range(plane % coarse * factor, min((plane % coarse + 1) * factor, n_z))
            ]
            for tile, planes in candidate_planes(image, group, plan).items()
        }
    return {
        tile: [t * n_z + z for t in range(time_count(image)) for z in range(*span)]
        for tile, span in group.planes.items()
        if span[0] < span[1]
    }


def _empty(
    stack: BinnedStack, offset: float, uncertainty: float
) -> tuple[ShadingProfile, dict[str, Any]]:
    from fractal_mesospim_shading.core.estimate import estimate_flatfield

    estimate = estimate_flatfield(stack, offset, offset_uncertainty=uncertainty)
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
    stack: BinnedStack,
    tile_shape: tuple[int, int],
    offset: float,
    params: BasicpyModelParams,
) -> tuple[ShadingProfile, dict[str, Any]]:
    from fractal_mesospim_shading.core.basic import (
        BasicParameters,
        basic_planes,
        fit_basic,
        profile_from_basic,
    )

    parameters = BasicParameters(**params.model_dump())
    planes = basic_planes(stack, offset, parameters)
    profile = profile_from_basic(fit_basic(planes, parameters), tile_shape, offset)
    return profile, {"scenario": "BaSiCPy", "planes_used": len(planes), "scale": profile.scale}
