"""Which zeros of the planes of an image are no data, looked at only where zeros occur.

Whether a 0 in a block belongs to a margin, or to a plane that is 0 throughout, takes the whole
plane of its tile. Blocks without a 0 read nothing for it. Where a block holds whole tiles, or
whole planes are read for its background, they are at hand; else all planes of the tile in the same
chunks are read once in each process, chunk by chunk. What was found is kept for the other blocks.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.blocks import cut
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.layout import Piece, Tile, TileLayout
from fractal_mesospim_shading.core.threads import Kept
from fractal_mesospim_shading.core.zeros import (
    DataBox,
    ZeroIs,
    ZeroRule,
    ZeroTally,
    data_box,
    zero_rule,
)
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.mosaic import MARK, MosaicImage
from fractal_mesospim_shading.images.source import Axes, MultitileImage, PixelSource

logger = logging.getLogger(__name__)

NO_DATA = "no_data"
"""In our mark: by channel label, whether a result holds pixels without data."""

_TALLY_BYTES = 64 * 2**20
"""What is gathered of a tile at a time."""

_kept: Kept[tuple[DataBox, ...]] = Kept(1024)

_MOST_AT_HAND = 2**14
_at_hand: OrderedDict[Hashable, DataBox] = OrderedDict()
"""Of planes of tiles that were at hand as a whole, the last ones of this process."""


@dataclass(frozen=True)
class Zeros:
    """The zeros of a plane or of some planes.

    Attributes:
        without_data: (y, x) or (n, y, x), True for those that are no data; None where none are.
        values: the same for those that the pixels say are values.
        blocks: one pixel, as an index, of each block of zeros that is worth a word, see
            `DataBox.blocks`; a block that reaches further has it in one part alone.
    """

    without_data: NDArray[np.bool_] | None = None
    values: NDArray[np.bool_] | None = None
    blocks: tuple[tuple[int, ...], ...] = ()

    def like(self, pixels: NDArray[Any]) -> Zeros:
        """The same, of planes (n, y, x), in the shape of one plane where the pixels are one."""
        if pixels.ndim == 3:
            return self
        without = None if self.without_data is None else self.without_data[0]
        values = None if self.values is None else self.values[0]
        return Zeros(without, values, tuple(index[1:] for index in self.blocks))

    def counted(self, keep: tuple[slice, ...] | None = None) -> dict[str, int]:
        """Values of 0, and blocks of them, in a part; by their names in `PixelCounts`."""
        if self.values is None:
            return {}
        if keep is None:
            keep = tuple(slice(0, size) for size in self.values.shape)
        blocks = sum(
            all(part.start <= at < part.stop for part, at in zip(keep, index, strict=True))
            for index in self.blocks
        )
        return {"zeros": int(np.count_nonzero(self.values[keep])), "zero_blocks": blocks}


@dataclass(frozen=True)
class ZeroLook:
    """What is done about zeros.

    Attributes:
        axes: of the image.
        layouts: whose planes are looked at: the tiles, and, where a correction goes across them,
            the whole plane.
        rules: by channel.
        held: whether a channel holds pixels without data at all, where that is not known before
            its pixels are read: asked where `margins` would take some zeros for such.
        run: tells apart what runs in the same process keep.
    """

    axes: Axes
    layouts: tuple[TileLayout, ...]
    rules: tuple[ZeroRule, ...]
    held: Callable[[int], bool] | None = None
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def zeros(
        self,
        source: PixelSource,
        lead: dict[str, int],
        z: slice,
        yx: tuple[slice, slice],
        pixels: NDArray[Any],
    ) -> Zeros:
        """The zeros of a box of one channel and time point.

        Args:
            source: to look at more of it, where that is needed.
            lead: index along t and c.
            z, yx: where the pixels lie in the image.
            pixels: (n, y, x), as they are in the source.

        Raises:
            SourceReadError: a chunk of the tile cannot be read.
        """
        rule = self.rules[lead["c"]]
        if rule == "data":
            return Zeros()
        zero = np.asarray(pixels == 0)
        if rule == "no_data" or not zero.any():
            return Zeros(_some(zero))
        without = np.zeros(zero.shape, np.bool_)
        blocks: list[tuple[int, int, int]] = []
        outside = self.layouts[0].outside(*yx)
        for n in np.flatnonzero(zero.any(axis=(1, 2))):
            if outside is not None:
                without[n] = outside
            for number, layout in enumerate(self.layouts):
                for piece in layout.pieces(*yx):
                    if not zero[n][piece.in_box].any():
                        continue
                    own = pixels[n][piece.in_box]
                    box = self._box(source, lead, z.start + int(n), number, piece, own)
                    without[n][piece.in_box] |= box.outside(*piece.in_tile)
                    if number == 0:
                        blocks += [(int(n), *at) for at in _within(box, piece)]
        values, without = zero & ~without, zero & without
        if self.held is not None and without.any() and not self.held(lead["c"]):
            return Zeros()
        return Zeros(_some(without), _some(values), tuple(blocks))

    def of_stack(self, channels: Sequence[int], axes: Axes, layout: TileLayout) -> ZeroLook:
        """The same for an image that holds some of the channels, in its own order."""
        return ZeroLook(axes, (layout,), tuple(self.rules[channel] for channel in channels))

    def looks(self, channel: int) -> bool:
        """Whether the pixels of a channel are asked."""
        return self.rules[channel] in ("look", "margins")

    @property
    def may_be_no_data(self) -> dict[int, bool]:
        """By channel, whether a 0 may be no data."""
        return {channel: rule != "data" for channel, rule in enumerate(self.rules)}

    def working_bytes(self, source: PixelSource) -> int:
        """What looking at a tile takes at a time, beside the block."""
        if not any(map(self.looks, range(len(self.rules)))):
            return 0
        shape = self.layouts[-1].tile_shape
        depth = self._depth(source, shape)
        tally = depth * ZeroTally.bytes_a_plane(shape, source.dtype)
        return tally + 2 * prod(source.read_grain()) * source.dtype.itemsize

    def _box(
        self,
        source: PixelSource,
        lead: dict[str, int],
        z: int,
        number: int,
        piece: Piece,
        own: NDArray[Any],
    ) -> DataBox:
        """Where a plane of a tile holds data, from its pixels where all are at hand."""
        tile, shape = piece.tile, self.layouts[number].tile_shape
        whose = (self.run, lead["t"], lead["c"], number, tile.y, tile.x)
        if own.shape == shape:
            return _remembered((*whose, z), data_box(own, self.rules[lead["c"]]))
        if (known := _at_hand.get((*whose, z))) is not None:
            return known
        depth = self._depth(source, shape)
        slab = z // depth
        planes = slice(slab * depth, min((slab + 1) * depth, self._planes(source)))
        boxes = _kept.get(
            (*whose, slab), lambda: self._looked_at(source, lead, planes, tile, shape)
        )
        return boxes[z - planes.start]

    def _looked_at(
        self,
        source: PixelSource,
        lead: dict[str, int],
        planes: slice,
        tile: Tile,
        shape: tuple[int, int],
    ) -> tuple[DataBox, ...]:
        """Read planes of a tile chunk by chunk."""
        tally = ZeroTally(planes.stop - planes.start, shape, source.dtype)
        grain = source.read_grain()
        yx = (slice(tile.y, tile.y + shape[0]), slice(tile.x, tile.x + shape[1]))
        for y, x in cut(yx, grain[-2:]):
            pixels = source.read(0, self._where(lead, planes, y, x))
            part = pixels.reshape((-1, *pixels.shape[-2:]))
            tally.add(part, y.start - tile.y, x.start - tile.x)
        return tally.boxes(self.rules[lead["c"]])

    def _where(self, lead: dict[str, int], z: slice, y: slice, x: slice) -> Box:
        place = {axis: slice(i, i + 1) for axis, i in lead.items()} | {"z": z, "y": y, "x": x}
        return self.axes.box(place)

    def _depth(self, source: PixelSource, shape: tuple[int, int]) -> int:
        """Planes of a tile that are looked at together: those of a chunk, as far as they fit."""
        chunk = self.axes.length("z", source.read_grain())
        room = _TALLY_BYTES // ZeroTally.bytes_a_plane(shape, source.dtype)
        return int(max(1, min(chunk, room)))

    def _planes(self, source: PixelSource) -> int:
        return self.axes.length("z", source.levels[0].shape)


def zero_look(
    image: MultitileImage,
    zero_is: ZeroIs,
    layout: TileLayout,
    held: Mapping[str, bool] | None = None,
) -> ZeroLook:
    """What a background correction does about the zeros of an image.

    Args:
        image: the source.
        zero_is: as a person says it.
        layout: the planes that are corrected, each by itself: the tiles, or the whole plane.
        held: by channel label, whether the image holds pixels without data, where that is known:
            for `auto` it decides before the pixels do.
    """
    known = held or {}
    rules = tuple(zero_rule(zero_is, known.get(channel.label)) for channel in image.channels)
    layouts = (image.layout,) if layout == image.layout else (image.layout, layout)
    return ZeroLook(image.axes, layouts, rules)


def tell_held(held: Mapping[str, bool]) -> None:
    """Say what an image says of its zeros, by channel label."""
    for label, some in held.items():
        what = "planes and margins of 0 are no data" if some else "every 0 is a value"
        logger.info("Channel %s: %s, as the correction says that made the image.", label, what)


def no_data_held(image: MosaicImage, names: Mapping[str, str] | None = None) -> dict[str, bool]:
    """By channel label, whether a result of this package holds pixels without data.

    Empty for images that are none, and of results that do not say.

    Args:
        image: any.
        names: by channel label, what the result calls the channel; None for its label.
    """
    mark = image.attributes().get(MARK)
    said = mark.get(NO_DATA) if isinstance(mark, Mapping) else None
    if not isinstance(said, Mapping):
        return {}
    held = {label: some for label, some in said.items() if isinstance(some, bool)}
    if len(held) == len(image.channels) == 1:
        # A stack of an acquisition is named with its side there.
        return {image.channels[0].label: next(iter(held.values()))}
    if names is not None:
        return {label: held[name] for label, name in names.items() if name in held}
    return held


def no_data_met(counts: Mapping[str, PixelCounts]) -> dict[str, bool]:
    """Whether a correction met pixels without data, which are 0 in its result too."""
    return {label: found.no_data > 0 for label, found in counts.items()}


def about_blocks(number: int) -> str:
    """What there is to say of blocks of zeros that were taken for values."""
    blocks = "1 block" if number == 1 else f"{number} blocks"
    return (
        f"{blocks} of more than 32 x 32 zeros (counted in each plane), beside data far above 0, "
        "taken for values. If data were lost there, or it is the black margin of a turned image, "
        "`zero_is=no_data` leaves all zeros out."
    )


def tell_zeros(counts: Mapping[str, PixelCounts]) -> None:
    """Say what pixels of 0 were taken for, where there were any.

    Args:
        counts: of a whole job, by channel label.
    """
    for label, found in counts.items():
        share = 100 / max(found.pixels, 1)
        if found.no_data:
            logger.info(
                "Channel %s: %d pixels (%.2f %%) were taken for no data and stay 0.",
                label,
                found.no_data,
                share * found.no_data,
            )
        if found.zeros:
            logger.info(
                "Channel %s: %d pixels of 0 (%.2f %%) were taken for values.",
                label,
                found.zeros,
                share * found.zeros,
            )
        if found.zero_blocks:
            logger.info("Channel %s: %s", label, about_blocks(found.zero_blocks))


def _remembered(key: Hashable, box: DataBox) -> DataBox:
    _at_hand[key] = box
    if len(_at_hand) > _MOST_AT_HAND:
        _at_hand.popitem(last=False)
    return box


def _some(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    return mask if mask.any() else None


def _within(box: DataBox, piece: Piece) -> list[tuple[int, int]]:
    """The blocks whose pixel lies in a piece, as (y, x) of the box that the piece is part of."""
    rows, columns = piece.in_tile
    return [
        (y - rows.start + piece.in_box[0].start, x - columns.start + piece.in_box[1].start)
        for y, x in box.blocks
        if rows.start <= y < rows.stop and columns.start <= x < columns.stop
    ]
