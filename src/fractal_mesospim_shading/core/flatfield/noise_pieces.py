"""The noise of parts of tiles, taken block by block before a correction and put together later.

Nothing is summed over blocks: each square of pixels lies in one piece, so that the whole does
not depend on the order in which the pieces come.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import NOISE_BINS, BinnedPlanes, bin_block
from fractal_mesospim_shading.core.flatfield.noise_squares import NoiseSquares

FloatArray = NDArray[np.float64]

# A result below minus half a count is rounded to less than 0.
_BELOW = 0.5


@dataclass(frozen=True)
class NoisePiece:
    """The squares of a part of a tile in some neighbouring planes.

    Attributes:
        origin: (y, x) of the part within its tile, in squares.
        squares: with what the correction subtracts taken off.
        below: (n, y, x) share of the pixels of the second half of the bins that what is
            subtracted makes less than 0; NaN where there is no pixel.
    """

    origin: tuple[int, int]
    squares: NoiseSquares
    below: FloatArray

    @classmethod
    def of(
        cls,
        block: NDArray[Any],
        origin_px: tuple[int, int],
        bin_px: int,
        dark: NDArray[np.floating[Any]] | float,
        *,
        zero_is_no_data: bool,
    ) -> NoisePiece:
        """Reduce a part of a tile.

        Args:
            block: (n, y, x) raw pixels of neighbouring planes.
            origin_px: (y, x) of the first pixel within the tile.
            bin_px: side of a bin, even.
            dark: (y, x) or a number, counts that the correction subtracts.
            zero_is_no_data: leave out pixels of 0.
        """
        gathered = BinnedPlanes(len(block), (block.shape[1], block.shape[2]), bin_px)
        partial = bin_block(block, 0, 0, bin_px, dark, zero_is_no_data)
        gathered.add(partial, range(len(block)))
        integer = np.issubdtype(block.dtype, np.integer)
        squares = NoiseSquares.of(gathered.finish(integer=integer))
        side = squares.square_px
        below = _below(block, bin_px, dark, zero_is_no_data)
        return cls((origin_px[0] // side, origin_px[1] // side), squares, below)

    def to_text(self) -> str:
        """Compact text for a journal."""
        arrays = {f.name: np.asarray(getattr(self.squares, f.name)) for f in fields(NoiseSquares)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, origin=np.array(self.origin), below=self.below, **arrays)
        return base64.b64encode(buffer.getvalue()).decode()

    @classmethod
    def from_text(cls, text: str) -> NoisePiece:
        """The inverse of `to_text`."""
        with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as content:
            found = {name: content[name] for name in content.files}
        y, x = (int(n) for n in found.pop("origin"))
        below = found.pop("below")
        for name in ("square_px", "integer"):
            found[name] = found[name].item()
        return cls((y, x), NoiseSquares(**found), below)


def joined(pieces: Sequence[NoisePiece]) -> tuple[NoiseSquares, FloatArray]:
    """All pieces in one: their planes one after the other, their squares where they lie.

    Args:
        pieces: of one channel, at least one.

    Returns:
        The squares, and the share of pixels below, as in `NoisePiece`.
    """
    first = pieces[0].squares
    planes = sum(len(piece.below) for piece in pieces)
    ends = [
        [start + size for start, size in zip(p.origin, p.below.shape[1:], strict=True)]
        for p in pieces
    ]
    shape = (planes, *(max(end[axis] for end in ends) for axis in (0, 1)))
    below = np.full(shape, np.nan)
    found: dict[str, Any] = {"square_px": first.square_px, "integer": first.integer}
    for field in fields(NoiseSquares):
        sample = getattr(first, field.name)
        if isinstance(sample, np.ndarray):
            empty = 0 if np.issubdtype(sample.dtype, np.integer) else np.nan
            found[field.name] = np.full((*sample.shape[:-3], *shape), empty, sample.dtype)
    start = 0
    for piece, end in zip(pieces, ends, strict=True):
        stop = start + len(piece.below)
        place = (slice(start, stop), slice(piece.origin[0], end[0]), slice(piece.origin[1], end[1]))
        below[place] = piece.below
        for name, target in found.items():
            if isinstance(target, np.ndarray):
                target[(..., *place)] = getattr(piece.squares, name)
        start = stop
    for name in ("half_pixels", "roughness_bins"):
        found[name] = np.nan_to_num(found[name])
    return NoiseSquares(**found), below


def shifted(squares: NoiseSquares, counts: float) -> NoiseSquares:
    """The same with a number added to every pixel."""
    return replace(squares, noise_mean=squares.noise_mean + counts, halves=squares.halves + counts)


def unexplained_below(squares: NoiseSquares, below: FloatArray) -> float:
    """Share of all pixels that lie below what is subtracted and that noise does not explain.

    Where the light is not below it, noise takes half of the pixels below at most. Squares
    whose mean is below it are found by the first half of their bins, and what is more than
    half of their pixels is counted in the second, whose noise is independent.

    Args:
        squares: with what is subtracted taken off.
        below: as in `NoisePiece`.
    """
    weight = np.where(np.isfinite(below), squares.half_pixels[1], 0.0)
    with np.errstate(invalid="ignore"):
        dark = squares.halves[0] < 0
    more = np.where(dark & (weight > 0), np.nan_to_num(below) - 0.5, 0.0)
    return max(float((more * weight).sum() / max(weight.sum(), 1)), 0.0)


def _below(
    block: NDArray[Any],
    bin_px: int,
    dark: NDArray[np.floating[Any]] | float,
    zero_is_no_data: bool,
) -> FloatArray:
    integer = np.issubdtype(block.dtype, np.integer)
    rows, columns = (np.arange(n) // bin_px for n in block.shape[1:])
    second = (rows[:, None] + columns[None, :]) % 2 == 1
    limit = np.asarray(dark, dtype=np.float64) - (_BELOW if integer else 0.0)
    counted = np.isfinite(block) & second
    if zero_is_no_data:
        counted &= block != 0
    side = bin_px * NOISE_BINS
    number = _sums(counted, side)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(number > 0, _sums(counted & (block < limit), side) / number, np.nan)


def _sums(values: NDArray[np.bool_], side: int) -> FloatArray:
    rows, columns = (np.arange(0, n, side) for n in values.shape[1:])
    by_row = np.add.reduceat(values.astype(np.float64), rows, axis=1)
    return np.asarray(np.add.reduceat(by_row, columns, axis=2))
