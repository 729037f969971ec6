"""Whether an offset or dark frame that was given fits the data it is taken from.

Three ways tell where the light begins: the line of the noise's variance against the mean, its
third moment (`offset`), and the darkest squares, which no offset can be above. They are asked of
the planes of an estimate, or of parts of tiles that a correction takes block by block: each square
of pixels lies in one part, so that nothing depends on the order in which the parts come.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import NOISE_BINS, BinnedPlanes, bin_block
from fractal_mesospim_shading.core.flatfield.noise import Level, NoiseSquares, darkest_squares
from fractal_mesospim_shading.core.flatfield.offset import OffsetEstimate
from fractal_mesospim_shading.core.kernel_cache import kernel

FloatArray = NDArray[np.float64]

# Two ways agree within this many of their joint standard deviations.
_AGREE_SIGMAS = 2.0
# They contradict what was given beyond so many standard deviations of each, and so many counts.
_SIGMAS = 3.0
_LEAST_COUNTS = 5.0
# Variance of the read noise of cameras at most, electrons squared.
_MOST_READ_VARIANCE = 6.0**2
_ASSUMED_READ_VARIANCE = 1.5**2
# An error above both, in counts and as a share of the offset, tells nothing.
_WORST_ERROR = 5.0
_WORST_SHARE = 0.1
# A line through fewer of the even squares, with larger misfits, or through squares of one
# brightness is none: pixels that were scaled by their place before, or saturated.
_LEAST_SHARE = 0.5
_MOST_MISFIT = 2.0
_LEAST_CONTRAST = 1.5
# A result below minus half a count is rounded to less than 0.
_BELOW = 0.5


@dataclass(frozen=True)
class OffsetDoubt:
    """What speaks against an offset; at least one of both.

    Attributes:
        given: the offset, or the mean of the dark frame, counts.
        noise: what two independent ways agree on instead.
        darkest: the darkest squares, where the offset lies above them.
    """

    given: float
    noise: Level | None
    darkest: Level | None


def doubt_offset(
    squares: NoiseSquares, given: float, estimate: OffsetEstimate | None
) -> OffsetDoubt | None:
    """Hold an offset that was given against the data; None where they do not contradict it.

    Args:
        squares: of planes; where a dark frame was taken off, its mean added again.
        given: the offset, or the mean of the dark frame, counts.
        estimate: from the noise of the same planes; None where the pixels are means of
            those of the camera.
    """
    darkest = darkest_squares(squares)
    noise = None if estimate is None else contradicting_offset(estimate, darkest, given)
    above = darkest is not None and given > darkest.value + _SIGMAS * darkest.error
    if noise is None and not above:
        return None
    return OffsetDoubt(given, noise, darkest if above else None)


def contradicting_offset(
    estimate: OffsetEstimate, darkest: Level | None, given: float
) -> Level | None:
    """The offset that two independent ways agree on, where both contradict the one given.

    Args:
        estimate: from the noise of the same planes.
        darkest: from `darkest_squares`.
        given: counts.
    """
    details = estimate.details
    if not _straight(details):
        return None
    line = _way(details, "line", "line_error")
    third = _way(details, "third_moment", "third_error")
    if line is not None and third is not None:
        both = _level(estimate.value, estimate.uncertainty, details)
        if not _one_camera(details["gain"], both, line, third):
            return None
        sides = {_differs(level, given) for level in (line, third, both)}
        if len(sides) == 1 and 0.0 not in sides:
            return both
    for way in (line, third):
        if way is None or darkest is None or not _agree(way, darkest):
            continue
        if _differs(way, given) == _differs(darkest, given) != 0.0:
            return way
    return None


def _differs(level: Level, given: float) -> float:
    """-1 or 1 where a level lies clearly below or above a number, else 0."""
    apart = level.value - given
    clear = abs(apart) > max(_SIGMAS * level.error, _LEAST_COUNTS)
    return float(np.sign(apart)) if clear else 0.0


def _agree(one: Level, other: Level) -> bool:
    """Whether two levels, each well known, are the same within their errors."""
    worst = max(_WORST_ERROR, _WORST_SHARE * abs(one.value))
    if not max(one.error, other.error) <= worst:
        return False
    joint = _AGREE_SIGMAS * float(np.hypot(one.error, other.error))
    return abs(one.value - other.value) <= joint


def _straight(details: Mapping[str, float]) -> bool:
    """Whether the variance grows with the brightness as a line."""
    return (
        details.get("share", 0.0) >= _LEAST_SHARE
        and details.get("misfit", np.inf) <= _MOST_MISFIT
        and details.get("contrast", 0.0) >= _LEAST_CONTRAST
    )


def _way(details: Mapping[str, float], value: str, error: str) -> Level | None:
    if value not in details or not np.isfinite(details[error]):
        return None
    return _level(details[value], details[error], details)


def _level(value: float, error: float, details: Mapping[str, float]) -> Level:
    """A level whose error covers that the line is too flat where little spreads the brightness."""
    flattened = abs(details["signal"]) / details["contrast"] ** 2
    return Level(value, float(np.hypot(error, flattened)))


def _one_camera(gain: float, both: Level, line: Level, third: Level) -> bool:
    """Whether there is a read noise with which line and third moment tell one offset.

    The line moves up by the gain for each electron squared of the read noise.
    """
    if not both.error <= max(_WORST_ERROR, _WORST_SHARE * abs(both.value)):
        return False
    error = _AGREE_SIGMAS * float(np.hypot(line.error, third.error))
    lowest = line.value - gain * _ASSUMED_READ_VARIANCE
    return lowest - error <= third.value <= lowest + gain * _MOST_READ_VARIANCE + error


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
        """Compact text for a journal: what it holds as JSON, and all numbers as float64."""
        fields = vars(self.squares)
        arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
        arrays["below"] = self.below
        kinds = {name: (array.shape[:-3], array.dtype.str) for name, array in arrays.items()}
        plain = {name: value for name, value in fields.items() if name not in arrays}
        head = {"origin": self.origin, "shape": self.below.shape, "arrays": kinds, **plain}
        numbers = np.concatenate([array.astype("<f8").ravel() for array in arrays.values()])
        packed = base64.b64encode(zlib.compress(numbers.tobytes(), 1)).decode()
        return f"{json.dumps(head)} {packed}"

    @classmethod
    def from_text(cls, text: str) -> NoisePiece:
        """The inverse of `to_text`."""
        told, _, packed = text.rpartition(" ")
        head: dict[str, Any] = json.loads(told)
        origin, shape, kinds = (head.pop(name) for name in ("origin", "shape", "arrays"))
        numbers = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<f8")
        sizes = [prod((*lead, *shape)) for lead, _ in kinds.values()]
        parts = np.split(numbers, np.cumsum(sizes)[:-1])
        arrays: dict[str, Any] = {
            name: part.reshape((*lead, *shape)).astype(dtype)
            for part, (name, (lead, dtype)) in zip(parts, kinds.items(), strict=True)
        }
        below = arrays.pop("below")
        return cls((origin[0], origin[1]), NoiseSquares(**arrays, **head), below)


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
    arrays: dict[str, Any] = {}
    for name, sample in vars(first).items():
        if isinstance(sample, np.ndarray):
            empty = 0 if np.issubdtype(sample.dtype, np.integer) else np.nan
            arrays[name] = np.full((*sample.shape[:-3], *shape), empty, sample.dtype)
    start = 0
    for piece, end in zip(pieces, ends, strict=True):
        stop = start + len(piece.below)
        place = (slice(start, stop), slice(piece.origin[0], end[0]), slice(piece.origin[1], end[1]))
        below[place] = piece.below
        for name, target in arrays.items():
            target[(..., *place)] = vars(piece.squares)[name]
        start = stop
    for name in ("half_pixels", "roughness_bins", "change_bins"):
        arrays[name] = np.nan_to_num(arrays[name])
    return replace(first, **arrays), below


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
    limit = np.asarray(dark, dtype=np.float64) - (_BELOW if integer else 0.0)
    shape = block.shape[1:]
    counted, less = _count_below(
        block, np.broadcast_to(limit, shape), bin_px, bin_px * NOISE_BINS, zero_is_no_data
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counted > 0, less / counted, np.nan)


@kernel
def _count_below(block, limit, bin_px, side, zero_is_no_data):  # type: ignore[no-untyped-def]
    """Valid pixels of every other bin, as on a chessboard, and how many of them are below."""
    planes, height, width = block.shape
    shape = (planes, (height + side - 1) // side, (width + side - 1) // side)
    counted, less = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for k in range(planes):
        for y in range(height):
            # The bins of the second half in this row.
            for first in range((1 - y // bin_px % 2) * bin_px, width, 2 * bin_px):
                valid, below = 0, 0
                for x in range(first, min(first + bin_px, width)):
                    raw = np.float64(block[k, y, x])
                    good = np.isfinite(raw) and not (zero_is_no_data and raw == 0.0)
                    valid += 1 if good else 0
                    below += 1 if good and raw < limit[y, x] else 0
                counted[k, y // side, first // side] += valid
                less[k, y // side, first // side] += below
    return counted, less
