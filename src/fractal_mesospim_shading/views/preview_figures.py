"""The pictures of previews, readable where they are 500 pixels wide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.views.drawing import (
    AFTER,
    BACKGROUND,
    BEFORE,
    colour_bar,
    contrast,
    drawable,
    png,
    reduced,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_WIDTH = 7.5
"""Inches."""

_TITLE = 70
"""Letters of a line as long as the figure is wide."""


def background_preview(
    image: NDArray[Any],
    methods: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    title: str = "",
    pixel_size_um: float | None = None,
    note: str = "",
) -> bytes:
    """Compare background methods on one plane: the plane, and a row for each method.

    Args:
        image: (y, x), the plane as it is.
        methods: name to (background, result), each of the shape of the image.
        title: names the plane.
        pixel_size_um: along x; None where it is not known.
        note: below the rows.

    Returns:
        A PNG: image and results on one grey scale, each background on its own, and a line
        through the brightest part of the image. Axes are in pixels, as the radii are.
    """
    row = _brightest_row(image)
    results = [np.asarray(result, np.float32) for _, result in methods.values()]
    limits = contrast([np.asarray(image, np.float32), *results])
    unit = "pixels" if pixel_size_um is None else f"pixels of {pixel_size_um:g} um"

    def draw(figure: Figure) -> None:
        ratios = {"width_ratios": [1, 1, 1.2]}
        grid = figure.subplots(len(methods) + 1, 3, squeeze=False, gridspec_kw=ratios)
        (first, words, line), *rows = grid
        shown = _plane(first, image, "image", limits=limits, row=row)
        colour_bar(figure, first, shown, "")
        _lines(line, image, {}, row)
        line.set_title("along the line", loc="left")
        _explain(words, f"Image and results have\none scale. Axes are in\n{unit}.")
        for axes, (name, (background, result)) in zip(rows, methods.items(), strict=True):
            spoken = drawable(shortened(name, 60))
            _plane(axes[0], result, f"{spoken}\nresult", limits=limits, row=row)
            own = contrast([np.asarray(background, np.float32)])
            shown = _plane(axes[1], background, "\nbackground", limits=own, row=row)
            colour_bar(figure, axes[1], shown, "")
            _lines(axes[2], image, {"background": background, "result": result}, row)
        if title:
            figure.suptitle(drawable(shortened(title, _TITLE)), fontsize=11, parse_math=False)
        if note:
            figure.supxlabel(drawable(_wrapped(note)), fontsize=9, parse_math=False)

    aspect = min(max(image.shape[0] / image.shape[1], 0.6), 2.0)
    notes = 0.16 * len(_wrapped(note).splitlines())
    return png(draw, (_WIDTH, 0.4 + notes + (0.7 + 1.9 * aspect) * (len(methods) + 1)))


def flatfield_preview(
    before: NDArray[Any],
    after: NDArray[Any],
    flatfield: NDArray[np.float32],
    *,
    title: str,
    offsets: tuple[float, float],
    rows: slice,
    factor: int = 1,
    note: str = "",
) -> bytes:
    """One plane of a mosaic before and after its flat-field correction.

    Args:
        before, after: (y, x).
        flatfield: of a tile, (y, x).
        title: names the plane.
        offsets: counts at no light, before and after.
        rows: of the planes, those of a row of tiles.
        factor: pixels of full resolution that one shown stands for, along x.
        note: below the pictures.

    Returns:
        A PNG: the plane before and after on one logarithmic grey scale, the flat-field, and the
        medians along x through a row of tiles.
    """
    planes = [
        np.where(plane == 0, 0, np.asarray(plane, np.float32) - np.float32(offset))
        for plane, offset in zip((before, after), offsets, strict=True)
    ]

    def draw(figure: Figure) -> None:
        from matplotlib.colors import LogNorm
        from matplotlib.ticker import LogLocator

        from fractal_mesospim_shading.core.profile_picture import plot_flatfield

        grid = figure.subplots(2, 2)
        low, high = contrast(planes)
        high = max(high, 1e-3)
        low = max(low, high / 100)
        norm = LogNorm(low, max(high, 1.1 * low), clip=True)
        extent = (0.0, before.shape[1] * factor, before.shape[0] * factor, 0.0)
        for axes, plane, name in zip(grid[0], planes, ("before", "after"), strict=True):
            shown = np.maximum(reduced(plane), low)
            picture = axes.imshow(shown, cmap="gray", norm=norm, extent=extent)
            axes.set_title(name, loc="left")
        colour_bar(figure, grid[0, 1], picture, "counts above no light")
        plot_flatfield(flatfield, grid[1, 0])
        for plane, name, colour in zip(planes, ("before", "after"), (BEFORE, AFTER), strict=True):
            section = np.maximum(np.median(plane[rows], axis=0), low)
            x = (np.arange(section.size) + 0.5) * factor
            grid[1, 1].plot(x, section, color=colour, linewidth=1.2, label=name)
        grid[1, 1].set_title("median of a row of tiles", loc="left")
        grid[1, 1].margins(x=0)
        grid[1, 1].set(xlabel="x (pixels)", ylabel="counts above no light", yscale="log")
        grid[1, 1].yaxis.set_major_formatter("{x:g}")
        grid[1, 1].yaxis.set_minor_formatter("")
        grid[1, 1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        grid[1, 1].legend(framealpha=0.8)
        figure.suptitle(drawable(shortened(title, _TITLE)), fontsize=11, parse_math=False)
        if note:
            figure.supxlabel(drawable(_wrapped(note)), fontsize=9, parse_math=False)

    aspect = min(max(before.shape[0] / before.shape[1], 0.6), 1.5)
    return png(draw, (_WIDTH, 1.4 + 5.6 * aspect))


def write_picture(path: str, picture: bytes) -> str:
    """Write a picture; returns its path.

    Raises:
        OutputWriteError: it cannot be written.
    """
    try:
        Path(path).write_bytes(picture)
    except OSError as error:
        raise OutputWriteError(f"The picture cannot be written to {path}: {error}") from error
    return path


def _plane(
    axes: Axes, plane: NDArray[Any], title: str, *, row: int, limits: tuple[float, float]
) -> AxesImage:
    """A plane, and the line along which it is drawn as well."""
    extent = (0.0, plane.shape[1], plane.shape[0], 0.0)
    low, high = limits
    picture = axes.imshow(reduced(plane), cmap="gray", vmin=low, vmax=high, extent=extent)
    axes.axhline(row + 0.5, color=BEFORE, linewidth=0.8, linestyle="--")
    axes.set_title(title, loc="left", parse_math=False)
    axes.locator_params(nbins=4)
    return picture


_COLOURS = {"image": BEFORE, "background": BACKGROUND, "result": AFTER}


def _lines(axes: Axes, image: NDArray[Any], others: Mapping[str, NDArray[Any]], row: int) -> None:
    """Planes along a row, in the colours that are explained once."""
    for name, plane in {"image": image, **others}.items():
        x = np.arange(plane.shape[1]) + 0.5
        width = 1.6 if name == "background" else 0.9
        axes.plot(x, plane[row], color=_COLOURS[name], linewidth=width)
    axes.axhline(0, color="0.7", linewidth=0.7, zorder=0)
    axes.margins(x=0)
    axes.locator_params(nbins=4)


def _explain(axes: Axes, text: str) -> None:
    """What the colours of the lines mean, and a few words."""
    from matplotlib.lines import Line2D

    axes.axis("off")
    axes.text(0, 1, text, va="top", transform=axes.transAxes)
    lines = [Line2D([], [], color=colour, label=name) for name, colour in _COLOURS.items()]
    axes.legend(handles=lines, loc="lower left", frameon=False, borderaxespad=0, fontsize=10)


def _wrapped(note: str) -> str:
    from textwrap import wrap

    return "\n".join(line for text in note.splitlines() for line in wrap(text, 100))


def _brightest_row(image: NDArray[Any]) -> int:
    values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    darkest = values[finite].min() if finite.any() else np.float32(0)
    return int(np.argmax(np.percentile(np.where(finite, values, darkest), 99, axis=1)))
