from __future__ import annotations

import pytest

from fractal_mesospim_shading.core.blocks import BlockGrid, Node, covering, grouped
from fractal_mesospim_shading.errors import ImageFormatError


def test_a_pyramid_of_aligned_chunks():
    grid = BlockGrid.of([(4, 64, 64), (4, 32, 32), (4, 16, 16)], [(2, 16, 16)] * 3)
    assert grid.boxes == ((2, 16, 16), (2, 16, 16), (2, 16, 16))
    assert [grid.counts(level) for level in range(3)] == [(2, 4, 4), (2, 2, 2), (2, 1, 1)]
    assert grid.total == 32 + 8 + 2
    top = Node(2, (1, 0, 0))
    assert grid.box(top) == (slice(2, 4), slice(0, 16), slice(0, 16))
    assert grid.parent(top) is None
    children = list(grid.children(top))
    assert [child.index for child in children] == [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)]
    assert all(grid.parent(child) == top for child in children)
    assert grid.leaves(2) == 16
    assert grid.coarse_box(Node(0, (0, 3, 1))) == (slice(0, 2), slice(24, 32), slice(8, 16))


def test_odd_chunks_are_grouped_to_whole_coarse_pixels():
    grid = BlockGrid.of([(100,), (50,)], [(37,), (37,)])
    assert grid.boxes[0] == (74,)
    assert grid.coarse_box(Node(0, (1,))) == (slice(37, 50),)


def test_pixels_that_a_level_leaves_out_have_no_parent():
    grid = BlockGrid.of([(9,), (4,)], [(2,), (2,)])
    assert grid.parent(Node(0, (3,))) == Node(1, (1,))
    assert grid.parent(Node(0, (4,))) is None
    seen = [node for batch in grid.batches(2) for node in batch]
    assert Node(0, (4,)) in seen


def test_nodes_are_settled_only_with_all_below_them():
    grid = BlockGrid.of([(8, 8), (4, 4), (2, 2)], [(2, 2)] * 3)
    everything = {node.key for level in range(3) for node in grid.nodes(level)}
    assert len(everything) == 16 + 4 + 1
    assert grid.settled(everything) == everything
    assert grid.settled(set()) == set()
    # A missing leaf unsettles what it is averaged into, and nothing else.
    assert grid.settled(everything - {"0/3.0"}) == everything - {"0/3.0", "1/1.0", "2/0.0"}
    assert grid.settled(everything - {"1/0.1"}) == everything - {"1/0.1", "2/0.0"}
    assert grid.settled({"2/0.0", "1/0.0", "0/0.0"}) == {"0/0.0"}


def test_names():
    assert Node(3, (0, 12, 5)).key == "3/0.12.5"


def test_grouped_doubles_the_shorter_side_first():
    assert grouped((1, 16, 32), (10, 512, 512), 1) == (1, 16, 32)
    assert grouped((1, 16, 32), (10, 512, 512), 1024) == (1, 32, 32)
    assert grouped((1, 16, 16), (10, 32, 32), 5000) == (8, 32, 32)
    assert grouped((1, 16, 16), (10, 32, 32), 5000, axes=2) == (1, 32, 32)


def test_covering():
    assert covering((4, 16), (slice(3, 9), slice(16, 32))) == [range(0, 3), range(1, 2)]


def test_a_level_that_does_not_follow():
    with pytest.raises(ImageFormatError, match="does not follow"):
        BlockGrid.of([(100, 100), (33, 70)], [(10, 10)] * 2)


def test_batches_of_a_huge_image_come_at_once():
    """80 000 chunks of 128 MB: the first batch needs none of the others."""
    shapes = [(1, 6400, 40960 * 2, 10240), (1, 6400, 40960, 5120), (1, 6400, 20480, 2560)]
    grid = BlockGrid.of(shapes, [(1, 64, 1024, 1024)] * 3)
    batch = next(grid.batches(64))
    assert 0 < sum(grid.leaves(node.level) for node in batch) <= 64
