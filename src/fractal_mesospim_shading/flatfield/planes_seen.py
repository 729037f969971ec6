"""Which planes a flat-field rests on and which were left out, by number, with small pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

Numbers = Mapping[int, tuple[int, ...]]
"""Planes of full resolution by tile, sorted; those of later time points go on counting."""


@dataclass(frozen=True)
class Thumbnail:
    """A plane, small.

    Attributes:
        tile: its number, as people count.
        plane: its number at full resolution.
        light: (y, x) counts above those at no light; NaN where there is no data.
        left_out: why, in words that follow "the plane"; empty for one that was used.
    """

    tile: str
    plane: int
    light: FloatArray
    left_out: str = ""


@dataclass(frozen=True)
class PlanesSeen:
    """The planes that were looked at for a flat-field.

    Attributes:
        used: those that it rests on.
        left_out: those that were read and not used: they hold sample, or no data.
        depth: planes of one time point.
        names: of the tiles by number, as people count.
        thumbnails: some of both.
    """

    used: Numbers
    left_out: Numbers
    depth: int
    names: Mapping[int, str]
    thumbnails: tuple[Thumbnail, ...] = field(default=(), repr=False, compare=False)

    def facts(self) -> dict[str, Any]:
        """The numbers as JSON: by tile, first and last of each range of planes."""
        return {
            name: {self.names[tile]: _ranges(own) for tile, own in sorted(planes.items())}
            for name, planes in (("used", self.used), ("left_out", self.left_out))
        }

    def text_of(self, planes: Numbers) -> str:
        """Some of the planes as people list them: `tile 3: planes 1 to 40, 88 to 96`."""
        return "; ".join(self._texts(planes))

    def _texts(self, planes: Numbers) -> Iterator[str]:
        for tile, own in sorted(planes.items()):
            times = sorted({plane // self.depth for plane in own})
            for time in times:
                here = [plane % self.depth for plane in own if plane // self.depth == time]
                spans = (f"{a} to {b}" if a < b else f"{a}" for a, b in _ranges(here))
                when = f" at time point {time}" if times != [0] else ""
                word = "planes" if len(here) > 1 else "plane"
                yield f"tile {self.names[tile]}{when}: {word} {', '.join(spans)}"

    def document(self) -> dict[str, Any]:
        """All but the pictures as JSON, for `of_document`."""
        return {
            "used": list(self.used.items()),
            "left_out": list(self.left_out.items()),
            "depth": self.depth,
            "names": list(self.names.items()),
            "thumbnails": [[own.tile, own.plane, own.left_out] for own in self.thumbnails],
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any], pictures: Sequence[FloatArray]) -> PlanesSeen:
        """The inverse of `document`, with the pictures of the thumbnails."""
        used, left_out = (
            {tile: tuple(planes) for tile, planes in document[name]}
            for name in ("used", "left_out")
        )
        told = zip(document["thumbnails"], pictures, strict=True)
        thumbnails = tuple(Thumbnail(tile, z, light, why) for (tile, z, why), light in told)
        return cls(used, left_out, document["depth"], dict(document["names"]), thumbnails)


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    """Whole numbers as ranges, first and last of each."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges
