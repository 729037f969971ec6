"""What has to be read so that the background of a block is that of its whole tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.core.background.masks import is_wide
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.source import Axes, PixelSource
from fractal_mesospim_shading.local_background.scratch import SLAB_BYTES

YX = tuple[slice, slice]

_NOISE_BYTES_A_PIXEL = 48
"""What the noise of a plane takes for each pixel at least, or a type of many bytes."""

_MARKS_BYTES_A_PIXEL = 8
"""What it takes to find the objects of a plane, and to widen them."""

_NEAREST_BYTES_A_PIXEL = 32
"""What it takes to find the nearest places of a plane that have an estimate."""

_LEAST_SURFACE_BYTES = 8
_SURFACE_COPIES = 4
"""What it takes to find the surface of a plane, without evaluating it, in bytes and in pixels."""


@dataclass(frozen=True)
class Regions:
    """Where the pixels lie that decide the background of a block.

    Attributes:
        axes: of the image.
        layout: the tiles, or one tile that is the whole plane.
        methods: by channel.
        depth: planes of the image.
        masked: whether objects are left out. Under a large one the background comes from the
            nearest place that has one, however far.
        whole: whether something else is asked of whole planes, such as their noise.
    """

    axes: Axes
    layout: TileLayout
    methods: tuple[BackgroundMethod, ...]
    depth: int
    masked: bool
    whole: bool

    def working_bytes(
        self, block: Sequence[int], dtype: np.dtype[Any], grain: Sequence[int]
    ) -> int:
        """What a block needs beside the pixels that it writes.

        Args:
            block: its shape.
            dtype: of the source.
            grain: of the source.
        """
        # What is read comes with the objects of a label image.
        read = self.pixels_read(block, dtype, grain) * (dtype.itemsize + self.masked)
        height, width = self.layout.tile_shape
        areas = []
        for method in self.methods:
            bytes_a_pixel = self._bytes_a_pixel(method, dtype)
            area = self._area(block, method) * bytes_a_pixel
            if self.once(method):
                surface = max(_SURFACE_COPIES * dtype.itemsize, _LEAST_SURFACE_BYTES)
                pixel = surface if self.by_surface(method) else bytes_a_pixel
                plane = height * width * pixel + self._slab_bytes(dtype, grain)
                cut = min(block[-2], height) * min(block[-1], width) < height * width
                areas.append(max(area, cut * plane))
            elif self.in_stack(method):
                areas.append(self._stack_bytes(block, method, dtype, grain))
            else:
                planes = self._planes_at_a_time(block, method, dtype, grain)
                areas.append(area * (planes if method.depth_px else 1))
        return read + max(areas)

    def _stack_bytes(
        self,
        block: Sequence[int],
        method: BackgroundMethod,
        dtype: np.dtype[Any],
        grain: Sequence[int],
    ) -> int:
        """What estimating a block takes whose planes lie in files; see `in_stack`."""
        height, width = self.layout.tile_shape
        reach = 2 * (method.halo_px or 0) + 2 * (method.alignment_px - 1)
        area = min(block[-2] + reach, height) * min(block[-1] + reach, width)
        step = self._step(method, area, self.axes.length("z", grain), dtype.itemsize)
        window = min(step + 2 * method.depth_px, self.depth) * area
        estimate = window * (method.bytes_a_pixel + dtype.itemsize)
        pixel = self._bytes_a_pixel(method, dtype) if self.whole else _MARKS_BYTES_A_PIXEL
        planes = height * width * pixel + self._slab_bytes(dtype, grain)
        return max(estimate, planes, self.masked * height * width * _NEAREST_BYTES_A_PIXEL)

    def _bytes_a_pixel(self, method: BackgroundMethod, dtype: np.dtype[Any]) -> int:
        """What a method holds for each pixel; more for noise, and for wide types."""
        least = _NOISE_BYTES_A_PIXEL if self.whole or is_wide(dtype) else 0
        return max(method.bytes_a_pixel, least)

    def reads_around(self, block: Sequence[int]) -> bool:
        """Whether pixels are read besides those of a block of a shape."""
        return any(
            self.reach(method) or self._area(block, method) > block[-2] * block[-1]
            for method in self.methods
        )

    def pixels_read(self, block: Sequence[int], dtype: np.dtype[Any], grain: Sequence[int]) -> int:
        """How many pixels are read at a time for a block; arguments as for `working_bytes`.

        All of it where nothing around it is read; else what planes of one channel take.
        """
        if not self.reads_around(block):
            return prod(block)
        return max(
            self._area(block, method) * self._planes_at_a_time(block, method, dtype, grain)
            for method in self.methods
        )

    def largest_area(self, block: Sequence[int]) -> int:
        """Pixels of the largest part of a plane that is read at a time for a block."""
        return max(block[-2] * block[-1], *(self._area(block, m) for m in self.methods))

    def _area(self, block: Sequence[int], method: BackgroundMethod) -> int:
        """Pixels of a plane of a tile that decide the background of a block."""
        height, width = self.layout.tile_shape
        halo = self._halo(method)
        if halo is None and not self.once(method) and not self.in_stack(method):
            return height * width
        reach = 2 * (halo or 0)
        return min(block[-2] + reach, height) * min(block[-1] + reach, width)

    def _planes_at_a_time(
        self,
        block: Sequence[int],
        method: BackgroundMethod,
        dtype: np.dtype[Any],
        grain: Sequence[int],
    ) -> int:
        chunk = self.axes.length("z", grain)
        step = self._step(method, self._area(block, method), chunk, dtype.itemsize)
        return min(step + 2 * self.reach(method), self.depth)

    def alignments(self, source: PixelSource) -> list[tuple[int, ...]]:
        """What blocks may be multiples of, the quickest first.

        Whole tiles are estimated once and read once.
        """
        grain = list(source.read_grain())
        whole = list(grain)
        for axis, size in zip((-2, -1), self.layout.tile_shape, strict=True):
            starts = [(tile.y, tile.x)[axis] for tile in self.layout.tiles]
            if all(start % size == 0 for start in starts):
                whole[axis] = size
        return list(dict.fromkeys((tuple(whole), tuple(grain))))

    def _halo(self, method: BackgroundMethod) -> int | None:
        """Pixels around a part that decide its background; None for the whole tile."""
        return None if self.masked or self.whole else method.halo_px

    def by_surface(self, method: BackgroundMethod) -> bool:
        """Whether the background of a plane is found once, and evaluated in each block."""
        return method.has_surface and not self.whole

    def in_files(self, method: BackgroundMethod) -> bool:
        """Whether the background of a plane is found once, and kept in a file for its blocks.

        It takes the whole plane, and no few numbers describe it.
        """
        return self._halo(method) is None and not self.by_surface(method) and not method.depth_px

    def in_stack(self, method: BackgroundMethod) -> bool:
        """Whether whole planes decide the background of a block, and those above and below too.

        They lie in files, decoded once, and each block is estimated from what is around it there.
        """
        return self._halo(method) is None and method.depth_px > 0

    def once(self, method: BackgroundMethod) -> bool:
        """Whether the background of a plane is found once, however many blocks cut it."""
        return self.by_surface(method) or self.in_files(method)

    def surface_slab(self, source: PixelSource, plane: int) -> slice:
        """Planes whose backgrounds are found together with that of a plane.

        They lie in one chunk along z: plane by plane, each chunk would be decoded as many times
        as it is deep.
        """
        chunk = self.axes.length("z", source.read_grain())
        start = plane // chunk * chunk
        return slice(start, min(start + chunk, self.depth))

    def _slab_bytes(self, dtype: np.dtype[Any], grain: Sequence[int]) -> int:
        """Pixels read at a time for the backgrounds of a slab, with the objects of a label image.

        A slab that is too large is read in strips of whole chunks, see `planes_one_by_one`.
        """
        height, width = self.layout.tile_shape
        planes = min(self.axes.length("z", grain), self.depth)
        strip = max(SLAB_BYTES, planes * min(grain[-2], height) * width * dtype.itemsize)
        slab = min(planes * height * width * dtype.itemsize, strip)
        return slab // dtype.itemsize * (dtype.itemsize + self.masked)

    def filed_bytes_a_pixel(self, method: BackgroundMethod) -> int:
        """What a file holds for each pixel of a plane: float32 images, of the background first."""
        images = 1 + method.maps_noise + method.denoises
        return images * np.dtype(np.float32).itemsize if self.in_files(method) else 0

    @property
    def local(self) -> bool:
        """Whether every block can be estimated without all pixels of its tiles."""
        return not any(map(self.in_files, self.methods))

    def reads_no_more(self, box: Box) -> bool:
        """Whether the pixels of a block are all that its backgrounds depend on."""
        channels = {lead["c"] for lead in self.leads(box)}
        return all(
            not self.reach(self.methods[c]) and self.read_yx(box, c) == (box[-2], box[-1])
            for c in channels
        )

    def read_yx(self, box: Box, channel: int) -> YX:
        """The part of the plane that has to be read for a block."""
        areas = [
            self.area(piece, self.methods[channel])
            for piece in self.layout.pieces(box[-2], box[-1])
        ]
        areas.append((box[-2], box[-1]))
        return (
            slice(min(y.start for y, _ in areas), max(y.stop for y, _ in areas)),
            slice(min(x.start for _, x in areas), max(x.stop for _, x in areas)),
        )

    def area(self, piece: Piece, method: BackgroundMethod) -> YX:
        """The part of a plane to read for a piece of a tile."""
        if self.once(method) or self.in_stack(method):
            return in_plane(piece)
        y, x = self.around(piece, method)
        top, left = piece.tile.y, piece.tile.x
        return slice(top + y.start, top + y.stop), slice(left + x.start, left + x.stop)

    def around(self, piece: Piece, method: BackgroundMethod) -> YX:
        """The part of a tile, in its own pixels, that decides the background of a piece."""
        halo, step = method.halo_px, method.alignment_px
        if halo is None:
            return slice(0, self.layout.tile_shape[0]), slice(0, self.layout.tile_shape[1])
        y, x = (
            slice(
                max(0, (inside.start - halo) // step * step),
                min(size, ceil((inside.stop + halo) / step) * step),
            )
            for inside, size in zip(piece.in_tile, self.layout.tile_shape, strict=True)
        )
        return y, x

    def slabs(
        self, source: PixelSource, box: Box, channel: int, *, at_once: bool
    ) -> Iterator[slice]:
        """Ranges of planes handled together, of whole chunks where memory permits."""
        planes = self.axes.span("z", box)
        if at_once and not self.in_stack(self.methods[channel]):
            yield planes
            return
        yx = self.read_yx(box, channel)
        chunk = self.axes.length("z", source.read_grain())
        step = self._step(self.methods[channel], size_of(yx), chunk, source.dtype.itemsize)
        for start in range(planes.start, planes.stop, step):
            yield slice(start, min(start + step, planes.stop))

    def _step(self, method: BackgroundMethod, area: int, chunk: int, itemsize: int) -> int:
        """How many planes of an area are handled together."""
        if method.depth_px:
            return max(chunk, method.depth_px)
        step = max(1, SLAB_BYTES // (area * itemsize))
        return step // chunk * chunk or step

    def reach(self, method: BackgroundMethod) -> int:
        """Planes to each side to be read with a block."""
        return 0 if self.in_stack(method) else method.depth_px

    def box(self, lead: dict[str, int], z: slice, yx: YX) -> Box:
        """The box of the image at a time point and channel."""
        where: dict[str, slice] = {axis: slice(i, i + 1) for axis, i in lead.items()}
        where |= {"z": z, "y": yx[0], "x": yx[1]}
        return self.axes.box(where)

    def leads(self, box: Box) -> Iterator[dict[str, int]]:
        """Time points and channels of a block."""
        t, c = self.axes.span("t", box), self.axes.span("c", box)
        for time, channel in product(range(t.start, t.stop), range(c.start, c.stop)):
            yield {"t": time, "c": channel}

    def planes(self, block: NDArray[Any], box: Box, lead: dict[str, int]) -> NDArray[Any]:
        """A view (z, y, x) of a block at one time point and channel."""
        index = tuple(
            lead[axis] - part.start
            for axis, part in zip(self.axes, box, strict=True)
            if axis in lead
        )
        planes: NDArray[Any] = block[index].reshape((-1, *block.shape[-2:]))
        return planes


def in_plane(piece: Piece) -> YX:
    """Where a piece lies in the plane."""
    y, x = piece.in_tile
    return (
        slice(piece.tile.y + y.start, piece.tile.y + y.stop),
        slice(piece.tile.x + x.start, piece.tile.x + x.stop),
    )


def within(part: YX, area: YX) -> YX:
    """A part relative to the area it lies in."""
    return (
        slice(part[0].start - area[0].start, part[0].stop - area[0].start),
        slice(part[1].start - area[1].start, part[1].stop - area[1].start),
    )


def size_of(yx: YX) -> int:
    """Pixels of an area."""
    return int((yx[0].stop - yx[0].start) * (yx[1].stop - yx[1].start))
