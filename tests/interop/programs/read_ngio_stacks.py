"""What ngio finds in images without channels and tables: their levels.

Called with addresses of images; prints JSON by address.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np
from ngio import open_ome_zarr_container


def look(url: str) -> dict[str, Any]:
    container = open_ome_zarr_container(url)
    levels = {}
    for path in container.level_paths:
        level = container.get_image(path=path)
        pixels = np.ascontiguousarray(level.get_as_numpy())
        levels[path] = {
            "shape": list(pixels.shape),
            "dtype": str(pixels.dtype),
            "pixel_size": [level.pixel_size.z, level.pixel_size.y, level.pixel_size.x],
            "digest": hashlib.sha256(pixels.tobytes()).hexdigest(),
        }
    return levels


if __name__ == "__main__":
    print(json.dumps({url: look(url) for url in sys.argv[1:]}))
