"""A flat-field as a picture, with lines of equal brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import FloatImage, resample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PIXELS = 800
"""A side of what is drawn: more is not seen."""

_SMOOTHING = 1 / 30
"""Lines follow the field averaged over so large a part of its longer side, and no noise."""

_LINES = 7
"""Lines of equal brightness, about."""

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
    shown = resample(flatfield, (min(height, _MOST_PIXELS), min(width, _MOST_PIXELS)))
    extent = (0.0, width, height, 0.0)
    picture = axes.imshow(shown, cmap="viridis", vmin=low, vmax=high, extent=extent)
    draw_contours(axes, shown, (height, width), (low, high))
    axes.figure.colorbar(picture, ax=axes, label="relative brightness")
    axes.set_title("flat-field of a tile (mean 1)", loc="left")
    axes.set(xlabel="x (pixels)", ylabel="y (pixels)")
    return axes


def draw_contours(
    axes: Axes, field: NDArray[Any], size: tuple[float, float], limits: tuple[float, float]
) -> None:
    """Draw white lines of equal brightness at round numbers.

    Args:
        axes: with a picture of the field.
        field: (y, x).
        size: height and width of the picture in the units of the axes.
        limits: of the scale that the numbers are chosen for.
    """
    from scipy import ndimage

    fine = max(field.shape) * _SMOOTHING
    smooth = ndimage.gaussian_filter(field.astype(np.float64), fine, mode="nearest")
    levels = _round_levels(*limits)
    inner = levels[(levels > smooth.min()) & (levels < smooth.max())]
    if not inner.size or min(smooth.shape) < 2:
        return
    sides = zip(smooth.shape, size, strict=True)
    y, x = ((np.arange(number) + 0.5) / number * side for number, side in sides)
    lines = axes.contour(x, y, smooth, levels=inner, colors="white", linewidths=0.9)
    axes.clabel(lines, fmt="%g", fontsize=9)


def _round_levels(low: float, high: float) -> NDArray[np.float64]:
    """Round numbers between two limits."""
    least = (high - low) / _LINES
    decade = 10.0 ** np.floor(np.log10(least))
    step = next(s * decade for s in (1, 2, 5, 10) if s * decade >= least * 0.999)
    return np.asarray(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step)
