"""Make a small mosaic, correct it from its empty corner tiles, and compare with the truth.

python quickstart.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import zarr

from fractal_mesospim_shading import correct_flatfield
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from fractal_mesospim_shading.views.inspection import as_text, describe


def main(folder: Path) -> None:
    """Make, correct and compare."""
    # A 3 x 3 mosaic with a sample in its middle; the four corner tiles are empty.
    world = LightSheetWorld(tile_shape=(128, 128), planes=12, sample_radius=0.4)
    image = folder / "quickstart.zarr"
    write_mosaic(image, world, ["488 nm"], chunks=(12, 128, 128), overwrite=True)
    print(as_text(describe(str(image))))

    result = correct_flatfield(str(image), fov_list=[1, 3, 7, 9], overwrite=True)
    print("\nCorrected image:", result.image_url)

    estimated = result.models["488 nm"].profile.flatfield
    error = 100 * np.sqrt(np.mean((estimated / world.flatfield() - 1) ** 2))
    print(f"Error of the flat-field: {error:.2f} % (RMS)")

    # The medium is the same everywhere, so a corrected empty tile has to be flat.
    names = {"before": image, "after": result.image_url}
    for name, url in names.items():
        level = zarr.open_group(str(url), mode="r")["0"]
        empty = np.mean(level[0, :, :128, :128], axis=0)
        middle, corner = empty[54:74, 54:74].mean(), empty[:20, :20].mean()
        print(f"Empty tile 1 {name}: {middle:.1f} in its middle, {corner:.1f} in its corner")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart_output")
    target.mkdir(parents=True, exist_ok=True)
    main(target)
