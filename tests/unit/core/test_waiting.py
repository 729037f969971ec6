"""How many means wait for their siblings, held against a run of the blocks by their ranks."""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
import pytest

from fractal_mesospim_shading.core.blocks import BlockGrid, Node, batch_size

GRIDS = {
    "one block": ([(8, 64, 64), (8, 32, 32)], (8, 64, 64)),
    "a column": ([(64, 64, 64), (64, 32, 32), (64, 16, 16)], (8, 64, 64)),
    "layers": ([(16, 512 >> n, 512 >> n) for n in range(4)], (8, 32, 32)),
    "many": ([(8, 2048 >> n, 1024 >> n) for n in range(6)], (8, 32, 32)),
    "halved along z": ([(128 >> n, 256 >> n, 256 >> n) for n in range(4)], (16, 32, 32)),
    "odd": ([(7, 100, 333), (7, 50, 167), (7, 25, 84)], (4, 16, 32)),
}


def _grid(name: str) -> BlockGrid:
    shapes, unit = GRIDS[name]
    return BlockGrid.of(shapes, [unit] * len(shapes))


class _Run:
    """Blocks that take some time each; counts what waits at each level."""

    def __init__(
        self, grid: BlockGrid, workers: int, slowest: float, rng: np.random.Generator
    ) -> None:
        self.grid, self.workers, self.slowest, self.rng = grid, workers, slowest, rng
        self.done: dict[Node, set[Node]] = {}
        self.most: Counter[int] = Counter()
        for batch in grid.batches(batch_size(workers)):
            self._threads(batch)
            for top in batch:
                self._arrived(top)

    def _seconds(self, node: Node) -> float:
        return self.rng.uniform(1, self.slowest) / (1 + 2 * node.level)

    def _look(self, at_work: set[Node]) -> None:
        now: Counter[int] = Counter()
        for parent, children in self.done.items():
            # The last mean belongs to what the parent takes.
            now[parent.level - 1] += len(children) - (parent in at_work)
        self.most |= now

    def _is_ready(self, node: Node) -> bool:
        return len(self.done.get(node, ())) == sum(1 for _ in self.grid.children(node))

    def _finished(self, node: Node) -> Node | None:
        self.done.pop(node, None)
        parent = self.grid.parent(node)
        if parent is not None:
            self.done.setdefault(parent, set()).add(node)
        return parent

    def _threads(self, batch: list[Node]) -> None:
        order: list[Node] = []

        def down(node: Node) -> None:
            for child in self.grid.children(node):
                down(child)
            order.append(node)

        for top in batch:
            down(top)
        rank = {node: number for number, node in enumerate(order)}
        ready = [rank[node] for node in order if self._is_ready(node)]
        working: list[tuple[float, int]] = []
        now = 0.0
        while ready or working:
            while ready and len(working) < self.workers:
                number = heapq.heappop(ready)
                heapq.heappush(working, (now + self._seconds(order[number]), number))
            self._look({order[number] for _, number in working})
            now, number = heapq.heappop(working)
            parent = self._finished(order[number])
            if parent in rank and self._is_ready(parent):
                heapq.heappush(ready, rank[parent])

    def _arrived(self, node: Node) -> None:
        parent = self.grid.parent(node)
        if parent is not None and self._is_ready(parent):
            self._look({parent})
            self._finished(parent)
            self._arrived(parent)


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("name", GRIDS)
def test_no_more_wait_than_are_foreseen(name: str, workers: int) -> None:
    grid = _grid(name)
    rng = np.random.Generator(np.random.PCG64(workers))
    for slowest in (1.0, 2.0):
        run = _Run(grid, workers, slowest, rng)
        assert not run.done
        for level in range(len(grid.shapes)):
            assert run.most[level] <= grid.waiting(level, workers), (level, slowest)


@pytest.mark.parametrize("name", ["one block", "a column", "halved along z"])
def test_one_worker_has_all_siblings_but_one_wait(name: str) -> None:
    grid = _grid(name)
    run = _Run(grid, 1, 1.0, np.random.Generator(np.random.PCG64(0)))
    top = grid.batch_level(batch_size(1))
    for level in range(top):
        siblings = grid.family(level + 1) - 1
        assert run.most[level] == grid.waiting(level, 1) == siblings


def test_a_grid_of_one_block_has_nothing_wait() -> None:
    assert [_grid("one block").waiting(level, 4) for level in (0, 1)] == [0, 0]
