"""Every pixel of every level belongs to one node, and every node to one parent."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fractal_mesospim_shading.core.blocks import BlockGrid, Node


@st.composite
def grids(draw):
    axes = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 40)) for _ in range(axes))
    shapes, scales = [shape], [(1.0,) * axes]
    for _ in range(draw(st.integers(0, 3))):
        factor = tuple(draw(st.sampled_from([1, 2, 2, 3])) for _ in range(axes))
        up = draw(st.booleans())
        shape = tuple(
            max(1, -(-n // f) if up else n // f) for n, f in zip(shape, factor, strict=True)
        )
        shapes.append(shape)
        scales.append(tuple(s * f for s, f in zip(scales[-1], factor, strict=True)))
    units = [tuple(draw(st.integers(1, 12)) for _ in range(axes)) for _ in shapes]
    return BlockGrid.of(shapes, units, scales, draw(st.sampled_from([1, 8, 200])))


@settings(max_examples=150, deadline=None)
@given(grids())
def test_nodes_partition_each_level_along_write_units(grid):
    for level, (shape, unit) in enumerate(zip(grid.shapes, grid.units, strict=True)):
        seen = np.zeros(shape, int)
        for node in grid.nodes(level):
            box = grid.box(node)
            seen[box] += 1
            for s, u, n in zip(box, unit, shape, strict=True):
                assert s.start % u == 0
                assert s.stop % u == 0 or s.stop == n
        assert (seen == 1).all()


@settings(max_examples=150, deadline=None)
@given(grids())
def test_children_and_parents_agree_and_fill_each_node(grid):
    for level in range(1, len(grid.shapes)):
        parents = {node: grid.parent(node) for node in grid.nodes(level - 1)}
        for node in grid.nodes(level):
            children = list(grid.children(node))
            # A coarse pixel without a fine one cannot be: each level follows from the last.
            filled = np.zeros(grid.shapes[level], int)
            for child in children:
                assert parents[child] == node
                filled[grid.coarse_box(child)] += 1
            assert (filled[grid.box(node)] == 1).all()
            assert filled.sum() == filled[grid.box(node)].sum()
            assert sum(parent == node for parent in parents.values()) == len(children)


@settings(max_examples=150, deadline=None)
@given(grids(), st.integers(1, 70))
def test_batches_hold_each_node_of_level_0_once(grid, most):
    found: Counter[Node] = Counter()

    def leaves(node):
        if node.level == 0:
            found[node] += 1
        for child in grid.children(node):
            leaves(child)

    tops = [node for batch in grid.batches(most) for node in batch]
    assert len(tops) == len(set(tops))
    for node in tops:
        leaves(node)
    assert found == Counter(grid.nodes(0))
    assert grid.total == sum(1 for level in range(len(grid.shapes)) for _ in grid.nodes(level))
