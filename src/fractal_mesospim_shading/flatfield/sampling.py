"""Read the planes of an estimate: in boxes of whole chunks, each chunk once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.blocks import grouped
from fractal_mesospim_shading.core.flatfield.binning import (
    BinnedPlanes,
    BinnedStack,
    PartialBins,
    bin_block,
)
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.memory import freed_memory_kept
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.source import MultitileImage

T = TypeVar("T")

PlaneRef = tuple[int, int]
"""(tile number, plane); planes of later time points go on counting."""

_BOX_BYTES = 8 * 2**20
"""Small chunks are read together up to this many bytes."""


@dataclass(frozen=True)
class Sample:
    """Planes of one channel at one level of the pyramid.

    Attributes:
        channel: index along c.
        level: of the pyramid.
        planes: which, sorted by tile and plane.
        layout: where the tiles lie at that level.
        bin_px: side of a bin, None for the one that suits the tile.
    """

    channel: int
    level: int
    planes: tuple[PlaneRef, ...]
    layout: TileLayout
    bin_px: int | None = None


def layout_at_level(image: MultitileImage, level: int) -> TileLayout:
    """The tiles on the pixel grid of a coarser level.

    Tiles keep one common shape; an origin that falls between two coarse pixels moves
    by half of one at most.
    """
    layout = image.layout
    if level == 0:
        return layout
    fine, coarse = image.levels[0], image.levels[level]
    factor = [max(1, round(a / b)) for a, b in zip(coarse.scale[-2:], fine.scale[-2:], strict=True)]
    height, width = (max(1, n // f) for n, f in zip(layout.tile_shape, factor, strict=True))
    plane = coarse.shape[-2], coarse.shape[-1]
    height, width = min(height, plane[0]), min(width, plane[1])
    origins = [
        (
            min(round(tile.y / factor[0]), plane[0] - height),
            min(round(tile.x / factor[1]), plane[1] - width),
        )
        for tile in layout.tiles
    ]
    names = [tile.name for tile in layout.tiles]
    return TileLayout.from_origins(origins, (height, width), plane, names)


def z_factor(image: MultitileImage, level: int) -> int:
    """How many planes of full resolution one plane of a level stands for."""
    axis = image.axes.position("z")
    if axis is None:
        return 1
    ratio = image.levels[level].scale[axis] / image.levels[0].scale[axis]
    return max(1, round(ratio))


def plane_count(image: MultitileImage, level: int) -> int:
    """Planes of a tile at a level, of one time point."""
    return image.axes.length("z", image.levels[level].shape)


def time_count(image: MultitileImage) -> int:
    """Time points of an image."""
    return image.axes.length("t", image.levels[0].shape)


def read_sample(
    image: MultitileImage,
    sample: Sample,
    *,
    dark: NDArray[np.float32] | float | None,
    zero_is_no_data: bool,
    workers: int,
) -> BinnedStack:
    """Read the planes of a sample and reduce them to bins.

    Args:
        image: to read from.
        sample: which planes.
        dark: measured dark frame of a tile at this level, or a number, in counts.
        zero_is_no_data: leave out pixels of raw value 0.
        workers: boxes read at a time.

    Raises:
        SourceReadError: a chunk cannot be read.
    """
    binned = BinnedPlanes(len(sample.planes), sample.layout.tile_shape, sample.bin_px)
    slots = {plane: slot for slot, plane in enumerate(sample.planes)}

    def reduced(box: Box) -> list[tuple[PartialBins, list[int]]]:
        return _reduce(image, sample, box, slots, binned.bin_px, dark, zero_is_no_data)

    with freed_memory_kept:
        # Added here and in order, so that sums of floats do not depend on the workers.
        for parts in _in_order(reduced, sample_boxes(image, sample), workers):
            for partial, places in parts:
                binned.add(partial, places)
    return binned.finish(integer=np.issubdtype(image.dtype, np.integer))


def _in_order(function: Callable[[Box], T], boxes: Iterable[Box], workers: int) -> Iterator[T]:
    """The results of a function in the order of the boxes, of which few are held at a time."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for box in boxes:
                # What reads are noted by belongs to this thread's context.
                waiting.append(pool.submit(copy_context().run, function, box))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def sample_boxes(image: MultitileImage, sample: Sample) -> Iterator[Box]:
    """Boxes of whole chunks that hold the planes of a sample, none of them twice."""
    level = image.levels[sample.level]
    n_z = plane_count(image, sample.level)
    units = grouped(
        tuple(image.read_units(sample.level)),
        level.shape,
        max(1, _BOX_BYTES // image.dtype.itemsize),
        axes=2,
    )
    # At least two, for pairs of planes tell the noise from the fixed pattern.
    depth = max(2, image.axes.length("z", units))
    wanted: dict[tuple[int, int], dict[int, list[int]]] = {}
    for tile, plane in sample.planes:
        time, z = divmod(plane, n_z)
        wanted.setdefault((time, z // depth), {}).setdefault(tile, []).append(z)
    for (time, _), tiles in sorted(wanted.items()):
        planes = [z for chosen in tiles.values() for z in chosen]
        for y, x in _plane_boxes(sample.layout, tiles, units[-2:], level.shape[-2:]):
            place = {"t": slice(time, time + 1), "c": slice(sample.channel, sample.channel + 1)}
            place |= {"z": slice(min(planes), max(planes) + 1), "y": y, "x": x}
            yield image.axes.box(place)


def _plane_boxes(
    layout: TileLayout, tiles: Mapping[int, Any], units: Sequence[int], shape: Sequence[int]
) -> Iterator[tuple[slice, slice]]:
    """Boxes of the unit grid that a tile touches, in the order of the array."""
    touched: set[tuple[int, int]] = set()
    for number in tiles:
        tile = layout.tile(number)
        rows = range(tile.y // units[0], ceil((tile.y + layout.tile_shape[0]) / units[0]))
        columns = range(tile.x // units[1], ceil((tile.x + layout.tile_shape[1]) / units[1]))
        touched.update(product(rows, columns))
    for i, j in sorted(touched):
        yield (
            slice(i * units[0], min((i + 1) * units[0], shape[0])),
            slice(j * units[1], min((j + 1) * units[1], shape[1])),
        )


def _reduce(
    image: MultitileImage,
    sample: Sample,
    box: Box,
    slots: Mapping[PlaneRef, int],
    bin_px: int,
    dark: NDArray[np.float32] | float | None,
    zero_is_no_data: bool,
) -> list[tuple[PartialBins, list[int]]]:
    n_z = plane_count(image, sample.level)
    time = image.axes.span("t", box).start
    depth = image.axes.span("z", box)
    data = image.read(sample.level, box)
    planes = data.reshape((-1, *data.shape[-2:]))
    result = []
    for piece in sample.layout.pieces(box[-2], box[-1]):
        chosen = [
            z
            for z in range(depth.start, depth.stop)
            if (piece.tile.number, time * n_z + z) in slots
        ]
        if not chosen:
            continue
        inside = [z - depth.start for z in chosen]
        together = len(inside) == inside[-1] - inside[0] + 1
        place = slice(inside[0], inside[-1] + 1) if together else np.array(inside)
        block = planes[(place, *piece.in_box)]
        frame = dark[piece.in_tile] if isinstance(dark, np.ndarray) else dark
        y0, x0 = piece.in_tile[0].start, piece.in_tile[1].start
        partial = bin_block(block, y0, x0, bin_px, frame, zero_is_no_data)
        result.append((partial, [slots[piece.tile.number, time * n_z + z] for z in chosen]))
    return result


def box_bytes(image: MultitileImage, level: int) -> int:
    """Bytes of pixels that one box of a sample holds at most."""
    shape = image.levels[level].shape
    units = image.read_units(level)
    whole = prod(min(u, n) for u, n in zip(units, shape, strict=True)) * image.dtype.itemsize
    if "z" in image.axes and image.axes.length("z", units) == 1:
        whole *= 2
    return max(whole, _BOX_BYTES)
