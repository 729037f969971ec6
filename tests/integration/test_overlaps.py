"""Tiles at the places we give agree in their overlaps: what a stitcher needs to begin with."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield, import_mesospim

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]


def _correlation(tiles, places_px):
    """Pearson correlation of all voxels that two neighbours share, over all pairs of tiles.

    Args:
        tiles: number -> (z, y, x).
        places_px: number -> (y, x), not rounded.
    """
    ones, others = [], []
    for a, b in combinations(sorted(tiles), 2):
        (ya, xa), (yb, xb) = places_px[a], places_px[b]
        dy, dx = round(yb - ya), round(xb - xa)
        height, width = tiles[a].shape[1:]
        if height - abs(dy) < 8 or width - abs(dx) < 8 or (dy and dx and abs(dy * dx) > 99):
            continue
        y, x = (slice(max(d, 0), n + min(d, 0)) for d, n in ((dy, height), (dx, width)))
        y2, x2 = (slice(max(-d, 0), n + min(-d, 0)) for d, n in ((dy, height), (dx, width)))
        ones.append(tiles[a][:, y, x].ravel())
        others.append(tiles[b][:, y2, x2].ravel())
    assert len(ones) == 12, "3 x 3 tiles have twelve pairs of neighbours"
    return np.corrcoef(np.concatenate(ones), np.concatenate(others))[0, 1]


def _options(native):
    return {"camera_offset": 100, "z_levels": native.z_levels}


def test_imported_tiles_by_their_original_places(native, tmp_path):
    (result,) = import_mesospim(
        str(native.container), str(tmp_path), correct_flatfield=True, **_options(native)
    )
    image = np.asarray(zarr.open_array(f"{result.image_url}/0", mode="r")[...]).astype(float)
    table = anndata.read_zarr(f"{result.image_url}/tables/FOV_ROI_table").to_df()
    pixel = native.truth["pixel_um"]
    height, width = native.truth["tile_shape_yx"]
    for channel in range(2):
        tiles, places = {}, {}
        for number, (_, row) in enumerate(table.iterrows()):
            y, x = (round(row[f"{axis}_micrometer"] / pixel) for axis in "yx")
            tiles[number] = image[channel, :, y : y + height, x : x + width]
            places[number] = tuple(row[f"{a}_micrometer_original"] / pixel for a in "yx")
        assert _correlation(tiles, places) > 0.95


def test_native_tiles_by_their_places_and_as_tools_place_them(native, tmp_path):
    from fractal_mesospim_shading.images.native.collection import TileCollection

    result = correct_flatfield(
        str(native.container), output_folder=str(tmp_path), **_options(native)
    )
    (mosaic,) = TileCollection.open(result.image_url).mosaics()
    pixel = native.truth["pixel_um"]
    for channel in range(2):
        placed = [p for p in mosaic.placed if p.channel == channel]
        tiles, places, naive = {}, {}, {}
        for item in placed:
            group = zarr.open_group(str(Path(result.image_url) / item.stack.group), mode="r")
            tiles[item.tile] = np.asarray(group["0"][...]).astype(float)
            x_um, y_um = mosaic.original_um()[item.tile][:2]
            places[item.tile] = (y_um / pixel, x_um / pixel)
            attributes = dict(group.attrs)
            multiscale = attributes.get("ome", attributes)["multiscales"][0]
            _, translation = multiscale["datasets"][0]["coordinateTransformations"]
            naive[item.tile] = tuple(v / pixel for v in translation["translation"][1:])
        assert _correlation(tiles, places) > 0.95
        # The translations that the microscope writes mirror the mosaic.
        assert _correlation(tiles, naive) < 0.1
