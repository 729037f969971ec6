"""Several images beside each other as one, so that one flat-field is estimated from all of them.

They lie along x. Between them are gaps that no tile reaches into, so that the chunks of each image
begin where its levels have a pixel. Only what an estimate reads is ever looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile_shapes import shape_text
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.light_path import together
from fractal_mesospim_shading.images.source import (
    Axes,
    Channel,
    ChunkFrame,
    Grid,
    Level,
    ModelGroup,
    MultitileImage,
    SharingNothing,
)

_SAME_SIZE = 0.01
"""By how much pixels of one light path may differ in size, as a fraction."""


@dataclass(frozen=True)
class JoinedImages(SharingNothing):
    """A `MultitileImage` of the tiles of several; build it with `joined`.

    Tiles are numbered as in one mosaic: those of the first image come first.

    Attributes:
        images: at least two; of the same tile shape, channels, pixel type and pixel size.
    """

    images: tuple[MultitileImage, ...]

    @property
    def url(self) -> str:
        """Of all images."""
        return ", ".join(image.url for image in self.images)

    @property
    def suffix(self) -> str:
        """That of the images."""
        return self.images[0].suffix

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of all images."""
        return tuple(note for image in self.images for note in image.notes)

    @property
    def axes(self) -> Axes:
        """All axes that there can be."""
        return Axes("tczyx")

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Those of the first image."""
        return self.images[0].channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of all images."""
        return self.images[0].dtype

    @property
    def voxel_size_um(self) -> dict[str, float]:
        """That of the first image."""
        return self.images[0].voxel_size_um

    @cached_property
    def _level_count(self) -> int:
        """Levels that all images have in the same proportions."""
        scales = [[_factors(image, k) for k in range(len(image.levels))] for image in self.images]
        count = 0
        for level in zip(*scales, strict=False):
            if len(set(level)) > 1:
                break
            count += 1
        return max(count, 1)

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        """Where each image begins along x, and where the last one ends, at full resolution."""
        units = [
            image.read_units(level)[-1] * _factors(image, level)[-1]
            for image in self.images
            for level in range(self._level_count)
        ]
        unit, starts = lcm(*units), [0]
        for image in self.images:
            starts.append(starts[-1] + -(-image.layout.plane_shape[1] // unit) * unit)
        return tuple(starts)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The levels that all images have, as large as all of them side by side."""
        levels = []
        for number in range(self._level_count):
            own = [image.levels[number] for image in self.images]
            lengths = [
                [image.axes.length(axis, level.shape) for axis in "tczy"]
                for image, level in zip(self.images, own, strict=True)
            ]
            width = self._starts[-1] // _factors(self.images[0], number)[-1]
            units = [self._five(image, image.read_units(number), 1) for image in self.images]
            chunks = tuple(max(sizes) for sizes in zip(*units, strict=True))
            shape = (*(max(sizes) for sizes in zip(*lengths, strict=True)), width)
            scale = self._five(self.images[0], own[0].scale, 1.0)
            levels.append(Level(str(number), shape, chunks, None, scale))
        return tuple(levels)

    def _five(self, image: MultitileImage, values: Sequence[Any], missing: Any) -> tuple[Any, ...]:
        """One value an axis, of an image that may lack some axes."""
        return tuple(
            values[image.axes.index(axis)] if axis in image.axes else missing for axis in self.axes
        )

    @cached_property
    def layout(self) -> TileLayout:
        """All tiles, where their images lie."""
        height = max(image.layout.plane_shape[0] for image in self.images)
        origins = [
            (tile.y, tile.x + start)
            for image, start in zip(self.images, self._starts, strict=False)
            for tile in image.layout.tiles
        ]
        tile_shape = self.images[0].layout.tile_shape
        return TileLayout.from_origins(origins, tile_shape, (height, self._starts[-1]))

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """Those of the images."""
        by_place = {(tile.y, tile.x): tile.number for tile in self.layout.tiles}
        grids = []
        for image, start in zip(self.images, self._starts, strict=False):
            tiles = image.layout.tiles
            numbers = {tile.number: by_place[tile.y, tile.x + start] for tile in tiles}
            grids.append(Grid(image.url, image.layout, numbers))
        return tuple(grids)

    @property
    def _numbers(self) -> tuple[Mapping[int, int], ...]:
        return tuple(grid.numbers for grid in self.grids)

    @property
    def origins_px(self) -> Mapping[int, tuple[float, float]] | None:
        """Where each tile really was, in images that lie apart; None where one does not know."""
        origins: dict[int, tuple[float, float]] = {}
        for image, start, numbers in zip(self.images, self._starts, self._numbers, strict=False):
            if image.origins_px is None:
                return None
            for number, (y, x) in image.origins_px.items():
                origins[numbers[number]] = (y, x + start)
        return origins

    @cached_property
    def model_groups(self) -> tuple[ModelGroup, ...]:
        """Those of the first image, with the tiles of all."""
        groups = []
        for first in self.images[0].model_groups:
            own = [
                next(group for group in image.model_groups if group.label == first.label)
                for image in self.images
            ]
            pairs = list(zip(own, self._numbers, strict=True))
            lacking = set()
            for image, (group, numbers) in zip(self.images, pairs, strict=True):
                times = image.axes.length("t", image.levels[0].shape)
                lacking |= {(numbers[tile], time) for tile, time in group.unwritten}
                beyond = range(times, self.levels[0].shape[0])
                lacking |= {(numbers[tile], time) for tile in group.planes for time in beyond}
            groups.append(
                replace(
                    first,
                    planes={
                        numbers[tile]: span
                        for group, numbers in pairs
                        for tile, span in group.planes.items()
                    },
                    processors=tuple(sorted({name for group in own for name in group.processors})),
                    offset_gone=tuple(n[t] for group, n in pairs for t in group.offset_gone),
                    unwritten=frozenset(lacking),
                    light_path=together(group.light_path for group in own),
                )
            )
        return tuple(groups)

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """Put a box together from the images in it; 0 where none is.

        Raises:
            SourceReadError: a chunk cannot be read; the message names it.
        """
        result = np.zeros([part.stop - part.start for part in box], self.dtype)
        spans = dict(zip(self.axes, box, strict=True))
        for image, start in self._along_x(level):
            shape = image.levels[level].shape
            sizes = {axis: image.axes.length(axis, shape) for axis in self.axes}
            begins = {axis: start if axis == "x" else 0 for axis in self.axes}
            own = {
                axis: slice(
                    max(part.start - begins[axis], 0), min(part.stop - begins[axis], sizes[axis])
                )
                for axis, part in spans.items()
            }
            if any(part.start >= part.stop for part in own.values()):
                continue
            into = tuple(
                slice(
                    own[axis].start + begins[axis] - part.start,
                    own[axis].stop + begins[axis] - part.start,
                )
                for axis, part in spans.items()
            )
            for channel in range(own["c"].start, own["c"].stop):
                place = _channel_of(image, self.channels[channel].label)
                one = {**own, "c": slice(place, place + 1)}
                pixels = image.read(level, image.axes.box(one))
                at = channel - spans["c"].start
                target = result[(into[0], slice(at, at + 1), *into[2:])]
                target[...] = pixels.reshape(target.shape)
        return result

    def _along_x(self, level: int) -> Iterator[tuple[MultitileImage, int]]:
        """The images with where they begin along x at a level."""
        for image, start in zip(self.images, self._starts, strict=False):
            yield image, start // _factors(image, level)[-1]

    def read_units(self, level: int) -> Sequence[int]:
        """Shape of the largest chunk among the images, one number an axis."""
        return self.levels[level].chunks

    def planes_apart(self, level: int) -> bool:
        """As all images allow it."""
        return all(image.planes_apart(level) for image in self.images)

    def read_grain(self) -> Sequence[int]:
        """The chunk of level 0."""
        return self.levels[0].chunks

    def stored(self, level: int) -> tuple[StoredArray, ...]:
        """The arrays of all images."""
        return tuple(array for image in self.images for array in image.stored(level))

    def state(self) -> str:
        """Fingerprint: those of all images."""
        states = " ".join(image.state() for image in self.images)
        return hashlib.sha256(states.encode()).hexdigest()

    def stored_share(self) -> float:
        """The largest of the images."""
        return max(image.stored_share() for image in self.images)

    def chunk_frame(self, channel: int, tile: int) -> ChunkFrame:
        """That of the image which has the tile, where it lies here."""
        label = self.channels[channel].label
        for image, start, numbers in zip(self.images, self._starts, self._numbers, strict=False):
            for own, number in numbers.items():
                if number == tile:
                    frame = image.chunk_frame(_channel_of(image, label), own)
                    (z, y, x), (depth, height, width) = frame.corner, frame.spans
                    moved = (width[0] + start, width[1] + start)
                    return ChunkFrame((z, y, x + start), (depth, height, moved))
        raise KeyError(tile)


def joined(images: Sequence[MultitileImage]) -> MultitileImage:
    """Images as one; one alone as it is.

    Raises:
        ParameterError: they cannot share one flat-field; says why, of each of them.
    """
    first, *others = images
    if not others:
        return first
    lines = [
        f"'{image.url}' has {there}, but '{first.url}' has {here}"
        for image in others
        for here, there in zip(_shared(first), _shared(image), strict=True)
        if here != there
    ]
    lines += [
        f"'{image.url}' has pixels of {_size_text(image)}, but '{first.url}' of {_size_text(first)}"
        for image in others
        if not _same_size(first, image)
    ]
    urls = [image.url + image.suffix for image in images]
    lines += [f"'{url}' is named twice" for url in sorted({u for u in urls if urls.count(u) > 1})]
    if lines:
        listed = "".join(f"\n  {line}." for line in lines)
        raise ParameterError(
            "One flat-field is estimated from several images of the same light path; these cannot "
            f"share one. Estimate them apart.{listed}"
        )
    return JoinedImages(tuple(images))


def _shared(image: MultitileImage) -> tuple[str, str, str]:
    """What has to be the same, in words."""
    groups = ", ".join(sorted(f"'{group.label}'" for group in image.model_groups))
    return (
        f"tiles of {shape_text(image.layout.tile_shape)} pixels (y, x)",
        f"the channels {groups}",
        f"pixels of the type {image.dtype.name}",
    )


def _same_size(one: MultitileImage, other: MultitileImage) -> bool:
    pairs = [(one.voxel_size_um[axis], other.voxel_size_um[axis]) for axis in "yx"]
    return all(abs(a - b) <= _SAME_SIZE * max(a, b) for a, b in pairs)


def _size_text(image: MultitileImage) -> str:
    size = image.voxel_size_um
    return f"{size['y']:.4g} x {size['x']:.4g} micrometers (y, x)"


def _channel_of(image: MultitileImage, label: str) -> int:
    return next(channel.index for channel in image.channels if channel.label == label)


def _factors(image: MultitileImage, level: int) -> tuple[int, int, int]:
    """Pixels of full resolution in one of a level, along z, y and x."""
    fine, coarse = image.levels[0].scale, image.levels[level].scale
    places = [image.axes.position(axis) for axis in "zyx"]
    ratios = [1 if at is None else max(1, round(coarse[at] / fine[at])) for at in places]
    return ratios[0], ratios[1], ratios[2]
