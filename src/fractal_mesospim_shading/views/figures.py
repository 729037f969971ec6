"""The figures of a report, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.views.canvas import (
    colour_bar,
    contrast,
    drawable,
    png,
    reduced,
    shortened,
)
from fractal_mesospim_shading.views.content import ChannelReport, ImageReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE, AFTER, BACKGROUND = "#c8553d", "#1f6f8b", "#8a6d00"


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


def overview_figure(report: ImageReport) -> bytes:
    """One row for each channel: the flat-field, and one plane before and after."""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(report.channels), 3, squeeze=False)
        for axes, channel in zip(grid, report.channels, strict=True):
            _flatfield_panel(figure, axes[0], channel)
            _plane_panels(figure, [axes[1], axes[2]], channel)
            label = drawable(shortened(channel.label, 30))
            axes[0].set_title(f"{label}: flat-field", parse_math=False)
        title = drawable(shortened(report.title, 90))
        figure.suptitle(title, fontsize=13, parse_math=False)

    height = 1.0 + 3.6 * _aspect(report.channels)
    return png(draw, (14.5, 0.6 + height * len(report.channels)))


def background_preview(
    image: NDArray[Any],
    methods: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    pixel_size_um: float | None = None,
    row: int | None = None,
    note: str = "",
) -> bytes:
    """Compare background methods on one plane: a row for each method.

    Args:
        image: (y, x), the plane as it is.
        methods: name to (background, result), each of the shape of the image.
        pixel_size_um: along x; None counts pixels.
        row: of the line profile; None takes the one through the brightest part.
        note: below the rows.

    Returns:
        A PNG: image, background and result with the same contrast, and a line profile.
    """
    chosen = _brightest_row(image) if row is None else row
    low, high = contrast([np.asarray(image, dtype=np.float32)])
    scale, unit = (1.0, "pixels") if pixel_size_um is None else (pixel_size_um, "micrometers")

    def draw(figure: Figure) -> None:
        ratios = {"width_ratios": [1, 1, 1, 1.5]}
        grid = figure.subplots(len(methods), 4, squeeze=False, gridspec_kw=ratios)
        for axes, (name, (background, result)) in zip(grid, methods.items(), strict=True):
            titles = ("image", f"{drawable(shortened(name, 38))}\nbackground", "result")
            for axis, title, plane in zip(axes, titles, (image, background, result), strict=False):
                limits = (low, high) if title != "result" else (0.0, high - low)
                extent = (0.0, image.shape[1] * scale, image.shape[0] * scale, 0.0)
                shown = axis.imshow(
                    reduced(plane), cmap="gray", vmin=limits[0], vmax=limits[1], extent=extent
                )
                axis.axhline((chosen + 0.5) * scale, color=BEFORE, linewidth=0.8, linestyle="--")
                axis.set_title(title, parse_math=False)
                axis.set_xlabel(unit)
                colour_bar(figure, axis, shown, "counts" if title == "result" else "")
            x = (np.arange(image.shape[1]) + 0.5) * scale
            lines = (
                ("image", image, BEFORE, 0.9),
                ("background", background, BACKGROUND, 1.6),
                ("result", result, AFTER, 0.9),
            )
            for label, plane, colour, width in lines:
                axes[3].plot(x, plane[chosen], color=colour, linewidth=width, label=label)
            axes[3].axhline(0, color="0.7", linewidth=0.7, zorder=0)
            axes[3].set(title="along the dashed line", xlabel=unit, ylabel="counts")
            axes[3].margins(x=0)
            bottom, top = axes[3].get_ylim()
            axes[3].set_ylim(bottom, top + 0.15 * (top - bottom))
            axes[3].legend(loc="upper right", ncols=3, framealpha=0.8)

        if note:
            figure.supxlabel(drawable(note), fontsize=10, parse_math=False)

    aspect = min(max(image.shape[0] / image.shape[1], 0.6), 2.0)
    return png(draw, (15.5, 0.2 + (0.9 + 2.9 * aspect) * len(methods)))


def _flatfield_panel(figure: Figure, axes: Axes, channel: ChannelReport) -> None:
    flat = reduced(channel.profile.flatfield)
    low, high = float(flat.min()), float(flat.max())
    if high - low < 0.02:
        low, high = low - 0.01, high + 0.01
    height, width = channel.layout.tile_shape
    scale_y, scale_x, unit = _scales(channel)
    extent = (0.0, width * scale_x, height * scale_y, 0.0)
    shown = axes.imshow(flat, cmap="viridis", vmin=low, vmax=high, extent=extent)
    levels = _round_levels(low, high)
    inner = levels[(levels > flat.min()) & (levels < flat.max())]
    if inner.size:
        y = (np.arange(flat.shape[0]) + 0.5) / flat.shape[0] * height * scale_y
        x = (np.arange(flat.shape[1]) + 0.5) / flat.shape[1] * width * scale_x
        lines = axes.contour(x, y, flat, levels=inner, colors="white", linewidths=0.8)
        axes.clabel(lines, fmt="%g", fontsize=8)
    colour_bar(figure, axes, shown, "relative brightness")
    axes.set(title="Flat-field of a tile (mean 1)", xlabel=f"x ({unit})", ylabel=f"y ({unit})")


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
    planes = [np.ravel(plane) for plane in _above_offset(channel)]
    positive = np.concatenate([plane[plane > 0] for plane in planes])
    if positive.size:
        low, high = (float(v) for v in np.percentile(positive, (0.5, 99.9)))
        edges = np.geomspace(max(low, 1e-3), max(high, low * 1.1, 2e-3), 41)
        for values, name, colour in zip(planes, ("before", "after"), (BEFORE, AFTER), strict=True):
            counts = np.histogram(values, bins=edges)[0] / max(values.size, 1)
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
    planes = _above_offset(channel)
    from matplotlib.colors import LogNorm

    low, high = contrast(planes)
    # Logarithmic, over two decades at most: shading is a ratio and shows alike in the
    # medium and in the sample.
    low = max(low, high / 100)
    high = max(high, low * 1.1)
    scale_y, scale_x, unit = _scales(channel)
    height, width = channel.layout.plane_shape
    for axis, plane, name in zip(axes, planes, ("Before", "After"), strict=True):
        extent = (0.0, width * scale_x, height * scale_y, 0.0)
        norm = LogNorm(low, high, clip=True)
        visible = np.maximum(reduced(plane), low)
        shown = axis.imshow(visible, cmap="gray", norm=norm, extent=extent)
        _tile_ticks(axis, channel)
        axis.set(
            title=f"{name} (plane {channel.plane})", xlabel=f"x ({unit})", ylabel=f"y ({unit})"
        )
        if name == "After":
            colour_bar(figure, axis, shown, "counts above the offset (log.)")


def _mosaic_section_panel(axes: Axes, channel: ChannelReport) -> None:
    """Along x through the middle row of tiles: medians over the height of that row."""
    rows = sorted({tile.row for tile in channel.layout.tiles})
    middle = rows[len(rows) // 2]
    tile = next(t for t in channel.layout.tiles if t.row == middle)
    start, stop = (-(-tile.y // channel.factor[0]), tile.y + channel.layout.tile_shape[0])
    stop = max(stop // channel.factor[0], start + 1)
    _, scale_x, unit = _scales(channel)
    pairs = zip(_above_offset(channel), ("before", "after"), (BEFORE, AFTER), strict=True)
    for plane, name, colour in pairs:
        section = np.median(plane[start:stop], axis=0)
        x = (np.arange(section.size) + 0.5) / section.size * channel.layout.plane_shape[1]
        axes.plot(x * scale_x, section, color=colour, linewidth=1.1, label=name)
    for edge in _edges(channel, 1):
        axes.axvline(edge * scale_x, color="0.8", linewidth=0.8, zorder=0)
    axes.set(
        title=f"Along x through row {middle + 1} of the tiles",
        xlabel=f"x ({unit}); grey lines: tile seams",
        ylabel="median, counts above the offset",
    )
    axes.margins(x=0)
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(0.0, bottom), top + 0.15 * (top - min(0.0, bottom)))
    axes.legend(loc="upper right", ncols=2, framealpha=0.8)


def _above_offset(channel: ChannelReport) -> list[NDArray[np.float32]]:
    """The plane before and after, without its offset; what was never acquired stays 0."""
    planes = []
    for plane, level in (
        (channel.before, channel.offset),
        (channel.after, channel.output_offset),
    ):
        values = np.asarray(plane, dtype=np.float32)
        planes.append(np.where(values == 0, values, values - np.float32(level)))
    return planes


def _scales(channel: ChannelReport) -> tuple[float, float, str]:
    """Length of a full-resolution pixel along y and x, in the unit of the axes."""
    if channel.pixel_size_um is None:
        return 1.0, 1.0, "pixels"
    return channel.pixel_size_um[0] / 1000, channel.pixel_size_um[1] / 1000, "mm"


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
    scale_y, scale_x, _ = _scales(channel)
    for axis, scale, place in ((axes.yaxis, scale_y, 0), (axes.xaxis, scale_x, 1)):
        edges = _edges(channel, place)
        step = max(-(-len(edges) // 7), 1)
        axis.set_ticks([edge * scale for edge in edges], minor=True)
        axis.set_ticks([edge * scale for edge in edges[::step]])
        axis.set_major_formatter("{x:.2f}" if channel.pixel_size_um else "{x:.0f}")


def _round_levels(low: float, high: float) -> NDArray[np.float64]:
    """Round numbers between two limits, about seven of them."""
    wished = (high - low) / 7
    decade = 10.0 ** np.floor(np.log10(wished))
    step = next(s * decade for s in (1, 2, 5, 10) if s * decade >= wished * 0.999)
    return np.asarray(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step)


def _brightest_row(image: NDArray[Any]) -> int:
    values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    darkest = values[finite].min() if finite.any() else np.float32(0)
    return int(np.argmax(np.percentile(np.where(finite, values, darkest), 99, axis=1)))
