"""What whole planes take in the folder for temporary files."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.local_background.regions import Regions
from fractal_mesospim_shading.local_background.scratch import SLAB_BYTES

_MARKS = 2
"""Bytes of a pixel that say whether it has data, and whether it counts."""


def filed_bytes(
    regions: Regions, block: Sequence[int], dtype: np.dtype[Any], grain: Sequence[int]
) -> int:
    """What planes take in files that are needed at a time; 0 where none go there.

    Args:
        regions: of the image.
        block, dtype, grain: as for `Regions.working_bytes`.
    """
    height, width = regions.layout.tile_shape
    chunk = min(regions.axes.length("z", grain), regions.depth)
    slab = chunk * height * width
    raw = slab * dtype.itemsize
    cut = min(block[-2], height) * min(block[-1], width) < height * width
    stacks = [_stack(regions, method, chunk) for method in regions.methods]
    found = cut * slab * max(map(regions.filed_bytes_a_pixel, regions.methods))
    whole = any(stacks) or (cut and any(map(regions.once, regions.methods)))
    through = raw if whole and raw > SLAB_BYTES else 0
    return max(found, max(stacks) * height * width * (dtype.itemsize + _MARKS)) + through


def _stack(regions: Regions, method: BackgroundMethod, chunk: int) -> int:
    """Planes of a stack, in whole chunks, that blocks are estimated from."""
    if not regions.in_stack(method):
        return 0
    planes = max(chunk, method.depth_px) + 2 * method.depth_px
    return int(min((ceil(planes / chunk) + 1) * chunk, regions.depth))
