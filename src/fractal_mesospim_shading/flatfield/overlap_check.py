"""What the overlaps of an image say of the models that it is corrected with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fractal_mesospim_shading.core.overlaps.observations import FloatArray, OverlapPair
from fractal_mesospim_shading.core.overlaps.residual import Taken
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains, gain_of
from fractal_mesospim_shading.flatfield.models import ChannelModel, Models
from fractal_mesospim_shading.flatfield.tile_gains import dark_of, log_flatfield_of
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.overlaps.sampling import observe_overlaps


def check_models(
    image: MultitileImage,
    models: Models,
    gains: ImageGains | None = None,
    *,
    seed: int = 0,
    budget: int | None = None,
) -> tuple[OverlapCheck, ...]:
    """Compare the overlaps of an image before and after it is corrected.

    Only the image is read: each pixel of a result follows from one of the image, its flat-field,
    its offset and the gain of its tile.

    Args:
        image: whose positions are known.
        models: by the label of their group.
        gains: of its tiles.
        seed, budget: of the sample, see `observe_overlaps`.

    Returns:
        One check for each channel and side that a model corrects.
    """
    return tuple(
        check_group(image, group, models[group.label], gains, seed=seed, budget=budget)
        for group in image.model_groups
        if models[group.label].corrects
    )


def check_group(
    image: MultitileImage,
    group: ModelGroup,
    model: ChannelModel | None,
    gains: ImageGains | None = None,
    *,
    offset: float = 0.0,
    seed: int = 0,
    budget: int | None = None,
) -> OverlapCheck:
    """The same for one channel and side.

    Args:
        image: whose positions are known.
        group: of stacks.
        model: that it is corrected with; None to measure the image as it is.
        gains: of its tiles.
        offset: counts without light, where there is no model.
        seed, budget: of the sample, see `observe_overlaps`.
    """
    tile_shape = image.layout.tile_shape
    dark = offset if model is None else dark_of(model, tile_shape)
    seen = observe_overlaps(image, group, dark, seed=seed, budget=budget)
    own = {tile: gain_of(gains or {}, group.channel.index, tile) for tile in group.planes}
    taken = None if model is None else taken_by(model, tile_shape, own)
    return OverlapCheck.of_models(group.label, group.side, seen, taken)


def taken_by(model: ChannelModel, tile_shape: tuple[int, int], gains: Mapping[int, float]) -> Taken:
    """What a model, and a gain for each tile, take off the log ratio of two views."""

    def taken(pair: OverlapPair) -> FloatArray:
        at = log_flatfield_of(model, tile_shape, pair.bin_px)
        first, second = at(pair.y_first, pair.x_first), at(pair.y_second, pair.x_second)
        tiles = np.log(gains.get(pair.first, 1.0)) - np.log(gains.get(pair.second, 1.0))
        difference: FloatArray = first - second - tiles
        return difference

    return taken
