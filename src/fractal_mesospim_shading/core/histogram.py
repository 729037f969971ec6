"""Histograms that add up exactly, whatever the blocks they come from.

A bin is given by sign, exponent and the first eight bits of the mantissa of a
float32: integers up to 512 have a bin of their own, larger values one to 0.4 %.
Adding the counts of two blocks gives the histogram of both.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHIFT = 15


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
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if np.issubdtype(values.dtype, np.floating):
            flat = flat[np.isfinite(flat)]
        codes = (flat.view(np.uint32) >> _SHIFT).astype(np.int64)
        # -0.0 counts as 0.
        codes[codes == 1 << (31 - _SHIFT)] = 0
        every = np.bincount(codes, minlength=1)
        if without_zero:
            every[0] = 0
        bins = np.flatnonzero(every)
        return cls(bins, every[bins].astype(np.int64))

    def __add__(self, other: Histogram) -> Histogram:
        bins = np.union1d(self.bins, other.bins)
        counts = np.zeros(len(bins), np.int64)
        for part in (self, other):
            counts[np.searchsorted(bins, part.bins)] += part.counts
        return Histogram(bins, counts)

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
