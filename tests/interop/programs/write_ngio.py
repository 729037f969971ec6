"""Images of 2 x 2 tiles as ngio writes them: each version, and the tables of each backend.

Called with a .npy file of pixels (c, z, y, x), the shape of a tile (y, x) and a folder. Prints
JSON: the addresses by version and backend.
"""

from __future__ import annotations

import json
import sys
from itertools import product

import numpy as np
from ngio import Roi, RoiTable, create_ome_zarr_from_array

PIXEL_UM, STEP_UM = 0.65, 5.0


def main(pixels_file: str, height: str, width: str, folder: str) -> None:
    pixels = np.load(pixels_file)
    _, depth, rows, columns = pixels.shape
    y_um, x_um = int(height) * PIXEL_UM, int(width) * PIXEL_UM
    corners = product(range(rows // int(height)), range(columns // int(width)))
    tiles = [
        Roi.from_values(
            name=f"FOV_{number}",
            slices={"z": (0, depth * STEP_UM), "y": (y * y_um, y_um), "x": (x * x_um, x_um)},
        )
        for number, (y, x) in enumerate(corners, 1)
    ]
    found = {}
    for version, backend in product(("0.4", "0.5"), ("anndata", "csv", "json", "parquet")):
        url = f"{folder}/{version}_{backend}.zarr"
        container = create_ome_zarr_from_array(
            url,
            pixels,
            pixelsize=PIXEL_UM,
            z_spacing=STEP_UM,
            levels=2,
            axes_names="czyx",
            channels_meta=["488 nm", "561 nm"],
            ngff_version=version,
            consolidation_mode="auto",
        )
        container.add_table("FOV_ROI_table", RoiTable(rois=tiles), backend=backend)
        label = container.derive_label("nuclei")
        label.set_array((pixels[0] > np.median(pixels[0])).astype("uint32"))
        label.consolidate(mode="auto")
        found[f"{version} {backend}"] = url
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
