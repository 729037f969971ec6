from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.histogram import Histogram, lattice, on_lattice


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
