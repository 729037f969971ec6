"""The map of pairs: what is drawn of each, on one scale, and in which shape."""

from __future__ import annotations

import io
import math

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.overlaps.observing import Rejected
from fractal_mesospim_shading.core.overlaps.pedestal import pedestal
from fractal_mesospim_shading.core.overlaps.residual import PairResidual, summary
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck, Views
from fractal_mesospim_shading.views.pair_map import pair_map

SIDE = 64


def layout(rows: int, columns: int) -> TileLayout:
    origins = [(row * SIDE, column * SIDE) for row in range(rows) for column in range(columns)]
    return TileLayout.from_origins(origins, (SIDE, SIDE), (rows * SIDE, columns * SIDE))


def views(shapes: dict[tuple[int, int], float]) -> Views:
    nothing = np.zeros(0)
    pairs = tuple(
        PairResidual(*numbers, "x", 0.0, shape, 0.0, *[nothing] * 4, 8)
        for numbers, shape in shapes.items()
    )
    return Views(summary(()), {}, pairs)


def check(
    before: dict[tuple[int, int], float],
    after: dict[tuple[int, int], float] | None,
    rejected: tuple[tuple[int, int], ...] = (),
) -> OverlapCheck:
    return OverlapCheck(
        "488 nm",
        None,
        views(before),
        None if after is None else views(after),
        pedestal(()),
        rejected=tuple(Rejected(*numbers, "too little light") for numbers in rejected),
    )


def drawn(found: OverlapCheck, tiles: TileLayout) -> np.ndarray:
    return np.asarray(imread(io.BytesIO(pair_map(found, tiles)))[..., :3])


def pixels_like(picture: np.ndarray, fraction: float) -> np.ndarray:
    """Which pixels above the colour bar have the colour of a place on the scale."""
    colour = matplotlib.colormaps["viridis_r"](fraction)[:3]
    above = picture[: int(picture.shape[0] * 0.7)]
    like = np.abs(above - colour).max(axis=-1) < 0.01
    # Edges of other colours are mixtures: a few pixels of anything.
    return like & (like.sum(axis=1) > 30)[:, None]


def test_one_scale_for_before_and_after_that_ends_at_the_largest() -> None:
    picture = drawn(check({(1, 2): 0.08, (2, 3): 0.04}, {(1, 2): 0.04, (2, 3): 0.0}), layout(1, 3))
    largest, half = pixels_like(picture, 1.0), pixels_like(picture, 0.5)
    # The panels lie below one another: half of the scale once above, and once below on the left.
    assert largest.sum() > 300 and half.sum() > 600
    rows = np.unique(np.nonzero(half)[0])
    (gap,) = np.nonzero(np.diff(rows) > 5)[0]
    above, below = half[: rows[gap] + 1], half[rows[gap] + 1 :]
    assert np.nonzero(largest)[0].max() <= rows[gap] + 5
    assert np.nonzero(above)[1].min() > picture.shape[1] / 2 - 30
    assert np.nonzero(below)[1].max() < picture.shape[1] / 2 + 30


def test_small_differences_are_not_made_large() -> None:
    """The scale ends at 1 % at least: a tenth of that is pale."""
    picture = drawn(check({(1, 2): 0.001}, {(1, 2): 0.001}), layout(1, 2))
    assert pixels_like(picture, 0.1).sum() > 300
    assert not pixels_like(picture, 1.0).any()


def test_pairs_that_could_not_be_compared_are_grey_and_have_gaps() -> None:
    picture = drawn(check({}, {}, ((1, 2),)), layout(1, 2))
    grey = np.abs(picture - 0.55).max(axis=-1) < 0.01
    line = grey[np.argmax(grey.sum(axis=1))]
    runs = np.diff(np.nonzero(line)[0])
    assert line.sum() > 50 and (runs > 3).sum() >= 5


@pytest.mark.parametrize(
    ("rows", "columns", "most"),
    [(1, 1, 400), (2, 2, 600), (9, 1, 1100), (1, 9, 500), (12, 20, 1100)],
)
def test_pictures_have_the_shape_of_the_mosaic_within_reason(
    rows: int, columns: int, most: int
) -> None:
    pairs = {(n, n + 1): 0.01 for n in range(1, rows * columns)}
    height, width, _ = drawn(check(pairs, pairs), layout(rows, columns)).shape
    assert width == 750 and height <= most


def test_an_image_alone_has_one_panel() -> None:
    pairs = {(1, 2): 0.05}
    both, alone = (drawn(check(pairs, after), layout(1, 2)) for after in (pairs, None))
    assert alone.shape[0] < 0.7 * both.shape[0]


def test_what_is_not_known_of_a_pair_does_not_set_the_scale() -> None:
    picture = drawn(check({(1, 2): 0.05, (2, 3): math.nan}, None), layout(1, 3))
    assert pixels_like(picture, 1.0).sum() > 300
