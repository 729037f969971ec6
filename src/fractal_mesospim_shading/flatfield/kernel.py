"""What the flat-field correction does to a box of pixels, and what it notes on the way.

An offset that was given, and one that came with a model, is held against planes that the pass
reads anyway (`offset_look`). Their noise goes into the journal with the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import (
    Linear,
    PixelCounts,
    TileCorrection,
    correct,
    paint,
)
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.core.zeros import ZeroRule, zero_rule
from fractal_mesospim_shading.engine.plan import Processed, channel_stacks
from fractal_mesospim_shading.engine.zero_look import ZeroLook, Zeros
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.flatfield.offset_look import ZYX, OffsetLook
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.source import Axes, MultitileImage, PixelSource
from fractal_mesospim_shading.options.flatfield import EstimationOptions


@dataclass(frozen=True)
class FlatfieldKernel:
    """Flat-field correction.

    Attributes:
        axes: of the image.
        layout: where the tiles lie.
        corrections: of a tile, by profile name.
        profile_names: by (channel, tile number); tile number None stands for all tiles.
        look: what is done about zeros.
        blank_outside: make pixels 0 that belong to no tile; else they stay as they are.
        offset_look: planes whose noise is taken on the way; None for none.
        tile_gains: what the light of a tile is multiplied with, by (channel, tile number); 1 for
            those that are not named.
    """

    axes: Axes
    layout: TileLayout
    corrections: dict[str, TileCorrection]
    profile_names: dict[tuple[int, int | None], str]
    look: ZeroLook
    blank_outside: bool = False
    offset_look: OffsetLook | None = None
    tile_gains: Mapping[tuple[int, int], float] = field(default_factory=dict)

    besides: ClassVar[Sequence[StoredArray]] = ()
    companions: ClassVar[Sequence[str]] = ()

    @property
    def zero_is_no_data(self) -> dict[int, bool]:
        """By channel, for the contrast windows."""
        return self.look.may_be_no_data

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        """What a block needs beside the pixels that it writes: gains and shifts of a plane."""
        return 8 * prod(block[-2:]) + self.look.working_bytes(source)

    @property
    def shared_bytes(self) -> int:
        """Flat-field and dark-field of each profile, float32."""
        return 2 * 4 * len(self.corrections) * prod(self.layout.tile_shape)

    def process(self, source: MultitileImage, box: Box) -> Processed:
        data = source.read_block(box)
        self.blank(data, box)
        counts: dict[int, PixelCounts] = {}
        noise: dict[str, list[str]] = {}
        for lead, z, planes in channel_stacks(data, self.axes, box):
            channel, where = lead["c"], (z, box[-2], box[-1])
            stack = np.ascontiguousarray(planes)
            zeros = self.zeros(source, lead, where, stack)
            for label, text in self.noise(lead, where, stack, zeros):
                noise.setdefault(label, []).append(text)
            met = self.correct(channel, (box[-2], box[-1]), stack, zeros)
            met += PixelCounts(**zeros.counted())
            if stack is not planes and not np.shares_memory(stack, planes):
                planes[...] = stack
            counts[channel] = counts.get(channel, PixelCounts()) + met
        return Processed((data,), counts, noise)

    def blank(self, data: NDArray[Any], box: Box) -> None:
        """Make the pixels of a box 0 that belong to no tile, where that is asked for."""
        outside = self.layout.outside(box[-2], box[-1]) if self.blank_outside else None
        if outside is not None:
            data[..., outside] = 0

    def zeros(
        self, source: PixelSource, lead: dict[str, int], where: ZYX, stack: NDArray[Any]
    ) -> Zeros:
        """The zeros of raw planes (n, y, x), as far as the pixels decide what they are."""
        if not self.look.looks(lead["c"]):
            return Zeros()
        z, y, x = where
        return self.look.zeros(source, lead, z, (y, x), stack)

    def every_zero_is_no_data(self, channel: int) -> bool:
        """Whether all raw zeros of a channel stay 0."""
        return self.look.rules[channel] == "no_data"

    def noise(
        self, lead: dict[str, int], where: ZYX, stack: NDArray[Any], zeros: Zeros
    ) -> Iterator[tuple[str, str]]:
        """The noise of those raw planes (n, y, x) that are looked at, with the model's label."""
        if self.offset_look is None:
            return
        none = self.every_zero_is_no_data(lead["c"])
        name_of, skipped = partial(self._name, lead["c"]), None if none else zeros.without_data
        for name, piece, run in self.offset_look.pieces(lead, where, self.layout, name_of, skipped):
            dark = self.corrections[name].dark
            yield name, self.offset_look.noise(stack, piece, run, dark, zero_is_no_data=none)

    def correct(
        self, channel: int, yx: tuple[slice, slice], stack: NDArray[Any], zeros: Zeros
    ) -> PixelCounts:
        """Correct planes (n, y, x) in place.

        Args:
            channel: of the planes.
            yx: where they lie.
            stack: contiguous; the raw pixels, in the type of the result.
            zeros: of the raw pixels.
        """
        none = self.every_zero_is_no_data(channel)
        linear = self._painted(channel, *yx)
        return correct(stack, linear, zero_is_no_data=none, without_data=zeros.without_data)

    def _name(self, channel: int, piece: Piece) -> str:
        names = self.profile_names
        return names.get((channel, piece.tile.number)) or names[channel, None]

    def _painted(self, channel: int, y: slice, x: slice) -> Linear:
        def correction_of(piece: Piece) -> TileCorrection:
            gain = self.tile_gains.get((channel, piece.tile.number), 1.0)
            return replace(self.corrections[self._name(channel, piece)], tile_gain=gain)

        return paint(self.layout.pieces(y, x), correction_of, (y.stop - y.start, x.stop - x.start))


def flatfield_kernel(
    image: MultitileImage,
    models: Mapping[str, ChannelModel],
    options: EstimationOptions,
    gains: ImageGains | None = None,
) -> FlatfieldKernel:
    """Fold the models, and the gains of tiles, into what is done to each pixel."""
    corrections = {
        label: model.correction(
            image.layout.tile_shape,
            subtract_baseline=options.subtract_baseline,
            output_offset=options.output_offset,
        )
        for label, model in models.items()
    }
    groups, auto = image.model_groups, options.zero_is == "auto"
    # No camera gives 0 before its offset is gone; after that a raw 0 may be a measurement.
    subtracts = {group.channel.index for group in groups if models[group.label].subtracts}
    rules: list[ZeroRule] = [
        "no_data" if auto and channel.index in subtracts else zero_rule(options.zero_is)
        for channel in image.channels
    ]
    look = ZeroLook(image.axes, (image.layout,), tuple(rules))
    tile_gains = {
        (channel, number): own.factor(number)
        for channel, own in (gains or {}).items()
        for number in own.tiles
    }
    names = profile_names(image)
    return FlatfieldKernel(
        image.axes, image.layout, corrections, names, look, tile_gains=tile_gains
    )


def profile_names(image: MultitileImage) -> dict[tuple[int, int | None], str]:
    """The label of the model of each channel and tile; tile number None stands for all tiles."""
    return {
        (group.channel.index, tile): group.label
        for group in image.model_groups
        for tile in (None, *group.planes)
    }


@dataclass(frozen=True)
class CopyKernel:
    """No correction: pixels go as they are.

    Attributes:
        axes: of the image.
        zero_is_no_data: by channel; only for the contrast windows.
    """

    axes: Axes
    zero_is_no_data: dict[int, bool]

    besides: ClassVar[Sequence[StoredArray]] = ()
    companions: ClassVar[Sequence[str]] = ()
    shared_bytes: ClassVar[int] = 0

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        return 0

    def process(self, source: MultitileImage, box: Box) -> Processed:
        data = source.read_block(box)
        counts: dict[int, PixelCounts] = {}
        for lead, _, planes in channel_stacks(data, self.axes, box):
            channel = lead["c"]
            counts[channel] = counts.get(channel, PixelCounts()) + PixelCounts(planes.size)
        return Processed((data,), counts)
