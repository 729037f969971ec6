"""Noise that is taken piece by piece is that of the whole, in any order."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, bin_block
from fractal_mesospim_shading.core.flatfield.noise_pieces import (
    NoisePiece,
    joined,
    shifted,
    unexplained_below,
)
from fractal_mesospim_shading.core.flatfield.noise_squares import NoiseSquares
from fractal_mesospim_shading.core.flatfield.offset import estimate_offset, offset_of_squares
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

WORLD = LightSheetWorld(tile_shape=(128, 128), planes=8, sample=0.0)


def _same(one: NoiseSquares, other: NoiseSquares) -> None:
    for field in fields(NoiseSquares):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_text_and_back() -> None:
    block = WORLD.tile_stack(1)[:3]
    piece = NoisePiece.of(block, (64, 32), 2, WORLD.dark_frame(), zero_is_no_data=False)
    again = NoisePiece.from_text(piece.to_text())
    assert again.origin == piece.origin == (4, 2)
    _same(again.squares, piece.squares)
    np.testing.assert_array_equal(again.below, piece.below)
    assert piece.to_text() == again.to_text()


def test_pieces_on_the_grid_make_the_whole() -> None:
    """Squares are the same; differences of bins stop at the edge of a piece."""
    block = WORLD.tile_stack(1)
    whole = BinnedPlanes(8, (128, 128), 2)
    whole.add(bin_block(block, 0, 0, 2, 100.0), range(8))
    expected = NoiseSquares.of(whole.finish())
    pieces = [
        NoisePiece.of(block[:, y : y + 64], (y, 0), 2, 100.0, zero_is_no_data=False)
        for y in (0, 64)
    ]
    found, below = joined(pieces)
    assert found.noise_mean.shape == (16, 8, 8)
    for name in ("noise_mean", "spatial", "temporal", "third", "halves"):
        values = getattr(found, name)
        upper, lower = values[..., :8, :4, :], values[..., 8:, 4:, :]
        both = np.concatenate([upper, lower], axis=-2)
        np.testing.assert_array_equal(both, getattr(expected, name))
        assert np.isnan(values[..., :8, 4:, :]).all()
    assert not found.spatial_cells[:8, 4:].any()
    assert np.isnan(below[:8, 4:]).all()
    stack = BinnedPlanes(8, (128, 128), 2)
    stack.add(bin_block(block, 0, 0, 2), range(8))
    direct = estimate_offset(stack.finish(), mostly_empty=False)
    by_pieces = offset_of_squares(shifted(found, 100.0))
    assert by_pieces.value == pytest.approx(direct.value, abs=direct.uncertainty)


def test_what_lies_below_equals_a_loop() -> None:
    rng = np.random.default_rng(1)
    block = rng.integers(90, 112, (2, 20, 35)).astype(np.uint16)
    block[0, :3, :5] = 0
    dark = rng.normal(100, 2, (20, 35))
    for zero in (True, False):
        found = NoisePiece.of(block, (0, 0), 2, dark, zero_is_no_data=zero).below
        for k, y, x in np.ndindex(found.shape):
            counted = less = 0
            for row in range(16 * y, min(16 * y + 16, 20)):
                for column in range(16 * x, min(16 * x + 16, 35)):
                    raw = int(block[k, row, column])
                    if (row // 2 + column // 2) % 2 == 0 or (zero and raw == 0):
                        continue
                    counted += 1
                    less += np.rint(raw - dark[row, column]) < 0
            assert found[k, y, x] == pytest.approx(less / counted)


@pytest.mark.parametrize(
    ("medium", "given", "low", "high"),
    [
        (0.0, 100.0, 0.0, 0.004),
        (5.0, 100.0, 0.0, 0.0),
        (60.0, 100.0, 0.0, 0.0),
        (5.0, 107.0, 0.05, 0.5),
        (5.0, 130.0, 0.49, 0.5),
        (60.0, 300.0, 0.5, 0.5),
    ],
)
def test_noise_explains_half_of_the_pixels_at_most(
    medium: float, given: float, low: float, high: float
) -> None:
    block = replace(WORLD, medium=medium).tile_stack(1)
    piece = NoisePiece.of(block, (0, 0), 2, given, zero_is_no_data=False)
    squares, below = joined([piece])
    assert low <= unexplained_below(squares, below) <= high
