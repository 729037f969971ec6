"""Planes that could share one shape: a first guess, from which the shape is made.

Planes of medium are straight lines in each other, wherever they were taken; planes of sample are
lines only in their own neighbours. So the plane is taken that most tiles agree with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.emptiness.changes import mean_of_known, part_of
from fractal_mesospim_shading.core.emptiness.windows import Windows

FloatArray = NDArray[np.float64]

# Neighbouring planes that are averaged, and how many of these are compared at most.
_SHEET = 4
_MOST_SHEETS = 300
# Two agree where they differ by no more than this times their noise, or this share of the light.
_MOST_NOISE = 1.5
_LEAST_DIFFERENCE = 0.003
# Spread of a flat-field, about, which tells the light without its offset.
_TYPICAL_SPREAD = 0.2
# Times that one may be brighter than the other.
_MOST_BRIGHTER = 3.0


def first_members(planes: Windows) -> NDArray[np.bool_]:
    """(n,) planes that agree with the one that most tiles agree with; none where there is none."""
    members = np.zeros(len(planes.tile), np.bool_)
    sheets = _sheets(planes)
    if len(sheets) < 2:
        return members
    agree, level = _agreement(planes, sheets)
    tile = np.array([planes.tile[sheet[0]] for sheet in sheets])
    support = sum(agree[tile == one].any(axis=0).astype(int) for one in np.unique(tile))
    number = agree.sum(axis=0)
    best = max(range(len(sheets)), key=lambda k: (support[k], number[k], -level[k]))
    for k in np.flatnonzero(agree[:, best]):
        members[sheets[k]] = True
    return members


def _sheets(planes: Windows) -> list[NDArray[np.intp]]:
    """Some neighbouring planes each, all with data, evenly spread where there are many."""
    known = np.flatnonzero(planes.known)
    sheets = []
    for own in np.split(known, np.flatnonzero(np.diff(planes.run[known])) + 1):
        sheets += [own[k : k + _SHEET] for k in range(0, len(own), _SHEET)]
    chosen = np.linspace(0, len(sheets) - 1, min(_MOST_SHEETS, len(sheets)))
    return [sheets[int(k)] for k in np.round(chosen)]


def _agreement(
    planes: Windows, sheets: list[NDArray[np.intp]]
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Which sheets are lines in which others, and how bright each is."""
    counts, variance = [], []
    for sheet in sheets:
        own = part_of(planes.means[0], sheet)
        known = np.isfinite(own).all(axis=0)
        mean = np.where(known, own.mean(axis=0), np.nan)
        counts.append(mean)
        variance.append(planes.variance(0, mean)[known].sum() / max(known.sum(), 1) / len(sheet))
    values, noise = np.array(counts), np.array(variance)
    level = mean_of_known(values, 1)
    # Sums over the windows that both have, for the line of each sheet (rows) in each (columns).
    weight = np.isfinite(values).astype(np.float64)
    y = np.nan_to_num(values - np.mean(values[np.isfinite(values)]))
    number = np.maximum(_products(weight, weight), 1)
    sums = _products(y, weight)
    own = _products(y**2, weight) - sums**2 / number
    common = _products(y, y) - sums * sums.T / number
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = common / own.T
        residual = (own - slope * common) / number
        least = (_LEAST_DIFFERENCE * np.sqrt(own / number) / _TYPICAL_SPREAD) ** 2
        expected = _MOST_NOISE * (noise[:, None] + slope**2 * noise[None]) + least
        agree = (residual <= expected) & (slope > 1 / _MOST_BRIGHTER) & (slope < _MOST_BRIGHTER)
    return agree & (2 * number > values.shape[1]), level


def _products(one: FloatArray, other: FloatArray) -> FloatArray:
    """Sums of products of the rows, in an order that depends on no library and no machine."""
    return np.asarray(np.einsum("iw,jw->ij", one, other, optimize=False))
