"""The layers that napari-ome-zarr hands to napari.

Called with addresses of images; prints JSON by address.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np
from napari_ome_zarr import napari_get_reader


def look(url: str) -> list[dict[str, Any]]:
    layers = []
    for data, properties, kind in napari_get_reader(url)(url):
        colormap = properties.get("colormap")
        pixels = np.ascontiguousarray(data[0].compute())
        layers.append(
            {
                "kind": kind,
                "name": properties["name"],
                "scale": list(properties["scale"]),
                "units": list(properties.get("units", ())),
                "colour": None if colormap is None else np.asarray(colormap.colors[-1]).tolist(),
                "window": properties.get("contrast_limits"),
                "shapes": [list(level.shape) for level in data],
                "digest": hashlib.sha256(pixels.tobytes()).hexdigest(),
            }
        )
    return layers


if __name__ == "__main__":
    print(json.dumps({url: look(url) for url in sys.argv[1:]}))
