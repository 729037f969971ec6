"""Gaussian local mean, with the kernel of smlmlp, and its masked form.

The masked form is normalised convolution: H. Knutsson and C.-F. Westin,
"Normalized and differential convolution", CVPR 1993, doi:10.1109/CVPR.1993.341081.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, floor, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.array_axes import MOST_COLOURS
from fractal_mesospim_shading.core.background.convolution import convolved
from fractal_mesospim_shading.core.background.inputs import image_and_mask
from fractal_mesospim_shading.core.background.masks import as_float32, checked_mask
from fractal_mesospim_shading.core.background.parameter_checks import (
    check_radius,
    check_z_radius,
    is_number,
    shown,
)
from fractal_mesospim_shading.errors import BackgroundError

Array = NDArray[np.float32]
Radius = float | tuple[float, float]

# 99 % of a normal distribution lie within this many sigma.
_REACH_SIGMA = 2.5758


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


def gaussian_kernel(sigma_px: float) -> NDArray[np.float64]:
    """A Gaussian integrated over each pixel, cut at 2.5758 sigma, sum 1, odd length."""
    half = floor(_REACH_SIGMA * sigma_px)
    edges = (np.arange(-half, half + 2) - 0.5) / (sqrt(2.0) * sigma_px)
    cumulative = np.array([erf(edge) for edge in edges])
    kernel = np.diff(cumulative)
    return np.asarray(kernel / kernel.sum())


def kernel_half_width(radius_px: float) -> int:
    """Pixels from the centre of the kernel of this radius to its end."""
    return floor(_REACH_SIGMA * radius_px / 2)


def radius_pair(radius_px: Radius) -> tuple[float, float]:
    """A radius as (y, x).

    Raises:
        BackgroundError: for a radius below 1; the background would be the image.
    """
    pair = radius_px if isinstance(radius_px, tuple) else (radius_px, radius_px)
    if len(pair) != 2 or not all(is_number(radius) and radius >= 1 for radius in pair):
        raise BackgroundError(
            f"The radius of the local mean is {shown(radius_px)}; expected a number of pixels, or "
            "a pair (y, x), of 1 or more. Below 1 the background would be the image itself."
        )
    return float(pair[0]), float(pair[1])


def radii_per_channel(
    radius_px: Radius | Sequence[Radius], channels: int
) -> list[tuple[float, float]]:
    """One (y, x) radius for each channel.

    Args:
        radius_px: a number for all channels; a tuple of two numbers, (y, x) for all
            channels; or a list with one entry, a number or a pair, for each channel.
            The type decides, not the length: a tuple of two numbers is always a
            pair, a list always counts channels.
        channels: how many there are.

    Raises:
        BackgroundError: for a list of the wrong length or a radius below 1.
    """
    if is_number(radius_px):
        return [radius_pair(float(radius_px))] * channels  # type: ignore[arg-type]
    if isinstance(radius_px, tuple) and len(radius_px) == 2 and all(map(is_number, radius_px)):
        return [radius_pair((float(radius_px[0]), float(radius_px[1])))] * channels  # type: ignore[arg-type]
    if not isinstance(radius_px, Sequence | np.ndarray) or isinstance(radius_px, str):
        raise BackgroundError(
            f"The radius is {shown(radius_px)}; expected a number, a tuple (y, x), or a list with "
            "one entry for each channel."
        )
    entries = list(radius_px)
    if len(entries) != channels:
        raise BackgroundError(
            f"The list of radii has {len(entries)} entries for {channels} channels. Give one "
            "entry for each channel, one number for all, or a tuple (y, x) for all."
        )
    return [
        radius_pair(tuple(entry) if isinstance(entry, list | np.ndarray) else entry)
        for entry in entries
    ]


def noise_factor(radius_px: Radius, radius_z_px: float | None = None) -> NoiseFactor:
    """The noise factors of a Gaussian local mean.

    With g the kernel of each axis, g0 its centre: exact is
    sqrt(1 - 2 prod(g0) + prod(sum(g^2))), published is prod(|delta - g|).
    """
    radii = radius_pair(radius_px) + (() if radius_z_px is None else (radius_z_px,))
    kernels = [gaussian_kernel(radius / 2) for radius in radii]
    centres = [float(kernel[kernel.size // 2]) for kernel in kernels]
    squares = [float((kernel**2).sum()) for kernel in kernels]
    exact = 1 - 2 * prod(centres) + prod(squares)
    published = [1 - 2 * c + s for c, s in zip(centres, squares, strict=True)]
    return NoiseFactor(sqrt(exact), sqrt(prod(published)))


def gaussian_background(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    radius_px: Radius = 7.0,
    radius_z_px: float | None = None,
) -> Array:
    """The local mean around every pixel, with Gaussian weights of sigma = radius / 2.

    Args:
        image: (y, x), or (z, y, x) if `radius_z_px` is given.
        mask: same shape; nonzero pixels do not enter the mean. Without a mask
            bright objects raise the background under themselves.
        radius_px: number or (y, x). Too small, and the objects are subtracted from
            themselves; too large, and the background no longer follows the image.
        radius_z_px: radius in planes for a neighbourhood in three dimensions.

    Returns:
        float32 of the image's shape. Edge pixels are repeated beyond the edge.

    Raises:
        BackgroundError: for a radius below 1 or a mask of another shape.
    """
    radii = radius_pair(radius_px)
    check_z_radius(radius_z_px)
    image, mask = image_and_mask(image, mask, deep=radius_z_px is not None)
    kernels = [gaussian_kernel(radius / 2) for radius in radii]
    kernel_z = None if radius_z_px is None else gaussian_kernel(radius_z_px / 2)
    return convolved(image, checked_mask(image, mask), kernels[0], kernels[1], kernel_z)


def gaussian_smoothed(
    image: NDArray[Any], ignored: NDArray[np.bool_] | None, sigma_px: float
) -> Array:
    """An image smoothed in y and x with a Gaussian of this sigma; 0 leaves it as it is."""
    if sigma_px <= 0:
        return as_float32(image)
    kernel = gaussian_kernel(sigma_px)
    return convolved(image, ignored, kernel, kernel)


def mean_background(
    image: NDArray[Any], mask: NDArray[Any] | None = None, *, radius_px: int = 7
) -> Array:
    """The mean of the square of 2 * radius + 1 pixels around every pixel.

    Args:
        image: (y, x).
        mask: (y, x); nonzero pixels do not enter the mean.
        radius_px: at least 1.
    """
    check_radius(radius_px, "The radius of the mean")
    image, mask = image_and_mask(image, mask)
    kernel = np.full(2 * int(radius_px) + 1, 1 / (2 * int(radius_px) + 1))
    return convolved(image, checked_mask(image, mask), kernel, kernel)


def gaussian_backgrounds(
    channels: Sequence[NDArray[Any]],
    radius_px: Radius | Sequence[Radius] = 7.0,
    noise_corrections: Sequence[float] | None = None,
) -> tuple[list[Array], list[NoiseFactor]]:
    """Local means of several channels, as smlmlp's `bkgd_spatial_mean`.

    Args:
        channels: one stack (n, y, x) for each channel, a list of stacks; shapes may differ.
        radius_px: see `radii_per_channel`.
        noise_corrections: factors that a pipeline carries, one for each channel; the
            factors returned are multiplied into them.

    Returns:
        The backgrounds, float32, and the noise factors of each channel.
    """
    radii = radii_per_channel(radius_px, len(channels))
    carried = [1.0] * len(channels) if noise_corrections is None else list(noise_corrections)
    if len(carried) != len(channels):
        raise BackgroundError(
            f"There are {len(carried)} noise corrections for {len(channels)} channels; "
            "give one for each."
        )
    backgrounds, factors = [], []
    for stack, radius, before in zip(channels, radii, carried, strict=True):
        shape = np.shape(stack)
        if len(shape) != 3 or 0 in shape or shape[-1] <= MOST_COLOURS:
            raise BackgroundError(
                f"A channel has shape {shape}; expected a stack (n, y, x). A picture with its "
                "colours in the last axis is a list of channels: [p[None, ..., 0], ...]."
            )
        planes = [gaussian_background(plane, radius_px=radius) for plane in stack]
        backgrounds.append(np.stack(planes))
        factor = noise_factor(radius)
        factors.append(NoiseFactor(factor.exact * float(before), factor.published * float(before)))
    return backgrounds, factors
