"""Estimates from neighbourhoods, and places whose neighbourhood holds no usable pixel.

Such a place, in the middle of a large object, gets the estimate of the nearest place that has one,
however far it is. All others follow from what is near: a stack can be estimated in parts, and what
is far be looked for plane by plane.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.masks import fill_from_nearest

Array = NDArray[np.float32]
Bool = NDArray[np.bool_]

_NOWHERE = np.iinfo(np.int64).max

_MOST_PLACES = 2**22
"""Places that are looked for at a time, and `_AT_ONCE` of these that are compared at a time."""

_AT_ONCE = 2**18


@dataclass(frozen=True)
class LocalEstimate:
    """What the neighbourhoods of a plane or stack say.

    Attributes:
        numbers: (y, x) or (z, y, x); one for each pixel, or for each block of pixels.
        unsupported: same shape, True where a neighbourhood has no usable pixel; the number there
            means nothing. None where all have one.
    """

    numbers: Array
    unsupported: Bool | None = None

    @classmethod
    def of(cls, numbers: Array, unsupported: Bool) -> LocalEstimate:
        """The estimate, of a mask that may mark nothing."""
        return cls(numbers, unsupported if unsupported.any() else None)

    def at(self, index: Any) -> LocalEstimate:
        """The same of some planes, or of a part."""
        marks = None if self.unsupported is None else self.unsupported[index]
        if marks is None or not marks.any():
            return LocalEstimate(self.numbers[index])
        return LocalEstimate(self.numbers[index], marks)

    def filled(self) -> Array:
        """All numbers, those that mean nothing from the nearest that do."""
        if self.unsupported is None or self.unsupported.all():
            return self.numbers
        return fill_from_nearest(self.numbers, self.unsupported)


class FromNeighbourhoods(ABC):
    """A background method that estimates from neighbourhoods, over planes as well."""

    @abstractmethod
    def local(self, values: NDArray[Any], ignored: Bool | None) -> LocalEstimate:
        """What the neighbourhoods say; arguments as for `BackgroundMethod.estimate`."""

    @property
    def grid_px(self) -> int:
        """Side of the blocks of pixels that have a number each."""
        return 1

    def spread(self, numbers: Array, shape: tuple[int, ...]) -> Array:
        """The background of all pixels, of an image of a shape, from numbers for its blocks."""
        return numbers


def nearest_supported(
    wanted: Bool,
    z: int,
    depth: int,
    plane: Callable[[int], LocalEstimate],
) -> Array | None:
    """For places of a plane, the numbers of the nearest places of a stack that have one.

    The same as `fill_from_nearest` of the whole stack: of places that are equally far it takes the
    one of the smallest x, then y, then z. Planes are asked for from near to far, until none can
    hold a nearer one.

    Args:
        wanted: (y, x), the places.
        z: of the plane.
        depth: of the stack.
        plane: gives the estimate (y, x) of a plane.

    Returns:
        A number for each place, in their order; None where the stack holds none at all.
    """
    indices = np.flatnonzero(wanted)
    found = np.empty(indices.size, np.float32)
    for start in range(0, indices.size, _MOST_PLACES):
        part = slice(start, start + _MOST_PLACES)
        y, x = np.unravel_index(indices[part], wanted.shape)
        places = _Places(y.astype(np.int32), x.astype(np.int32))
        for step in range(depth):
            if places.distance.max() < step**2:
                break
            for other in sorted({z - step, z + step} & set(range(depth))):
                places.look_at(plane(other), other, step)
        if places.distance.max() == _NOWHERE:
            return None
        found[part] = places.numbers
    return found


class _Places:
    """Places of a plane, and the nearest that was found for each."""

    def __init__(self, y: NDArray[np.int32], x: NDArray[np.int32]) -> None:
        self._y, self._x = y, x
        self.distance = np.full(y.size, _NOWHERE)
        self.numbers = np.zeros(y.size, np.float32)
        # By x, y, z, in which order ties are settled.
        self._found = np.zeros((3, y.size), np.int32)

    def look_at(self, estimate: LocalEstimate, z: int, step: int) -> None:
        """Look for nearer ones in a plane that is so many planes away; distances are squared."""
        unsupported, nearest = estimate.unsupported, None
        if unsupported is not None:
            if unsupported.all():
                return
            from scipy.ndimage import distance_transform_edt

            nearest = distance_transform_edt(
                unsupported, return_distances=False, return_indices=True
            )
        for start in range(0, self._y.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            y, x = self._y[part], self._x[part]
            row, column = (y, x) if nearest is None else (index[y, x] for index in nearest)
            away = step**2 + (row - y).astype(np.int64) ** 2 + (column - x).astype(np.int64) ** 2
            here, distance = np.stack([column, row, np.full_like(row, z)]), self.distance[part]
            nearer = (away < distance) | ((away == distance) & _before(here, self._found[:, part]))
            distance[nearer], self._found[:, part][:, nearer] = away[nearer], here[:, nearer]
            self.numbers[part][nearer] = estimate.numbers[row[nearer], column[nearer]]


def _before(one: NDArray[np.int32], other: NDArray[np.int32]) -> Bool:
    """Whether the columns of an array come before those of another, by their first difference."""
    result = np.zeros(one.shape[1], np.bool_)
    equal = ~result
    for a, b in zip(one, other, strict=True):
        result |= equal & (a < b)
        equal &= a == b
    return result
