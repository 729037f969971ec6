"""Stacks of whole planes for methods that reach along z, decoded once and kept in files.

A block is estimated from the planes around it as they lie there, with the margin of its method.
Only where objects leave a neighbourhood no pixel at all are other planes estimated for it, to find
the nearest place that has one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod, BackgroundResult
from fractal_mesospim_shading.core.background.nearest import (
    FromNeighbourhoods,
    LocalEstimate,
    nearest_supported,
)
from fractal_mesospim_shading.core.blocks import within
from fractal_mesospim_shading.core.threads import Kept
from fractal_mesospim_shading.local_background.planes import Estimate, Nothing, PlaneCorrection
from fractal_mesospim_shading.local_background.scratch import (
    YX,
    FiledArray,
    kept_in_files,
    scratch_file,
)

Bool = NDArray[np.bool_]
Read = Callable[[slice], Iterable[tuple[NDArray[Any], Bool | None, Bool | None]]]
"""Gives the whole planes of chunks, one by one: pixels, objects, and where there is no data."""

_planes: Kept[tuple[DeepPlane, ...]] = kept_in_files()
_estimates: Kept[tuple[FiledEstimate, ...]] = kept_in_files()
_filled: Kept[FiledArray | None] = kept_in_files()


@dataclass(frozen=True)
class DeepPlane:
    """A whole plane in a file, with what is said of it.

    Attributes:
        pixels: (y, x), as they are in the source.
        absent, ignored: same shape; pixels without data, and all that no estimate may use; None
            for none.
        usable, known: how many pixels an estimate may use, and how many have data.
        bias: what noise adds to its background; None where that is not asked for.
        nothing: why it has no pixel to be used; None where it has some.
    """

    pixels: FiledArray
    absent: FiledArray | None
    ignored: FiledArray | None
    usable: int
    known: int
    bias: np.float32 | None
    nothing: Nothing | None

    @classmethod
    def of(
        cls,
        file: IO[bytes],
        method: BackgroundMethod,
        correction: PlaneCorrection,
        plane: NDArray[Any],
        objects: Bool | None,
        absent: Bool | None,
    ) -> DeepPlane:
        """Look at a plane, and write it."""
        ignored, nothing = correction.ignored(plane, objects, absent)
        bias = correction.bias(method, plane, absent)
        marks = (None if one is None else FiledArray.of(file, one) for one in (absent, ignored))
        pixels, (without, unused) = FiledArray.of(file, plane), marks
        known, usable = (plane.size - _number(none) for none in (absent, ignored))
        return cls(pixels, without, unused, usable, known, bias, nothing)


@dataclass(frozen=True)
class FiledEstimate:
    """What the neighbourhoods of a whole plane say, in a file; see `LocalEstimate`."""

    numbers: FiledArray
    unsupported: FiledArray | None

    @classmethod
    def of(cls, file: IO[bytes], estimate: LocalEstimate) -> FiledEstimate:
        """Write it."""
        unsupported = estimate.unsupported
        marks = None if unsupported is None else FiledArray.of(file, unsupported)
        return cls(FiledArray.of(file, estimate.numbers), marks)

    def read(self) -> LocalEstimate:
        """The same in memory."""
        unsupported = None if self.unsupported is None else self.unsupported.part()
        return LocalEstimate(self.numbers.part(), unsupported)


@dataclass(frozen=True)
class DeepPart:
    """The background of a part of a plane, but for pixels without data.

    Attributes:
        background: (y, x).
        share: of the pixels with data, in all planes that it may follow from, those used.
        nothing: why none could be estimated; None where it could.
    """

    background: NDArray[np.float32]
    share: float
    nothing: Nothing | None = None

    def part(self, keep: YX, absent: Bool | None, *, noise: bool) -> Estimate:
        """The estimate, once; arguments as for `PlaneSurface.part`."""
        if absent is not None:
            self.background[absent] = 0
        estimated = self.nothing is None
        result = BackgroundResult(self.background, estimated, share=self.share)
        return Estimate(result, absent, self.nothing)


@dataclass(frozen=True)
class DeepStack:
    """The planes of a tile at one time point and channel.

    Attributes:
        method: reaches along z.
        correction: which pixels count, and whether noise does.
        depth: planes there are.
        chunk: planes that are decoded together.
        shape: (y, x) of a plane.
        dtype: of the pixels.
        key: tells it apart in what this process keeps.
        read: the source.
    """

    method: BackgroundMethod
    correction: PlaneCorrection
    depth: int
    chunk: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    key: Hashable
    read: Read

    def parts(self, z: slice, around: YX, keep: YX) -> list[DeepPart]:
        """The background of a part of some planes.

        Args:
            z: the planes.
            around: what decides the part, where no object is as large as the neighbourhood.
            keep: the part.
        """
        estimate = self._estimate(z, around)
        return [
            self._part(estimate.at(place), z.start + place, around, keep)
            for place in range(z.stop - z.start)
        ]

    def _part(self, estimate: LocalEstimate, z: int, around: YX, keep: YX) -> DeepPart:
        """The background of a part of a plane, from what is said of the pixels around."""
        near = self._of(self._window(slice(z, z + 1)))
        plane = near[min(z, self.method.depth_px)]
        share = sum(one.usable for one in near) / max(sum(one.known for one in near), 1)
        numbers, nothing = estimate.numbers, plane.nothing
        if nothing is not None and not nothing.has_data:
            return DeepPart(np.zeros(_shape(keep), np.float32), share, nothing)
        if estimate.unsupported is not None and self._asks(
            plane, estimate.unsupported, around, keep
        ):
            whole = self._whole(z, prod(_shape(around)))
            if whole is None:
                return DeepPart(np.zeros(_shape(keep), np.float32), share, self._nothing())
            numbers = whole.part(*self._grid(around))
        spread = self._neighbourhoods.spread(numbers, _shape(around))
        background = np.array(spread[within(keep, around)])
        if plane.bias is not None:
            background -= plane.bias
        return DeepPart(background, share)

    def _window(self, z: slice) -> slice:
        """Planes that the background of some may follow from."""
        reach = self.method.depth_px
        return slice(max(0, z.start - reach), min(self.depth, z.stop + reach))

    @property
    def _neighbourhoods(self) -> FromNeighbourhoods:
        if not isinstance(self.method, FromNeighbourhoods):
            raise TypeError(f"{self.method.name} does not reach along z; please report this")
        return self.method

    def _of(self, z: slice) -> list[DeepPlane]:
        """Some planes; those of a chunk are read together."""
        found: list[DeepPlane] = []
        for start in range(z.start // self.chunk * self.chunk, z.stop, self.chunk):
            slab = slice(start, min(start + self.chunk, self.depth))
            size = (slab.stop - start) * prod(self.shape) * (self.dtype.itemsize + 2)
            planes = _planes.get((self.key, start), partial(self._read, slab), size)
            found += planes[max(z.start - start, 0) : z.stop - start]
        return found

    def _read(self, slab: slice) -> tuple[DeepPlane, ...]:
        of = partial(DeepPlane.of, scratch_file(), self.method, self.correction)
        return tuple(of(*one) for one in self.read(slab))

    def _estimate(self, z: slice, around: YX) -> LocalEstimate:
        """What the neighbourhoods of a part of some planes say; not quite so at its cut edges."""
        window = self._window(z)
        planes = self._of(window)
        values = np.empty((len(planes), *_shape(around)), self.dtype)
        ignored = np.zeros(values.shape, np.bool_)
        for place, plane in enumerate(planes):
            values[place] = plane.pixels.part(*around)
            if plane.ignored is not None:
                ignored[place] = plane.ignored.part(*around)
        own = slice(z.start - window.start, z.stop - window.start)
        if ignored.all():
            sides = [side.stop - side.start for side in self._grid(around)]
            shape = (z.stop - z.start, *sides)
            return LocalEstimate(np.zeros(shape, np.float32), np.ones(shape, np.bool_))
        return self._neighbourhoods.local(values, ignored if ignored.any() else None).at(own)

    def _grid(self, around: YX) -> YX:
        """A part of a plane in blocks that have a number each."""
        side = self._neighbourhoods.grid_px
        y, x = (slice(part.start // side, ceil(part.stop / side)) for part in around)
        return y, x

    def _asks(self, plane: DeepPlane, unsupported: Bool, around: YX, keep: YX) -> bool:
        """Whether a part of a plane takes numbers from places that have none of their own."""
        if plane.nothing is not None and unsupported.all():
            return True
        wanted = unsupported & self._used(plane, around)
        (top, left), (y, x) = (part.start for part in self._grid(around)), self._grid(keep)
        # A pixel lies between its block and the next ones.
        more = int(self._neighbourhoods.grid_px > 1)
        rows = slice(max(0, y.start - top - more), y.stop - top + more)
        return bool(wanted[rows, max(0, x.start - left - more) : x.stop - left + more].any())

    def _used(self, plane: DeepPlane, part: YX) -> Bool:
        """The places of a part whose numbers are of use: for pixels with data, or next to such."""
        side = self._neighbourhoods.grid_px
        if plane.absent is None:
            return np.ones(_shape(self._grid(part)), np.bool_)
        data = ~plane.absent.part(*part)
        if side == 1:
            return data
        for axis in (0, 1):
            data = np.logical_or.reduceat(data, range(0, data.shape[axis], side), axis)
        import cv2

        near = cv2.dilate(data.view(np.uint8), np.ones((3, 3), np.uint8))
        return np.asarray(near, np.bool_)

    def _whole(self, z: int, most_px: int) -> FiledArray | None:
        """The numbers of a whole plane, at all places that are used; None where there are none.

        Args:
            z: of the plane.
            most_px: pixels of a plane to work on at a time.
        """

        def make() -> FiledArray | None:
            estimate, (plane,) = self._whole_estimate(z, most_px), self._of(slice(z, z + 1))
            if estimate.unsupported is None:
                return FiledArray.of(scratch_file(), estimate.numbers)
            everywhere = (slice(0, self.shape[0]), slice(0, self.shape[1]))
            wanted = estimate.unsupported & self._used(plane, everywhere)
            found = nearest_supported(
                wanted, z, self.depth, lambda other: self._whole_estimate(other, most_px)
            )
            if found is None:
                return None
            estimate.numbers[wanted] = found
            return FiledArray.of(scratch_file(), estimate.numbers)

        return _filled.get((self.key, z), make, 4 * prod(self.shape))

    def _whole_estimate(self, z: int, most_px: int) -> LocalEstimate:
        """What the neighbourhoods of a whole plane say."""
        step = max(self.chunk, self.method.depth_px)
        start = z // step * step
        size = 5 * step * prod(self.shape)
        make = partial(self._estimate_slab, slice(start, min(start + step, self.depth)), most_px)
        return _estimates.get((self.key, start), make, size)[z - start].read()

    def _estimate_slab(self, slab: slice, most_px: int) -> tuple[FiledEstimate, ...]:
        """The same of some planes, a strip of rows at a time."""
        grid, halo, (height, width) = (
            self._neighbourhoods.grid_px,
            self.method.halo_px or 0,
            self.shape,
        )
        rows = max(most_px // width - 2 * halo, halo, 1)
        rows = ceil(rows / grid) * grid
        file, strips = scratch_file(), []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            around = slice(
                max(0, (top - halo) // grid * grid),
                min(height, ceil((bottom + halo) / grid) * grid),
            )
            estimate = self._estimate(slab, (around, slice(0, width)))
            own = slice((top - around.start) // grid, ceil((bottom - around.start) / grid))
            part = estimate.at((slice(None), own))
            strips.append([FiledEstimate.of(file, part.at(z)) for z in range(len(part.numbers))])
        return tuple(_joined(file, parts) for parts in zip(*strips, strict=True))

    def _nothing(self) -> Nothing:
        """Why no pixel of the stack can be used."""
        found = [plane.nothing for plane in self._of(slice(0, self.depth))]
        dilations = [one.largest_dilation for one in found if one is not None]
        return Nothing(True, max((n for n in dilations if n is not None), default=None))


def _joined(file: IO[bytes], strips: Sequence[FiledEstimate]) -> FiledEstimate:
    """The strips of a plane, from the top, as one."""
    if len(strips) == 1:
        return strips[0]
    read = [strip.read() for strip in strips]
    marks = [
        np.zeros(r.numbers.shape, np.bool_) if r.unsupported is None else r.unsupported
        for r in read
    ]
    numbers = np.concatenate([strip.numbers for strip in read])
    return FiledEstimate.of(file, LocalEstimate.of(numbers, np.concatenate(marks)))


def _number(marks: Bool | None) -> int:
    return 0 if marks is None else int(np.count_nonzero(marks))


def _shape(part: YX) -> tuple[int, int]:
    return part[0].stop - part[0].start, part[1].stop - part[1].start
