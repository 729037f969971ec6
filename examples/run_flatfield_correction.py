"""Correct the flat-field of one image on this computer.

Copy this file, edit the values, and run it:

    python run_flatfield_correction.py

`mesospim-shading info IMAGE` prints the map of tile numbers, the channels and the
planes of your image, which help to fill in the values. All values below are the
defaults, so whatever you do not need may be deleted.
"""

from __future__ import annotations

import sys

from fractal_mesospim_shading import correct_flatfield
from fractal_mesospim_shading.errors import ShadingError

# The image to correct: a folder, or an address such as s3://bucket/brain.zarr.
IMAGE = "brain.zarr/raw_image"

PARAMETERS = {
    # ------------------------------------------------------------------------------
    # Where the flat-field comes from. The first that is given wins:
    # flatfield_files, then models_folder, then fov_list and z_levels, then BaSiCPy.
    # ------------------------------------------------------------------------------
    # Measured flat-fields as TIFF, .npy or .npz, such as {"488": "flat_488.tif"}.
    "flatfield_files": None,
    # Measured flat-fields: <folder>/<channel label>/profiles.npz
    "models_folder": None,
    # Where nothing is named: "given" takes BaSiCPy, "auto" the planes that are found empty.
    "scenario": "given",
    # Tiles without sample, such as [1, 4, 9, 12]. Numbers start at 1 and run down the
    # first column, then down the next.
    "fov_list": None,
    # Two planes, such as [50, 600]: the planes 0 to 49 and those from 601 on hold no
    # sample. Alone: in the four corner tiles. With fov_list: in those tiles.
    "z_levels": None,
    # BaSiCPy, where none of the four above is given. Write {"working_size": 256} to
    # change one of its values; {} keeps them all.
    "basicpy_model_params": {
        # Leave the sample out of the fit, found by a threshold.
        "autosegment": False,
        # Pixels by which that sample is widened.
        "autosegment_margin": 10,
        # Larger values give smoother profiles.
        "epsilon": 0.1,
        # Also fit a dark-field. A measured dark frame is better.
        "get_darkfield": False,
        # Threads of BaSiCPy; more change nothing.
        "max_workers": 2,
        # Weights of smoothness.
        "smoothness_darkfield": 1.0,
        "smoothness_flatfield": 1.0,
        # Side in pixels to which planes are reduced for the fit.
        "working_size": 128,
        # "approximate" or "ladmap".
        "fitting_mode": "approximate",
    },
    # Python of an environment that has BaSiCPy, where this one has none (3.13 and later).
    "basic_python": None,
    # Planes to estimate from, spread over all tiles that were chosen.
    "n_zplanes": 200,
    # Level of the pyramid to estimate from. None: the coarsest for BaSiCPy, full
    # resolution for empty tiles and planes.
    "resolution_level": None,
    # Another seed draws other planes.
    "seed": 0,
    # Copy channels without any light as they are, instead of stopping.
    "skip_empty_channels": False,
    # ------------------------------------------------------------------------------
    # The camera's offset. It decides how right the flat-field is: see the README.
    # ------------------------------------------------------------------------------
    # Counts, such as 100.0. None: estimated from the noise. 0.0: removed already.
    "camera_offset": None,
    # A measured dark frame (.npy, .npz, .tif), better than any single number.
    "darkfield_file": None,
    # "keep_aspect": measured profiles have the aspect of a tile; "stretch": any are stretched.
    "profile_shape": "keep_aspect",
    # Counts to add to the result, so that noise below 0 is not cut off.
    "output_offset": 0.0,
    # "source": the type of the image. "float32": nothing is rounded or cut off.
    "output_type": "source",
    # What a pixel of 0 is: "auto" asks the pixels; "data" a value; "no_data" nothing was recorded.
    "zero_is": "auto",
    # Table of the fields of view (tiles) of the image; some images have a "grid_ROI_table".
    "input_roi_table": "FOV_ROI_table",
    # Pixels of no tile: "refuse" an image that is not 0 there, "keep" them, or make them "zero".
    "outside_tiles": "refuse",
    # Also subtract the model's baseline. For BaSiC that erases tissue.
    "subtract_baseline": False,
    # "overlaps": make tiles equally bright, by what neighbours show twice. "none": leave them.
    "tile_gains": "none",
    # Make both illumination sides equally bright (acquisitions whose tiles have both).
    "side_gains": False,
    # Make the flat-field better by what neighbours show twice, where sample fills the tiles.
    "overlap_refine": False,
    # Also take the local background away in the same pass, such as "median:25".
    "background": None,
    # ------------------------------------------------------------------------------
    # The result.
    # ------------------------------------------------------------------------------
    # Its name; {image_name} is the name of the source.
    "output_image_name": "{image_name}_flatfield_corr",
    # Its folder. None: beside the source.
    "output_folder": None,
    # "source" keeps the OME-Zarr version; "0.4" and "0.5" change it.
    "ngff_version": "source",
    # Shape of a shard (z, y, x), only for 0.5. None: sharded if the source is.
    "output_shards": None,
    # Keep the flat-fields used, in <image name>_shading_models, as a models_folder.
    "save_models": False,
    # Write a report with figures beside the result.
    "report": True,
    # Replace a result that is there already.
    "overwrite": False,
    # Let the result take the place of the source, which is then gone.
    "overwrite_input": False,
    # Drop an unfinished run instead of continuing it.
    "restart": False,
    # Copy what links in tables and labels stand for, where they lead out of the image (DataLad).
    "follow_links": False,
    # ------------------------------------------------------------------------------
    # The computation. Nothing here changes the result.
    # ------------------------------------------------------------------------------
    # "threads", "processes", "dask" or "slurm".
    "execution": "threads",
    # How many of them. None: as many as there are processors.
    "n_workers": None,
    # Wait for the disk after every few blocks, so that a power cut costs nothing. A finished
    # result is safe in any case.
    "durable": False,
    # Memory to stay within, such as "8GB". None: what the computer has.
    "memory_limit": None,
    # Address of a Dask scheduler, for "dask": "tcp://host:8786".
    "scheduler_address": None,
    # Options of fsspec for remote addresses, such as {"anon": True}.
    "storage_options": None,
}


if __name__ == "__main__":
    image = sys.argv[1] if len(sys.argv) > 1 else IMAGE
    try:
        result = correct_flatfield(image, **PARAMETERS)
    except ShadingError as error:
        sys.exit(f"Error: {error}")
    print("Corrected image:", result.image_url)
