"""An offset that was given is held against the data; a right one never brings a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, BinnedStack, bin_block
from fractal_mesospim_shading.core.flatfield.noise import NoiseSquares
from fractal_mesospim_shading.core.flatfield.offset import (
    OffsetEstimate,
    estimate_offset,
    offset_of_squares,
)
from fractal_mesospim_shading.core.flatfield.offset_check import (
    Level,
    NoisePiece,
    contradicting_offset,
    darkest_squares,
    joined,
    shifted,
    unexplained_below,
)
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

BinWorld = Callable[..., BinnedStack]

WORLD = LightSheetWorld(tile_shape=(256, 256), planes=16, sample=0.0)
SLABS = [(tile, range(8)) for tile in (1, 3, 9)]


def _judged(
    stack: BinnedStack, given: float, *, mostly_empty: bool = True
) -> tuple[Level | None, Level]:
    darkest = darkest_squares(NoiseSquares.of(stack))
    assert darkest is not None
    estimate = estimate_offset(stack, mostly_empty=mostly_empty)
    return contradicting_offset(estimate, darkest, given), darkest


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"medium": 5.0},
        {"medium": 2.0},
        {"medium": 300.0},
        {"read_noise": 3.5},
        {"gain": 0.2, "read_noise": 3.5},
        {"falloff": 0.9, "streaks": 0.0},
        {"sample": 600.0},
        {"sample": 600.0, "sample_radius": 3.0},
    ],
)
def test_the_true_offset_is_never_contradicted(
    bin_world: BinWorld, changes: dict[str, float]
) -> None:
    stack = bin_world(replace(WORLD, **changes), SLABS)
    for mostly_empty in (True, False):
        found, darkest = _judged(stack, 100.0, mostly_empty=mostly_empty)
        assert found is None
        assert darkest.value + 3 * darkest.error > 100


@pytest.mark.parametrize("given", [0.0, 80.0, 120.0])
@pytest.mark.parametrize("medium", [5.0, 60.0])
def test_a_wrong_offset_is(bin_world: BinWorld, given: float, medium: float) -> None:
    found, darkest = _judged(bin_world(replace(WORLD, medium=medium), SLABS), given)
    assert found is not None
    assert found.value == pytest.approx(100, abs=max(3 * found.error, 5))
    assert found.error < 3
    assert (darkest.value + 3 * darkest.error < given) == (given > 100 + medium / 2)


def test_no_camera_no_word() -> None:
    """A median filter spoils the third moment; light that was divided before, the line."""
    from scipy.ndimage import median_filter

    planes = WORLD.tile_stack(1)[:8]
    filtered = np.stack([median_filter(plane, 3) for plane in planes])
    divided = np.clip((planes - WORLD.dark_frame()) / WORLD.flatfield() + 100, 0, None)
    for stack in (filtered, np.rint(divided).astype(np.uint16)):
        for given in (0.0, 100.0):
            assert _judged(_binned(stack), given)[0] is None


def test_two_ways_have_to_agree() -> None:
    details = {"share": 1.0, "misfit": 1.0, "contrast": 99.0, "gain": 2.0, "signal": 50.0}
    line = {"line": 97.0, "line_error": 2.0}
    third = {"third_moment": 99.0, "third_error": 1.0}

    def judged(given: float, darkest: Level | None = None, **found: float) -> Level | None:
        estimate = OffsetEstimate(98.5, 1.0, "", {**details, **found})
        return contradicting_offset(estimate, darkest, given)

    assert judged(0, **line, **third) == Level(98.5, pytest.approx(1.0, rel=1e-3))
    assert judged(94, **line, **third) is None
    assert judged(93, **line, **third) is None
    assert judged(0, **line) is None
    assert judged(0, Level(140, 0.3), **line) is None
    assert judged(0, Level(99, 0.3), **line) == Level(97, pytest.approx(2.0, rel=1e-3))
    assert judged(0, Level(100, 0.3), **third) == Level(99, pytest.approx(1.0, rel=1e-3))
    # No read noise brings them together: below, and more than six electrons above.
    assert judged(0, **line, third_moment=80.0, third_error=1.0) is None
    assert judged(0, **line, third_moment=180.0, third_error=1.0) is None
    for spoilt in ({"share": 0.3}, {"misfit": 4.0}, {"contrast": 1.2}):
        assert judged(0, **{**line, **third, **spoilt}) is None


def test_the_darkest_squares_are_not_darker_for_being_chosen() -> None:
    """Half of the bins choose, the other half tell: equal squares give their true mean."""
    rng = np.random.Generator(np.random.PCG64(5))
    block = (100 + 10 * rng.standard_normal((64, 64, 64))).astype(np.float32)
    stack = _binned(block)
    found = darkest_squares(NoiseSquares.of(stack))
    assert found is not None
    assert abs(found.value - 100) < 4 * found.error
    # 1 % of the means of 128 pixels would be 2.7 of their standard deviations lower.
    assert float(np.sort(stack.noise_mean.ravel())[:10].mean()) < 100 - 4 * found.error
    assert (
        darkest_squares(NoiseSquares.of(_binned(np.full((2, 16, 16), np.nan, np.float32)))) is None
    )


def _binned(block: NDArray[np.generic]) -> BinnedStack:
    gathered = BinnedPlanes(len(block), (block.shape[1], block.shape[2]))
    gathered.add(bin_block(block, 0, 0, gathered.bin_px), range(len(block)))
    return gathered.finish(integer=np.issubdtype(block.dtype, np.integer))


PIECES_WORLD = LightSheetWorld(tile_shape=(128, 128), planes=8, sample=0.0)


def _same(one: NoiseSquares, other: NoiseSquares) -> None:
    for field in fields(NoiseSquares):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_text_and_back() -> None:
    block = PIECES_WORLD.tile_stack(1)[:3]
    piece = NoisePiece.of(block, (64, 32), 2, PIECES_WORLD.dark_frame(), zero_is_no_data=False)
    again = NoisePiece.from_text(piece.to_text())
    assert again.origin == piece.origin == (4, 2)
    _same(again.squares, piece.squares)
    np.testing.assert_array_equal(again.below, piece.below)
    assert piece.to_text() == again.to_text()


def test_pieces_on_the_grid_make_the_whole() -> None:
    """Squares are the same; differences of bins stop at the edge of a piece."""
    block = PIECES_WORLD.tile_stack(1)
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
    block = replace(PIECES_WORLD, medium=medium).tile_stack(1)
    piece = NoisePiece.of(block, (0, 0), 2, given, zero_is_no_data=False)
    squares, below = joined([piece])
    assert low <= unexplained_below(squares, below) <= high


@pytest.mark.parametrize("zero_is_no_data", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_pixels_below_are_those_of_every_other_bin(dtype, zero_is_no_data):
    rng = np.random.default_rng(3)
    block = rng.poisson(100, (2, 37, 53)).astype(dtype)
    block[rng.random(block.shape) < 0.1] = 0
    if dtype == np.float32:
        block[rng.random(block.shape) < 0.1] = np.nan
    dark = (99 + 2 * rng.random(block.shape[1:])).astype(np.float32)
    integer = dtype == np.uint16

    piece = NoisePiece.of(block, (0, 0), 2, dark, zero_is_no_data=zero_is_no_data)

    y, x = np.indices(block.shape[1:])
    counted = np.isfinite(block) & ((y // 2 + x // 2) % 2 == 1)
    if zero_is_no_data:
        counted &= block != 0
    less = counted & (block < dark.astype(np.float64) - (0.5 if integer else 0.0))
    for k, row, column in np.ndindex(piece.below.shape):
        square = (k, slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16))
        expected = np.count_nonzero(less[square]) / np.count_nonzero(counted[square])
        assert piece.below[k, row, column] == expected
