"""Sliding median, exact or on block means.

T. S. Huang, G. J. Yang and G. Y. Tang, "A fast two-dimensional median filtering
algorithm", IEEE Trans. ASSP 27(1), 1979, doi:10.1109/TASSP.1979.1163188.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from fractal_mesospim_shading.core.background.contract import MOST_PX, BackgroundMethod
from fractal_mesospim_shading.core.background.filters import (
    Shape,
    half_size,
    row_half_widths,
)
from fractal_mesospim_shading.core.background.inputs import check_z_radius
from fractal_mesospim_shading.core.background.masks import as_float32
from fractal_mesospim_shading.core.background.nearest import FromNeighbourhoods, LocalEstimate
from fractal_mesospim_shading.core.background.rank_filter import middle_numbers
from fractal_mesospim_shading.core.kernel_cache import kernel

_FRACTION = 16
"""Block means are counted in sixteenths of a count for integer images."""

_MOST_COUNTS = 2**16
"""Of so many different numbers each is counted; of more, pixels are ranked."""

_WHOLE_RANGE = 2**22
"""Integers are told apart to the last digit in images that span less than this."""


class MedianModel(FromNeighbourhoods, BackgroundMethod):
    """Sliding median."""

    model_config = ConfigDict(title="Median")
    arguments: ClassVar = ("radius_px", "shape", "exact", "radius_z_px")

    method: Literal["median"] = "median"
    radius: float = Field(
        default=25.0,
        gt=0,
        description="Radius of the neighbourhood: about three times the objects'.",
    )
    shape: Shape = Field(
        default="disk",
        description="Of the neighbourhood; imagej_disk is the slightly larger one of ImageJ.",
    )
    exact: bool = Field(
        default=False,
        description="Use every pixel. Otherwise means of small blocks, which is many times faster "
        "and less noisy.",
    )
    radius_z_planes: int | None = Field(
        default=None, ge=1, le=MOST_PX, description="Also over so many planes up and down."
    )

    @property
    def alignment_px(self) -> int:
        return 1 if self.exact else _block_px(self.radius)

    @property
    def bytes_a_pixel(self) -> int:
        return 48 if self.exact or self.depth_px else 17

    @property
    def halo_px(self) -> int | None:
        block = self.alignment_px
        half = half_size(self.radius / block, self.shape)
        # With blocks: the neighbour for the interpolation, and one that is cut.
        return half if block == 1 else (half + 2) * block

    @property
    def depth_px(self) -> int:
        return self.radius_z_planes or 0

    def estimate(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[Any]:
        return self.spread(self.local(values, ignored).filled(), values.shape)

    def local(self, values: NDArray[Any], ignored: NDArray[np.bool_] | None) -> LocalEstimate:
        block = self.alignment_px
        return _local_medians(values, ignored, self.radius, self.shape, self.radius_z_planes, block)

    @property
    def grid_px(self) -> int:
        return self.alignment_px

    def spread(self, numbers: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        return _enlarged(numbers, shape, self.grid_px)


def sliding_median(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    radius_px: float,
    shape: Shape = "disk",
    radius_z_px: int | None = None,
    *,
    exact: bool = True,
) -> NDArray[np.float32]:
    """The median of the neighbourhood of every pixel.

    Args:
        image: (y, x), or (z, y, x) if `radius_z_px` is given.
        ignored: same shape; pixels that do not count, or None.
        radius_px: about three times the radius of the objects: they must fill less
            than half of the neighbourhood, or they become background.
        shape: see `row_half_widths`.
        radius_z_px: planes to each side for a neighbourhood in three dimensions.
        exact: the median of all pixels. Otherwise that of the means of blocks of
            radius / 6 pixels, interpolated between their centres: 10 to 100 times
            faster, smoother, and less biased by bright objects.

    Returns:
        float32 of the image's shape. Pixels beyond the edge do not count; of an even
        number of pixels the median is the mean of the two middle ones. Exact for
        integers and floats; floats take several times longer, as they have to be sorted.

    Raises:
        BackgroundError: for a radius below 1.
    """
    block = 1 if exact else _block_px(radius_px)
    medians = _local_medians(image, ignored, radius_px, shape, radius_z_px, block).filled()
    return _enlarged(medians, image.shape, block)


def _local_medians(
    image: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    radius_px: float,
    shape: Shape,
    radius_z_px: int | None,
    block: int,
) -> LocalEstimate:
    """The medians of all pixels, or of the means of blocks of that many pixels."""
    widths = row_half_widths(radius_px, shape)
    check_z_radius(radius_z_px)
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if block == 1:
        return _median_of_codes(_codes(image, ignored), ignored, widths, radius_z_px)
    means, empty = _block_means(image, ignored, block)
    integer = np.issubdtype(image.dtype, np.integer)
    codes = _fine_codes(means, empty) if integer else _codes(means, empty)
    small_widths = row_half_widths(radius_px / block, shape)
    return _median_of_codes(codes, empty, small_widths, radius_z_px)


def _block_px(radius_px: float) -> int:
    """Side of the blocks whose means are taken for this radius: radius / 6, at least 1."""
    return max(1, int(radius_px // 6))


@dataclass(frozen=True)
class _Codes:
    """An image as small integers in the order of its values.

    Attributes:
        numbers: same shape as the image, int32, from 0.
        values: value of every number, ascending.
        ranks: whether every pixel has a number of its own, however many are equal.
    """

    numbers: NDArray[np.int32]
    values: NDArray[Any]
    ranks: bool

    def middle(self, lower: NDArray[np.int32], upper: NDArray[np.int32]) -> NDArray[np.float32]:
        """The mean of the values of two arrays of numbers."""
        pair = self.values[lower].astype(np.float64) + self.values[upper]
        pair *= 0.5
        middle: NDArray[np.float32] = pair.astype(np.float32)
        return middle


def _block_means(
    image: NDArray[Any], ignored: NDArray[np.bool_] | None, block: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Means of square blocks of each plane, and which blocks are empty.

    Blocks at the lower and right edge may be smaller. Sums are made in float64.
    """
    stack = image.reshape(-1, *image.shape[-2:])
    kept = np.zeros((1, 1, 1), np.bool_) if ignored is None else ignored.reshape(stack.shape)
    means, counts = _block_sums(np.ascontiguousarray(stack), kept, ignored is not None, block)
    empty = counts == 0
    means = means.reshape(*image.shape[:-2], *means.shape[-2:])
    return means, empty.reshape(means.shape) if empty.any() else None


def _codes(image: NDArray[Any], ignored: NDArray[np.bool_] | None) -> _Codes:
    if np.issubdtype(image.dtype, np.integer):
        lowest, highest = int(image.min()), int(image.max())
        if highest - lowest < _MOST_COUNTS:
            numbers = np.subtract(image, lowest, dtype=np.int64).astype(np.int32)
            values = np.arange(highest - lowest + 1, dtype=np.float64) + float(lowest)
            return _Codes(numbers, values, ranks=False)
        if highest - lowest < _WHOLE_RANGE:
            return _ranked(image.astype(np.float64), image)
    values = as_float32(image)
    if ignored is not None:
        values = np.where(ignored, values[~ignored][0], values)
    return _ranked(values, values)


def _fine_codes(means: NDArray[np.float32], empty: NDArray[np.bool_] | None) -> _Codes:
    sixteenths = np.rint(means.astype(np.float64) * _FRACTION)
    lowest = sixteenths.min() if empty is None else sixteenths[~empty].min()
    span = sixteenths.max() - lowest
    if span >= _WHOLE_RANGE:
        return _codes(means, empty)
    np.maximum(sixteenths, lowest, out=sixteenths)
    values, keys = (sixteenths / _FRACTION).astype(np.float32), sixteenths - lowest
    return _ranked(values, keys.astype(np.uint16) if span < 2**16 else keys)


def _ranked(values: NDArray[Any], keys: NDArray[Any]) -> _Codes:
    """An image as the ranks of its pixels.

    Args:
        values: any shape.
        keys: same shape; numbers in the same order, of the type that is sorted fastest.
    """
    # NumPy sorts 16 bits by their digits where it is asked for a stable order.
    order = np.argsort(keys, axis=None, kind="stable" if keys.itemsize == 2 else "quicksort")
    numbers = np.empty(order.size, np.int32)
    numbers[order] = np.arange(order.size, dtype=np.int32)
    return _Codes(numbers.reshape(values.shape), values.reshape(-1)[order], ranks=True)


def _median_of_codes(
    codes: _Codes,
    ignored: NDArray[np.bool_] | None,
    widths: NDArray[np.int64],
    radius_z_px: int | None,
) -> LocalEstimate:
    shape = codes.numbers.shape
    numbers = codes.numbers.reshape(-1, *shape[-2:])
    if ignored is not None:
        ignored = ignored.reshape(numbers.shape)
    count, depth = codes.values.size, radius_z_px or 0
    lower, upper = middle_numbers(numbers, ignored, count, widths, depth, ranks=codes.ranks)
    lower, upper = lower.reshape(shape), upper.reshape(shape)
    unsupported = lower < 0
    result = codes.middle(np.maximum(lower, 0), np.maximum(upper, 0))
    return LocalEstimate.of(result, unsupported)


def _enlarged(
    medians: NDArray[np.float32], shape: tuple[int, ...], block: int
) -> NDArray[np.float32]:
    """Linear interpolation between the centres of blocks, constant beyond the outer ones."""
    if block == 1:
        return medians
    rows, row_weights = _neighbours(shape[-2], medians.shape[-2], block)
    columns, column_weights = _neighbours(shape[-1], medians.shape[-1], block)
    stack = medians.reshape(-1, *medians.shape[-2:])
    result = np.empty((stack.shape[0], *shape[-2:]), np.float32)
    for plane, target in zip(stack, result, strict=True):
        _interpolate(plane, rows, row_weights, columns, column_weights, target)
    return result.reshape(shape)


def _neighbours(
    length: int, small_length: int, block: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Index of the upper neighbour of every pixel, and the weight of the lower one."""
    place = (np.arange(length) + 0.5) / block - 0.5
    first = np.floor(place).astype(np.int64)
    weight = (place - first).astype(np.float32)
    weight[first < 0] = 0
    weight[first >= small_length - 1] = 0
    return np.clip(first, 0, small_length - 1), weight


@kernel
def _block_sums(stack, ignored, masked, block):  # type: ignore[no-untyped-def]
    depth, height, width = stack.shape
    rows, columns = (height + block - 1) // block, (width + block - 1) // block
    means = np.zeros((depth, rows, columns), np.float32)
    counts = np.zeros((depth, rows, columns), np.int64)
    sums = np.empty(columns, np.float64)
    for z in range(depth):
        for j in range(rows):
            sums[:] = 0
            count = counts[z, j]
            for y in range(j * block, min((j + 1) * block, height)):
                for i in range(columns):
                    total = np.float64(0)
                    number = 0
                    for x in range(i * block, min((i + 1) * block, width)):
                        if not (masked and ignored[z, y, x]):
                            total += np.float64(stack[z, y, x])
                            number += 1
                    sums[i] += total
                    count[i] += number
            for i in range(columns):
                if count[i]:
                    means[z, j, i] = np.float32(sums[i] / count[i])
    return means, counts


@kernel
def _interpolate(small, rows, row_weights, columns, column_weights, result):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    last_row, last_column = small.shape[0] - 1, small.shape[1] - 1
    line = np.empty(small.shape[1], np.float32)
    for y in range(rows.shape[0]):
        upper, lower = small[rows[y]], small[min(rows[y] + 1, last_row)]
        weight = row_weights[y]
        for i in range(small.shape[1]):
            line[i] = upper[i] * (one - weight) + lower[i] * weight
        for x in range(columns.shape[0]):
            i, weight = columns[x], column_weights[x]
            result[y, x] = line[i] * (one - weight) + line[min(i + 1, last_column)] * weight
