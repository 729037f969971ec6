"""From a scenario to one shading profile per channel: the only choice among scenarios."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.binning import BinnedStack
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.core.sampling import choose_planes, empty_planes
from fractal_mesospim_shading.errors import LayoutError, SamplingError
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.models import ChannelModel, Dark, ModelGroup, model_groups
from fractal_mesospim_shading.params import (
    Basic,
    BasicpyModelParams,
    EmptyRegions,
    EstimationOptions,
    MeasuredProfile,
    Scenario,
    choose_scenario,
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

_WORST_OFFSET = 5.0
"""Counts of uncertainty above which an estimated offset is not used."""

@dataclass(frozen=True)
class EstimationPlan:
    """What is to be read for the models of an image; made and checked before a pixel is read.

    Attributes:
        scenario: the one chosen.
        level: of the pyramid that flat-fields are estimated from.
        candidates: tile number -> planes of that level that may be drawn.
        models: measured profiles by label of the model group, in the first scenario.
        dark: measured dark frame by channel label.
    """

    scenario: Scenario
    level: int
    candidates: Mapping[int, Sequence[int]]
    models: Mapping[str, ShadingProfile] = field(default_factory=dict)
    dark: Mapping[str, NDArray[np.float32] | float] = field(default_factory=dict)


def plan_estimation(
    image: MultitileImage,
    options: EstimationOptions,
    models: Mapping[str, ShadingProfile],
    dark: Mapping[str, NDArray[np.float32] | float],
) -> EstimationPlan:
    """Choose scenario, level and planes.

    Raises:
        LayoutError: a tile number that the mosaic does not have, or one given twice.
        SamplingError: z-levels that leave nothing, a level that does not exist.
    """
    scenario = choose_scenario(options)
    level = options.resolution_level
    if level is None:
        level = len(image.levels) - 1 if isinstance(scenario, Basic) else 0
    if level >= len(image.levels):
        raise SamplingError(
            f"resolution_level is {level}, but the image has the levels 0 to "
            f"{len(image.levels) - 1}."
        )
    tiles = [tile.number for tile in image.layout.tiles]
    n_z = plane_count(image, level)
    planes: Sequence[int] = range(n_z)
    if isinstance(scenario, EmptyRegions):
        if scenario.fov_list is not None:
            tiles = _checked_tiles(image, scenario.fov_list)
        else:
            tiles = list(image.layout.corners)
            if not tiles:
                raise SamplingError(
                    "All four corner tiles of this mosaic are missing; name the tiles whose end "
                    "planes are empty in fov_list."
                )
        if scenario.z_levels is not None:
            planes = empty_planes(plane_count(image, 0), scenario.z_levels, z_factor(image, level))
            planes = [z for z in planes if z < n_z]
    every = [t * n_z + z for t in range(time_count(image)) for z in planes]
    plan = EstimationPlan(scenario, level, dict.fromkeys(tiles, every), models, dark)
    if not isinstance(scenario, MeasuredProfile):
        for group in model_groups(image):
            _candidates(image, group, plan)
    return plan


def _candidates(
    image: MultitileImage, group: ModelGroup, plan: EstimationPlan
) -> dict[int, list[int]]:
    """The planes of a group that may be drawn: those chosen that exist in its stacks.

    Raises:
        SamplingError: there is none.
    """
    n_z, factor = plane_count(image, plan.level), z_factor(image, plan.level)
    found = {}
    for tile in plan.candidates.keys() & group.planes.keys():
        first, stop = group.planes[tile]
        chosen = [p for p in plan.candidates[tile] if first <= (p % n_z) * factor < stop]
        if chosen:
            found[tile] = chosen
    if not found:
        raise SamplingError(
            f"{group.label}: none of the tiles {sorted(plan.candidates)} has a plane of this "
            f"channel among those chosen; its tiles are {sorted(group.planes)}. Choose fov_list "
            "and z_levels so that each channel (and each illumination side) has empty planes."
        )
    return dict(sorted(found.items()))


def _checked_tiles(image: MultitileImage, numbers: Sequence[int]) -> list[int]:
    repeated = sorted({n for n in numbers if list(numbers).count(n) > 1})
    if repeated:
        raise LayoutError(f"fov_list names the tiles {repeated} more than once.")
    try:
        return [image.layout.tile(number).number for number in numbers]
    except LayoutError as error:
        raise LayoutError(
            f"fov_list: {error} The tiles of this image are:\n{image.layout.map_text()}"
        ) from None


def estimate_model(
    image: MultitileImage,
    group: ModelGroup,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    zero_fill: bool,
    workers: int,
) -> ChannelModel:
    """The model of one channel, or of one illumination side of it.

    Args:
        image: to read from.
        group: of the image's model groups.
        plan: from `plan_estimation`.
        options: number of planes, seed, offset, parameters of BaSiC.
        zero_fill: whether chunks that are not there read as 0.
        workers: boxes read at a time.
    """
    if isinstance(plan.scenario, MeasuredProfile):
        return _measured(image, group, plan, options, zero_fill=zero_fill, workers=workers)
    layout = layout_at_level(image, plan.level)
    candidates = _candidates(image, group, plan)
    refs = _drawn(image, candidates, plan.level, options.n_zplanes, options.seed)
    dark = _dark_at(plan.dark.get(group.channel.label), layout.tile_shape)
    sample = Sample(group.channel.index, plan.level, refs, layout)
    no_data = zero_fill and options.camera_offset != 0
    stack = read_sample(image, sample, dark=dark, zero_is_no_data=no_data, workers=workers)
    offset, facts = _offset(
        image, group, stack, plan, options, zero_fill=zero_fill, workers=workers
    )
    if no_data and dark is None and offset <= 0:
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
    return ChannelModel(profile, offset, {**facts, **more})


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
    zero_fill: bool,
    workers: int,
) -> ChannelModel:
    profile = plan.models[group.label]
    facts: dict[str, Any] = {"scenario": "measured model", "scale": profile.scale}
    if profile.darkfield is None and group.channel.label in plan.dark:
        profile = replace(profile, darkfield=plan.dark[group.channel.label])
    if profile.darkfield is not None:
        return ChannelModel(profile, 0.0, {**facts, **_dark_facts(profile.darkfield)})
    offset, more = _offset(image, group, None, plan, options, zero_fill=zero_fill, workers=workers)
    return ChannelModel(profile, offset, {**facts, **more})


def _dark_facts(dark: NDArray[np.float32] | float) -> dict[str, Any]:
    return {"offset": float(np.mean(dark)), "offset_from": "measured dark-field"}


def _offset(
    image: MultitileImage,
    group: ModelGroup,
    stack: BinnedStack | None,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    zero_fill: bool,
    workers: int,
) -> tuple[float, dict[str, Any]]:
    """The camera offset in counts: measured, given, or estimated from the noise."""
    if group.channel.label in plan.dark:
        return 0.0, _dark_facts(plan.dark[group.channel.label])
    if options.camera_offset is not None:
        return options.camera_offset, {"offset": options.camera_offset, "offset_from": "given"}
    from fractal_mesospim_shading.core.offset import estimate_offset

    if stack is None or plan.level > 0:
        # The noise of averaged pixels says nothing about the camera.
        candidates = _full_resolution(image, group, plan, like_estimate=stack is not None)
        refs = _drawn(image, candidates, 0, _OFFSET_PLANES, options.seed)
        sample = Sample(group.channel.index, 0, refs, image.layout)
        stack = read_sample(image, sample, dark=None, zero_is_no_data=zero_fill, workers=workers)
    estimate = estimate_offset(stack, mostly_empty=isinstance(plan.scenario, EmptyRegions))
    facts: dict[str, Any] = {
        "offset": estimate.value,
        "offset_uncertainty": estimate.uncertainty,
        "offset_from": f"estimated ({estimate.method})",
    }
    if not estimate.uncertainty <= _WORST_OFFSET:
        logger.warning(
            "Channel %s: the camera offset cannot be told from the noise (%.1f +- %.1f counts); 0 "
            "is used, and the flat-field will be too flat. Give camera_offset or darkfield_file.",
            group.label,
            estimate.value,
            estimate.uncertainty,
        )
        return 0.0, {**facts, "offset": 0.0, "offset_rejected": estimate.value}
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
            for tile, planes in _candidates(image, group, plan).items()
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
