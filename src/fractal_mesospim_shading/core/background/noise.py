"""How noisy an image is, and what noise and an estimate of the background do to each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.contract import BackgroundMethod, check_method
from fractal_mesospim_shading.core.background.inputs import (
    as_numbers,
    is_number,
    shown,
    without_mask,
)
from fractal_mesospim_shading.errors import BackgroundError

_MAD_TO_SIGMA = 1.4826
_SMALLEST_SIDE = 256
_SEED = 20070110


@dataclass(frozen=True)
class NoiseFactor:
    """How the noise of an image changes when a local mean is subtracted.

    Attributes:
        exact: standard deviation of image - background over that of the image, for
            noise that is independent from pixel to pixel.
        published: the number that smlmlp reports, a product over the axes. It is
            not the noise of image - background: 0.85 against 0.99 at radius 7.
    """

    exact: float
    published: float


def estimate_noise_sigma(plane: NDArray[Any], coverage: NDArray[np.bool_] | None = None) -> float:
    """The standard deviation of the noise of a plane.

    From the median absolute difference of neighbours along x: edges of objects are
    few and do not count. Noise that is correlated between pixels comes out too small.

    Args:
        plane: (y, x), at least 2 pixels wide. Masked pixels of a masked array do not count.
        coverage: True where there is no data.

    Raises:
        BackgroundError: if no two neighbours have data.
    """
    pixels, hidden = without_mask(as_numbers(plane, "plane"))
    values = np.asarray(pixels, np.float64)
    usable = np.isfinite(values) if coverage is None else np.isfinite(values) & ~coverage
    if hidden is not None:
        usable &= ~hidden
    pairs = usable[:, 1:] & usable[:, :-1]
    if not pairs.any():
        raise BackgroundError("No two neighbouring pixels have data; no noise can be estimated.")
    differences = (values[:, 1:] - values[:, :-1])[pairs]
    deviation = np.median(np.abs(differences - np.median(differences)))
    return float(_MAD_TO_SIGMA * deviation / sqrt(2.0))


def noise_bias(method: BackgroundMethod, sigma: float, *, seed: int = _SEED) -> float:
    """By how many counts the noise shifts the background of a method; mostly below 0.

    Found by trying: the method estimates the background of a simulated flat plane with
    normal noise, independent from pixel to pixel, whose background is 0. Openings, balls
    and paraboloids follow the darkest noise; subtract the bias from their background to
    add back what they miss. It is right for empty background; where objects are dense,
    fewer pixels pull the estimate down and the true bias is smaller.

    Args:
        method: any method of the catalogue.
        sigma: standard deviation of the noise, in counts.
        seed: of the simulated noise; the same seed gives the same number.

    Returns:
        Mean of the estimated background, away from the edges; 0 for a sigma of 0.

    Raises:
        BackgroundError: for a negative sigma.
    """
    check_method(method)
    if not is_number(sigma) or sigma < 0:
        raise BackgroundError(f"The noise is {shown(sigma)} counts; expected 0 or more.")
    if sigma == 0 or not method.follows_noise:
        return 0.0
    margin = int(2 * method.largest_radius_px) + 1
    side = _SMALLEST_SIDE + 2 * min(margin, _SMALLEST_SIDE)
    depth = 2 * method.depth_px + 1
    shape = (side, side) if depth == 1 else (depth, side, side)
    noise = np.random.default_rng(seed).normal(0.0, sigma, shape).astype(np.float32)
    background = method.background(noise).background
    middle = background if depth == 1 else background[depth // 2]
    cut = min(margin, _SMALLEST_SIDE)
    return float(middle[cut:-cut, cut:-cut].mean(dtype=np.float64))


_simulated_bias = lru_cache(maxsize=1024)(noise_bias)


def without_bias(
    method: BackgroundMethod,
    values: NDArray[Any],
    absent: NDArray[np.bool_] | None,
    background: NDArray[np.float32],
    keep: tuple[slice, ...],
) -> NDArray[np.float32]:
    """A background with what noise pulls it down by added back.

    Each plane goes by its own noise, so that it does not matter which are read together.

    Args:
        method: that estimated.
        values: (y, x) or (z, y, x), what it was estimated from.
        absent: same shape; pixels without data, or None.
        background: of a part.
        keep: the part.
    """
    lifted = np.array(background, np.float32)
    deep = values.ndim == 3
    for place, z in enumerate(range(*keep[0].indices(len(values))) if deep else (0,)):
        index, kept = (z, place) if deep else (..., ...)
        missing = None if absent is None else absent[index]
        lifted[kept] -= plane_bias(method, values[index], missing)
    if absent is not None:
        lifted[absent[keep]] = 0
    return lifted


def plane_bias(
    method: BackgroundMethod, plane: NDArray[Any], absent: NDArray[np.bool_] | None
) -> np.float32:
    """What the noise of a whole plane (y, x) adds to the background of a method."""
    return np.float32(_bias(method, _sigma(plane, absent)))


def _sigma(plane: NDArray[Any], absent: NDArray[np.bool_] | None) -> float:
    try:
        return estimate_noise_sigma(plane, absent)
    except BackgroundError:
        # No two neighbours have data.
        return 0.0


def _bias(method: BackgroundMethod, sigma: float) -> float:
    """The bias of a method for noise of that size.

    Balls and paraboloids have a height in counts, so their bias does not grow with the
    noise; it is found for sizes that differ by 2 %, and taken in proportion between.
    """
    if sigma <= 0:
        return 0.0
    near = exp(round(50 * log(sigma)) / 50)
    return _simulated_bias(method, near) * sigma / near
