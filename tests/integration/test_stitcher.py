"""A stitcher of today places our results so that their overlaps agree.

It needs an environment with multiview-stitcher: MESOSPIM_SHADING_STITCHER names its Python
interpreter. What needs no stitcher is tested in `test_overlaps.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield, import_mesospim
from fractal_mesospim_shading.images.native.collection import TileCollection

INTERPRETER = "MESOSPIM_SHADING_STITCHER"

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        INTERPRETER not in os.environ,
        reason=f"{INTERPRETER} names no Python interpreter with multiview-stitcher",
    ),
]


def _stitch(folder, tiles, places_um, voxel_um):
    path = folder / "tiles.npz"
    np.savez(path, tiles=np.stack(tiles), places_um=places_um, voxel_um=voxel_um)
    script = Path(__file__).with_name("stitch_with_multiview.py")
    run = subprocess.run(
        [os.environ[INTERPRETER], script, path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    print(found)
    return found


def _options(native):
    return {"camera_offset": 100, "z_levels": native.z_levels}


def test_corrected_native_tiles(native, tmp_path):
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
    right = _stitch(tmp_path, tiles, places, mosaic.voxel_um)
    assert right["correlation"] > 0.95
    assert right["shift_px"] < 1
    assert _stitch(tmp_path, tiles, np.array(naive), mosaic.voxel_um)["correlation"] < 0.1


def test_imported_fields_of_view(native, tmp_path):
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
    found = _stitch(tmp_path, tiles, places, (step, pixel, pixel))
    assert found["correlation"] > 0.95
    assert found["shift_px"] < 1
