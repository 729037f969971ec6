"""The noise of squares: closed forms of the third moment, and what of the squares can be used."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, BinnedStack, bin_block
from fractal_mesospim_shading.core.flatfield.noise import (
    NoiseSquares,
    Scales,
    usable,
    zeros_among_values,
)
from fractal_mesospim_shading.core.flatfield.offset import estimate_offset
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

BinWorld = Callable[..., BinnedStack]

RNG = np.random.Generator(np.random.PCG64(11))


def _binned(stack: np.ndarray, cuts: tuple[int, ...] = (), **options: bool) -> BinnedStack:
    gathered = BinnedPlanes(len(stack), stack.shape[1:], 2)
    edges = [0, *cuts, stack.shape[2]]
    for left, right in pairwise(edges):
        partial = bin_block(stack[:, :, left:right], 0, left, 2, **options)
        gathered.add(partial, range(len(stack)))
    return gathered.finish()


def _loop(first: np.ndarray, second: np.ndarray, bad: np.ndarray) -> list[float]:
    """k-statistic of sum, difference, difference in each window of 4 x 4, by two."""
    found = []
    for y in range(0, first.shape[0], 4):
        for x in range(0, first.shape[1], 4):
            window = (slice(y, y + 4), slice(x, x + 4))
            a, b = first[window].astype(float).ravel(), second[window].astype(float).ravel()
            if bad[window].any() or len(a) < 16:
                continue
            s, u = a + b - (a + b).mean(), a - b - (a - b).mean()
            found.append(16 / (15 * 14) * float((s * u * u).sum()) / 2)
    return found


def test_it_equals_a_loop() -> None:
    stack = RNG.integers(1, 4096, (3, 16, 16), dtype=np.uint16)
    stack[1, 5, 6] = 0
    stack[2, 9, 14] = 65535
    found = _binned(stack, zero_is_no_data=True)
    for k in range(2):
        bad = ((stack[k : k + 2] == 0) | (stack[k : k + 2] == 65535)).any(axis=0)
        expected = _loop(stack[k], stack[k + 1], bad)
        assert found.third[k, 0, 0] == pytest.approx(np.mean(expected), rel=1e-9)
        assert found.third_pixels[k, 0, 0] == 16 * len(expected)
    assert found.third_pixels[2, 0, 0] == 0


def test_windows_lie_on_the_tile_wherever_it_is_cut() -> None:
    stack = RNG.integers(0, 4096, (3, 16, 48), dtype=np.uint16)
    whole, even = _binned(stack), _binned(stack, (20,))
    np.testing.assert_array_equal(even.third, whole.third)
    odd = _binned(stack, (21,))
    assert whole.third_pixels.sum() - odd.third_pixels.sum() == 2 * 4 * 16
    assert _binned(stack[:, :3]).third_pixels.sum() == 0


def test_counted_photons_have_it_and_read_noise_and_fixed_patterns_have_not() -> None:
    shape = (8, 192, 192)
    photons = 3 * RNG.poisson(40, shape) + RNG.normal(0, 3, shape)
    pattern = 15 * RNG.exponential(1, shape[1:])
    found = _binned((100 + np.rint(photons + pattern)).astype(np.uint16))
    # Third cumulant of 3 times a Poisson variable of mean 40; 0.04 is one standard deviation.
    assert float(np.nanmean(found.third)) == pytest.approx(27 * 40, rel=0.12)
    noise = RNG.normal(500, 14, shape)
    assert abs(float(np.nanmean(_binned(np.rint(noise).astype(np.uint16)).third))) < 30


@pytest.mark.slow
@pytest.mark.parametrize("read_noise", [1.0, 2.0, 3.5])
def test_the_read_noise_need_not_be_known(bin_world: BinWorld, read_noise: float) -> None:
    world = LightSheetWorld(
        tile_shape=(256, 256), planes=16, sample=0.0, medium=25.0, read_noise=read_noise
    )
    slabs = [(tile, range(16)) for tile in (1, 2, 3)]
    found = estimate_offset(bin_world(world, slabs), mostly_empty=True)
    assert abs(found.value - 100) < 2 * found.uncertainty
    # Guessing 1.5 electrons would be wrong by up to 22 counts.
    assert found.uncertainty < 8
    assert found.details["read_noise"] == pytest.approx(read_noise, abs=0.4)


def test_beads_hot_pixels_and_lost_blocks_do_not_pull_it(bin_world: BinWorld) -> None:
    world = LightSheetWorld(tile_shape=(256, 256), planes=16, sample=0.0, medium=25.0)
    stack = world.tile_planes(1, range(16))
    spoilt = stack.copy()
    for y, x in RNG.integers(0, 250, (25, 2)):
        spoilt[RNG.integers(0, 16), y : y + 3, x : x + 3] += 400
        spoilt[:, y, (x + 90) % 256] = 150 + RNG.poisson(200, 16)
    spoilt[3:6, :64, :64] = 0
    found = []
    for planes in (stack, spoilt):
        gathered = BinnedPlanes(16, world.tile_shape)
        block = bin_block(planes, 0, 0, gathered.bin_px, zero_is_no_data=True)
        gathered.add(block, range(16))
        found.append(estimate_offset(gathered.finish(), mostly_empty=True))
    assert abs(found[1].value - found[0].value) < found[0].uncertainty
    assert abs(found[1].value - world.offset) < 2 * found[1].uncertainty


def _filtered(weights: list[float]) -> NoiseSquares:
    from scipy.ndimage import convolve1d

    planes = 150 + 10 * RNG.standard_normal((6, 128, 128))
    for axis in (1, 2):
        planes = convolve1d(planes, np.array(weights) / sum(weights), axis=axis, mode="wrap")
    return NoiseSquares.of(_binned(planes.astype(np.float32)))


def test_a_filter_shows_at_the_finest_scale() -> None:
    """Neighbours with a correlation r along both axes: (1 - r)^2 is left at the finest scale.

    In the change of a cell about its mean it is 1 - (4 r + 2 r^2) / 6.
    """
    white = Scales.of(_filtered([1]))
    # Medians of squares lie up to 6 % beside it, and vary by 2 % from draw to draw.
    assert white.fine == pytest.approx(1, abs=0.06)
    assert white.coarse == pytest.approx(1, abs=0.1)
    assert not white.filtered
    for weights, r in (([1, 1], 1 / 2), ([3, 1], 3 / 10)):
        shifted = Scales.of(_filtered(weights))
        expected = (1 - r) ** 2 / (1 - (4 * r + 2 * r**2) / 6)
        assert shifted.fine == pytest.approx(expected, rel=0.13)
        assert shifted.filtered
        assert shifted.coarse > 1.2


def test_even_squares_stay_even_after_a_filter_but_for_the_border() -> None:
    squares = _filtered([1, 1])
    even = usable(squares, Scales.of(squares))
    assert even[:, 1:-1, 1:-1].mean() > 0.8
    assert not even[:, 0].any()
    assert not even[:, :, -1].any()
    white = _filtered([1])
    assert usable(white, Scales.of(white)).mean() > 0.8


def test_texture_is_not_even() -> None:
    y, x = np.indices((128, 128))
    planes = 150 + 10 * RNG.standard_normal((6, 128, 128))
    planes[:, :, 64:] += (30 * np.sin(y / 1.3) * np.sin(x / 1.3))[:, 64:]
    squares = NoiseSquares.of(_binned(planes.astype(np.float32)))
    even = usable(squares, Scales.of(squares))
    assert even[:, :, :4].mean() > 0.8
    assert not even[:, :, 4:].any()


def test_zeros_among_values_are_counted_and_lost_blocks_are_not() -> None:
    stack = RNG.integers(50, 90, (2, 30, 40), dtype=np.uint16)
    stack[0, 16:, 16:] = 0
    stack[1, :, :7] = 0
    assert zeros_among_values(_binned(stack, zero_is_no_data=True)) == 0
    stack[0, 3, 5] = stack[0, 9, 9] = 0
    share = zeros_among_values(_binned(stack, zero_is_no_data=True))
    assert share == pytest.approx(2 / (2 * 30 * 40), rel=0.5)


def test_sums_over_squares_are_those_of_plain_numpy() -> None:
    """Bins of no data, and squares that the tile cuts, included."""
    stack = RNG.integers(80, 200, (3, 54, 76)).astype(np.float32)
    stack[1, 10:16, 20:30] = np.nan
    binned = _binned(stack)
    squares = NoiseSquares.of(binned)
    mean, count = binned.mean.astype(np.float64), binned.count.astype(np.float64)
    rows, columns = np.indices(mean.shape[1:])
    power, number = np.zeros((2, *squares.spatial.shape))
    light, pixels = np.zeros((2, 2, *squares.spatial.shape))
    for y, x in np.ndindex(*squares.spatial.shape[1:]):
        square = (rows // 8 == y) & (columns // 8 == x)
        for axis in (0, 1):
            bend = np.full(mean.shape, np.nan)
            inner = np.s_[:, 1:-1] if axis == 0 else np.s_[:, :, 1:-1]
            bend[inner] = np.diff(mean, 2, axis=1 + axis) ** 2 * count[inner] / 6
            power[:, y, x] += np.nansum(bend[:, square], axis=1)
            number[:, y, x] += np.isfinite(bend[:, square]).sum(axis=1)
        for colour in (0, 1):
            chosen = square & ((rows + columns) % 2 == colour)
            pixels[colour, :, y, x] = count[:, chosen].sum(axis=1)
            light[colour, :, y, x] = np.nansum((mean * count)[:, chosen], axis=1)
    np.testing.assert_array_equal(squares.roughness_bins, number)
    np.testing.assert_allclose(squares.roughness, power / number / squares.spatial, rtol=1e-12)
    np.testing.assert_array_equal(squares.half_pixels, pixels)
    np.testing.assert_allclose(squares.halves, light / pixels, rtol=1e-12)
