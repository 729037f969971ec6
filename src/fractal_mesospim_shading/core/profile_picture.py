"""A flat-field as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import FloatImage, resample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PIXELS = 800
"""A side of what is drawn: more is not seen."""

_SMOOTH_PIXELS = 30
"""A side of what lines of equal brightness are drawn of: so few that they do not follow noise."""

_LEAST_RANGE = 0.02


def plot_flatfield(flatfield: FloatImage, axes: Axes | None) -> Axes:
    """Draw a flat-field; see `ShadingProfile.plot`."""
    if axes is None:
        from matplotlib import pyplot

        axes = pyplot.subplots(layout="constrained")[1]
    low, high = float(flatfield.min()), float(flatfield.max())
    if high - low < _LEAST_RANGE:
        low, high = low - _LEAST_RANGE / 2, high + _LEAST_RANGE / 2
    height, width = flatfield.shape
    extent = (0.0, width, height, 0.0)
    shown = _at_most(flatfield, _MOST_PIXELS)
    picture = axes.imshow(shown, cmap="viridis", vmin=low, vmax=high, extent=extent)
    smooth = _at_most(flatfield, _SMOOTH_PIXELS)
    levels = round_levels(low, high)
    inner = levels[(levels > smooth.min()) & (levels < smooth.max())]
    if inner.size and min(smooth.shape) > 1:
        sides = zip(smooth.shape, flatfield.shape, strict=True)
        y, x = ((np.arange(number) + 0.5) * size / number for number, size in sides)
        lines = axes.contour(x, y, smooth, levels=inner, colors="white", linewidths=0.8)
        axes.clabel(lines, fmt="%g", fontsize=8)
    axes.figure.colorbar(picture, ax=axes, label="relative brightness")
    axes.set_title("flat-field of a tile (mean 1)", loc="left")
    axes.set(xlabel="x (pixels)", ylabel="y (pixels)")
    return axes


def round_levels(low: float, high: float) -> NDArray[np.float64]:
    """Round numbers between two limits, about seven of them."""
    least = (high - low) / 7
    decade = 10.0 ** np.floor(np.log10(least))
    step = next(s * decade for s in (1, 2, 5, 10) if s * decade >= least * 0.999)
    return np.asarray(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step)


def _at_most(image: FloatImage, side: int) -> FloatImage:
    shape = (min(image.shape[0], side), min(image.shape[1], side))
    return image if shape == image.shape else resample(image, shape)
