"""How noisy an image is, and how far noise shifts an estimate of its background."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.contract import BackgroundMethod, check_method
from fractal_mesospim_shading.core.background.inputs import as_numbers, without_mask
from fractal_mesospim_shading.core.background.parameter_checks import is_number, shown
from fractal_mesospim_shading.errors import BackgroundError

_MAD_TO_SIGMA = 1.4826
_SMALLEST_SIDE = 256
_SEED = 20070110


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
    if sigma == 0 or method.name == "constant":
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
