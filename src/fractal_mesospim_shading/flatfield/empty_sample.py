"""Which planes are looked at to find those that are empty, within what may be read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from fractal_mesospim_shading.core.emptiness.windows import choose_window_bin
from fractal_mesospim_shading.flatfield.plane_sample import Sample
from fractal_mesospim_shading.flatfield.sampling import (
    PlaneRef,
    plane_count,
    tile_shape_at_level,
    time_count,
    z_factor,
)
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage

READ_AT_MOST = 8 * 2**30
"""Bytes of pixels of one channel and side, where nobody says another number."""

# A coarse level will do as long as its tiles have so many pixels along each side.
_LEAST_SIDE = 80
# Planes looked at: of all tiles together, of a tile at least, and neighbours that stay together.
# Nine groups of neighbours leave less than an eighth of a stack between them.
_MOST_PLANES = 4000
_LEAST_OF_TILE = 36
_TOGETHER = 4
_LEAST_SLABS = 2


def sample_to_look_at(
    image: MultitileImage, group: ModelGroup, budget: int = READ_AT_MOST
) -> Sample:
    """Planes in slabs of whole chunks, as many as may be read, evenly spread over tiles and z.

    All tiles have the same number of slabs, both ends of their stacks among them. Where not even
    two of each may be read, every other tile shows the other end; where not one, some tiles, evenly
    spread, stand for all. Without two slabs there is no plane, for nothing can be compared.

    Args:
        image: to read from.
        group: of its model groups.
        budget: bytes of pixels to be read at most.
    """
    slabs = _slabs(image, group)
    total = sum(map(len, slabs.values()))
    fits, too_many = 0, total + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _sample(image, group, slabs, middle).read_bytes() <= budget:
            fits = middle
        else:
            too_many = middle
    return _sample(image, group, slabs, fits if fits >= min(_LEAST_SLABS, total) else 0)


def most_planes(image: MultitileImage, group: ModelGroup) -> int:
    """Planes that are looked at where all may be read."""
    slabs = _slabs(image, group)
    return len(_sample(image, group, slabs, sum(map(len, slabs.values()))).planes)


def least_to_read(image: MultitileImage, group: ModelGroup) -> int:
    """Bytes of pixels of the fewest slabs that can be compared."""
    return _sample(image, group, _slabs(image, group), _LEAST_SLABS).read_bytes()


def _sample(
    image: MultitileImage, group: ModelGroup, slabs: Mapping[int, Sequence[range]], number: int
) -> Sample:
    """So many of the slabs at most."""
    level = level_to_look_at(image)
    refs = _refs(image, group, chosen_slabs(slabs, number))
    bin_px = choose_window_bin(tile_shape_at_level(image, level))
    return Sample(image, group.channel.index, level, refs, bin_px)


def level_to_look_at(image: MultitileImage) -> int:
    """The coarsest level that has all planes, and tiles that are large enough."""
    return max(
        level
        for level in range(len(image.levels))
        if level == 0
        or (
            z_factor(image, level) == 1
            and plane_count(image, level) == plane_count(image, 0)
            and min(tile_shape_at_level(image, level)) >= _LEAST_SIDE
        )
    )


def _slabs(image: MultitileImage, group: ModelGroup) -> dict[int, list[range]]:
    """The planes of each tile that are read together, for each tile that has planes."""
    unit = image.axes.length("z", image.read_units(level_to_look_at(image)))
    depth = unit * -(-_TOGETHER // unit)
    return {
        tile: [
            range(max(z, first), min(z + depth, stop))
            for z in range(first // depth * depth, stop, depth)
        ]
        for tile, (first, stop) in sorted(group.planes.items())
        if first < stop
    }


def chosen_slabs(slabs: Mapping[int, Sequence[range]], number: int) -> dict[int, list[range]]:
    """So many of the slabs at most, evenly spread over tiles and z.

    Args:
        slabs: the planes of each slab, by tile.
        number: of slabs.
    """
    tiles, sizes = list(slabs), [len(own) for own in slabs.values()]
    deep = range(1, max(sizes, default=0) + 1)
    of_each = bisect_right(deep, number, key=lambda most: sum(min(n, most) for n in sizes))
    if of_each > 1:
        return {tile: [own[k] for k in _spread(len(own), of_each)] for tile, own in slabs.items()}
    seen = [tiles[k] for k in _spread(len(tiles), number)]
    return {tile: [slabs[tile][-1 if k % 2 else 0]] for k, tile in enumerate(seen)}


def _refs(
    image: MultitileImage, group: ModelGroup, slabs: Mapping[int, Sequence[range]]
) -> tuple[PlaneRef, ...]:
    """The planes of slabs at all time points, thinned where they are very many."""
    n_z = plane_count(image, 0)
    most = max(_LEAST_OF_TILE, _MOST_PLANES // max(len(slabs), 1))
    refs: list[PlaneRef] = []
    for tile, own in slabs.items():
        planes = [
            t * n_z + z
            for t in range(time_count(image))
            if (tile, t) not in group.unwritten
            for slab in own
            for z in slab
        ]
        refs += [(tile, plane) for plane in _thinned(planes, most)]
    return tuple(sorted(refs))


def _spread(size: int, count: int) -> list[int]:
    """Indices below a size, evenly spread, the first and the last among them."""
    if count >= size:
        return list(range(size))
    return sorted({int(k) for k in np.round(np.linspace(0, size - 1, count))})


def _thinned(planes: Sequence[int], most: int) -> list[int]:
    """Some planes in groups of neighbours."""
    if len(planes) <= most:
        return list(planes)
    groups = [planes[k : k + _TOGETHER] for k in range(0, len(planes), _TOGETHER)]
    return [z for k in _spread(len(groups), most // _TOGETHER) for z in groups[k]]
