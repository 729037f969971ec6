"""Which planes of which level a report and a check look at."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, lcm, prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.blocks import cut
from fractal_mesospim_shading.core.pyramid import block_mean
from fractal_mesospim_shading.flatfield.sampling import plane_count
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.source import Axes, Level
from fractal_mesospim_shading.images.target import TargetLevel

PLANE_PIXELS = 1 << 20
"""Planes that a person or a check looks at are of the first level with no more pixels than this.
Where there is none, as in images without a pyramid, those of the last level shrink as they are
read: whole ones would take more memory than the blocks of the job."""

PLANES = 8
"""Planes along z that the seam step is measured on."""

_TOGETHER = 1024
"""Small chunks are read together, up to so many pixels along y and x."""

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


def seen_factor(levels: Sequence[Level | TargetLevel], level: int) -> tuple[int, int]:
    """By how much (y, x) have shrunk from full resolution to the planes of `seen_planes`."""
    (y, x), more = shrinking(levels, level), _more(levels[level].shape)
    return y * more, x * more


def _more(shape: Sequence[int]) -> int:
    """By how much the planes of a level still have to shrink along y and x."""
    more = 1
    while prod(size // more for size in shape[-2:]) > PLANE_PIXELS:
        more *= 2
    return more


class Pyramid(Protocol):
    """A source or a result."""

    @property
    def levels(self) -> Sequence[Level | TargetLevel]:
        """Its arrays."""

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """The pixels of a box of a level."""


def seen_planes(
    image: Pyramid, axes: Axes, level: int, channel: int, numbers: Sequence[int]
) -> NDArray[Any]:
    """(n, y, x) planes of a level, of the type of the image and no larger than what is looked at.

    Args:
        image: source or result.
        axes: of its arrays.
        level: of the pyramid.
        channel: index along c.
        numbers: of the planes, ascending.
    """
    array = image.levels[level]
    more, sizes = _more(array.shape), array.shape[-2:]
    shape = [max(size // more, 1) for size in sizes]
    # Pixels that fill no whole coarse pixel are left out, but where there is no other.
    whole = [slice(0, min(n * more, size)) for n, size in zip(shape, sizes, strict=True)]
    units = [lcm(chunk, more) for chunk in array.chunks[-2:]]
    units = [unit * ceil(_TOGETHER / unit) for unit in units] if more > 1 else list(sizes)
    slabs = []
    for z in _runs(numbers, axes.length("z", array.chunks) if more > 1 else None):
        slab: NDArray[Any] | None = None
        for y, x in cut(whole, units):
            fine = image.read(level, plane_box(axes, channel, z, y, x))
            fine = fine.reshape((-1, *fine.shape[-2:]))
            if slab is None:
                slab = np.empty((len(fine), *shape), fine.dtype)
            rows, columns = (slice(s.start // more, ceil(s.stop / more)) for s in (y, x))
            part = slab[:, rows, columns]
            part[...] = fine if more == 1 else block_mean(fine, (1, more, more), part.shape)
        if slab is not None:
            slabs.append(slab)
    return np.concatenate(slabs)


def _runs(numbers: Sequence[int], depth: int | None) -> list[slice]:
    """Numbers as spans of neighbours, within chunks of a depth where one is given."""
    runs: list[slice] = []
    for z in numbers:
        if runs and runs[-1].stop == z and (depth is None or z % depth):
            runs[-1] = slice(runs[-1].start, z + 1)
        else:
            runs.append(slice(z, z + 1))
    return runs


def plane_box(axes: Axes, channel: int, z: slice, y: slice, x: slice) -> Box:
    """The box of some planes of a channel, at the first time point."""
    box = {"t": slice(0, 1), "c": slice(channel, channel + 1), "z": z, "y": y, "x": x}
    return axes.box(box)


def middle_planes(depth: int, chunk: int) -> range:
    """Up to `PLANES` planes of a stack around the middle, in one chunk where one holds as many.

    Args:
        depth: of the stack.
        chunk: its chunks along z.
    """
    number = min(PLANES, depth)
    start = (depth - number) // 2
    border = (start // chunk + 1) * chunk
    before, behind = border - start, start + number - border
    if behind > 0 and chunk >= number:
        start = border if behind > before and border + number <= depth else border - number
    return range(start, start + number)


def planes_shown(image: MosaicImage, level: int) -> Sequence[int]:
    """Numbers of the planes looked at, within as few chunks as possible."""
    depth, chunk = plane_count(image, level), _chunk_depth(image, level)
    number = min(PLANES, depth)
    # Planes around the middle, or else from end to end.
    if chunk >= number:
        return middle_planes(depth, chunk)
    return sorted({round((i + 0.5) * depth / number - 0.5) for i in range(number)})


def cost_of(image: MosaicImage, level: int, planes: Sequence[int]) -> int:
    """Bytes of pixels that are decoded for these planes of all channels."""
    chunk = _chunk_depth(image, level)
    pixels = len({z // chunk for z in planes}) * chunk * prod(image.levels[level].shape[-2:])
    return 2 * pixels * image.dtype.itemsize * len(image.channels)


def _chunk_depth(image: MosaicImage, level: int) -> int:
    return image.axes.length("z", image.levels[level].chunks)
