"""What a job says of its own correction: of offsets that were given, and of steps at the seams."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.layout import Tile
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.schedule import PartOfJob
from fractal_mesospim_shading.flatfield.camera_offset import is_given, judge, lost_to_noise
from fractal_mesospim_shading.flatfield.kernel import OffsetLook, offset_look, profile_names
from fractal_mesospim_shading.flatfield.models import Models
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.source import Axes
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.work import Counts, Part, Work
from fractal_mesospim_shading.views.reporting import (
    PLANES,
    READ_BYTES,
    coarse_level,
    plane_box,
    shrinking,
)

logger = logging.getLogger(__name__)


def planned_look(work: Work, part: Part, models: Models) -> OffsetLook | None:
    """The planes of a part that tell whether a given offset fits; None where none was given."""
    given = {label for label in part.models or models if is_given(models[label])}
    if not given:
        return None
    sharing = [p for p in work.parts_of(part.choice) if p.models == part.models]
    return offset_look(part.plan.source, given, len(sharing))


def judge_offsets(work: Work, models: Sequence[Models], job: Job, counts: Counts) -> None:
    """Say what the pass has found out about the offsets that it subtracted."""
    for number, (choice, own) in enumerate(zip(work.choices, models, strict=True)):
        records = [
            record
            for part in work.parts_of(number)
            for record in sorted(PartOfJob(job, part.name).records, key=itemgetter("node"))
        ]
        spoken = set()
        labels = {group.label: group.channel.label for group in choice.image.model_groups}
        for label, model in own.items():
            # An image counts by channel, whatever the models of its sides.
            counted = choice.prefix + label
            if counted not in counts:
                counted = choice.prefix + labels[label]
            # A baseline that is subtracted as well makes pixels 0 at will.
            lost = PixelCounts() if choice.options.subtract_baseline else counts[counted]
            texts = [text for record in records for text in record.get("noise", {}).get(label, ())]
            doubt = judge(model, texts, lost)
            line = None if counted in spoken else lost_to_noise(lost)
            if doubt is not None:
                logger.warning("Channel %s: %s", choice.prefix + label, doubt)
            elif line is not None:
                logger.info("Channel %s: %s", counted, line)
            spoken.add(counted)


def judge_seams(work: Work, models: Sequence[Models]) -> None:
    """Warn of steps at the seams that a correction made larger.

    Stacks that are images of their own have no seam.
    """
    for part in work.parts if work.choices else ():
        choice = work.choices[part.choice]
        if len(part.plan.source.layout.tiles) > 1:
            _warn_of_growth(part, choice, models[part.choice])


def _warn_of_growth(part: Part, choice: PlaneChoice, models: Models) -> None:
    from fractal_mesospim_shading.core.seam_growth import seam_growth

    image, target = part.plan.source, part.plan.target
    level = coarse_level(target.levels)
    factor = shrinking(target.levels, level)
    names, tile_shape = profile_names(image), image.layout.tile_shape
    for channel in image.channels:
        planes = _planes(target, image.axes, level, channel.index)
        own = {name for (index, _), name in names.items() if index == channel.index}
        if planes is None or not all(models[name].corrects for name in own):
            continue
        flats = {name: models[name].profile.resampled(tile_shape).flatfield for name in own}

        def flatfield_of(tile: Tile, index: int = channel.index) -> NDArray[np.float32]:
            return flats[names.get((index, tile.number)) or names[index, None]]  # noqa: B023

        added = choice.options.output_offset
        growth = seam_growth(planes, image.layout, flatfield_of, added, factor=factor)
        if growth is not None and growth.grew:
            logger.warning(
                "Channel %s: the step at the tile seams grew from %.1f %% to %.1f %% (%.1f +- "
                "%.1f %% at the same places): the flat-field does not fit this image. It may be "
                "of another channel or objective, turned or mirrored, or hold sample.",
                choice.prefix + channel.label,
                100 * growth.before,
                100 * growth.after,
                100 * growth.growth,
                100 * growth.error,
            )


def _planes(
    target: TargetImage, axes: Axes, level: int, channel: int
) -> NDArray[np.generic] | None:
    """Some planes of a level around the middle; None where that would decode too much."""
    array = target.levels[level]
    depth, chunk = axes.length("z", array.shape), axes.length("z", array.chunks)
    start = max(0, (depth - PLANES) // 2)
    stop = min(start + PLANES, depth)
    slabs = -(-stop // chunk) - start // chunk
    if slabs * chunk * prod(array.shape[-2:]) * array.dtype.itemsize > READ_BYTES:
        return None
    y, x = (slice(0, size) for size in array.shape[-2:])
    data = target.read(level, plane_box(axes, channel, slice(start, stop), y, x))
    return data.reshape((-1, *array.shape[-2:]))
