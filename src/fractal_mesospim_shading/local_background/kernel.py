"""Local background on blocks: what is read around a block, and what is done to its planes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core import memory
from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.core.background.masks import no_data, union
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.engine.kept import Kept
from fractal_mesospim_shading.engine.plan import Processed
from fractal_mesospim_shading.engine.zero_look import ZeroLook, Zeros
from fractal_mesospim_shading.errors import BackgroundError
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.source import Axes, MultitileImage
from fractal_mesospim_shading.local_background.planes import (
    BackgroundCounts,
    Estimate,
    PlaneCorrection,
    PlaneSurface,
)
from fractal_mesospim_shading.local_background.regions import YX, Regions, in_plane, within

_surfaces: Kept[PlaneSurface] = Kept(512)
"""Those of this process."""


@dataclass(frozen=True)
class Window:
    """Planes of one channel and time point that were read.

    Attributes:
        lead: index along t and c.
        z, yx: where the pixels lie in the image.
        pixels: (z, y, x).
        objects: of a label image, same shape, or None.
    """

    lead: dict[str, int]
    z: slice
    yx: YX
    pixels: NDArray[Any]
    objects: NDArray[np.bool_] | None

    def planes(self, unit: Any) -> slice:
        """Where a unit, one of the planes or all of them, lies along z in the image."""
        return (
            self.z
            if isinstance(unit, slice)
            else slice(self.z.start + unit, self.z.start + unit + 1)
        )


@dataclass(frozen=True)
class BackgroundKernel:
    """Local background correction of the tiles (or planes) that a block touches.

    Attributes:
        axes: of the image.
        layout: the tiles, or one tile that is the whole plane.
        methods: by channel.
        correction: what is done to a plane.
        look: what is done about zeros.
        label: where objects are, or None.
        companions: further images made: `background`, `noise`.
        depth: planes of the image.
        blank_outside: make pixels 0 that belong to no tile; else they stay as they are.
        run: tells apart what runs in the same process keep.
    """

    axes: Axes
    layout: TileLayout
    methods: tuple[BackgroundMethod, ...]
    correction: PlaneCorrection
    look: ZeroLook
    label: LabelImage | None
    companions: tuple[str, ...]
    depth: int
    blank_outside: bool = False
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    @cached_property
    def zero_is_no_data(self) -> dict[int, bool]:
        """By channel, for the contrast windows."""
        return self.look.may_be_no_data

    @property
    def besides(self) -> Sequence[StoredArray]:
        """The label image."""
        return () if self.label is None else (self.label.stored,)

    @property
    def shared_bytes(self) -> int:
        return 0

    @cached_property
    def regions(self) -> Regions:
        """What has to be read for a block."""
        masked = self.label is not None or self.correction.threshold is not None
        whole = self.correction.add_noise_bias
        return Regions(self.axes, self.layout, self.methods, self.depth, masked, whole)

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        """What a block needs beside the pixels that it writes."""
        needed = self.regions.working_bytes(block, source.dtype, source.read_grain())
        return needed + self.look.working_bytes(source)

    def process(self, source: MultitileImage, box: Box) -> Processed:
        shape = [s.stop - s.start for s in box]
        images = [memory.empty(shape, self.correction.dtype)]
        for _ in self.companions:
            images.append(memory.empty(shape, np.float32))
            images[-1][...] = 0
        counts: dict[int, PixelCounts] = {}
        whole = source.read(0, box) if self.regions.reads_no_more(box) else None
        for lead, channel in self.regions.leads(box):
            views = [self.regions.planes(image, box, lead) for image in images]
            for slab in self.regions.slabs(source, box, channel, at_once=whole is not None):
                window = self._window(source, box, lead, channel, slab, whole)
                start = slab.start - self.axes.span("z", box).start
                targets = [view[start : start + slab.stop - slab.start] for view in views]
                found = self._correct_slab(source, box, window, slab, targets)
                counts[channel] = counts.get(channel, BackgroundCounts()) + found
        return Processed(tuple(images), counts)

    def _window(
        self,
        source: MultitileImage,
        box: Box,
        lead: dict[str, int],
        channel: int,
        slab: slice,
        whole: NDArray[Any] | None,
    ) -> Window:
        """Read what a slab depends on, or take it from what was read at once."""
        depth = self.regions.reach(self.methods[channel])
        z = slice(max(0, slab.start - depth), min(self.depth, slab.stop + depth))
        yx = self.regions.read_yx(box, channel)
        where = self.regions.box(lead, z, yx)
        if whole is not None:
            pixels = self.regions.planes(whole, box, lead)
        else:
            pixels = source.read(0, where).reshape((-1, *(s.stop - s.start for s in yx)))
        objects = None if self.label is None else self.label.read(where)
        return Window(lead, z, yx, pixels, objects)

    def _correct_slab(
        self,
        source: MultitileImage,
        box: Box,
        window: Window,
        slab: slice,
        targets: list[NDArray[Any]],
    ) -> BackgroundCounts:
        own = within((box[-2], box[-1]), window.yx)
        planes = slice(slab.start - window.z.start, slab.stop - window.z.start)
        counts = BackgroundCounts()
        outside = self.layout.outside(box[-2], box[-1])
        if outside is not None:
            raw = window.pixels[(planes, *own)][:, outside]
            targets[0][:, outside] = 0 if self.blank_outside else raw
            blank = raw.size if self.blank_outside else 0
            counts += BackgroundCounts(pixels=raw.size, no_data=blank)
        for piece in self.regions.pieces(box):
            outputs = [target[(slice(None), *piece.in_box)] for target in targets]
            counts += self._correct_piece(source, window, planes, piece, outputs)
        return counts

    def _correct_piece(
        self,
        source: MultitileImage,
        window: Window,
        planes: slice,
        piece: Piece,
        outputs: list[NDArray[Any]],
    ) -> BackgroundCounts:
        """Correct the planes of one tile as far as they lie in the block."""
        channel = window.lead["c"]
        method = self.methods[channel]
        area = self.regions.area(piece, method)
        cut = within(in_plane(piece), area)
        inside = within(area, window.yx)
        counts = BackgroundCounts()
        at_once = method.depth_px > 0
        units: list[Any] = [slice(None)] if at_once else list(range(planes.start, planes.stop))
        for place, unit in enumerate(units):
            values = window.pixels[unit][(..., *inside)]
            keep = (planes, *cut) if at_once else cut
            try:
                zeros = self._zeros(source, window.lead, window.planes(unit), area, values)
                absent = union(no_data(values), zeros.without_data)
                counts += BackgroundCounts(**zeros.counted(keep))
                estimate = self._estimate(source, window, unit, piece, values, absent, keep)
                target = outputs[0] if at_once else outputs[0][place]
                counts += self.correction.apply(method, values[keep], estimate, target)
            except BackgroundError as error:
                raise self._named(source, window, piece, unit, error) from error
            for kind, output in zip(self.companions, outputs[1:], strict=True):
                image = (
                    estimate.result.background if kind == "background" else estimate.result.noise
                )
                if image is not None:
                    output[... if at_once else place] = image
            if _is_first(piece):
                counts += estimate.counted(outputs[0].shape[0] if at_once else 1)
        return counts

    def _estimate(
        self,
        source: MultitileImage,
        window: Window,
        unit: Any,
        piece: Piece,
        values: NDArray[Any],
        absent: NDArray[np.bool_] | None,
        keep: tuple[slice, ...],
    ) -> Estimate:
        method = self.methods[window.lead["c"]]
        if self.regions.by_surface(method) and not self._is_whole(piece):
            surface = self._surface(source, window.lead, window.z.start + unit, piece)
            own, noise = None if absent is None else absent[keep], "noise" in self.companions
            return surface.part(piece.in_tile, own, noise=noise)
        inside = within(self.regions.area(piece, method), window.yx)
        objects = None if window.objects is None else window.objects[unit][(..., *inside)]
        pixels = np.ascontiguousarray(values)
        return self.correction.estimate(method, pixels, objects, absent, keep)

    def _zeros(
        self,
        source: MultitileImage,
        lead: dict[str, int],
        z: slice,
        yx: YX,
        values: NDArray[Any],
    ) -> Zeros:
        """The zeros of a plane, or of a stack of planes, in the shape of the values."""
        return self.look.zeros(source, lead, z, yx, values.reshape((-1, *values.shape[-2:]))).like(
            values
        )

    def _surface(
        self, source: MultitileImage, lead: dict[str, int], z: int, piece: Piece
    ) -> PlaneSurface:
        """The surface of a whole plane of a tile, found once for all blocks that cut it."""

        def make() -> PlaneSurface:
            tile, (height, width) = piece.tile, self.layout.tile_shape
            yx = (slice(tile.y, tile.y + height), slice(tile.x, tile.x + width))
            where = self.regions.box(lead, slice(z, z + 1), yx)
            plane = source.read(0, where).reshape(height, width)
            objects = None if self.label is None else self.label.read(where)[0]
            zeros = self._zeros(source, lead, slice(z, z + 1), yx, plane)
            absent = union(no_data(plane), zeros.without_data)
            return self.correction.surface(self.methods[lead["c"]], plane, objects, absent)

        key = (self.run, lead["t"], lead["c"], z, piece.tile.y, piece.tile.x)
        return _surfaces.get(key, make)

    def _is_whole(self, piece: Piece) -> bool:
        return tuple(s.stop - s.start for s in piece.in_tile) == self.layout.tile_shape

    def _named(
        self,
        source: MultitileImage,
        window: Window,
        piece: Piece,
        unit: Any,
        error: BackgroundError,
    ) -> BackgroundError:
        places = [f"channel '{source.channels[window.lead['c']].label}'"]
        if len(self.layout.tiles) > 1:
            places.append(f"tile {piece.tile.number}")
        if "t" in self.axes:
            places.append(f"time point {window.lead['t']}")
        if "z" in self.axes and isinstance(unit, int):
            places.append(f"plane z={window.z.start + unit}")
        return BackgroundError(f"In {', '.join(places)}: {error}")


def _is_first(piece: Piece) -> bool:
    """Whether a piece holds the first pixel of its tile, so that planes are counted once."""
    return all(part.start == 0 for part in piece.in_tile)
