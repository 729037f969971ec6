"""An image, whatever its kind: what the rest of the package asks of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.light_path import LightPath


class Axes(str):
    """Names of the axes of an image in order, such as `czyx`; `yx` come last."""

    __slots__ = ()

    def position(self, axis: str) -> int | None:
        """Index of an axis; None where the image lacks it."""
        return self.index(axis) if axis in self else None

    def length(self, axis: str, shape: Sequence[int]) -> int:
        """What a shape has along an axis; 1 where the image lacks it."""
        return shape[self.index(axis)] if axis in self else 1

    def span(self, axis: str, box: Box) -> slice:
        """The part of a box along an axis; the first item where the image lacks it."""
        return box[self.index(axis)] if axis in self else slice(0, 1)

    def box(self, spans: Mapping[str, slice]) -> Box:
        """The box of these parts; those along axes that the image lacks are left out."""
        return tuple(spans[axis] for axis in self)


@dataclass(frozen=True)
class Channel:
    """One channel of an image.

    Attributes:
        index: position along the c axis, 0 where there is none.
        label: as people and model folders know it.
        wavelength_id: as Fractal knows it, where it is given.
    """

    index: int
    label: str
    wavelength_id: str | None = None

    @property
    def number(self) -> str | None:
        """The first number in its label, mostly the wavelength; None where there is none."""
        found = re.search(r"\d+", self.label)
        return None if found is None else found.group()


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Attributes:
        path: of the array within the group.
        shape: in pixels, one number an axis.
        chunks: shape of a chunk (within a shard, where there are shards).
        shards: shape of a shard, None where there are none.
        scale: size of a pixel, one number an axis, in the units of the axes.
    """

    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    scale: tuple[float, ...]


@dataclass(frozen=True)
class ModelGroup:
    """Stacks that share one model: a channel, and one illumination side where these differ.

    Attributes:
        label: of the channel, with the side after a slash where there is more than one.
        channel: of the image.
        side: `left`, `right`, `both`, or None.
        planes: tile number -> planes at full resolution that exist, as (first, last + 1).
        processors: image processors of the microscope that changed some of the stacks.
        offset_gone: tiles whose stacks had a processor that takes the camera offset away.
        unwritten: (tile, time point) of which nothing exists.
        light_path: what is told of it.
    """

    label: str
    channel: Channel
    side: str | None
    planes: Mapping[int, tuple[int, int]]
    processors: tuple[str, ...] = ()
    offset_gone: tuple[int, ...] = ()
    unwritten: frozenset[tuple[int, int]] = frozenset()
    light_path: LightPath = field(default_factory=LightPath)

    @property
    def own_side(self) -> str | None:
        """The side that its model is kept under; None where one model is for all sides."""
        return None if self.label == self.channel.label else self.side


@dataclass(frozen=True)
class ChunkFrame:
    """A part of an image, along (z, y, x), whose chunks are counted from one corner.

    Attributes:
        corner: pixel at which chunks meet; those of `MultitileImage.read_units` follow either way.
        spans: (first, last + 1) of the part.
    """

    corner: tuple[int, int, int]
    spans: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Grid:
    """A mosaic that an image consists of: itself, or one of several that are joined.

    Attributes:
        url: of the image.
        layout: of its tiles.
        numbers: by its own number of a tile, the number that this has in the whole.
    """

    url: str
    layout: TileLayout
    numbers: Mapping[int, int]

    @classmethod
    def alone(cls, url: str, layout: TileLayout) -> Grid:
        """That of an image that is no other's part."""
        return cls(url, layout, {tile.number: tile.number for tile in layout.tiles})


class PixelSource(Protocol):
    """Planes of several channels that can be read in boxes: all that a kernel asks for."""

    @property
    def axes(self) -> Axes:
        """Its axes in order."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels in the order of the c axis; one where there is no such axis."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels in native byte order: uint8, uint16 or float32."""

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """Read a box of a level, in native byte order.

        Raises:
            SourceReadError: a chunk cannot be read; the message names it.
        """

    def read_block(self, box: Box) -> NDArray[Any]:
        """Read a box of level 0 that is a block of a run, which reads each block once."""

    def read_grain(self) -> Sequence[int]:
        """What boxes of level 0 should be multiples of, so that no chunk is decoded twice."""


class BlocksAsBoxes:
    """How a `PixelSource` reads a block to which it is a box like others."""

    def read_block(self: PixelSource, box: Box) -> NDArray[Any]:
        """As any other box."""
        return self.read(0, box)


class SourceView(BlocksAsBoxes):
    """What a `PixelSource` that reads from another one has in common with it: all but `read`."""

    def __init__(self, source: PixelSource) -> None:
        """Nothing is read yet."""
        self._source = source

    @property
    def axes(self) -> Axes:
        """Those of the source."""
        return self._source.axes

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Those of the source."""
        return self._source.channels

    @property
    def levels(self) -> tuple[Level, ...]:
        """Those of the source."""
        return self._source.levels

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the source."""
        return self._source.dtype

    def read_grain(self) -> Sequence[int]:
        """That of the source."""
        return self._source.read_grain()


class SharingNothing(BlocksAsBoxes):
    """What an image answers whose chunks begin where blocks do, so that none belongs to two."""

    def shared_bytes(self, block: Sequence[int], workers: int) -> int:
        """Nothing."""
        return 0

    def sharing(self, room: int, block: Sequence[int], done: Collection[tuple[int, ...]]) -> Self:
        """Itself."""
        return self


class MultitileImage(PixelSource, Protocol):
    """A multi-channel stack of planes, each plane a mosaic of tiles."""

    def shared_bytes(self, block: Sequence[int], workers: int) -> int:
        """What blocks leave in memory for others, at most, so that each chunk is decoded once.

        Args:
            block: shape of a block; the first begins at pixel 0.
            workers: blocks that are read at a time.
        """

    def sharing(
        self, room: int, block: Sequence[int], done: Collection[tuple[int, ...]]
    ) -> MultitileImage:
        """The image as the blocks of one run read it that are all computed in this process.

        Args:
            room: bytes that blocks may leave in memory for others.
            block: their shape.
            done: those that are not going to be read, by their places in the grid of blocks.
        """

    @property
    def url(self) -> str:
        """Address it was opened from."""

    @property
    def suffix(self) -> str:
        """Tells the mosaics of one container apart; empty where there is only one."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that a person should read."""

    @property
    def layout(self) -> TileLayout:
        """The tiles at full resolution."""

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The mosaics that it consists of; people name tiles by the numbers of these."""

    @property
    def origins_px(self) -> Mapping[int, tuple[float, float]] | None:
        """Where each tile really was, by number: its origin (y, x) in pixels of full resolution.

        In the orientation of the image, not rounded; the smallest is 0. None where it is not
        known: the layout puts tiles edge to edge.
        """

    @property
    def voxel_size_um(self) -> dict[str, float]:
        """Size of a pixel at full resolution along each axis of space, in micrometers."""

    @property
    def model_groups(self) -> tuple[ModelGroup, ...]:
        """The models that it needs: one a channel, or one a channel and illumination side."""

    def state(self) -> str:
        """Fingerprint: its metadata, and size and time of some of its chunk files."""

    def stored_share(self) -> float:
        """Bytes of its chunk files over those of its pixels, told from some files."""

    def stored(self, level: int) -> Sequence[StoredArray]:
        """The arrays that the pixels of a level come from."""

    def read_units(self, level: int) -> Sequence[int]:
        """Shape of the smallest piece that is decoded as a whole, one number an axis."""

    def planes_apart(self, level: int) -> bool:
        """Whether some planes of a chunk are decoded without the others of it."""

    def chunk_frame(self, channel: int, tile: int) -> ChunkFrame:
        """Which pixels of level 0 are decoded together with pixels of a tile.

        Args:
            channel: index along c.
            tile: number of the tile, which has a stack of the channel.
        """
