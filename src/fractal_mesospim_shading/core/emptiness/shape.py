"""The shape that planes of medium share.

The mean of a plane of medium at a place is D + B S there, with an offset D and a shape S that all
of them have, and a brightness B of its own. Where all are equally bright D and S cannot be told
apart, and need not be; where they are not, their lines in each other meet at D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.windows import Windows, mean_of_known

FloatArray = NDArray[np.float64]

_ROUNDS = 8
# Planes whose brightness scatters by less than this do not tell the offset.
_LEAST_SPREAD = 0.03
# Light of the darkest place over the fall of the brightness from the brightest to it.
_LEAST_LIGHT, _MOST_LIGHT = 0.02, 50.0
_LEAST_FALL = 1e-6


@dataclass(frozen=True)
class SharedShape:
    """What planes of medium have in common.

    Attributes:
        offset: counts; of no use but here, where all planes are equally bright.
        light: for each size of windows, (windows) counts above the offset in a typical plane.
        level: (n,) brightness of every plane, members or not; 1 is typical, NaN without data.
        members: how many planes it was made of.
    """

    offset: float
    light: tuple[FloatArray, ...]
    level: FloatArray
    members: int

    @classmethod
    def of(cls, planes: Windows, members: NDArray[np.bool_], *, robust: bool) -> SharedShape:
        """Fit it to some of the planes.

        Args:
            planes: all of them.
            members: (n,) those to fit it to.
            robust: whether some of these may hold sample.
        """
        own = planes.means[0][members]
        offset = _first_offset(planes, own)
        level = np.ones(len(own))
        for _ in range(_ROUNDS):
            light = _combined(own - offset, level, robust=robust)
            level = _levels(own - offset, light)
            level = level / np.median(level[np.isfinite(level)])
            spread = float(np.sqrt(np.nanmean((level - 1) ** 2)))
            if spread > _LEAST_SPREAD:
                offset = _meeting_point(own, offset + light)
        lights = tuple(
            _combined(means[members] - offset, level, robust=robust) for means in planes.means
        )
        everywhere = _levels(planes.means[0] - offset, lights[0])
        return cls(offset, lights, everywhere, int(members.sum()))


def _first_offset(planes: Windows, own: FloatArray) -> float:
    """Where the noise would be none; where it does not tell, what a usual fall-off tells."""
    counts, noise = mean_of_known(own, 0), planes.noise
    usual = float(2 * np.nanmin(counts) - np.nanmax(counts))
    return _bounded(-noise.intercept / noise.slope if noise.slope > 0 else usual, counts)


def _bounded(offset: float, counts: FloatArray) -> float:
    """An offset that the darkest place allows, whatever counts were added to the image."""
    darkest, fall = float(np.nanmin(counts)), float(np.nanmax(counts) - np.nanmin(counts))
    least = max(fall, _LEAST_FALL)
    return min(max(offset, darkest - _MOST_LIGHT * least), darkest - _LEAST_LIGHT * least)


def _combined(light: FloatArray, level: FloatArray, *, robust: bool) -> FloatArray:
    """The light of a typical plane from planes of known brightness; NaN where none has data."""
    known = np.isfinite(light) & np.isfinite(level)[:, None]
    columns = known.any(axis=0)
    result = np.full(light.shape[1], np.nan)
    if robust:
        scaled = np.where(known, light / level[:, None], np.nan)
        result[columns] = np.nanmedian(scaled[:, columns], axis=0)
        return result
    weight = np.where(known, level[:, None], 0.0)
    total = (np.where(known, light, 0.0) * weight).sum(axis=0)
    result[columns] = total[columns] / (weight**2).sum(axis=0)[columns]
    return result


def _levels(light: FloatArray, typical: FloatArray) -> FloatArray:
    """Brightness of planes: the median ratio, which sample in a part of a plane leaves alone."""
    result = np.full(len(light), np.nan)
    rows = np.isfinite(light * typical).any(axis=1)
    result[rows] = np.nanmedian(light[rows] / typical, axis=1)
    return result


def _meeting_point(own: FloatArray, typical: FloatArray) -> float:
    """The offset at which the lines of all planes in the typical one meet."""
    both = np.isfinite(own) & np.isfinite(typical)
    number = np.maximum(both.sum(axis=1), 1)
    x, y = np.where(both, typical, 0.0), np.where(both, own, 0.0)
    x_mean, y_mean = x.sum(axis=1) / number, y.sum(axis=1) / number
    centred = np.where(both, typical - x_mean[:, None], 0.0)
    square = (centred**2).sum(axis=1)
    usable = square > 0
    slope = (centred * y).sum(axis=1)[usable] / square[usable]
    start = y_mean[usable] - slope * x_mean[usable]
    lack = 1 - slope
    power = float((lack**2).sum())
    return _bounded(float((lack * start).sum()) / power if power > 0 else 0.0, typical)
