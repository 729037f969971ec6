"""What the pass over an image says of the offset that it subtracts.

A given offset, and one that came with a model, is held against planes that the pass reads anyway:
pairs spread over all tiles and depths, as many as tell an offset well, whatever the size of the
image. Their noise goes into the journal with the blocks, and is judged when all of them are done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.flatfield.binning import choose_bin
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.flatfield.camera_offset import (
    OFFSET_PIXELS,
    doubt_text,
    harm_to_flatfield,
)
from fractal_mesospim_shading.flatfield.estimation import drawn_planes, every_plane
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.flatfield.sampling import plane_count
from fractal_mesospim_shading.images.source import MultitileImage

Dark = NDArray[np.float32] | float

_MOST_UNEXPLAINED = 0.01
"""Share of pixels below the offset beyond what noise explains."""

_MOST_BELOW = 0.5
"""Share of the pixels of an image below the offset that noise explains at most."""

_WORTH_A_LINE = 0.001
"""Share of pixels that became 0 from which on that is said."""


@dataclass(frozen=True)
class OffsetLook:
    """Planes whose noise is taken on the way.

    Attributes:
        labels: of the models whose offset is looked at.
        planes: channel -> tile -> planes; those of later time points go on counting.
        depth: planes of one time point.
        bin_px: side of the bins.
    """

    labels: frozenset[str]
    planes: Mapping[int, Mapping[int, frozenset[int]]]
    depth: int
    bin_px: int

    def pieces(
        self,
        lead: Mapping[str, int],
        zyx: tuple[slice, slice, slice],
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
        wanted = self.planes.get(lead["c"], {})
        first = lead["t"] * self.depth + z.start
        for piece in layout.pieces(*yx):
            there = wanted.get(piece.tile.number, frozenset())
            chosen = [k for k in range(z.stop - z.start) if first + k in there]
            if not chosen or name_of(piece) not in self.labels:
                continue
            for _, run in groupby(enumerate(chosen), key=lambda pair: pair[1] - pair[0]):
                planes = [k for _, k in run]
                found = slice(planes[0], planes[-1] + 1)
                if without_data is None or not without_data[(found, *piece.in_box)].any():
                    yield name_of(piece), piece, found

    def noise(
        self,
        stack: NDArray[Any],
        piece: Piece,
        planes: slice,
        dark: Dark,
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
        found = NoisePiece.of(block, origin, self.bin_px, own, zero_is_no_data=zero_is_no_data)
        return found.to_text()


def offset_look(image: MultitileImage, labels: Collection[str], parts: int) -> OffsetLook:
    """Choose the planes to look at.

    Args:
        image: that is corrected.
        labels: of the models whose offset is looked at.
        parts: images that share one budget.
    """
    planes: dict[int, dict[int, frozenset[int]]] = {}
    share = max(OFFSET_PIXELS // max(parts, 1) // prod(image.layout.tile_shape), 2)
    for group in image.model_groups:
        refs = drawn_planes(image, every_plane(image, group), 0, share, seed=0)
        found = planes.setdefault(group.channel.index, {})
        for tile in {tile for tile, _ in refs}:
            found[tile] = frozenset(z for other, z in refs if other == tile)
    return OffsetLook(
        frozenset(labels), planes, plane_count(image, 0), choose_bin(image.layout.tile_shape)
    )


def is_given(model: ChannelModel) -> bool:
    """Whether the offset of a model was not estimated from the image that it corrects."""
    return model.corrects and (
        model.facts.get("origin") is not None or "offset_uncertainty" not in model.facts
    )


def judge(model: ChannelModel, texts: Sequence[str], counts: PixelCounts) -> str | None:
    """What speaks against an offset at the end of a pass; None where nothing does.

    Args:
        model: that the pixels were corrected with.
        texts: the noise found on the way, in an order that is always the same.
        counts: of all pixels of its channel.
    """
    lost = counts.clipped_low / max(counts.pixels, 1)
    doubt = _doubt(model, texts, lost)
    if doubt is not None or lost <= _MOST_BELOW + _MOST_UNEXPLAINED:
        return doubt
    return (
        f"{100 * lost:.0f} % of all pixels are darker than the camera offset of "
        f"{model.facts['offset']:.4g} counts and became 0; noise explains half at most. Give the "
        "right `camera_offset` or `darkfield_file`."
    )


def lost_to_noise(counts: PixelCounts) -> str | None:
    """A plain line about pixels that noise took below the offset; None where they are few."""
    lost = counts.clipped_low / max(counts.pixels, 1)
    if lost < _WORTH_A_LINE:
        return None
    return (
        f"{100 * lost:.2g} % of the pixels are darker than the camera offset, as their noise "
        "explains, and became 0. `output_offset` keeps them."
    )


def _doubt(model: ChannelModel, texts: Sequence[str], lost: float) -> str | None:
    if not texts:
        return None
    from fractal_mesospim_shading.core.flatfield.offset import offset_of_squares
    from fractal_mesospim_shading.core.flatfield.offset_check import (
        NoisePiece,
        doubt_offset,
        joined,
        shifted,
        unexplained_below,
    )

    facts = model.facts
    given = float(facts["offset"])
    squares, below = joined([NoisePiece.from_text(text) for text in texts])
    raw = shifted(squares, given)
    # The noise of the planes of an estimate at full resolution has been looked at.
    looked = facts.get("level") == 0
    doubt = doubt_offset(raw, given, None if looked else offset_of_squares(raw))
    if doubt is not None:
        if "level" in facts:
            brightness = float(np.nanmedian(raw.noise_mean))
            harm = harm_to_flatfield(doubt, model.profile.flatfield, brightness)
        else:
            left = 0.0 if doubt.noise is None else doubt.noise.value - given
            harm = _harm_to_pixels(model, left, lost)
        return doubt_text(doubt, facts, harm)
    unexplained = unexplained_below(squares, below)
    if unexplained <= _MOST_UNEXPLAINED:
        return None
    return (
        f"{100 * unexplained:.0f} % of the pixels are darker than the camera offset of {given:.4g} "
        "counts beyond what their noise explains. Give the right `camera_offset` or "
        "`darkfield_file`."
    )


def _harm_to_pixels(model: ChannelModel, left: float, lost: float) -> str:
    """What a wrong offset does to the pixels."""
    if left <= 0:
        return f"what is as dark is too dark now, and {100 * lost:.2g} % of the pixels became 0"
    low, high = np.percentile(left / model.profile.flatfield, [1, 99])
    return (
        f"{left:.0f} counts are left under all pixels, and the flat-field makes {low:.0f} to "
        f"{high:.0f} of them"
    )
