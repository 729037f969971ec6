"""Acquisitions of known truth whose tiles overlap: what they say of themselves holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.synthetic.overlapping import (
    OverlappingWorld,
    write_overlapping_mosaic,
)
from tests.support.overlapping import write_overlapping_acquisition

SMALL = OverlappingWorld(
    tile_shape=(64, 80), grid=(2, 3), planes=4, overlap=0.3, gain_range=0.3, structure_px=(8.0, 3.0)
)


def both_views(
    world: OverlappingWorld, first: int, second: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The light of two tiles in the overlap, the second brought to the first's pixels by SciPy."""
    dy, dx = world.true_positions[second - 1] - world.true_positions[first - 1]
    moved = [ndimage.shift(plane, (dy, dx), order=3, cval=np.nan) for plane in world.light(second)]
    a, b = world.light(first), np.stack(moved)
    inside = np.s_[:, int(max(dy, 0)) + 8 : -8, int(max(dx, 0)) + 8 : -8]
    return a[inside], b[inside]


@pytest.mark.parametrize(("first", "second"), [(1, 2), (1, 3), (4, 6)])
def test_two_tiles_see_the_same_tissue_at_their_true_positions(first: int, second: int) -> None:
    a, b = both_views(SMALL, first, second)
    known = np.isfinite(b)
    assert known.mean() > 0.3
    assert a.std() > 50
    np.testing.assert_allclose(a[known], b[known], rtol=0.03)
    assert np.std(np.log(a[known] / b[known])) < 0.004


def test_bleaching_dims_the_sample_where_an_earlier_tile_has_lit_it() -> None:
    world = replace(SMALL, bleaching=0.2)
    a, b = both_views(world, 1, 2)
    known = np.isfinite(b)
    ratio = (b[known] - world.medium) / (a[known] - world.medium)
    assert np.median(ratio) == pytest.approx(0.8, abs=0.005)


def test_gains_have_the_geometric_mean_1_and_their_range() -> None:
    world = replace(SMALL, grid=(8, 8), gain_range=0.3, drift=0.2)
    gains = world.gains()
    assert np.log(gains).mean() == pytest.approx(0, abs=1e-12)
    assert 1.3 < gains.max() / gains.min() <= 1.3 / 0.7 / 0.8 + 1e-9
    assert gains[:8].mean() > gains[-8:].mean()


def test_stage_errors_are_as_large_as_asked_for_and_not_whole_pixels() -> None:
    world = OverlappingWorld(grid=(20, 20), stage_error=3.0)
    errors = world.true_positions - world.nominal_positions
    assert errors.std() == pytest.approx(3.0, rel=0.06)
    assert np.abs(errors - np.rint(errors)).mean() > 0.2


def test_the_camera_adds_its_offset_and_photon_noise() -> None:
    world = replace(SMALL, share=0.0, streaks=0.0, tile_shape=(256, 320))
    stack = world.tile_stack(2).astype(float)
    expected = world.medium * world.gains()[1] * world.flatfield()
    residual = stack - world.offset - expected
    assert residual.mean() == pytest.approx(0, abs=0.05)
    variance = world.gain * expected + (world.gain * world.read_noise) ** 2 + 1 / 12
    assert np.mean(residual**2 / variance) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("region", "share"), [("blobs", 0.33), ("centre", 0.7)])
def test_the_sample_fills_its_share(region: str, share: float) -> None:
    world = OverlappingWorld(grid=(4, 4), tile_shape=(64, 80), planes=2, share=share, region=region)
    filled = np.mean([np.mean(world.light(n) > 1.5 * world.medium) for n in world.tile_numbers])
    assert filled == pytest.approx(share, abs=0.08)


def test_structure_along_z_is_twice_as_long_as_along_x() -> None:
    world = OverlappingWorld(
        grid=(1, 1), tile_shape=(200, 200), planes=24, structure_px=(3.0,), medium=0.0
    )
    log_light = np.log(world.light(1))
    log_light -= log_light.mean()
    power = np.mean(log_light**2)
    along_x = np.mean(log_light[..., 3:] * log_light[..., :-3]) / power
    along_z = np.mean(log_light[6:] * log_light[:-6]) / power
    # Gaussian smoothing by s leaves exp(-d^2 / (4 s^2)) of the correlation at a distance d.
    assert along_x == pytest.approx(np.exp(-0.25), abs=0.04)
    assert along_z == pytest.approx(np.exp(-0.25), abs=0.04)


def stored(image: MultitileImage, number: int) -> NDArray[np.uint16]:
    """The pixels of the first channel of a tile."""
    tile, (height, width) = image.layout.tile(number), image.layout.tile_shape
    depth = image.levels[0].shape[-3]
    y, x = slice(tile.y, tile.y + height), slice(tile.x, tile.x + width)
    return np.asarray(image.read(0, (slice(0, 1), slice(0, depth), y, x))[0])


@pytest.mark.parametrize("one_image_per_tile", [False, True])
def test_as_a_container(tmp_path: Path, one_image_per_tile: bool) -> None:
    world = replace(SMALL, sides=("left", "right"), arms=(1.0, 0.8))
    container = write_overlapping_acquisition(
        tmp_path, world, channels=2, one_image_per_tile=one_image_per_tile
    )
    collection = TileCollection.open(str(container))
    assert {mosaic.suffix for mosaic in collection.mosaics()} == {"left", "right"}
    for side, mosaic in enumerate(sorted(collection.mosaics(), key=lambda m: m.suffix)):
        assert len(mosaic.channels) == 2
        for number in world.tile_numbers:
            np.testing.assert_array_equal(stored(mosaic, number), world.tile_stack(number, 0, side))
            place = mosaic.place_of(number)
            assert (place.y_px, place.x_px) == pytest.approx(world.nominal_positions[number - 1])


def test_as_a_mosaic(tmp_path: Path) -> None:
    url = write_overlapping_mosaic(tmp_path / "mosaic.zarr", SMALL, ("488 nm", "561 nm"))
    image = MosaicImage.open(url)
    assert [channel.label for channel in image.channels] == ["488 nm", "561 nm"]
    for number in SMALL.tile_numbers:
        np.testing.assert_array_equal(stored(image, number), SMALL.tile_stack(number))
