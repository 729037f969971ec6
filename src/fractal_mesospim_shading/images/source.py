"""What the rest of the package needs to know about an image, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray


@dataclass(frozen=True)
class Channel:
    """One channel of an image.

    Attributes:
        index: position along the c axis, 0 where there is none.
        label: as people and model folders know it.
        wavelength_id: as Fractal knows it, where it is given.
    """

    index: int
    label: str
    wavelength_id: str | None = None


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Attributes:
        path: of the array within the group.
        shape: in pixels, one number an axis.
        chunks: shape of a chunk (within a shard, where there are shards).
        shards: shape of a shard, None where there are none.
        scale: size of a pixel, one number an axis, in the units of the axes.
    """

    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    scale: tuple[float, ...]


class MultitileImage(Protocol):
    """A multi-channel stack of planes, each plane a mosaic of tiles."""

    @property
    def url(self) -> str:
        """Address it was opened from."""

    @property
    def axes(self) -> str:
        """Names of the axes in order, such as `czyx`; `yx` come last."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels in the order of the c axis; one where there is no such axis."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest first."""

    @property
    def layout(self) -> TileLayout:
        """The tiles at full resolution."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels in native byte order: uint8, uint16 or float32."""

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """Read a box of a level, in native byte order.

        Raises:
            SourceReadError: a chunk cannot be read; the message names it.
        """

    def stored(self, level: int) -> Sequence[StoredArray]:
        """The arrays that the pixels of a level come from."""

    def read_units(self, level: int) -> Sequence[int]:
        """Shape of the smallest piece that is decoded as a whole, one number an axis."""

    def read_grain(self) -> Sequence[int]:
        """What boxes of level 0 should be multiples of, so that no chunk is decoded twice."""
