"""What a report shows of an image, and its figures as PNG.

Matplotlib is used by its objects alone: no window, no backend chosen for the process of
the user, no figure left behind. The same content gives the same bytes.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile, resample
from fractal_mesospim_shading.core.threads import warnings_ignored
from fractal_mesospim_shading.engine.process import logs_quieted
from fractal_mesospim_shading.messages import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

BEFORE, AFTER, BACKGROUND = "#c8553d", "#1f6f8b", "#8a6d00"

_MOST_PIXELS = 800
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "nearest",
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.08,
}

Extent = tuple[float, float, float, float]
Facts = tuple[tuple[str, str], ...]
"""Name and value of what is known, as text, in the order in which it is shown."""


@dataclass(frozen=True)
class ChannelReport:
    """One channel of a corrected image.

    Attributes:
        label: of the channel.
        profile: that was applied.
        before, after: one plane of the mosaic, (y, x), the same level and plane of both.
        layout: tiles at full resolution.
        pixel_mm: sides (y, x) of a pixel of full resolution.
        factor: by how much (y, x) have shrunk from full resolution to the planes shown.
        offset, output_offset: counts without light, before and after.
        plane: which one along z is shown, for the caption.
        facts: what is to be said: scenario, offset, planes used and rejected, what was measured.
    """

    label: str
    profile: ShadingProfile
    before: NDArray[Any]
    after: NDArray[Any]
    layout: TileLayout
    pixel_mm: tuple[float, float]
    factor: tuple[int, int] = (1, 1)
    offset: float = 0.0
    output_offset: float = 0.0
    plane: int = 0
    facts: Facts = ()


def channel_figure(channel: ChannelReport) -> bytes:
    """All panels of one channel: the profile above, one plane before and after below."""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, 3, gridspec_kw={"height_ratios": [1, 1]})
        _flatfield_panel(figure, grid[0, 0], channel)
        _sections_panel(grid[0, 1], channel)
        _histogram_panel(grid[0, 2], channel)
        _plane_panels(figure, [grid[1, 0], grid[1, 1]], channel)
        _mosaic_section_panel(grid[1, 2], channel)

    return png(draw, (14.5, 1.6 + 3.4 * (_aspect([channel]) + max(_aspect([channel]), 0.8))))


def overview_figure(title: str, channels: Sequence[ChannelReport]) -> bytes:
    """One row for each channel: the flat-field, and one plane before and after."""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(channels), 3, squeeze=False)
        for axes, channel in zip(grid, channels, strict=True):
            _flatfield_panel(figure, axes[0], channel)
            _plane_panels(figure, [axes[1], axes[2]], channel)
            label = drawable(shortened(channel.label, 30))
            axes[0].set_title(f"{label}: flat-field", parse_math=False)
        figure.suptitle(drawable(shortened(title, 90)), fontsize=13, parse_math=False)

    height = 1.0 + 3.6 * _aspect(channels)
    return png(draw, (14.5, 0.6 + height * len(channels)))


def _flatfield_panel(figure: Figure, axes: Axes, channel: ChannelReport) -> None:
    flat = reduced(channel.profile.flatfield)
    low, high = float(flat.min()), float(flat.max())
    if high - low < 0.02:
        low, high = low - 0.01, high + 0.01
    extent = _extent_mm(channel, channel.layout.tile_shape)
    picture = axes.imshow(flat, cmap="viridis", vmin=low, vmax=high, extent=extent)
    levels = _round_levels(low, high)
    inner = levels[(levels > flat.min()) & (levels < flat.max())]
    if inner.size:
        y = (np.arange(flat.shape[0]) + 0.5) / flat.shape[0] * extent[2]
        x = (np.arange(flat.shape[1]) + 0.5) / flat.shape[1] * extent[1]
        lines = axes.contour(x, y, flat, levels=inner, colors="white", linewidths=0.8)
        axes.clabel(lines, fmt="%g", fontsize=8)
    colour_bar(figure, axes, picture, "relative brightness")
    axes.set(title="Flat-field of a tile (mean 1)", xlabel="x (mm)", ylabel="y (mm)")


def _sections_panel(axes: Axes, channel: ChannelReport) -> None:
    """Through the centre of the profile, as means over a fiftieth of the other side."""
    flat = np.asarray(channel.profile.flatfield, dtype=np.float64)
    for axis, name, colour in ((1, "along x", AFTER), (0, "along y", BEFORE)):
        lines = flat if axis == 1 else flat.T
        middle, half = lines.shape[0] // 2, max(lines.shape[0] // 100, 1)
        section = lines[max(middle - half, 0) : middle + half + 1].mean(axis=0)
        place = (np.arange(section.size) + 0.5) / section.size
        axes.plot(place, section, color=colour, linewidth=1.5, label=name)
    axes.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    axes.set(
        title="Flat-field through the centre",
        xlabel="place in the tile (0: first pixel, 1: last)",
        ylabel="relative brightness",
        xlim=(0, 1),
    )
    axes.legend(framealpha=0.8)


def _histogram_panel(axes: Axes, channel: ChannelReport) -> None:
    """How many pixels of the plane shown have which brightness, in steps of equal ratio."""
    planes = _above_offset(channel)
    positive = np.concatenate([plane[plane > 0] for plane, _, _ in planes])
    if positive.size:
        low, high = (float(v) for v in np.percentile(positive, (0.5, 99.9)))
        edges = np.geomspace(max(low, 1e-3), max(high, low * 1.1, 2e-3), 41)
        for plane, name, colour in planes:
            counts = np.histogram(plane, bins=edges)[0] / max(plane.size, 1)
            axes.stairs(counts * 100, edges, color=colour, linewidth=1.3, label=name)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(framealpha=0.8)
    axes.set(
        title="Brightness in the plane shown",
        xlabel="counts above the offset (logarithmic)",
        ylabel="% of all pixels",
        ylim=(0, None),
    )


def _plane_panels(figure: Figure, axes: list[Axes], channel: ChannelReport) -> None:
    """One plane before and after with the same contrast; ticks lie where tiles meet."""
    from matplotlib.colors import LogNorm

    planes = _above_offset(channel)
    low, high = contrast([plane for plane, _, _ in planes])
    # Logarithmic, over two decades at most: shading is a ratio and shows alike in the
    # medium and in the sample. Where all lies below the offset, there is nothing to show.
    high = max(high, 1e-3)
    low = max(low, high / 100)
    high = max(high, low * 1.1)
    extent = _extent_mm(channel, channel.layout.plane_shape)
    for axis, (plane, name, _) in zip(axes, planes, strict=True):
        visible = np.maximum(reduced(plane), low)
        norm = LogNorm(low, high, clip=True)
        picture = axis.imshow(visible, cmap="gray", norm=norm, extent=extent)
        _tile_ticks(axis, channel)
        title = f"{name.capitalize()} (plane {channel.plane})"
        axis.set(title=title, xlabel="x (mm)", ylabel="y (mm)")
    colour_bar(figure, axis, picture, "counts above the offset (log.)")


def _mosaic_section_panel(axes: Axes, channel: ChannelReport) -> None:
    """Along x through the middle row of tiles: medians over the height of that row."""
    rows = sorted({tile.row for tile in channel.layout.tiles})
    middle = rows[len(rows) // 2]
    tile = next(t for t in channel.layout.tiles if t.row == middle)
    start, stop = (-(-tile.y // channel.factor[0]), tile.y + channel.layout.tile_shape[0])
    stop = max(stop // channel.factor[0], start + 1)
    scale_x = channel.pixel_mm[1]
    for plane, name, colour in _above_offset(channel):
        section = np.median(plane[start:stop], axis=0)
        x = (np.arange(section.size) + 0.5) / section.size * channel.layout.plane_shape[1]
        axes.plot(x * scale_x, section, color=colour, linewidth=1.1, label=name)
    for edge in _edges(channel, 1):
        axes.axvline(edge * scale_x, color="0.8", linewidth=0.8, zorder=0)
    axes.set(
        title=f"Along x through row {middle + 1} of the tiles",
        xlabel="x (mm); grey lines: tile seams",
        ylabel="median, counts above the offset",
    )
    legend_above(axes, with_zero=True)


def _above_offset(channel: ChannelReport) -> list[tuple[NDArray[np.float32], str, str]]:
    """The plane before and after without its offset, with name and colour; 0 stays 0."""
    planes = []
    for plane, offset, name, colour in (
        (channel.before, channel.offset, "before", BEFORE),
        (channel.after, channel.output_offset, "after", AFTER),
    ):
        values = np.asarray(plane, dtype=np.float32)
        values = np.where(values == 0, values, values - np.float32(offset))
        planes.append((values, name, colour))
    return planes


def _extent_mm(channel: ChannelReport, shape: tuple[int, int]) -> Extent:
    """Edges of a picture of so many pixels (y, x) of full resolution, in millimetres."""
    return 0.0, shape[1] * channel.pixel_mm[1], shape[0] * channel.pixel_mm[0], 0.0


def _aspect(channels: Sequence[ChannelReport]) -> float:
    """The greatest height over width of the images shown, within reason for a page."""
    ratios = [
        shape[0] / shape[1]
        for channel in channels
        for shape in (channel.layout.tile_shape, channel.layout.plane_shape)
    ]
    return min(max([*ratios, 0.5]), 2.0)


def _edges(channel: ChannelReport, axis: int) -> list[int]:
    size = channel.layout.tile_shape[axis]
    starts = {(tile.y, tile.x)[axis] for tile in channel.layout.tiles}
    return sorted(starts | {start + size for start in starts})


def _tile_ticks(axes: Axes, channel: ChannelReport) -> None:
    for number, axis in enumerate((axes.yaxis, axes.xaxis)):
        edges = [edge * channel.pixel_mm[number] for edge in _edges(channel, number)]
        axis.set_ticks(edges, minor=True)
        axis.set_ticks(edges[:: max(-(-len(edges) // 7), 1)])
        axis.set_major_formatter("{x:.2f}")


def _round_levels(low: float, high: float) -> NDArray[np.float64]:
    """Round numbers between two limits, about seven of them."""
    least = (high - low) / 7
    decade = 10.0 ** np.floor(np.log10(least))
    step = next(s * decade for s in (1, 2, 5, 10) if s * decade >= least * 0.999)
    return np.asarray(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step)


def legend_above(axes: Axes, *, with_zero: bool = False) -> None:
    """A legend in one row over the lines; whether 0 must be on the y axis is the caller's."""
    axes.margins(x=0)
    bottom, top = axes.get_ylim()
    bottom = min(0.0, bottom) if with_zero else bottom
    axes.set_ylim(bottom, top + 0.15 * (top - bottom))
    axes.legend(loc="upper right", ncols=3, framealpha=0.8)


def colour_bar(figure: Figure, axes: Axes, picture: AxesImage, label: str) -> None:
    """A colour bar as high as the image beside it."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator

    bar = figure.colorbar(picture, cax=axes.inset_axes((1.03, 0.0, 0.045, 1.0)))
    if isinstance(picture.norm, LogNorm):
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.yaxis.set_minor_formatter("")
    bar.outline.set_visible(False)
    if label:
        bar.set_label(label)


def contrast(planes: list[NDArray[np.float32]]) -> tuple[float, float]:
    """Limits that show nearly all pixels of several planes; pixels of 0 do not count."""
    values = np.concatenate([reduced(plane).ravel() for plane in planes])
    values = values[np.isfinite(values) & (values != 0)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    return low, high if high > low else low + 1


def reduced(plane: NDArray[Any]) -> NDArray[np.float32]:
    """A plane for the screen, averaged where it has more pixels than that."""
    array = np.asarray(plane, dtype=np.float32)
    shape = tuple(min(n, _MOST_PIXELS) for n in array.shape)
    return array if shape == array.shape else resample(array, (shape[0], shape[1]))


def shortened(text: str, most: int) -> str:
    """A text of no more than so many letters, on one line, nothing hidden in it."""
    # No more is looked at: an escaped character is longer than the character.
    line = shown(text[: most + 1])
    return line if len(line) <= most else line[: most - 3] + "..."


def drawable(text: str) -> str:
    """A text for a figure: letters that the font lacks are question marks.

    Set it with `parse_math=False`: a dollar sign in it is a dollar sign.
    """
    return "".join(c if c == "\n" or _has_glyph(c) else "?" for c in text)


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    return bool(get_font(findfont("DejaVu Sans")).get_char_index(ord(character)))


_drawing = threading.Lock()
"""Settings of matplotlib are those of the process: one figure at a time."""


def png(draw: Callable[[Figure], None], size_inches: tuple[float, float]) -> bytes:
    """Draw a figure and give it as PNG; importing matplotlib waits until here."""
    # What matplotlib says of fonts, folders and odd proportions would mark a server's job.
    with _drawing, logs_quieted(logging.ERROR, "matplotlib"), warnings_ignored:
        import matplotlib
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # The user's own settings of matplotlib stay out of the figure, and as they were.
        with matplotlib.style.context("default"), matplotlib.rc_context(_STYLE):
            figure = Figure(figsize=size_inches, dpi=100, layout="constrained", facecolor="white")
            FigureCanvasAgg(figure)
            draw(figure)
            content = io.BytesIO()
            figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
