"""What is empty in the words of a person: tiles, ranges along z, and what to type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.deciding import Decision

# Of the planes looked at in a range, so many are empty; the others differ by chance.
_LEAST_SHARE = 0.8
# A plane that differs by so many times its limit differs by more than chance.
_SURE = 2.0
# Part of a tile's planes that may lie unseen between two that are empty, within a range. A round
# sample that begins and ends there covers less than a hundredth of the tile.
_MOST_UNSEEN = 1 / 8
# Planes that are enough for a flat-field; beyond these, more of them are no reason.
_ENOUGH = 40
# Levels that are tried at each end.
_MOST_LEVELS = 40


@dataclass(frozen=True)
class TileRegions:
    """What of a tile is empty.

    Attributes:
        tile: its number.
        planes: first and last + 1 of those that it has.
        looked_at: planes that were looked at and hold data.
        share: of these, called empty.
        low: planes below this one are empty; the first plane where none is. Planes between those
            looked at are taken to be like them where they are few.
        high: planes above this one are empty; the last plane where none is.
        confidence: probability that light of sample at the limit would have shown in any place of
            an empty plane, the mean of the planes; 0 where none is empty.
    """

    tile: int
    planes: tuple[int, int]
    looked_at: int
    share: float
    low: int
    high: int
    confidence: float

    @property
    def whole(self) -> bool:
        """Whether all of it is empty."""
        return self.low >= self.planes[1]

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last plane of each end that is empty."""
        first, stop = self.planes
        if self.whole:
            return ((first, stop - 1),)
        ends = ((first, self.low - 1), (self.high + 1, stop - 1))
        return tuple(end for end in ends if end[0] <= end[1])


@dataclass(frozen=True)
class Choice:
    """What to type so that what is empty is used; neither where nothing is.

    Attributes:
        fov_list: tiles; None for all corners.
        z_levels: planes below the first and above the second are empty; None for all planes.
    """

    fov_list: tuple[int, ...] | None = None
    z_levels: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        """Whether anything is empty."""
        return self.fov_list is not None or self.z_levels is not None

    def options(self) -> str:
        """The options of the command line."""
        parts = []
        if self.fov_list is not None:
            parts.append("--fov-list " + ",".join(map(str, self.fov_list)))
        if self.z_levels is not None:
            parts.append("--z-levels " + ",".join(map(str, self.z_levels)))
        return " ".join(parts)


def regions_of(
    decision: Decision,
    refs: Sequence[tuple[int, int]],
    planes: dict[int, tuple[int, int]],
    n_z: int,
) -> tuple[TileRegions, ...]:
    """What of each tile is empty.

    Args:
        decision: of the planes looked at.
        refs: (tile, plane) of each, sorted; planes of later time points go on counting.
        planes: for each tile looked at, the first and last + 1 of its planes.
        n_z: planes of one time point.
    """
    tile, every_z = (np.array(v) for v in zip(*((t, p % n_z) for t, p in refs), strict=True))
    every_surely = decision.known & ~(decision.excess <= _SURE)
    result = []
    for number, (first, stop) in sorted(planes.items()):
        # The planes of a tile lie together: of many tiles, all would be looked at for each.
        mine = slice(*(int(np.searchsorted(tile, number, side)) for side in ("left", "right")))
        z, own, surely = every_z[mine], decision.known[mine], every_surely[mine]
        empty, confidence = own & decision.empty[mine], decision.confidence[mine]
        heights = np.unique(z[own])
        at = [own & (z == height) for height in heights]
        counts = [(int((empty & a).sum()), int(a.sum()), bool((surely & a).any())) for a in at]
        unseen = _unseen(heights, np.unique(z), first, stop)
        far = [bool(gap > _MOST_UNSEEN * (stop - first)) for gap in unseen]
        below, above = _prefix(counts, far), _prefix(counts[::-1], far[::-1])
        whole = below == len(heights) > 0 and not far[-1]
        low = stop if whole else int(heights[below - 1]) + 1 if below else first
        high = int(heights[-above]) - 1 if above and not whole else stop - 1
        result.append(
            TileRegions(
                tile=number,
                planes=(first, stop),
                looked_at=int(own.sum()),
                share=float(empty.sum() / own.sum()) if own.any() else 0.0,
                low=low,
                high=high,
                confidence=float(confidence[empty].mean()) if empty.any() else 0.0,
            )
        )
    return tuple(result)


def _unseen(
    heights: NDArray[np.int64], looked: NDArray[np.int64], first: int, stop: int
) -> NDArray[np.int64]:
    """Planes that nobody looked at before, between and behind some of those looked at."""
    ends = np.concatenate([[first - 1], heights, [stop]])
    places = np.concatenate([[-1], np.searchsorted(looked, heights), [len(looked)]])
    return np.asarray(np.diff(ends) - np.diff(places), np.int64)


def _prefix(counts: Sequence[tuple[int, int, bool]], far: Sequence[bool]) -> int:
    """Heights from an end up to the last that is empty, if those that are not are few and unsure.

    Args:
        counts: for each height the planes that are empty, all planes, and whether one is
            surely not empty.
        far: for each whether too many planes lie unseen before it.
    """
    best, empty, total = 0, 0, 0
    for number, (own, of, surely) in enumerate(counts, 1):
        if surely or far[number - 1]:
            break
        empty, total = empty + own, total + of
        if own and empty >= _LEAST_SHARE * total:
            best = number
    return best


def choose(by_group: Sequence[Sequence[TileRegions]], corners: Sequence[int], n_z: int) -> Choice:
    """Tiles and planes that are empty in every channel and side that has them.

    Args:
        by_group: what was found for each channel and side.
        corners: numbers of the tiles that are taken where no tile is named.
        n_z: planes of one time point.
    """
    of_tiles: dict[int, list[TileRegions]] = {}
    for region in chain.from_iterable(by_group):
        of_tiles.setdefault(region.tile, []).append(region)
    spans = {}
    for tile, own in sorted(of_tiles.items()):
        low, high = min(r.low for r in own), max(r.high for r in own)
        spans[tile] = (low, max(high, low))
        if all(r.whole for r in own):
            spans[tile] = (n_z, n_z)
    if not all(any(r.share > 0 for r in regions) for regions in by_group):
        return Choice()
    whole = tuple(tile for tile, (low, _) in spans.items() if low >= n_z)
    ends = _ends(spans, n_z)
    if whole and len(whole) * n_z >= min(_ENOUGH, ends[0]):
        return Choice(fov_list=whole)
    number, chosen, levels = ends
    if not number:
        return Choice()
    return Choice(None if set(chosen) == set(corners) else chosen, levels)


def _ends(
    spans: dict[int, tuple[int, int]], n_z: int
) -> tuple[int, tuple[int, ...], tuple[int, int]]:
    """Tiles and levels with the most planes that are empty in all of these tiles."""
    tiles = np.array(list(spans))
    lows, highs = np.array(list(spans.values())).T
    best: tuple[int, tuple[int, ...], tuple[int, int]] = (0, (), (0, 0))
    for low in _some(lows):
        for high in _some(highs):
            inside = (lows >= low) & (highs <= high)
            number = int(inside.sum()) * (low + max(n_z - 1 - high, 0))
            if low <= high and number > best[0]:
                levels = (min(low, n_z - 1), min(high, n_z - 1))
                best = (number, tuple(int(tile) for tile in tiles[inside]), levels)
    return best


def _some(levels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    """Different levels, evenly spread where there are many."""
    different = np.unique(levels)
    places = np.linspace(0, len(different) - 1, min(len(different), _MOST_LEVELS))
    return [int(different[int(k)]) for k in np.round(places)]
