"""Images with 2 x 2 fields of view, registered by fractal-tasks-core, with tables of each backend.

Called with a .npy file of pixels (c, z, y, x), the shape of a field (y, x) and a folder. Prints
JSON: the addresses by backend.
"""

from __future__ import annotations

import json
import logging
import sys
from itertools import product
from pathlib import Path

import numpy as np
from fractal_tasks_core.import_ome_zarr import import_ome_zarr
from ngio import Roi, create_ome_zarr_from_array
from ngio.tables import RoiTable

PIXEL_UM, STEP_UM = 0.65, 5.0


def main(pixels_file: str, height: str, width: str, folder: str) -> None:
    logging.disable(logging.WARNING)
    pixels = np.load(pixels_file)
    y_um, x_um = int(height) * PIXEL_UM, int(width) * PIXEL_UM
    depth_um = pixels.shape[1] * STEP_UM
    fields = [
        Roi.from_values(
            name=f"FOV_{number}",
            slices={"z": (0, depth_um), "y": (y * y_um, y_um), "x": (x * x_um, x_um)},
        )
        for number, (y, x) in enumerate(product(range(2), range(2)), 1)
    ]
    found = {}
    for backend in ("anndata", "csv", "json", "parquet"):
        name = f"core_{backend}.zarr"
        container = create_ome_zarr_from_array(
            str(Path(folder, name)),
            pixels,
            pixelsize=PIXEL_UM,
            z_spacing=STEP_UM,
            levels=2,
            axes_names="czyx",
            channels_meta=["488 nm", "561 nm"],
            ngff_version="0.4",
        )
        container.add_table("FOV_ROI_table", RoiTable(rois=fields), backend=backend)
        options = {
            "update_omero_metadata": True,
            "add_image_roi_table": True,
            "table_backend": backend,
        }
        update = import_ome_zarr(zarr_dir=folder, zarr_name=name, advanced_options=options)
        [image] = update["image_list_updates"]
        found[backend] = image["zarr_url"]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
