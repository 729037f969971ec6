"""The map of the pairs of tiles: which neighbours show the same tissue alike, and which do not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck, Views
from fractal_mesospim_shading.views.drawing import png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

# Inches, at 100 dots each. A page of 500 px shows the figure at two thirds of its size.
_WIDTH = 7.5
_MARGIN = 0.25
_TITLE = 0.45
_BAR, _BAR_TOP, _BAR_HEIGHT = 0.95, 0.3, 0.15
_TALLEST = 9.0
_LARGEST_TILE = 1.5
# Height over width, below which panels lie one below the other.
_WIDE = 0.8
_WORDS = {"axes.titlesize": 13, "axes.labelsize": 13, "xtick.labelsize": 12}
# Points. A number takes as much room as the largest, at the least size that can be read.
_LARGEST_TEXT, _LEAST_TEXT = 13.0, 9.0
_WIDEST_LINE, _LEAST_LINE = 9.0, 2.5
_POINTS = 72.0
# Width of a digit and what is around a number, in the size of the text.
_DIGIT, _AROUND = 0.64, 0.7
# Of the side of a tile, or of the distance of two numbers.
_COVERED = 0.72
_TEXT_PART, _LINE_PART, _GAP = 0.32, 0.14, 0.04
# The scale ends at this difference at least, in %: less is as good as none.
_LEAST_SCALE = 1.0

Places = Mapping[int, tuple[float, float]]
"""Centre (y, x) of each tile, in tiles."""


def pair_map(check: OverlapCheck, layout: TileLayout) -> bytes:
    """Tiles with their numbers, and a line for each pair of them, as PNG.

    The colour of a line is what varies within the overlap of the pair, before and after on one
    scale. Pairs that could not be compared are dashed.

    Args:
        check: of one channel and side.
        layout: of the tiles.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width = layout.tile_shape
    places = {t.number: (t.y / height + 0.5, t.x / width + 0.5) for t in layout.tiles}
    panels = [("before", check.before)]
    if check.after is not None:
        panels.append(("after", check.after))
    size_y, size_x = (n / side for n, side in zip(layout.plane_shape, (height, width), strict=True))
    aspect = size_y * height / (size_x * width)
    # Wide mosaics below one another, others side by side.
    columns = len(panels) if aspect > _WIDE else 1
    rows = len(panels) // columns
    room = _WIDTH / columns - _MARGIN
    tile = min(room / size_x, _LARGEST_TILE, _TALLEST / (size_y * height / width))
    panel = (tile * size_x, tile * size_y * height / width)
    side = tile * min(1.0, height / width) * _POINTS
    total = rows * (panel[1] + _TITLE) + _BAR
    scale = ScalarMappable(Normalize(0, _end_of_scale(panels)), "viridis_r")

    def draw(figure: Figure) -> None:
        for number, (name, views) in enumerate(panels):
            row, column = divmod(number, columns)
            left = (column + 0.5) * _WIDTH / columns - panel[0] / 2
            below = total - (row + 1) * (panel[1] + _TITLE)
            axes = figure.add_axes(
                (left / _WIDTH, below / total, panel[0] / _WIDTH, panel[1] / total)
            )
            _tiles(axes, layout, places, side)
            _pairs(axes, places, check, views, scale, side)
            axes.set(title=name.capitalize(), xlim=(0, size_x), ylim=(size_y, 0))
            axes.axis("off")
        place = figure.add_axes((0.1, (_BAR - _BAR_TOP) / total, 0.8, _BAR_HEIGHT / total))
        bar = figure.colorbar(scale, cax=place, orientation="horizontal")
        bar.set_label("views of the same tissue differ in shape by (%)")
        bar.outline.set_visible(False)

    return png(draw, (_WIDTH, total), arranged=False, style=_WORDS)


def _end_of_scale(panels: Iterable[tuple[str, Views]]) -> float:
    """The largest difference of all pairs, in %."""
    shapes = [100 * pair.shape for _, views in panels for pair in views.pairs]
    return max([*(shape for shape in shapes if math.isfinite(shape)), _LEAST_SCALE])


def _tiles(axes: Axes, layout: TileLayout, places: Places, side: float) -> None:
    """The tiles, with as many of their numbers as have room."""
    from matplotlib.patches import Rectangle

    size = min(max(_TEXT_PART * side, _LEAST_TEXT), _LARGEST_TEXT)
    digits = len(str(max(places)))
    step = math.ceil((_DIGIT * digits + _AROUND) * size / (_COVERED * side))
    for tile in layout.tiles:
        y, x = places[tile.number]
        corner = (x - 0.5 + _GAP / 2, y - 0.5 + _GAP / 2)
        box = Rectangle(corner, 1 - _GAP, 1 - _GAP, facecolor="0.93", edgecolor="0.8", zorder=1)
        axes.add_patch(box)
        if tile.row % step == 0 and tile.column % step == 0:
            around = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": "0.6"}
            axes.text(
                x,
                y,
                str(tile.number),
                ha="center",
                va="center",
                fontsize=size,
                bbox=around,
                zorder=5,
            )


def _pairs(
    axes: Axes,
    places: Places,
    check: OverlapCheck,
    views: Views,
    scale: ScalarMappable,
    side: float,
) -> None:
    """A line for each pair; pale colours have a dark edge."""
    width = min(max(_LINE_PART * side, _LEAST_LINE), _WIDEST_LINE)
    for pair in check.rejected:
        y, x = zip(places[pair.first], places[pair.second], strict=True)
        axes.plot(x, y, color="0.55", linewidth=width / 3, linestyle=(0, (2, 1.5)), zorder=2)
    for measured in views.pairs:
        y, x = zip(places[measured.first], places[measured.second], strict=True)
        axes.plot(x, y, color="0.35", linewidth=width + 1.5, zorder=3, solid_capstyle="butt")
        colour = scale.to_rgba(np.array([100 * measured.shape]))[0]
        axes.plot(x, y, color=colour, linewidth=width, zorder=4, solid_capstyle="butt")
