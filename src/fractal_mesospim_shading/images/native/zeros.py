"""Find blocks of zeros in stacks: planes that a writer lost, below every camera offset."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fractal_mesospim_shading.images.arrays.reading import opened_array, read_array
from fractal_mesospim_shading.images.native.stack import Stack
from fractal_mesospim_shading.images.storage.places import join_url


@dataclass(frozen=True)
class ZeroBlock:
    """Consecutive planes of one chunk that hold nothing but 0.

    Attributes:
        group: name of the stack.
        z, y, x: (start, stop) in the array.
    """

    group: str
    z: tuple[int, int]
    y: tuple[int, int]
    x: tuple[int, int]


def zero_blocks(url: str, storage_options: str, stack: Stack) -> tuple[ZeroBlock, ...]:
    """Read a stack chunk by chunk, each once, and list the blocks without any signal.

    Args:
        url: of the container.
        storage_options: as JSON.
        stack: to look at.

    Returns:
        One entry for each run of zero planes in each chunk, in the order of the array.

    Raises:
        SourceReadError: a chunk cannot be read; the message names it.
    """
    finest = stack.levels[0]
    where = join_url(url, stack.group)
    array = opened_array(where, finest.path, storage_options, stack.fingerprint)
    starts = [
        range(0, size, chunk) for size, chunk in zip(finest.shape, finest.chunks, strict=True)
    ]
    found = []
    for corner in itertools.product(*starts):
        box = tuple(
            slice(start, min(start + chunk, size))
            for start, chunk, size in zip(corner, finest.chunks, finest.shape, strict=True)
        )
        pixels = read_array(array, join_url(where, finest.path), box)
        empty = ~pixels.any(axis=(1, 2))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], empty.view(np.int8), [0]])))
        for start, stop in edges.reshape(-1, 2):
            z = (corner[0] + int(start), corner[0] + int(stop))
            y, x = ((part.start, part.stop) for part in box[1:])
            found.append(ZeroBlock(stack.group, z, y, x))
    return tuple(found)
