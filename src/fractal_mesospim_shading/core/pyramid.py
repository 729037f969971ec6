"""What the blocks of a level add up to: the pixels of coarser levels, and histograms.

A bin of a histogram is given by sign, exponent and the first eight bits of the mantissa of a
float32: integers up to 512 have a bin of their own, larger values one to 0.4 %. Adding the
counts of two blocks gives the histogram of both, exactly.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import kernel
from fractal_mesospim_shading.errors import ImageFormatError

_SHIFT = 15
"""Bits of the mantissa that a bin leaves out."""

_MINUS_ZERO = 1 << (31 - _SHIFT)
"""The bin of -0.0, and how many there are of either sign."""

_COUNTED_AT_ONCE = 2**18
"""Values that are counted at a time: what this takes fits into a cache of the processor, where all
values of a block would take more memory than the block."""


def level_factor(
    fine: tuple[int, ...], coarse: tuple[int, ...], by_scale: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """By how much each axis shrinks from one level to the next.

    A writer may drop or keep the pixels that fill no whole coarse pixel, so the
    coarse size is the fine one divided by the factor and rounded down or up.

    Args:
        fine, coarse: shapes of the two levels.
        by_scale: the factors that the scales give; taken where the shapes allow them.

    Raises:
        ImageFormatError: an axis shrinks by something that is no whole number.
    """
    factors = []
    for axis, (n, m) in enumerate(zip(fine, coarse, strict=True)):
        fitting = [f for f in range(1, 17) if m in (n // f, -(-n // f)) and m > 0]
        if not fitting:
            raise ImageFormatError(
                f"A pyramid level of shape {coarse} does not follow from {fine}: each axis has "
                "to shrink by a whole number up to 16. Build the pyramid again."
            )
        if by_scale is not None and by_scale[axis] in fitting:
            factors.append(by_scale[axis])
        else:
            factors.append(2 if 2 in fitting and n > 1 and m < n else fitting[0])
    return tuple(factors)


def block_mean(
    block: NDArray[Any],
    factor: tuple[int, ...],
    shape: tuple[int, ...],
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Mean over blocks of pixels, rounded half to even for integers.

    Args:
        block: (..., z, y, x), whose origin lies on a multiple of the factor.
        factor: block size along each axis; 1 for all but the last three.
        shape: of the result. Blocks cut by the end of the array are averaged over
            the pixels that are there; pixels beyond the last block are left out.
        out: where to put the result; contiguous, of that shape and the block's type.
    """
    lead = block.shape[:-3] if block.ndim > 3 else ()
    fine = block.reshape((-1, *((1,) * (3 - min(block.ndim, 3))), *block.shape[len(lead) :]))
    f3 = (1, 1, *factor)[-3:]
    s3 = (1, 1, *shape)[-3:]
    result = np.empty(shape, dtype=block.dtype) if out is None else out
    coarse = result.reshape((prod(lead), *s3))
    integers = np.issubdtype(block.dtype, np.integer)
    for source, target in zip(fine, coarse, strict=True):
        if integers and f3 == (1, 2, 2):
            _mean_1x2x2(source, target)
        elif f3 == (1, 2, 2):
            _float_mean_1x2x2(source, target)
        else:
            _mean_any(source, f3[0], f3[1], f3[2], target, integers)
    return result


@kernel
def _mean_1x2x2(fine, coarse):  # type: ignore[no-untyped-def]
    """Whole 2 x 2 blocks in integer arithmetic; the cut ones are left to `_mean_any`."""
    height, width = fine.shape[1] // 2, fine.shape[2] // 2
    for z in range(coarse.shape[0]):
        for y in range(min(coarse.shape[1], height)):
            upper, lower = fine[z, 2 * y], fine[z, 2 * y + 1]
            for x in range(min(coarse.shape[2], width)):
                total = (
                    np.int32(upper[2 * x])
                    + np.int32(upper[2 * x + 1])
                    + np.int32(lower[2 * x])
                    + np.int32(lower[2 * x + 1])
                )
                # + 1, and one more where the quotient is odd: halves go to even.
                coarse[z, y, x] = (total + np.int32(1) + ((total >> 2) & 1)) >> 2
        if coarse.shape[1] > height:
            _mean_any(fine[z : z + 1, 2 * height :], 1, 2, 2, coarse[z : z + 1, height:], True)
        if coarse.shape[2] > width:
            _mean_any(fine[z : z + 1, :, 2 * width :], 1, 2, 2, coarse[z : z + 1, :, width:], True)


@kernel
def _float_mean_1x2x2(fine, coarse):  # type: ignore[no-untyped-def]
    """Whole 2 x 2 blocks, added in the order of `_mean_any`; the cut ones are left to it."""
    height, width = fine.shape[1] // 2, fine.shape[2] // 2
    for z in range(coarse.shape[0]):
        for y in range(min(coarse.shape[1], height)):
            upper, lower, row = fine[z, 2 * y], fine[z, 2 * y + 1], coarse[z, y]
            for x in range(min(coarse.shape[2], width)):
                total = np.float64(upper[2 * x]) + np.float64(upper[2 * x + 1])
                total += np.float64(lower[2 * x])
                total += np.float64(lower[2 * x + 1])
                row[x] = total * 0.25
        if coarse.shape[1] > height:
            _mean_any(fine[z : z + 1, 2 * height :], 1, 2, 2, coarse[z : z + 1, height:], False)
        if coarse.shape[2] > width:
            _mean_any(fine[z : z + 1, :, 2 * width :], 1, 2, 2, coarse[z : z + 1, :, width:], False)


@kernel
def _mean_any(fine, fz, fy, fx, coarse, integers):  # type: ignore[no-untyped-def]
    for z in range(coarse.shape[0]):
        z1 = min((z + 1) * fz, fine.shape[0])
        for y in range(coarse.shape[1]):
            y1 = min((y + 1) * fy, fine.shape[1])
            for x in range(coarse.shape[2]):
                x1 = min((x + 1) * fx, fine.shape[2])
                total = np.float64(0.0)
                for i in range(z * fz, z1):
                    for j in range(y * fy, y1):
                        for k in range(x * fx, x1):
                            total += np.float64(fine[i, j, k])
                count = (z1 - z * fz) * (y1 - y * fy) * (x1 - x * fx)
                coarse[z, y, x] = np.rint(total / count) if integers else total / count


@dataclass(frozen=True)
class Histogram:
    """Counts of values by bin.

    Attributes:
        bins: sorted bin numbers, int64.
        counts: how many values each holds, int64.
    """

    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, values: NDArray[Any], *, without_zero: bool = False) -> Histogram:
        """The histogram of an array; NaN and infinity are left out, and 0 if asked for."""
        least = 1 if values.size <= _COUNTED_AT_ONCE else 2 * _MINUS_ZERO
        every = np.zeros(least, np.int64)
        for piece in _pieces(values):
            finite = piece[np.isfinite(piece)] if values.dtype.kind == "f" else piece
            every = every + np.bincount(finite.view(np.uint32) >> _SHIFT, minlength=least)
        # -0.0 counts as 0.
        every[0] += every[_MINUS_ZERO:][:1].sum()
        every[_MINUS_ZERO:][:1] = 0
        if without_zero:
            every[0] = 0
        bins = np.flatnonzero(every)
        return cls(bins, every[bins])

    def __add__(self, other: Histogram) -> Histogram:
        bins = np.union1d(self.bins, other.bins)
        counts = np.zeros(len(bins), np.int64)
        for part in (self, other):
            counts[np.searchsorted(bins, part.bins)] += part.counts
        return Histogram(bins, counts)

    def without_zero(self) -> Histogram:
        """The same without the values of 0."""
        return Histogram(self.bins[self.bins != 0], self.counts[self.bins != 0])

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    def quantile(self, fraction: float) -> float:
        """The value below which a fraction of all values lies; NaN if there is none."""
        if not self.total:
            return float("nan")
        lower, width = _lower_and_width(self.bins)
        order = np.argsort(lower, kind="stable")
        lower, width, counts = lower[order], width[order], self.counts[order]
        reached = np.cumsum(counts)
        place = min(max(fraction, 0.0), 1.0) * reached[-1]
        i = int(np.searchsorted(reached, place, side="left"))
        i = min(i, len(counts) - 1)
        before = reached[i] - counts[i]
        return float(lower[i] + width[i] * (place - before) / counts[i])

    def to_text(self) -> str:
        """Compact text for a journal."""
        packed = np.stack([self.bins, self.counts]).astype("<i8").tobytes()
        return base64.b64encode(zlib.compress(packed, 6)).decode()

    @classmethod
    def from_text(cls, text: str) -> Histogram:
        """The inverse of `to_text`."""
        packed = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8").reshape(2, -1)
        return cls(packed[0].astype(np.int64), packed[1].astype(np.int64))


def _pieces(values: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """All values as float32, some at a time, in the order in which they lie in memory."""
    pieces: Any = np.nditer(
        values,
        ["external_loop", "buffered", "zerosize_ok"],
        [["readonly"]],
        [np.dtype(np.float32)],
        casting="unsafe",
        buffersize=_COUNTED_AT_ONCE,
    )
    return iter(pieces)


def _lower_and_width(
    bins: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    edge = (bins.astype(np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
    following = ((bins + 1).astype(np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
    lower = np.minimum(edge, following)
    width = np.abs(following - edge)
    # Below 512 a bin holds one integer: its value, not the range up to the next.
    exact = (np.abs(edge) < 512) & (edge == np.rint(edge))
    lower[exact], width[exact] = edge[exact], 0.0
    return lower, np.where(np.isfinite(width), width, 0.0)


def lattice(shape: Sequence[int], most: int = 1 << 24) -> tuple[int, ...]:
    """Strides, powers of two, that leave at most `most` pixels of an array.

    Taken from the origin of the array, they pick the same pixels however the array
    is cut into blocks.
    """
    strides = [1] * len(shape)
    spatial = list(range(max(0, len(shape) - 3), len(shape)))
    while prod(-(-n // s) for n, s in zip(shape, strides, strict=True)) > most:
        axis = max(spatial, key=lambda i: (shape[i] / strides[i], i))
        strides[axis] *= 2
    return tuple(strides)


def on_lattice(block: NDArray[Any], origin: Sequence[int], strides: Sequence[int]) -> NDArray[Any]:
    """The pixels of a block that lie on the lattice of the whole array."""
    pairs = zip(origin, strides, strict=True)
    return block[tuple(slice(-o % s, None, s) for o, s in pairs)]
