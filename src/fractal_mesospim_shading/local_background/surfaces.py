"""Backgrounds that follow from a small description of a whole plane.

Medians of tiles and their spline, or one number: found once for a plane, they are evaluated in
every block that cuts it. So planes of any size are corrected in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.core.background.local_filters import Constant
from fractal_mesospim_shading.core.background.methods import TileMedian
from fractal_mesospim_shading.engine.kept import Kept


class Surface(Protocol):
    """The background of a plane, to be evaluated in parts; see `Level` for the attributes."""

    @property
    def share(self) -> float: ...

    @property
    def even(self) -> bool: ...

    def background(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Of a part of the plane, (y, x)."""

    def noise_map(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """The standard deviation of the same part."""


@dataclass(frozen=True)
class Level:
    """A surface of one value.

    Attributes:
        value: in counts.
        share: of the pixels with data, those that it rests on.
        even: whether parts of the plane should have had values of their own.
    """

    value: float
    share: float = 1.0
    even: bool = False

    def background(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return np.full(shape, self.value, np.float32)

    def noise_map(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        raise RuntimeError("a constant has no noise map")


@dataclass(frozen=True)
class Nothing:
    """What is found where no pixel can be used.

    Attributes:
        has_data: whether the plane holds pixels at all, which then are all masked.
        largest_dilation: of the objects that leaves a pixel; None where a dilation is not
            to blame.
    """

    has_data: bool
    largest_dilation: int | None = None


def uses_surface(method: BackgroundMethod) -> bool:
    """Whether a method finds a surface for a plane."""
    return isinstance(method, TileMedian) or (isinstance(method, Constant) and method.value is None)


kept: Kept[Surface | Nothing] = Kept(512)
"""Surfaces of planes, of this process."""
