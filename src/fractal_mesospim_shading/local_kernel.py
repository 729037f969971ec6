"""Local background on blocks: what is read around a block, and what is done to its planes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod, BackgroundResult
from fractal_mesospim_shading.core.background.apply import Application, apply_background
from fractal_mesospim_shading.core.background.masks import dilate_mask, no_data
from fractal_mesospim_shading.core.background.noise import estimate_noise_sigma, noise_bias
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.source import Box, MultitileImage

_SLAB_BYTES = 256 * 2**20
"""Pixels read at a time where more than the block itself has to be read."""


@dataclass(frozen=True)
class BackgroundKernel:
    """Local background correction of the tiles (or planes) that a block touches.

    Attributes:
        axes: of the image.
        layout: the tiles, or one tile that is the whole plane.
        methods: by channel.
        application: how the background is taken away.
        dtype: of the result.
        label: where objects are, or None.
        threshold: counts above which a pixel is an object, or None.
        dilation_px: by which objects are widened.
        add_noise_bias: add back what noise pulls the estimate down by.
        companions: further images made: `background`, `noise`.
        depth: planes of the image.
    """

    axes: str
    layout: TileLayout
    methods: tuple[BackgroundMethod, ...]
    application: Application
    dtype: np.dtype[Any]
    label: LabelImage | None
    threshold: float | None
    dilation_px: int
    add_noise_bias: bool
    companions: tuple[str, ...]
    depth: int

    @cached_property
    def zero_is_no_data(self) -> dict[int, bool]:
        """By channel, for the contrast windows."""
        return dict.fromkeys(range(len(self.methods)), True)

    @property
    def working_bytes(self) -> int:
        """What a block needs beside its own pixels: slabs read around it, and float planes."""
        plane = self.layout.tile_shape[0] * self.layout.tile_shape[1]
        return 2 * _SLAB_BYTES + 40 * plane

    def wanted_alignment(self, image: MosaicImage) -> tuple[int, ...]:
        """Blocks of whole tiles, so that each is estimated once and read once."""
        grain = list(image.read_grain())
        if all(tile.y % self.layout.tile_shape[0] == 0 for tile in self.layout.tiles):
            grain[-2] = self.layout.tile_shape[0]
        if all(tile.x % self.layout.tile_shape[1] == 0 for tile in self.layout.tiles):
            grain[-1] = self.layout.tile_shape[1]
        return tuple(grain)

    def process(
        self, source: MultitileImage, box: Box
    ) -> tuple[tuple[NDArray[Any], ...], dict[int, PixelCounts]]:
        shape = tuple(s.stop - s.start for s in box)
        result = np.empty(shape, self.dtype)
        extra = [np.zeros(shape, np.float32) for _ in self.companions]
        counts: dict[int, PixelCounts] = {}
        for lead, channel in self._leads(box):
            for slab in self._slabs(source, box, channel):
                found = self._correct_slab(source, box, lead, channel, slab, [result, *extra])
                counts[channel] = counts.get(channel, PixelCounts()) + found
        return (result, *extra), counts

    def _leads(self, box: Box) -> Iterator[tuple[dict[str, int], int]]:
        """Time points and channels of a block."""
        where = dict(zip(self.axes, box, strict=True))
        for t in range(*_span(where.get("t"))):
            for c in range(*_span(where.get("c"))):
                yield {"t": t, "c": c}, c

    def _slabs(self, source: MultitileImage, box: Box, channel: int) -> Iterator[slice]:
        """Ranges of planes handled together; all at once where nothing is read twice."""
        planes = dict(zip(self.axes, box, strict=True)).get("z", slice(0, 1))
        region = self._read_region(box, channel)
        own = (box[-2], box[-1])
        if region == own:
            yield planes
            return
        size = (region[0].stop - region[0].start) * (region[1].stop - region[1].start)
        step = max(1, _SLAB_BYTES // (size * source.dtype.itemsize))
        for start in range(planes.start, planes.stop, step):
            yield slice(start, min(start + step, planes.stop))

    def _correct_slab(
        self,
        source: MultitileImage,
        box: Box,
        lead: dict[str, int],
        channel: int,
        slab: slice,
        targets: list[NDArray[Any]],
    ) -> PixelCounts:
        method = self.methods[channel]
        read_z = slice(
            max(0, slab.start - method.depth_px), min(self.depth, slab.stop + method.depth_px)
        )
        region = self._read_region(box, channel)
        read_box = self._box(lead, read_z, region)
        pixels = source.read(0, read_box).reshape((-1, *(s.stop - s.start for s in region)))
        objects = None if self.label is None else self.label.read(read_box)
        place = self._box(
            {axis: lead[axis] - s.start for axis, s in zip(self.axes, box, strict=True) if axis in "tc"},
            _shifted(slab, dict(zip(self.axes, box, strict=True)).get("z", slice(0, 1)).start),
            (slice(0, box[-2].stop - box[-2].start), slice(0, box[-1].stop - box[-1].start)),
        )
        views = [target[place].reshape((-1, *target.shape[-2:])) for target in targets]
        own = (_shifted(box[-2], region[0].start), _shifted(box[-1], region[1].start))
        wanted = _shifted(slab, read_z.start)
        views[0][...] = pixels[wanted][(slice(None), *own)]
        counts = PixelCounts(views[0].size)
        for piece in self.layout.pieces(box[-2], box[-1]):
            area = self._area(piece, method)
            inside = (_shifted(area[0], region[0].start), _shifted(area[1], region[1].start))
            cut = (
                _shifted(_absolute(piece.in_box[0], box[-2]), area[0].start),
                _shifted(_absolute(piece.in_box[1], box[-1]), area[1].start),
            )
            part = np.ascontiguousarray(pixels[(slice(None), *inside)])
            mask = None if objects is None else objects[(slice(None), *inside)]
            outputs = [view[(slice(None), *piece.in_box)] for view in views]
            counts = counts + self._correct_tile(method, part, mask, wanted, cut, outputs)
        return counts

    def _correct_tile(
        self,
        method: BackgroundMethod,
        pixels: NDArray[Any],
        objects: NDArray[np.bool_] | None,
        wanted: slice,
        cut: tuple[slice, slice],
        outputs: list[NDArray[Any]],
    ) -> PixelCounts:
        """Estimate and correct the planes of one tile, and put the wanted part into place."""
        no_data_pixels = low = high = 0
        stack_at_once = method.depth_px > 0
        units = [slice(None)] if stack_at_once else [slice(z, z + 1) for z in range(*_span(wanted))]
        for unit in units:
            values = pixels[unit] if stack_at_once else pixels[unit][0]
            mask = self._mask(values, None if objects is None else objects[unit])
            # Raw 0 is what missing tiles and blocks hold.
            absent = no_data(values, zero_is_no_data=True)
            found = method.background(values, mask, absent)
            found = self._without_bias(method, values, absent, found)
            planes = wanted if stack_at_once else slice(unit.start - wanted.start, unit.stop - wanted.start)
            keep = (wanted, *cut) if stack_at_once else cut
            into = slice(None) if stack_at_once else planes
            values_in, missing = found.image_to_correct(values)[keep], _part(absent, keep)
            if missing is not None:
                values_in = np.where(missing, values[keep], values_in)
            if not found.estimated:
                missing = np.ones(values_in.shape, np.bool_)
            corrected, some = apply_background(
                np.ascontiguousarray(values_in),
                np.ascontiguousarray(found.background[keep]),
                self._how(method),
                dtype=self.dtype,
                coverage=missing,
            )
            outputs[0][into] = corrected
            for kind, output in zip(self.companions, outputs[1:], strict=True):
                image = found.background if kind == "background" else found.noise
                if image is not None:
                    output[into] = image[keep]
            no_data_pixels += some.no_data
            low += some.clipped_low
            high += some.clipped_high
        return PixelCounts(0, no_data_pixels, low, high, 0)

    def _how(self, method: BackgroundMethod) -> Application:
        return replace(self.application, rounding="half_up" if method.halves_up else "half_even")

    def _without_bias(
        self,
        method: BackgroundMethod,
        values: NDArray[Any],
        absent: NDArray[np.bool_] | None,
        found: BackgroundResult,
    ) -> BackgroundResult:
        if not self.add_noise_bias or not found.estimated:
            return found
        plane = values if values.ndim == 2 else values[len(values) // 2]
        missing = absent if absent is None or absent.ndim == 2 else absent[len(absent) // 2]
        sigma = estimate_noise_sigma(plane, missing)
        bias = sigma * _unit_bias(method)
        return replace(found, background=found.background - np.float32(bias))

    def _mask(
        self, values: NDArray[Any], objects: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        if objects is None and self.threshold is None:
            return None
        if objects is None:
            marked = np.asarray(values > self.threshold)
        else:
            marked = objects.reshape(values.shape)
        if values.ndim == 2:
            return dilate_mask(marked, self.dilation_px)
        return np.stack([dilate_mask(plane, self.dilation_px) for plane in marked])

    def _read_region(self, box: Box, channel: int) -> tuple[slice, slice]:
        """The part of the plane that has to be read for a block."""
        areas = [self._area(piece, self.methods[channel]) for piece in self.layout.pieces(box[-2], box[-1])]
        areas.append((box[-2], box[-1]))
        return (
            slice(min(y.start for y, _ in areas), max(y.stop for y, _ in areas)),
            slice(min(x.start for _, x in areas), max(x.stop for _, x in areas)),
        )

    def _area(self, piece: Piece, method: BackgroundMethod) -> tuple[slice, slice]:
        """The part of a tile that decides the background of a piece of it."""
        halo = method.halo_px
        masked = self.label is not None or self.threshold is not None
        area = []
        for start, inside, size in zip(
            (piece.tile.y, piece.tile.x), piece.in_tile, self.layout.tile_shape, strict=True
        ):
            if halo is None or masked or self.add_noise_bias:
                area.append(slice(start, start + size))
                continue
            step = method.alignment_px
            low = max(0, (inside.start - halo) // step * step)
            high = min(size, ceil((inside.stop + halo) / step) * step)
            area.append(slice(start + low, start + high))
        return area[0], area[1]

    def _box(self, lead: dict[str, int], z: slice, yx: tuple[slice, slice]) -> Box:
        where: dict[str, slice] = {axis: slice(i, i + 1) for axis, i in lead.items()}
        where |= {"z": z, "y": yx[0], "x": yx[1]}
        return tuple(where[axis] for axis in self.axes)


_biases: dict[BackgroundMethod, float] = {}


def _unit_bias(method: BackgroundMethod) -> float:
    """Bias for noise of one count; methods on ranks and means scale with it."""
    if method not in _biases:
        _biases[method] = noise_bias(method, 1.0)
    return _biases[method]


def _part(array: NDArray[np.bool_] | None, keep: Any) -> NDArray[np.bool_] | None:
    return None if array is None else np.ascontiguousarray(array[keep])


def _span(part: slice | None) -> tuple[int, int]:
    return (0, 1) if part is None else (part.start, part.stop)


def _shifted(part: slice, origin: int) -> slice:
    return slice(part.start - origin, part.stop - origin)


def _absolute(part: slice, box: slice) -> slice:
    return slice(part.start + box.start, part.stop + box.start)
