"""Structure of an estimate that two halves of its planes do not share: sample, not shading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Finer than this share of the tile is what a sample may print, and shading hardly has.
_FINEST_SHARE = 0.1
# Structure counts where its power is above this share of that of the noise, which is
# not known better.
_NOISE_KNOWN = 0.3


@dataclass(frozen=True)
class HalfEstimate:
    """A flat-field from half of the planes.

    Attributes:
        flat: (y, x) bins, mean 1; NaN where there is none.
        variance: (y, x) of its noise, if that of neighbouring pixels is independent.
        noise: (y, x) a sample of its noise: half the difference of the means of every other
            plane, which show the same sample; None where there is but one plane.
    """

    flat: FloatArray
    variance: FloatArray
    noise: FloatArray | None = None


def split_in_halves(planes: Sequence[int], tiles: Sequence[int] | None) -> list[list[int]]:
    """Two halves of the planes that share as little of a sample as can be.

    Planes of one tile show the same sample, neighbouring ones the same cells. So whole tiles
    go to either half where there are several; the planes of one tile are cut in the middle.

    Args:
        planes: numbers, sorted by tile and z.
        tiles: tile of each number; None for one tile.

    Returns:
        Two lists; one may be empty.
    """
    different = sorted({tiles[k] for k in planes}) if tiles is not None else []
    if tiles is None or len(different) < 2:
        middle = (len(planes) + 1) // 2
        return [list(planes[:middle]), list(planes[middle:])]
    halves: list[list[int]] = [[], []]
    groups = [[k for k in planes if tiles[k] == tile] for tile in different]
    for group in sorted(groups, key=len, reverse=True):
        min(halves, key=len).extend(group)
    return [sorted(half) for half in halves]


def fine_structure(profile: NDArray[np.floating[Any]]) -> float:
    """RMS of what is finer than a tenth of the tile in a smooth profile of mean 1.

    Shading has little of it: 1 % where the light falls off to half, streaks included, 2 % for
    a sheet a quarter as wide as the tile.
    """
    image = np.asarray(profile, dtype=np.float64)
    known = np.ones(image.shape, dtype=bool)
    fine = _fine(image, known, _coarsest(image.shape))
    return float(np.sqrt(np.mean(fine**2)))


def unshared_structure(first: HalfEstimate, second: HalfEstimate) -> float:
    """RMS of the fine structure in which two halves differ, beyond their noise; a fraction.

    The difference is looked at in cells of one bin, two, four and so on up to a tenth of the
    tile, because the noise of cells falls with their size; the largest counts.
    """
    known = np.isfinite(first.flat) & np.isfinite(second.flat)
    samples = [half.noise for half in (first, second) if half.noise is not None]
    for noise in samples:
        known &= np.isfinite(noise)
    if not known.any():
        return 0.0
    coarsest = _coarsest(known.shape)
    fine = _fine(first.flat - second.flat, known, coarsest)
    noises = [_fine(noise, known, coarsest) for noise in samples]
    variance = np.where(known, first.variance + second.variance, 0.0)
    found = 0.0
    size = 1
    while size <= max(1, coarsest // 2):
        weight = _summed(known.astype(np.float64), size)
        whole = weight > 0.5 * size**2
        if whole.any():
            power, *noise_powers = (_power(image, weight, whole, size) for image in (fine, *noises))
            expected = float(np.mean(_summed(variance, size)[whole] / weight[whole] ** 2))
            expected = max(expected, sum(noise_powers))
            if power - expected > _NOISE_KNOWN * expected:
                found = max(found, power - expected)
        size *= 2
    return float(np.sqrt(found))


def _coarsest(shape: Sequence[int]) -> int:
    return max(1, int(min(shape) * _FINEST_SHARE))


def _power(image: FloatArray, weight: FloatArray, whole: NDArray[np.bool_], size: int) -> float:
    """Mean square of the means of cells."""
    return float(np.mean((_summed(image, size)[whole] / weight[whole]) ** 2))


def _fine(image: FloatArray, known: NDArray[np.bool_], reach: int) -> FloatArray:
    """What is finer than a number of bins; 0 where nothing is known."""
    filled = np.where(known, image, 0.0)
    return np.where(known, filled - _surroundings(filled, known, reach), 0.0)


def _surroundings(image: FloatArray, known: NDArray[np.bool_], reach: int) -> FloatArray:
    from scipy.ndimage import gaussian_filter

    # Half of a wave of twice the reach passes.
    sigma = 0.375 * reach
    share = gaussian_filter(known.astype(np.float64), sigma)
    smooth: FloatArray = gaussian_filter(image, sigma) / np.maximum(share, 1e-6)
    return smooth


def _summed(image: FloatArray, size: int) -> FloatArray:
    rows, columns = (np.arange(0, n, size) for n in image.shape)
    return np.asarray(np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1))
