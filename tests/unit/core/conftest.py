"""Simulated planes, binned as the readers do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, BinnedStack, bin_block
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

BinWorld = Callable[..., BinnedStack]


@pytest.fixture
def bin_world() -> BinWorld:
    """Bin planes of a world, given as (tile, planes) slabs that are read together."""

    def run(
        world: LightSheetWorld,
        slabs: Sequence[tuple[int, Sequence[int]]],
        dark: np.ndarray | None = None,
    ) -> BinnedStack:
        gathered = BinnedPlanes(sum(len(planes) for _, planes in slabs), world.tile_shape)
        slot = 0
        for tile, planes in slabs:
            partial = bin_block(world.tile_planes(tile, planes), 0, 0, gathered.bin_px, dark)
            gathered.add(partial, range(slot, slot + len(planes)))
            slot += len(planes)
        return gathered.finish(integer=world.pixel_type != "float32")

    return run
