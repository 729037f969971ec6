"""What a report shows of a channel, and its figures as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.views.drawing import (
    AFTER,
    BEFORE,
    colour_bar,
    contrast,
    drawable,
    legend_above,
    png,
    reduced,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Extent = tuple[float, float, float, float]
Facts = tuple[tuple[str, str], ...]
"""Name and value of what is known, as text, in the order in which it is shown."""


@dataclass(frozen=True)
class PlaneShown:
    """One plane of a mosaic before and after.

    Attributes:
        before, after: (y, x), the same level and plane of both.
        factor: by how much (y, x) have shrunk from full resolution.
        offset, output_offset: counts without light, before and after.
        number: of the plane along z, for the caption.
    """

    before: NDArray[Any]
    after: NDArray[Any]
    factor: tuple[int, int] = (1, 1)
    offset: float = 0.0
    output_offset: float = 0.0
    number: int = 0


@dataclass(frozen=True)
class ChannelReport:
    """What was done to one channel, or one illumination side of it.

    Attributes:
        label: of the model.
        profile: that was applied.
        layout: tiles at full resolution.
        pixel_mm: sides (y, x) of a pixel of full resolution.
        shown: a plane before and after; None where none is shown.
        facts: what is to be said: scenario, offset, planes used and rejected, what was measured.
        check: what the overlaps of the tiles say; None where it is not known how they lie.
    """

    label: str
    profile: ShadingProfile
    layout: TileLayout
    pixel_mm: tuple[float, float]
    shown: PlaneShown | None = None
    facts: Facts = ()
    check: OverlapCheck | None = None


def channel_figure(channel: ChannelReport) -> bytes:
    """All panels of one channel: the profile above, one plane before and after below."""
    shown = channel.shown

    def draw(figure: Figure) -> None:
        rows, columns = (1, 2) if shown is None else (2, 3)
        grid = figure.subplots(rows, columns, squeeze=False)
        _flatfield_panel(figure, grid[0, 0], channel)
        _sections_panel(grid[0, 1], channel)
        if shown is not None:
            _histogram_panel(grid[0, 2], shown)
            _plane_panels(figure, [grid[1, 0], grid[1, 1]], channel, shown)
            _mosaic_section_panel(grid[1, 2], channel, shown)

    aspect = _aspect([channel])
    if shown is None:
        return png(draw, (9.6, 0.8 + 3.4 * aspect))
    return png(draw, (14.5, 1.6 + 3.4 * (aspect + max(aspect, 0.8))))


def overview_figure(title: str, channels: Sequence[ChannelReport]) -> bytes:
    """One row for each channel: the flat-field, and one plane before and after where shown."""
    with_planes = any(channel.shown is not None for channel in channels)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(channels), 3 if with_planes else 1, squeeze=False)
        for axes, channel in zip(grid, channels, strict=True):
            _flatfield_panel(figure, axes[0], channel)
            if channel.shown is not None:
                _plane_panels(figure, [axes[1], axes[2]], channel, channel.shown)
            label = drawable(shortened(channel.label, 30))
            axes[0].set_title(f"{label}: flat-field", parse_math=False)
        most = 90 if with_planes else 40
        figure.suptitle(drawable(shortened(title, most)), fontsize=13, parse_math=False)

    height = 1.0 + 3.6 * _aspect(channels)
    return png(draw, (14.5 if with_planes else 6.0, 0.6 + height * len(channels)))


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


def _histogram_panel(axes: Axes, shown: PlaneShown) -> None:
    """How many pixels of the plane shown have which brightness, in steps of equal ratio."""
    planes = _above_offset(shown)
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


def _plane_panels(
    figure: Figure, axes: list[Axes], channel: ChannelReport, shown: PlaneShown
) -> None:
    """One plane before and after with the same contrast; ticks lie where tiles meet."""
    from matplotlib.colors import LogNorm

    planes = _above_offset(shown)
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
        title = f"{name.capitalize()} (plane {shown.number})"
        axis.set(title=title, xlabel="x (mm)", ylabel="y (mm)")
    colour_bar(figure, axis, picture, "counts above the offset (log.)")


def _mosaic_section_panel(axes: Axes, channel: ChannelReport, shown: PlaneShown) -> None:
    """Along x through the middle row of tiles: medians over the height of that row."""
    rows = sorted({tile.row for tile in channel.layout.tiles})
    middle = rows[len(rows) // 2]
    tile = next(t for t in channel.layout.tiles if t.row == middle)
    start, stop = (-(-tile.y // shown.factor[0]), tile.y + channel.layout.tile_shape[0])
    stop = max(stop // shown.factor[0], start + 1)
    scale_x = channel.pixel_mm[1]
    for plane, name, colour in _above_offset(shown):
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


def _above_offset(shown: PlaneShown) -> list[tuple[NDArray[np.float32], str, str]]:
    """The plane before and after without its offset, with name and colour; 0 stays 0."""
    planes = []
    for plane, offset, name, colour in (
        (shown.before, shown.offset, "before", BEFORE),
        (shown.after, shown.output_offset, "after", AFTER),
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
    ratios = [shape[0] / shape[1] for channel in channels for shape in _shapes(channel)]
    return min(max([*ratios, 0.5]), 2.0)


def _shapes(channel: ChannelReport) -> list[tuple[int, int]]:
    """Those of the pictures of a channel, in pixels."""
    tile = channel.layout.tile_shape
    return [tile] if channel.shown is None else [tile, channel.layout.plane_shape]


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
