"""Which zeros of a plane are no data.

A 0 is either a value (clipped, deconvolved, counted photons) or stands where nothing was
recorded. Only the pixels are asked, never how they are stored. No data are

- a plane of a tile that is 0 throughout, and
- its margins: rows or columns that are 0 from an edge of the tile inwards, up to data.

Every other 0 is a value. Sparse objects on a true 0 have rows of zeros at the edges as well, so a
margin has to end at data that do not come down to 0 by themselves: there is a step in the number of
pixels that the lines hold, and in their sums (`_steps`), unless all of them are far above 0; and 0
is rare beside it (`_MOST_ZEROS`).

Planes of any size are looked at box by box: all that is kept are sums of lines and facts of cells
of 8 x 8 pixels, which do not depend on the boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import kernel
from fractal_mesospim_shading.errors import BackgroundError

ZeroIs = Literal["auto", "data", "no_data"]
"""What a person says about pixels of 0."""

ZeroRule = Literal["look", "margins", "data", "no_data"]
"""What is done: `look` at the pixels; the same, with whatever is 0 at the edges for `margins`; take
all zeros for one or the other."""

Span = tuple[int, int]

BLOCK_PX = 32
"""Zeros within the data are worth a word where they form blocks of more than this squared."""

_CELL = 8
"""Side of a cell."""

_BESIDE = 32
"""Pixels beside a margin in which 0 has to be rare."""

_MOST_ZEROS = 1 / 16
"""Share of zeros beside a margin, and `_MOST_MIXED` of cells with some, above which 0 is a value
that these data take. A ragged edge has many zeros, but few such cells."""

_MOST_MIXED = 1 / 2
_MOST_WITHIN = 1 / 2
"""Share of zeros within all margins above which there are none: what is left is sparse."""

_FULL_AT, _STEP_AT = (1, 2), (1, 2, 4, 8)
"""Lines beside a margin at which a step in the number of pixels, and in the sums, is looked for."""

_STEEPEST = 5 / 4
"""Lines `a` and `2 a + 1` beside a margin are as far apart as `a` from its last line: data that
fade to 0 in proportion double between the two, the tip of anything round grows by up to 1.4."""

_SMALLEST = 32
"""Lines that data hold at least beside margins, or a quarter of the tile."""

_FAR_SHARE = 1 / 10
_FAR_COUNTS = 4
"""Data beside zeros are far above 0 where the least in a cell is more than a tenth of the greatest
in the 5 x 5 cells around it, and more than a few counts where pixels are whole counts."""


def zero_rule(zero_is: ZeroIs, held: bool | None = None) -> ZeroRule:
    """What is done about the zeros of an image.

    Args:
        zero_is: as a person says it.
        held: for a result of ours, whether it holds pixels without data; it decides before its
            pixels do. None where that is not known.

    Raises:
        BackgroundError: anything else.
    """
    if zero_is not in get_args(ZeroIs):
        raise BackgroundError(
            f"`zero_is` is {zero_is!r}; expected one of {', '.join(get_args(ZeroIs))}."
        )
    if held not in (None, True, False):
        raise BackgroundError(f"holds_no_data is {held!r}; expected True, False or None.")
    if zero_is != "auto":
        return zero_is
    if held is None:
        return "look"
    return "margins" if held else "data"


@dataclass(frozen=True)
class DataBox:
    """Where a plane of a tile holds data; all around it are zeros (and NaN) without any.

    Attributes:
        rows, columns: ranges of pixels within the tile; empty where nothing was recorded.
        blocks: a pixel (y, x) of each block of more than 32 x 32 zeros within the box that lies
            beside data far above 0.
    """

    rows: slice
    columns: slice
    blocks: tuple[tuple[int, int], ...] = ()

    def outside(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """The pixels of a part of the tile that lie outside of the box: (y, x), True for these."""
        result = np.ones((rows.stop - rows.start, columns.stop - columns.start), np.bool_)
        pairs = ((self.rows, rows.start), (self.columns, columns.start))
        result[tuple(slice(max(s.start - at, 0), max(s.stop - at, 0)) for s, at in pairs)] = False
        return result


class ZeroTally:
    """Gathers the planes of a tile from boxes, in any order; each pixel once."""

    def __init__(self, planes: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Make room for a number of planes of a tile of that shape (y, x)."""
        self.shape = shape
        cells = (planes, -(-shape[0] // _CELL), -(-shape[1] // _CELL))
        kind = _looked_at(dtype)
        self._counts = tuple(np.zeros((planes, size), np.int64) for size in shape)
        self._sums = tuple(np.zeros((planes, size), np.float64) for size in shape)
        self._zeros = np.zeros(cells, np.uint8)
        self._recorded = np.zeros(cells, np.uint8)
        self._greatest = np.zeros(cells, kind)
        top = np.iinfo(kind).max if np.issubdtype(kind, np.integer) else np.inf
        self._least = np.full(cells, top, kind)

    @staticmethod
    def bytes_a_plane(shape: tuple[int, int], dtype: np.dtype[Any]) -> int:
        """What a plane of a tile of that shape takes in memory."""
        cells = -(-shape[0] // _CELL) * -(-shape[1] // _CELL)
        return 16 * sum(shape) + cells * (2 + 2 * _looked_at(dtype).itemsize)

    def add(self, pixels: NDArray[Any], y0: int, x0: int) -> None:
        """Add a box (n, y, x) that holds a part of every plane and begins at (y0, x0)."""
        block = np.ascontiguousarray(pixels, dtype=self._least.dtype)
        lines = (*self._counts, *self._sums)
        cells = (self._zeros, self._recorded, self._least, self._greatest)
        _tally(block, y0, x0, _CELL, lines, cells)

    def boxes(self, rule: ZeroRule = "look") -> tuple[DataBox, ...]:
        """Where each of the planes holds data.

        Args:
            rule: `margins` takes all zeros from the edges inwards for margins; `look` those that
                end at data that do not fade to 0.
        """
        return tuple(self._box(plane, rule) for plane in range(len(self._zeros)))

    def _box(self, plane: int, rule: ZeroRule) -> DataBox:
        recorded = [np.flatnonzero(counts[plane]) for counts in self._counts]
        if not recorded[0].size:
            return DataBox(slice(0, 0), slice(0, 0))
        inner = [(int(lines[0]), int(lines[-1]) + 1) for lines in recorded]
        if rule != "margins":
            inner = self._within_margins(plane, inner)
        return DataBox(slice(*inner[0]), slice(*inner[1]), self._blocks(plane, inner))

    def _within_margins(self, plane: int, inner: list[Span]) -> list[Span]:
        """The box without the margins that are none."""
        whole = [(0, size) for size in self.shape]
        for (start, stop), size in zip(inner, self.shape, strict=True):
            if stop - start < min(_SMALLEST, size / 4):
                return whole
        zeros = self._zeros_within(plane, inner)
        result = []
        for axis, ((start, stop), size) in enumerate(zip(inner, self.shape, strict=True)):
            if start and not self._is_margin(plane, zeros, axis, inner, first=True):
                start = 0
            if stop < size and not self._is_margin(plane, zeros, axis, inner, first=False):
                stop = size
            result.append((start, stop))
        within = self._zeros_within(plane, result).sum()
        return whole if within > _MOST_WITHIN * self._pixels(result).sum() else result

    def _is_margin(
        self, plane: int, zeros: NDArray[np.int64], axis: int, inner: list[Span], *, first: bool
    ) -> bool:
        """Whether the zeros before the first lines of a box, or behind the last, end at data."""
        start, stop = inner[axis]
        if first:
            cells = start // _CELL, -(-(start + _BESIDE) // _CELL)
            edge = cells[0]
        else:
            cells = max(stop - _BESIDE, 0) // _CELL, -(-stop // _CELL)
            edge = cells[1] - 1
        counts, sums = (
            lines[axis][plane][start:stop][:: 1 if first else -1]
            for lines in (self._counts, self._sums)
        )
        at_edge = np.zeros(zeros.shape, np.bool_)
        at_edge[(slice(None),) * axis + (edge,)] = True
        begin = _steps(counts, _FULL_AT) and (
            _steps(sums, _STEP_AT) or self._far_above_0(plane, at_edge)
        )
        return begin and self._rare(plane, zeros, axis, cells)

    def _zeros_within(self, plane: int, inner: list[Span]) -> NDArray[np.int64]:
        """Zeros of each cell that lie in a box outside of which there is nothing else."""
        around = self._pixels([(0, size) for size in self.shape]) - self._pixels(inner)
        zeros: NDArray[np.int64] = np.maximum(self._zeros[plane].astype(np.int64) - around, 0)
        return zeros

    def _pixels(self, box: list[Span]) -> NDArray[np.int64]:
        """Pixels of each cell that lie in a box."""
        along = []
        for size, part in zip(self.shape, box, strict=True):
            edges = np.append(np.arange(0, size, _CELL), size)
            along.append(np.diff(np.clip(edges, *part)))
        pixels: NDArray[np.int64] = along[0][:, None] * along[1]
        return pixels

    def _rare(
        self, plane: int, zeros: NDArray[np.int64], axis: int, cells: tuple[int, int]
    ) -> bool:
        """Whether 0 is rare in the cells of some lines, of those that hold data."""
        part = (slice(None),) * axis + (slice(*cells),)
        recorded = self._recorded[plane][part].astype(np.int64)
        data = recorded > 0
        zero = zeros[part][data]
        few = zero.sum() <= _MOST_ZEROS * (zero.sum() + recorded.sum())
        return bool(few or np.count_nonzero(zero) <= _MOST_MIXED * np.count_nonzero(data))

    def _blocks(self, plane: int, inner: list[Span]) -> tuple[tuple[int, int], ...]:
        zeros = self._zeros_within(plane, inner)
        if not (zeros.sum() > BLOCK_PX**2):
            return ()
        import cv2

        inside = self._pixels(inner)
        empty = ((zeros == inside) & (inside > 0)).astype(np.uint8)
        near = np.ones((3, 3), np.uint8)
        wide = np.asarray(cv2.erode(np.pad(empty, 1), near))[1:-1, 1:-1] > 0
        edge = np.asarray(cv2.dilate(empty, near)) > 0
        if not wide.any() or not self._far_above_0(plane, edge):
            return ()
        labels = np.asarray(cv2.connectedComponents(empty, connectivity=8)[1])
        blocks = []
        for label in np.unique(labels[wide]):
            own = (labels == label).astype(np.uint8)
            around = np.asarray(cv2.dilate(own, near)) > 0
            if zeros[around].sum() > BLOCK_PX**2:
                y, x = (int(index[0]) for index in np.nonzero(own))
                blocks.append((max(y * _CELL, inner[0][0]), max(x * _CELL, inner[1][0])))
        return tuple(blocks)

    def _far_above_0(self, plane: int, cells: NDArray[np.bool_]) -> bool:
        """Whether most of some cells beside zeros come nowhere near 0, of those with data."""
        import cv2

        cells = cells & (self._recorded[plane] > 0)
        least, greatest = self._least[plane], self._greatest[plane].astype(np.float32)
        around = np.asarray(cv2.dilate(greatest, np.ones((5, 5), np.uint8)))
        far = least[cells] > _FAR_SHARE * around[cells]
        if np.issubdtype(least.dtype, np.integer):
            far &= least[cells] > _FAR_COUNTS
        return bool(far.size) and bool(far.mean() > 0.5)


def data_box(plane: NDArray[Any], rule: ZeroRule = "look") -> DataBox:
    """Where a plane (y, x) of a whole tile holds data; the rule as for `ZeroTally.boxes`."""
    height, width = plane.shape
    if not (plane == 0).any():
        return DataBox(slice(0, height), slice(0, width))
    tally = ZeroTally(1, (height, width), plane.dtype)
    tally.add(plane[None], 0, 0)
    return tally.boxes(rule)[0]


def zeros_without_data(
    planes: NDArray[Any], rule: ZeroRule
) -> tuple[NDArray[np.bool_] | None, int]:
    """The pixels of 0 that are no data, of whole planes (..., y, x) of a tile, each by itself.

    Returns:
        bool of the same shape, or None where there are none; and the number of blocks of zeros
        that are worth a word, see `DataBox.blocks`.
    """
    if rule == "data":
        return None, 0
    zero, blocks = np.asarray(planes == 0), 0
    if rule != "no_data":
        for index in np.ndindex(*planes.shape[:-2]):
            if zero[index].any():
                box = data_box(planes[index], rule)
                zero[(*index, box.rows, box.columns)] = False
                blocks += len(box.blocks)
    return (zero if zero.any() else None), blocks


def _steps(lines: NDArray[Any], places: tuple[int, ...]) -> bool:
    """Whether lines begin with a step: extended to the margin, they do not come near 0.

    Args:
        lines: recorded pixels of the lines, or their sums, the outermost first.
        places: of the lines to look at, any of which will do.
    """
    inside = (at for at in places if 2 * at + 1 < len(lines))
    return any(lines[2 * at + 1] < _STEEPEST * lines[at] for at in inside)


def _looked_at(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which pixels are looked at: few, for each is compiled for itself."""
    kind = dtype.newbyteorder("=")
    return kind if kind.name in ("uint8", "uint16", "float32") else np.dtype(np.float64)


@kernel
def _tally(block, y0, x0, cell, lines, cells):  # type: ignore[no-untyped-def]
    """Add a box (n, y, x) of planes, which begins at (y0, x0), to what is gathered of them.

    Recorded is what is finite and not 0; its absolute value is summed and compared.

    Args:
        block, y0, x0, cell: the box, its place, and the side of a cell.
        lines: (n, lines) each: recorded pixels of rows and of columns, and sums of both.
        cells: (n, y, x) each: zeros, recorded pixels, the least and the greatest of these.
    """
    row_counts, column_counts, row_sums, column_sums = lines
    zeros, recorded, least, greatest = cells
    width = block.shape[2]
    for n in range(block.shape[0]):
        for y in range(block.shape[1]):
            row, count, total = (y0 + y) // cell, 0, 0.0
            for column in range(x0 // cell, (x0 + width - 1) // cell + 1):
                none, some = 0, 0
                low, high = least[n, row, column], greatest[n, row, column]
                for x in range(max(column * cell - x0, 0), min((column + 1) * cell - x0, width)):
                    value = abs(block[n, y, x])
                    if value == 0:
                        none += 1
                    elif np.isfinite(value):
                        some += 1
                        total += value
                        column_counts[n, x0 + x] += 1
                        column_sums[n, x0 + x] += value
                        low, high = min(low, value), max(high, value)
                count += some
                zeros[n, row, column] += np.uint8(none)
                recorded[n, row, column] += np.uint8(some)
                least[n, row, column], greatest[n, row, column] = low, high
            row_counts[n, y0 + y] += count
            row_sums[n, y0 + y] += total
