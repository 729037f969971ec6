"""Tile gains: against least squares by NumPy, closed forms, and graphs of known truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.core.overlaps.gains import (
    LARGEST_GAIN,
    TileGain,
    solve_gains,
    with_doubts,
)
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.ratios import PairRatio, pair_ratios

FloatArray = NDArray[np.float64]


def links(rows: int, columns: int) -> list[tuple[int, int]]:
    """Neighbours of a grid whose tiles count from 1 down the columns."""
    numbers = np.arange(1, rows * columns + 1).reshape(columns, rows)
    below = zip(numbers[:, :-1].ravel(), numbers[:, 1:].ravel(), strict=True)
    right = zip(numbers[:-1].ravel(), numbers[1:].ravel(), strict=True)
    return [(int(a), int(b)) for a, b in (*below, *right)]


def brightness(count: int, spread: float, seed: int) -> FloatArray:
    logs = np.random.default_rng(seed).normal(0, spread, count)
    return np.asarray(logs - logs.mean())


def ratios(
    pairs: Iterable[tuple[int, int]],
    logs: FloatArray,
    errors: Sequence[float] | FloatArray,
    sigma: float,
) -> list[PairRatio]:
    return [
        PairRatio(a, b, float(logs[a - 1] - logs[b - 1] + error), sigma**2, 12)
        for (a, b), error in zip(pairs, errors, strict=True)
    ]


def log_brightness(gains: dict[int, TileGain]) -> FloatArray:
    return -np.log([gains[number].gain for number in sorted(gains)])


def test_a_chain_without_noise_is_the_sum_of_its_steps() -> None:
    pairs = [(1, 2), (2, 3), (3, 4)]
    steps = [0.2, -0.1, 0.15]
    told = [PairRatio(a, b, s, 1e-10, 12) for (a, b), s in zip(pairs, steps, strict=True)]
    exact = -np.cumsum([0.0, *steps])
    got = log_brightness(solve_gains(range(1, 5), told))
    np.testing.assert_allclose(got, exact - exact.mean(), rtol=2e-3, atol=2e-4)


def test_well_known_ratios_give_weighted_least_squares() -> None:
    pairs, logs = links(4, 5), brightness(20, 0.2, 0)
    rng = np.random.default_rng(1)
    sigmas = rng.uniform(0.5, 2, len(pairs)) * 1e-3
    errors = sigmas * rng.standard_normal(len(pairs))
    told = [
        PairRatio(a, b, float(logs[a - 1] - logs[b - 1] + e), s**2, 12)
        for (a, b), e, s in zip(pairs, errors, sigmas, strict=True)
    ]
    matrix = np.zeros((len(pairs) + 1, 20))
    for k, (a, b) in enumerate(pairs):
        matrix[k, a - 1], matrix[k, b - 1] = 1 / sigmas[k], -1 / sigmas[k]
    matrix[-1] = 1.0
    expected = np.linalg.lstsq(
        matrix, [*(r.value / s for r, s in zip(told, sigmas, strict=True)), 0.0], rcond=None
    )[0]
    got = log_brightness(solve_gains(range(1, 21), told))
    np.testing.assert_allclose(got, expected, atol=8e-4)
    assert np.std(got - logs) < 1e-3


def test_the_geometric_mean_is_1_in_each_linked_part_and_unlinked_tiles_stay_1() -> None:
    logs = brightness(9, 0.2, 2)
    told = ratios([(1, 2), (2, 3), (1, 3), (5, 6), (6, 7), (7, 8)], logs, np.zeros(6), 1e-4)
    gains = solve_gains(range(1, 10), told)
    for part in ((1, 2, 3), (5, 6, 7, 8)):
        assert len({gains[n].component for n in part}) == 1
        got = -np.log([gains[n].gain for n in part])
        expected = logs[np.array(part) - 1]
        np.testing.assert_allclose(got, expected - expected.mean(), rtol=2e-3, atol=2e-4)
    for alone in (4, 9):
        assert gains[alone].gain == 1
        assert gains[alone].pairs == 0
        assert gains[alone].uncertainty == np.inf
    assert len({gains[n].component for n in (1, 4, 5, 9)}) == 4


@pytest.mark.parametrize("outlier", [0.1, -0.4, 1.0])
def test_a_pair_that_contradicts_the_others_says_little(outlier: float) -> None:
    pairs, logs = links(4, 4), brightness(16, 0.1, 3)
    errors = 0.002 * np.random.default_rng(4).standard_normal(len(pairs))
    errors[10] = outlier
    gains = solve_gains(range(1, 17), ratios(pairs, logs, errors, 0.002))
    assert np.abs(log_brightness(gains) - logs).max() < 0.01


def test_equal_tiles_stay_1_to_the_last_bit() -> None:
    pairs, said = links(3, 3), []
    for seed in range(20):
        errors = 0.004 * np.random.default_rng(seed).standard_normal(len(pairs))
        gains = solve_gains(range(1, 10), ratios(pairs, np.zeros(9), errors, 0.004))
        said.append(all(gain.gain == 1 for gain in gains.values()))
        assert all(0.0005 < gain.uncertainty < 0.01 for gain in gains.values())
    assert np.mean(said) >= 0.85


def test_gains_shrink_towards_1_by_their_uncertainty() -> None:
    pairs, logs = links(3, 3), brightness(9, 0.05, 5)
    kept = []
    for sigma in (0.001, 0.05, 0.2):
        gains = solve_gains(range(1, 10), ratios(pairs, logs, np.zeros(len(pairs)), sigma))
        got = log_brightness(gains)
        kept.append(float(got @ logs / (logs @ logs)))
    assert kept[0] == pytest.approx(1, abs=0.01)
    assert 1 > kept[0] > kept[1] >= kept[2] == 0


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("grid", [(3, 3), (1, 6), (5, 5)])
def test_uncertainties_cover_also_where_pairs_scatter_more_than_they_say(
    grid: tuple[int, int], spread: float
) -> None:
    pairs, count = links(*grid), grid[0] * grid[1]
    within, squares = [], []
    for seed in range(25):
        rng = np.random.default_rng([seed, count])
        logs = brightness(count, spread, seed)
        errors = 0.004 * rng.standard_normal(len(pairs))
        gains = solve_gains(range(1, count + 1), ratios(pairs, logs, errors, 0.002))
        error = log_brightness(gains) - logs
        said = np.array([gains[n].uncertainty for n in range(1, count + 1)])
        within.append(np.mean(np.abs(error) <= 2 * said))
        squares.append(np.mean(said**2))
    assert np.mean(within) >= 0.9
    # Wide enough is not wide at will: at most twice what errors of 0.4 % in each pair cause.
    matrix = np.zeros((len(pairs), count))
    for k, (a, b) in enumerate(pairs):
        matrix[k, a - 1], matrix[k, b - 1] = 1, -1
    caused = np.sqrt(np.mean(np.diag(np.linalg.pinv(matrix.T @ matrix)))) * 0.004
    assert np.sqrt(np.mean(squares)) < 2 * caused


def test_a_tile_without_light_does_not_dim_the_others() -> None:
    pairs = [(a, a + 1) for a in range(1, 5)] + [(1, 3), (2, 4), (3, 5)]
    brightness = np.log([0.01, 1.0, 1.0, 1.0, 1.0])
    gains = solve_gains(range(1, 6), ratios(pairs, brightness, np.zeros(7), 1e-3))
    assert [gains[n].limited for n in range(1, 6)] == [True, False, False, False, False]
    logs = np.log([gains[n].gain for n in range(1, 6)])
    assert logs.mean() == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(logs[1:], -np.log(LARGEST_GAIN) / 5, atol=0.02)


def test_gains_beyond_the_limit_are_cut_off_there() -> None:
    logs = np.log([0.01, 1.0, 1.0, 100.0])
    gains = solve_gains(range(1, 5), ratios([(1, 2), (2, 3), (3, 4)], logs, np.zeros(3), 1e-3))
    assert [gains[n].limited for n in (1, 2, 3, 4)] == [True, False, False, True]
    assert gains[1].gain == pytest.approx(LARGEST_GAIN, rel=1e-5)
    assert gains[4].gain == pytest.approx(1 / LARGEST_GAIN, rel=1e-4)


def test_what_is_doubted_is_in_the_uncertainty() -> None:
    pairs, logs = [(1, 2), (2, 3)], np.array([0.1, 0.0, -0.1])
    gains = solve_gains(range(1, 4), ratios(pairs, logs, np.zeros(2), 1e-3))
    # Were the first pair's ratio off by 0.03, tile 1 would be off by two thirds of it.
    off = solve_gains(range(1, 4), ratios(pairs, logs, [0.03, 0.0], 1e-3))
    sure = with_doubts(gains, [off, off])
    assert {number: tile.gain for number, tile in sure.items()} == {
        number: tile.gain for number, tile in gains.items()
    }
    for number, shift in {1: 0.02, 2: -0.01, 3: -0.01}.items():
        expected = np.hypot(gains[number].uncertainty, np.sqrt(2) * shift)
        assert sure[number].uncertainty == pytest.approx(expected, rel=0.05)


def test_no_pair_at_all() -> None:
    gains = solve_gains([3, 7], [])
    assert [gains[n].gain for n in (3, 7)] == [1, 1]


def flat_zero(y: FloatArray, x: FloatArray) -> FloatArray:
    return np.zeros_like(y)


def strip(
    ratio: FloatArray, *, axis: str = "x", light: float = 400.0, variance: float = 1e-6
) -> OverlapPair:
    """A pair whose bins, (y, x) of 8 pixels, show a log ratio; the second tile 200 px further."""
    y, x = np.meshgrid(*(8.0 * np.arange(n) + 3.5 for n in ratio.shape), indexing="ij")
    y, x, values = y.ravel(), x.ravel(), ratio.ravel()
    move = (0.0, 200.0) if axis == "x" else (200.0, 0.0)
    return OverlapPair(
        first=1,
        second=2,
        axis=axis,
        y_first=y + move[0],
        x_first=x + move[1],
        y_second=y,
        x_second=x,
        light_first=light * np.exp(values),
        light_second=np.full(values.size, light),
        variance=np.full(values.size, variance),
        planes=np.full(values.size, 12.0),
        sheet=np.zeros(values.size, np.intp),
    )


def told_by(pair: OverlapPair) -> PairRatio:
    (ratio,) = pair_ratios([pair], {1: flat_zero, 2: flat_zero})
    return ratio


def test_the_flatfield_is_taken_off_where_each_tile_saw_the_bin() -> None:
    pair = strip(np.full((30, 5), np.log(1.1)))

    def bright_at_the_right(y: FloatArray, x: FloatArray) -> FloatArray:
        return np.asarray(0.001 * x)

    (ratio,) = pair_ratios([pair], {1: bright_at_the_right, 2: bright_at_the_right})
    assert ratio.value == pytest.approx(np.log(1.1) - 0.2)


def test_bins_that_show_something_else_say_little() -> None:
    rng = np.random.default_rng(6)
    values = np.log(1.1) + 0.003 * rng.standard_normal((40, 6))
    values[12:18] += 0.5
    assert told_by(strip(values, variance=9e-6)).value == pytest.approx(np.log(1.1), abs=0.002)


@pytest.mark.parametrize("shared", [1, 3, 5])
def test_the_mean_of_a_pair_is_as_sure_as_it_says(shared: int) -> None:
    squares = []
    for seed in range(150):
        rng = np.random.default_rng([seed, shared])
        # Scatter that neighbouring bins share, as sample and stage errors make it.
        rough = rng.standard_normal((40 + shared, 5))
        scatter = sum(rough[k : 40 + k] for k in range(shared)) * (0.02 / np.sqrt(shared))
        ratio = told_by(strip(0.1 + np.asarray(scatter)))
        squares.append((ratio.value - 0.1) ** 2 / ratio.variance)
    assert 0.4 < np.mean(squares) < 2.2
    assert np.mean(np.array(squares) < 4) >= 0.85


def test_along_either_axis_and_in_either_direction() -> None:
    values = 0.1 + 0.01 * np.random.default_rng(7).standard_normal((40, 5))
    along_x, along_y = told_by(strip(values)), told_by(strip(values.T, axis="y"))
    assert along_y.value == pytest.approx(along_x.value)
    assert along_y.variance == pytest.approx(along_x.variance)
    turned = told_by(strip(-values))
    assert turned.value == pytest.approx(-along_x.value)
    assert turned.variance == pytest.approx(along_x.variance)


def test_pixels_without_noise_do_not_divide_by_0() -> None:
    ratio = told_by(strip(np.full((30, 5), 0.05), variance=0.0))
    assert ratio.value == pytest.approx(0.05)
    assert 0 < ratio.variance < 1e-8


def test_few_bins_in_a_row_have_no_parts() -> None:
    ratio = told_by(strip(np.array([[0.1, 0.12]]), variance=1e-4))
    assert ratio.parts == 0
    assert ratio.variance >= 1e-4 / 2
