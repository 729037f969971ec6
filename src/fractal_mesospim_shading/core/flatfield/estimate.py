"""The flat-field from planes that hold medium and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import NOISE_BINS, BinnedStack
from fractal_mesospim_shading.core.flatfield.emptiness import (
    EmptySquares,
    find_empty,
    median_along_first,
)
from fractal_mesospim_shading.core.flatfield.pixels import upsample
from fractal_mesospim_shading.core.flatfield.smoothing import (
    HalfEstimate,
    Smoothed,
    fine_structure,
    smooth_profile,
    unshared_structure,
)
from fractal_mesospim_shading.core.kernel_cache import kernel
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.together import both
from fractal_mesospim_shading.errors import SamplingError

FloatArray = NDArray[np.float64]

# Single bins further than this from what is expected hold a particle or a hot pixel.
_CLIP_SIGMAS = 5.0
_LEAST_BINS = 0.5
# A plane brighter than this many times the typical one counts for no more than that.
_MOST_WEIGHT = 2.0
# The bound of the median is widened by this, against rounding.
_SURELY = 1 + 1e-9
# Structure of the dark frame that a single number cannot take off, counts (RMS of what
# survives the smoothing).
_DARK_STRUCTURE = 0.5
# The same as a share of the noise of a pixel, at most.
_OF_NOISE = 0.05


@dataclass(frozen=True)
class EmptyEstimate:
    """A flat-field from empty planes, and what it rests on.

    Attributes:
        profile: in the shape of the tile; its dark-field is the offset or dark frame used.
        planes_used: indices into the stack.
        planes_rejected: index -> why, in words that follow "plane 3 ...".
        planes_partly_used: indices of used planes of which some part held something.
        masked_fraction: of the area of the used planes, left out as not empty.
        brightness: median over the used planes, counts above the offset.
        relative_noise: RMS error of the flat-field from noise alone, as a fraction.
        relative_uncertainty: the same with the offset's uncertainty and the structure
            of the dark frame, where that was not measured.
        checked: whether there were planes enough to find sample among them.
        fine_structure: as `smoothing.fine_structure` tells it, as a fraction.
        unshared_structure: fine structure in which two halves of the planes differ.
    """

    profile: ShadingProfile
    planes_used: tuple[int, ...]
    planes_rejected: dict[int, str]
    planes_partly_used: tuple[int, ...]
    masked_fraction: float
    brightness: float
    relative_noise: float
    relative_uncertainty: float
    checked: bool
    fine_structure: float
    unshared_structure: float


def estimate_flatfield(
    stack: BinnedStack,
    offset: float = 0.0,
    *,
    offset_uncertainty: float = 0.0,
    dark_frame: NDArray[np.floating[Any]] | None = None,
    tiles: Sequence[int] | None = None,
) -> EmptyEstimate:
    """Estimate the flat-field from planes chosen as empty.

    Planes, and parts of planes, that hold sample are left out; each plane is scaled by
    its own brightness; the bins are averaged, smoothed as far as their noise asks
    for, and brought back to pixels.

    Args:
        stack: binned planes of one channel.
        offset: counts to subtract; leave 0 where a dark frame was given to `bin_block`.
            Half a count too much on a medium of 10 counts costs about 0.8 %.
        offset_uncertainty: counts, for the uncertainty reported.
        dark_frame: (y, x) the measured dark frame that `bin_block` took off; it becomes
            the dark-field of the profile.
        tiles: number of the tile of each plane, for messages and for the halves.

    Raises:
        NoLightError: no plane is brighter than the offset.
        SamplingError: too little usable; the message says what was found.
    """
    empty = find_empty(stack, offset)
    empty.refuse_few(tiles)
    flat, valid = _combine(stack, offset, empty)
    share = float(valid.mean())
    if share < _LEAST_BINS:
        raise SamplingError(
            f"Only {100 * share:.0f} % of the tile was seen empty in {len(stack.mean)} planes; "
            f"expected at least {100 * _LEAST_BINS:.0f} %. Choose other tiles or planes."
        )
    flat /= np.mean(flat[valid])

    def fitted() -> tuple[Smoothed, ShadingProfile]:
        smoothed = smooth_profile(flat, valid)
        pixels = upsample(smoothed.image, stack.bin_px, stack.tile_shape)
        dark = offset if dark_frame is None else dark_frame
        return smoothed, ShadingProfile.create(np.maximum(pixels, 1e-3), dark)

    (smoothed, profile), unshared = both(fitted, lambda: _unshared(stack, offset, empty, tiles))
    used = list(empty.used)
    brightness = float(np.median(empty.brightness[used]))
    spread = float(np.std(profile.flatfield))
    systematic = spread * offset_uncertainty
    if dark_frame is None:
        systematic = float(np.hypot(systematic, dark_structure(stack)))
    return EmptyEstimate(
        profile=profile,
        planes_used=empty.used,
        planes_rejected=empty.reasons,
        planes_partly_used=tuple(k for k in used if not empty.keep[k].all()),
        masked_fraction=1 - float(empty.keep[used].mean()),
        brightness=brightness,
        relative_noise=smoothed.relative_noise,
        relative_uncertainty=float(np.hypot(smoothed.relative_noise, systematic / brightness)),
        checked=empty.checked,
        fine_structure=fine_structure(smoothed.image),
        unshared_structure=unshared,
    )


def dark_structure(stack: BinnedStack) -> float:
    """What a dark frame leaves of itself when one number is taken off, counts.

    Floats may be of any scale; their noise tells it.
    """
    if stack.integer or not np.isfinite(stack.spatial).any():
        return _DARK_STRUCTURE
    return min(_DARK_STRUCTURE, _OF_NOISE * float(np.sqrt(np.nanmedian(stack.spatial))))


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


def _unshared(
    stack: BinnedStack, offset: float, empty: EmptySquares, tiles: Sequence[int] | None
) -> float:
    """Fine structure in which two halves of the planes differ, as a fraction."""
    first, second = (
        _half(stack, offset, empty, planes) for planes in split_in_halves(empty.used, tiles)
    )
    return 0.0 if first is None or second is None else unshared_structure(first, second)


def _half(
    stack: BinnedStack, offset: float, empty: EmptySquares, planes: Sequence[int]
) -> HalfEstimate | None:
    flat = _flat_of(stack, offset, empty, planes)
    if flat is None:
        return None
    one, other = (_flat_of(stack, offset, empty, planes[i::2]) for i in (0, 1))
    noise = None if one is None or other is None else (one[0] - other[0]) / 2
    return HalfEstimate(*flat, noise)


def _flat_of(
    stack: BinnedStack, offset: float, empty: EmptySquares, planes: Sequence[int]
) -> tuple[FloatArray, FloatArray] | None:
    """The flat-field of some of the planes with the variance of its noise."""
    keep = np.zeros_like(empty.keep)
    keep[list(planes)] = empty.keep[list(planes)]
    some = replace(empty, keep=keep)
    if not some.used:
        return None
    flat, valid = _combine(stack, offset, some)
    if not valid.any():
        return None
    mean = float(np.mean(flat[valid]))
    return flat / mean, _variance_of_flat(stack, some, flat.shape) / mean**2


def _variance_of_flat(
    stack: BinnedStack, empty: EmptySquares, shape: tuple[int, ...]
) -> FloatArray:
    """Variance of the noise of the mean over planes, about."""
    used = list(empty.used)
    rows, columns = (np.arange(n) // NOISE_BINS for n in shape)
    variance = _variance_of_squares(stack, empty)[rows][:, columns]
    pixels = np.maximum(stack.count[used].astype(np.float64).mean(axis=0), 1)
    planes = np.maximum(empty.keep[used].sum(axis=0)[rows][:, columns], 1)
    level = float(np.mean(empty.brightness[used]))
    return np.asarray(variance / pixels / planes / level**2)


def _combine(
    stack: BinnedStack, offset: float, empty: EmptySquares
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Mean of the planes over their brightness, bin by bin, without single bins that stand out."""
    used = np.array(empty.used)
    level = empty.brightness[used]
    weight = 1 / np.maximum(level / (_MOST_WEIGHT * np.median(level)), 1)
    noise = _CLIP_SIGMAS * np.sqrt(_variance_of_squares(stack, empty))
    keep = _shrunk(empty.keep[used])
    flat = _clipped_means(
        stack.mean, stack.count, used, keep, noise, level, weight, offset, NOISE_BINS
    )
    return flat, np.isfinite(flat)


@kernel(error_model="numpy")
def _clipped_means(mean, count, used, keep, noise, level, weight, offset, side):  # type: ignore[no-untyped-def]
    """Weighted means over planes of the bins that lie as near to the median as noise allows.

    The median is never further from the mean than the standard deviation, so that it is needed
    only where a value lies nearly as far out as what is left out (one bin in some thousand).
    """
    planes, (height, width) = len(used), mean.shape[1:]
    flat = np.empty((height, width))
    squares = np.arange(width) // side
    scaled, limits = np.empty((planes, width)), np.empty((planes, width))
    inside, of_square = np.empty(width, np.bool_), np.empty(width)
    for y in range(height):
        number, middle, spread = np.zeros(width), np.zeros(width), np.zeros(width)
        doubtful = np.zeros(width, np.bool_)
        for x in range(width):
            of_square[x] = noise[y // side, squares[x]]
        for n in range(planes):
            for x in range(width):
                inside[x] = keep[n, y // side, squares[x]]
            plane, own = used[n], level[n]
            for x in range(width):
                value = (np.float64(mean[plane, y, x]) - offset) / own
                good = inside[x] and np.isfinite(value)
                scaled[n, x] = value if good else np.nan
                middle[x] += value if good else 0.0
                number[x] += 1.0 if good else 0.0
            for x in range(width):
                pixels = np.float64(count[plane, y, x])
                limits[n, x] = of_square[x] / np.sqrt(pixels if pixels > 1.0 else 1.0)
        for x in range(width):
            middle[x] /= max(number[x], 1.0)
        for n in range(planes):
            for x in range(width):
                away = scaled[n, x] - middle[x]
                spread[x] += away * away if np.isfinite(away) else 0.0
        for x in range(width):
            spread[x] = np.sqrt(spread[x] / max(number[x], 1.0))
        for n in range(planes):
            own = level[n]
            for x in range(width):
                away = _SURELY * own * (abs(scaled[n, x] - middle[x]) + spread[x])
                doubtful[x] |= away > limits[n, x]
        total, expected = np.zeros(width), np.zeros(width)
        for x in range(width):
            if doubtful[x]:
                middle[x] = np.nanmedian(scaled[:, x])
        for n in range(planes):
            own, share = level[n], weight[n]
            for x in range(width):
                value = scaled[n, x] * own
                far = doubtful[x] and abs(value - own * middle[x]) > limits[n, x]
                good = np.isfinite(value) and not far
                total[x] += value * share if good else 0.0
                expected[x] += share * own if good else 0.0
        for x in range(width):
            flat[y, x] = total[x] / expected[x] if expected[x] > 0 else np.nan
    return flat


def _variance_of_squares(stack: BinnedStack, empty: EmptySquares) -> FloatArray:
    """Typical variance of a pixel in each square, counts squared."""
    variance = median_along_first(np.where(empty.keep, stack.spatial, np.nan))
    known = np.isfinite(variance) & (variance > 0)
    if not known.any():
        return np.full(variance.shape, np.inf)
    # At least the variance of rounding, so that noise-free planes are not all clipped.
    least = 0.1 if stack.integer else 0.0
    return np.maximum(np.where(known, variance, np.max(variance[known])), least)


def _shrunk(keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out the neighbours of what was left out, where light of the sample may reach."""
    padded = np.pad(keep, ((0, 0), (1, 1), (1, 1)), mode="edge")
    result = keep.copy()
    height, width = keep.shape[1:]
    for dy in range(3):
        for dx in range(3):
            result &= padded[:, dy : dy + height, dx : dx + width]
    return result
