"""How good a correction is, measured on the image itself: seams, flatness, lost pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection

Span = tuple[int, int]


@dataclass(frozen=True)
class ShadingQuality:
    """What a correction did to one channel. Fractions are 0 to 1; NaN is "not measured".

    Attributes:
        profile_low, profile_high: percentiles 1 and 99 of the flat-field (mean 1).
        seam_before, seam_after: see `seam_step`.
        flatness_before, flatness_after: see `flatness`.
        clipped: fraction of pixels whose result left the range of the type.
        saturated: fraction of raw pixels at the upper end of the type.
        no_data: fraction of raw pixels that were never acquired.
    """

    profile_low: float
    profile_high: float
    seam_before: float = float("nan")
    seam_after: float = float("nan")
    flatness_before: float = float("nan")
    flatness_after: float = float("nan")
    clipped: float = float("nan")
    saturated: float = float("nan")
    no_data: float = float("nan")

    @classmethod
    def measure(
        cls,
        profile: ShadingProfile,
        before: NDArray[Any],
        after: NDArray[Any],
        layout: TileLayout,
        *,
        offset: float = 0.0,
        output_offset: float = 0.0,
        factor: Span = (1, 1),
        counts: PixelCounts | None = None,
    ) -> ShadingQuality:
        """Compare planes before and after a correction.

        Args:
            profile: of the channel.
            before, after: the same planes, (y, x) or (n, y, x), at any pyramid level.
            layout: tiles at full resolution.
            offset, output_offset: counts without light, before and after.
            factor: by how much y and x have shrunk from full resolution to these planes.
            counts: of the whole image, where the correction has counted them.
        """
        low, high = np.percentile(profile.flatfield, (1, 99))
        fractions: tuple[float, ...] = ()
        if counts is not None:
            clipped = counts.clipped_low + counts.clipped_high
            parts = (clipped, counts.saturated, counts.no_data)
            fractions = tuple(part / max(counts.pixels, 1) for part in parts)
        both = ((before, offset), (after, output_offset))
        steps = [seam_step(planes, layout, dark, factor=factor) for planes, dark in both]
        unevenness = [flatness(planes, layout, dark, factor=factor) for planes, dark in both]
        return cls(float(low), float(high), *steps, *unevenness, *fractions)

    @property
    def seam_text(self) -> str | None:
        """The seam step before and after; None where there is no seam with light before."""
        if not np.isfinite(self.seam_before):
            return None
        if not np.isfinite(self.seam_after):
            return f"{_percent(self.seam_before)} before; nothing is left to measure after"
        return f"{_percent(self.seam_before)} before, {_percent(self.seam_after)} after"

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Name and value of everything that was measured, as text."""
        spans = (
            ("Step across tile seams", self.seam_before, self.seam_after),
            ("Unevenness of the mean tile", self.flatness_before, self.flatness_after),
        )
        fractions = (
            ("Pixels clipped", self.clipped),
            ("Pixels saturated in the source", self.saturated),
            ("Pixels never acquired", self.no_data),
        )
        profile = f"{self.profile_low:.2f} to {self.profile_high:.2f}"
        return (
            ("Profile, 1st to 99th percentile", profile),
            *(
                (n, f"{b:.1%} before, {a:.1%} after")
                for n, b, a in spans
                if np.isfinite([b, a]).all()
            ),
            *((name, _fraction_text(part)) for name, part in fractions if np.isfinite(part)),
        )


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
    stack = _stack(planes)
    for first, second, across in _touching(layout):
        along = 1 - across
        spans_a, spans_b = _spans(first, layout, factor), _spans(second, layout, factor)
        end, start = spans_a[across][1], spans_b[across][0]
        low = max(spans_a[along][0], spans_b[along][0])
        high = min(spans_a[along][1], spans_b[along][1])
        reach = min(depth, end - spans_a[across][0], spans_b[across][1] - start)
        if reach < 1 or high <= low:
            continue
        n_boxes = max((high - low) // length, 1)
        boxes = tuple(_pairs(np.linspace(low, high, n_boxes + 1).astype(int)))
        depths = ((end - reach, end), (start, start + reach))
        means = [_box_means(stack, across, side, boxes) - offset for side in depths]
        yield Seam((first, second), across, depths, boxes, means[0], means[1])


def flatness(
    planes: NDArray[Any],
    layout: TileLayout,
    offset: float = 0.0,
    *,
    factor: Span = (1, 1),
    cells: int = 8,
) -> float:
    """How uneven the tiles are on average: 0 for no shading left.

    Each tile is cut into cells, and the median of each cell divided by that of the tile.
    The median over all tiles and planes leaves what they have in common, and the result
    is its root mean square deviation from 1. The sample does not cancel on few tiles.

    Args:
        planes: (y, x) or (n, y, x).
        layout: tiles at full resolution.
        offset: counts without light, subtracted first.
        factor: by how much y and x have shrunk from full resolution to these planes.
        cells: along each side of a tile.

    Returns:
        A relative deviation; NaN where no tile has light.
    """
    stack = _stack(planes)
    maps = []
    for tile in layout.tiles:
        (y0, y1), (x0, x1) = _spans(tile, layout, factor)
        rows = np.linspace(y0, y1, min(cells, max(y1 - y0, 1)) + 1).astype(int)
        columns = np.linspace(x0, x1, min(cells, max(x1 - x0, 1)) + 1).astype(int)
        for plane in stack:
            medians = np.array(
                [
                    [np.median(plane[a:b, c:d]) - offset for c, d in _pairs(columns) if d > c]
                    for a, b in _pairs(rows)
                    if b > a
                ]
            )
            typical = float(np.median(medians)) if medians.size else 0.0
            if typical > 0:
                maps.append(medians / typical)
    if not maps:
        return float("nan")
    common = np.median(np.stack(maps), axis=0)
    return float(np.sqrt(np.mean((common / common.mean() - 1) ** 2)))


def flattened(
    planes: NDArray[Any],
    layout: TileLayout,
    correction_of: Callable[[Tile], TileCorrection],
    *,
    factor: Span = (1, 1),
) -> NDArray[np.float64]:
    """Planes of any level without their shading, as these measures need them.

    Where the flat-field changes little within a coarse pixel, this is the mean of the corrected
    fine ones.

    Args:
        planes: (y, x) or (n, y, x), raw.
        layout: tiles at full resolution.
        correction_of: a tile; only its flat-field and dark-field are asked for.
        factor: by how much y and x have shrunk from full resolution to these planes.

    Returns:
        (n, y, x); coarse pixels that lie in no tile as a whole, and those of 0, are 0.
    """
    stack = _stack(planes)
    result = np.zeros_like(stack)
    for tile in layout.tiles:
        (y0, y1), (x0, x1) = _spans(tile, layout, factor)
        fine = (
            slice(y0 * factor[0] - tile.y, y1 * factor[0] - tile.y),
            slice(x0 * factor[1] - tile.x, x1 * factor[1] - tile.x),
        )
        correction = correction_of(tile)
        flat, dark = (
            np.broadcast_to(np.asarray(part, np.float64), layout.tile_shape)[fine]
            .reshape(y1 - y0, factor[0], x1 - x0, factor[1])
            .mean(axis=(1, 3))
            for part in (correction.divisor, correction.dark)
        )
        raw = stack[:, y0:y1, x0:x1]
        result[:, y0:y1, x0:x1] = np.where(raw == 0, 0, (raw - dark) / flat)
    return result


def _stack(planes: NDArray[Any]) -> NDArray[np.float64]:
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


def _spans(tile: Tile, layout: TileLayout, factor: Span) -> tuple[Span, Span]:
    """Coarse pixels (y, x) that lie wholly in a tile."""
    (fy, fx), (height, width) = factor, layout.tile_shape
    return (
        (-(-tile.y // fy), (tile.y + height) // fy),
        (-(-tile.x // fx), (tile.x + width) // fx),
    )


def _box_means(
    stack: NDArray[np.float64], across: int, depth: Span, boxes: Sequence[Span]
) -> NDArray[np.float64]:
    """Means of boxes along one side of a seam, NaN where one holds a pixel of 0."""
    if across == 1:
        strip = stack[:, :, depth[0] : depth[1]]
    else:
        strip = stack[:, depth[0] : depth[1]].swapaxes(1, 2)
    cut = [strip[:, start:stop] for start, stop in boxes]
    means = [np.where((box == 0).any(axis=(1, 2)), np.nan, box.mean(axis=(1, 2))) for box in cut]
    return np.stack(means, axis=1)


def _pairs(edges: NDArray[Any]) -> list[Span]:
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _fraction_text(fraction: float) -> str:
    if fraction == 0:
        return "none"
    return f"{fraction:.2%}" if fraction >= 1e-4 else f"{fraction * 1e6:.2g} in a million"
