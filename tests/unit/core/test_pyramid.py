from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fractal_mesospim_shading.core.pyramid import (
    Histogram,
    block_mean,
    lattice,
    level_factor,
    on_lattice,
)
from fractal_mesospim_shading.errors import ImageFormatError


def _by_hand(block, factor, shape):
    out = np.empty(shape, block.dtype)
    for index in np.ndindex(*shape):
        part = block[tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factor, strict=True))]
        values = [float(value) for value in part.reshape(-1)]
        mean = sum(values) / len(values)
        out[index] = round(mean) if block.dtype.kind == "u" else mean
    return out


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("shape", "factor"),
    [
        ((3, 8, 6), (1, 2, 2)),
        ((3, 7, 5), (1, 2, 2)),
        ((4, 6, 6), (2, 2, 2)),
        ((5, 7, 9), (2, 3, 2)),
        ((2, 1, 9), (1, 1, 4)),
    ],
)
@pytest.mark.parametrize("up", [False, True])
def test_mean_of_blocks(dtype, shape, factor, up):
    top = 255 if dtype == "uint8" else 65535
    block = np.random.default_rng(3).integers(0, top, shape, endpoint=True).astype(dtype)
    coarse = tuple(-(-n // f) if up else n // f for n, f in zip(shape, factor, strict=True))
    got = block_mean(block, factor, coarse)
    expected = _by_hand(block, factor, coarse)
    assert got.dtype == block.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-6 if dtype == "float32" else 0)


def test_more_axes_and_fewer():
    block = np.arange(2 * 2 * 2 * 4 * 4, dtype="uint16").reshape(2, 2, 2, 4, 4)
    got = block_mean(block, (1, 1, 1, 2, 2), (2, 2, 2, 2, 2))
    for t, c in product(range(2), range(2)):
        np.testing.assert_array_equal(got[t, c], _by_hand(block[t, c], (1, 2, 2), (2, 2, 2)))
    plane = np.arange(16, dtype="uint16").reshape(4, 4)
    np.testing.assert_array_equal(block_mean(plane, (2, 2), (2, 2)), [[2, 4], [10, 12]])


def test_no_drift_over_levels():
    """Rounding half to even has no bias: levels do not sink or rise."""
    level = np.random.default_rng(4).integers(0, 1000, (1, 512, 512)).astype("uint16")
    mean = level.mean()
    for _ in range(4):
        level = block_mean(level, (1, 2, 2), (1, level.shape[1] // 2, level.shape[2] // 2))
        assert abs(level.mean() - mean) < 0.03


@pytest.mark.parametrize(
    ("fine", "coarse", "by_scale", "factor"),
    [
        ((10, 100, 100), (10, 50, 50), None, (1, 2, 2)),
        ((10, 101, 101), (10, 50, 51), None, (1, 2, 2)),
        ((10, 90, 90), (5, 30, 30), None, (2, 3, 3)),
        ((1, 5, 5), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
        # Three of five planes can come from a factor of 2 only; the scale says so too.
        ((5, 5, 5), (3, 3, 3), (1, 2, 2), (2, 2, 2)),
        ((7, 7, 7), (2, 2, 2), (4, 4, 4), (4, 4, 4)),
        ((7, 7, 7), (2, 2, 2), (3, 3, 3), (3, 3, 3)),
    ],
)
def test_factors(fine, coarse, by_scale, factor):
    assert level_factor(fine, coarse, by_scale) == factor


def test_levels_that_do_not_follow():
    with pytest.raises(ImageFormatError, match=r"\(10, 70\) does not follow from \(10, 100\)"):
        level_factor((10, 100), (10, 70))


def test_floats_are_added_in_float64_and_rounded_once():
    values = np.random.default_rng(5).normal(0, 1e4, (2, 9, 13)).astype("float32")
    values[0, 3, 5] = np.nan
    pairs = values[:, :8, :12].astype(np.float64)
    rows = pairs[:, ::2, ::2] + pairs[:, ::2, 1::2] + pairs[:, 1::2, ::2] + pairs[:, 1::2, 1::2]
    whole = (rows / 4).astype("float32")
    got = block_mean(values, (1, 2, 2), (2, 5, 7))
    np.testing.assert_array_equal(got[:, :4, :6], whole)
    last = values[:, 8, 12]
    np.testing.assert_array_equal(got[:, 4, 6], last)
    edge = ((values[:, 8, ::2].astype(np.float64)[:, :6] + values[:, 8, 1::2]) / 2).astype(
        "float32"
    )
    np.testing.assert_array_equal(got[:, 4, :6], edge)


def test_small_integers_are_exact():
    values = np.repeat(np.arange(0, 512, dtype="uint16"), 3)
    histogram = Histogram.of(values)
    assert histogram.total == values.size
    for fraction in (0.0, 0.001, 0.25, 0.5, 0.999, 1.0):
        expected = np.sort(values)[max(int(np.ceil(fraction * values.size)) - 1, 0)]
        assert histogram.quantile(fraction) == expected


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_quantiles_of_large_values_are_close(dtype):
    values = np.random.default_rng(0).gamma(2, 4000, 20000).clip(0, 65535).astype(dtype)
    histogram = Histogram.of(values)
    for fraction in (0.01, 0.5, 0.9, 0.999):
        assert histogram.quantile(fraction) == pytest.approx(
            np.quantile(values, fraction), rel=0.01
        )


def test_negative_values_are_in_order():
    values = np.array([-1000.0, -10.0, -0.0, 0.0, 5.0], "float32")
    histogram = Histogram.of(values)
    found = [histogram.quantile(f) for f in (0.2, 0.4, 0.8, 1.0)]
    assert found == pytest.approx([-1000, -10, 0, 5], rel=0.01)


def test_nan_and_infinity_are_left_out():
    values = np.array([np.nan, 1.0, np.inf, -np.inf], "float32")
    assert Histogram.of(values).total == 1
    assert Histogram.of(values).quantile(1.0) == 1.0


def test_nothing_in_it():
    assert np.isnan(Histogram().quantile(0.5))
    assert Histogram.of(np.zeros(5, "uint16"), without_zero=True).total == 0


def test_sum_is_the_histogram_of_both():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 60000, 500), rng.integers(100, 65535, 700)
    added = Histogram.of(first.astype("u2")) + Histogram.of(second.astype("u2"))
    whole = Histogram.of(np.concatenate([first, second]).astype("u2"))
    np.testing.assert_array_equal(added.bins, whole.bins)
    np.testing.assert_array_equal(added.counts, whole.counts)


def test_text_and_back():
    histogram = Histogram.of(np.random.default_rng(1).normal(0, 1e4, 999).astype("f4"))
    again = Histogram.from_text(histogram.to_text())
    np.testing.assert_array_equal(again.bins, histogram.bins)
    np.testing.assert_array_equal(again.counts, histogram.counts)
    empty = Histogram.from_text(Histogram().to_text())
    assert empty.total == 0


def test_lattice_picks_the_same_pixels_however_the_array_is_cut():
    array = np.arange(3 * 10 * 50 * 70).reshape(3, 10, 50, 70)
    strides = lattice(array.shape, most=3000)
    assert np.prod([-(-n // s) for n, s in zip(array.shape, strides, strict=True)]) <= 3000
    assert strides[0] == 1
    whole = set(on_lattice(array, (0, 0, 0, 0), strides).reshape(-1))
    parts: list[int] = []
    for z, y, x in [(z, y, x) for z in (0, 3, 6, 9) for y in (0, 17, 34) for x in (0, 31, 62)]:
        part = array[:, z : z + 3, y : y + 17, x : x + 31]
        parts.extend(on_lattice(part, (0, z, y, x), strides).reshape(-1))
    assert len(parts) == len(whole)
    assert set(parts) == whole
