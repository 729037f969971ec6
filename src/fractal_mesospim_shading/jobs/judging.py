"""What a job says of its own correction: of offsets that were given, and of steps at the seams.

The steps are measured on the result; what they were before follows from it and the flat-field.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection
from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.core.quality import flattened
from fractal_mesospim_shading.core.seams import Seam, seams
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.schedule import PartOfJob
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains, gain_of
from fractal_mesospim_shading.flatfield.kernel import profile_names
from fractal_mesospim_shading.flatfield.models import Models
from fractal_mesospim_shading.flatfield.offset_doubts import (
    Judgement,
    is_given,
    judge,
    lost_to_noise,
)
from fractal_mesospim_shading.flatfield.offset_look import OffsetLook, offset_look
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.source import Axes, MultitileImage
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.steps import Counts
from fractal_mesospim_shading.jobs.work import Part, Work
from fractal_mesospim_shading.views.coarse import (
    PLANES,
    READ_BYTES,
    coarse_level,
    plane_box,
    shrinking,
)

FloatArray = NDArray[np.float64]

DivisorOf = Callable[[Tile, slice, slice], NDArray[np.float32]]
"""What some rows and columns of a tile were divided by."""

logger = logging.getLogger(__name__)

# Boxes along a seam that are taken together, since neighbours show the same sample.
_GROUP = 4
_LEAST_GROUPS = 4
# A growth counts beyond so many of its standard deviations, and this fraction.
_SIGMAS = 3.0
_LEAST_GROWTH = 0.005
# Standard deviation of a median over that of a mean.
_MEDIAN_ERROR = 1.25


def planned_look(work: Work, part: Part, models: Models) -> OffsetLook | None:
    """The planes of a part that tell whether a given offset fits; None where none was given."""
    given = {label for label in part.models or models if is_given(models[label])}
    if not given:
        return None
    sharing = [p for p in work.parts_of(part.choice) if p.models == part.models]
    return offset_look(part.plan.source, given, len(sharing))


def judge_offsets(
    work: Work, models: Sequence[Models], job: Job, counts: Counts
) -> dict[str, Judgement]:
    """Say what the pass has found out about the offsets that it subtracted.

    Returns:
        The same, by the labels of models in results.
    """
    judgements = {}
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
            judgement = judge(model, texts, lost)
            line = None if counted in spoken else lost_to_noise(lost)
            if judgement.text is not None:
                logger.warning("Channel %s: %s", choice.prefix + label, judgement.text)
            elif line is not None:
                logger.info("Channel %s: %s", counted, line)
            spoken.add(counted)
            judgements[choice.prefix + label] = judgement
    return judgements


def judge_seams(
    work: Work,
    models: Sequence[Models],
    gains: Sequence[ImageGains],
    measured: Sequence[bool],
) -> dict[str, SeamGrowth]:
    """Measure, and warn of, steps at the seams that a correction made larger.

    Stacks that are images of their own have no seam. A result without its local background no
    longer shows the steps of the flat-field; a coarse level of the source does, where it has one.

    Args:
        work: that was done.
        models, gains: of each choice of planes.
        measured: whether most overlaps of each have been compared, which say more.

    Returns:
        How they have changed, by the labels of channels in results, where that could be measured.
    """
    growths: dict[str, SeamGrowth] = {}
    for part in work.parts if work.choices else ():
        choice = work.choices[part.choice]
        if len(part.plan.source.layout.tiles) > 1 and not measured[part.choice]:
            anew = work.then is not None
            own = models[part.choice], gains[part.choice]
            growths |= _growths(part, choice, *own, anew=anew)
    return growths


def _growths(
    part: Part, choice: PlaneChoice, models: Models, gains: ImageGains, *, anew: bool
) -> dict[str, SeamGrowth]:
    """How the steps of a part have changed.

    Args:
        part: an image with several tiles.
        choice: of planes for its models.
        models: of the choice.
        gains: of the tiles.
        anew: look at the source, and correct what is looked at once more.
    """
    image = part.plan.source
    seen = image if anew else part.plan.target
    level = coarse_level(seen.levels)
    growths: dict[str, SeamGrowth] = {}
    if anew and level == 0:
        return growths
    factor = shrinking(seen.levels, level)
    names, tile_shape = profile_names(image), image.layout.tile_shape
    for channel in image.channels:
        planes = _planes(seen, part.plan.target.levels[0].dtype, image.axes, level, channel.index)
        own = {name for (index, _), name in names.items() if index == channel.index}
        if planes is None or not all(models[name].corrects for name in own):
            continue
        corrections = {name: models[name].correction(tile_shape) for name in own}

        def correction_of(tile: Tile, index: int = channel.index) -> TileCorrection:
            own = corrections[names.get((index, tile.number)) or names[index, None]]  # noqa: B023
            return replace(own, tile_gain=gain_of(gains, index, tile.number))

        added = choice.options.output_offset
        if anew:
            planes, added = flattened(planes, image.layout, correction_of, factor=factor), 0.0
        growth = seam_growth(
            planes,
            image.layout,
            lambda tile, rows, columns: correction_of(tile).divisor(rows, columns),
            added,
            factor=factor,
        )
        if growth is None:
            continue
        growths[choice.prefix + channel.label] = growth
        if growth.grew:
            logger.warning(
                "Channel %s: the step at the tile seams grew from %.1f %% to %.1f %% (by %.1f +- "
                "%.1f %%): the flat-field does not fit this image.",
                choice.prefix + channel.label,
                100 * growth.before,
                100 * growth.after,
                100 * growth.growth,
                100 * growth.error,
            )
    return growths


def _planes(
    image: MultitileImage | TargetImage,
    dtype: np.dtype[Any],
    axes: Axes,
    level: int,
    channel: int,
) -> NDArray[np.generic] | None:
    """Some planes of a level around the middle; None where that would decode too much."""
    array = image.levels[level]
    depth, chunk = axes.length("z", array.shape), axes.length("z", array.chunks)
    start = max(0, (depth - PLANES) // 2)
    stop = min(start + PLANES, depth)
    slabs = -(-stop // chunk) - start // chunk
    if slabs * chunk * prod(array.shape[-2:]) * dtype.itemsize > READ_BYTES:
        return None
    y, x = (slice(0, size) for size in array.shape[-2:])
    data = image.read(level, plane_box(axes, channel, slice(start, stop), y, x))
    return data.reshape((-1, *array.shape[-2:]))


@dataclass(frozen=True)
class SeamGrowth:
    """How the steps at the seams have changed. Fractions of the brightness.

    Attributes:
        before, after: typical step, as in `seam_step`.
        growth: typical change of the step of the same boxes.
        error: its standard deviation; infinite where there are too few seams to tell.
    """

    before: float
    after: float
    growth: float
    error: float

    @property
    def grew(self) -> bool:
        """Whether the steps have grown beyond doubt."""
        least = max(_SIGMAS * self.error, _LEAST_GROWTH)
        return self.growth > least and self.after > self.before + _LEAST_GROWTH


def seam_growth(
    after: NDArray[np.generic],
    layout: TileLayout,
    divisor_of: DivisorOf,
    output_offset: float = 0.0,
    *,
    factor: tuple[int, int] = (1, 1),
) -> SeamGrowth | None:
    """Compare the steps of corrected planes with those that they had before.

    The light before is the corrected light times the flat-field, so that the source
    need not be read again.

    Args:
        after: (n, y, x) corrected planes.
        layout: tiles at full resolution.
        divisor_of: (y, x) what some rows and columns of a tile were divided by, at full resolution.
        output_offset: counts that were added.
        factor: by how much y and x have shrunk from full resolution to these planes.

    Returns:
        None where there is no seam with light on both sides.
    """
    steps_before, steps_after, changes = [], [], []
    for seam in seams(after, layout, output_offset, factor=factor):
        first, second = (_mean_divisor(seam, side, divisor_of, factor) for side in (0, 1))
        now = _step(seam.first, seam.second)
        then = _step(seam.first * first, seam.second * second)
        steps_before.append(then[np.isfinite(then)])
        steps_after.append(now[np.isfinite(now)])
        for start in range(0, now.shape[1], _GROUP):
            change = (now - then)[:, start : start + _GROUP]
            if np.isfinite(change).any():
                changes.append(float(np.nanmedian(change)))
    if not changes:
        return None
    error = float("inf")
    if len(changes) >= _LEAST_GROUPS:
        error = _MEDIAN_ERROR * float(np.std(changes, ddof=1)) / np.sqrt(len(changes))
    return SeamGrowth(
        float(np.median(np.concatenate(steps_before))),
        float(np.median(np.concatenate(steps_after))),
        float(np.median(changes)),
        float(error),
    )


def _step(first: FloatArray, second: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        lit = (first > 0) & (second > 0)
        return np.where(lit, 2 * np.abs(first - second) / (first + second), np.nan)


def _mean_divisor(
    seam: Seam, side: int, divisor_of: DivisorOf, factor: tuple[int, int]
) -> FloatArray:
    """Mean of what each box of one side of a seam was divided by."""
    tile, means = seam.tiles[side], []
    for along in seam.boxes:
        spans = (seam.depths[side], along) if seam.across == 0 else (along, seam.depths[side])
        rows, columns = (
            slice(*(edge * shrunk - origin for edge in span))
            for span, shrunk, origin in zip(spans, factor, (tile.y, tile.x), strict=True)
        )
        means.append(float(divisor_of(tile, rows, columns).mean(dtype=np.float64)))
    return np.array(means)
