"""The stacks of one angle as a virtual c,z,y,x image whose tiles lie edge to edge."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import LayoutError, ParameterError
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.arrays.reading import opened
from fractal_mesospim_shading.images.arrays.sampled_files import (
    SAMPLED_FILES,
    files_below,
    stored_share,
)
from fractal_mesospim_shading.images.light_path import together
from fractal_mesospim_shading.images.native.channels import NativeChannel
from fractal_mesospim_shading.images.native.placement import PlacedStack, TilePlace
from fractal_mesospim_shading.images.native.shared_chunks import SharedChunks, shared_bytes
from fractal_mesospim_shading.images.native.stack import Stack
from fractal_mesospim_shading.images.source import (
    Axes,
    Channel,
    ChunkFrame,
    Grid,
    Level,
    ModelGroup,
)
from fractal_mesospim_shading.images.storage import places

_SAMPLED_ARRAYS = 64
"""Arrays of an acquisition, evenly spread, that the size of a result is told from."""


@dataclass(frozen=True)
class NativeMosaic:
    """One angle of an acquisition (and one side, where tiles have both) as an image.

    It is virtual: a box is put together from the stacks that reach into it when it is
    read. Where no stack is, there is 0. It can be pickled; arrays are opened when they are
    first read, once for each process.

    Attributes:
        url: of the container.
        suffix: tells the mosaics of one container apart; empty where there is only one.
        rotation: in degrees.
        side: `left`, `right` or `both` where all stacks share it, else None.
        native_channels: lasers and filters in the order of the c axis.
        layout: the tiles edge to edge.
        places: where the tiles really were, by rising number.
        placed: the stacks.
        shape: (c, z, y, x); with t in front where there are several time points.
        voxel_um: (z, y, x).
        z_start_um: height of plane 0.
        dtype: of the pixels in native byte order.
        notes: lines that a person should read.
        storage_options: for remote addresses, as JSON.
        shared: what the blocks of a run leave for each other; None outside of one.
    """

    url: str
    suffix: str
    rotation: float
    side: str | None
    native_channels: tuple[NativeChannel, ...]
    layout: TileLayout
    places: tuple[TilePlace, ...]
    placed: tuple[PlacedStack, ...]
    shape: tuple[int, ...]
    voxel_um: tuple[float, float, float]
    z_start_um: float
    dtype: np.dtype[Any]
    notes: tuple[str, ...]
    storage_options: str
    shared: SharedChunks | None = field(default=None, compare=False, repr=False)

    @property
    def axes(self) -> Axes:
        """`czyx`, or `tczyx` where there are several time points."""
        return Axes("tczyx"[-len(self.shape) :])

    @property
    def depth(self) -> int:
        """Planes along z."""
        return self.shape[-3]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels; the wavelength_id is the wavelength, or the label where it repeats."""
        lasers = [channel.laser for channel in self.native_channels]
        return tuple(
            Channel(
                index,
                channel.label,
                f"{channel.wavelength_nm:g}"
                if channel.wavelength_nm is not None and lasers.count(channel.laser) == 1
                else channel.label,
            )
            for index, channel in enumerate(self.native_channels)
        )

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Full resolution only."""
        units = (
            *(1,) * len(self.shape[:-3]),
            *(max(p.stack.levels[0].chunks[axis] for p in self.placed) for axis in range(3)),
        )
        chunks = tuple(min(unit, size) for unit, size in zip(units, self.shape, strict=True))
        scale = (*(1.0,) * len(self.shape[:-3]), *self.voxel_um)
        return (Level("", self.shape, chunks, None, scale),)

    @property
    def voxel_size_um(self) -> dict[str, float]:
        """Size of a voxel along each axis of space, in micrometers."""
        return dict(zip("zyx", self.voxel_um, strict=True))

    def read_units(self, level: int) -> Sequence[int]:
        """Shape of the largest chunk among the stacks, one number an axis.

        Chunks begin anew with each tile, and where a stack starts at another z or runs
        downward, they are shifted along z.
        """
        return self.levels[level].chunks

    def planes_apart(self, level: int) -> bool:
        """As the first stack's encoding allows it, for one program wrote them all."""
        return self.placed[0].stack.planes_apart(self.url, self.storage_options)

    def read_grain(self) -> Sequence[int]:
        """Chunks along y and x where they divide the tile, else the tile, where they begin anew.

        Along z it is the chunk. Where stacks start elsewhere or run downward, blocks leave what
        they share for each other: see `SharedChunks`.
        """
        chunks = self.levels[0].chunks
        pairs = zip(self.layout.tile_shape, chunks[-2:], strict=True)
        return (*chunks[:-2], *(c if size % c == 0 else size for size, c in pairs))

    @cached_property
    def _by_place(self) -> dict[tuple[int, int], tuple[PlacedStack, ...]]:
        """The stacks of a channel in a tile, one a time point."""
        by_place: dict[tuple[int, int], list[PlacedStack]] = defaultdict(list)
        for placed in self.placed:
            by_place[placed.channel, placed.tile].append(placed)
        return {key: tuple(stacks) for key, stacks in by_place.items()}

    def stack_of(self, channel: int, tile: int) -> Stack | None:
        """The (first) stack of a channel in a tile; None where that was not taken."""
        placed = self._by_place.get((channel, tile))
        return placed[0].stack if placed else None

    def planes_of(self, channel: int, tile: int) -> range:
        """Planes of the mosaic that stacks of any time fill; empty where there is none."""
        planes = [placed.planes for placed in self._by_place.get((channel, tile), ())]
        if not planes:
            return range(0)
        return range(min(p.start for p in planes), max(p.stop for p in planes))

    def side_of(self, channel: int, tile: int) -> str | None:
        """From which side a stack was lit: `left`, `right`, `both`; None without a stack."""
        stack = self.stack_of(channel, tile)
        return stack.side if stack else None

    def sides(self, channel: int) -> tuple[str, ...]:
        """The sides that occur in a channel, each once: as many profiles it needs."""
        return tuple(sorted({p.stack.side for p in self.placed if p.channel == channel}))

    def place_of(self, tile: int) -> TilePlace:
        """Where a tile really was.

        Raises:
            LayoutError: no such tile.
        """
        if tile not in self._places:
            self.layout.tile(tile)
            raise LayoutError(f"Tile {tile} has no position.")
        return self._places[tile]

    @cached_property
    def _places(self) -> dict[int, TilePlace]:
        return {place.number: place for place in self.places}

    @property
    def numbering(self) -> str | None:
        """Which tile of the acquisition each number is, unless they count alike."""
        names = {place.number: place.name for place in self.places}
        if all(name == f"Tile{number - 1}" for number, name in names.items()):
            return None
        pairs = ", ".join(f"{number} is {name}" for number, name in names.items())
        return f"Tiles are numbered by their places, not by their names: {pairs}."

    def original_um(self) -> dict[int, tuple[float, float]]:
        """(x, y) by tile number for the columns `*_micrometer_original` of a tile table.

        They follow the stage in the orientation of the image, so that tiles placed by them
        agree in their overlaps; the smallest is 0.
        """
        return {place.number: (place.x_um, place.y_um) for place in self.places}

    @property
    def origins_px(self) -> dict[int, tuple[float, float]]:
        """(y, x) of each tile as it was on the stage, by number, in pixels; the smallest is 0."""
        return {place.number: (place.y_px, place.x_px) for place in self.places}

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Itself alone."""
        return (Grid.alone(self.url, self.layout),)

    def chunk_frame(self, channel: int, tile: int) -> ChunkFrame:
        """Chunks begin with each tile; along z with the plane that was taken first."""
        placed, place = self._by_place[channel, tile][0], self.layout.tile(tile)
        planes, (height, width) = placed.planes, self.layout.tile_shape
        return ChunkFrame(
            (planes.stop if placed.stack.downward else planes.start, place.y, place.x),
            ((planes.start, planes.stop), (place.y, place.y + height), (place.x, place.x + width)),
        )

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """Put a box together from the stacks in it.

        Each stack is read once, with all the planes and pixels of it that lie in the box, so
        every chunk is decoded once for each box it reaches into.

        Args:
            level: 0; there is no other.
            box: one slice with start and stop for each axis.

        Returns:
            Pixels; 0 where no stack is.

        Raises:
            SourceReadError: a chunk is there but cannot be read; the message names it.
        """
        if level != 0:
            raise ParameterError(f"A native acquisition is read at level 0, not {level}.")
        return self._read(box, None)

    def read_block(self, box: Box) -> NDArray[Any]:
        """Read a block; what it shares with others is decoded once, as far as there is room."""
        return self._read(box, self.shared)

    def shared_bytes(self, block: Sequence[int], workers: int) -> int:
        """What lies above a border of blocks, in chunks from below it, and chunks being decoded."""
        return shared_bytes(self.placed, self.dtype, block, workers)

    def sharing(
        self, room: int, block: Sequence[int], done: Collection[tuple[int, ...]]
    ) -> NativeMosaic:
        """The same, for the blocks of one run."""
        return replace(self, shared=SharedChunks(room, block, done))

    def _read(self, box: Box, shared: SharedChunks | None) -> NDArray[Any]:
        z, y, x = box[-3:]
        times, channels = self.axes.span("t", box), self.axes.span("c", box)
        result = np.zeros(tuple(part.stop - part.start for part in box), dtype=self.dtype)
        for channel in range(channels.start, channels.stop):
            for piece in self.layout.pieces(y, x):
                for placed in self._by_place.get((channel, piece.tile.number), ()):
                    start, stop = max(z.start, placed.planes.start), min(z.stop, placed.planes.stop)
                    if start >= stop or placed.stack.time not in range(times.start, times.stop):
                        continue
                    lead = (placed.stack.time - times.start, channel - channels.start)
                    into = slice(start - z.start, stop - z.start)
                    out = result[(*lead[-len(box[:-3]) :], into, *piece.in_box)]
                    out = out[::-1] if placed.stack.downward else out
                    planes = placed.planes_in_array(slice(start, stop))
                    read = partial(self._read_stack, placed.stack, piece.in_tile)
                    if shared is None:
                        out[...] = read(planes)
                    else:
                        shared.fill(out, box, placed, planes, piece.in_tile, read)
        return result

    def _read_stack(
        self, stack: Stack, in_tile: tuple[slice, slice], planes: slice
    ) -> NDArray[Any]:
        return stack.read(self.url, self.storage_options, (planes, *in_tile))

    def stored(self, level: int) -> tuple[StoredArray, ...]:
        """The arrays of all stacks; there is no level but 0."""
        stored = (item.stack.stored(self.url, self.storage_options) for item in self.placed)
        return tuple(dict.fromkeys(stored))

    @property
    def model_groups(self) -> tuple[ModelGroup, ...]:
        """One for each channel, or for each illumination side of a channel."""
        groups = []
        for channel in self.channels:
            sides = self.sides(channel.index)
            for side in sides:
                label = channel.label if len(sides) == 1 else f"{channel.label}/{side}"
                own = [p for p in self.placed if (p.channel, p.stack.side) == (channel.index, side)]
                placed = sorted(own, key=lambda p: p.tile)
                spans = {p.tile: self.planes_of(channel.index, p.tile) for p in placed}
                planes = {tile: (span.start, span.stop) for tile, span in spans.items()}
                processors = sorted({name for p in placed for name in p.stack.processors})
                gone = tuple(dict.fromkeys(p.tile for p in placed if p.stack.offset_removed))
                cells = set(product(planes, range(self.axes.length("t", self.shape))))
                lacking = frozenset(cells - {(p.tile, p.stack.time) for p in placed})
                path = together(p.stack.light_path for p in placed)
                known = (tuple(processors), gone, lacking, path)
                groups.append(ModelGroup(label, channel, side, planes, *known))
        return tuple(groups)

    def state(self) -> str:
        """Fingerprint: its metadata, and size and time of some chunk files."""
        digest = hashlib.sha256()
        for placed in self.placed:
            stack = placed.stack
            digest.update(repr((placed.tile, placed.channel, placed.first_plane)).encode())
            digest.update(repr((stack.group, stack.fingerprint, stack.shape, *stack.lead)).encode())
        digest.update(repr(self.layout).encode())
        for path in self._some_files():
            state = os.stat(path)
            digest.update(f"{state.st_size},{state.st_mtime_ns}".encode())
        return digest.hexdigest()

    def stored_share(self) -> float:
        """Bytes of its chunk files over those of its pixels, told from some files."""
        stacks = list({self._array_of(placed): placed.stack for placed in self.placed}.values())
        # To open one takes as long as to look at many of its files.
        some = np.linspace(0, len(stacks) - 1, min(len(stacks), _SAMPLED_ARRAYS)).round()
        arrays = (opened(stacks[int(k)].stored(self.url, self.storage_options)) for k in some)
        return float(np.mean([stored_share(one, SAMPLED_FILES // len(some)) for one in arrays]))

    def _some_files(self) -> Iterator[str]:
        if not places.is_local(self.url):
            return
        arrays = dict.fromkeys(map(self._array_of, self.placed))
        each = max(1, SAMPLED_FILES // max(len(arrays), 1))
        for group, path in arrays:
            yield from islice(files_below(places.local_path(self.url) / group / path), each)

    @staticmethod
    def _array_of(placed: PlacedStack) -> tuple[str, str]:
        """Group and path of the array that holds a stack, alone or with others."""
        return placed.stack.group, placed.stack.levels[0].path
