"""Two views of the same tissue: what neighbouring tiles show of their overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.registration import Registration

FloatArray = NDArray[np.float64]

AS_KNOWN = Registration(y=0.0, x=0.0, error=0.0, correlation=1.0)
"""The views lie to each other as the positions of the tiles say."""


@dataclass(frozen=True)
class OverlapPair:
    """The overlap of two tiles in bins: one channel, one illumination side.

    All arrays have one entry for each bin, which holds the same tissue in both tiles.

    Attributes:
        first, second: numbers of the tiles.
        axis: `y` or `x`, along which the tiles are neighbours; `first` lies before `second`.
        y_first, x_first: centres of the bins in the first tile, in pixels of level 0.
        y_second, x_second: the same places in the second tile.
        light_first, light_second: mean counts above the camera offset, as the camera saw them:
            not divided by a flat-field. Above 0.
        variance: of `log(light_first / light_second)` by the noise of the pixels, in the square
            of its unit; without what stage errors and sample add.
        planes: number of independent planes that were averaged in a bin.
        sheet: which bins were seen at the same time and height: their tissue is the same or
            close by.
        registration: of the two views; where it does not hold, both show even light, and lie
            as the positions say.
        roughness: scatter of the log ratio from bin to bin over that of the noise: 1 for noise
            alone; stage errors in structured sample add to it.
        bin_px: side of a bin, pixels.
    """

    first: int
    second: int
    axis: str
    y_first: FloatArray
    x_first: FloatArray
    y_second: FloatArray
    x_second: FloatArray
    light_first: FloatArray
    light_second: FloatArray
    variance: FloatArray
    planes: FloatArray
    sheet: NDArray[np.intp]
    registration: Registration = AS_KNOWN
    roughness: float = 1.0
    bin_px: int = 8

    @property
    def log_ratio(self) -> FloatArray:
        """Logarithm of the first view over the second."""
        ratio: FloatArray = np.log(self.light_first / self.light_second)
        return ratio

    def log_ratio_after(
        self, log_flatfield: Callable[[FloatArray, FloatArray], FloatArray]
    ) -> FloatArray:
        """What is left of the log ratio once both views are divided by a flat-field.

        Args:
            log_flatfield: its logarithm at (y, x) in pixels of the tile.
        """
        first = log_flatfield(self.y_first, self.x_first)
        second = log_flatfield(self.y_second, self.x_second)
        return self.log_ratio - first + second
