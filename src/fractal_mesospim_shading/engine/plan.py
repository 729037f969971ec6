"""One job is one immutable plan, and a plain function for each of its blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import lcm, prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.blocks import BlockGrid, Node, within
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.pyramid import Histogram, block_mean, lattice, on_lattice
from fractal_mesospim_shading.core.threads import empty_array
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.arrays.file_states import noted_reads
from fractal_mesospim_shading.images.source import Axes, MultitileImage
from fractal_mesospim_shading.images.target import TargetImage

BLOCK_BYTES = 16 * 2**20
"""Write units below this size are grouped to one block. Twice as much was a fifth slower."""

_MANY_BLOCKS = 250_000
"""Of larger images blocks are larger, up to `_GROUPED_BYTES`, so that the records of all of them
stay within a gigabyte."""

_GROUPED_BYTES = 128 * 2**20

MOST_BLOCK_BYTES = 2**30
"""Blocks are not enlarged beyond this to follow the chunks of the source."""


def least_block_pixels(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
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
        before: counts, by channel, of an earlier step whose result is not written.
    """

    pixels: tuple[NDArray[Any], ...]
    counts: dict[int, PixelCounts]
    noise: dict[str, list[str]] = field(default_factory=dict)
    before: dict[int, PixelCounts] = field(default_factory=dict)


class Kernel(Protocol):
    """What turns a box of the source into a box of the result."""

    @property
    def besides(self) -> Sequence[StoredArray]:
        """Arrays that are read besides the source."""

    @property
    def companions(self) -> Sequence[str]:
        """Kinds of the images that are made beside the result, in the order of its pixels."""

    @property
    def zero_is_no_data(self) -> Mapping[int, bool]:
        """By channel, whether pixels of 0 are left out of the contrast windows."""

    @property
    def shared_bytes(self) -> int:
        """What all blocks of a process share, in bytes."""

    def working_bytes(self, block: Sequence[int], source: MultitileImage) -> int:
        """What a block of this shape needs beside the pixels that it writes, in bytes."""

    def process(self, source: MultitileImage, box: Box) -> Processed:
        """Read and process a box."""


def channel_stacks(
    data: NDArray[Any], axes: Axes, box: Box
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
        least_pixels: pixels that a block should hold at least.
        align: what blocks should be multiples of; None for the chunks of the source.
        most_block_bytes: blocks are not enlarged beyond this to be aligned.
        temporary_bytes: needed in the folder for temporary files, at least.
    """

    source: MultitileImage
    targets: tuple[TargetImage, ...]
    final_url: str
    kernel: Kernel | None = None
    least_pixels: int = 1
    align: tuple[int, ...] | None = None
    most_block_bytes: int = MOST_BLOCK_BYTES
    temporary_bytes: int = 0

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
            self.least_pixels,
        )

    def sharing(self, room: int, done: Collection[str]) -> CorrectionPlan:
        """The same, for blocks that are all computed in this process.

        Args:
            room: bytes that blocks may leave in memory for others.
            done: keys of the nodes that are not made again.
        """
        if not room:
            return self
        nodes = [node for node in map(Node.of_key, done) if node.level == 0]
        places = frozenset(node.index for node in nodes)
        return replace(self, source=self.source.sharing(room, self.grid.boxes[0], places))

    def files(self, key: str) -> Iterator[str]:
        """Local files that hold the pixels of a node, for all images written, if they exist."""
        node = Node.of_key(key)
        for target in self.targets:
            yield from target.files(node.level, self.grid.box(node))

    @cached_property
    def strides(self) -> tuple[int, ...]:
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
    channel_axis = plan.source.axes.position("c")
    no_data = plan.kernel.zero_is_no_data
    kinds = ("channels", *(f"channels_{kind}" for kind in plan.kernel.companions))
    if done.noise:
        record["noise"] = done.noise
    if done.before:
        record["before"] = {
            str(channel): {"counts": list(vars(found).values())}
            for channel, found in done.before.items()
        }
    for kind, pixels in zip(kinds, done.pixels, strict=True):
        record[kind] = {
            str(channel): {
                "counts": list(vars(found).values()),
                "histogram": _histogram(
                    plan, box, pixels, channel_axis, channel, no_data[channel]
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
    return Histogram.of(on_lattice(data, origin, plan.strides), without_zero=without_zero)


def process_parent(plan: CorrectionPlan, node: Node, results: Sequence[NodeResult]) -> NodeResult:
    """Put a coarser block together from the means of its children, and write it."""
    box = plan.grid.box(node)
    shape = tuple(s.stop - s.start for s in box)
    data, written = [], []
    for i, target in enumerate(plan.targets):
        pixels = empty_array(shape, target.levels[node.level].dtype)
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
        means.append(empty_array(shape, pixels.dtype))
        block_mean(pixels, factor, shape, out=means[-1])
    return Mean(box, means)
