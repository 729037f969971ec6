"""From the pixels of an overlap to bins that both tiles saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.bin_noise import MEDIAN_CHI, BinNoise, noise_of_bins
from fractal_mesospim_shading.core.overlaps.neighbours import Neighbours
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.registration import Registration, register

FloatArray = NDArray[np.float64]
Image = NDArray[np.float32]

REACH_PX = 16
"""Stage errors up to this are found."""

# Bins are used whose log ratio is known to this by the noise of their pixels.
_MOST_NOISE = 0.1
# A pair says something from this number of bins on.
_LEAST_BINS = 16
# Without a shift that holds, views may scatter by this factor beyond their noise.
_EVEN = 1.3


@dataclass(frozen=True)
class Piece:
    """One part of an overlap in some neighbouring planes, as both tiles saw it.

    Attributes:
        first, second: (planes, y, x) counts above the offset, of the same planes and of places
            that agree by the positions known; NaN where a pixel is saturated or holds no data.
        corner: (y, x) of the piece in the first tile, in pixels.
        sheet: number of its planes among those of the pair.
    """

    first: Image
    second: Image
    corner: tuple[int, int]
    sheet: int


@dataclass(frozen=True)
class Rejected:
    """A pair of tiles that cannot be compared.

    Attributes:
        first, second: numbers of the tiles.
        reason: in words.
        unregistered: where both views hold light, they as the positions say, which may be some
            pixels off: for what a whole overlap tells, not for what is in it.
    """

    first: int
    second: int
    reason: str
    unregistered: OverlapPair | None = field(default=None, compare=False)


def observe(
    pair: Neighbours, pieces: Sequence[Piece], bin_px: int = 8, reach: int = REACH_PX
) -> OverlapPair | Rejected:
    """Register the two views of an overlap and compare them in bins.

    The second view is summed over the shifted squares themselves, with parts of the pixels at
    their edges, so that nothing is interpolated and noise stays what it is.

    Args:
        pair: the tiles, and how they lie by the positions known.
        pieces: of the overlap; at least one.
        bin_px: side of a bin in pixels.
        reach: largest stage error looked for, in pixels.

    Returns:
        The bins in which both views are well above their noise. Where the views cannot be
        registered they are kept if they differ by no more than a smooth factor and noise, as in
        empty medium; else the pair is rejected.
    """
    means = [(_mean(piece.first), _mean(piece.second)) for piece in pieces]
    found = register(means, reach)
    placed = found if found.holds else replace(found, y=0.0, x=0.0)
    parts = [_binned(piece, placed, bin_px) for piece in pieces]
    bins = _observed(pair, pieces, parts, placed, bin_px)
    if len(bins.variance) < _LEAST_BINS:
        return Rejected(pair.first, pair.second, "too little light, or saturated")
    if not found.holds and bins.roughness > _EVEN:
        return Rejected(pair.first, pair.second, found.reason or "", bins)
    return bins


def _roughness(parts: Sequence[_Bins], noise: BinNoise) -> float:
    """Scatter of the log ratio from bin to bin over that of the noise.

    From second differences along the overlap, which no smooth flat-field adds to.
    """
    squares = [np.zeros(0)]
    for part in parts:
        first, second = part.first.mean(axis=0), part.second.mean(axis=0)
        along = int(np.argmax(first.shape))
        variance = noise.of_log_ratio(first, second, len(part.first))
        with np.errstate(invalid="ignore", divide="ignore"):
            bend = np.diff(np.log(first / second), 2, axis=along)
            # The middle bin counts twice.
            kernel = np.moveaxis(variance, along, 0)
            expected = kernel[:-2] + 4 * kernel[1:-1] + kernel[2:]
            ratio = np.moveaxis(bend, along, 0) ** 2 / expected
        squares.append(ratio[np.isfinite(ratio)])
    every = np.concatenate(squares)
    return float(np.sqrt(np.median(every) / MEDIAN_CHI)) if every.size else 1.0


def _mean(planes: Image) -> Image:
    return np.asarray(planes.mean(axis=0, dtype=np.float64), dtype=np.float32)


@dataclass(frozen=True)
class _Bins:
    """Bins of one piece: (planes, bins along y, bins along x), NaN where one is not usable."""

    first: FloatArray
    second: FloatArray
    y: FloatArray
    x: FloatArray
    texture: tuple[FloatArray, FloatArray]


def _binned(piece: Piece, shift: Registration, bin_px: int) -> _Bins:
    """Means over squares of the first view, and over the same tissue in the second."""
    shape = piece.first.shape[-2:]
    edges = [_edges(size, d, bin_px) for size, d in zip(shape, (shift.y, shift.x), strict=True)]
    first = _means(piece.first, edges[0], edges[1])
    second = _means(piece.second, edges[0] + shift.y, edges[1] + shift.x)
    y, x = ((e[:-1] + e[1:]) / 2 - 0.5 + c for e, c in zip(edges, piece.corner, strict=True))
    texture = tuple(
        _pixel_noise(
            view, *(np.round(e + d).astype(np.intp) for e, d in zip(edges, at, strict=True))
        )
        for view, at in ((piece.first, (0.0, 0.0)), (piece.second, (shift.y, shift.x)))
    )
    return _Bins(first, second, y, x, (texture[0], texture[1]))


def _edges(size: int, shift: float, bin_px: int) -> FloatArray:
    """Edges of whole bins that lie in both views."""
    low, high = int(np.ceil(max(0.0, -shift))), int(np.floor(min(size, size - shift)))
    count = max((high - low) // bin_px, 0)
    start = low + (high - low - count * bin_px) // 2
    edges: FloatArray = start + np.arange(count + 1, dtype=np.float64) * bin_px
    return edges


def _means(planes: Image, ys: FloatArray, xs: FloatArray) -> FloatArray:
    """Means over rectangles whose edges may lie within pixels."""
    sums = _sums(_sums(planes.astype(np.float64), ys, 1), xs, 2)
    means: FloatArray = sums / (np.diff(ys)[:, None] * np.diff(xs))
    return means


def _sums(values: FloatArray, edges: FloatArray, axis: int) -> FloatArray:
    """Sums between edges along an axis; NaN where a pixel of NaN is touched."""
    moved = np.moveaxis(values, axis, 0)
    low, high = np.floor(edges[:-1]).astype(np.intp), np.ceil(edges[1:]).astype(np.intp)
    sums = np.empty((len(low), *moved.shape[1:]))
    for k, (start, stop) in enumerate(zip(low, high, strict=True)):
        weight = np.ones(stop - start)
        weight[0] -= edges[k] - start
        weight[-1] -= stop - edges[k + 1]
        sums[k] = np.tensordot(weight, moved[start:stop], axes=(0, 0))
    return np.moveaxis(sums, 0, axis)


_LAPLACIAN = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], dtype=np.float32)


def _pixel_noise(planes: Image, ys: NDArray[np.intp], xs: NDArray[np.intp]) -> FloatArray:
    """Variance of the mean of each bin of a plane by the noise of its pixels, and by texture.

    From second differences (Immerkaer, Fast noise variance estimation, Computer Vision and Image
    Understanding 64, 1996, doi:10.1006/cviu.1996.0060).
    """
    from scipy.ndimage import convolve

    rough = np.stack([convolve(plane, _LAPLACIAN, mode="nearest") for plane in planes]) ** 2 / 36
    rows = np.add.reduceat(rough[:, ys[0] : ys[-1]], ys[:-1] - ys[0], axis=1)
    cells = np.add.reduceat(rows[:, :, xs[0] : xs[-1]], xs[:-1] - xs[0], axis=2)
    number = np.diff(ys)[None, :, None] * np.diff(xs)[None, None, :]
    variance: FloatArray = cells / number.astype(np.float64) ** 2
    return variance


def _observed(
    pair: Neighbours,
    pieces: Sequence[Piece],
    parts: Sequence[_Bins],
    shift: Registration,
    bin_px: int,
) -> OverlapPair:
    noise = noise_of_bins([(part.first, part.second, part.texture) for part in parts])
    columns: list[list[FloatArray]] = []
    for piece, part in zip(pieces, parts, strict=True):
        first, second = part.first.mean(axis=0), part.second.mean(axis=0)
        y, x = np.meshgrid(part.y, part.x, indexing="ij")
        variance = noise.of_log_ratio(first, second, len(part.first))
        with np.errstate(invalid="ignore"):
            # Pixels that do not even hold noise were not seen by a camera.
            seen = np.all([(view != 0).any(axis=0) for view in part.texture], axis=0)
            keep = seen & (first > 0) & (second > 0) & (variance <= _MOST_NOISE**2)
        sheet = np.full(y.shape, float(piece.sheet))
        columns.append([c[keep] for c in (y, x, first, second, variance, sheet)])
    y, x, first, second, variance, sheet = (
        np.concatenate(column) for column in zip(*columns, strict=True)
    )
    return OverlapPair(
        first=pair.first,
        second=pair.second,
        axis=pair.axis,
        y_first=y,
        x_first=x,
        y_second=y - pair.shift[0] + shift.y,
        x_second=x - pair.shift[1] + shift.x,
        light_first=first,
        light_second=second,
        variance=variance,
        planes=np.ones(len(y)),
        sheet=sheet.astype(np.intp),
        registration=shift,
        roughness=_roughness(parts, noise),
        bin_px=bin_px,
    )
