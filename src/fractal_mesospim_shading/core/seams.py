"""Where tiles meet: what both sides of a seam show, and by how much they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile, TileLayout

Span = tuple[int, int]

# Boxes at seams up to this multiple of the dimmest ones, this part of all, are empty medium.
_MEDIUM = 1.5
_DIMMEST = 0.1
# Boxes of medium that a line crosses at least.
_LEAST_BOXES = 2
# Boxes that are cut out at a time: of planes as they are looked at, a few megabytes.
_TOGETHER = 2048


def seam_step(
    planes: NDArray[Any],
    layout: TileLayout,
    offset: float = 0.0,
    *,
    factor: Span = (1, 1),
    depth: int = 4,
    length: int = 16,
) -> float:
    """The typical jump of brightness where two tiles meet, relative to the brightness there.

    Along every seam, means `a` and `b` of the boxes on both sides are compared; the result
    is the median of `2 |a - b| / (a + b)` over all boxes. Half of the seam may thus be
    crossed by edges of the sample without changing it much.

    Args:
        planes: (y, x) or (n, y, x); several planes or a coarser level lower the noise,
            which adds to the result: boxes whose mean is known to 1 % give 1 % without any
            step.
        layout: tiles at full resolution; only tiles that touch have a seam.
        offset: counts without light, subtracted first. Too large a value raises the result.
        factor: by how much y and x have shrunk from full resolution to these planes.
            A coarse pixel that lies on a seam belongs to neither side.
        depth: of a box across the seam, in pixels of these planes; larger values take
            gradients of the sample for a step.
        length: of a box along the seam.

    Returns:
        0 for no step; NaN where there is no seam with light on both sides. Boxes that hold
        a pixel of 0 (nothing acquired) or no light are left out.
    """
    steps = [np.zeros(0)]
    for seam in seams(planes, layout, offset, factor=factor, depth=depth, length=length):
        a, b = seam.first, seam.second
        lit = (a > 0) & (b > 0)
        steps.append(2 * np.abs(a[lit] - b[lit]) / (a[lit] + b[lit]))
    every = np.concatenate(steps)
    return float(np.median(every)) if every.size else float("nan")


def medium_steps(
    before: NDArray[Any], after: NDArray[Any], layout: TileLayout, *, factor: Span = (1, 1)
) -> tuple[float, float]:
    """The typical jump at the seams in empty medium, before and after a correction.

    Two tiles that meet show different tissue, but the same medium. What noise adds is taken off,
    by what neighbouring boxes along a seam differ. It says less than overlaps: nothing of a wrong
    offset, for counts that are no light lie under both sides alike.

    Args:
        before, after: (y, x) light of the same pixels, without the offset.
        layout: tiles at full resolution.
        factor: by how much y and x have shrunk from full resolution to these pixels.

    Returns:
        A fraction of the brightness each; NaN where no seam lies in medium. Medium is what is no
        brighter after the correction than 1.5 times the dimmest boxes.
    """
    pairs = [list(seams(light, layout, factor=factor)) for light in (before, after)]
    corrected = [np.minimum(seam.first, seam.second)[0] for seam in pairs[1]]
    lit = [np.concatenate([c[c > 0] for c in corrected]) if corrected else np.zeros(0)]
    if not lit[0].size:
        return float("nan"), float("nan")
    limit = _MEDIUM * float(np.quantile(lit[0], _DIMMEST))
    empty = [
        (np.fmin(seam.first, seam.second)[0] > 0) & (np.fmax(seam.first, seam.second)[0] <= limit)
        for seam in pairs[1]
    ]
    first, second = (_step_in(some, empty) for some in pairs)
    return first, second


@dataclass(frozen=True)
class MediumLine:
    """How bright empty medium is from one edge of a mosaic to the other.

    Attributes:
        axis: 0 for a line along y, 1 for x.
        place: of each value, in pixels of full resolution.
        before, after: light; NaN where too little medium was found.
    """

    axis: int
    place: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def medium_lines(
    before: NDArray[Any],
    after: NDArray[Any],
    layout: TileLayout,
    *,
    factor: Span = (1, 1),
    box: int = 8,
) -> tuple[MediumLine, ...]:
    """Brightness of the medium along x and along y, before and after a correction.

    Medium is what is no brighter after the correction than 1.5 times the dimmest part, as for
    `medium_steps`; a value is the median of all medium that a line crosses.

    Args:
        before, after: (y, x) light of the same pixels, without the offset; 0 for no data.
        layout: tiles at full resolution.
        factor: by how much y and x have shrunk from full resolution to these pixels.
        box: pixels across a line that are taken together, against noise.

    Returns:
        A line along each axis along which tiles meet; none where there is no light.
    """
    lines = []
    for axis in (1, 0):
        if len({(tile.y, tile.x)[axis] for tile in layout.tiles}) < 2:
            continue
        means = [_boxes_across(light, 1 - axis, box) for light in (before, after)]
        lit = np.isfinite(means[1]) & (np.nan_to_num(means[1]) > 0)
        if not lit.any():
            continue
        limit = _MEDIUM * float(np.quantile(means[1][lit], _DIMMEST))
        medium = lit & (np.nan_to_num(means[1]) <= limit)
        enough = medium.sum(axis=0) >= min(_LEAST_BOXES, len(medium))
        values = []
        for mean in means:
            line = np.full(mean.shape[1], np.nan)
            chosen = np.where(medium, mean, np.nan)[:, enough]
            line[enough] = np.nanmedian(chosen, axis=0) if enough.any() else line[enough]
            values.append(line)
        place = (np.arange(means[0].shape[1]) + 0.5) * factor[axis]
        lines.append(MediumLine(axis, place, values[0], values[1]))
    return tuple(lines)


def _boxes_across(light: NDArray[Any], axis: int, box: int) -> NDArray[np.float64]:
    """(boxes, n) means over so many pixels along an axis; NaN where one is 0."""
    moved = np.moveaxis(np.asarray(light, dtype=np.float64), axis, 0)
    number = max(moved.shape[0] // box, 1)
    cut = moved[: number * box].reshape(number, -1, moved.shape[1])
    means: NDArray[np.float64] = np.where((cut == 0).any(axis=1), np.nan, cut.mean(axis=1))
    return means


def _step_in(some: Sequence[Seam], empty: Sequence[NDArray[np.bool_]]) -> float:
    """Median step in the boxes that are empty, without noise; NaN for no box."""
    steps, bends = [np.zeros(0)], [np.zeros(0)]
    for seam, chosen in zip(some, empty, strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            step = 2 * (seam.first[0] - seam.second[0]) / (seam.first[0] + seam.second[0])
        step = np.where(chosen, step, np.nan)
        steps.append(step[np.isfinite(step)])
        bend = np.diff(step, 2)
        bends.append(bend[np.isfinite(bend)])
    every, bent = np.concatenate(steps), np.concatenate(bends)
    if not every.size:
        return float("nan")
    noise = float(np.median(bent**2)) / 6 if bent.size else 0.0
    return float(np.sqrt(max(float(np.median(np.abs(every))) ** 2 - noise, 0.0)))


@dataclass(frozen=True)
class Seam:
    """Boxes on both sides of a seam.

    Attributes:
        tiles: the two that meet.
        across: the axis across the seam, 0 for y.
        depths: span of the boxes of either side across the seam, in pixels of the planes.
        boxes: span of each box along the seam.
        first, second: (n, boxes) means above the offset; NaN where a box holds a pixel of 0.
    """

    tiles: tuple[Tile, Tile]
    across: int
    depths: tuple[Span, Span]
    boxes: tuple[Span, ...]
    first: NDArray[np.float64]
    second: NDArray[np.float64]


def seams(
    planes: NDArray[Any],
    layout: TileLayout,
    offset: float = 0.0,
    *,
    factor: Span = (1, 1),
    depth: int = 4,
    length: int = 16,
) -> Iterator[Seam]:
    """The seams of some planes; arguments as for `seam_step`."""
    # Only what lies at seams becomes float64: all of it takes longer than everything else here.
    stack = planes.reshape(-1, *planes.shape[-2:])
    places = list(_places(layout, factor, depth, length))
    means = _means_of(stack, [box for place in places for box in place.corners()]) - offset
    begin = 0
    for place in places:
        middle, end = (begin + sides * len(place.boxes) for sides in (1, 2))
        yield place.seam(means[:, begin:middle], means[:, middle:end])
        begin = end


@dataclass(frozen=True)
class _Place:
    """Where the boxes of a seam lie; attributes as of `Seam`."""

    tiles: tuple[Tile, Tile]
    across: int
    depths: tuple[Span, Span]
    boxes: tuple[Span, ...]

    def corners(self) -> Iterator[tuple[int, int, int, int]]:
        """First row and column, height and width of each box, one side after the other."""
        for start, stop in self.depths:
            for low, high in self.boxes:
                if self.across:
                    yield low, start, high - low, stop - start
                else:
                    yield start, low, stop - start, high - low

    def seam(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> Seam:
        """The same with the means of its boxes."""
        return Seam(self.tiles, self.across, self.depths, self.boxes, first, second)


def _places(layout: TileLayout, factor: Span, depth: int, length: int) -> Iterator[_Place]:
    """Where the seams lie; arguments as for `seam_step`."""
    for first, second, across in _touching(layout):
        along = 1 - across
        spans_a, spans_b = coarse_spans(first, layout, factor), coarse_spans(second, layout, factor)
        end, start = spans_a[across][1], spans_b[across][0]
        low = max(spans_a[along][0], spans_b[along][0])
        high = min(spans_a[along][1], spans_b[along][1])
        reach = min(depth, end - spans_a[across][0], spans_b[across][1] - start)
        if reach < 1 or high <= low:
            continue
        depths = ((end - reach, end), (start, start + reach))
        yield _Place((first, second), across, depths, _boxes_along(low, high, length))


@lru_cache(maxsize=4096)
def _boxes_along(low: int, high: int, length: int) -> tuple[Span, ...]:
    """Boxes of about a length between two places; the seams of a row of tiles share them."""
    number = max((high - low) // length, 1)
    return tuple(spans_between(np.linspace(low, high, number + 1).astype(int)))


def medians_of_runs(
    values: NDArray[np.float64], firsts: NDArray[Any], ends: NDArray[Any]
) -> NDArray[np.float64]:
    """(runs,) median of the finite values in each run of boxes; NaN where there is none.

    Args:
        values: (n, boxes).
        firsts, ends: first and last + 1 box of each run.
    """
    if not len(firsts):
        return np.zeros(0)
    members = firsts[:, None] + np.arange(int(np.max(ends - firsts)))
    inside = members < ends[:, None]
    chosen = values[:, np.minimum(members, values.shape[1] - 1)]
    flat = np.where(inside, chosen, np.nan).transpose(1, 0, 2).reshape(len(firsts), -1)
    number = np.isfinite(flat).sum(axis=1)
    # What is not finite is sorted to the end.
    ranked, rows = np.sort(flat, axis=1), np.arange(len(firsts))
    middle = (ranked[rows, np.maximum(number - 1, 0) // 2] + ranked[rows, number // 2]) / 2
    return np.asarray(np.where(number > 0, middle, np.nan))


def as_stack(planes: NDArray[Any]) -> NDArray[np.float64]:
    """Planes (n, y, x) of one plane or several."""
    array = np.asarray(planes, dtype=np.float64)
    return array.reshape(-1, *array.shape[-2:])


def _touching(layout: TileLayout) -> Iterator[tuple[Tile, Tile, int]]:
    """Pairs of tiles that share a seam, and the axis across it (0 is y)."""
    height, width = layout.tile_shape
    at = {(tile.row, tile.column): tile for tile in layout.tiles}
    for (row, column), tile in sorted(at.items()):
        below, right = at.get((row + 1, column)), at.get((row, column + 1))
        if below is not None and below.y == tile.y + height:
            yield tile, below, 0
        if right is not None and right.x == tile.x + width:
            yield tile, right, 1


def coarse_spans(tile: Tile, layout: TileLayout, factor: Span) -> tuple[Span, Span]:
    """Coarse pixels (y, x) that lie wholly in a tile."""
    (fy, fx), (height, width) = factor, layout.tile_shape
    return (
        (-(-tile.y // fy), (tile.y + height) // fy),
        (-(-tile.x // fx), (tile.x + width) // fx),
    )


def _means_of(
    stack: NDArray[Any], boxes: Sequence[tuple[int, int, int, int]]
) -> NDArray[np.float64]:
    """(n, boxes) means of the boxes of each plane, NaN where one holds a pixel of 0.

    Boxes of one shape are cut out many at a time: one by one, a mosaic of many tiles takes most
    of a correction's time.

    Args:
        stack: (n, y, x).
        boxes: first row and column, height and width of each.
    """
    means = np.full((len(stack), len(boxes)), np.nan)
    every = np.array(boxes, np.int64).reshape(-1, 4)
    shapes, shape_of = np.unique(every[:, 2:], axis=0, return_inverse=True)
    for number, shape in enumerate(shapes):
        own = np.flatnonzero(shape_of.ravel() == number)
        windows = sliding_window_view(stack, (1, *shape))[:, :, :, 0]
        for some in np.array_split(own, -(-len(own) // _TOGETHER)):
            cut = windows[:, every[some, 0], every[some, 1]].astype(np.float64)
            lit = (cut != 0).all(axis=(2, 3))
            means[:, some] = np.where(lit, cut.mean(axis=(2, 3)), np.nan)
    return means


def spans_between(edges: NDArray[Any]) -> list[Span]:
    """From each edge to the next."""
    return [(int(a), int(b)) for a, b in pairwise(edges)]
