"""One job is one immutable plan, and a plain function for each of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import lcm, prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading import allocation
from fractal_mesospim_shading.core.blocks import BlockGrid, Node, within
from fractal_mesospim_shading.core.correct import (
    Linear,
    PixelCounts,
    TileCorrection,
    correct,
    paint,
)
from fractal_mesospim_shading.core.histogram import Histogram, lattice, on_lattice
from fractal_mesospim_shading.core.layout import Piece, TileLayout
from fractal_mesospim_shading.core.pyramid import block_mean
from fractal_mesospim_shading.images.file_states import noted_reads
from fractal_mesospim_shading.images.source import Box, MultitileImage, StoredArray
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.offset_look import OffsetLook
from fractal_mesospim_shading.zero_look import ZeroLook, Zeros

BLOCK_BYTES = 16 * 2**20
"""Write units below this size are grouped to one block. Twice as much was a fifth slower."""

_MANY_BLOCKS = 250_000
"""Of larger images blocks are larger, up to `_GROUPED_BYTES`, so that the records of all of them
stay within a gigabyte."""

_GROUPED_BYTES = 128 * 2**20

MOST_BLOCK_BYTES = 2**30
"""Blocks are not enlarged beyond this to follow the chunks of the source."""


def block_wish(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Pixels that a block of an image of this shape and type should hold at least."""
    shared = prod(shape) * dtype.itemsize // _MANY_BLOCKS
    return max(1, max(BLOCK_BYTES, min(shared, _GROUPED_BYTES)) // dtype.itemsize)


@dataclass(frozen=True)
class Processed:
    """A box that a kernel has processed.

    Attributes:
        pixels: for each image that is written.
        counts: by channel.
        noise: of raw pixels, by label of the model, as text for the journal; see `offset_look`.
    """

    pixels: tuple[NDArray[Any], ...]
    counts: dict[int, PixelCounts]
    noise: dict[str, list[str]] = field(default_factory=dict)


class Kernel(Protocol):
    """What turns a box of the source into a box of the result."""

    @property
    def besides(self) -> Sequence[StoredArray]:
        """Arrays that are read besides the source."""

    def process(self, source: MultitileImage, box: Box) -> Processed:
        """Read and process a box."""


@dataclass(frozen=True)
class FlatfieldKernel:
    """Flat-field correction.

    Attributes:
        axes: of the image.
        layout: where the tiles lie.
        corrections: of a tile, by profile name.
        profile_names: by (channel, tile number); tile number None stands for all tiles.
        look: what is done about zeros.
        blank_outside: make pixels 0 that belong to no tile; else they stay as they are.
        offset_look: planes whose noise is taken on the way; None for none.
    """

    axes: str
    layout: TileLayout
    corrections: dict[str, TileCorrection]
    profile_names: dict[tuple[int, int | None], str]
    look: ZeroLook
    blank_outside: bool = False
    offset_look: OffsetLook | None = None

    @property
    def zero_is_no_data(self) -> dict[int, bool]:
        """By channel, for the contrast windows."""
        return self.look.may_be_no_data

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        """What a block needs beside the pixels that it writes."""
        return self.look.working_bytes(source)

    @property
    def besides(self) -> Sequence[StoredArray]:
        return ()

    def process(self, source: MultitileImage, box: Box) -> Processed:
        data = source.read(0, box)
        outside = self.layout.outside(box[-2], box[-1]) if self.blank_outside else None
        if outside is not None:
            data[..., outside] = 0
        counts: dict[int, PixelCounts] = {}
        noise: dict[str, list[str]] = {}
        for lead, z, planes in channel_stacks(data, self.axes, box):
            channel = lead["c"]
            linear = self._painted(channel, box[-2], box[-1])
            stack = np.ascontiguousarray(planes)
            zeros = Zeros()
            if self.look.looks(channel):
                zeros = self.look.zeros(source, lead, z, (box[-2], box[-1]), stack)
            none = self.look.rules[channel] == "no_data"
            if self.offset_look is not None:
                name_of = partial(self._name, channel)
                skipped = None if none else zeros.without_data
                where = (z, box[-2], box[-1])
                pieces = self.offset_look.pieces(lead, where, self.layout, name_of, skipped)
                for name, piece, run in pieces:
                    dark = self.corrections[name].dark
                    text = self.offset_look.noise(stack, piece, run, dark, zero_is_no_data=none)
                    noise.setdefault(name, []).append(text)
            found = correct(stack, linear, zero_is_no_data=none, without_data=zeros.without_data)
            found += PixelCounts(**zeros.counted())
            if stack is not planes and not np.shares_memory(stack, planes):
                planes[...] = stack
            counts[channel] = counts.get(channel, PixelCounts()) + found
        return Processed((data,), counts, noise)

    def _name(self, channel: int, piece: Piece) -> str:
        names = self.profile_names
        return names.get((channel, piece.tile.number)) or names[channel, None]

    def _painted(self, channel: int, y: slice, x: slice) -> Linear:
        def correction_of(piece: Piece) -> TileCorrection:
            return self.corrections[self._name(channel, piece)]

        return paint(self.layout.pieces(y, x), correction_of, (y.stop - y.start, x.stop - x.start))


@dataclass(frozen=True)
class CopyKernel:
    """No correction: pixels go as they are.

    Attributes:
        axes: of the image.
        zero_is_no_data: by channel; only for the contrast windows.
    """

    axes: str
    zero_is_no_data: dict[int, bool]

    @property
    def besides(self) -> Sequence[StoredArray]:
        return ()

    def process(self, source: MultitileImage, box: Box) -> Processed:
        data = source.read(0, box)
        counts: dict[int, PixelCounts] = {}
        for lead, _, planes in channel_stacks(data, self.axes, box):
            channel = lead["c"]
            counts[channel] = counts.get(channel, PixelCounts()) + PixelCounts(planes.size)
        return Processed((data,), counts)


def channel_stacks(
    data: NDArray[Any], axes: str, box: Box
) -> list[tuple[dict[str, int], slice, NDArray[Any]]]:
    """The channels and time points of a block.

    Returns:
        For each its index along t and c, where its planes lie along z, and a view (z, y, x) of
        them; index 0, or the first plane, for axes that are not there.
    """
    along = dict(zip(axes, box, strict=True))
    z = along.get("z", slice(0, 1))
    stacks = []
    for index in np.ndindex(*data.shape[: len(axes) - len(axes.lstrip("tc"))]):
        first = dict.fromkeys("tc", 0)
        first |= {axis: along[axis].start + i for axis, i in zip(axes, index, strict=False)}
        planes = data[index]
        stacks.append((first, z, planes.reshape((-1, *planes.shape[-2:]))))
    return stacks


@dataclass(frozen=True)
class CorrectionPlan:
    """Everything one job needs.

    Attributes:
        source: where pixels come from.
        targets: the images written: the result, and those that go with it. All have the
            shapes, chunks and shards of the first.
        final_url: where people find the result.
        kernel: the correction; None until the profiles are known.
        wish: pixels that a block should hold at least.
        align: what blocks should be multiples of; None for the chunks of the source.
        most_block_bytes: blocks are not enlarged beyond this to be aligned.
    """

    source: MultitileImage
    targets: tuple[TargetImage, ...]
    final_url: str
    kernel: Kernel | None = None
    wish: int = 1
    align: tuple[int, ...] | None = None
    most_block_bytes: int = MOST_BLOCK_BYTES

    @property
    def grain(self) -> tuple[int, ...]:
        """What blocks should be multiples of, so that each source chunk is read once."""
        return self.align or tuple(self.source.read_grain())

    @property
    def target(self) -> TargetImage:
        """The result."""
        return self.targets[0]

    @cached_property
    def grid(self) -> BlockGrid:
        """The blocks."""
        levels = self.target.levels
        units = [level.unit for level in levels]
        aligned = tuple(lcm(*pair) for pair in zip(units[0], self.grain, strict=True))
        covered = prod(min(a, n) for a, n in zip(aligned, levels[0].shape, strict=True))
        if covered * levels[0].dtype.itemsize <= self.most_block_bytes:
            units[0] = aligned
        return BlockGrid.of(
            [level.shape for level in levels],
            units,
            [level.scale for level in levels],
            self.wish,
        )

    def files(self, key: str) -> Iterator[str]:
        """Local files that hold the pixels of a node, for all images written, if they exist."""
        node = Node.of_key(key)
        for target in self.targets:
            yield from target.files(node.level, self.grid.box(node))

    @cached_property
    def sampling(self) -> tuple[int, ...]:
        """Strides of the pixels that the channel windows are computed from."""
        return lattice(self.target.levels[0].shape)


@dataclass(frozen=True)
class Mean:
    """The part of the next coarser level that a node contributes, for each image written.

    It is handed over once: its memory is free before the parent is encoded.
    """

    box: Box
    data: list[NDArray[Any] | None]

    def take(self, image: int) -> NDArray[Any]:
        """The pixels for one of the images, which are then no longer held here."""
        pixels, self.data[image] = self.data[image], None
        if pixels is None:
            raise RuntimeError("a mean was taken twice; please report this")
        return pixels


@dataclass(frozen=True)
class NodeResult:
    """What is left of a node once it is written: its record and its mean."""

    record: dict[str, Any]
    mean: Mean | None


def process_block(plan: CorrectionPlan, node: Node) -> NodeResult:
    """Read, correct and write one block of level 0."""
    if plan.kernel is None:
        raise RuntimeError("The plan has no kernel yet; estimate or load the profiles first.")
    box = plan.grid.box(node)
    with noted_reads() as notes:
        done = plan.kernel.process(plan.source, box)
    written = [t.write(0, box, pixels) for t, pixels in zip(plan.targets, done.pixels, strict=True)]
    record: dict[str, Any] = {"node": node.key, "read": notes.records(), "written": written}
    axes = plan.source.axes
    channel_axis = axes.index("c") if "c" in axes else None
    no_data = getattr(plan.kernel, "zero_is_no_data", {})
    kinds = ("channels", *(f"channels_{kind}" for kind in getattr(plan.kernel, "companions", ())))
    if done.noise:
        record["noise"] = done.noise
    for kind, pixels in zip(kinds, done.pixels, strict=True):
        record[kind] = {
            str(channel): {
                "counts": list(vars(found).values()),
                "histogram": _histogram(
                    plan, box, pixels, channel_axis, channel, no_data.get(channel, False)
                ).to_text(),
            }
            for channel, found in done.counts.items()
        }
    return NodeResult(record, _mean(plan, node, done.pixels))


def _histogram(
    plan: CorrectionPlan,
    box: Box,
    data: NDArray[Any],
    channel_axis: int | None,
    channel: int,
    without_zero: bool,
) -> Histogram:
    origin = [s.start for s in box]
    if channel_axis is not None:
        place = channel - origin[channel_axis]
        data = data[(slice(None),) * channel_axis + (slice(place, place + 1),)]
        origin[channel_axis] = channel
    return Histogram.of(on_lattice(data, origin, plan.sampling), without_zero=without_zero)


def process_parent(plan: CorrectionPlan, node: Node, results: Sequence[NodeResult]) -> NodeResult:
    """Put a coarser block together from the means of its children, and write it."""
    box = plan.grid.box(node)
    shape = tuple(s.stop - s.start for s in box)
    data, written = [], []
    for i, target in enumerate(plan.targets):
        pixels = allocation.empty(shape, target.levels[node.level].dtype)
        for result in results:
            if result.mean is not None:
                pixels[within(result.mean.box, box)] = result.mean.take(i)
        written.append(target.write(node.level, box, pixels))
        data.append(pixels)
    return NodeResult({"node": node.key, "written": written}, _mean(plan, node, data))


def recover(plan: CorrectionPlan, node: Node) -> NodeResult:
    """The mean of a node that an earlier run has written, read back from the result."""
    box = plan.grid.box(node)
    data = [target.read(node.level, box) for target in plan.targets]
    return NodeResult({}, _mean(plan, node, data))


def _mean(plan: CorrectionPlan, node: Node, data: Sequence[NDArray[Any]]) -> Mean | None:
    if plan.grid.parent(node) is None:
        return None
    box = plan.grid.coarse_box(node)
    shape = tuple(s.stop - s.start for s in box)
    factor = plan.grid.factors[node.level + 1]
    means: list[NDArray[Any] | None] = []
    for pixels in data:
        means.append(allocation.empty(shape, pixels.dtype))
        block_mean(pixels, factor, shape, out=means[-1])
    return Mean(box, means)
