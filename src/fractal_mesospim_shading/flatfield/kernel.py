"""What the flat-field correction does to a box of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from fractal_mesospim_shading.core.correct import (
    Linear,
    PixelCounts,
    TileCorrection,
    correct,
    paint,
)
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.engine.plan import Processed, channel_stacks
from fractal_mesospim_shading.engine.zero_look import ZeroLook, Zeros
from fractal_mesospim_shading.flatfield.offset_look import OffsetLook
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.source import Axes, MultitileImage


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
    """

    axes: Axes
    layout: TileLayout
    corrections: dict[str, TileCorrection]
    profile_names: dict[tuple[int, int | None], str]
    look: ZeroLook
    blank_outside: bool = False
    offset_look: OffsetLook | None = None

    @property
    def zero_is_no_data(self) -> dict[int, bool]:
        """By channel, for the contrast windows."""
        return self.look.may_be_no_data

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        """What a block needs beside the pixels that it writes."""
        return self.look.working_bytes(source)

    @property
    def besides(self) -> Sequence[StoredArray]:
        return ()

    @property
    def companions(self) -> Sequence[str]:
        return ()

    @property
    def shared_bytes(self) -> int:
        """Flat-field and dark-field of each profile, float32."""
        return 2 * 4 * len(self.corrections) * prod(self.layout.tile_shape)

    def process(self, source: MultitileImage, box: Box) -> Processed:
        data = source.read(0, box)
        outside = self.layout.outside(box[-2], box[-1]) if self.blank_outside else None
        if outside is not None:
            data[..., outside] = 0
        counts: dict[int, PixelCounts] = {}
        noise: dict[str, list[str]] = {}
        for lead, z, planes in channel_stacks(data, self.axes, box):
            channel = lead["c"]
            linear = self._painted(channel, box[-2], box[-1])
            stack = np.ascontiguousarray(planes)
            zeros = Zeros()
            if self.look.looks(channel):
                zeros = self.look.zeros(source, lead, z, (box[-2], box[-1]), stack)
            none = self.look.rules[channel] == "no_data"
            if self.offset_look is not None:
                name_of = partial(self._name, channel)
                skipped = None if none else zeros.without_data
                where = (z, box[-2], box[-1])
                pieces = self.offset_look.pieces(lead, where, self.layout, name_of, skipped)
                for name, piece, run in pieces:
                    dark = self.corrections[name].dark
                    text = self.offset_look.noise(stack, piece, run, dark, zero_is_no_data=none)
                    noise.setdefault(name, []).append(text)
            found = correct(stack, linear, zero_is_no_data=none, without_data=zeros.without_data)
            found += PixelCounts(**zeros.counted())
            if stack is not planes and not np.shares_memory(stack, planes):
                planes[...] = stack
            counts[channel] = counts.get(channel, PixelCounts()) + found
        return Processed((data,), counts, noise)

    def _name(self, channel: int, piece: Piece) -> str:
        names = self.profile_names
        return names.get((channel, piece.tile.number)) or names[channel, None]

    def _painted(self, channel: int, y: slice, x: slice) -> Linear:
        def correction_of(piece: Piece) -> TileCorrection:
            return self.corrections[self._name(channel, piece)]

        return paint(self.layout.pieces(y, x), correction_of, (y.stop - y.start, x.stop - x.start))


@dataclass(frozen=True)
class CopyKernel:
    """No correction: pixels go as they are.

    Attributes:
        axes: of the image.
        zero_is_no_data: by channel; only for the contrast windows.
    """

    axes: Axes
    zero_is_no_data: dict[int, bool]

    @property
    def besides(self) -> Sequence[StoredArray]:
        return ()

    @property
    def companions(self) -> Sequence[str]:
        return ()

    @property
    def shared_bytes(self) -> int:
        return 0

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        return 0

    def process(self, source: MultitileImage, box: Box) -> Processed:
        data = source.read(0, box)
        counts: dict[int, PixelCounts] = {}
        for lead, _, planes in channel_stacks(data, self.axes, box):
            channel = lead["c"]
            counts[channel] = counts.get(channel, PixelCounts()) + PixelCounts(planes.size)
        return Processed((data,), counts)
