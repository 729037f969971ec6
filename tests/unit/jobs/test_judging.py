"""A flat-field that does not fit makes the seams worse; one that fits never does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.core.seams import seam_step
from fractal_mesospim_shading.jobs.judging import SeamGrowth, seam_growth
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

WORLD = LightSheetWorld(tile_shape=(128, 128), planes=8)
ORIGINS = [(128 * row, 128 * column) for column in range(3) for row in range(3)]
LAYOUT = TileLayout.from_origins(ORIGINS, (128, 128), (384, 384))


def _mosaic(world: LightSheetWorld) -> NDArray[np.float64]:
    tiles = [world.tile_stack(n).astype(np.float64) - world.offset for n in world.tile_numbers]
    return np.block([[tiles[3 * column + row] for column in range(3)] for row in range(3)])


def _judged(world: LightSheetWorld, flat: NDArray[np.float32]) -> SeamGrowth:
    after = _mosaic(world) / np.tile(flat, (3, 3))
    found = seam_growth(after, LAYOUT, lambda tile, rows, columns: flat[rows, columns])
    assert found is not None
    return found


@pytest.mark.parametrize(
    "changes",
    [{}, {"sample": 0.0}, {"sample_radius": 3.0}, {"medium": 5.0}, {"falloff": 0.9}, {"seed": 3}],
)
def test_the_true_flatfield_brings_no_word(changes: dict[str, float]) -> None:
    world = replace(WORLD, **changes)
    assert not _judged(world, world.flatfield()).grew


@pytest.mark.parametrize("radius", [0.65, 3.0])
def test_a_flatfield_that_does_not_fit_is_seen(radius: float) -> None:
    world = replace(WORLD, sample_radius=radius)
    flat = replace(world, shape="tilted").flatfield()
    found = _judged(world, flat)
    assert found.grew
    assert found.growth > 0.05


def test_before_and_after_are_the_steps_of_the_planes() -> None:
    flat = WORLD.flatfield()
    raw = _mosaic(WORLD)
    found = _judged(WORLD, flat)
    assert found.after == pytest.approx(seam_step(raw / np.tile(flat, (3, 3)), LAYOUT), abs=1e-9)
    assert found.before == pytest.approx(seam_step(raw, LAYOUT), abs=0.01)


def test_one_tile_has_no_seam() -> None:
    layout = TileLayout.from_origins([(0, 0)], (64, 64), (64, 64))
    assert seam_growth(np.ones((1, 64, 64)), layout, _never_asked) is None


def _never_asked(tile: Tile, rows: slice, columns: slice) -> NDArray[np.float32]:
    raise AssertionError("no seam, no divisor")


def test_only_the_boxes_at_seams_are_divided() -> None:
    """Of a tile of 15 megapixels, a division for each side of a seam takes longer than all else."""
    asked: list[int] = []

    def divisor_of(tile: Tile, rows: slice, columns: slice) -> NDArray[np.float32]:
        asked.append((rows.stop - rows.start) * (columns.stop - columns.start))
        return np.ones((128, 128), np.float32)[rows, columns]

    seam_growth(_mosaic(WORLD), LAYOUT, divisor_of)
    # 12 seams of 3 x 3 tiles, 4 pixels deep on either side.
    assert sum(asked) == 12 * 2 * 4 * 128
