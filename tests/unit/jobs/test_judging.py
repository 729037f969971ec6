"""A flat-field that does not fit makes the seams worse; one that fits never does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import TileCorrection
from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.core.seam_growth import DivisorOf, SeamGrowth, seam_growth
from fractal_mesospim_shading.core.seams import Seam, Span, seam_step, seams
from fractal_mesospim_shading.jobs.judging import Corrections
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from tests.support.steps import steps

WORLD = LightSheetWorld(tile_shape=(128, 128), planes=8)
ORIGINS = [(128 * row, 128 * column) for column in range(3) for row in range(3)]
LAYOUT = TileLayout.from_origins(ORIGINS, (128, 128), (384, 384))


def _mosaic(world: LightSheetWorld) -> NDArray[np.float64]:
    tiles = [world.tile_stack(n).astype(np.float64) - world.offset for n in world.tile_numbers]
    return np.block([[tiles[3 * column + row] for column in range(3)] for row in range(3)])


def _judged(world: LightSheetWorld, flat: NDArray[np.float32]) -> SeamGrowth:
    after = _mosaic(world) / np.tile(flat, (3, 3))
    found = seam_growth(after, LAYOUT, _divisor_of(flat))
    assert found is not None
    return found


def _divisor_of(flat: NDArray[np.float32]) -> DivisorOf:
    def divisor_of(tile: Tile, rows: Span, columns: Span) -> float:
        return float(flat[slice(*rows), slice(*columns)].mean(dtype=float))

    return divisor_of


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


def _never_asked(tile: Tile, rows: Span, columns: Span) -> float:
    raise AssertionError("no seam, no divisor")


def test_only_the_boxes_at_seams_are_divided() -> None:
    """Of a tile of 15 megapixels, a division for each side of a seam takes longer than all else."""
    asked: list[int] = []

    def divisor_of(tile: Tile, rows: Span, columns: Span) -> float:
        asked.append((rows[1] - rows[0]) * (columns[1] - columns[0]))
        return 1.0

    seam_growth(_mosaic(WORLD), LAYOUT, divisor_of)
    # 12 seams of 3 x 3 tiles, 4 pixels deep on either side.
    assert sum(asked) == 12 * 2 * 4 * 128


def _grid(side: int, size: int) -> TileLayout:
    origins = [(size * row, size * column) for column in range(side) for row in range(side)]
    return TileLayout.from_origins(origins, (size, size), (size * side, size * side))


@dataclass(frozen=True)
class _Counted(TileCorrection):
    """A correction that notes which parts of it were asked for."""

    asked: list[tuple[slice, slice]] = field(default_factory=list)

    def divisor(
        self, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float32]:
        self.asked.append((rows, columns))
        return super().divisor(rows, columns)


@pytest.mark.parametrize("side", [3, 12])
def test_what_tiles_share_is_divided_once(side: int) -> None:
    """A mosaic of 10 000 tiles has 20 000 seams, and 16 different boxes at them."""
    counted = _Counted(np.ones((64, 64), np.float32), 0.0)
    layout = _grid(side, 64)
    own = Corrections({"a": counted}, {None: "a"}, {tile.number: 1.0 for tile in layout.tiles})
    seam_growth(np.ones((1, 64 * side, 64 * side)), layout, own.divisor)
    # Four boxes at each of the four sides of a tile.
    assert len(counted.asked) == 16


def test_tiles_of_different_gains_are_divided_by_their_own() -> None:
    flat = np.linspace(0.5, 1.5, 64 * 64, dtype=np.float32).reshape(64, 64)
    gains = {tile.number: 1.0 + tile.number / 10 for tile in _grid(2, 64).tiles}
    own = Corrections({"a": TileCorrection(flat, 0.0)}, {None: "a"}, gains)
    for tile in _grid(2, 64).tiles:
        expected = (flat[:4, 16:32] / np.float32(gains[tile.number])).mean(dtype=float)
        assert own.divisor(tile, (0, 4), (16, 32)) == expected


@pytest.mark.parametrize("factor", [(1, 1), (2, 2), (3, 5)])
def test_all_seams_together_are_the_same_as_one_by_one(factor: tuple[int, int]) -> None:
    layout, rng = _grid(5, 56), np.random.default_rng(3)
    shape = (2, *(280 // f for f in factor))
    planes = rng.integers(1, 400, shape).astype("uint16")
    planes[:, ::37, ::5] = 0
    flat = np.linspace(0.5, 1.5, 56 * 56, dtype=np.float32).reshape(56, 56)
    divisor_of = _divisor_of(flat)
    found = seam_growth(planes, layout, divisor_of, 20.0, factor=factor)
    before, after, changes = [], [], []
    for seam in seams(planes, layout, 20.0, factor=factor):
        sides = [_one_by_one(planes, seam, side) - 20.0 for side in (0, 1)]
        np.testing.assert_array_equal(sides, [seam.first, seam.second])
        divided = [_divided(seam, side, divisor_of, factor) for side in (0, 1)]
        now = _step(*sides)
        then = _step(sides[0] * divided[0], sides[1] * divided[1])
        before.append(then[np.isfinite(then)])
        after.append(now[np.isfinite(now)])
        for start in range(0, now.shape[1], 4):
            change = (now - then)[:, start : start + 4]
            if np.isfinite(change).any():
                changes.append(np.nanmedian(change))
    assert found is not None
    assert found.before == np.median(np.concatenate(before))
    assert found.after == np.median(np.concatenate(after))
    assert found.growth == np.median(changes)
    assert found.error == 1.25 * np.std(changes, ddof=1) / np.sqrt(len(changes))


def _one_by_one(planes: NDArray[np.uint16], seam: Seam, side: int) -> NDArray[np.float64]:
    means = []
    for box in seam.boxes:
        spans = (seam.depths[side], box) if seam.across == 0 else (box, seam.depths[side])
        part = planes[:, slice(*spans[0]), slice(*spans[1])].astype(float)
        whole = (part != 0).all(axis=(1, 2))
        means.append(np.where(whole, part.mean(axis=(1, 2)), np.nan))
    return np.stack(means, axis=1)


def _divided(
    seam: Seam, side: int, divisor_of: DivisorOf, factor: tuple[int, int]
) -> NDArray[np.float64]:
    tile, means = seam.tiles[side], []
    for box in seam.boxes:
        spans = (seam.depths[side], box) if seam.across == 0 else (box, seam.depths[side])
        y, x = (tuple(n * f for n in span) for span, f in zip(spans, factor, strict=True))
        means.append(
            divisor_of(tile, (y[0] - tile.y, y[1] - tile.y), (x[0] - tile.x, x[1] - tile.x))
        )
    return np.array(means)


def _step(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        lit = (first > 0) & (second > 0)
        return np.where(lit, 2 * np.abs(first - second) / (first + second), np.nan)


def test_many_tiles_take_so_many_more_steps() -> None:
    numbers = {}
    for side in (8, 16):
        layout, planes = _grid(side, 16), np.ones((1, 16 * side, 16 * side))
        numbers[side] = steps(partial(seam_growth, planes, layout, lambda *_: 1.0))
    # Of the seams there are 112 and 480.
    assert numbers[16] < 480 / 112 * numbers[8]
    assert numbers[16] < 480 * 1000
