"""Pixels that were read for a block, and whole planes that its background follows from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.masks import no_data, union
from fractal_mesospim_shading.engine.zero_look import ZeroLook
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.source import PixelSource
from fractal_mesospim_shading.local_background.regions import YX, Regions
from fractal_mesospim_shading.local_background.scratch import planes_one_by_one

Marks = NDArray[np.bool_] | None
"""Where some pixels of a plane (y, x) are; None for nowhere."""

Unit = int | slice
"""What is estimated at a time of a window: one of its planes, or all of them as a slice."""


@dataclass(frozen=True)
class Window:
    """Planes of one channel and time point that were read.

    Attributes:
        source: the image.
        lead: index along t and c.
        z, yx: where the pixels lie in the image.
        pixels: (z, y, x).
        objects: of a label image, same shape, or None.
    """

    source: PixelSource
    lead: dict[str, int]
    z: slice
    yx: YX
    pixels: NDArray[Any]
    objects: NDArray[np.bool_] | None

    def planes(self, unit: Unit) -> slice:
        """Where a unit lies along z in the image."""
        if isinstance(unit, slice):
            return self.z
        return slice(self.z.start + unit, self.z.start + unit + 1)

    def told(self, stack: str, tile: int | None, unit: Unit) -> str:
        """Where a unit lies, for a person.

        Args:
            stack: name of the image where it is one of many; empty where it is the only one.
            tile: its number; None where there is one.
            unit: of the window.
        """
        axes, places = self.source.axes, [f"stack '{stack}'"] if stack else []
        if not stack or "c" in axes:
            places.append(f"channel '{self.source.channels[self.lead['c']].label}'")
        if tile is not None:
            places.append(f"tile {tile}")
        if "t" in axes:
            places.append(f"time point {self.lead['t']}")
        if "z" in axes and isinstance(unit, int):
            places.append(f"plane z={self.z.start + unit}")
        return ", ".join(places)


def whole_planes(
    regions: Regions,
    look: ZeroLook,
    source: PixelSource,
    label: LabelImage | None,
    lead: dict[str, int],
    slab: slice,
    yx: YX,
) -> Iterator[tuple[NDArray[Any], Marks, Marks]]:
    """The planes of a slab, one by one, with the objects of a label image, and without data.

    Args:
        regions: of the image.
        look: what is done about zeros.
        source: the image.
        label: where objects are, or None.
        lead: index along t and c.
        slab: planes in the same chunks.
        yx: the tile.
    """
    rows, number = source.read_grain()[-2], slab.stop - slab.start

    def pixels(part: YX) -> NDArray[Any]:
        read = source.read(0, regions.box(lead, slab, part))
        return read.reshape(-1, *read.shape[-2:])

    planes = planes_one_by_one(pixels, yx, rows, number, source.dtype)
    marks: Iterator[Marks] = repeat(None, number)
    if label is not None:
        objects = partial(_objects, label, regions, lead, slab)
        marks = planes_one_by_one(objects, yx, rows, number, np.dtype(np.bool_))
    for place, (plane, marked) in enumerate(zip(planes, marks, strict=True)):
        z = slice(slab.start + place, slab.start + place + 1)
        zeros = look.zeros(source, lead, z, yx, plane[None]).like(plane)
        yield plane, marked, union(no_data(plane), zeros.without_data)


def _objects(
    label: LabelImage, regions: Regions, lead: dict[str, int], slab: slice, yx: YX
) -> NDArray[np.bool_]:
    return label.read(regions.box(lead, slab, yx))
