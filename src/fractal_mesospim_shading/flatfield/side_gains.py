"""One gain for each illumination side, where tiles were taken from both."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations

import numpy as np

from fractal_mesospim_shading.core.overlaps.gains import TileGain, solve_gains, with_doubts
from fractal_mesospim_shading.core.overlaps.ratios import PairRatio, pair_ratios
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.watching import remember_reads
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.flatfield.channel_gains import ChannelGains, ImageGains, gain_of
from fractal_mesospim_shading.flatfield.models import Models
from fractal_mesospim_shading.flatfield.tile_gains import (
    brightened,
    dark_of,
    log_flatfield_of,
    offset_doubt,
)
from fractal_mesospim_shading.images.arrays.file_states import noted_reads
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import EstimationOptions
from fractal_mesospim_shading.overlaps.sampling import dark_structure_of
from fractal_mesospim_shading.overlaps.sides import LitSide, observe_sides

logger = logging.getLogger(__name__)

_KEPT = "side-gains.json"


def side_of(image: MultitileImage) -> str | None:
    """The side that lit all tiles of an image; None where there is none, or more than one."""
    sides = {group.side for group in image.model_groups}
    return sides.pop() if len(sides) == 1 else None


def partners(images: Sequence[MultitileImage]) -> list[list[int]]:
    """Numbers of the images that show the same tiles from different sides, in the order of these.

    The mosaics of an acquisition are named by what tells them apart, the side last.
    """
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for number, image in enumerate(images):
        side = side_of(image)
        if side is not None and image.suffix.endswith(side):
            groups[image.suffix.removesuffix(side)][side] = number
    return [[own[side] for side in sorted(own)] for own in groups.values() if len(own) > 1]


def refuse_one_sided(images: Sequence[MultitileImage], options: EstimationOptions) -> None:
    """Refuse gains of sides where no tile was taken from both.

    Raises:
        ParameterError: there is none.
    """
    if options.side_gains and images and not partners(images):
        raise ParameterError(
            "`side_gains` compares both illumination sides of the same tiles, but "
            f"'{images[0].url}' has no tiles that were taken from both. Expected a native "
            "acquisition with both; leave `side_gains` out."
        )


def find_side_gains(
    images: Sequence[MultitileImage],
    models: Sequence[Models],
    gains: Sequence[ImageGains],
    *,
    seed: int,
    job: Job | None = None,
) -> list[ImageGains]:
    """The gains of images with those of their sides on top.

    Args:
        images: of all sides.
        models, gains: of their channels and tiles.
        seed: of the heights that are compared.
        job: that keeps what was found.
    """
    kept = job.recall(_KEPT) if job is not None else None
    if kept is None:
        with noted_reads() as notes:
            found = _measured(images, models, gains, seed)
        if job is not None:
            content = [[number, channel, asdict(gain)] for (number, channel), gain in found.items()]
            job.remember(_KEPT, json.dumps(content).encode())
            remember_reads(job, _KEPT, notes)
    else:
        entries = json.loads(kept)
        found = {(number, channel): TileGain(**gain) for number, channel, gain in entries}
    result: list[ImageGains] = []
    for number, (image, own) in enumerate(zip(images, gains, strict=True)):
        merged = dict(own)
        for channel in image.channels:
            side = found.get((number, channel.index))
            if side is not None:
                before = own.get(channel.index) or _unchanged(image, channel.index)
                merged[channel.index] = replace(before, side=side)
        result.append(merged)
    return result


def _unchanged(image: MultitileImage, channel: int) -> ChannelGains:
    """The tiles of a channel, none of them compared with another."""
    tiles = sorted({t for g in _groups(image, channel) for t in g.planes})
    names = {tile: image.layout.tile(tile).name for tile in tiles}
    alone = {tile: TileGain(1.0, np.inf, 0, number) for number, tile in enumerate(tiles)}
    label = next(c.label for c in image.channels if c.index == channel)
    return ChannelGains(label, names, alone)


def _groups(image: MultitileImage, channel: int) -> list[ModelGroup]:
    return [group for group in image.model_groups if group.channel.index == channel]


def _measured(
    images: Sequence[MultitileImage],
    models: Sequence[Models],
    gains: Sequence[ImageGains],
    seed: int,
) -> dict[tuple[int, int], TileGain]:
    """The gain of each image's side, by number of the image and channel."""
    found: dict[tuple[int, int], TileGain] = {}
    for members in partners(images):
        by_label: dict[str, dict[int, ModelGroup]] = defaultdict(dict)
        for number in members:
            for group in images[number].model_groups:
                if models[number][group.label].corrects:
                    by_label[group.channel.label][number] = group
        for label, groups in by_label.items():
            if len(groups) < 2:
                continue
            sides = _of_channel(images, models, gains, groups, seed)
            _tell(label, {str(groups[n].side): gain for n, gain in sides.items()})
            found |= {(n, groups[n].channel.index): gain for n, gain in sides.items()}
    return found


def _of_channel(
    images: Sequence[MultitileImage],
    models: Sequence[Models],
    gains: Sequence[ImageGains],
    groups: dict[int, ModelGroup],
    seed: int,
) -> dict[int, TileGain]:
    shapes = {number: images[number].layout.tile_shape for number in groups}
    used = {number: models[number][group.label] for number, group in groups.items()}
    logs = {number: log_flatfield_of(model, shapes[number]) for number, model in used.items()}
    lit = {
        number: LitSide(images[number], group, dark_of(used[number], shapes[number]))
        for number, group in groups.items()
    }
    pairs, known, counts = [], [], 0.0
    for one, other in combinations(groups, 2):
        seen = list(observe_sides(lit[one], lit[other], seed=seed))
        structure = dark_structure_of(images[one], lit[one].dark)
        doubt = offset_doubt([used[one], used[other]], seen, structure)
        counts = max(counts, doubt or 0.0, key=abs)
        for pair in seen:
            tiles = {one: pair.first, other: pair.second}
            own = [gain_of(gains[n], groups[n].channel.index, tile) for n, tile in tiles.items()]
            known.append(float(np.log(own[0] / own[1])))
            pairs.append(replace(pair, first=one, second=other))

    def solved(ratios: Sequence[PairRatio]) -> dict[int, TileGain]:
        after = [
            replace(ratio, value=ratio.value + more)
            for ratio, more in zip(ratios, known, strict=True)
        ]
        return solve_gains(list(groups), after)

    sides = solved(pair_ratios(pairs, logs))
    brighter = pair_ratios(brightened(pairs, counts), logs)
    return with_doubts(sides, [solved(brighter)])


def _tell(label: str, sides: dict[str, TileGain]) -> None:
    """Say how bright the sides were."""
    if not any(gain.pairs for gain in sides.values()):
        logger.warning("Channel %s: no tile tells how bright its sides are; they stay.", label)
        return
    words = [
        f"{side} {gain.gain:.3f} (known to {100 * gain.uncertainty:.2g} %)"
        for side, gain in sides.items()
    ]
    equal = all(gain.gain == 1 for gain in sides.values())
    logger.info(
        "Channel %s: gains of the sides: %s%s.",
        label,
        ", ".join(words),
        "; they are equally bright" if equal else "",
    )
