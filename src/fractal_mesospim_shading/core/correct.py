"""The one formula: what happens to every pixel of a block.

    corrected = [gain of the tile *] ((raw - dark) / flat [- baseline]) [+ output_offset]

The division is folded into a multiplication and an addition per pixel, done in
float32, rounded half to even, clipped to the type of the result, and cast once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import kernel
from fractal_mesospim_shading.core.layout import Piece
from fractal_mesospim_shading.core.profile import ShadingProfile


@dataclass(frozen=True)
class Linear:
    """The correction of some pixels: `raw * gain + shift`, each (y, x) float32."""

    gain: NDArray[np.float32]
    shift: NDArray[np.float32]


@dataclass(frozen=True)
class TileCorrection:
    """What is done to the pixels of a tile: `tile_gain * ((raw - dark) / flat - baseline) + added`.

    Gain and shift are made for the pixels that are asked for: for whole tiles of every
    channel they would take as much memory as the profiles themselves.

    Attributes:
        flatfield: (y, x) float32.
        dark: (y, x) float32 or a number, counts.
        baseline: counts that are subtracted after the division.
        added: counts at the end.
        tile_gain: what the light of the tile is multiplied with.
    """

    flatfield: NDArray[np.float32]
    dark: NDArray[np.float32] | float
    baseline: float = 0.0
    added: float = 0.0
    tile_gain: float = 1.0

    def divisor(
        self, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float32]:
        """What light of a part of the tile is divided by in all: the flat-field over the gain."""
        return self.flatfield[rows, columns] / np.float32(self.tile_gain)

    def linear(self, rows: slice = slice(None), columns: slice = slice(None)) -> Linear:
        """Gain and shift of a part of the tile."""
        flat = self.flatfield[rows, columns]
        dark = self.dark[rows, columns] if isinstance(self.dark, np.ndarray) else self.dark
        gain = np.empty(flat.shape, np.float32)
        shift = np.empty(flat.shape, np.float32)
        constant = self.added - self.tile_gain * self.baseline
        _fold(flat, np.broadcast_to(dark, flat.shape), self.tile_gain, constant, gain, shift)
        return Linear(gain, shift)


@dataclass(frozen=True)
class PixelCounts:
    """What happened to the pixels of a block.

    Attributes:
        pixels: all of them, no-data pixels included.
        no_data: raw value 0 that was left 0.
        clipped_low, clipped_high: results that left the range of the type.
        saturated: raw values at the upper end of the type.
        zeros: raw 0 that the pixels say is a value, see `core/zeros`.
        zero_blocks: blocks of these that are worth a word.
    """

    pixels: int = 0
    no_data: int = 0
    clipped_low: int = 0
    clipped_high: int = 0
    saturated: int = 0
    zeros: int = 0
    zero_blocks: int = 0

    def __add__(self, other: Self) -> Self:
        more = vars(other)
        return replace(self, **{name: count + more[name] for name, count in vars(self).items()})


def tile_correction(
    profile: ShadingProfile,
    tile_shape: tuple[int, int],
    *,
    offset: float,
    subtract_baseline: bool,
    output_offset: float,
) -> TileCorrection:
    """The correction that a profile gives.

    Args:
        profile: of the channel; another shape is resampled by pixel centres.
        tile_shape: (y, x) in pixels.
        offset: counts to subtract where the profile has no dark-field.
        subtract_baseline: also subtract the profile's baseline after the division.
        output_offset: counts to add at the end.
    """
    fitted = profile.resampled(tile_shape)
    dark = offset if fitted.darkfield is None else fitted.darkfield
    baseline = (fitted.baseline or 0.0) if subtract_baseline else 0.0
    return TileCorrection(fitted.flatfield, dark, baseline, output_offset)


def paint(
    pieces: Iterable[Piece],
    correction_of: Callable[[Piece], TileCorrection],
    shape: tuple[int, int],
) -> Linear:
    """Gain and shift for a box of the plane; pixels outside all tiles stay as they are."""
    gain = np.ones(shape, dtype=np.float32)
    shift = np.zeros(shape, dtype=np.float32)
    for piece in pieces:
        linear = correction_of(piece).linear(*piece.in_tile)
        gain[piece.in_box] = linear.gain
        shift[piece.in_box] = linear.shift
    return Linear(gain, shift)


def correct(
    raw: NDArray[Any],
    linear: Linear,
    *,
    zero_is_no_data: bool,
    without_data: NDArray[np.bool_] | None = None,
) -> PixelCounts:
    """Correct a stack of planes in place.

    Args:
        raw: (n, y, x), contiguous, native byte order; uint8, uint16 or float32.
        linear: gain and shift, (y, x).
        zero_is_no_data: raw 0 stays 0, whatever the shift.
        without_data: (n, y, x), True for pixels of 0 that stay 0 where others do not.
    """
    counts = _corrected(raw, linear, zero_is_no_data)
    if without_data is None:
        return counts
    raw[without_data] = 0
    low = high = 0
    if np.issubdtype(raw.dtype, np.integer):
        # They were counted as the values that a 0 gives.
        value = np.rint(linear.shift)
        low = int(np.count_nonzero(without_data & (value < 0)))
        high = int(np.count_nonzero(without_data & (value > np.float32(np.iinfo(raw.dtype).max))))
    return counts + PixelCounts(
        no_data=int(np.count_nonzero(without_data)), clipped_low=-low, clipped_high=-high
    )


def _corrected(raw: NDArray[Any], linear: Linear, zero_is_no_data: bool) -> PixelCounts:
    if np.issubdtype(raw.dtype, np.integer):
        top = int(np.iinfo(raw.dtype).max)
        no_data_value = 0 if zero_is_no_data else -1
        counts = _correct_integers(raw, linear.gain, linear.shift, no_data_value, top)
        return PixelCounts(raw.size, *(int(per_column.sum()) for per_column in counts))
    return PixelCounts(
        raw.size, no_data=int(_correct_floats(raw, linear.gain, linear.shift, zero_is_no_data))
    )


@kernel(error_model="numpy")
def _fold(flat, dark, tile_gain, constant, gain, shift):  # type: ignore[no-untyped-def]
    """Gain and shift of each pixel, in float64 and rounded once."""
    for y in range(flat.shape[0]):
        for x in range(flat.shape[1]):
            exact = tile_gain / np.float64(flat[y, x])
            gain[y, x] = exact
            shift[y, x] = constant - exact * np.float64(dark[y, x])


@kernel
def _correct_integers(raw, gain, shift, no_data_value, top):  # type: ignore[no-untyped-def]
    # One counter per column instead of one in all: a sum along the row would keep
    # the compiler from handling many pixels at once (1.3 against 0.5 ns a pixel).
    width = raw.shape[2]
    no_data = np.zeros(width, np.int32)
    low = np.zeros(width, np.int32)
    high = np.zeros(width, np.int32)
    saturated = np.zeros(width, np.int32)
    none, limit, highest = np.int32(no_data_value), np.float32(top), np.int32(top)
    zero, one = np.int32(0), np.int32(1)
    for n in range(raw.shape[0]):
        for y in range(raw.shape[1]):
            row, row_gain, row_shift = raw[n, y], gain[y], shift[y]
            for x in range(width):
                before = np.int32(row[x])
                value = np.rint(np.float32(before) * row_gain[x] + row_shift[x])
                value = np.float32(0) if before == none else value
                no_data[x] += one if before == none else zero
                low[x] += one if value < np.float32(0) else zero
                high[x] += one if value > limit else zero
                saturated[x] += one if before == highest else zero
                value = np.float32(0) if value < np.float32(0) else value
                value = limit if value > limit else value
                row[x] = np.int32(value)
    return no_data, low, high, saturated


@kernel
def _correct_floats(raw, gain, shift, zero_is_no_data):  # type: ignore[no-untyped-def]
    no_data = 0
    for n in range(raw.shape[0]):
        for y in range(raw.shape[1]):
            for x in range(raw.shape[2]):
                before = raw[n, y, x]
                if zero_is_no_data and before == 0:
                    no_data += 1
                else:
                    raw[n, y, x] = before * gain[y, x] + shift[y, x]
    return no_data
