"""How planes differ from the shape of the medium, alone, with neighbours, and tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """What the shape leaves of every plane, by size of the windows.

    Attributes:
        planes: of which.
        rest: (n, windows) counts.
        light: (n, windows) counts of the medium, at least.
        variance: (n, windows) of the noise, counts squared.
    """

    planes: Windows
    rest: tuple[FloatArray, ...]
    light: tuple[FloatArray, ...]
    variance: tuple[FloatArray, ...]

    @classmethod
    def of(cls, planes: Windows, shape: SharedShape) -> Differences:
        light = tuple(shape.level[:, None] * typical for typical in shape.light)
        rest = tuple(
            means - shape.offset - own for means, own in zip(planes.means, light, strict=True)
        )
        # What is known of the offset is little: where less light is possible, less is taken.
        fall = float(np.ptp(shape.light[0][np.isfinite(shape.light[0])]))
        least = tuple(np.minimum(own, _MOST_LIGHT_OF_FALL * fall) for own in light)
        # The shape has the noise of those that it was made of.
        own = 1 + 1 / shape.members
        variance = tuple(
            own * planes.variance(size, shape.offset + counts) for size, counts in enumerate(light)
        )
        return cls(planes, rest, least, variance)

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
        depth, sigmas, shares = limits
        low, stop = self._neighbours(passed, depth)
        over, worst = np.zeros(len(low)), np.arange(len(low))
        for size, share in enumerate(shares):
            rest, light, variance = (
                values[size][passed] for values in (self.rest, self.light, self.variance)
            )
            variance = np.where(np.isfinite(rest), variance, 0.0)
            total = _sums(rest, low, stop)
            with np.errstate(invalid="ignore", divide="ignore"):
                limit = np.maximum(
                    sigmas * np.sqrt(_sums(variance, low, stop)),
                    share * _sums(np.where(np.isfinite(rest), light, 0.0), low, stop),
                )
                ratio = np.where(limit > 0, np.abs(total) / limit, 0.0)
            window = ratio.argmax(axis=1)
            rows = np.arange(len(low))
            larger = ratio[rows, window] > over
            over = np.where(larger, ratio[rows, window], over)
            sign = np.sign(total[rows, window])
            members = np.minimum(low[:, None] + np.arange(depth), stop[:, None] - 1)
            of_each = np.nan_to_num(rest[members, window[:, None]]) * sign[:, None]
            worst = np.where(larger, members[rows, of_each.argmax(axis=1)], worst)
        return over, worst

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
            rest, light, variance = self._of_tiles(size, passed, begins)
            others = _without_own(light)
            with np.errstate(invalid="ignore", divide="ignore"):
                noise = variance / light**2 + _without_own(variance) / others**2
                limit = np.maximum(_TILE_SIGMAS * np.sqrt(noise), share)
                differs = np.abs(rest / light - _without_own(rest) / others) / limit
            over = np.maximum(over, np.nan_to_num(differs).max(axis=1))
        worst = int(np.argmax(over))
        return int(tiles[worst]) if over[worst] > 1 else None

    def _of_tiles(
        self, size: int, passed: NDArray[np.bool_], begins: NDArray[np.intp]
    ) -> list[FloatArray]:
        """Sums (tiles, windows) of rest, light and variance over planes that have data.

        Args:
            size: of the windows.
            passed: (n,) the planes.
            begins: (tiles) the first of each tile among these.
        """
        seen = np.isfinite(self.rest[size][passed])
        values = (self.rest[size], self.light[size], self.variance[size])
        return [np.add.reduceat(np.where(seen, v[passed], 0.0), begins, axis=0) for v in values]

    def confidence(self) -> FloatArray:
        """Probability that light at the limit would show in each place of each plane."""
        from scipy.special import ndtr

        sigma = np.sqrt(self.variance[0])
        most = np.maximum(MOST_SIGMAS * sigma, MOST_LIGHT * self.light[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            margin = (most - np.abs(self.rest[0])) / sigma
        least = np.min(np.where(np.isfinite(margin), margin, np.inf), axis=1)
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
