"""How a pyramid is cut into blocks that can be written without ever reading back.

A node is a box of one level that covers whole write units. Its children are the
boxes of the next finer level that it is the mean of. The grids nest: every node has
exactly one parent, so the means of a node's children are all that it is made from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, gcd, lcm, prod

from fractal_mesospim_shading.core.pyramid import level_factor

Shape = tuple[int, ...]

BATCH = 512
"""Blocks of level 0 in a batch. At its end all but one worker are idle, while the last means become
the coarsest levels: of so many blocks that is a hundredth of the time, and their graph is small."""


@dataclass(frozen=True, order=True)
class Node:
    """A box of one level: the level, and the place in the grid of that level."""

    level: int
    index: Shape

    @property
    def key(self) -> str:
        """Name in the journal, such as `0/0.3.2.1`."""
        return f"{self.level}/{'.'.join(str(i) for i in self.index)}"

    @classmethod
    def of_key(cls, key: str) -> Node:
        """The inverse of `key`."""
        level, _, index = key.partition("/")
        return cls(int(level), tuple(int(i) for i in index.split(".")))


@dataclass(frozen=True)
class BlockGrid:
    """The nested boxes of all levels.

    Attributes:
        shapes: shape of each level.
        units: shape of the write unit of each level: the shard, else the chunk.
        factors: by how much each level is coarser than the one before; ones for level 0.
        least_pixels: that a box should hold; small units are grouped.
    """

    shapes: tuple[Shape, ...]
    units: tuple[Shape, ...]
    factors: tuple[Shape, ...]
    least_pixels: int = 1

    @classmethod
    def of(
        cls,
        shapes: Sequence[Shape],
        units: Sequence[Shape],
        scales: Sequence[Sequence[float]] | None = None,
        least_pixels: int = 1,
    ) -> BlockGrid:
        """The grid of a pyramid; the scales tell the factor where the shapes leave a choice.

        Raises:
            ImageFormatError: a level does not follow from the one before.
        """
        factors = [(1,) * len(shapes[0])]
        for level in range(1, len(shapes)):
            by_scale = None
            if scales is not None:
                pair = zip(scales[level], scales[level - 1], strict=True)
                by_scale = tuple(round(coarse / fine) if fine else 1 for coarse, fine in pair)
            factors.append(level_factor(shapes[level - 1], shapes[level], by_scale))
        return cls(tuple(shapes), tuple(units), tuple(factors), least_pixels)

    @cached_property
    def boxes(self) -> tuple[Shape, ...]:
        """Shape of a node's box at each level; where it exceeds the level, it covers it."""
        boxes: list[Shape] = []
        for level, (shape, unit) in enumerate(zip(self.shapes, self.units, strict=True)):
            following = self.factors[level + 1] if level + 1 < len(self.shapes) else None
            if level:
                below = zip(boxes[-1], self.factors[level], strict=True)
                unit = tuple(lcm(u, ceil(b / f)) for u, (b, f) in zip(unit, below, strict=True))
            box = _divisible(unit, following, shape)
            boxes.append(grouped(box, shape, self.least_pixels))
        return tuple(boxes)

    def counts(self, level: int) -> Shape:
        """How many nodes each axis of a level has."""
        return tuple(
            ceil(n / b) for n, b in zip(self.shapes[level], self.boxes[level], strict=True)
        )

    def box(self, node: Node) -> tuple[slice, ...]:
        """The pixels of a node."""
        along = zip(node.index, self.boxes[node.level], self.shapes[node.level], strict=True)
        return tuple(slice(i * b, min((i + 1) * b, n)) for i, b, n in along)

    def coarse_box(self, node: Node) -> tuple[slice, ...]:
        """The pixels of the next level that are means of this node; may be empty."""
        along = zip(
            self.box(node), self.factors[node.level + 1], self.shapes[node.level + 1], strict=True
        )
        return tuple(slice(min(s.start // f, n), min(ceil(s.stop / f), n)) for s, f, n in along)

    def parent(self, node: Node) -> Node | None:
        """The node that this one is averaged into, None at the top."""
        if node.level + 1 == len(self.shapes):
            return None
        coarse = self.coarse_box(node)
        if any(s.start >= s.stop for s in coarse):
            return None
        along = zip(coarse, self.boxes[node.level + 1], strict=True)
        return Node(node.level + 1, tuple(s.start // b for s, b in along))

    def children(self, node: Node) -> Iterator[Node]:
        """The nodes of the next finer level that are averaged into this one."""
        if node.level == 0:
            return
        fine = node.level - 1
        ranges = []
        along = zip(
            self.box(node),
            self.factors[node.level],
            self.boxes[fine],
            self.shapes[fine],
            strict=True,
        )
        for s, f, b, n in along:
            ranges.append(range(s.start * f // b, ceil(min(s.stop * f, n) / b)))
        for index in product(*ranges):
            yield Node(fine, index)

    def nodes(self, level: int) -> Iterator[Node]:
        """All nodes of a level in the order of the array."""
        for index in product(*(range(count) for count in self.counts(level))):
            yield Node(level, index)

    def settled(self, done: Collection[str]) -> set[str]:
        """Those of some finished nodes below which nothing is left to do.

        Records of several workers come in any order: a run that was killed may have the
        record of a node and lack that of one of its children.

        Args:
            done: keys of nodes.
        """
        settled: set[str] = set()
        for level in range(len(self.shapes) if done else 0):
            for node in self.nodes(level):
                if node.key in done and all(c.key in settled for c in self.children(node)):
                    settled.add(node.key)
        return settled

    @property
    def total(self) -> int:
        """How many nodes there are at all levels."""
        return sum(prod(self.counts(level)) for level in range(len(self.shapes)))

    def leaves(self, level: int) -> int:
        """How many nodes of level 0 a whole node of a level covers at most."""
        return prod(self.family(above) for above in range(1, level + 1))

    def family(self, level: int) -> int:
        """How many children a node of a level has at most."""
        along = zip(
            self.boxes[level],
            self.factors[level],
            self.boxes[level - 1],
            self.counts(level - 1),
            strict=True,
        )
        return prod(min(ceil(b * f / below), count) for b, f, below, count in along)

    def waiting(self, level: int, in_flight: int) -> int:
        """How many means of nodes of a level wait for their siblings at most.

        Blocks are run in the order of batches, parents as soon as they can be, so those in flight
        are neighbours; while one takes twice as long, the others go on as far again. All but one
        child of each parent that they touch may be done. The means of the top nodes of a batch
        wait until it ends.

        Args:
            level: of the nodes; means of the last one go nowhere.
            in_flight: blocks of level 0 that are worked on at a time.
        """
        if level + 1 == len(self.shapes):
            return 0
        most = batch_size(in_flight)
        top, siblings = self.batch_level(most), self.family(level + 1) - 1
        if level == top:
            waiting = siblings + max(1, most // self.leaves(top))
        elif level > top:
            waiting = siblings
        else:
            waiting = siblings * (1 + ceil(2 * (in_flight - 1) / self.leaves(level + 1)))
        return min(waiting, prod(self.counts(level)) - 1)

    def batch_level(self, most: int) -> int:
        """The coarsest level whose nodes cover at most `most` nodes of level 0."""
        fitting = (n for n in range(len(self.shapes)) if n == 0 or self.leaves(n) <= most)
        return max(fitting)

    def batches(self, most: int) -> Iterator[list[Node]]:
        """Subtrees in depth-first order, grouped to about `most` nodes of level 0.

        Every node of level 0 belongs to exactly one subtree, given by its top node.
        """
        top = self.batch_level(most)
        batch: list[Node] = []
        held = 0
        for node in self._depth_first(top):
            batch.append(node)
            held += self.leaves(node.level)
            if held + self.leaves(top) > most:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch

    def _depth_first(self, level: int) -> Iterator[Node]:
        """Nodes of a level ordered by parent, then those of finer levels without parent."""
        last = len(self.shapes) - 1

        def down(node: Node) -> Iterator[Node]:
            if node.level == level:
                yield node
            else:
                for child in self.children(node):
                    yield from down(child)

        for start in range(last, -1, -1):
            for node in self.nodes(start) if start == last else self._orphans(start):
                if node.level >= level:
                    yield from down(node)
                else:
                    yield node

    def _orphans(self, level: int) -> Iterator[Node]:
        """Nodes whose pixels the next level leaves out (sizes rounded down)."""
        cut = [
            axis
            for axis, (n, f, m) in enumerate(
                zip(
                    self.shapes[level], self.factors[level + 1], self.shapes[level + 1], strict=True
                )
            )
            if n > m * f
        ]
        if cut:
            yield from (node for node in self.nodes(level) if self.parent(node) is None)


def batch_size(workers: int) -> int:
    """How many blocks of level 0 a batch holds at most."""
    return max(BATCH, 32 * workers)


def _divisible(unit: Shape, factor: Shape | None, shape: Shape) -> Shape:
    """The smallest multiple of the unit that whole coarse pixels fit in."""
    if factor is None:
        return unit
    along = zip(unit, factor, shape, strict=True)
    return tuple(u if u >= n else u * (f // gcd(u, f)) for u, f, n in along)


def grouped(box: Shape, shape: Shape, least_pixels: int, axes: int = 0) -> Shape:
    """Double a box until it holds enough pixels: first y and x, the shorter of them, then others.

    Args:
        box: to begin with.
        shape: of the array; no axis grows beyond it.
        least_pixels: that it should hold.
        axes: grow only along this many last axes; 0 for all.
    """
    grown = list(box)
    first = len(shape) - axes if axes else 0
    while True:
        open_axes = [axis for axis in range(first, len(shape)) if grown[axis] < shape[axis]]
        pixels = prod(min(b, n) for b, n in zip(grown, shape, strict=True))
        if pixels >= least_pixels or not open_axes:
            return tuple(grown)
        spatial = [axis for axis in open_axes if axis >= len(shape) - 2] or open_axes[-1:]
        smallest = min(spatial, key=lambda axis: (grown[axis], -axis))
        grown[smallest] *= 2


def within(part: Sequence[slice], box: Sequence[slice]) -> tuple[slice, ...]:
    """A part of a box, counted from the first pixel of the box."""
    pairs = zip(part, box, strict=True)
    return tuple(slice(p.start - b.start, p.stop - b.start) for p, b in pairs)


def covering(units: Sequence[int], box: Sequence[slice]) -> list[range]:
    """Which units a box touches along each axis."""
    return [range(s.start // u, ceil(s.stop / u)) for s, u in zip(box, units, strict=True)]


def cut(box: Sequence[slice], units: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The parts of a box that lie in one unit each, in the order of the units."""
    for index in product(*covering(units, box)):
        yield tuple(
            slice(max(s.start, i * u), min(s.stop, (i + 1) * u))
            for s, i, u in zip(box, index, units, strict=True)
        )


def key_in_job(name: str, key: str) -> str:
    """The key of a block within a job, by the name of its image and its key there."""
    return f"{name}:{key}" if name else key


def split_key(whole: str) -> tuple[str, str]:
    """The inverse: name of the image, and key there."""
    name, _, key = whole.rpartition(":")
    return name, key


def keys_by_part(keys: Iterable[str]) -> Mapping[str, set[str]]:
    """Keys of blocks within a job as those of its images, by the names of these."""
    found: dict[str, set[str]] = defaultdict(set)
    for whole in keys:
        name, key = split_key(whole)
        found[name].add(key)
    return found
