"""From a scenario to the planes that models are made from; checked before a pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.drawing import choose_planes, empty_planes
from fractal_mesospim_shading.errors import LayoutError, SamplingError, TileNumberError
from fractal_mesospim_shading.flatfield.sampling import PlaneRef, plane_count, time_count, z_factor
from fractal_mesospim_shading.images.models.folder import SavedModel
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import (
    Basic,
    EmptyRegions,
    EstimationOptions,
    MeasuredProfile,
    Scenario,
    choose_scenario,
)


@dataclass(frozen=True)
class EstimationPlan:
    """What is to be read for the models of an image; made and checked before a pixel is read.

    Attributes:
        scenario: the one chosen.
        level: of the pyramid that flat-fields are estimated from.
        candidates: tile number -> planes of that level that may be drawn.
        models: that were given, by label of the model group, in the first scenario.
        dark: measured dark frame by channel label.
    """

    scenario: Scenario
    level: int
    candidates: Mapping[int, Sequence[int]]
    models: Mapping[str, SavedModel] = field(default_factory=dict)
    dark: Mapping[str, NDArray[np.float32] | float] = field(default_factory=dict)


def plan_estimation(
    image: MultitileImage,
    options: EstimationOptions,
    models: Mapping[str, SavedModel],
    dark: Mapping[str, NDArray[np.float32] | float],
) -> EstimationPlan:
    """Choose scenario, level and planes.

    Raises:
        TileNumberError: a tile number that the mosaic does not have, or one given twice.
        SamplingError: z-levels that leave nothing, a level that does not exist.
    """
    scenario = choose_scenario(options)
    level = options.resolution_level
    if level is None:
        level = len(image.levels) - 1 if isinstance(scenario, Basic) else 0
    if level >= len(image.levels):
        raise SamplingError(
            f"`resolution_level` is {level}, but the image has the levels 0 to "
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
                    "planes are empty in `fov_list`."
                )
        if scenario.z_levels is not None:
            planes = empty_planes(plane_count(image, 0), scenario.z_levels, z_factor(image, level))
            planes = [z for z in planes if z < n_z]
    every = [t * n_z + z for t in range(time_count(image)) for z in planes]
    plan = EstimationPlan(scenario, level, dict.fromkeys(tiles, every), models, dark)
    if not isinstance(scenario, MeasuredProfile):
        for group in image.model_groups:
            candidate_planes(image, group, plan)
    return plan


def candidate_planes(
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
            f"channel among those chosen; its tiles are {sorted(group.planes)}. Choose `fov_list` "
            "and `z_levels` so that each channel (and each illumination side) has empty planes."
        )
    return dict(sorted(found.items()))


def drawn_planes(
    image: MultitileImage,
    candidates: Mapping[int, Sequence[int]],
    level: int,
    n_planes: int,
    seed: int,
) -> tuple[PlaneRef, ...]:
    """Draw some of the candidates, in slabs that are decoded together."""
    depth = image.axes.length("z", image.read_units(level))
    return tuple(choose_planes(candidates, n_planes, seed, depth))


def full_resolution_planes(
    image: MultitileImage, group: ModelGroup, plan: EstimationPlan, *, like_estimate: bool
) -> dict[int, list[int]]:
    """Planes at full resolution to estimate the offset from.

    Args:
        image: to estimate from.
        group: of its model groups.
        plan: from `plan_estimation`.
        like_estimate: only those that the flat-field is estimated from.
    """
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
    return every_plane(image, group)


def every_plane(image: MultitileImage, group: ModelGroup) -> dict[int, list[int]]:
    """All planes of a group at full resolution, by tile."""
    n_z = plane_count(image, 0)
    return {
        tile: [t * n_z + z for t in range(time_count(image)) for z in range(*span)]
        for tile, span in group.planes.items()
        if span[0] < span[1]
    }


def _checked_tiles(image: MultitileImage, numbers: Sequence[int]) -> list[int]:
    repeated = sorted({n for n in numbers if list(numbers).count(n) > 1})
    if repeated:
        raise TileNumberError(f"`fov_list` names the tiles {repeated} more than once.")
    try:
        return [image.layout.tile(number).number for number in numbers]
    except LayoutError as error:
        raise TileNumberError(
            f"`fov_list`: {error} The tiles of this image are:\n  "
            + "\n  ".join(image.layout.map_text().splitlines())
        ) from None
