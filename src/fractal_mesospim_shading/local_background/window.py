"""Pixels that were read for a block, and whole planes that its background follows from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.source import PixelSource
from fractal_mesospim_shading.local_background.regions import YX, Regions
from fractal_mesospim_shading.local_background.scratch import planes_one_by_one

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


def whole_planes(
    regions: Regions,
    source: PixelSource,
    label: LabelImage | None,
    lead: dict[str, int],
    slab: slice,
    yx: YX,
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_] | None]]:
    """The planes of a slab, one after another, with the objects of a label image.

    Args:
        regions: of the image.
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
    if label is None:
        return ((plane, None) for plane in planes)

    def objects(part: YX) -> NDArray[np.bool_]:
        return label.read(regions.box(lead, slab, part))

    marks = planes_one_by_one(objects, yx, rows, number, np.dtype(np.bool_))
    return zip(planes, marks, strict=True)
