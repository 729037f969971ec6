"""Planes read in boxes of whole chunks, each chunk once, and reduced to bins as they come."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.blocks import grouped
from fractal_mesospim_shading.core.flatfield.binning import (
    BinnedPlanes,
    BinnedStack,
    PartialBins,
    Zeros,
    bin_block,
)
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.threads import freed_memory_kept, in_order
from fractal_mesospim_shading.engine.progress import Progress
from fractal_mesospim_shading.flatfield.sampling import PlaneRef, layout_at_level, plane_count
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.models.frames import DarkFrame
from fractal_mesospim_shading.images.source import MultitileImage

_BOX_BYTES = 8 * 2**20
"""Small chunks are read together up to this many bytes."""

_LEAST_GAP = 4
"""So many planes that are not wanted are left out where their chunks are decoded in parts: blocks
of an encoding may hold a few planes, and are decoded for each run of planes that reaches into them.
"""


@dataclass(frozen=True)
class Sample:
    """Planes of one channel of an image at one level of the pyramid.

    Attributes:
        image: to read from.
        channel: index along c.
        level: of the pyramid.
        planes: which, sorted by tile and plane.
        bin_px: side of a bin in pixels; None for what an estimate needs.
    """

    image: MultitileImage
    channel: int
    level: int
    planes: tuple[PlaneRef, ...]
    bin_px: int | None = None

    @cached_property
    def layout(self) -> TileLayout:
        """Where the tiles lie at that level."""
        return layout_at_level(self.image, self.level)

    @cached_property
    def slots(self) -> dict[PlaneRef, int]:
        """The place of each plane among all."""
        return {plane: slot for slot, plane in enumerate(self.planes)}

    def read(
        self,
        *,
        dark: DarkFrame | None,
        zero_is_no_data: bool,
        workers: int,
        zeros: Zeros = np.zeros,
    ) -> BinnedStack:
        """Read the planes and reduce them to bins.

        Args:
            dark: measured dark frame of a tile at this level, or a number, in counts.
            zero_is_no_data: leave out pixels of raw value 0.
            workers: boxes read at a time.
            zeros: makes the arrays that hold all bins.

        Raises:
            SourceReadError: a chunk cannot be read.
        """
        binned = BinnedPlanes(len(self.planes), self.layout.tile_shape, self.bin_px, zeros)

        def reduced(box: Box) -> list[tuple[PartialBins, list[int]]]:
            return list(self._reduced(box, binned.bin_px, dark, zero_is_no_data))

        boxes = list(self.boxes())
        progress = Progress(len(boxes), doing="Reading planes", unit="part")
        with freed_memory_kept, progress:
            # Added here and in order, so that sums of floats do not depend on the workers.
            for parts in in_order(reduced, boxes, workers):
                for partial, slots in parts:
                    binned.add(partial, slots)
                progress.advance()
        return binned.finish(integer=np.issubdtype(self.image.dtype, np.integer))

    def boxes(self) -> Iterator[Box]:
        """Boxes of whole chunks that hold the planes, none of them twice."""
        image, shape = self.image, self.image.levels[self.level].shape
        n_z = plane_count(image, self.level)
        pixels = max(1, _BOX_BYTES // image.dtype.itemsize)
        units = grouped(tuple(image.read_units(self.level)), shape, pixels, axes=2)
        # At least two, for pairs of planes tell the noise from the fixed pattern.
        depth = max(2, image.axes.length("z", units))
        slabs: dict[tuple[int, int], dict[int, list[int]]] = {}
        for tile, plane in self.planes:
            time, z = divmod(plane, n_z)
            slabs.setdefault((time, z // depth), {}).setdefault(tile, []).append(z)
        for (time, _), tiles in sorted(slabs.items()):
            planes = [z for chosen in tiles.values() for z in chosen]
            spans = {"t": slice(time, time + 1), "c": slice(self.channel, self.channel + 1)}
            spans["z"] = slice(min(planes), max(planes) + 1)
            for y, x in self.layout.boxes_of(tiles, units[-2:]):
                yield image.axes.box({**spans, "y": y, "x": x})

    def read_bytes(self) -> int:
        """Bytes of the pixels of all chunks that hold some of it, whatever of them is decoded."""
        return sum(self._in_chunks(box) for box in self.boxes()) * self.image.dtype.itemsize

    def _in_chunks(self, box: Box) -> int:
        """Pixels of the chunks that a box lies in."""
        units, shape = self.image.read_units(self.level), self.image.levels[self.level].shape
        return prod(
            min(-(-part.stop // unit) * unit, size) - part.start // unit * unit
            for part, unit, size in zip(box, units, shape, strict=True)
        )

    def _reduced(
        self, box: Box, bin_px: int, dark: DarkFrame | None, zero_is_no_data: bool
    ) -> Iterator[tuple[PartialBins, list[int]]]:
        """The planes of each tile in a box, in bins, and their places."""
        first = self.image.axes.span("t", box).start * plane_count(self.image, self.level)
        pieces = list(self.layout.pieces(box[-2], box[-1]))
        depth = self.image.axes.span("z", box)
        wanted = {
            z
            for z in range(depth.start, depth.stop)
            if any((piece.tile.number, first + z) in self.slots for piece in pieces)
        }
        runs = runs_of(wanted, _LEAST_GAP if self._apart else depth.stop)
        parts = [self._planes(box, run) for run in runs]
        planes = parts[0] if len(parts) == 1 else np.concatenate(parts)
        for piece in pieces:
            refs = [(piece.tile.number, first + z) for run in runs for z in run]
            inside = [k for k, ref in enumerate(refs) if ref in self.slots]
            if not inside:
                continue
            together = len(inside) == inside[-1] - inside[0] + 1
            place = slice(inside[0], inside[-1] + 1) if together else np.array(inside)
            block = planes[(place, *piece.in_box)]
            frame = dark[piece.in_tile] if isinstance(dark, np.ndarray) else dark
            y0, x0 = piece.in_tile[0].start, piece.in_tile[1].start
            partial = bin_block(block, y0, x0, bin_px, frame, zero_is_no_data)
            yield partial, [self.slots[refs[k]] for k in inside]

    @cached_property
    def _apart(self) -> bool:
        """Whether planes are decoded without those between them."""
        return self.image.planes_apart(self.level)

    def _planes(self, box: Box, run: range) -> NDArray[Any]:
        """Some planes of a box, (n, y, x)."""
        spans = dict(zip(self.image.axes, box, strict=True)) | {"z": slice(run.start, run.stop)}
        pixels = self.image.read(self.level, self.image.axes.box(spans))
        return pixels.reshape((-1, *pixels.shape[-2:]))


def runs_of(planes: Collection[int], gap: int) -> list[range]:
    """Planes as ranges that hold all of them, and no gap of so many others, in order."""
    known = sorted(planes)
    far = [(one, other) for one, other in pairwise(known) if other - one > gap]
    firsts, lasts = known[:1] + [b for _, b in far], [a for a, _ in far] + known[-1:]
    return [range(a, b + 1) for a, b in zip(firsts, lasts, strict=True)]


def box_bytes(image: MultitileImage, level: int) -> int:
    """Bytes of pixels that one box of a sample holds at most."""
    shape = image.levels[level].shape
    units = image.read_units(level)
    whole = prod(min(u, n) for u, n in zip(units, shape, strict=True)) * image.dtype.itemsize
    if "z" in image.axes and image.axes.length("z", units) == 1:
        whole *= 2
    return max(whole, _BOX_BYTES)
