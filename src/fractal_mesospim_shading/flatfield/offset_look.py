"""Planes that a correction looks at on its way, to tell whether a given offset fits.

Pairs spread over tiles and depths, as many as tell an offset well, whatever the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import NOISE_BINS, choose_bin
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.flatfield.camera_offset import OFFSET_PIXELS
from fractal_mesospim_shading.flatfield.sampling import drawn_planes, every_plane, plane_count
from fractal_mesospim_shading.images.models.frames import DarkFrame
from fractal_mesospim_shading.images.source import MultitileImage

# Tiles whose planes are looked at, at least, where there are so many; height of a stripe of such a
# tile in pixels, unless a square of the noise grid is higher; and stripes of a tile, at least.
_LEAST_TILES = 4
_STRIPE_PX = 128
_LEAST_STRIPES = 4

ZYX = tuple[slice, slice, slice]
"""Where planes lie in an image."""


@dataclass(frozen=True)
class OffsetLook:
    """Planes whose noise is taken on the way.

    Attributes:
        labels: of the models whose offset is looked at.
        planes: channel -> tile -> planes; those of later time points go on counting.
        depth: planes of one time point.
        bin_px: side of the bins.
        every: of so many stripes of rows of a tile one is looked at; a pair of planes of a large
            tile holds more pixels than are needed.
    """

    labels: frozenset[str]
    planes: Mapping[int, Mapping[int, frozenset[int]]]
    depth: int
    bin_px: int
    every: int = 1

    def pieces(
        self,
        lead: Mapping[str, int],
        zyx: ZYX,
        layout: TileLayout,
        name_of: Callable[[Piece], str],
        without_data: NDArray[np.bool_] | None,
    ) -> Iterator[tuple[str, Piece, slice]]:
        """Parts of tiles of a block, each with a run of neighbouring planes to look at.

        Args:
            lead: index along t and c.
            zyx: where the block lies.
            layout: of the tiles.
            name_of: the label of the model of a part.
            without_data: (n, y, x), pixels that are no data; parts that hold one are left out.

        Yields:
            The label, the part, and the planes, counted from the first of the block.
        """
        z, *yx = zyx
        tiles = self.planes.get(lead["c"], {})
        first = lead["t"] * self.depth + z.start
        for piece in layout.pieces(*yx):
            of_tile = tiles.get(piece.tile.number, frozenset())
            chosen = [k for k in range(z.stop - z.start) if first + k in of_tile]
            if not chosen or name_of(piece) not in self.labels:
                continue
            for _, run in groupby(enumerate(chosen), key=lambda pair: pair[1] - pair[0]):
                numbers = [k for _, k in run]
                planes = slice(numbers[0], numbers[-1] + 1)
                for part in self._stripes(piece):
                    if without_data is None or not without_data[(planes, *part.in_box)].any():
                        yield name_of(piece), part, planes

    def _stripes(self, piece: Piece) -> Iterator[Piece]:
        """What of a part of a tile is looked at; stripes lie in the tile, wherever blocks are."""
        if self.every == 1:
            yield piece
            return
        height = _stripe_px(self.bin_px)
        (rows, columns), in_box = piece.in_tile, piece.in_box
        for number in range(rows.start // height, -(-rows.stop // height)):
            start, stop = max(rows.start, number * height), min(rows.stop, (number + 1) * height)
            if (number + piece.tile.number) % self.every == 0:
                shift = in_box[0].start - rows.start
                own = slice(start + shift, stop + shift)
                yield Piece(piece.tile, (slice(start, stop), columns), (own, in_box[1]))

    def noise(
        self,
        stack: NDArray[Any],
        piece: Piece,
        planes: slice,
        dark: DarkFrame,
        *,
        zero_is_no_data: bool,
    ) -> str:
        """The noise of a part of a tile, as text for the journal.

        Args:
            stack: (n, y, x) raw pixels of the block.
            piece, planes: from `pieces`.
            dark: what is subtracted from the pixels of a tile.
            zero_is_no_data: leave out pixels of 0.
        """
        from fractal_mesospim_shading.core.flatfield.offset_check import NoisePiece

        origin = (piece.in_tile[0].start, piece.in_tile[1].start)
        block = np.ascontiguousarray(stack[(planes, *piece.in_box)])
        own = dark[piece.in_tile] if isinstance(dark, np.ndarray) else dark
        part = NoisePiece.of(block, origin, self.bin_px, own, zero_is_no_data=zero_is_no_data)
        return part.to_text()


def _stripe_px(bin_px: int) -> int:
    """Height of a stripe, of whole squares: both are powers of two."""
    return max(_STRIPE_PX, NOISE_BINS * bin_px)


def offset_look(image: MultitileImage, labels: Collection[str], parts: int) -> OffsetLook:
    """Choose the planes to look at.

    Args:
        image: that is corrected.
        labels: of the models whose offset is looked at.
        parts: images that share one budget.
    """
    planes: dict[int, dict[int, frozenset[int]]] = {}
    tile_pixels = prod(image.layout.tile_shape)
    budget = max(OFFSET_PIXELS // max(parts, 1), 1)
    # Pairs in several tiles, of which stripes are enough where tiles are large.
    number = max(budget // tile_pixels, 2 * min(len(image.layout.tiles), _LEAST_TILES))
    most = 1
    for group in image.model_groups:
        refs = drawn_planes(image, every_plane(image, group), 0, number, 0, in_pairs=True)
        tiles = planes.setdefault(group.channel.index, {})
        of_tiles: dict[int, list[int]] = {}
        for tile, z in refs:
            of_tiles.setdefault(tile, []).append(z)
        tiles |= {tile: frozenset(own) for tile, own in of_tiles.items()}
        most = max(most, sum(len(own) for own in tiles.values()))
    bin_px = choose_bin(image.layout.tile_shape)
    stripes = image.layout.tile_shape[0] // _stripe_px(bin_px)
    every = max(1, min(most * tile_pixels // budget, stripes // _LEAST_STRIPES))
    return OffsetLook(frozenset(labels), planes, plane_count(image, 0), bin_px, every)
