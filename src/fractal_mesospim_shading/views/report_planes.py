"""The planes that a report shows: read before and after, and measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.seams import Seam, medians_of_runs, medium_lines, seams
from fractal_mesospim_shading.flatfield.sampling import z_factor
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.views.coarse import (
    READ_BYTES,
    coarse_level,
    plane_box,
    planes_shown,
    seen_factor,
    seen_planes,
)
from fractal_mesospim_shading.views.report_parts import FloatArray, Pair, PlanesShown

# Side of the part that is shown at full resolution, in pixels.
_CROP = 240
_MOST_CROP_BYTES = READ_BYTES // 16

Reader = Callable[[int, Box], NDArray[Any]]


@dataclass(frozen=True)
class SampledPlanes:
    """Some planes of a channel before and after, at a level for the screen.

    Attributes:
        before, after: (n, y, x) as they are on disk, or their means; see `seen_planes`.
        numbers: of the planes at that level.
        level: of both.
        factor: by how much (y, x) have shrunk from full resolution.
    """

    before: NDArray[Any]
    after: NDArray[Any]
    numbers: tuple[int, ...]
    level: int
    factor: tuple[int, int]

    @property
    def middle(self) -> int:
        """Which of them is shown."""
        return len(self.numbers) // 2


def sampled_planes(image: MosaicImage, target: TargetImage, channel: Channel) -> SampledPlanes:
    """Read some planes of a source and of its result."""
    level = coarse_level(image.levels)
    numbers = planes_shown(image, level)
    before, after = (
        seen_planes(whole, image.axes, level, channel.index, numbers) for whole in (image, target)
    )
    return SampledPlanes(before, after, tuple(numbers), level, seen_factor(image.levels, level))


def planes_to_show(
    image: MosaicImage,
    target: TargetImage,
    channel: Channel,
    sampled: SampledPlanes,
    means: tuple[NDArray[np.float64], NDArray[np.float64]],
    offsets: tuple[float, float, float],
) -> PlanesShown:
    """What a report shows of them.

    Args:
        image, target: source and result.
        channel: of both.
        sampled: from `sampled_planes`.
        means: (y, x) of the planes, before and with the flat-field alone corrected.
        offsets: counts at no light in the source, in the second mean, and in the result.
    """
    layout, factor = image.layout, sampled.factor
    plane = sampled.numbers[sampled.middle] * z_factor(image, sampled.level)
    whole = whole_plane(image, sampled, (offsets[0], offsets[2]))
    lights = [light(mean, dark) for mean, dark in zip(means, offsets[:2], strict=True)]
    lines = medium_lines(lights[0], lights[1], layout, factor=factor)
    place, ends = _worst_seam(lights, layout, factor), (offsets[0], offsets[2])
    crop = _crop(image, target, channel, plane, place, ends, "after")
    return PlanesShown(whole, crop, lines)


def background_planes(
    image: MosaicImage,
    target: TargetImage,
    channel: Channel,
    output_offset: float,
) -> PlanesShown:
    """What a report shows of planes that a local background was taken away from.

    Of what is dark nothing may be left, so the crop is where tiles meet worst before.

    Args:
        image, target: source and result.
        channel: of both.
        output_offset: counts at no light in the result.
    """
    sampled = sampled_planes(image, target, channel)
    offsets = (float(np.min(sampled.before[sampled.middle])) - 1, output_offset)
    plane = sampled.numbers[sampled.middle] * z_factor(image, sampled.level)
    before = light(sampled.before.mean(axis=0, dtype=np.float64), offsets[0])
    place = _worst_seam([before, before], image.layout, sampled.factor)
    crop = _crop(image, target, channel, plane, place, offsets, "before")
    return PlanesShown(whole_plane(image, sampled, offsets), crop)


def whole_plane(image: MosaicImage, sampled: SampledPlanes, offsets: tuple[float, float]) -> Pair:
    """The middle one of some planes, whole; offsets of source and result are in counts."""
    plane = sampled.numbers[sampled.middle] * z_factor(image, sampled.level)
    before, after = sampled.before[sampled.middle], sampled.after[sampled.middle]
    what = "image" if image.layout.is_single else "mosaic"
    return Pair(
        light(before, offsets[0]),
        light(after, offsets[1]),
        f"The whole {what} ({_size(image, image.layout.plane_shape)}), plane {plane}.",
    )


def light(plane: NDArray[Any], offset: float) -> FloatArray:
    """Light above an offset; a pixel of 0 holds no data and stays 0."""
    values = np.asarray(plane, dtype=np.float32)
    return np.where(values == 0, values, values - np.float32(offset))


def _worst_seam(
    means: list[FloatArray], layout: TileLayout, factor: tuple[int, int]
) -> tuple[Seam, int] | None:
    """The seam with the largest step in the second mean, and the box of it to look at.

    Steps are told in the dimmer half of all boxes: two tiles show other tissue, but one medium.
    """
    after = list(seams(means[1], layout, factor=factor))
    if not after:
        return None
    first = np.concatenate([seam.first[0] for seam in after])
    second = np.concatenate([seam.second[0] for seam in after])
    dimmer = np.fmin(first, second)
    dimmer = dimmer[np.isfinite(dimmer) & (dimmer > 0)]
    if not dimmer.size:
        return None
    steps = _steps(first, second, float(np.median(dimmer)))
    ends = np.cumsum([len(seam.boxes) for seam in after])
    begins = np.concatenate([[0], ends[:-1]])
    typical = np.nan_to_num(medians_of_runs(steps[None], begins, ends), nan=-1.0)
    worst = int(np.argmax(typical))
    if typical[worst] < 0:
        return None
    before = next(islice(seams(means[0], layout, factor=factor), worst, None))
    shaded = _steps(before.first[0], before.second[0], np.inf)
    shaded[~np.isfinite(steps[begins[worst] : ends[worst]])] = -1.0
    return after[worst], int(np.argmax(np.nan_to_num(shaded, nan=-1.0)))


def _steps(first: FloatArray, second: FloatArray, limit: float) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        chosen = (first > 0) & (second > 0) & (np.fmin(first, second) <= limit)
        return np.where(chosen, 2 * np.abs(first - second) / (first + second), np.nan)


def _crop(
    image: MosaicImage,
    target: TargetImage,
    channel: Channel,
    plane: int,
    place: tuple[Seam, int] | None,
    offsets: tuple[float, float],
    worst: str,
) -> Pair | None:
    """A part of full resolution around a box of a seam; None where too much would be decoded.

    Args:
        image, target: source and result.
        channel: of both.
        plane: that is shown.
        place: the seam, and the number of the box.
        offsets: counts at no light in the source and in the result.
        worst: when the step there is the largest, `before` or `after`.
    """
    if place is None:
        return None
    seam, number = place
    height, width = image.layout.plane_shape
    edge = (seam.tiles[1].y, seam.tiles[1].x)[seam.across]
    along = seam.boxes[number]
    factor = seen_factor(image.levels, coarse_level(image.levels))[1 - seam.across]
    middle = [0, 0]
    middle[seam.across], middle[1 - seam.across] = edge, (along[0] + along[1]) * factor // 2
    y, x = (_span(centre, size) for centre, size in zip(middle, (height, width), strict=True))
    chunks = image.levels[0].chunks
    box = plane_box(image.axes, channel.index, slice(plane, plane + 1), y, x)
    spans = (s for s in box)
    touched = [(-(-s.stop // c) - s.start // c) * c for s, c in zip(spans, chunks, strict=True)]
    if 2 * prod(touched) * image.dtype.itemsize > _MOST_CROP_BYTES:
        return None
    shape = (y.stop - y.start, x.stop - x.start)
    before, after = (read(0, box).reshape(shape) for read in (image.read, target.read))
    tiles = " and ".join(str(tile.number) for tile in seam.tiles)
    return Pair(
        light(before, offsets[0]),
        light(after, offsets[1]),
        f"At full resolution where the step is largest {worst} the correction, between tiles "
        f"{tiles} ({_size(image, shape)}, plane {plane}). They meet in the middle, along "
        f"{'yx'[1 - seam.across]}.",
    )


def _span(centre: int, size: int) -> slice:
    start = max(0, min(centre - _CROP // 2, size - _CROP))
    return slice(start, min(start + _CROP, size))


def _size(image: MosaicImage, shape: tuple[int, int]) -> str:
    """Height and width in millimetres."""
    y, x = (n * image.voxel_size_um[axis] / 1000 for n, axis in zip(shape, "yx", strict=True))
    return f"{y:.3g} x {x:.3g} mm"
