"""multiview-stitcher places our results so that their overlaps agree.

What needs no stitcher is tested in `tests/integration/test_overlaps.py`.
"""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield, import_mesospim
from fractal_mesospim_shading.images.native.collection import TileCollection
from tests.support.environments import answer_of

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "programs" / "place_with_multiview.py"


@pytest.fixture
def place(stitcher, tmp_path):
    """`place(tiles, places_um, voxel_um)`: how well tiles agree where the stitcher puts them."""

    def placed(tiles, places_um, voxel_um):
        path = tmp_path / "tiles.npz"
        np.savez(path, tiles=np.stack(tiles), places_um=places_um, voxel_um=voxel_um)
        return answer_of(stitcher, PROGRAM, path, silent=False)

    return placed


def _options(native):
    return {"camera_offset": 100, "z_levels": native.z_levels}


def test_corrected_native_tiles(native, place, tmp_path):
    result = correct_flatfield(
        str(native.container), output_folder=str(tmp_path), **_options(native)
    )
    (mosaic,) = TileCollection.open(result.image_url).mosaics()
    placed = [p for p in mosaic.placed if p.channel == 0]
    tiles, naive = [], []
    for item in placed:
        group = zarr.open_group(f"{result.image_url}/{item.stack.group}", mode="r")
        tiles.append(np.asarray(group["0"][...]))
        attributes = dict(group.attrs)
        multiscale = attributes.get("ome", attributes)["multiscales"][0]
        naive.append(multiscale["datasets"][0]["coordinateTransformations"][1]["translation"])
    places = [(0.0, *mosaic.original_um()[item.tile][1::-1]) for item in placed]
    right = place(tiles, places, mosaic.voxel_um)
    assert right["correlation"] > 0.95
    assert right["shift_px"] < 1
    assert place(tiles, np.array(naive), mosaic.voxel_um)["correlation"] < 0.1


def test_imported_fields_of_view(native, place, tmp_path):
    (result,) = import_mesospim(
        str(native.container), str(tmp_path), correct_flatfield=True, **_options(native)
    )
    image = zarr.open_array(f"{result.image_url}/0", mode="r")
    table = anndata.read_zarr(f"{result.image_url}/tables/FOV_ROI_table").to_df()
    pixel, step = native.truth["pixel_um"], native.truth["z_step_um"]
    height, width = native.truth["tile_shape_yx"]
    tiles, places = [], []
    for _, row in table.iterrows():
        y, x = (round(row[f"{axis}_micrometer"] / pixel) for axis in "yx")
        tiles.append(np.asarray(image[0, :, y : y + height, x : x + width]))
        places.append((0.0, *(row[f"{axis}_micrometer_original"] for axis in "yx")))
    found = place(tiles, places, (step, pixel, pixel))
    assert found["correlation"] > 0.95
    assert found["shift_px"] < 1
