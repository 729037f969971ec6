"""Stage errors found again, in views made with shifts that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as shifted

from fractal_mesospim_shading.core.overlaps.registration import register


def views(shape, shift, *, pieces=3, noise=0.0, seed=0, slope=0.0):
    """Two views of structure, the second of which shows it farther by `shift`."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(pieces):
        wide = tuple(n + 60 for n in shape)
        scene = sum(gaussian_filter(rng.standard_normal(wide), s) * s for s in (3, 10))
        scene = 300 * np.exp(scene)
        moved = shifted(scene, shift, order=3)
        pair = []
        for view, sign in ((scene, 1), (moved, -1)):
            light = view[30:-30, 30:-30] * np.linspace(1 + sign * slope, 1 - sign * slope, shape[1])
            pair.append((light + noise * rng.standard_normal(shape)).astype(np.float32))
        result.append(tuple(pair))
    return result


@pytest.mark.parametrize("shift", [(0, 0), (3.4, -2.7), (-9.5, 0.25)])
@pytest.mark.parametrize("shape", [(256, 48), (38, 300)])
def test_a_shift_is_found_between_pixels(shape, shift):
    found = register(views(shape, shift, noise=10), 16)
    assert found.holds
    assert (found.y, found.x) == pytest.approx(shift, abs=0.03)
    assert found.error < 0.03
    assert found.correlation > 0.95


def test_shading_that_differs_does_not_move_it():
    found = register(views((256, 48), (1.5, 2.5), slope=0.3), 16)
    assert (found.y, found.x) == pytest.approx((1.5, 2.5), abs=0.05)


def test_one_piece_is_enough():
    found = register(views((256, 48), (4.2, -3.1), pieces=1), 16)
    assert found.holds
    assert (found.y, found.x) == pytest.approx((4.2, -3.1), abs=0.03)


def test_pixels_that_are_not_known_do_not_hurt():
    pieces = views((256, 48), (4.2, -3.1))
    for first, second in pieces:
        first[40:60, 5:20] = np.nan
        second[100:102] = np.nan
    found = register(pieces, 16)
    assert (found.y, found.x) == pytest.approx((4.2, -3.1), abs=0.05)


def test_views_of_different_tissue_are_rejected():
    pieces = [
        (a[0], b[1])
        for a, b in zip(views((256, 48), (0, 0)), views((256, 48), (0, 0), seed=1), strict=True)
    ]
    found = register(pieces, 16)
    assert not found.holds and "correlate" in found.reason


def test_parts_that_moved_differently_are_rejected():
    one, other = views((256, 64), (0, 0)), views((256, 64), (9, 3), seed=1)
    found = register([one[0], other[0], one[1], other[1]], 16)
    assert not found.holds


def test_noise_alone_is_rejected():
    rng = np.random.default_rng(0)
    noise = rng.normal(60, 8, (4, 2, 256, 48)).astype(np.float32)
    assert not register([tuple(piece) for piece in noise], 16).holds


def test_the_reach_limits_it():
    found = register(views((256, 96), (0, 12.0)), 6)
    assert not found.holds or abs(found.x) <= 8
