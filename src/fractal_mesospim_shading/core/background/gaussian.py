"""Gaussian local mean, with the kernel of smlmlp, and its masked form.

The masked form is normalised convolution: H. Knutsson and C.-F. Westin,
"Normalized and differential convolution", CVPR 1993, doi:10.1109/CVPR.1993.341081.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from fractal_mesospim_shading.core.background.contract import MOST_PX, BackgroundMethod
from fractal_mesospim_shading.core.background.filters import (
    convolved_locally,
    gaussian_kernel,
    kernel_half_width,
)
from fractal_mesospim_shading.core.background.inputs import (
    MOST_COLOURS,
    RadiusList,
    check_z_radius,
    is_number,
    shown,
)
from fractal_mesospim_shading.core.background.masks import image_and_mask
from fractal_mesospim_shading.core.background.nearest import FromNeighbourhoods, LocalEstimate
from fractal_mesospim_shading.core.background.noise import NoiseFactor
from fractal_mesospim_shading.errors import BackgroundError

Array = NDArray[np.float32]
Radius = float | tuple[float, float]


class GaussianModel(FromNeighbourhoods, BackgroundMethod):
    """Gaussian local mean."""

    model_config = ConfigDict(title="Gaussian local mean")
    arguments: ClassVar = ("radius_px", "radius_z_px")
    wider: ClassVar = {"radius_px": float | tuple[float, float]}
    precedence: ClassVar = ("radius_per_channel", "radius_yx", "radius")

    method: Literal["gaussian"] = "gaussian"
    radius: float = Field(
        default=7.0, gt=0, description="Twice the standard deviation of the Gaussian."
    )
    radius_yx: tuple[float, float] | None = Field(
        default=None, description="Different radii along y and x; goes before `radius`."
    )
    radius_per_channel: RadiusList | None = Field(
        default=None, description="One radius for each channel; goes before the others."
    )
    radius_z_planes: float | None = Field(
        default=None, gt=0, le=MOST_PX, description="Also along z, with this radius in planes."
    )

    @classmethod
    def field_of(cls, name: str, value: Any) -> str:
        return "radius_yx" if isinstance(value, tuple) else super().field_of(name, value)

    def of_channel(self, channel: int, scale: float) -> dict[str, Any]:
        if self.radius_per_channel:
            radius = self.radius_per_channel[channel] * scale
            return {"radius": radius, "radius_yx": None, "radius_per_channel": None}
        if self.radius_yx is None:
            return {}
        return {"radius_yx": (self.radius_yx[0] * scale, self.radius_yx[1] * scale)}

    @property
    def per_channel(self) -> dict[str, Sequence[float]]:
        given = self.radius_per_channel
        return {} if given is None else {"radius_per_channel": given}

    @property
    def radii(self) -> Radius:
        """The radius in the plane: a pair (y, x) where one is given."""
        return self.radius if self.radius_yx is None else self.radius_yx

    @property
    def largest_radius_px(self) -> float:
        return float(np.max(self.radii))

    def radius_range_px(self, side_px: int) -> tuple[float, float]:
        return 1.0, float(max(side_px, MOST_PX))

    @property
    def bytes_a_pixel(self) -> int:
        return 28

    @property
    def halo_px(self) -> int | None:
        return kernel_half_width(self.largest_radius_px)

    @property
    def depth_px(self) -> int:
        # At least 1, so that a z radius always means a stack.
        radius = self.radius_z_planes
        return 0 if radius is None else max(kernel_half_width(radius), 1)

    @property
    def noise_factor(self) -> NoiseFactor:
        return noise_factor(self.radii, self.radius_z_planes)

    def estimate(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[Any]:
        return self.local(values, ignored).filled()

    def local(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> LocalEstimate:
        return _local_mean(values, ignored, self.radii, self.radius_z_planes)


def local_mean(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    radius_px: Radius,
    radius_z_px: float | None = None,
) -> Array:
    """The local mean around every pixel, with Gaussian weights of sigma = radius / 2.

    Args:
        image: (y, x), or (z, y, x) if `radius_z_px` is given.
        ignored: same shape; pixels that do not enter the mean, or None. Bright objects that
            do raise the background under themselves.
        radius_px: number or (y, x). Too small, and the objects are subtracted from
            themselves; too large, and the background no longer follows the image.
        radius_z_px: radius in planes for a neighbourhood in three dimensions.

    Returns:
        float32 of the image's shape. Edge pixels are repeated beyond the edge.

    Raises:
        BackgroundError: for a radius below 1.
    """
    return _local_mean(image, ignored, radius_px, radius_z_px).filled()


def _local_mean(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    radius_px: Radius,
    radius_z_px: float | None,
) -> LocalEstimate:
    kernel_y, kernel_x = (gaussian_kernel(radius / 2) for radius in radius_pair(radius_px))
    check_z_radius(radius_z_px)
    kernel_z = None if radius_z_px is None else gaussian_kernel(radius_z_px / 2)
    return convolved_locally(image, ignored, kernel_y, kernel_x, kernel_z)


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
    pair = isinstance(radius_px, tuple) and len(radius_px) == 2 and all(map(is_number, radius_px))
    if pair or is_number(radius_px):
        return [radius_pair(radius_px)] * channels  # type: ignore[arg-type]
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


def gaussian_backgrounds(
    channels: Sequence[NDArray[Any]],
    radius_px: Radius | Sequence[Radius] = 7.0,
    noise_corrections: Sequence[float] | None = None,
) -> tuple[list[Array], list[NoiseFactor]]:
    """Local means of several channels, as smlmlp's `bkgd_spatial_mean`.

    This is smlmlp's interface: what is not a number, or not finite, spreads. `make_method` and
    `arrays.estimate_array` know masks and pixels without data.

    Args:
        channels: one stack (n, y, x) for each channel, a list of stacks; shapes may differ.
        radius_px: see `radii_per_channel`.
        noise_corrections: factors that a pipeline carries, one for each channel; the
            factors returned are multiplied into them.

    Returns:
        The backgrounds, float32, and the noise factors of each channel.

    Raises:
        BackgroundError: for channels, radii or factors that do not fit each other.

    Example:
        >>> import numpy as np
        >>> from fractal_mesospim_shading.core.background import gaussian_backgrounds
        >>> red, green = np.full((2, 64, 64), 50.0), np.full((1, 32, 48), 20.0)
        >>> backgrounds, factors = gaussian_backgrounds([red, green], radius_px=[7, (5, 9)])
        >>> [background.shape for background in backgrounds]
        [(2, 64, 64), (1, 32, 48)]
        >>> round(factors[0].exact, 2)
        0.99
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
        planes = [_mean_of_plane(plane, radius) for plane in stack]
        backgrounds.append(np.stack(planes))
        factor = noise_factor(radius)
        factors.append(NoiseFactor(factor.exact * float(before), factor.published * float(before)))
    return backgrounds, factors


def _mean_of_plane(plane: NDArray[Any], radius_px: Radius) -> Array:
    return local_mean(*image_and_mask(plane), radius_px)
