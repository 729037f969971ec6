"""Place tiles with multiview-stitcher and say how well they agree; runs in its environment.

Called with a .npz file: `tiles` (n, z, y, x), `places_um` (n, 3: z, y, x), `voxel_um` (z, y, x).
Prints JSON: the correlation of all voxels that two tiles share on the common grid of the
stitcher, and by how many pixels its own registration still wants to move the tiles.
"""

from __future__ import annotations

import json
import logging
import sys
from itertools import combinations

import dask
import numpy as np
from multiview_stitcher import fusion, msi_utils, registration
from multiview_stitcher import spatial_image_utils as spatial

KEY = "stage"
AXES = ("z", "y", "x")


def main(path: str) -> None:
    logging.disable(logging.WARNING)
    with np.load(path) as content:
        tiles, places, voxel = content["tiles"], content["places_um"], content["voxel_um"]
    scale = dict(zip(AXES, voxel.tolist(), strict=True))
    images = [
        spatial.get_sim_from_array(
            tile,
            dims=list(AXES),
            scale=scale,
            translation=dict(zip(AXES, place.tolist(), strict=True)),
            transform_key=KEY,
        )
        for tile, place in zip(tiles, places, strict=True)
    ]
    low, high = places.min(axis=0), places.max(axis=0)
    shape = np.ceil((high - low) / voxel).astype(int) + tiles.shape[1:]
    grid = {
        "spacing": scale,
        "origin": dict(zip(AXES, low.tolist(), strict=True)),
        "shape": dict(zip(AXES, shape.tolist(), strict=True)),
    }
    placed = []
    for image in images:
        fused = fusion.fuse([image], transform_key=KEY, output_stack_properties=grid)
        placed.append(np.asarray(fused.data.compute()).reshape(shape).astype(np.float32))
    ones, others = [], []
    for a, b in combinations(placed, 2):
        shared = (a > 0) & (b > 0)
        ones.append(a[shared])
        others.append(b[shared])
    correlation = float(np.corrcoef(np.concatenate(ones), np.concatenate(others))[0, 1])
    multiscale = [msi_utils.get_msim_from_sim(image, scale_factors=[]) for image in images]
    with dask.config.set(scheduler="threads", num_workers=2):
        moved = registration.register(
            multiscale,
            transform_key=KEY,
            new_transform_key="registered",
            reg_channel_index=0,
            registration_binning=dict.fromkeys(AXES, 1),
        )
    shifts = np.array([np.asarray(p).reshape(4, 4)[:3, 3] for p in moved]) / voxel
    shifts -= shifts.mean(axis=0)
    print(json.dumps({"correlation": correlation, "shift_px": float(np.abs(shifts).max())}))


if __name__ == "__main__":
    main(sys.argv[1])
