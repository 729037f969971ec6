"""The steps at the tile seams of a result: a warning where the correction made them larger."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile
from fractal_mesospim_shading.flatfield.finding import Models, profile_names
from fractal_mesospim_shading.images.source import Axes
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.work import Part, Work

logger = logging.getLogger(__name__)

_PLANE_PIXELS = 1 << 20
_PLANES = 8
_READ_BYTES = 2**31
"""The seams are not looked at where more than this would have to be decoded."""


def judge_seams(work: Work, models: Sequence[Models]) -> None:
    """Warn of steps at the seams that a correction made larger.

    Stacks that are images of their own have no seam.
    """
    for part in work.parts if work.choices else ():
        choice = work.choices[part.choice]
        if len(part.plan.source.layout.tiles) > 1:
            added = choice.options.output_offset
            for label, text in _grown(part, models[part.choice], added).items():
                logger.warning("Channel %s: %s", choice.prefix + label, text)


def _grown(part: Part, models: Models, output_offset: float) -> Mapping[str, str]:
    """What is to be said, by channel label."""
    from fractal_mesospim_shading.core.seam_growth import seam_growth

    image, target = part.plan.source, part.plan.target
    level = next(
        (i for i, found in enumerate(target.levels) if prod(found.shape[-2:]) <= _PLANE_PIXELS),
        len(target.levels) - 1,
    )
    names, tile_shape = profile_names(image), image.layout.tile_shape
    fine, coarse = (target.levels[i].scale[-2:] for i in (0, level))
    factor = (max(1, round(coarse[0] / fine[0])), max(1, round(coarse[1] / fine[1])))
    found = {}
    for channel in image.channels:
        planes = _planes(target, image.axes, level, channel.index)
        own = {name for (index, _), name in names.items() if index == channel.index}
        if planes is None or not all(models[name].corrects for name in own):
            continue
        flats = {name: models[name].profile.resampled(tile_shape).flatfield for name in own}

        def flatfield_of(tile: Tile, index: int = channel.index) -> NDArray[np.float32]:
            return flats[names.get((index, tile.number)) or names[index, None]]  # noqa: B023

        growth = seam_growth(planes, image.layout, flatfield_of, output_offset, factor=factor)
        if growth is not None and growth.grew:
            found[channel.label] = (
                f"the step at the tile seams grew from {100 * growth.before:.1f} % to "
                f"{100 * growth.after:.1f} % ({100 * growth.growth:.1f} +- "
                f"{100 * growth.error:.1f} % at the same places): the flat-field does not fit this "
                "image. It may be of another channel or objective, turned or mirrored, or hold "
                "sample."
            )
    return found


def _planes(
    target: TargetImage, axes: Axes, level: int, channel: int
) -> NDArray[np.generic] | None:
    """Some planes of a level around the middle; None where that would decode too much."""
    array = target.levels[level]
    depth, chunk = axes.length("z", array.shape), axes.length("z", array.chunks)
    start = max(0, (depth - _PLANES) // 2)
    planes = slice(start, min(start + _PLANES, depth))
    slabs = -(-planes.stop // chunk) - planes.start // chunk
    if slabs * chunk * prod(array.shape[-2:]) * array.dtype.itemsize > _READ_BYTES:
        return None
    place = {"t": slice(0, 1), "c": slice(channel, channel + 1), "z": planes}
    place |= {"y": slice(0, array.shape[-2]), "x": slice(0, array.shape[-1])}
    data = target.read(level, axes.box(place))
    return data.reshape((-1, *array.shape[-2:]))
