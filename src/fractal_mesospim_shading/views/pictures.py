"""Planes as plain pictures: a pixel of the picture is one of the plane, or the mean of some."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import resample

_MOST_PIXELS = 800
"""Side of a picture at most."""

_LEAST_PIXELS = 480
"""Side from which on a picture is not enlarged."""

_DECADES = 100.0
"""Brightest over dimmest of what is told apart."""

# Of zlib: noise gains next to nothing by more.
_COMPRESSION = 1

FloatArray = NDArray[np.float32]


def grey_pictures(planes: Sequence[FloatArray]) -> tuple[bytes, ...]:
    """Planes as PNG, all on one logarithmic scale: a ratio looks alike in medium and sample.

    Args:
        planes: (y, x) light above the offset, 0 where there is none.
    """
    small = [_shrunk(plane) for plane in planes]
    low, high = _limits(small)
    return tuple(_grey(plane, low, high) for plane in small)


def small_pictures(planes: Sequence[FloatArray]) -> tuple[bytes, ...]:
    """The same of planes that are small, a pixel for a pixel: whoever shows them enlarges them."""
    low, high = _limits(planes) if planes else (1.0, 10.0)
    return tuple(_grey(plane, low, high, enlarged=False) for plane in planes)


def _limits(planes: Sequence[FloatArray]) -> tuple[float, float]:
    """Light that is black and white: nearly all of it, over two decades at most."""
    values = np.concatenate([plane[np.isfinite(plane) & (plane > 0)] for plane in planes])
    if not values.size:
        return 1.0, 10.0
    low, high = (float(value) for value in np.percentile(values, (1, 99.8)))
    low = max(low, high / _DECADES)
    return low, max(high, low * 1.1)


def _shrunk(plane: FloatArray) -> FloatArray:
    scale = _MOST_PIXELS / max(plane.shape)
    if scale >= 1:
        return plane
    return resample(
        plane, (max(round(plane.shape[0] * scale), 1), max(round(plane.shape[1] * scale), 1))
    )


def _grey(plane: FloatArray, low: float, high: float, *, enlarged: bool = True) -> bytes:
    from PIL import Image

    with np.errstate(invalid="ignore"):
        lit = np.clip(np.nan_to_num(plane), low, high)
    grey = (255 * np.log(lit / low) / np.log(high / low)).round().astype(np.uint8)
    times = -(-_LEAST_PIXELS // max(grey.shape)) if enlarged else 1
    if times > 1:
        grey = grey.repeat(times, axis=0).repeat(times, axis=1)
    content = io.BytesIO()
    Image.fromarray(grey).save(content, "PNG", compress_level=_COMPRESSION)
    return content.getvalue()
