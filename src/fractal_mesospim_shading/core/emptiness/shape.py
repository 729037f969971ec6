"""The shape that planes of medium share.

The mean of a plane of medium at a place is D + B S there, with an offset D and a shape S that all
of them have, and a brightness B of its own. Where all are equally bright D and S cannot be told
apart, and need not be; where they are not, their lines in each other meet at D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.changes import mean_of_known, part_of, parts_of
from fractal_mesospim_shading.core.emptiness.windows import Windows

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
        smallest, own = planes.means[0], np.flatnonzero(members)
        offset = _first_offset(planes, own)
        level = np.ones(len(own))
        for _ in range(_ROUNDS):
            light = _combined(smallest, own, offset, level, robust=robust)
            level = _levels(smallest, own, offset, light)
            level = level / np.median(level[np.isfinite(level)])
            spread = float(np.sqrt(np.nanmean((level - 1) ** 2)))
            if spread > _LEAST_SPREAD:
                offset = _meeting_point(smallest, own, offset + light)
        lights = tuple(
            _combined(means, own, offset, level, robust=robust) for means in planes.means
        )
        everywhere = _levels(smallest, np.arange(len(smallest)), offset, lights[0])
        return cls(offset, lights, everywhere, len(own))


def _first_offset(planes: Windows, own: NDArray[np.intp]) -> float:
    """Where the noise would be none; where it does not tell, what a usual fall-off tells."""
    smallest, noise = planes.means[0], planes.noise
    parts = parts_of(smallest.shape[1], len(own))
    counts = np.concatenate([mean_of_known(part_of(smallest, own, part), 0) for part in parts])
    usual = float(2 * np.nanmin(counts) - np.nanmax(counts))
    return _bounded(-noise.intercept / noise.slope if noise.slope > 0 else usual, counts)


def _bounded(offset: float, counts: FloatArray) -> float:
    """An offset that the darkest place allows, whatever counts were added to the image."""
    darkest, fall = float(np.nanmin(counts)), float(np.nanmax(counts) - np.nanmin(counts))
    least = max(fall, _LEAST_FALL)
    return min(max(offset, darkest - _MOST_LIGHT * least), darkest - _LEAST_LIGHT * least)


def _combined(
    means: FloatArray, own: NDArray[np.intp], offset: float, level: FloatArray, *, robust: bool
) -> FloatArray:
    """The light of a typical plane from planes of known brightness; NaN where none has data."""
    parts = parts_of(means.shape[1], len(own))
    typical = _median_light if robust else _mean_light
    return np.concatenate([typical(part_of(means, own, part) - offset, level) for part in parts])


def _median_light(light: FloatArray, level: FloatArray) -> FloatArray:
    """Of windows over planes of known brightness."""
    known = np.isfinite(light) & np.isfinite(level)[:, None]
    columns = known.any(axis=0)
    scaled = np.where(known, light / level[:, None], np.nan)
    result = np.full(light.shape[1], np.nan)
    result[columns] = np.nanmedian(scaled[:, columns], axis=0)
    return result


def _mean_light(light: FloatArray, level: FloatArray) -> FloatArray:
    """The same with the noise of single planes weighed."""
    known = np.isfinite(light) & np.isfinite(level)[:, None]
    columns = known.any(axis=0)
    weight = np.where(known, level[:, None], 0.0)
    total = (np.where(known, light, 0.0) * weight).sum(axis=0)
    result = np.full(light.shape[1], np.nan)
    result[columns] = total[columns] / (weight**2).sum(axis=0)[columns]
    return result


def _levels(
    means: FloatArray, own: NDArray[np.intp], offset: float, typical: FloatArray
) -> FloatArray:
    """Brightness of planes: the median ratio, which sample in a part of a plane leaves alone."""
    result = np.full(len(own), np.nan)
    for part in parts_of(len(own), len(typical)):
        ratio = (part_of(means, own[part]) - offset) / typical
        finite = np.isfinite(ratio)
        whole, some = finite.all(axis=1), finite.any(axis=1)
        found = result[part]
        found[whole] = np.median(ratio[whole], axis=1)
        found[some & ~whole] = np.nanmedian(ratio[some & ~whole], axis=1)
    return result


def _meeting_point(means: FloatArray, own: NDArray[np.intp], typical: FloatArray) -> float:
    """The offset at which the lines of all planes in the typical one meet."""
    lines = [
        _line_in(part_of(means, own[part]), typical) for part in parts_of(len(own), len(typical))
    ]
    slope, start = (np.concatenate(values) for values in zip(*lines, strict=True))
    lack = 1 - slope
    power = float((lack**2).sum())
    return _bounded(float((lack * start).sum()) / power if power > 0 else 0.0, typical)


def _line_in(own: FloatArray, typical: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slope and start of planes as lines in the typical one, of those where it is not even."""
    both = np.isfinite(own) & np.isfinite(typical)
    number = np.maximum(both.sum(axis=1), 1)
    x, y = np.where(both, typical, 0.0), np.where(both, own, 0.0)
    x_mean, y_mean = x.sum(axis=1) / number, y.sum(axis=1) / number
    centred = np.where(both, typical - x_mean[:, None], 0.0)
    square = (centred**2).sum(axis=1)
    usable = square > 0
    slope = (centred * y).sum(axis=1)[usable] / square[usable]
    return slope, y_mean[usable] - slope * x_mean[usable]
