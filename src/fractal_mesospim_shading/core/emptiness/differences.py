"""How planes differ from the shape of the medium, alone, with neighbours, and tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.changes import part_of, parts_of
from fractal_mesospim_shading.core.emptiness.shape import SharedShape
from fractal_mesospim_shading.core.emptiness.windows import Windows

FloatArray = NDArray[np.float64]

MOST_LIGHT = 0.02
"""Light of sample in a hundredth of a plane, over that of the medium, that must not pass."""

MOST_SIGMAS = 5.0
"""Nor must so many standard errors of the mean of such a place, where that is more."""

# Planes averaged, and for windows of each size the share of the medium's light that may be left.
# Or so many standard deviations of the noise, if that is more: of a few hundred places hardly one
# reaches it by chance; where one does, all means that it is in are lost.
_LIMITS = (
    (1, 4.0, (0.01, 0.005, 0.003)),
    (4, 4.3, (0.008, 0.005, 0.003)),
    (16, 4.6, (0.008, 0.004, 0.003)),
)
_TILE_LIMITS, _TILE_SIGMAS = (0.006, 0.004, 0.003), 4.6
# Light of the medium over the fall of its brightness, at most; of an even medium it is more.
_MOST_LIGHT_OF_FALL = 2.5
# So often planes are taken out of means that fail; then all of these fail.
_TURNS = 3


@dataclass(frozen=True)
class Differences:
    """What the shape leaves of every plane, by size of the windows, made where it is looked at.

    Attributes:
        planes: of which.
        shape: that they may share.
        most_light: of the medium, counts. What is known of the offset is little: where less light
            is possible, less is taken.
    """

    planes: Windows
    shape: SharedShape
    most_light: float

    @classmethod
    def of(cls, planes: Windows, shape: SharedShape) -> Differences:
        """Of planes from a shape."""
        fall = float(np.ptp(shape.light[0][np.isfinite(shape.light[0])]))
        return cls(planes, shape, _MOST_LIGHT_OF_FALL * fall)

    def of_windows(
        self, size: int, windows: slice, chosen: NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What is left of some planes in some windows, the least light there, and its variance.

        Args:
            size: of the windows.
            windows: which of that size.
            chosen: (n,) the planes.

        Returns:
            (planes, windows) counts; counts of the medium, at least; counts squared.
        """
        shape = self.shape
        light = shape.level[chosen][:, None] * shape.light[size][windows]
        rest = part_of(self.planes.means[size], chosen, windows) - shape.offset - light
        # The shape has the noise of those that it was made of.
        variance = self.planes.variance(size, shape.offset + light, windows)
        return rest, np.minimum(light, self.most_light), (1 + 1 / shape.members) * variance

    def _parts(self, size: int, number: int) -> Iterator[slice]:
        """The windows of a size, some at a time, for so many planes."""
        return parts_of(len(self.shape.light[size]), number)

    def judged(self, candidates: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], FloatArray]:
        """Which planes pass alone and with their neighbours, and by how much each does.

        Args:
            candidates: (n,) planes to look at.

        Returns:
            (n,) those that pass; (n,) the largest difference over its limit, NaN of others.
        """
        passed = candidates.copy()
        excess = np.where(candidates, 0.0, np.nan)
        for limits in _LIMITS:
            for turn in range(_TURNS):
                over, worst = self._over(passed, limits)
                failing = over > 1
                if not failing.any():
                    break
                # A plane makes the means fail that it is in: those that are odd go first.
                own = np.flatnonzero(passed)
                odd = own[failing] if turn == _TURNS - 1 else own[np.unique(worst[failing])]
                np.maximum.at(excess, own[worst[failing]], over[failing])
                excess[odd] = np.maximum(excess[odd], np.nextafter(1, 2))
                passed[odd] = False
            excess[passed] = np.maximum(
                excess[passed], np.minimum(self._over(passed, limits)[0], 1)
            )
        return passed, excess

    def _over(
        self, passed: NDArray[np.bool_], limits: tuple[int, float, tuple[float, ...]]
    ) -> tuple[FloatArray, NDArray[np.intp]]:
        """For each plane that passed, the mean of it and its neighbours over its limit.

        Returns:
            The largest difference over its limit, and which plane (counted among those that
            passed) has most of it.
        """
        depth, _, shares = limits
        own = np.flatnonzero(passed)
        low, stop = self._neighbours(passed, depth)
        over, worst = np.zeros(len(low)), np.arange(len(low))
        for size, share in enumerate(shares):
            ratio, window, sign = self._most_over(size, passed, (low, stop), limits[1], share)
            larger = np.flatnonzero(ratio > over)
            over[larger] = ratio[larger]
            members = np.minimum(low[larger, None] + np.arange(depth), stop[larger, None] - 1)
            planes, window = own[members], window[larger, None]
            light = self.shape.level[planes] * self.shape.light[size][window]
            rest = self.planes.means[size][planes, window] - self.shape.offset - light
            of_each = np.nan_to_num(rest) * sign[larger, None]
            worst[larger] = members[np.arange(len(larger)), of_each.argmax(axis=1)]
        return over, worst

    def _most_over(
        self,
        size: int,
        passed: NDArray[np.bool_],
        neighbours: tuple[NDArray[np.intp], NDArray[np.intp]],
        sigmas: float,
        share: float,
    ) -> tuple[FloatArray, NDArray[np.intp], FloatArray]:
        """For each plane that passed, the window of a size that is most over its limit.

        Returns:
            The mean of it and its neighbours there over the limit, which window, and its sign.
        """
        low, stop = neighbours
        rows = np.arange(len(low))
        most, where, sign = np.full(len(low), -1.0), np.zeros(len(low), np.intp), np.zeros(len(low))
        for part in self._parts(size, len(low)):
            rest, light, variance = self.of_windows(size, part, passed)
            seen = np.isfinite(rest)
            total = _sums(rest, low, stop)
            noise, light = (_sums(np.where(seen, v, 0.0), low, stop) for v in (variance, light))
            with np.errstate(invalid="ignore", divide="ignore"):
                limit = np.maximum(sigmas * np.sqrt(noise), share * light)
                ratio = np.where(limit > 0, np.abs(total) / limit, 0.0)
            window = ratio.argmax(axis=1)
            largest = ratio[rows, window]
            larger = largest > most
            most[larger], where[larger] = largest[larger], part.start + window[larger]
            sign[larger] = np.sign(total[rows, window])[larger]
        return most, where, sign

    def _neighbours(self, passed: NDArray[np.bool_], depth: int) -> NDArray[np.intp]:
        """First and last + 1 among the planes that passed, for each the neighbours around it."""
        own = np.flatnonzero(passed)
        tile = self.planes.tile[own]
        first, stop = np.searchsorted(tile, tile, "left"), np.searchsorted(tile, tile, "right")
        place = np.arange(len(own))
        low = np.clip(place - depth // 2, first, np.maximum(stop - depth, first))
        return np.stack([low, np.minimum(low + depth, stop)])

    def odd_tile(self, passed: NDArray[np.bool_]) -> int | None:
        """The tile that differs most from all others, if by more than noise and little light."""
        tiles, begins = np.unique(self.planes.tile[passed], return_index=True)
        if len(tiles) < 2:
            return None
        over = np.zeros(len(tiles))
        for size, share in enumerate(_TILE_LIMITS):
            for part in self._parts(size, int(passed.sum())):
                rest, light, variance = self._of_tiles(size, part, passed, begins)
                others = _without_own(light)
                with np.errstate(invalid="ignore", divide="ignore"):
                    noise = variance / light**2 + _without_own(variance) / others**2
                    limit = np.maximum(_TILE_SIGMAS * np.sqrt(noise), share)
                    differs = np.abs(rest / light - _without_own(rest) / others) / limit
                over = np.maximum(over, np.nan_to_num(differs).max(axis=1))
        worst = int(np.argmax(over))
        return int(tiles[worst]) if over[worst] > 1 else None

    def _of_tiles(
        self, size: int, windows: slice, passed: NDArray[np.bool_], begins: NDArray[np.intp]
    ) -> list[FloatArray]:
        """Sums (tiles, windows) of rest, light and variance over planes that have data.

        Args:
            size: of the windows.
            windows: which of that size.
            passed: (n,) the planes.
            begins: (tiles) the first of each tile among these.
        """
        values = self.of_windows(size, windows, passed)
        seen = np.isfinite(values[0])
        return [np.add.reduceat(np.where(seen, v, 0.0), begins, axis=0) for v in values]

    def confidence(self, planes: NDArray[np.bool_]) -> FloatArray:
        """Probability that light at the limit would show in each place of each of some planes."""
        from scipy.special import ndtr

        least = np.full(int(planes.sum()), np.inf)
        for part in self._parts(0, len(least)):
            rest, light, variance = self.of_windows(0, part, planes)
            sigma = np.sqrt(variance)
            most = np.maximum(MOST_SIGMAS * sigma, MOST_LIGHT * light)
            with np.errstate(invalid="ignore", divide="ignore"):
                margin = (most - np.abs(rest)) / sigma
            margin = np.where(np.isfinite(margin), margin, np.inf)
            least = np.minimum(least, margin.min(axis=1))
        return np.asarray(np.where(np.isfinite(least), ndtr(least), 0.0))


def _without_own(values: FloatArray) -> FloatArray:
    """For each row the sum of all others: of those before it, and of those behind it."""
    others = np.zeros_like(values)
    others[1:] = values[:-1].cumsum(axis=0)
    others[:-1] += values[:0:-1].cumsum(axis=0)[::-1]
    return others


def _sums(values: NDArray[np.generic], low: NDArray[np.intp], stop: NDArray[np.intp]) -> FloatArray:
    """Sums over rows from low to stop, what is not finite left out."""
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
    total = np.zeros((len(finite) + 1, finite.shape[1]))
    total[1:] = finite.cumsum(axis=0)
    return np.asarray(total[stop] - total[low])
