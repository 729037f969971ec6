"""The parameters of the tile medians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fractal_mesospim_shading.core.background.parameter_checks import check_parameters
from fractal_mesospim_shading.errors import BackgroundError

Interpolation = Literal["spline", "linear", "none"]
Compatibility = Literal["none", "pyama"]


@dataclass(frozen=True)
class TileParameters:
    """How tiles are laid and what becomes of their pixels.

    Attributes:
        tile_size: pixels, number or (y, x). Several times the largest object; with
            smaller tiles the background follows the objects, with larger ones it
            misses bends.
        dilation: pixels by which the mask grows before it is used.
        min_unmasked_fraction: a tile with a smaller part of usable pixels (0 to 1)
            takes the median of the whole frame, as a tile without any does.
        sigma_clip: leave out values farther than this many standard deviations from
            the median of their tile, again and again (at most 10 times).
        filter_size: side of the median filter over the grid of tiles; odd, 1 is none.
        interpolation: spline of degree min(3, tiles - 1), linear, or none (nearest). The
            spline is held to the range of the medians of the four tiles around a pixel.
        compatibility: `pyama` does as PyAMA. It puts the centres of the tiles half a pixel
            too far; on a slope of g counts per pixel the error is g / 2. And it lets the
            spline swing: by a tenth of a step, on both sides of it.
        noise_map: also estimate the standard deviation of each tile, as 1.4826 times
            the median absolute deviation.
    """

    tile_size: int | tuple[int, int] = 256
    dilation: int = 10
    min_unmasked_fraction: float = 0.0
    sigma_clip: float | None = None
    filter_size: int = 1
    interpolation: Interpolation = "spline"
    compatibility: Compatibility = "none"
    noise_map: bool = False

    def __post_init__(self) -> None:
        check_parameters("the method tile_median", self)

    @property
    def tile_shape_yx(self) -> tuple[int, int]:
        """Largest size of a tile, (y, x)."""
        size = self.tile_size
        return (size[0], size[1]) if isinstance(size, tuple) else (size, size)

    def check(self) -> None:
        """Refuse parameters out of range.

        Raises:
            BackgroundError: with what was found and what was expected.
        """
        if min(self.tile_shape_yx) < 2:
            raise BackgroundError(f"The tile size is {self.tile_shape_yx} px; expected 2 or more.")
        if not 0 <= self.min_unmasked_fraction <= 1:
            raise BackgroundError(
                f"min_unmasked_fraction is {self.min_unmasked_fraction}; expected 0 to 1."
            )
        if self.sigma_clip is not None and not self.sigma_clip > 0:
            raise BackgroundError(
                f"sigma_clip is {self.sigma_clip}; expected a positive number or none."
            )
        if self.filter_size < 1 or self.filter_size % 2 == 0:
            raise BackgroundError(
                f"filter_size is {self.filter_size}; expected an odd number from 1 on."
            )
        if self.interpolation not in ("spline", "linear", "none"):
            raise BackgroundError(
                f"The interpolation is {self.interpolation!r}; expected 'spline', 'linear' or "
                "'none'."
            )
        if self.compatibility not in ("none", "pyama"):
            raise BackgroundError(
                f"The compatibility is {self.compatibility!r}; expected 'none' or 'pyama'."
            )
