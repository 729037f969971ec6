"""The figures of a report: flat-fields on one scale, and how bright the medium is across seams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.core.profile_picture import draw_contours
from fractal_mesospim_shading.core.seams import MediumLine
from fractal_mesospim_shading.views.drawing import AFTER, BEFORE, drawable, png, shortened
from fractal_mesospim_shading.views.report_parts import ChannelReport, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Inches. A page of 500 px shows a figure at two thirds of its size.
_WIDTH = 5.5
_DOTS = 120
_TITLE, _AXIS, _LEFT, _RIGHT, _GAP = 0.3, 0.55, 0.7, 0.15, 0.12
_BAR, _BAR_ROOM = 0.14, 0.65
_LINE_HEIGHT = 1.7
_MOST_PIXELS = 220
# The scale of errors ends at so many % at least: less is none.
_LEAST_ERROR = 0.1
_WORDS = {"font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10}
# Okabe and Ito: told apart by colour-blind people.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


@dataclass(frozen=True)
class _Map:
    """A picture of a tile with its title."""

    title: str
    values: FloatArray
    pixel_mm: tuple[float, float]
    shape: tuple[int, int]


def flatfields_figure(channels: Sequence[ChannelReport]) -> bytes:
    """The flat-fields of all channels on one scale, with contours that follow no noise."""
    maps = [_map_of(own, own.profile) for own in channels if own.profile is not None]
    fields = [own.values for own in maps]
    low, high = min(float(f.min()) for f in fields), max(float(f.max()) for f in fields)
    if high - low < 0.02:
        low, high = low - 0.01, high + 0.01
    return _maps_figure(maps, "viridis", (low, high), "relative brightness (mean of the tile: 1)")


def truth_figure(channels: Sequence[ChannelReport]) -> bytes:
    """How far the flat-fields are from the true ones, in %."""
    maps = []
    for own in channels:
        if own.profile is None or own.truth is None:
            continue
        flat = own.profile.resampled(own.layout.tile_shape).flatfield
        error = 100 * (flat / np.asarray(own.truth, np.float64) - 1)
        maps.append(_Map(own.label, _small(error), own.pixel_mm, own.layout.tile_shape))
    ends = [float(np.percentile(np.abs(own.values), 99.5)) for own in maps]
    end = max(*ends, _LEAST_ERROR)
    return _maps_figure(maps, "PuOr", (-end, end), "estimate over truth, less 1 (%)", lines=False)


def sections_figure(channels: Sequence[ChannelReport]) -> bytes:
    """The flat-fields through the centre of the tile; the true ones are dashed."""
    known = [own for own in channels if own.profile is not None]

    def draw(figure: Figure) -> None:
        height = _LINE_HEIGHT + _TITLE + _AXIS
        for number, (axis, name) in enumerate(((1, "x"), (0, "y"))):
            axes = _place(figure, 2 * height, number * height + _TITLE, _LINE_HEIGHT)
            for own, colour in zip(known, cycle(_COLOURS), strict=False):
                tile, pixel = own.layout.tile_shape[axis], own.pixel_mm[axis]
                assert own.profile is not None  # noqa: S101 - filtered above
                label = drawable(shortened(own.label, 24))
                section = _section(own.profile.flatfield, axis)
                place = (np.arange(section.size) + 0.5) / section.size * tile * pixel
                axes.plot(place, section, color=colour, linewidth=1.6, label=label)
                if own.truth is not None:
                    true = _section(own.truth, axis)
                    at = (np.arange(true.size) + 0.5) / true.size * tile * pixel
                    axes.plot(at, true, color="black", linewidth=1, linestyle=(0, (3, 3)))
            axes.axhline(1, color="0.75", linewidth=0.8, zorder=0)
            axes.margins(x=0)
            axes.set_xlabel(f"{name} in the tile (mm)")
            axes.set_title(f"Along {name}, through the centre", loc="left")
            if len(known) <= len(_COLOURS):
                axes.legend(loc="lower center", framealpha=0.85, ncols=2, fontsize=9)

    return png(
        draw,
        (_WIDTH, 2 * (_LINE_HEIGHT + _TITLE + _AXIS)),
        arranged=False,
        dots=_DOTS,
        style=_WORDS,
    )


def medium_figure(lines: Sequence[MediumLine], channel: ChannelReport) -> bytes:
    """Brightness of the empty medium across the mosaic, on a scale that ends where it ends."""
    height = _LINE_HEIGHT + _TITLE + _AXIS

    def draw(figure: Figure) -> None:
        for number, line in enumerate(lines):
            axes = _place(figure, len(lines) * height, number * height + _TITLE, _LINE_HEIGHT)
            pixel, name = channel.pixel_mm[line.axis], "yx"[line.axis]
            for values, what, colour in (
                (line.before, "before", BEFORE),
                (line.after, "after", AFTER),
            ):
                axes.plot(line.place * pixel, values, color=colour, linewidth=1.4, label=what)
            for edge in _seams(channel, line.axis):
                axes.axvline(edge * pixel, color="0.7", linewidth=1, zorder=0)
            axes.margins(x=0)
            bottom, top = axes.get_ylim()
            axes.set_ylim(bottom, top + 0.3 * (top - bottom))
            axes.set_xlabel(f"{name} (mm); grey lines: where tiles meet")
            axes.set_title(f"Empty medium along {name}: counts above those at no light", loc="left")
            axes.legend(loc="upper right", framealpha=0.85, ncols=2, fontsize=9)

    return png(draw, (_WIDTH, len(lines) * height), arranged=False, dots=_DOTS, style=_WORDS)


def _maps_figure(
    maps: Sequence[_Map],
    colours: str,
    limits: tuple[float, float],
    label: str,
    *,
    lines: bool = True,
) -> bytes:
    """Pictures of a tile in two columns, with one colour bar below."""
    columns = min(len(maps), 2)
    rows = math.ceil(len(maps) / columns)
    width = (_WIDTH - 2 * _GAP - (columns - 1) * _GAP) / max(columns, 1)
    width = min(width, 3.6)
    aspect = max(own.shape[0] * own.pixel_mm[0] / (own.shape[1] * own.pixel_mm[1]) for own in maps)
    if aspect > 1.5:
        width *= 1.5 / aspect
    panel = width * aspect
    total = rows * (panel + _TITLE) + _BAR_ROOM
    left = (_WIDTH - columns * width - (columns - 1) * _GAP) / 2

    def draw(figure: Figure) -> None:
        import matplotlib
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        scale = ScalarMappable(Normalize(*limits), matplotlib.colormaps[colours])
        for number, own in enumerate(maps):
            row, column = divmod(number, columns)
            top = row * (panel + _TITLE) + _TITLE
            x = left + column * (width + _GAP)
            axes = figure.add_axes(
                (x / _WIDTH, 1 - (top + panel) / total, width / _WIDTH, panel / total)
            )
            _draw_map(axes, own, scale, lines=lines)
        bar = figure.add_axes(
            (0.12, (_BAR_ROOM - _BAR - 0.05) / total, 0.76, _BAR / total),
        )
        figure.colorbar(scale, cax=bar, orientation="horizontal", label=label).outline.set_visible(
            False
        )

    return png(draw, (_WIDTH, total), arranged=False, dots=_DOTS, style=_WORDS)


def _draw_map(axes: Axes, own: _Map, scale: ScalarMappable, *, lines: bool) -> None:
    low, high = scale.get_clim()
    colours: Colormap = scale.get_cmap()
    height, width = (n * mm for n, mm in zip(own.shape, own.pixel_mm, strict=True))
    extent = (0.0, width, height, 0.0)
    axes.imshow(own.values, cmap=colours, vmin=low, vmax=high, extent=extent, aspect="auto")
    axes.axis("off")
    title = drawable(shortened(own.title, 26))
    size = f"{width:.3g} x {height:.3g} mm"
    axes.set_title(f"{title} ({size})", parse_math=False, fontsize=9)
    if lines:
        draw_contours(axes, own.values, (height, width), (low, high))


def _map_of(own: ChannelReport, profile: ShadingProfile) -> _Map:
    return _Map(own.label, _small(profile.flatfield), own.pixel_mm, own.layout.tile_shape)


def _small(field: NDArray[np.floating]) -> FloatArray:  # type: ignore[type-arg]
    shape = tuple(min(n, _MOST_PIXELS) for n in field.shape)
    return resample(field, (shape[0], shape[1]))


def _section(field: FloatArray, axis: int) -> NDArray[np.float64]:
    """Through the centre, as a mean over a fiftieth of the other side."""
    lines = np.asarray(field if axis == 1 else field.T, dtype=np.float64)
    middle, half = lines.shape[0] // 2, max(lines.shape[0] // 100, 1)
    section: NDArray[np.float64] = lines[max(middle - half, 0) : middle + half + 1].mean(axis=0)
    return section


def _place(figure: Figure, total: float, top: float, height: float) -> Axes:
    """Axes as wide as the figure, so far below its top, in inches."""
    return figure.add_axes(
        (
            _LEFT / _WIDTH,
            1 - (top + height) / total,
            (_WIDTH - _LEFT - _RIGHT) / _WIDTH,
            height / total,
        )
    )


def _seams(channel: ChannelReport, axis: int) -> list[int]:
    """Where tiles begin along an axis, in pixels, without the edge of the mosaic."""
    starts = {(tile.y, tile.x)[axis] for tile in channel.layout.tiles}
    return sorted(starts - {min(starts)})
