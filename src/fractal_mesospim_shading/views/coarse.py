"""Which planes of which level a report and a check look at."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from fractal_mesospim_shading.flatfield.sampling import plane_count
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.source import Axes, Level
from fractal_mesospim_shading.images.target import TargetLevel

PLANE_PIXELS = 1 << 20
"""Planes that a person or a check looks at are of the first level with no more pixels than this."""

PLANES = 8
"""Planes along z that the seam step is measured on."""

READ_BYTES = 2**31
"""What would have to decode more than this is left out."""


def coarse_level(levels: Sequence[Level | TargetLevel]) -> int:
    """The level to look at: the first whose planes have no more than `PLANE_PIXELS`."""
    small = (i for i, level in enumerate(levels) if prod(level.shape[-2:]) <= PLANE_PIXELS)
    return next(small, len(levels) - 1)


def shrinking(levels: Sequence[Level | TargetLevel], level: int) -> tuple[int, int]:
    """By how much (y, x) have shrunk from full resolution to a level."""
    fine, coarse = levels[0].scale, levels[level].scale
    y, x = (max(1, round(c / f)) for f, c in zip(fine[-2:], coarse[-2:], strict=True))
    return y, x


def plane_box(axes: Axes, channel: int, z: slice, y: slice, x: slice) -> Box:
    """The box of some planes of a channel, at the first time point."""
    box = {"t": slice(0, 1), "c": slice(channel, channel + 1), "z": z, "y": y, "x": x}
    return axes.box(box)


def planes_shown(image: MosaicImage, level: int) -> Sequence[int]:
    """Numbers of the planes looked at, within as few chunks as possible."""
    depth = plane_count(image, level)
    number = min(PLANES, depth)
    # Planes around the middle, or else from end to end.
    if _chunk_depth(image, level) >= number:
        start = max(0, min(depth // 2 - number // 2, depth - number))
        return range(start, start + number)
    return sorted({round((i + 0.5) * depth / number - 0.5) for i in range(number)})


def cost_of(image: MosaicImage, level: int, planes: Sequence[int]) -> int:
    """Bytes of pixels that are decoded for these planes of all channels."""
    chunk = _chunk_depth(image, level)
    pixels = len({z // chunk for z in planes}) * chunk * prod(image.levels[level].shape[-2:])
    return 2 * pixels * image.dtype.itemsize * len(image.channels)


def _chunk_depth(image: MosaicImage, level: int) -> int:
    return image.axes.length("z", image.levels[level].chunks)
