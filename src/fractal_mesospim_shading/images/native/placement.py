"""Where the stacks and tiles of a mosaic lie: in the image, and where they really were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.images.native.stack import Stack


@dataclass(frozen=True)
class PlacedStack:
    """A stack at its place in a mosaic.

    Attributes:
        channel: index along the c axis.
        tile: number of the tile.
        stack: what is pasted there.
        first_plane: plane of the mosaic that holds the stack's lowest plane.
    """

    channel: int
    tile: int
    stack: Stack
    first_plane: int

    @property
    def planes(self) -> range:
        """Planes of the mosaic that this stack fills."""
        return range(self.first_plane, self.first_plane + self.stack.planes_found)

    def planes_in_array(self, z: slice) -> slice:
        """Where planes of the mosaic lie in the array, in rising order of the array.

        Args:
            z: range of mosaic planes that the stack fills.
        """
        start, stop = z.start - self.first_plane, z.stop - self.first_plane
        if self.stack.downward:
            last = self.stack.planes_found
            return slice(last - stop, last - start)
        return slice(start, stop)

    def plane_of(self, index: int) -> int:
        """The plane of the mosaic that a plane of the array is."""
        return self.planes[-1 - index if self.stack.downward else index]

    def handed_on(self, z: int) -> int:
        """Planes from one of the mosaic upward that lie in a chunk with the plane below it."""
        if not self.planes.start < z < self.planes.stop:
            return 0
        depth, last = self.stack.levels[0].chunks[0], self.stack.planes_found
        index = self.planes_in_array(slice(z, z + 1)).start
        if self.stack.downward:
            return int((index + 1) % depth)
        return int(min(-index % depth, last - index))


@dataclass(frozen=True)
class TilePlace:
    """Where a tile really was, as opposed to its place edge to edge.

    Attributes:
        number: of the tile, inverted N by position.
        name: what the acquisition calls it.
        stage_x_um, stage_y_um: position of the stage.
        x_px, y_px: origin in the orientation of the image, not rounded; the smallest is 0.
        x_um, y_um: the same in micrometers.
    """

    number: int
    name: str
    stage_x_um: float
    stage_y_um: float
    x_px: float
    y_px: float
    x_um: float
    y_um: float


def side_by_side(
    places: NDArray[np.float64], size: float, aside: float
) -> Iterator[tuple[int, int]]:
    """Stacks that overlap along the first axis and lie side by side; each is held against its row.

    Args:
        places: (n, 2) along the axis and across it.
        size: of a stack along the axis.
        aside: how far both may lie from one line.
    """
    order = np.argsort(places[:, 1], kind="stable")
    along, across = places[order].T
    # A little more than needed is compared: sums are rounded.
    ends = np.searchsorted(across, across + 1.001 * aside, "right")
    for k, end in enumerate(ends):
        shift = np.abs(along[k + 1 : end] - along[k])
        near = np.abs(across[k + 1 : end] - across[k]) <= aside
        chosen = np.flatnonzero((0.05 * size < shift) & (shift < 0.99 * size) & near)
        for other in order[k + 1 + chosen]:
            first, second = sorted((int(order[k]), int(other)))
            yield first, second
