"""The forward model does what it says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.synthetic.world import SHAPES, LightSheetWorld

WORLD = LightSheetWorld(tile_shape=(96, 128), planes=20)


def test_parts_equal_the_whole_and_the_seed_decides() -> None:
    stack = WORLD.tile_stack(5)
    assert stack.dtype == np.uint16
    assert stack.shape == (20, 96, 128)
    np.testing.assert_array_equal(WORLD.tile_planes(5, [3, 11]), stack[[3, 11]])
    np.testing.assert_array_equal(
        LightSheetWorld(tile_shape=(96, 128), planes=20).tile_stack(5), stack
    )
    assert not np.array_equal(replace(WORLD, seed=1).tile_planes(5, [3])[0], stack[3])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_flatfield_falls_off_as_asked(shape: str) -> None:
    plain = replace(WORLD, shape=shape, streaks=0.0).flatfield()
    assert plain.mean() == pytest.approx(1, abs=1e-6)
    assert plain.min() / plain.max() == pytest.approx(0.5, abs=1e-3)
    streaks = replace(WORLD, shape=shape).flatfield() / plain
    assert np.abs(streaks / np.median(streaks) - 1).max() == pytest.approx(0.03, abs=0.012)
    assert not np.array_equal(WORLD.flatfield(0), WORLD.flatfield(1))


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        replace(WORLD, shape="round").flatfield()


def test_the_dark_frame_has_the_offset_and_the_structure() -> None:
    dark = WORLD.dark_frame()
    assert dark.mean() == pytest.approx(100, abs=1e-3)
    assert dark.std() == pytest.approx(1, rel=1e-3)
    assert np.abs(WORLD.measured_dark_frame(400) - dark).std() < 0.2


def test_mean_and_noise_of_an_empty_plane() -> None:
    world = replace(WORLD, sample=0.0, dark_structure=0.0, streaks=0.0)
    planes = world.tile_planes(1, range(20)).astype(float)
    light = world.medium * world.flatfield()
    assert planes.mean() == pytest.approx(100 + light.mean(), abs=0.1)
    expected = world.gain * light + (world.gain * world.read_noise) ** 2 + 1 / 12
    assert (planes.var(axis=0, ddof=1) / expected).mean() == pytest.approx(1, rel=0.02)


def test_corners_are_empty_at_both_ends_and_the_middle_is_not() -> None:
    for number in (1, 3, 7, 9):
        assert WORLD.is_empty(number, 0)
        assert WORLD.is_empty(number, 19)
    assert not WORLD.is_empty(5, 10)
    for number in WORLD.tile_numbers:
        for z in range(WORLD.planes):
            plane = WORLD.clean_plane(number, z)
            if WORLD.is_empty(number, z):
                assert (plane == WORLD.medium).all()
            assert plane.min() >= WORLD.medium
    assert WORLD.clean_plane(5, 10).max() > 5 * WORLD.medium


def test_tiles_are_numbered_down_the_columns() -> None:
    world = replace(WORLD, grid=(2, 3))
    places = [world.tile_row_column(number) for number in world.tile_numbers]
    assert places == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]


def test_the_sample_goes_on_across_a_seam() -> None:
    world = replace(WORLD, sample_radius=1.2)
    left, right = world.clean_plane(2, 10), world.clean_plane(5, 10)
    step = np.abs(left[:, -1] - right[:, 0])
    inside = np.abs(np.diff(left[:, -20:], axis=1)).mean(axis=1)
    assert np.median(step) < 4 * np.median(inside)


def test_the_world_is_at_hand_without_anything_heavy() -> None:
    code = (
        "import sys; from fractal_mesospim_shading.synthetic import LightSheetWorld;"
        "print([name for name in ('zarr', 'scipy', 'dask', 'anndata') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
