"""What of the planes of an estimate can be used: with data, with light, and without sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack, sum_squares
from fractal_mesospim_shading.errors import NoLightError, SamplingError

FloatArray = NDArray[np.float64]

# How often the shape and the planes that fit it are taken from each other in turn.
_ROUNDS = 5
# A square is taken as not empty if it differs from the common shape by more than
# this many standard deviations of its noise, and by more than this fraction.
_SIGMAS = 4.0
_LEAST_DEVIATION = 0.02
# A plane is left out if so much of it is not empty, or if it is unlike the others: what noise
# does not explain of its differences from the shape, beyond the scatter of their mean.
_MOST_MASKED = 0.15
_LEAST_ROUGHNESS = 0.01
_TIMES_COMMON_ROUGHNESS = 3.0
_SCATTER_SIGMAS = 4.0
# Variance of a median over that of a mean.
_MEDIAN_VARIANCE = 1.57
# A plane darker than this share of the others is left out.
_LEAST_BRIGHTNESS = 0.2
# Planes that must be left once some were left out: fewer cannot be told from sample.
_LEAST_KEPT = 0.25
_LEAST_PLANES = 3
# A plane has light where this quantile of its squares is so far above the offset: counts of
# structure of the dark frame, and standard deviations of a square's mean.
_LIT = 0.95
_LEAST_LIGHT = 0.5
_LIGHT_SIGMAS = 5.0
# So many times as far below it, the offset is wrong.
_TIMES_DARKER = 10.0
_NO_DATA = "holds no data"


@dataclass(frozen=True)
class EmptySquares:
    """What is empty on the noise grid.

    Attributes:
        keep: (n, y, x) squares to use; none of a rejected plane.
        brightness: (n,) of each plane above the offset, counts.
        reasons: for each rejected plane, why.
    """

    keep: NDArray[np.bool_]
    brightness: FloatArray
    reasons: dict[int, str]

    @property
    def used(self) -> tuple[int, ...]:
        """Planes of which anything is used."""
        return tuple(int(k) for k in np.flatnonzero(self.keep.any(axis=(1, 2))))

    @property
    def with_data(self) -> int:
        """Planes that hold data."""
        return len(self.keep) - sum(why == _NO_DATA for why in self.reasons.values())

    @property
    def checked(self) -> bool:
        """Whether there were enough planes to tell what is sample from what they share."""
        return self.with_data >= _LEAST_PLANES

    @property
    def enough(self) -> bool:
        """Whether as much is left as the rest can be trusted."""
        used = len(self.used)
        if used == self.with_data:
            return used > 0
        return used >= max(_LEAST_PLANES, _LEAST_KEPT * self.with_data)

    def refuse_few(self, tiles: Sequence[int] | None = None) -> None:
        """Refuse to go on where so many planes were left out that the rest proves nothing.

        Args:
            tiles: number of the tile of each plane.

        Raises:
            SamplingError: names the tiles.
        """
        if self.enough:
            return
        known = np.isfinite(self.brightness)
        low, high = self.brightness[known].min(), self.brightness[known].max()
        out = {k: why for k, why in self.reasons.items() if why != _NO_DATA}
        raise SamplingError(
            f"Only {len(self.used)} of {self.with_data} planes chosen as empty share one shape "
            f"(brightness above the offset {low:.0f} to {high:.0f} counts); expected at least "
            f"{_LEAST_PLANES}, and a quarter of them. Left out: {_named(out, tiles)}. They seem to "
            "hold sample. Choose other tiles or planes, or leave `fov_list` and `z_levels` out and "
            "let BaSiC estimate."
        )


def without_margins(stack: BinnedStack) -> BinnedStack:
    """The same planes without those that are 0 throughout, and without their margins of zeros.

    For planes of which zeros were counted as values. A bin that a margin cuts is left out as a
    whole, and so is a square of the noise grid.

    Args:
        stack: of raw pixels, no dark frame taken off.
    """
    bins, squares = np.ones(stack.mean.shape, np.bool_), np.ones(stack.spatial.shape, np.bool_)
    for plane, mean in enumerate(stack.mean):
        recorded = np.isfinite(mean) & (mean != 0)
        keep = np.ix_(*(_inner(recorded.any(axis=1 - axis)) for axis in (0, 1)))
        bins[plane] = False
        bins[plane][keep] = True
    if bins.all():
        return stack
    part = sum_squares(~bins) > 0
    squares[part] = False
    # Of two planes together, both have to be there.
    pairs = squares.copy()
    pairs[:-1] &= squares[1:]
    return replace(
        stack,
        mean=np.where(bins, stack.mean, np.float32(np.nan)),
        count=np.where(bins, stack.count, np.uint16(0)),
        noise_mean=np.where(squares, stack.noise_mean, np.float32(np.nan)),
        spatial=np.where(squares, stack.spatial, np.nan),
        spatial_cells=np.where(squares, stack.spatial_cells, 0),
        temporal=np.where(pairs, stack.temporal, np.nan),
        temporal_cells=np.where(pairs, stack.temporal_cells, 0),
        third=np.where(pairs, stack.third, np.nan),
        third_pixels=np.where(pairs, stack.third_pixels, 0),
    )


def _inner(recorded: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The lines of bins between margins, without the one that a margin ends in."""
    lines = np.flatnonzero(recorded)
    if not lines.size:
        return lines
    first, last = lines[0], lines[-1]
    first += first > 0
    last -= last < len(recorded) - 1
    return np.arange(first, last + 1)


def refuse_darkness(stack: BinnedStack, offset: float) -> None:
    """Refuse planes of which none holds light.

    Args:
        stack: of one channel.
        offset: of the camera, counts; 0 where a dark frame was taken off.

    Raises:
        NoLightError: they hold no data, or nothing but what the camera adds.
        SamplingError: they are clearly darker than the offset, which must be wrong.
    """
    planes = len(stack.noise_mean)
    signal = stack.noise_mean.astype(np.float64).reshape(planes, -1) - offset
    known = np.isfinite(signal)
    if not known.any():
        raise NoLightError(f"The {planes} planes drawn hold no data.")
    if not np.any(signal[known]) and not np.any(stack.spatial[np.isfinite(stack.spatial)]):
        raise NoLightError(f"Every pixel of the {planes} planes drawn is {offset:g}.")
    # Squares of a plane at this quantile, so that a few cells in the dark count as light.
    rows = [row[inside] for row, inside in zip(signal, known, strict=True) if inside.any()]
    brightest = max(float(np.quantile(row, _LIT)) for row in rows)
    variance = float(np.nanmedian(stack.spatial)) if np.isfinite(stack.spatial).any() else 0.0
    cells = max(float(np.median(stack.spatial_cells)), 1.0)
    least = _LIGHT_SIGMAS * float(np.sqrt(variance / (4 * cells)))
    least = max(least, _LEAST_LIGHT if stack.integer else 0.0)
    if brightest > least:
        return
    if brightest < -_TIMES_DARKER * least:
        raise SamplingError(
            f"The brightest of the {planes} planes drawn is {-brightest:.4g} counts darker than "
            "the camera offset or dark frame that is taken off, which cannot be right. Give the "
            "right `camera_offset` or `darkfield_file`, or leave them out."
        )
    raise NoLightError(
        f"The {planes} planes drawn are as dark as the camera without light: {brightest:+.2g} "
        "counts beside the offset or dark frame that is taken off."
    )


def find_empty(stack: BinnedStack, offset: float) -> EmptySquares:
    """Compare every plane with the shape that the planes have in common.

    The shape starts as the median of the darker half of the planes, since sample adds
    light; planes are then judged by all planes that fit. So up to about half of
    the planes, and the brighter ones among them, may hold sample.

    Args:
        stack: planes chosen as empty.
        offset: of the camera, counts; 0 where a dark frame was taken off.

    Raises:
        NoLightError: no plane is above the offset.
    """
    signal = stack.noise_mean.astype(np.float64) - offset
    level = median_along_first(signal.reshape(len(signal), -1).T)
    usable = np.isfinite(level) & (level > 0)
    if not usable.any():
        raise NoLightError(
            f"None of the {len(level)} planes is brighter than the camera offset of {offset:.4g} "
            "counts."
        )
    relative_noise = _noise_of_squares(stack, signal)
    order = np.argsort(np.where(usable, level, np.inf), kind="stable")[: int(usable.sum())]
    reference = order[: max(1, (len(order) + 1) // 2)]
    shape = median_along_first(signal[reference] / level[reference, None, None])
    behind = len(reference)
    keep = np.isfinite(signal) & usable[:, None, None]
    reasons: dict[int, str] = {}
    for _ in range(_ROUNDS):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = signal / np.where(shape > 0, shape, np.nan)
        level = _levels(ratio, keep)
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = ratio / level[:, None, None] - 1
            noise = relative_noise / (level[:, None, None] * shape)
        fits = np.abs(deviation) <= np.maximum(_SIGMAS * noise, _LEAST_DEVIATION)
        # A plane that is none of those behind the shape differs by the noise of both.
        expected = noise * np.sqrt(1 + _MEDIAN_VARIANCE / behind)
        reasons = _reasons(deviation, expected, fits & np.isfinite(deviation), level)
        keep = fits & np.isfinite(deviation)
        keep[list(reasons)] = False
        if not keep.any():
            break
        shape = median_along_first(np.where(keep, signal / level[:, None, None], np.nan))
        behind = int(keep.any(axis=(1, 2)).sum())
    return EmptySquares(keep, level, reasons)


def _noise_of_squares(stack: BinnedStack, signal: FloatArray) -> FloatArray:
    """Standard deviation of the mean of each square, counts."""
    cells = np.maximum(stack.spatial_cells, 1)
    variance = median_along_first(stack.spatial)
    variance = np.where(np.isfinite(variance), variance, np.nanmax(np.abs(signal)))
    result: FloatArray = np.sqrt(variance[None] / (4 * cells))
    return result


def _levels(ratio: FloatArray, keep: NDArray[np.bool_]) -> FloatArray:
    """Median brightness of each plane over its empty squares, else over all of them."""
    kept = median_along_first(np.where(keep, ratio, np.nan).reshape(len(ratio), -1).T)
    every = median_along_first(ratio.reshape(len(ratio), -1).T)
    return np.where(np.isfinite(kept), kept, every)


def _reasons(
    deviation: FloatArray, noise: FloatArray, fits: NDArray[np.bool_], level: FloatArray
) -> dict[int, str]:
    known = np.isfinite(deviation)
    squares = np.maximum(known.sum(axis=(1, 2)), 1)
    masked = 1 - fits.sum(axis=(1, 2)) / squares
    number = np.maximum(fits.sum(axis=(1, 2)), 1)
    inside = np.where(fits, deviation**2 - noise**2, 0).sum(axis=(1, 2)) / number
    # A mean of few squares of noise scatters.
    scatter = np.sqrt(2 * np.where(fits, noise**4, 0).sum(axis=(1, 2))) / number
    rough = np.sqrt(np.maximum(inside - _SCATTER_SIGMAS * scatter, 0))
    good = masked <= _MOST_MASKED
    common = float(np.median(rough[good])) if good.any() else 0.0
    limit = max(_LEAST_ROUGHNESS, _TIMES_COMMON_ROUGHNESS * common)
    typical = float(np.median(level[good])) if good.any() else float(np.nanmedian(level))
    reasons = {}
    for k in range(len(level)):
        if not known[k].any():
            reasons[k] = _NO_DATA
        elif not level[k] > _LEAST_BRIGHTNESS * typical:
            reasons[k] = f"is {level[k]:.1f} counts above the offset where others are {typical:.1f}"
        elif masked[k] > _MOST_MASKED:
            reasons[k] = f"holds something in {100 * masked[k]:.0f} % of its area"
        elif rough[k] > limit:
            reasons[k] = f"differs from the common shape by {100 * rough[k]:.1f} %"
    return reasons


def _named(reasons: Mapping[int, str], tiles: Sequence[int] | None) -> str:
    """Which planes were left out and why, by tile where the tiles are known."""
    if tiles is None:
        return "; ".join(f"plane {k} {why}" for k, why in list(reasons.items())[:3])
    planes = Counter(tiles)
    out: dict[int, list[str]] = {}
    for k, why in reasons.items():
        out.setdefault(tiles[k], []).append(why)
    return "; ".join(
        f"{len(whys)} of {planes[tile]} planes of tile {tile} (the first {whys[0]})"
        for tile, whys in sorted(out.items())
    )


def median_along_first(values: FloatArray) -> FloatArray:
    """Median along the first axis, without the NaN; NaN where there is nothing else.

    Much faster than `numpy.nanmedian` for many short columns.
    """
    missing = np.isnan(values)
    ordered = np.sort(np.where(missing, np.inf, values), axis=0)
    count = len(values) - missing.sum(axis=0)
    low = np.take_along_axis(ordered, (np.maximum(count - 1, 0) // 2)[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(values) - 1)[None], axis=0)[0]
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, (low + high) / 2, np.nan)
