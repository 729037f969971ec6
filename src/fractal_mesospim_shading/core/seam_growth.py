"""How the steps at the seams of a mosaic have changed, from corrected planes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.core.seams import Seam, Span, medians_of_runs, seams

FloatArray = NDArray[np.float64]

DivisorOf = Callable[[Tile, Span, Span], float]
"""Mean of what some rows and columns of a tile were divided by."""

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
    divisor_of: DivisorOf,
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
        divisor_of: mean of what some rows and columns of a tile, at full resolution and from its
            corner, were divided by.
        output_offset: counts that were added.
        factor: by how much y and x have shrunk from full resolution to these planes.

    Returns:
        None where there is no seam with light on both sides.
    """
    found = list(seams(after, layout, output_offset, factor=factor))
    if not found:
        return None
    # Of all seams at once: one by one, those of many tiles take most of a correction's time.
    lights = [
        np.concatenate([s.first for s in found], 1),
        np.concatenate([s.second for s in found], 1),
    ]
    divisors = [
        np.concatenate([_mean_divisors(seam, side, divisor_of, factor) for seam in found])
        for side in (0, 1)
    ]
    now = _step(*lights)
    then = _step(*(light * divisor for light, divisor in zip(lights, divisors, strict=True)))
    changes = _group_medians(now - then, [len(seam.boxes) for seam in found])
    if not len(changes):
        return None
    error = float("inf")
    if len(changes) >= _LEAST_GROUPS:
        error = _MEDIAN_ERROR * float(np.std(changes, ddof=1)) / np.sqrt(len(changes))
    return SeamGrowth(
        float(np.median(then[np.isfinite(then)])),
        float(np.median(now[np.isfinite(now)])),
        float(np.median(changes)),
        float(error),
    )


def _step(first: FloatArray, second: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        lit = (first > 0) & (second > 0)
        return np.where(lit, 2 * np.abs(first - second) / (first + second), np.nan)


def _group_medians(values: FloatArray, lengths: Sequence[int]) -> FloatArray:
    """Medians of the finite values of some boxes of a seam each, in order; of none, none.

    Args:
        values: (n, boxes) of all seams, one after the other.
        lengths: boxes of each seam.
    """
    ends = np.cumsum(lengths)
    firsts = [np.arange(end - n, end, _GROUP) for end, n in zip(ends, lengths, strict=True)]
    first = np.concatenate(firsts)
    end = np.minimum(first + _GROUP, np.repeat(ends, [len(own) for own in firsts]))
    medians = medians_of_runs(values, first, end)
    return np.asarray(medians[np.isfinite(medians)])


def _mean_divisors(
    seam: Seam, side: int, divisor_of: DivisorOf, factor: tuple[int, int]
) -> FloatArray:
    """Mean of what each box of one side of a seam was divided by."""
    tile, means = seam.tiles[side], []
    for along in seam.boxes:
        spans = (seam.depths[side], along) if seam.across == 0 else (along, seam.depths[side])
        rows, columns = (
            (span[0] * shrunk - origin, span[1] * shrunk - origin)
            for span, shrunk, origin in zip(spans, factor, (tile.y, tile.x), strict=True)
        )
        means.append(divisor_of(tile, rows, columns))
    return np.array(means)
