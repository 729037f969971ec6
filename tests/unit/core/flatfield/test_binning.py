"""Bins against plain loops, whatever the boxes; the noise against its closed form."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.binning import (
    NOISE_BINS,
    BinnedPlanes,
    BinnedStack,
    bin_block,
    choose_bin,
)
from fractal_mesospim_shading.core.flatfield.emptiness import without_margins
from fractal_mesospim_shading.errors import SamplingError

RNG = np.random.Generator(np.random.PCG64(7))


def _binned(
    stack: np.ndarray,
    boxes: list[tuple[slice, slice]] | None = None,
    bin_px: int = 2,
    dark: np.ndarray | None = None,
    zero_is_no_data: bool = False,
) -> BinnedStack:
    gathered = BinnedPlanes(len(stack), stack.shape[1:], bin_px)
    for y, x in boxes or [(slice(0, stack.shape[1]), slice(0, stack.shape[2]))]:
        frame = None if dark is None else dark[y, x]
        partial = bin_block(stack[:, y, x], y.start, x.start, bin_px, frame, zero_is_no_data)
        gathered.add(partial, range(len(stack)))
    return gathered.finish(integer=stack.dtype != np.float32)


def _loop_means(stack: np.ndarray, bin_px: int, bad: np.ndarray, dark: np.ndarray) -> np.ndarray:
    n, height, width = stack.shape
    means = np.full((n, -(-height // bin_px), -(-width // bin_px)), np.nan)
    for k in range(n):
        for i in range(means.shape[1]):
            for j in range(means.shape[2]):
                values = [
                    float(stack[k, y, x]) - float(dark[y, x])
                    for y in range(i * bin_px, min((i + 1) * bin_px, height))
                    for x in range(j * bin_px, min((j + 1) * bin_px, width))
                    if not bad[k, y, x]
                ]
                if values:
                    means[k, i, j] = sum(values) / len(values)
    return means


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (1, 5)])
def test_means_equal_a_loop(dtype: type, shape: tuple[int, int]) -> None:
    stack = RNG.integers(0, 4, (3, *shape)).astype(dtype)
    dark = RNG.integers(0, 200, shape) / np.float32(64)
    found = _binned(stack, bin_px=4, dark=dark, zero_is_no_data=True)
    np.testing.assert_allclose(
        found.mean, _loop_means(stack, 4, stack == 0, dark), rtol=1e-6, atol=1e-6
    )


def test_nan_is_left_out() -> None:
    stack = RNG.uniform(1, 2, (2, 8, 8)).astype(np.float32)
    stack[0, 2:5, 3] = np.nan
    stack[1, :2, :2] = np.nan
    found = _binned(stack)
    np.testing.assert_allclose(
        found.mean, _loop_means(stack, 2, np.isnan(stack), np.zeros((8, 8))), rtol=1e-6
    )
    assert found.count[1, 0, 0] == 0
    assert np.isnan(found.mean[1, 0, 0])


def test_boxes_at_any_place_and_in_any_order_give_equal_bytes() -> None:
    stack = RNG.integers(0, 65536, (4, 37, 45), dtype=np.uint16)
    dark = RNG.normal(100, 3, (37, 45)).astype(np.float32)
    cuts_y, cuts_x = [0, 11, 20, 37], [0, 8, 23, 45]
    boxes = [(slice(a, b), slice(c, d)) for a, b in pairwise(cuts_y) for c, d in pairwise(cuts_x)]
    whole = _binned(stack, dark=dark, bin_px=4)
    cut = _binned(stack, boxes, dark=dark, bin_px=4)
    turned = _binned(stack, boxes[::-1], dark=dark, bin_px=4)
    np.testing.assert_array_equal(cut.mean, whole.mean)
    np.testing.assert_array_equal(cut.count, whole.count)
    np.testing.assert_array_equal(cut.noise_mean, whole.noise_mean)
    for name in ("mean", "spatial", "temporal"):
        assert getattr(cut, name).tobytes() == getattr(turned, name).tobytes()


def test_even_cuts_lose_no_cell() -> None:
    stack = RNG.integers(0, 4096, (3, 40, 40), dtype=np.uint16)
    boxes = [(slice(a, a + 20), slice(b, b + 20)) for a in (0, 20) for b in (0, 20)]
    whole, cut = _binned(stack), _binned(stack, boxes)
    for name in ("spatial", "temporal", "spatial_cells", "temporal_cells"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))


def test_noise_equals_a_loop() -> None:
    stack = RNG.integers(0, 4096, (2, 16, 16), dtype=np.uint16)
    spatial, temporal = [], []
    for y in range(0, 16, 2):
        for x in range(0, 16, 2):
            first, second = stack[:, y : y + 2, x : x + 2].astype(int)
            spatial.append((first[0, 0] - first[0, 1] - first[1, 0] + first[1, 1]) ** 2 / 4)
            temporal.append((second - first).var(ddof=1) / 2)
    found = _binned(stack)
    assert found.spatial.shape == (2, 1, 1)
    assert found.spatial[0, 0, 0] == pytest.approx(np.mean(spatial), rel=1e-12)
    assert found.temporal[0, 0, 0] == pytest.approx(np.mean(temporal), rel=1e-12)
    assert found.temporal_cells[1, 0, 0] == 0


def test_noise_ignores_slopes_and_pairs_ignore_the_fixed_pattern() -> None:
    y, x = np.mgrid[:128, :128]
    pattern = RNG.normal(0, 20, (128, 128))
    clean = 1000 + 3 * y + 5 * x + pattern
    stack = np.rint(clean + RNG.normal(0, 6, (6, 128, 128))).astype(np.uint16)
    found = _binned(stack)
    assert np.nanmean(found.temporal) == pytest.approx(36 + 1 / 12, rel=0.03)
    assert np.nanmean(found.spatial) == pytest.approx(436, rel=0.05)


def test_saturated_pixels_are_counted_and_tell_nothing_about_the_noise() -> None:
    stack = np.full((2, 16, 16), 200, np.uint8)
    stack[0, 3, 4] = stack[1, 15, 15] = 255
    found = _binned(stack)
    assert found.saturated == 2
    assert float(np.nansum(found.spatial)) == 0
    assert found.spatial_cells[0, 0, 0] == 63


@pytest.mark.parametrize(("side", "bin_px"), [(128, 2), (512, 4), (2048, 8)])
def test_size_of_a_bin(side: int, bin_px: int) -> None:
    assert choose_bin((side, side)) == bin_px


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (5056, 2960), (7, 30)])
def test_bins_are_even_and_not_too_many(shape: tuple[int, int]) -> None:
    side = choose_bin(shape)
    assert side % 2 == 0
    assert -(-shape[0] // side) * -(-shape[1] // side) <= 70_000


def test_wrong_slots_and_odd_bins_are_refused() -> None:
    stack = np.ones((2, 16, 16), np.uint8)
    gathered = BinnedPlanes(4, (16, 16), 2)
    partial = bin_block(stack, 0, 0, 2)
    for slots in ([0], [0, 2], [1, 0]):
        with pytest.raises(SamplingError, match="slots"):
            gathered.add(partial, slots)
    with pytest.raises(SamplingError, match="even"):
        bin_block(stack, 0, 0, 3)
    assert NOISE_BINS * 2 == 16


def test_planes_of_zeros_and_margins_are_left_out() -> None:
    rng = np.random.default_rng(0)
    full = rng.integers(90, 110, (4, 96, 96)).astype("uint16")
    full[:, 50, 50] = 0  # a value
    holes = full.copy()
    holes[1] = 0
    holes[2, :, :5] = 0
    found, wanted = without_margins(_binned(holes, bin_px=2)), _binned(full, bin_px=2)
    assert without_margins(wanted) is wanted
    kept = np.ones(found.mean.shape, bool)
    kept[1] = False
    # Bins of 2 pixels: two lie in the margin, and the one that it ends in is left out as well.
    kept[2, :, :3] = False
    np.testing.assert_array_equal(np.isfinite(found.mean), kept)
    np.testing.assert_array_equal(found.mean[kept], wanted.mean[kept])
    np.testing.assert_array_equal(found.count, np.where(kept, wanted.count, 0))
    squares = np.ones(found.spatial.shape, bool)
    squares[1], squares[2, :, 0] = False, False
    for name in ("noise_mean", "spatial"):
        np.testing.assert_array_equal(np.isfinite(getattr(found, name)), squares)
        assert np.allclose(getattr(found, name)[squares], getattr(wanted, name)[squares])
    assert not found.temporal_cells[:2].any() and not found.temporal_cells[2, :, 0].any()
    assert (found.spatial_cells > 0).tolist() == squares.tolist()
