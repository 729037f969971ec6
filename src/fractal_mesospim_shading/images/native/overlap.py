"""Measure how the stage's axes run in the image, from what tiles share in their overlaps.

For each of the four combinations of signs, neighbouring tiles would share another strip.
Only in the right one both see the same sample. Pixels are read once, and few: a coarse
level where there is one, else the maximum projection that lies beside the container, else
a patch of a few planes within single chunks.
"""

from __future__ import annotations

import io
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.native.placement import side_by_side
from fractal_mesospim_shading.images.native.positions import MeasuredSigns, Orientation
from fractal_mesospim_shading.images.native.stack import Stack
from fractal_mesospim_shading.images.native.surroundings import read_beside
from fractal_mesospim_shading.images.storage.places import reading_errors

Projection = NDArray[np.float32]

_MINIMAL_OVERLAP_PX = 6
_PAIRS = 6
_COSTLY_PAIRS = 3
_PATCH_PX = 256
_SETS = 2
_SURE = 0.3
_MARGIN = 0.1
_LEAST_OVERLAP_PX = 8
_CHEAP_BYTES = 64 * 2**20
_PATCH_PLANES = 8


@dataclass(frozen=True)
class Projector:
    """A way to look at a stack from above.

    Attributes:
        factor_yx: pixels of the finest level in one pixel of the projection.
        strip: reads a part of it, rows and columns in its own pixels.
        shape_yx: of the projection.
        chunk_yx: where reading is costly, the shape of a chunk: strips are then cut to a part
            of one chunk, and fewer pairs are looked at. None where it is cheap.
    """

    factor_yx: tuple[float, float]
    strip: Callable[[Stack, slice, slice], Projection]
    shape_yx: tuple[int, int]
    chunk_yx: tuple[int, int] | None = None


@dataclass
class _Sums:
    """Pooled covariance of strips, from pair to pair."""

    product: float = 0.0
    first: float = 0.0
    second: float = 0.0

    def add(self, a: Projection, b: Projection) -> None:
        x, y = _detail(a), _detail(b)
        self.product += float((x * y).sum())
        self.first += float((x * x).sum())
        self.second += float((y * y).sum())

    @property
    def correlation(self) -> float | None:
        scale = np.sqrt(self.first * self.second)
        return float(self.product / scale) if scale > 0 else None


def measure_signs(
    stacks: Sequence[Stack], projector_of: Callable[[Sequence[Stack], int], Projector | None]
) -> MeasuredSigns:
    """Correlate the overlaps of neighbouring tiles for each combination of signs.

    Args:
        stacks: of an acquisition.
        projector_of: chooses how to look at stacks whose smallest overlap in pixels of the
            finest level is given; None leaves them out.

    Returns:
        For each axis the sign whose correlation is the higher one, where it is above 0.3 and
        0.1 above the other; else None. Single rows or columns leave one axis open.
    """
    signs: dict[str, int] = {}
    details: dict[str, str] = {}
    for members in _sets(stacks):
        for axis in "xy":
            if axis in signs:
                continue
            pairs = list(itertools.islice(_pairs(members, axis), _PAIRS))
            if not pairs:
                continue
            projector = projector_of(members, _smallest_overlap(pairs, axis))
            if projector is None:
                continue
            looked_at = pairs if projector.chunk_yx is None else pairs[:_COSTLY_PAIRS]
            scores = _scores(looked_at, axis, projector)
            if scores is None:
                continue
            best = max(scores, key=lambda sign: scores[sign])
            details[axis] = f"{axis} {scores[best]:.2f} against {scores[-best]:.2f}"
            if scores[best] >= _SURE and scores[best] - scores[-best] >= _MARGIN:
                signs[axis] = best
    detail = f"correlation in overlaps {', '.join(details.values())}" if details else ""
    return MeasuredSigns(signs.get("x"), signs.get("y"), detail)


def _sets(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Stacks of one channel and angle: the largest sets of one side, then those of all sides.

    Where each tile was lit from one side only, the tiles of one side may be a single column.
    """

    def largest(one_side: bool) -> list[list[Stack]]:
        sets: dict[tuple[object, ...], list[Stack]] = defaultdict(list)
        for stack in stacks:
            channel = (stack.laser, stack.filter, stack.rotation, stack.pixel_size_um)
            side = stack.side if one_side else ""
            sets[*channel, stack.tile_shape, side, stack.time].append(stack)
        ordered = sorted(sets.values(), key=len, reverse=True)
        return [members for members in ordered if len(members) > 1][:_SETS]

    several = len({stack.side for stack in stacks}) > 1
    return [*largest(True), *(largest(False) if several else [])]


def _pairs(stacks: Sequence[Stack], axis: str) -> Iterable[tuple[Stack, Stack]]:
    """Neighbours along an axis of the stage whose overlap is worth a look, central ones first."""
    height, width = stacks[0].tile_size_um
    size, across = (width, height) if axis == "x" else (height, width)
    pairs = []
    places = np.array([(stack.x_um, stack.y_um) for stack in stacks])
    centre = np.mean(places, axis=0)
    for i, j in side_by_side(places if axis == "x" else places[:, ::-1], size, 0.05 * across):
        a, b = stacks[i], stacks[j]
        middle = np.array([a.x_um + b.x_um, a.y_um + b.y_um]) / 2
        distance = float(np.abs(middle - centre).sum())
        pairs.append((round(distance, 3), a.group, b.group, a, b))
    return ((a, b) for *_, a, b in sorted(pairs, key=lambda item: item[:3]))


def _smallest_overlap(pairs: Sequence[tuple[Stack, Stack]], axis: str) -> int:
    index = 1 if axis == "x" else 0
    distances = ((a, abs(b.x_um - a.x_um if axis == "x" else b.y_um - a.y_um)) for a, b in pairs)
    return min(int(a.tile_shape[index] - um / a.pixel_size_um[index]) for a, um in distances)


def _scores(
    pairs: Sequence[tuple[Stack, Stack]], axis: str, projector: Projector
) -> dict[int, float] | None:
    """The correlation for each sign of one axis; of the other axis the better sign counts."""
    scores = {}
    for sign in (1, -1):
        correlations = []
        for other in (1, -1):
            orientation = Orientation(*((sign, other) if axis == "x" else (other, sign)))
            sums = _Sums()
            for a, b in pairs:
                strips = _strips(a, b, orientation, projector)
                if strips is not None:
                    sums.add(*strips)
            if sums.correlation is not None:
                correlations.append(sums.correlation)
        if not correlations:
            return None
        scores[sign] = max(correlations)
    return scores


def _strips(
    a: Stack, b: Stack, orientation: Orientation, projector: Projector
) -> tuple[Projection, Projection] | None:
    """What both tiles see of their overlap, if the orientation is right."""
    ya, xa = orientation.image_um(a.x_um, a.y_um)
    yb, xb = orientation.image_um(b.x_um, b.y_um)
    in_a, in_b = [], []
    for axis, distance in enumerate((yb - ya, xb - xa)):
        shift = round(distance / a.pixel_size_um[axis] / projector.factor_yx[axis])
        start, stop = max(shift, 0), projector.shape_yx[axis] + min(shift, 0)
        if stop - start < _MINIMAL_OVERLAP_PX:
            return None
        if projector.chunk_yx is not None:
            start, stop = _within_chunk(start, stop, projector.chunk_yx[axis])
        in_a.append(slice(start, stop))
        in_b.append(slice(start - shift, stop - shift))
    return projector.strip(a, *in_a), projector.strip(b, *in_b)


def _within_chunk(start: int, stop: int, chunk: int) -> tuple[int, int]:
    """The middle of a range, at most a patch long and within one chunk."""
    index = (start + stop) // 2 // chunk
    start, stop = max(start, index * chunk), min(stop, (index + 1) * chunk)
    spare = max(0, stop - start - _PATCH_PX)
    return start + spare // 2, stop - (spare - spare // 2)


def _detail(strip: Projection) -> Projection:
    """A strip without noise and without slow changes, so that shading and glow count little."""
    smooth = _box_mean(strip, 1)
    detail = smooth - _box_mean(smooth, max(3, min(strip.shape) // 4))
    return np.asarray(detail - detail.mean(), dtype=np.float32)


def _box_mean(pixels: Projection, radius: int) -> Projection:
    """The mean over a square around each pixel; edge pixels are repeated outward."""
    from scipy.ndimage import uniform_filter1d

    for axis in (0, 1):
        pixels = uniform_filter1d(pixels, 2 * radius + 1, axis, np.float64, mode="nearest")
    return pixels.astype(np.float32)


def projectors(
    url: str, storage_options: str, *, thorough: bool = True
) -> Callable[[Sequence[Stack], int], Projector | None]:
    """How to choose a projector for the stacks of a container.

    Args:
        url: of the container.
        storage_options: as JSON.
        thorough: whether chunks of full resolution may be read, which can be large.

    Returns:
        A function of the stacks and their smallest overlap in pixels; it gives None where only
        costly reading is left and that is not allowed.
    """

    def choose(stacks: Sequence[Stack], overlap_px: int) -> Projector | None:
        level = _level_for(stacks, overlap_px)
        bytes_read = prod(stacks[0].levels[level].shape) * np.dtype(stacks[0].dtype).itemsize
        if bytes_read <= _CHEAP_BYTES:
            return _mean_projector(url, storage_options, stacks[0], level)
        if all(stack.projection_file for stack in stacks):
            try:
                _read_projection(url, storage_options, stacks[0])
                return _file_projector(url, storage_options, stacks[0])
            except reading_errors():
                pass  # Damaged, or of another acquisition: look at the stacks themselves.
        return _patch_projector(url, storage_options, stacks, level) if thorough else None

    return choose


def _level_for(stacks: Sequence[Stack], overlap_px: int) -> int:
    """The coarsest level that all stacks have and that leaves enough of the overlap."""
    count = min(len(stack.levels) for stack in stacks)
    fitting = [
        level
        for level in range(count)
        if overlap_px / max(_factor(stacks[0], level)) >= _LEAST_OVERLAP_PX
    ]
    return fitting[-1] if fitting else 0


def _factor(stack: Stack, level: int) -> tuple[float, float]:
    finest, coarse = stack.levels[0].scale, stack.levels[level].scale
    return coarse[-2] / finest[-2], coarse[-1] / finest[-1]


def _mean_projector(url: str, storage_options: str, first: Stack, level: int) -> Projector:
    def mean(stack: Stack) -> Projection:
        box = tuple(slice(0, size) for size in stack.levels[level].shape)
        return _read_mean(url, storage_options, stack, level, box)

    height, width = first.levels[level].shape[-2:]
    return Projector(_factor(first, level), _part_of(mean), (height, width))


def _file_projector(url: str, storage_options: str, first: Stack) -> Projector:
    def content(stack: Stack) -> Projection:
        try:
            return _read_projection(url, storage_options, stack)
        except reading_errors():
            # Without any detail it adds nothing to the correlation.
            return np.zeros(stack.tile_shape, np.float32)

    return Projector((1.0, 1.0), _part_of(content), first.tile_shape)


def _part_of(whole: Callable[[Stack], Projection]) -> Callable[[Stack, slice, slice], Projection]:
    """Parts of what is read once for each stack."""
    known: dict[Stack, Projection] = {}

    def strip(stack: Stack, y: slice, x: slice) -> Projection:
        if stack not in known:
            known[stack] = whole(stack)
        return known[stack][y, x]

    return strip


def _read_projection(url: str, storage_options: str, stack: Stack) -> Projection:
    import tifffile

    data = read_beside(url, stack.projection_file or "", json.loads(storage_options))
    pixels: Projection = np.asarray(tifffile.imread(io.BytesIO(data)), dtype=np.float32)
    if pixels.shape != stack.tile_shape:
        raise ValueError(f"The projection of '{stack.group}' has the shape {pixels.shape}.")
    return pixels


def _patch_projector(
    url: str, storage_options: str, stacks: Sequence[Stack], level: int
) -> Projector:
    """A few planes at one height that all stacks share, within one chunk along z."""
    known: dict[tuple[Stack, int, int, int, int], Projection] = {}
    low = max(stack.z_low_um for stack in stacks)
    high = min(stack.z_low_um + (stack.planes_found - 1) * stack.z_step_um for stack in stacks)

    def strip(stack: Stack, y: slice, x: slice) -> Projection:
        key = (stack, y.start, y.stop, x.start, x.stop)
        if key not in known:
            z = _patch_planes(stack, level, (low + high) / 2 if low <= high else None)
            known[key] = _read_mean(url, storage_options, stack, level, (z, y, x))
        return known[key]

    finest = stacks[0].levels[level]
    chunk = (finest.chunks[-2], finest.chunks[-1])
    return Projector(_factor(stacks[0], level), strip, (finest.shape[-2], finest.shape[-1]), chunk)


def _patch_planes(stack: Stack, level: int, z_um: float | None) -> slice:
    where = stack.levels[level]
    planes, chunk = where.shape[0], where.chunks[0]
    plane = stack.planes_found // 2 if z_um is None else stack.plane_at(z_um)
    plane = min(planes - 1, round(plane * stack.levels[0].scale[0] / where.scale[0]))
    first = plane // chunk * chunk
    start = max(first, min(plane - _PATCH_PLANES // 2, first + chunk - _PATCH_PLANES))
    return slice(start, min(start + _PATCH_PLANES, first + chunk, planes))


def _read_mean(url: str, storage_options: str, stack: Stack, level: int, box: Box) -> Projection:
    """The mean along z of a box of a stack."""
    pixels = stack.read(url, storage_options, box, level)
    mean: Projection = pixels.mean(axis=0, dtype=np.float32)
    return mean
