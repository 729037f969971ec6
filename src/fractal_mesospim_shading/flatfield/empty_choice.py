"""Planes chosen as empty: found by themselves where that was asked for, questioned where given."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.deciding import decide
from fractal_mesospim_shading.core.emptiness.windows import Windows
from fractal_mesospim_shading.errors import SamplingError
from fractal_mesospim_shading.flatfield.empty_planes import EmptyPlanes, look_for_empty
from fractal_mesospim_shading.flatfield.empty_sample import sample_to_look_at
from fractal_mesospim_shading.flatfield.estimate_planes import SampledPlanes
from fractal_mesospim_shading.flatfield.sampling import (
    PlaneChoice,
    plane_count,
    z_factor,
)
from fractal_mesospim_shading.images.source import ModelGroup
from fractal_mesospim_shading.messages import counted
from fractal_mesospim_shading.options.precedence import Automatic, EmptyRegions

logger = logging.getLogger(__name__)

LEAST_PLANES = 16
"""Empty planes that make a better flat-field than BaSiC; fewer are noisy."""

# A tile is no empty one if so many of its planes differ by so many times their limit.
_MOST_WRONG = 0.5
_SURE = 2.0
# Tiles that the log names.
_MOST_TILES = 12


def resolved(
    choice: PlaneChoice, group: ModelGroup, workers: int
) -> tuple[PlaneChoice, EmptyPlanes | None]:
    """The choice of planes with the scenario that the pixels of a group speak for.

    Args:
        choice: of planes; one that is not automatic stays as it is.
        group: of the image's model groups.
        workers: boxes read at a time.

    Returns:
        The choice, and what was looked at where planes were chosen by that.
    """
    if not isinstance(choice.scenario, Automatic):
        return choice, None
    image, options = choice.image, choice.options
    no_data = options.zero_is != "data"
    sample = sample_to_look_at(image, group)
    seen = look_for_empty(group, sample, zero_is_no_data=no_data, workers=workers)
    level = 0 if options.resolution_level is None else options.resolution_level
    planes = _at_level(choice, seen, level)
    number = sum(len(own) for own in planes.values())
    looked = f"{counted(len(seen.refs), 'plane')} of level {seen.level} were looked at"
    if number < LEAST_PLANES:
        logger.info(
            "Channel %s: BaSiC estimates the flat-field: %s are surely empty, fewer than %d (%s).",
            choice.name_of(group),
            counted(number, "plane"),
            LEAST_PLANES,
            looked,
        )
        coarsest = len(image.levels) - 1
        basic = level if options.resolution_level is not None else coarsest
        return replace(choice, scenario=choice.scenario.basic, level=basic), None
    logger.info(
        "Channel %s: the flat-field is estimated from what is empty: %s of tile %s; confidence "
        "%.2f (%s).",
        choice.name_of(group),
        counted(number, "plane"),
        _by_tile(planes, plane_count(image, level)),
        seen.confidence,
        looked,
    )
    scenario = EmptyRegions(tuple(planes), None)
    return replace(choice, scenario=scenario, level=level, candidates=planes), seen


def _at_level(choice: PlaneChoice, seen: EmptyPlanes, level: int) -> dict[int, list[int]]:
    """The empty planes by tile as planes of a level, which stand for several at full resolution."""
    factor, n_z = z_factor(choice.image, level), plane_count(choice.image, 0)
    coarse = plane_count(choice.image, level)
    planes = {}
    for tile, own in seen.empty.items():
        every = set(own)
        covered = [
            t * coarse + z
            for t, z in sorted({(p // n_z, p % n_z // factor) for p in own})
            if z < coarse
            and all(t * n_z + k in every for k in range(z * factor, min((z + 1) * factor, n_z)))
        ]
        if covered:
            planes[tile] = covered
    return planes


def _by_tile(planes: Mapping[int, Sequence[int]], n_z: int) -> str:
    """Tiles with their planes along z, those that have most first."""
    order = sorted(planes, key=lambda tile: (-len(planes[tile]), tile))
    shown = sorted(order[:_MOST_TILES])
    texts = [f"{tile} (z {_ranges(planes[tile], n_z)})" for tile in shown]
    more = f", and of {len(order) - len(shown)} others" if len(order) > len(shown) else ""
    return ", ".join(texts) + more


def _ranges(planes: Sequence[int], n_z: int) -> str:
    heights = sorted({plane % n_z for plane in planes})
    breaks = [0, *(k for k in range(1, len(heights)) if heights[k] > heights[k - 1] + 1)]
    stops = [*breaks[1:], len(heights)]
    runs = [(heights[a], heights[b - 1]) for a, b in zip(breaks, stops, strict=True)]
    text = ", ".join(f"{a} to {b}" if a < b else f"{a}" for a, b in runs[:3])
    return text + (", ..." if len(runs) > 3 else "")


def different_planes(choice: PlaneChoice, sampled: SampledPlanes) -> NDArray[np.bool_]:
    """Which planes that were given as empty surely hold something that others do not.

    Args:
        choice: of planes.
        sampled: the planes that were read.
    """
    different = np.zeros(len(sampled.refs), np.bool_)
    # Where too few have neighbours to tell noise from sample, nothing is told.
    with suppress(SamplingError):
        n_z = plane_count(choice.image, choice.level)
        seen = Windows.of(sampled.stack, sampled.refs, n_z)
        different |= np.nan_to_num(decide(seen).excess) > _SURE
    return different


def tell_mistaken(
    choice: PlaneChoice, group: ModelGroup, sampled: SampledPlanes, wrong: NDArray[np.bool_]
) -> None:
    """Warn of tiles that were given as empty and are not.

    Args:
        choice: of planes.
        group: of the image's model groups.
        sampled: the planes that were read.
        wrong: which of these are different, or left out by the estimate.
    """
    tiles = np.array(sampled.tiles)
    for tile in np.unique(tiles):
        own = tiles == tile
        if wrong[own].mean() > _MOST_WRONG:
            logger.warning(
                "Channel %s: tile %d was given as empty, but %d of the %s read in it hold "
                "something that others do not. Leave it out of `fov_list`, or choose other planes: "
                "the command find-empty tells which are empty.",
                choice.name_of(group),
                tile,
                wrong[own].sum(),
                counted(int(own.sum()), "plane"),
            )
