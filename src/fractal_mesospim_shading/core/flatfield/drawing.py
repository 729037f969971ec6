"""Which planes of which tiles an estimate is made from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

import numpy as np

from fractal_mesospim_shading.errors import SamplingError

# A tile's planes come from at least this many slabs along z where there are so
# many, so that a tile is seen through its whole depth.
_SLABS_PER_TILE = 4


def empty_planes(n_z: int, z_levels: Sequence[int], z_factor: int = 1) -> list[int]:
    """Planes below the lower and above the upper of two levels.

    The levels count planes at full resolution: `z < low` and `z > high` are empty.

    Args:
        n_z: planes at full resolution.
        z_levels: two plane numbers from 0, in either order.
        z_factor: full-resolution planes in one plane of the level that is read; a
            coarse plane counts only if all the planes that it covers are empty.

    Returns:
        Indices of planes at the level that is read, ascending.

    Raises:
        SamplingError: not two levels, a level outside the stack, or nothing left.
    """
    levels = list(z_levels)
    if len(levels) != 2:
        raise SamplingError(
            f"`z_levels` is {levels}; expected two plane numbers: the planes below the lower "
            "and above the upper one are taken as empty."
        )
    low, high = sorted(int(level) for level in levels)
    if low < 0 or high >= n_z:
        raise SamplingError(
            f"`z_levels` is {levels}, but the image has {n_z} planes, numbered 0 to {n_z - 1}."
        )
    if z_factor < 1:
        raise SamplingError(f"z_factor is {z_factor}; expected 1 or more.")
    planes = [
        first // z_factor
        for first in range(0, n_z, z_factor)
        if min(first + z_factor, n_z) - 1 < low or first > high
    ]
    if not planes:
        raise SamplingError(
            f"`z_levels` {levels} leaves no empty plane in a stack of {n_z} planes "
            f"({z_factor} of them in one plane of the level that is read): expected at "
            "least one plane below the lower or above the upper level. Move the levels inwards."
        )
    return planes


def choose_planes(
    candidates: Mapping[int, Sequence[int]],
    n_planes: int,
    seed: int,
    z_chunk: int,
    *,
    in_pairs: bool = False,
) -> list[tuple[int, int]]:
    """Draw planes without repeats, evenly over the tiles and over z.

    Planes come in pairs of neighbours, because the difference of two planes gives
    the noise free of the camera's fixed pattern, and in few slabs of `z_chunk`
    planes, because a slab is decoded as a whole. The slabs of the tiles are shifted
    against each other, so that all tiles together cover z evenly.

    Args:
        candidates: tile number -> its planes that may be drawn.
        n_planes: how many; all candidates where there are fewer. Less than about 30
            makes the profile noisy.
        seed: of numpy's PCG64; the same seed gives the same planes.
        z_chunk: planes that the source decodes together.
        in_pairs: where they are fewer than two for each tile, pairs from some of the tiles and
            not single planes from more of them: for noise, not for what tiles show.

    Returns:
        (tile number, plane), sorted.

    Raises:
        SamplingError: nothing asked for, or nothing to draw from.
    """
    if n_planes < 1:
        raise SamplingError(f"{n_planes} planes were asked for; expected at least 1.")
    if z_chunk < 1:
        raise SamplingError(f"z_chunk is {z_chunk}; expected at least 1.")
    tiles = {tile: sorted(set(planes)) for tile, planes in sorted(candidates.items()) if planes}
    if not tiles:
        raise SamplingError(
            "There is no plane to estimate from: expected at least one tile with one plane."
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    numbers = list(tiles)
    order = [numbers[i] for i in rng.permutation(len(tiles))]
    if in_pairs:
        order = _enough_for_pairs(order, tiles, n_planes)
    shares = _fair_shares([len(tiles[tile]) for tile in order], n_planes)
    start = float(rng.random())
    chosen = []
    for i, (tile, share) in enumerate(zip(order, shares, strict=True)):
        phase = (start + i / len(order)) % 1.0
        chosen += [(tile, z) for z in _choose_in_tile(tiles[tile], share, z_chunk, phase)]
    return sorted(chosen)


def _enough_for_pairs(
    order: Sequence[int], tiles: Mapping[int, Sequence[int]], n_planes: int
) -> list[int]:
    """The first tiles that give so many planes as pairs; all of them where that takes all."""
    room = list(accumulate(min(len(tiles[tile]), 2) for tile in order))
    return list(order[: bisect_left(room, n_planes) + 1])


def _choose_in_tile(planes: list[int], count: int, z_chunk: int, phase: float) -> list[int]:
    slab = max(z_chunk, 2)
    slabs = [list(group) for _, group in groupby(planes, lambda z: z // slab)]
    number = max(_SLABS_PER_TILE, -(-count // max(2, slab // 2)))
    # A pair in each slab rather than single planes in more of them.
    number = max(1, min(len(slabs), number, -(-count // 2)))
    places = _spread(len(slabs), number, phase)
    picked = [slabs[i] for i in places]
    missing = count - sum(len(group) for group in picked)
    taken = set(places)
    rest = (group for i, group in enumerate(slabs) if i not in taken)
    while missing > 0:
        picked.append(next(rest))
        missing -= len(picked[-1])
    shares = _fair_shares([len(group) for group in picked], count)
    return [
        z
        for group, share in zip(picked, shares, strict=True)
        for z in _choose_in_slab(group, share, phase)
    ]


def _choose_in_slab(planes: list[int], count: int, phase: float) -> list[int]:
    if count >= len(planes):
        return planes
    pairs = [planes[i : i + 2] for i in range(0, len(planes) - 1, 2)]
    chosen = [z for i in _spread(len(pairs), min(count // 2, len(pairs)), phase) for z in pairs[i]]
    taken = set(chosen)
    left = [z for z in planes if z not in taken]
    return chosen + [left[i] for i in _spread(len(left), count - len(chosen), phase)]


def _spread(size: int, count: int, phase: float) -> list[int]:
    """`count` different indices below `size`, evenly spread, shifted by `phase` in [0, 1)."""
    return [int((i + phase) * size / count) for i in range(count)]


def _fair_shares(capacities: Sequence[int], total: int) -> list[int]:
    """Split `total` as evenly as the capacities allow; earlier ones get the remainder."""
    shares = [0] * len(capacities)
    left = min(total, sum(capacities))
    while left > 0:
        open_ones = [i for i, capacity in enumerate(capacities) if shares[i] < capacity]
        each, extra = divmod(left, len(open_ones))
        for rank, i in enumerate(open_ones):
            gift = min(each + (1 if rank < extra else 0), capacities[i] - shares[i])
            shares[i] += gift
            left -= gift
    return shares
