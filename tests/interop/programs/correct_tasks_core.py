"""The illumination correction of fractal-tasks-core, on an image that is there.

Called with the address of the image and a folder with a TIFF for each wavelength, named by it.
Prints JSON: the address of the result.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from fractal_tasks_core.illumination_correction import illumination_correction


def main(url: str, folder: str) -> None:
    logging.disable(logging.WARNING)
    profiles = {path.stem: path.name for path in sorted(Path(folder).glob("*.tif"))}
    update = illumination_correction(
        zarr_url=url, illumination_profiles={"folder": folder, "profiles": profiles}
    )
    [image] = update["image_list_updates"]
    print(json.dumps(image["zarr_url"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
