"""Which planes are empty: those that differ from the shape of the medium by nothing that counts.

Precision goes first. What is asked of each plane is asked of the mean of its neighbours as well,
and of all that is left of its tile, against the other tiles: light that is too dim for one plane
shows there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.agreement import first_members
from fractal_mesospim_shading.core.emptiness.differences import Differences
from fractal_mesospim_shading.core.emptiness.shape import SharedShape
from fractal_mesospim_shading.core.emptiness.windows import Windows

FloatArray = NDArray[np.float64]

_ROUNDS = 12
# So far above its limit a plane is no chance, and a neighbour so near to it is not called empty
# either: light of the sample reaches into it.
_SURE = 1.3
_DOUBTFUL = 0.92
# Planes darker or brighter than this, over the typical one, are something else.
_LEVELS = (0.2, 5.0)
_LEAST_PLANES = 4


@dataclass(frozen=True)
class Decision:
    """What is empty.

    Attributes:
        empty: (n,) planes that hold medium and nothing else.
        known: (n,) planes of which enough was recorded to say so.
        excess: (n,) the largest difference from the shape, over its limit: below 1 in empty planes;
            NaN where there is no shape or no data.
        confidence: (n,) of empty planes: the probability that light of sample at the limit
            (`MOST_LIGHT`, `MOST_SIGMAS`) would have shown in each of its places; 0 of others.
        level: (n,) brightness over that of a typical empty plane.
        tiles: numbers of those with empty planes.
    """

    empty: NDArray[np.bool_]
    known: NDArray[np.bool_]
    excess: FloatArray
    confidence: FloatArray
    level: FloatArray
    tiles: tuple[int, ...]


def decide(planes: Windows) -> Decision:
    """Find the planes that share one shape which is the medium's.

    They must be of two tiles at least, or of both ends of one tile whose middle differs: the sample
    of one place may look the same in all its planes.

    Args:
        planes: of one channel and side.
    """
    known = planes.known
    members = first_members(planes)
    excess = np.full(len(known), np.nan)
    rest, level = None, np.full(len(known), np.nan)
    outside: set[int] = set()
    for turn in range(_ROUNDS):
        if members.sum() < _LEAST_PLANES or not _confirmed(planes, members):
            members = np.zeros(len(known), np.bool_)
            break
        planes = planes.measured(members)
        shape = SharedShape.of(planes, members, robust=turn < 2)
        rest = Differences.of(planes, shape)
        level = shape.level
        passed, excess = rest.judged(known & (level > _LEVELS[0]) & (level < _LEVELS[1]))
        passed &= ~np.isin(planes.tile, list(outside))
        odd = rest.odd_tile(passed)
        if odd is not None:
            outside.add(odd)
            passed &= planes.tile != odd
        settled = bool((passed == members).all())
        members = passed
        if settled and turn >= 2:
            break
    empty = members & ~((excess > _DOUBTFUL) & _beside(planes, excess > _SURE))
    if not _confirmed(planes, empty):
        empty = np.zeros(len(known), np.bool_)
    confidence = np.zeros(len(known))
    if rest is not None and empty.any():
        confidence[empty] = rest.confidence(empty)
    tiles = tuple(int(tile) for tile in np.unique(planes.tile[empty]))
    return Decision(empty, known, excess, confidence, level, tiles)


def _confirmed(planes: Windows, members: NDArray[np.bool_]) -> bool:
    """Whether two tiles agree, or both ends of one whose middle does not."""
    tiles = np.unique(planes.tile[members])
    if len(tiles) != 1:
        return len(tiles) > 1
    own = members[planes.tile == tiles[0]]
    inside = np.flatnonzero(own)
    gap = int(np.diff(inside).max(initial=0))
    return gap - 1 > _LEAST_PLANES


def _beside(planes: Windows, sure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The neighbours of some planes in their run."""
    beside = np.zeros(len(sure), np.bool_)
    joined = planes.run[1:] == planes.run[:-1]
    beside[1:] |= sure[:-1] & joined
    beside[:-1] |= sure[1:] & joined
    return beside
