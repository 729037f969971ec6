"""Which tiles are neighbours, and where in both of them the same tissue lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

LEAST_OVERLAP_PX = 12
"""Narrower overlaps hold too few pixels to be compared."""

# Nearer origins are no neighbours of a grid, as a fraction of the tile; nor are tiles that
# lie farther to the side.
_NEAREST = 0.25
_MOST_ASIDE = 0.25

Span = tuple[int, int]


@dataclass(frozen=True)
class Neighbours:
    """Two tiles that overlap along an axis, by the positions that are known of them.

    Attributes:
        first, second: numbers of the tiles; `first` lies before `second`.
        axis: `y` or `x`.
        shift: (y, x) of the second tile's origin from the first's, in whole pixels.
        window: (y, x) spans of the overlap in the first tile; the same tissue lies `shift` before
            in the second.
    """

    first: int
    second: int
    axis: str
    shift: tuple[int, int]
    window: tuple[Span, Span]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the overlap, (y, x)."""
        (y0, y1), (x0, x1) = self.window
        return y1 - y0, x1 - x0


def neighbours(
    origins: Mapping[int, tuple[float, float]], tile_shape: tuple[int, int]
) -> tuple[Neighbours, ...]:
    """The pairs of tiles that overlap by a strip along their sides, not by a corner alone.

    Args:
        origins: (y, x) by tile number, in pixels.
        tile_shape: (y, x) in pixels.

    Returns:
        In the order of the numbers. An overlap has at least 12 pixels either way.
    """
    pairs = []
    for one, around in _around(origins, tile_shape).items():
        for other in around:
            pair = _pair(one, other, origins, tile_shape)
            if pair is not None:
                pairs.append(pair)
    return tuple(pairs)


def _around(
    origins: Mapping[int, tuple[float, float]], tile_shape: tuple[int, int]
) -> dict[int, list[int]]:
    """For each tile those of higher numbers that are near enough to overlap it, in order."""
    squares: dict[tuple[int, int], list[int]] = {}
    place = {}
    for number in sorted(origins):
        y, x = (int(at // size) for at, size in zip(origins[number], tile_shape, strict=True))
        place[number] = (y, x)
        squares.setdefault((y, x), []).append(number)
    found = {}
    for number, (y, x) in place.items():
        near = product((y - 1, y, y + 1), (x - 1, x, x + 1))
        found[number] = sorted(
            other for square in near for other in squares.get(square, ()) if other > number
        )
    return found


def _pair(
    one: int,
    other: int,
    origins: Mapping[int, tuple[float, float]],
    tile_shape: tuple[int, int],
) -> Neighbours | None:
    for along, axis in enumerate("yx"):
        first, second = sorted((one, other), key=lambda number: origins[number][along])
        distance = [b - a for a, b in zip(origins[first], origins[second], strict=True)]
        aside = 1 - along
        if distance[along] < _NEAREST * tile_shape[along]:
            continue
        if abs(distance[aside]) > _MOST_ASIDE * tile_shape[aside]:
            continue
        shift = (round(distance[0]), round(distance[1]))
        window = tuple(
            (max(d, 0), size + min(d, 0)) for d, size in zip(shift, tile_shape, strict=True)
        )
        if min(stop - start for start, stop in window) >= LEAST_OVERLAP_PX:
            return Neighbours(first, second, axis, shift, (window[0], window[1]))
    return None
