"""Local background on blocks: what is read around a block, and what is done to its planes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.core.background.masks import no_data, union
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.core.threads import Kept, empty_array
from fractal_mesospim_shading.core.zeros import ZeroIs
from fractal_mesospim_shading.engine.plan import Processed
from fractal_mesospim_shading.engine.zero_look import ZeroLook, Zeros, zero_look
from fractal_mesospim_shading.errors import BackgroundError
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.source import Axes, MultitileImage, PixelSource
from fractal_mesospim_shading.images.storage.places import parent_and_name
from fractal_mesospim_shading.local_background.deep import DeepPart, DeepStack
from fractal_mesospim_shading.local_background.planes import (
    BackgroundCounts,
    Estimate,
    PlaneCorrection,
    PlaneSurface,
)
from fractal_mesospim_shading.local_background.regions import YX, Regions, in_plane, within
from fractal_mesospim_shading.local_background.scratch import (
    FiledPlane,
    kept_in_files,
    scratch_file,
)
from fractal_mesospim_shading.local_background.window import Marks, Unit, Window, whole_planes

Planes = NDArray[Any]
Found = TypeVar("Found")
_surfaces: Kept[tuple[PlaneSurface, ...]] = Kept(512)
"""Those of this process, of the planes of a slab."""

_filed: Kept[tuple[FiledPlane, ...]] = kept_in_files()
"""Backgrounds of this process that lie in files, of the planes of a slab, by their bytes."""


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
        stack: name of the image where it is one of many; empty where it is the whole source.
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
    stack: str = ""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    shared_bytes: ClassVar[int] = 0

    @cached_property
    def zero_is_no_data(self) -> dict[int, bool]:
        """By channel, for the contrast windows."""
        return self.look.may_be_no_data

    @property
    def besides(self) -> Sequence[StoredArray]:
        """The label image."""
        return () if self.label is None else (self.label.stored,)

    def of_stack(
        self,
        image: MultitileImage,
        channels: Sequence[int],
        zero_is: ZeroIs,
        held: Mapping[str, bool],
    ) -> BackgroundKernel:
        """The same for an image that is one tile and holds some of the channels.

        Args:
            image: of one tile.
            channels: of this kernel, in the order of the image.
            zero_is, held: see `zero_look`.
        """
        shape = image.levels[0].shape
        layout = TileLayout.single((shape[-2], shape[-1]))
        return replace(
            self,
            axes=image.axes,
            layout=layout,
            methods=tuple(self.methods[channel] for channel in channels),
            look=zero_look(image, zero_is, layout, held),
            depth=image.axes.length("z", shape),
            stack=parent_and_name(image.url)[1],
            run=uuid.uuid4().hex,
        )

    @cached_property
    def regions(self) -> Regions:
        """What has to be read for a block."""
        masked = self.label is not None or self.correction.threshold is not None
        whole = self.correction.add_noise_bias
        return Regions(self.axes, self.layout, self.methods, self.depth, masked, whole)

    def working_bytes(self, block: Sequence[int], source: PixelSource) -> int:
        """What a block needs beside the pixels that it writes."""
        needed = self.reading_bytes(block, source.dtype, source.read_grain())
        return needed + self.look.working_bytes(source)

    def reading_bytes(
        self, block: Sequence[int], dtype: np.dtype[Any], grain: Sequence[int]
    ) -> int:
        """What reading and estimating takes; arguments as for `Regions.working_bytes`."""
        needed = self.regions.working_bytes(block, dtype, grain)
        if dtype == self.correction.dtype and not self.regions.reads_around(block):
            # The result takes the place of what was read.
            needed -= prod(block) * dtype.itemsize
        return needed

    def process(self, source: PixelSource, box: Box) -> Processed:
        whole = source.read_block(box) if self.regions.reads_no_more(box) else None
        shape, dtype = [s.stop - s.start for s in box], self.correction.dtype
        # In place where it fits: memory that is touched first costs more than the pixels.
        in_place = whole is not None and whole.dtype == dtype
        images = [whole if whole is not None and in_place else empty_array(shape, dtype)]
        for _ in self.companions:
            images.append(empty_array(shape, np.float32))
            images[-1][...] = 0
        counts: dict[int, PixelCounts] = {}
        for lead in self.regions.leads(box):
            channel = lead["c"]
            views = [self.regions.planes(image, box, lead) for image in images]
            for slab in self.regions.slabs(source, box, channel, at_once=whole is not None):
                start = slab.start - self.axes.span("z", box).start
                targets = [view[start : start + slab.stop - slab.start] for view in views]
                # Under no name: a window is gone before the next one is read.
                more = self._correct_slab(
                    box, self._window(source, box, lead, slab, whole), slab, targets
                )
                counts[channel] = counts.get(channel, BackgroundCounts()) + more
        return Processed(tuple(images), counts)

    def _window(
        self,
        source: PixelSource,
        box: Box,
        lead: dict[str, int],
        slab: slice,
        whole: Planes | None,
    ) -> Window:
        """Read what a slab depends on, or take it from what was read at once."""
        depth = self.regions.reach(self.methods[lead["c"]])
        z = slice(max(0, slab.start - depth), min(self.depth, slab.stop + depth))
        yx = self.regions.read_yx(box, lead["c"])
        where = self.regions.box(lead, z, yx)
        if whole is not None:
            first = self.axes.span("z", box).start
            pixels = self.regions.planes(whole, box, lead)[z.start - first : z.stop - first]
        else:
            pixels = source.read(0, where).reshape((-1, *(s.stop - s.start for s in yx)))
        objects = None if self.label is None else self.label.read(where)
        return Window(source, lead, z, yx, pixels, objects)

    def _correct_slab(
        self, box: Box, window: Window, slab: slice, targets: list[Planes]
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
        for piece in self.layout.pieces(box[-2], box[-1]):
            outputs = [target[(slice(None), *piece.in_box)] for target in targets]
            counts += self._correct_piece(window, planes, piece, outputs)
        return counts

    def _correct_piece(
        self, window: Window, planes: slice, piece: Piece, outputs: list[Planes]
    ) -> BackgroundCounts:
        """Correct the planes of one tile as far as they lie in the block."""
        method = self.methods[window.lead["c"]]
        area = self.regions.area(piece, method)
        cut, inside = within(in_plane(piece), area), within(area, window.yx)
        counts = BackgroundCounts()
        deep = self._deep_parts(window, planes, piece)
        at_once = method.depth_px > 0 and deep is None
        units: Sequence[Unit] = [slice(None)] if at_once else range(planes.start, planes.stop)
        for place, unit in enumerate(units):
            values = window.pixels[unit][(..., *inside)]
            keep = (planes, *cut) if at_once else cut
            found = self._found_once(window, unit, piece) if deep is None else deep[place]
            try:
                zeros = self._zeros(window, window.planes(unit), area, values)
                absent = union(no_data(values), zeros.without_data)
                counts += BackgroundCounts(**zeros.counted(keep))
                if found is None:
                    estimate = self._estimate(window, unit, piece, values, absent, keep)
                else:
                    own = None if absent is None else absent[keep]
                    noise = "noise" in self.companions
                    estimate = found.part(piece.in_tile, own, noise=noise)
                target = outputs[0] if at_once else outputs[0][place]
                counts += self.correction.apply(method, values[keep], estimate, target)
            except BackgroundError as error:
                raise self._named(window, piece, unit, error) from error
            result = estimate.result
            for kind, output in zip(self.companions, outputs[1:], strict=True):
                image = result.background if kind == "background" else result.noise
                if image is not None:
                    output[... if at_once else place] = image
            if _is_first(piece):
                counts += estimate.counted(outputs[0].shape[0] if at_once else 1)
        return counts

    def _estimate(
        self,
        window: Window,
        unit: Unit,
        piece: Piece,
        values: Planes,
        absent: NDArray[np.bool_] | None,
        keep: tuple[slice, ...],
    ) -> Estimate:
        method = self.methods[window.lead["c"]]
        inside = within(self.regions.area(piece, method), window.yx)
        objects = None if window.objects is None else window.objects[unit][(..., *inside)]
        pixels = np.ascontiguousarray(values)
        return self.correction.estimate(method, pixels, objects, absent, keep)

    def _zeros(self, window: Window, z: slice, yx: YX, values: Planes) -> Zeros:
        """The zeros of a plane, or of a stack of planes, in the shape of the values."""
        planes = values.reshape((-1, *values.shape[-2:]))
        return self.look.zeros(window.source, window.lead, z, yx, planes).like(values)

    def _deep_parts(self, window: Window, planes: slice, piece: Piece) -> list[DeepPart] | None:
        """The backgrounds of planes of a piece that lie in files with those above and below."""
        lead, tile, method = window.lead, piece.tile, self.methods[window.lead["c"]]
        if not self.regions.in_stack(method):
            return None
        chunk = self.axes.length("z", window.source.read_grain())
        key = (self.run, lead["t"], lead["c"], tile.y, tile.x)
        form = (self.depth, chunk, self.layout.tile_shape, window.source.dtype)
        read = partial(self._whole_planes, window, piece=piece)
        stack = DeepStack(method, self.correction, *form, key, read)
        z = slice(window.z.start + planes.start, window.z.start + planes.stop)
        try:
            return stack.parts(z, self.regions.around(piece, method), piece.in_tile)
        except BackgroundError as error:
            raise self._named(window, piece, planes, error) from error

    def _found_once(
        self, window: Window, unit: Unit, piece: Piece
    ) -> PlaneSurface | FiledPlane | None:
        """The background of a whole plane of a tile, found once for all blocks that cut it.

        None where a block is estimated by itself.
        """
        lead, tile, method = window.lead, piece.tile, self.methods[window.lead["c"]]
        if not self.regions.once(method) or self._is_whole(piece):
            return None
        plane: int = window.planes(unit).start
        slab = self.regions.surface_slab(window.source, plane)
        key = (self.run, lead["t"], lead["c"], slab.start, tile.y, tile.x)
        planes = slab.stop - slab.start
        found: Sequence[PlaneSurface | FiledPlane]
        if self.regions.by_surface(method):
            surface = partial(self.correction.surface, method)
            make = partial(self._of_slab, window, slab, piece, surface)
            found = _surfaces.get(key, make, planes)
        else:
            pixels = planes * prod(self.layout.tile_shape)
            size = pixels * self.regions.filed_bytes_a_pixel(method)
            found = _filed.get(key, partial(self._filed_slab, window, slab, piece), size)
        one: PlaneSurface | FiledPlane = found[plane - slab.start]
        return one

    def _filed_slab(self, window: Window, slab: slice, piece: Piece) -> tuple[FiledPlane, ...]:
        """The backgrounds of the whole planes of a slab, in one file."""
        method, file = self.methods[window.lead["c"]], scratch_file()
        whole = (slice(None), slice(None))

        def filed(plane: Planes, objects: Any, absent: Any) -> FiledPlane:
            estimate = self.correction.estimate(method, plane, objects, absent, whole)
            return FiledPlane.of(file, estimate)

        return self._of_slab(window, slab, piece, filed)

    def _of_slab(
        self, window: Window, slab: slice, piece: Piece, find: Callable[..., Found]
    ) -> tuple[Found, ...]:
        """What is found of the whole planes of a slab, each chunk of which is decoded once."""
        found = []
        for place, one in enumerate(self._whole_planes(window, slab, piece)):
            try:
                found.append(find(*one))
            except BackgroundError as error:
                z = slab.start + place - window.z.start
                raise self._named(window, piece, z, error) from error
        return tuple(found)

    def _whole_planes(
        self, window: Window, slab: slice, piece: Piece
    ) -> Iterator[tuple[Planes, Marks, Marks]]:
        """The planes of a slab, one by one, with their objects and where there is no data."""
        tile, (height, width) = piece.tile, self.layout.tile_shape
        yx = (slice(tile.y, tile.y + height), slice(tile.x, tile.x + width))
        source, lead = window.source, window.lead
        return whole_planes(self.regions, self.look, source, self.label, lead, slab, yx)

    def _is_whole(self, piece: Piece) -> bool:
        return tuple(s.stop - s.start for s in piece.in_tile) == self.layout.tile_shape

    def _named(
        self, window: Window, piece: Piece, unit: Unit, error: BackgroundError
    ) -> BackgroundError:
        alone = len(self.layout.tiles) == 1
        where = window.told(self.stack, None if alone else piece.tile.number, unit)
        return BackgroundError(f"In {where}: {error}")


def _is_first(piece: Piece) -> bool:
    """Whether a piece holds the first pixel of its tile, so that planes are counted once."""
    return all(part.start == 0 for part in piece.in_tile)
