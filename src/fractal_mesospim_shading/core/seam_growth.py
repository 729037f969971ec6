"""Whether a correction has made the steps at the tile seams larger than they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.core.quality import Seam, seams

FloatArray = NDArray[np.float64]

# Boxes along a seam that are taken together, since neighbours show the same sample.
_GROUP = 4
_LEAST_GROUPS = 4
# A growth counts beyond so many of its standard deviations, and this fraction.
_SIGMAS = 3.0
_LEAST_GROWTH = 0.005
# Standard deviation of a median over that of a mean.
_MEDIAN_ERROR = 1.25


@dataclass(frozen=True)
class SeamGrowth:
    """How the steps at the seams have changed. Fractions of the brightness.

    Attributes:
        before, after: typical step, as in `seam_step`.
        growth: typical change of the step of the same boxes.
        error: its standard deviation; infinite where there are too few seams to tell.
    """

    before: float
    after: float
    growth: float
    error: float

    @property
    def grew(self) -> bool:
        """Whether the steps have grown beyond doubt."""
        least = max(_SIGMAS * self.error, _LEAST_GROWTH)
        return self.growth > least and self.after > self.before + _LEAST_GROWTH


def seam_growth(
    after: NDArray[np.generic],
    layout: TileLayout,
    flatfield_of: Callable[[Tile], NDArray[np.float32]],
    output_offset: float = 0.0,
    *,
    factor: tuple[int, int] = (1, 1),
) -> SeamGrowth | None:
    """Compare the steps of corrected planes with those that they had before.

    The light before is the corrected light times the flat-field, so that the source
    need not be read again.

    Args:
        after: (n, y, x) corrected planes.
        layout: tiles at full resolution.
        flatfield_of: (y, x) what a tile was divided by, at full resolution.
        output_offset: counts that were added.
        factor: by how much y and x have shrunk from full resolution to these planes.

    Returns:
        None where there is no seam with light on both sides.
    """
    steps_before, steps_after, changes = [], [], []
    for seam in seams(after, layout, output_offset, factor=factor):
        first, second = (_mean_flat(seam, side, flatfield_of, factor) for side in (0, 1))
        now = _step(seam.first, seam.second)
        then = _step(seam.first * first, seam.second * second)
        steps_before.append(then[np.isfinite(then)])
        steps_after.append(now[np.isfinite(now)])
        for start in range(0, now.shape[1], _GROUP):
            change = (now - then)[:, start : start + _GROUP]
            if np.isfinite(change).any():
                changes.append(float(np.nanmedian(change)))
    if not changes:
        return None
    error = float("inf")
    if len(changes) >= _LEAST_GROUPS:
        error = _MEDIAN_ERROR * float(np.std(changes, ddof=1)) / np.sqrt(len(changes))
    return SeamGrowth(
        float(np.median(np.concatenate(steps_before))),
        float(np.median(np.concatenate(steps_after))),
        float(np.median(changes)),
        float(error),
    )


def _step(first: FloatArray, second: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        lit = (first > 0) & (second > 0)
        return np.where(lit, 2 * np.abs(first - second) / (first + second), np.nan)


def _mean_flat(
    seam: Seam,
    side: int,
    flatfield_of: Callable[[Tile], NDArray[np.float32]],
    factor: tuple[int, int],
) -> FloatArray:
    """Mean of the flat-field over each box of one side of a seam."""
    tile = seam.tiles[side]
    flat = flatfield_of(tile)
    origin, means = (tile.y, tile.x), []
    for along in seam.boxes:
        place = [slice(0), slice(0)]
        for axis, span in ((seam.across, seam.depths[side]), (1 - seam.across, along)):
            start, stop = (edge * factor[axis] - origin[axis] for edge in span)
            place[axis] = slice(start, stop)
        means.append(float(flat[tuple(place)].mean(dtype=np.float64)))
    return np.array(means)
