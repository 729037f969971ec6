"""Tools of all figures: how they become PNG, their texts, colour bars, and planes for the screen.

Matplotlib is used by its objects alone: no window, no backend chosen for the process of
the user, no figure left behind. The same content gives the same bytes.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import resample
from fractal_mesospim_shading.core.threads import (
    linear_algebra_by_one_thread,
    warnings_ignored,
)
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


@contextmanager
def _undisturbed() -> Iterator[None]:
    """One figure at a time, nothing said to the user by what draws it, and no idle threads."""
    # What matplotlib says of fonts, folders and odd proportions would mark a server's job. Its
    # many small products would wake the threads of BLAS, which then spin for nothing.
    quiet = logs_quieted(logging.ERROR, "matplotlib")
    with _drawing, quiet, warnings_ignored, linear_algebra_by_one_thread:
        yield


def load() -> None:
    """Import what draws figures."""
    with _undisturbed():
        import matplotlib.backends.backend_agg
        import matplotlib.figure
        import matplotlib.style  # noqa: F401 - for `png`


def png(
    draw: Callable[[Figure], None],
    size_inches: tuple[float, float],
    *,
    arranged: bool = True,
    dots: int = 100,
    style: Mapping[Any, Any] | None = None,
) -> bytes:
    """Draw a figure and give it as PNG; importing matplotlib waits until here.

    Args:
        draw: what is on it.
        size_inches: (width, height).
        arranged: whether matplotlib makes room for all texts, which takes most of the time; False
            where `draw` places its axes itself.
        dots: per inch.
        style: settings of matplotlib beside those of all figures.
    """
    with _undisturbed():
        import matplotlib
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # The user's own settings of matplotlib stay out of the figure, and as they were.
        with (
            matplotlib.style.context("default"),
            matplotlib.rc_context({**_STYLE, **(style or {})}),
        ):
            figure = Figure(figsize=size_inches, dpi=dots, facecolor="white")
            figure.set_layout_engine("constrained" if arranged else "none")
            FigureCanvasAgg(figure)
            draw(figure)
            content = io.BytesIO()
            figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
