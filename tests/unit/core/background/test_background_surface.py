"""The surface through the medians of tiles stays among them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RectBivariateSpline, make_interp_spline

from fractal_mesospim_shading.core.background import make_method


@pytest.fixture
def edge() -> np.ndarray:
    """A slanted edge of tissue, 100 to 500 counts, with noise."""
    y, x = np.indices((300, 340))
    noise = np.random.default_rng(2).normal(0, 3, y.shape)
    return np.rint(100 + 400 * (x + 0.6 * y > 240) + noise).astype(np.uint16)


def _held(mesh) -> np.ndarray:
    """SciPy's spline through the values, cut off pixel by pixel."""
    rows, columns = mesh.values.shape
    place_y = np.clip(np.arange(mesh.shape[0]), mesh.centres_y[0], mesh.centres_y[-1])
    place_x = np.clip(np.arange(mesh.shape[1]), mesh.centres_x[0], mesh.centres_x[-1])
    if columns == 1:
        line = make_interp_spline(mesh.centres_y, mesh.values[:, 0], k=min(3, rows - 1))(place_y)
        result = np.repeat(line[:, None], place_x.size, axis=1)
    else:
        result = RectBivariateSpline(
            mesh.centres_y, mesh.centres_x, mesh.values, kx=min(3, rows - 1), ky=min(3, columns - 1)
        )(place_y, place_x)
    for y, at_y in enumerate(place_y):
        for x, at_x in enumerate(place_x):
            near_y, near_x = range(min(rows, 2)), range(min(columns, 2))
            j = max(i for i in range(max(rows - 1, 1)) if mesh.centres_y[i] <= at_y)
            k = max(i for i in range(max(columns - 1, 1)) if mesh.centres_x[i] <= at_x)
            four = [float(mesh.values[j + a, k + b]) for a in near_y for b in near_x]
            result[y, x] = min(max(result[y, x], min(four)), max(four))
    return result


@pytest.mark.parametrize("size", [40, 64, (64, 300), (100, 170)])
def test_each_pixel_stays_within_the_four_squares_around_it(edge, size) -> None:
    image = edge[:180, :210]
    mesh = make_method("tile_median", tile_size=size).surface(image)
    assert mesh is not None
    np.testing.assert_allclose(mesh.background(), _held(mesh), rtol=1e-5)


@pytest.mark.parametrize("tile_size", [32, 64, 128])
def test_the_surface_of_a_step_stays_within_the_step(edge, tile_size) -> None:
    held = make_method("tile_median", tile_size=tile_size).background(edge).background
    assert held.min() > 95 and held.max() < 505
    free = (
        make_method("tile_median", tile_size=tile_size, compatibility="pyama")
        .background(edge)
        .background
    )
    assert free.min() < 80 and free.max() > 520


def test_a_smooth_background_keeps_its_spline() -> None:
    y, x = np.indices((300, 340))
    image = (1000 + 2 * x + 3 * y + 0.002 * x * y).astype(np.float32)
    mesh = make_method("tile_median", tile_size=60).surface(image)
    spline = RectBivariateSpline(mesh.centres_y, mesh.centres_x, mesh.values)
    inner = slice(30, 270), slice(30, 310)
    wanted = spline(np.arange(30, 270), np.arange(30, 310))
    np.testing.assert_allclose(mesh.background(*inner), wanted, rtol=1e-6)


def test_a_map_of_noise_is_never_below_0() -> None:
    rng = np.random.default_rng(0)
    image = 500 + rng.normal(0, 1, (256, 256))
    image[:, 128:] += rng.normal(0, 60, (256, 128))
    noise = make_method("tile_median", tile_size=40, noise_map=True).background(image).noise
    assert noise.min() > 0.8 and noise.max() < 75
    free = (
        make_method("tile_median", tile_size=40, noise_map=True, compatibility="pyama")
        .background(image)
        .noise
    )
    assert free.min() < 0


def test_parts_of_a_held_surface_have_the_bits_of_the_whole(edge) -> None:
    mesh = make_method("tile_median", tile_size=40, noise_map=True).surface(edge)
    whole, noise = mesh.background(), mesh.noise_map()
    for y in range(0, 300, 47):
        for x in range(0, 340, 61):
            part = slice(y, y + 47), slice(x, x + 61)
            np.testing.assert_array_equal(mesh.background(*part), whole[part])
            np.testing.assert_array_equal(mesh.noise_map(*part), noise[part])


@pytest.mark.parametrize("interpolation", ["linear", "none"])
def test_other_surfaces_never_leave_the_values(edge, interpolation) -> None:
    mesh = make_method("tile_median", tile_size=40, interpolation=interpolation).surface(edge)
    found = mesh.background()
    # A sum of weights that is 1 up to its last bit.
    assert found.min() >= mesh.values.min() - 1e-4 and found.max() <= mesh.values.max() + 1e-4
