"""The noise of each camera has the moments that it is named for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstat

from fractal_mesospim_shading.synthetic.cameras import CAMERAS, Exposure
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

GAIN, READ_NOISE, LIGHT, DARK = 2.0, 1.5, 60.0, 100.0
VARIANCE = GAIN * LIGHT + (GAIN * READ_NOISE) ** 2


def _planes(camera: str, number: int = 8) -> NDArray[np.float32]:
    flat = np.ones((256, 256), np.float32)
    return np.stack(
        [
            CAMERAS[camera](
                Exposure(
                    LIGHT * flat, DARK * flat, GAIN, READ_NOISE, np.random.default_rng(k), (3,)
                )
            )
            for k in range(number)
        ]
    )


def _correlation(planes: NDArray[np.float32], axis: int) -> float:
    noise = planes - planes.mean()
    first, second = (np.take(noise, np.arange(256)[part], axis) for part in (np.s_[:-1], np.s_[1:]))
    return float((first * second).mean() / (noise**2).mean())


@pytest.mark.parametrize(
    ("camera", "variance", "third"),
    [
        ("photons", VARIANCE, GAIN**2 * LIGHT),
        ("gaussian", VARIANCE, 0.0),
        ("averaged", VARIANCE / 4, GAIN**2 * LIGHT / 16),
        ("shared", VARIANCE * (6 / 16) ** 2, GAIN**2 * LIGHT * (10 / 64) ** 2),
        ("shifted by 0.25", VARIANCE * 10 / 16, GAIN**2 * LIGHT * 28 / 64),
        ("shifted by 0.5", VARIANCE / 2, GAIN**2 * LIGHT / 4),
        ("stepped", VARIANCE * 13 / 12, GAIN**2 * LIGHT * 1.25),
    ],
)
def test_cumulants(camera: str, variance: float, third: float) -> None:
    """Of independent pixels, times the sums of squares and cubes of a filter's weights."""
    values = _planes(camera).ravel().astype(np.float64)
    assert values.mean() == pytest.approx(DARK + LIGHT, abs=0.3)
    assert kstat(values, 2) == pytest.approx(variance, rel=0.02)
    assert kstat(values, 3) == pytest.approx(third, rel=0.1, abs=0.01 * variance**1.5)


@pytest.mark.parametrize(
    ("camera", "along_y", "along_x"),
    [("photons", 0, 0), ("shared", 4 / 6, 4 / 6), ("shifted by 0.25", 0, 0.3), ("averaged", 0, 0)],
)
def test_neighbours(camera: str, along_y: float, along_x: float) -> None:
    planes = _planes(camera)
    assert _correlation(planes, 1) == pytest.approx(along_y, abs=0.01)
    assert _correlation(planes, 2) == pytest.approx(along_x, abs=0.01)


def test_nothing_is_brighter_than_the_cut() -> None:
    limit = DARK + LIGHT + 2.5 * np.sqrt(VARIANCE)
    assert float(_planes("despeckled").max()) == pytest.approx(limit, rel=1e-6)
    assert float(_planes("photons").max()) > limit


def test_steps_are_those_of_the_noise() -> None:
    values = np.unique(_planes("stepped"))
    near = values[np.abs(values - DARK - LIGHT) < 15]
    assert np.diff(near) == pytest.approx(np.sqrt(VARIANCE), rel=0.15)


def test_pixels_of_a_scientific_camera_differ() -> None:
    planes = _planes("scientific CMOS", 64)
    noise = planes.std(axis=0, ddof=1)
    usual = np.sqrt(VARIANCE)
    assert float(np.median(noise)) == pytest.approx(usual, rel=0.03)
    # The noise of 64 planes scatters by 9 %.
    assert 0.002 < float((noise > 1.5 * usual).mean()) < 0.03
    assert int((planes.mean(axis=0) > DARK + LIGHT + 50).sum()) > 0
    # What a pixel is like stays with it.
    other = _planes("scientific CMOS", 4).std(axis=0, ddof=1)
    assert float(np.median(other[noise > 2 * usual])) > 1.5 * usual


def test_what_is_stored() -> None:
    world = LightSheetWorld(tile_shape=(32, 32), planes=2, offset=3.0, medium=5.0, sample=0.0)
    (whole,) = world.tile_planes(1, [0])
    assert whole.dtype == np.uint16
    assert int(whole.min()) == 0
    small = replace(world, pixel_type="uint8", medium=250.0).tile_planes(1, [0])
    assert small.dtype == np.uint8
    assert int(small.max()) == 255
    (floats,) = replace(world, pixel_type="float32").tile_planes(1, [0])
    assert floats.dtype == np.float32
    assert float(floats.min()) < 0
    np.testing.assert_array_equal(np.clip(np.rint(floats), 0, 65535), whole)
