"""What a job says of its own correction: of offsets that were given, and of steps at the seams.

The steps are measured on the result; what they were before follows from it and the flat-field.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection
from fractal_mesospim_shading.core.layout import Tile
from fractal_mesospim_shading.core.quality import flattened
from fractal_mesospim_shading.core.seam_growth import SeamGrowth, seam_growth
from fractal_mesospim_shading.core.seams import Span
from fractal_mesospim_shading.core.threads import in_order
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.schedule import records_by_part
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains, gain_of
from fractal_mesospim_shading.flatfield.kernel import profile_names
from fractal_mesospim_shading.flatfield.models import ChannelModel, Models
from fractal_mesospim_shading.flatfield.offset_doubts import (
    Judgement,
    judge,
    lost_to_noise,
)
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.source import Axes, Channel, MultitileImage
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.steps import Counts
from fractal_mesospim_shading.jobs.work import Part, Work
from fractal_mesospim_shading.views.coarse import (
    READ_BYTES,
    coarse_level,
    middle_planes,
    seen_factor,
    seen_planes,
)

logger = logging.getLogger(__name__)


def judge_offsets(
    work: Work, models: Sequence[Models], job: Job, counts: Counts
) -> dict[str, Judgement]:
    """Say what the pass has found out about the offsets that it subtracted.

    Returns:
        The same, by the labels of models in results.
    """
    asked: list[tuple[PlaneChoice, str, str, ChannelModel, list[str], PixelCounts]] = []
    records_of = records_by_part(job.records)
    for number, (choice, own) in enumerate(zip(work.choices, models, strict=True)):
        records = [
            record
            for part in work.parts_of(number)
            for record in sorted(records_of[part.name], key=itemgetter("node"))
        ]
        labels = {group.label: group.channel.label for group in choice.image.model_groups}
        for label, model in own.items():
            # An image counts by channel, whatever the models of its sides.
            counted = choice.prefix + label
            if counted not in counts:
                counted = choice.prefix + labels[label]
            # A baseline that is subtracted as well makes pixels 0 at will.
            lost = PixelCounts() if choice.options.subtract_baseline else counts[counted]
            texts = [text for record in records for text in record.get("noise", {}).get(label, ())]
            asked.append((choice, label, counted, model, texts, lost))
    found = in_order(lambda one: judge(*one[3:]), asked, workers=2)
    judgements, spoken = {}, set()
    for (choice, label, counted, _, _, lost), judgement in zip(asked, found, strict=True):
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
    factor = seen_factor(seen.levels, level)
    names, tile_shape = _names_of(image), image.layout.tile_shape

    def measured(channel: Channel) -> SeamGrowth | None:
        planes = _planes(seen, part.plan.target.levels[0].dtype, image.axes, level, channel.index)
        own = names[channel.index]
        if planes is None or not all(models[name].corrects for name in own.values()):
            return None
        corrections = Corrections(
            {name: models[name].correction(tile_shape) for name in set(own.values())},
            own,
            {
                tile.number: gain_of(gains, channel.index, tile.number)
                for tile in image.layout.tiles
            },
        )
        added = choice.options.output_offset
        if anew:
            planes, added = flattened(planes, image.layout, corrections.of, factor=factor), 0.0
        return seam_growth(planes, image.layout, corrections.divisor, added, factor=factor)

    found = in_order(measured, image.channels, workers=2)
    for channel, growth in zip(image.channels, found, strict=True):
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


def _names_of(image: MultitileImage) -> dict[int, dict[int | None, str]]:
    """The labels of models by channel, and by tile; None stands for all tiles."""
    names: dict[int, dict[int | None, str]] = {}
    for (channel, tile), name in profile_names(image).items():
        names.setdefault(channel, {})[tile] = name
    return names


@dataclass(frozen=True)
class Corrections:
    """What was done to the tiles of a channel.

    Attributes:
        by_name: corrections without the gains of tiles, by the label of the model.
        names: the label of a tile; that of None for those that are not named.
        gains: of the tiles.
    """

    by_name: Mapping[str, TileCorrection]
    names: Mapping[int | None, str]
    gains: Mapping[int, float]
    _divisors: dict[tuple[str, float, Span, Span], float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def of(self, tile: Tile) -> TileCorrection:
        """What was done to a tile."""
        return replace(self.by_name[self._name(tile)], tile_gain=self.gains[tile.number])

    def divisor(self, tile: Tile, rows: Span, columns: Span) -> float:
        """Mean of what a part of a tile was divided by, found once for tiles that share it."""
        key = (self._name(tile), self.gains[tile.number], rows, columns)
        if key not in self._divisors:
            part = self.of(tile).divisor(slice(*rows), slice(*columns))
            self._divisors[key] = float(part.mean(dtype=np.float64))
        return self._divisors[key]

    def _name(self, tile: Tile) -> str:
        return self.names.get(tile.number) or self.names[None]


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
    numbers = middle_planes(depth, chunk)
    slabs = -(-numbers.stop // chunk) - numbers.start // chunk
    if slabs * chunk * prod(array.shape[-2:]) * dtype.itemsize > READ_BYTES:
        return None
    return seen_planes(image, axes, level, channel, numbers)
