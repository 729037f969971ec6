"""What became of the planes of an estimate, and some of them as small pictures.

The pictures are made of the means that the estimate has read: nothing is read for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.flatfield.estimate_planes import SampledPlanes
from fractal_mesospim_shading.flatfield.planes_seen import FloatArray, PlanesSeen, Thumbnail
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice, plane_count, planes_behind
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage.names import image_name

if TYPE_CHECKING:
    from fractal_mesospim_shading.flatfield.empty_planes import EmptyPlanes

# Pictures at most, and their longer side in pixels.
_MOST, _SIDE = 24, 48
_NOT_EMPTY = "is not surely empty"


@dataclass(frozen=True)
class _Plane:
    """A plane that was read: what it stands for at full resolution, and its means less `dark`."""

    tile: int
    numbers: range
    mean: NDArray[np.floating[Any]]
    dark: float
    left_out: str = ""


def planes_seen(
    choice: PlaneChoice,
    sampled: SampledPlanes,
    left_out: Mapping[int, str],
    offset: float,
    looked: EmptyPlanes | None = None,
) -> PlanesSeen:
    """What became of the planes of an estimate.

    Args:
        choice: of planes.
        sampled: those that were read.
        left_out: indices of those that were not used, and why.
        offset: counts at no light, of an image of which no dark frame was taken off.
        looked: where empty planes were looked for, those looked at.
    """
    image = choice.image
    dark = 0.0 if sampled.dark is not None else offset
    every = [
        _Plane(
            tile,
            planes_behind(image, choice.level, z),
            sampled.stack.mean[k],
            dark,
            left_out.get(k, ""),
        )
        for k, (tile, z) in enumerate(sampled.refs)
    ]
    if looked is not None:
        raw = offset if sampled.dark is None else float(np.mean(sampled.dark))
        every += _not_empty(looked, raw)
    used, out = ([own for own in every if bool(own.left_out) == kind] for kind in (False, True))
    names = _names(image)
    shown = _some(used, _MOST // 2 if out else _MOST)
    shown += _some(out, _MOST - len(shown))
    pictures = (
        Thumbnail(names[own.tile], own.numbers[0], _small(own.mean, own.dark), own.left_out)
        for own in shown
    )
    return PlanesSeen(_numbers(used), _numbers(out), plane_count(image, 0), names, tuple(pictures))


def _not_empty(looked: EmptyPlanes, dark: float) -> list[_Plane]:
    """The planes that were looked at and are not called empty."""
    if looked.decision is None or looked.means is None:
        return []
    return [
        _Plane(
            tile, planes_behind(looked.image, looked.level, z), looked.means[k], dark, _NOT_EMPTY
        )
        for k, (tile, z) in enumerate(looked.refs)
        if looked.decision.known[k] and not looked.decision.empty[k]
    ]


def _names(image: MultitileImage) -> dict[int, str]:
    """How people call the tiles of an image, or of several that are joined."""
    several = len(image.grids) > 1
    return {
        number: f"{own} of {image_name(grid.url)}" if several else str(own)
        for grid in image.grids
        for own, number in grid.numbers.items()
    }


def _numbers(planes: Sequence[_Plane]) -> dict[int, tuple[int, ...]]:
    found: dict[int, set[int]] = {}
    for own in planes:
        found.setdefault(own.tile, set()).update(own.numbers)
    return {tile: tuple(sorted(numbers)) for tile, numbers in found.items()}


def _some(planes: Sequence[_Plane], most: int) -> list[_Plane]:
    """A few planes of each tile, or one of some tiles where there are many; evenly spread."""
    by_tile: dict[int, list[_Plane]] = {}
    for own in planes:
        by_tile.setdefault(own.tile, []).append(own)
    tiles = sorted(by_tile)
    chosen = [by_tile[tiles[k]] for k in _spread(len(tiles), most)]
    each = most // max(len(chosen), 1)
    return [
        own
        for of_tile in chosen
        for own in sorted((of_tile[k] for k in _spread(len(of_tile), each)), key=_place)
    ]


def _place(plane: _Plane) -> int:
    return plane.numbers[0]


def _spread(size: int, count: int) -> list[int]:
    """Indices below a size: the middles of equal parts."""
    count = min(size, count)
    return [int((k + 0.5) * size / count) for k in range(count)]


def _small(mean: NDArray[np.floating[Any]], dark: float) -> FloatArray:
    """Means of squares of a plane, so many that it is small."""
    step = -(-max(mean.shape) // _SIDE)
    known = np.isfinite(mean)
    sums = [np.where(known, mean.astype(np.float64) - dark, 0.0), known.astype(np.float64)]
    for axis, size in enumerate(mean.shape):
        sums = [np.add.reduceat(part, np.arange(0, size, step), axis=axis) for part in sums]
    total, number = sums
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)
