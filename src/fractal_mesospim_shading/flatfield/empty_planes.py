"""Looking for empty planes: what is read for it, within a budget, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fractal_mesospim_shading.core.emptiness.deciding import Decision, decide
from fractal_mesospim_shading.core.emptiness.regions import TileRegions, regions_of
from fractal_mesospim_shading.core.emptiness.windows import Windows, choose_window_bin
from fractal_mesospim_shading.core.threads import freed_memory_kept
from fractal_mesospim_shading.errors import SamplingError
from fractal_mesospim_shading.flatfield.plane_sample import Sample
from fractal_mesospim_shading.flatfield.sampling import (
    PlaneRef,
    layout_at_level,
    plane_count,
    time_count,
    z_factor,
)
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage

BUDGET_BYTES = 8 * 2**30
"""Pixels decoded of one channel and side at most, about."""

# A coarse level will do as long as its tiles have so many pixels along each side.
_LEAST_SIDE = 80
# Planes looked at: of all tiles together, of a tile at least, and neighbours that stay together.
_MOST_PLANES = 4000
_LEAST_OF_TILE = 16
_TOGETHER = 4


@dataclass(frozen=True)
class EmptyPlanes:
    """What of a channel and side is empty, as far as it was looked at.

    Attributes:
        image: that was read.
        group: of stacks that share a model.
        level: of the pyramid that was read; its planes are those of full resolution.
        refs: planes looked at, sorted.
        windows: of these planes; None where no plane has a neighbour.
        decision: about each of them; None likewise.
        regions: by tile.
    """

    image: MultitileImage
    group: ModelGroup
    level: int
    refs: tuple[PlaneRef, ...]
    windows: Windows | None
    decision: Decision | None
    regions: tuple[TileRegions, ...]

    @property
    def empty(self) -> dict[int, list[int]]:
        """The planes that are empty, by tile."""
        found: dict[int, list[int]] = {}
        if self.decision is not None:
            for (tile, plane), empty in zip(self.refs, self.decision.empty, strict=True):
                if empty:
                    found.setdefault(tile, []).append(plane)
        return found

    @property
    def confidence(self) -> float:
        """Mean confidence of the empty planes; 0 without any."""
        if self.decision is None or not self.decision.empty.any():
            return 0.0
        return float(self.decision.confidence[self.decision.empty].mean())


def look_for_empty(
    image: MultitileImage,
    group: ModelGroup,
    *,
    zero_is_no_data: bool = True,
    workers: int = 1,
    budget: int = BUDGET_BYTES,
) -> EmptyPlanes:
    """Look at some planes of a channel and side, and decide which are empty.

    Args:
        image: to read from.
        group: of its model groups.
        zero_is_no_data: whether pixels of 0 may be no data.
        workers: boxes read at a time.
        budget: bytes of pixels to be decoded at most, about.

    Raises:
        SourceReadError: a chunk cannot be read.
    """
    level = level_to_look_at(image)
    refs = planes_to_look_at(image, group, level, budget)
    bin_px = choose_window_bin(layout_at_level(image, level).tile_shape)
    sample = Sample(image, group.channel.index, level, refs, bin_px)
    with freed_memory_kept:
        stack = sample.read(dark=None, zero_is_no_data=zero_is_no_data, workers=workers)
    n_z = plane_count(image, level)
    tiles = {tile: group.planes[tile] for tile, _ in refs}
    try:
        windows = Windows.of(stack, refs, n_z)
    except SamplingError:
        unknown = tuple(
            TileRegions(tile, (first, stop), 0, 0.0, first, stop - 1, 0.0)
            for tile, (first, stop) in sorted(tiles.items())
        )
        return EmptyPlanes(image, group, level, refs, None, None, unknown)
    decision = decide(windows)
    regions = regions_of(decision, refs, tiles, n_z)
    return EmptyPlanes(image, group, level, refs, windows, decision, regions)


def level_to_look_at(image: MultitileImage) -> int:
    """The coarsest level that has all planes, and tiles that are large enough."""
    return max(
        level
        for level in range(len(image.levels))
        if level == 0
        or (
            z_factor(image, level) == 1
            and plane_count(image, level) == plane_count(image, 0)
            and min(layout_at_level(image, level).tile_shape) >= _LEAST_SIDE
        )
    )


def planes_to_look_at(
    image: MultitileImage, group: ModelGroup, level: int, budget: int
) -> tuple[PlaneRef, ...]:
    """Planes of whole chunks, evenly spread: as many slabs and tiles as the budget allows.

    Both ends of a stack are among them, and of the tiles first those at the rim of the mosaic.
    """
    depth = max(_TOGETHER, image.axes.length("z", image.read_units(level)))
    slabs, tiles = _affordable(image, group, level, depth, budget)
    n_z, times = plane_count(image, level), time_count(image)
    of_tile = max(_LEAST_OF_TILE, _MOST_PLANES // max(len(tiles), 1))
    refs = []
    for tile in tiles:
        first, stop = group.planes[tile]
        numbers = range(first // depth, -(-stop // depth))
        chosen = [numbers[k] for k in _spread(len(numbers), slabs)]
        planes = [
            t * n_z + z
            for t in range(times)
            if (tile, t) not in group.unwritten
            for slab in chosen
            for z in range(max(slab * depth, first), min((slab + 1) * depth, stop))
        ]
        refs += [(tile, plane) for plane in _thinned(planes, of_tile)]
    return tuple(sorted(refs))


def _affordable(
    image: MultitileImage, group: ModelGroup, level: int, depth: int, budget: int
) -> tuple[int, tuple[int, ...]]:
    """How many slabs of each tile, and which tiles."""
    units, layout = image.read_units(level), layout_at_level(image, level)
    tiles = _rim_first(image, [t for t, (first, stop) in group.planes.items() if first < stop])
    chunk = depth * units[-2] * units[-1] * image.dtype.itemsize * time_count(image)

    def cost(numbers: Sequence[int]) -> int:
        return chunk * sum(1 for _ in layout.boxes_of(numbers, units[-2:]))

    all_slabs = max(-(-(stop - first) // depth) + 1 for first, stop in group.planes.values())
    slabs = min(all_slabs, budget // max(cost(tiles), 1))
    if slabs >= 2 or all_slabs < 2:
        return max(slabs, 1), tuple(tiles)
    number = len(tiles)
    while number > 2 and 2 * cost(tiles[:number]) > budget:
        number = max(2, number * 3 // 4)
    return 2, tuple(tiles[:number])


def _rim_first(image: MultitileImage, tiles: Sequence[int]) -> list[int]:
    """Tiles by their distance from the rim of the mosaic, corners before sides."""
    layout = image.layout

    def inside(number: int) -> tuple[int, int, int]:
        tile = layout.tile(number)
        rows = min(tile.row, layout.rows - 1 - tile.row)
        columns = min(tile.column, layout.columns - 1 - tile.column)
        return min(rows, columns), rows + columns, number

    return sorted(tiles, key=inside)


def _spread(size: int, count: int) -> list[int]:
    """Indices below a size, evenly spread, the first and the last among them."""
    if count >= size:
        return list(range(size))
    return sorted({int(k) for k in np.round(np.linspace(0, size - 1, max(count, 1)))})


def _thinned(planes: Sequence[int], most: int) -> list[int]:
    """Some planes in groups of neighbours."""
    if len(planes) <= most:
        return list(planes)
    groups = [planes[k : k + _TOGETHER] for k in range(0, len(planes), _TOGETHER)]
    return [z for k in _spread(len(groups), most // _TOGETHER) for z in groups[k]]
