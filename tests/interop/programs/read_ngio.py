"""What ngio finds in images: their levels, channels, tables and labels, and what it reads by tile.

Called with a folder for what its iterators write, and addresses of images; prints JSON by address.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np
from ngio import FeatureExtractorIterator, ImageProcessingIterator, open_ome_zarr_container


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def look(url: str, into: str) -> dict[str, Any]:
    container = open_ome_zarr_container(url)
    image = container.get_image()
    tables = {}
    for name in container.list_tables():
        tables[name] = {
            roi.name: [
                [part.start, part.length]
                for part in (roi.to_pixel(pixel_size=image.pixel_size).get(axis) for axis in "zyx")
            ]
            for roi in container.get_table(name).rois()
        }
    levels = {}
    for path in container.level_paths:
        level = container.get_image(path=path)
        pixels = level.get_as_numpy()
        levels[path] = {
            "shape": list(pixels.shape),
            "dtype": str(pixels.dtype),
            "pixel_size": [level.pixel_size.z, level.pixel_size.y, level.pixel_size.x],
            "digest": digest(pixels),
        }
    labels = {name: container.get_label(name).get_as_numpy() for name in container.list_labels()}
    tiles = container.get_table("FOV_ROI_table")
    copy = container.derive_image(into).get_image()
    iterator = ImageProcessingIterator(image, copy, consolidation_mode="auto")
    iterator.product(tiles).by_zyx().map_as_numpy(lambda pixels: pixels)
    masked = []
    for name in labels:
        pairs = FeatureExtractorIterator(image, container.get_label(name)).product(tiles).by_zyx()
        masked = [sorted(np.unique(mask).tolist()) for _, mask, _ in pairs.iter_as_numpy()]
    return {
        "channels": list(image.channel_labels),
        "levels": levels,
        "tables": tables,
        "labels": {name: digest(pixels) for name, pixels in labels.items()},
        "by_tile": [digest(image.get_roi_as_numpy(roi)) for roi in tiles.rois()],
        "copied_by_tile": digest(copy.get_as_numpy()),
        "labels_by_tile": masked,
    }


if __name__ == "__main__":
    folder, *urls = sys.argv[1:]
    found = {url: look(url, f"{folder}/{number}.zarr") for number, url in enumerate(urls)}
    print(json.dumps(found))
