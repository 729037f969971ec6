"""The contact sheet of mosaics of many tiles."""

from __future__ import annotations

import io
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fractal_mesospim_shading.core.emptiness.regions import TileRegions
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.flatfield.empty_planes import EmptyPlanes
from fractal_mesospim_shading.views.contact_sheet import EMPTY, SAMPLE, UNKNOWN, contact_sheet


def _seen(side: int, depth: int = 4) -> EmptyPlanes:
    """A mosaic of side x side tiles: the first column is empty, the last was not looked at."""
    origins = [(64 * y, 64 * x) for x in range(side) for y in range(side)]
    layout = TileLayout.from_origins(origins, (64, 64), (64 * side, 64 * side))
    regions = []
    for tile in layout.tiles:
        looked = 0 if tile.column == side - 1 else 4
        share, high = (1.0, -1) if tile.column == 0 else (0.0, depth - 1)
        regions.append(TileRegions(tile.number, (0, depth), looked, share, 0, high, share))
    image = SimpleNamespace(layout=layout)
    return EmptyPlanes(image, None, 0, (), None, None, tuple(regions))  # type: ignore[arg-type]


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_strips_of_many_deep_stacks_take_little_memory():
    seen = _seen(30, depth=4000)
    contact_sheet(["488"], [_seen(3)])
    tracemalloc.start()
    contact_sheet(["488"], [seen])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As floats of all planes they are above a gigabyte.
    assert most < 300e6


@pytest.mark.parametrize("side", [3, 60])
def test_every_tile_has_a_frame_and_the_sheet_stays_of_a_size_to_look_at(side):
    """3600 strips of the usual height are more than a picture can be high."""
    pixels = np.asarray(
        Image.open(io.BytesIO(contact_sheet(["488"], [_seen(side)]))).convert("RGB")
    )
    height, width, _ = pixels.shape
    assert width == 600 and height < 6500
    mosaic = pixels[60 : 60 + 480].reshape(-1, 3).astype(int)
    for colour in (EMPTY, SAMPLE, UNKNOWN):
        near = np.abs(mosaic - np.array(_rgb(colour))).sum(axis=1) < 90
        assert near.sum() > 100
