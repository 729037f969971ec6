from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.correct import (
    Linear,
    PixelCounts,
    TileCorrection,
    correct,
    paint,
    tile_correction,
)
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.profile import ShadingProfile


def _linear(flat, dark=None, **settings):
    flat = np.asarray(flat, dtype=np.float64)
    profile = ShadingProfile.create(flat, dark, settings.pop("baseline", None))
    chosen = {"offset": 0.0, "subtract_baseline": False, "output_offset": 0.0, **settings}
    return tile_correction(profile, flat.shape, **chosen).linear()


def _by_hand(raw, flat, dark, baseline=0.0, output_offset=0.0, top=65535):
    """One pixel after the other, as the formula is written."""
    flat = flat / flat.mean()
    out = np.empty_like(raw)
    for index in np.ndindex(raw.shape):
        value = (float(raw[index]) - dark[index[-2:]]) / flat[index[-2:]]
        value = value - baseline + output_offset
        out[index] = min(max(round(value), 0), top)
    return out


@pytest.fixture
def flat():
    return np.linspace(0.5, 1.5, 64).reshape(8, 8)


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_integers_follow_the_formula(flat, dtype, top):
    raw = np.random.default_rng(1).integers(0, top, (3, 8, 8), endpoint=True).astype(dtype)
    dark = np.random.default_rng(2).uniform(3, 7, (8, 8))
    expected = _by_hand(raw, flat, dark.astype("f4"), output_offset=2.0, top=top)
    correct(raw, _linear(flat, dark, output_offset=2.0), zero_is_no_data=False)
    assert raw.dtype == dtype
    difference = raw.astype(int) - expected.astype(int)
    assert np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) <= 1


def test_offset_serves_where_there_is_no_darkfield(flat):
    raw = np.full((1, 8, 8), 1000, "uint16")
    expected = _by_hand(raw, flat, np.full((8, 8), 100.0))
    correct(raw, _linear(flat, offset=100.0), zero_is_no_data=True)
    np.testing.assert_array_equal(raw, expected)


def test_darkfield_goes_before_the_offset(flat):
    raw = np.full((1, 8, 8), 1000, "uint16")
    expected = _by_hand(raw, flat, np.full((8, 8), 40.0))
    correct(raw, _linear(flat, 40.0, offset=100.0), zero_is_no_data=True)
    np.testing.assert_array_equal(raw, expected)


@pytest.mark.parametrize(("asked", "expected"), [(True, 950), (False, 1000)])
def test_baseline_only_if_asked_for(asked, expected):
    raw = np.full((1, 2, 2), 1000, "uint16")
    linear = _linear(np.ones((2, 2)), baseline=50.0, subtract_baseline=asked)
    correct(raw, linear, zero_is_no_data=True)
    assert (raw == expected).all()


def test_halves_go_to_even():
    raw = np.array([[[1, 3, 5, 7]]], "uint16")
    half = Linear(np.full((1, 4), 0.5, "f4"), np.zeros((1, 4), "f4"))
    correct(raw, half, zero_is_no_data=False)
    assert raw.tolist() == [[[0, 2, 2, 4]]]


def test_no_wrap_around_and_everything_counted():
    # Two below 0, one too bright, one saturated that stays in range, one without data.
    raw = np.array([[[10, 20, 40000, 65535, 0, 500]]], "uint16")
    gain = np.array([[1, 1, 2, 0.5, 1, 1]], "f4")
    shift = np.array([[-100, -100, 0, 0, -100, 0]], "f4")
    counts = correct(raw, Linear(gain, shift), zero_is_no_data=True)
    assert raw.tolist() == [[[0, 0, 65535, 32768, 0, 500]]]
    assert counts == PixelCounts(pixels=6, no_data=1, clipped_low=2, clipped_high=1, saturated=1)


def test_zero_stays_zero_whatever_the_output_offset():
    raw = np.array([[[0, 100]]], "uint16")
    linear = Linear(np.ones((1, 2), "f4"), np.full((1, 2), 25, "f4"))
    correct(raw, linear, zero_is_no_data=True)
    assert raw.tolist() == [[[0, 125]]]
    raw = np.array([[[0, 100]]], "uint16")
    counts = correct(raw, linear, zero_is_no_data=False)
    assert raw.tolist() == [[[25, 125]]]
    assert counts.no_data == 0


def test_floats_are_neither_rounded_nor_clipped():
    raw = np.array([[[0.0, 1.25, -3.5, 1e6]]], "float32")
    linear = Linear(np.full((1, 4), 2, "f4"), np.full((1, 4), -1, "f4"))
    counts = correct(raw, linear, zero_is_no_data=True)
    assert raw.tolist() == [[[0.0, 1.5, -8.0, 1999999.0]]]
    assert counts == PixelCounts(pixels=4, no_data=1)


def test_counts_add_up():
    assert PixelCounts(1, 2, 3, 4, 5) + PixelCounts(10, 20, 30, 40, 50) == PixelCounts(
        11, 22, 33, 44, 55
    )


def test_profiles_of_another_shape_are_resampled():
    profile = ShadingProfile.create(np.array([[1.0, 3.0]]))
    linear = tile_correction(
        profile, (2, 4), offset=0.0, subtract_baseline=False, output_offset=0.0
    ).linear()
    # By pixel centres: 1, 1.5, 2.5, 3 over the mean 2.
    np.testing.assert_allclose(linear.gain, [[2, 4 / 3, 0.8, 2 / 3]] * 2, rtol=1e-6)


def test_paint_takes_each_pixel_from_its_tile():
    layout = TileLayout.from_origins([(0, 0), (4, 0), (4, 6)], (4, 6), (8, 12))
    corrections = {
        tile.number: TileCorrection(
            1 / (np.arange(1, 25, dtype="f4").reshape(4, 6) + 100 * tile.number),
            np.full((4, 6), 7, "f4"),
            added=-tile.number,
        )
        for tile in layout.tiles
    }
    y, x = slice(1, 7), slice(4, 9)
    painted = paint(layout.pieces(y, x), lambda piece: corrections[piece.tile.number], (6, 5))
    for i in range(6):
        for j in range(5):
            row, column = 1 + i, 4 + j
            tile = {(0, 0): 1, (1, 0): 2, (1, 1): 4}.get((row // 4, column // 6))
            gain = 1 if tile is None else 100 * tile + (row % 4) * 6 + column % 6 + 1
            assert painted.gain[i, j] == pytest.approx(gain, rel=1e-6)
            shift = 0 if tile is None else -tile - 7 * gain
            assert painted.shift[i, j] == pytest.approx(shift, rel=1e-6)


@pytest.mark.parametrize("dark", [100.3, "frame"])
@pytest.mark.parametrize("tile_gain", [1.0, 1.037])
def test_gain_and_shift_are_the_formula_in_float64_rounded_once(dark, tile_gain):
    rng = np.random.default_rng(1)
    flat = (0.3 + rng.random((37, 53))).astype(np.float32)
    if dark == "frame":
        dark = (100 + rng.random(flat.shape)).astype(np.float32)
    correction = TileCorrection(flat, dark, 12.3, 90.0, tile_gain)

    part = (slice(3, 30), slice(7, 50))
    linear = correction.linear(*part)

    exact = tile_gain / flat.astype(np.float64)
    shift = (90.0 - tile_gain * 12.3) - exact * np.asarray(dark, np.float64)
    np.testing.assert_array_equal(linear.gain, exact.astype(np.float32)[part])
    np.testing.assert_array_equal(linear.shift, shift.astype(np.float32)[part])
