"""The third moment: its closed forms, and that it tells the offset whatever the read noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, BinnedStack, bin_block
from fractal_mesospim_shading.core.flatfield.noise import (
    PhotonTransfer,
    ThirdMoment,
    offset_and_read_noise,
)
from fractal_mesospim_shading.core.flatfield.offset import estimate_offset
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

BinWorld = Callable[..., BinnedStack]

RNG = np.random.Generator(np.random.PCG64(11))
LINE = PhotonTransfer(
    gain=2.0,
    gain_error=0.0,
    at_zero=90.0,
    zero_error=0.0,
    centre=150.0,
    used=np.ones((1, 1, 1), bool),
    rounding=0.0,
)


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
    assert found.uncertainty < 2.5
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


def test_a_sure_third_moment_decides() -> None:
    value, error, read_noise = offset_and_read_noise(LINE, ThirdMoment(100.0, 0.01, 50.0), 0.0, 1.0)
    assert value == pytest.approx(100.0, abs=0.01)
    assert error == pytest.approx(0.01, rel=0.05)
    # 90 + 2 r^2 = 100 counts; the variance that nobody counts in electrons leaves it open a bit.
    assert read_noise == pytest.approx(np.sqrt(5), abs=0.05)


def test_without_it_the_usual_read_noise_decides() -> None:
    value, error, read_noise = offset_and_read_noise(LINE, ThirdMoment(500.0, 1e6, 50.0), 0.0, 0.0)
    # Moments of the square of a mixture of log-normal variables.
    parts = ((0.6, 1.45, 0.2), (0.4, 2.0, 0.5))
    mean = sum(share * r**2 * np.exp(2 * s**2) for share, r, s in parts)
    square = sum(share * r**4 * np.exp(8 * s**2) for share, r, s in parts)
    assert value == pytest.approx(90 + 2 * mean, rel=1e-3)
    assert error == pytest.approx(2 * np.sqrt(square - mean**2), rel=0.02)
    assert np.log(read_noise) == pytest.approx(0.6 * np.log(1.45) + 0.4 * np.log(2.0), abs=1e-3)


def test_an_unsure_gain_makes_it_unsure() -> None:
    third = ThirdMoment(100.0, 0.1, 50.0)
    sure = offset_and_read_noise(LINE, third, 0.0, 0.3)[1]
    unsure = offset_and_read_noise(replace(LINE, gain_error=0.1, zero_error=3.0), third, 0.0, 0.3)[
        1
    ]
    assert unsure > 3 * sure
