"""The contact sheet: the mosaic with its tile numbers, and what of each tile is empty along z.

It is drawn from the window means that were looked at; nothing is read for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.regions import TileRegions
from fractal_mesospim_shading.flatfield.empty_planes import EmptyPlanes
from fractal_mesospim_shading.flatfield.sampling import plane_count
from fractal_mesospim_shading.views.drawing import drawable, png, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

EMPTY, SAMPLE, UNKNOWN = "#0072b2", "#e69f00", "#bbbbbb"
"""Colours that people tell apart whatever colours they see, by brightness as well."""

_WIDTH = 6.0
_STRIP, _STRIPS = 0.27, 54.0
"""Height of the strips of a tile, and of all tiles at most, in inches."""

_DOTS = 100
"""Pixels an inch."""

_CANVAS = 900
"""Pixels of the picture of the mosaic along its longer side, at least."""

_NUMBER_PX = 26
"""What a number of a tile takes on the screen, in pixels."""

_HEAD = 0.75
_MOST_LETTERS = 48

_LINES = 10
"""Of the picture of strips, for each tile: four of brightness, four of colours, white between."""

_MOST_LINES, _MOST_COLUMNS = 6000, 600
"""Of that picture: about what the screen shows."""


def contact_sheet(labels: Sequence[str], found: Sequence[EmptyPlanes]) -> bytes:
    """Draw channels below each other.

    Args:
        labels: of the channels and sides.
        found: what was looked at in each.

    Returns:
        A PNG, 600 pixels wide.
    """
    mosaics = [_mosaic_height(seen) for seen in found]
    heights = [
        _HEAD + mosaic + _HEAD + _strips_height(seen)
        for mosaic, seen in zip(mosaics, found, strict=True)
    ]

    def draw(figure: Figure) -> None:
        parts = figure.subfigures(len(found), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, label, seen, mosaic in zip(parts, labels, found, mosaics, strict=True):
            _draw_channel(part, label, seen, mosaic)

    return png(draw, (_WIDTH, sum(heights)), dots=_DOTS)


def _mosaic_height(seen: EmptyPlanes) -> float:
    height, width = seen.image.layout.plane_shape
    return min(max(_WIDTH * 0.8 * height / width, 1.2), 5.0)


def _strips_height(seen: EmptyPlanes) -> float:
    return min(_STRIP * len(seen.regions), _STRIPS)


def _draw_channel(part: SubFigure, label: str, seen: EmptyPlanes, mosaic: float) -> None:
    strips = _strips_height(seen) + 0.3
    upper, lower = part.subplots(2, 1, height_ratios=(mosaic, strips))
    part.suptitle(drawable(shortened(label, _MOST_LETTERS)), fontsize=13, parse_math=False)
    _draw_mosaic(upper, seen)
    _draw_strips(lower, seen)


def _draw_mosaic(axes: Axes, seen: EmptyPlanes) -> None:
    """The brightest of the planes looked at, each tile with its number and its state."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    layout = seen.image.layout
    tile_height, tile_width = layout.tile_shape
    picture = _mosaic_picture(seen)
    low, high = _contrast([picture])
    extent = (0, layout.plane_shape[1], layout.plane_shape[0], 0)
    axes.set_facecolor("white")
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, extent=extent)
    pitch_px = 0.8 * _WIDTH * _DOTS / max(layout.columns, layout.rows, 1)
    every = max(1, ceil(_NUMBER_PX / pitch_px))
    inset = 0.03 * min(tile_height, tile_width)
    frames = []
    for region in seen.regions:
        tile = layout.tile(region.tile)
        frames.append(
            Rectangle(
                (tile.x + inset, tile.y + inset),
                tile_width - 2 * inset,
                tile_height - 2 * inset,
                fill=False,
                edgecolor=_colour(region),
                linewidth=min(2.5, pitch_px / 10),
                linestyle="-" if region.whole else "--",
            )
        )
        if tile.row % every or tile.column % every:
            continue
        size = min(13.0, 90.0 / max(layout.columns, 1) + 4)
        text = f"{region.tile}" if layout.columns > 8 else f"{region.tile}\n{_percent(region)}"
        axes.text(
            tile.x + tile_width / 2,
            tile.y + tile_height / 2,
            text,
            color="black",
            ha="center",
            va="center",
            fontsize=size,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.add_collection(PatchCollection(frames, match_original=True))
    axes.set_xlim(0, layout.plane_shape[1])
    axes.set_ylim(layout.plane_shape[0], 0)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title("tiles: number, share of empty planes (dashed: not all are)", fontsize=11)


def _draw_strips(axes: Axes, seen: EmptyPlanes) -> None:
    """Along z the planes of each tile: brightness above, what is empty below."""
    from matplotlib.patches import Patch

    rows = len(seen.regions)
    depth = max(region.planes[1] for region in seen.regions)
    # No more than can be seen, in bytes: of many deep stacks it would be gigabytes.
    planes = _evenly(depth, _MOST_COLUMNS)
    columns = len(planes)
    brightness = np.empty((rows, columns))
    painted = np.full((rows, _LINES, columns, 4), 255, np.uint8)
    for row, region in enumerate(seen.regions):
        own, colours = _strip(seen, region, depth)
        brightness[row] = own[planes]
        painted[row, 5:9] = np.round(255 * colours[planes])
    painted[:, 1:5] = _in_grey(brightness, *_contrast([brightness]))[:, None]
    lines = painted.reshape(-1, columns, 4)
    shown = lines[_evenly(len(lines), _MOST_LINES)]
    axes.imshow(shown, aspect="auto", extent=(0, depth, rows, 0))
    axes.set_xlim(0, depth)
    axes.set_ylim(rows, 0)
    every = max(1, -(-rows // 40))
    places = range(0, rows, every)
    axes.set_yticks([row + 0.5 for row in places], [f"{seen.regions[row].tile}" for row in places])
    axes.tick_params(left=False)
    axes.set_xlabel("plane along z")
    axes.set_ylabel("tile")
    handles = [
        Patch(color=colour, label=name)
        for colour, name in (
            (EMPTY, "empty"),
            (SAMPLE, "not surely empty"),
            (UNKNOWN, "not looked at"),
        )
    ]
    axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False
    )


def _evenly(size: int, most: int) -> NDArray[np.int64]:
    """So many indices below a size at most, in order."""
    count = min(size, most)
    return np.arange(count) * size // count


def _mosaic_picture(seen: EmptyPlanes) -> NDArray[np.float64]:
    """The tiles on a canvas that is about as fine as the screen; NaN where there is none."""
    layout = seen.image.layout
    scale = max(1.0, max(layout.plane_shape) / _CANVAS)
    height, width = (ceil(n / scale) for n in layout.plane_shape)
    canvas = np.full((height, width), np.nan)
    for region in seen.regions:
        tile, picture = layout.tile(region.tile), _tile_picture(seen, region.tile)
        spans = [
            range(round(start / scale), max(round((start + n) / scale), round(start / scale) + 1))
            for start, n in zip((tile.y, tile.x), layout.tile_shape, strict=True)
        ]
        y, x = (
            np.arange(len(span)) * n // len(span)
            for span, n in zip(spans, picture.shape, strict=True)
        )
        (top, *_), (left, *_) = spans
        part = canvas[top : top + len(y), left : left + len(x)]
        part[...] = picture[np.ix_(y, x)][: part.shape[0], : part.shape[1]]
    return canvas


def _in_grey(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Colours (..., 4) of values from black to white; nothing where there is none."""
    known = np.isfinite(values)
    level = np.clip((np.where(known, values, high) - low) / (high - low), 0, 1)
    grey = np.round(255 * level).astype(np.uint8)
    return np.stack([grey, grey, grey, np.where(known, 255, 0).astype(np.uint8)], axis=-1)


def _tile_picture(seen: EmptyPlanes, tile: int) -> NDArray[np.float64]:
    """The brightest light of each place of a tile over all planes looked at."""
    if seen.windows is None:
        return np.zeros((1, 1))
    own = seen.windows.means[0][seen.windows.tile == tile]
    side_y, side_x = seen.windows.grid
    known = np.isfinite(own)
    brightest = np.where(known, own, -np.inf).max(axis=0)
    picture: NDArray[np.float64] = np.where(known.any(axis=0), brightest, np.nan)
    return picture.reshape(side_y, side_x)


def _contrast(pictures: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    values = np.concatenate([picture.ravel() for picture in pictures])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (1, 97)))
    return low, high if high > low else low + 1


def _strip(
    seen: EmptyPlanes, region: TileRegions, depth: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Brightness (depth) and colours (depth, 4) of the planes of a tile."""
    from matplotlib.colors import to_rgba

    brightness = np.full(depth, np.nan)
    colours = np.zeros((depth, 4))
    colours[region.planes[0] : region.planes[1]] = to_rgba(UNKNOWN)
    if seen.windows is None or seen.decision is None:
        return brightness, colours
    n_z = plane_count(seen.image, seen.level)
    for k in np.flatnonzero(seen.windows.tile == region.tile):
        z = int(seen.windows.plane[k]) % n_z
        if not seen.decision.known[k]:
            continue
        brightness[z] = float(np.nanmax(seen.windows.means[0][k]))
        colours[z] = to_rgba(EMPTY if seen.decision.empty[k] else SAMPLE)
    return brightness, colours


def _colour(region: TileRegions) -> str:
    if not region.looked_at:
        return UNKNOWN
    return EMPTY if region.ranges else SAMPLE


def _percent(region: TileRegions) -> str:
    return f"{100 * region.share:.0f} %" if region.looked_at else ""
