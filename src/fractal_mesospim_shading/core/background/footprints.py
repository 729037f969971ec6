"""The neighbourhoods of the rank filters."""

from __future__ import annotations

from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.parameter_checks import check_radius
from fractal_mesospim_shading.errors import BackgroundError

Shape = Literal["disk", "imagej_disk", "square"]


def row_half_widths(radius_px: float, shape: Shape) -> NDArray[np.int64]:
    """How far a neighbourhood reaches to each side in each of its rows.

    Args:
        radius_px: at least 1.
        shape: `disk`, dx^2 + dy^2 <= r^2 (scikit-image's: 81 pixels at 5);
            `imagej_disk`, dx^2 + dy^2 <= r^2 + 1 (89 pixels at 5); or `square`.

    Returns:
        One entry for each row, from the top; the length is odd.

    Raises:
        BackgroundError: for a radius below 1 or an unknown shape.
    """
    check_radius(radius_px, "The radius")
    if shape == "square":
        half = int(radius_px)
        return np.full(2 * half + 1, half)
    if shape == "disk":
        squared = radius_px * radius_px
    elif shape == "imagej_disk":
        squared = float(int(_imagej_radius(radius_px) ** 2) + 1)
    else:
        raise BackgroundError(
            f"The neighbourhood is {shape!r}; expected 'disk', 'imagej_disk' or 'square'."
        )
    half = int(sqrt(squared + 1e-10))
    return np.array([int(sqrt(squared - dy * dy + 1e-10)) for dy in range(-half, half + 1)])


def _imagej_radius(radius_px: float) -> float:
    # ImageJ keeps the sizes of its older kernels for these two ranges.
    if 1.5 <= radius_px < 1.75:
        return 1.75
    return 2.85 if 2.5 <= radius_px < 2.85 else radius_px


def half_size(radius_px: float, shape: Shape) -> int:
    """Pixels from the centre of a neighbourhood to its end."""
    return row_half_widths(radius_px, shape).size // 2


def footprint(radius_px: float, shape: Shape) -> NDArray[np.uint8]:
    """A neighbourhood as an array of 0 and 1, odd in both directions."""
    widths = row_half_widths(radius_px, shape)
    across = np.abs(np.arange(-int(widths.max()), int(widths.max()) + 1))
    return np.asarray(across[None, :] <= widths[:, None], np.uint8)
