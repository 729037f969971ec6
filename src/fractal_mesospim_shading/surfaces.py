"""Backgrounds that follow from a small description of a whole plane.

Medians of tiles and their spline, or one number: found once for a plane, they are evaluated in
every block that cuts it. So planes of any size are corrected in blocks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.core.background.local_filters import Constant
from fractal_mesospim_shading.core.background.methods import TileMedian

_KEPT = 512


class Surface(Protocol):
    """The background of a plane, to be evaluated in parts."""

    def background(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Of a part of the plane, (y, x)."""

    def noise_map(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """The standard deviation of the same part."""


@dataclass(frozen=True)
class Level:
    """A surface of one value."""

    value: float

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
    """

    has_data: bool


def uses_surface(method: BackgroundMethod) -> bool:
    """Whether a method finds a surface for a plane."""
    return isinstance(method, TileMedian) or (isinstance(method, Constant) and method.value is None)


class Surfaces:
    """Surfaces of planes by what they belong to; each is made by one thread, others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[Any, Future[Surface | Nothing]] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Surface | Nothing]) -> Surface | Nothing:
        """The surface of a key; made where it is not there."""
        mine: Future[Surface | Nothing] = Future()
        with self._lock:
            held = self._held.setdefault(key, mine)
            while len(self._held) > _KEPT:
                self._held.popitem(last=False)
        if held is mine:
            try:
                mine.set_result(make())
            except BaseException as error:
                mine.set_exception(error)
                with self._lock:
                    self._held.pop(key, None)
                raise
        return held.result()


kept = Surfaces()
"""Of this process."""
