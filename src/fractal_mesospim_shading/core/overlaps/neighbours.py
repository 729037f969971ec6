"""Which tiles are neighbours, and where in both of them the same tissue lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    numbers = sorted(origins)
    for i, one in enumerate(numbers):
        for other in numbers[i + 1 :]:
            pair = _pair(one, other, origins, tile_shape)
            if pair is not None:
                pairs.append(pair)
    return tuple(pairs)


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
