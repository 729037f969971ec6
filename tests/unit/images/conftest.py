"""Small images on disk, written with plain zarr, for the tests of reading."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

PIXEL_UM = 0.65


def ngff(
    axes: str, paths: Sequence[str], version: str, labels: Sequence[str] | None
) -> dict[str, Any]:
    """Attributes of an image group, pixels of 0.65 (z: 2) micrometers at level 0."""
    kinds = {"t": "time", "c": "channel"}
    listed = []
    for axis in axes:
        entry = {"name": axis, "type": kinds.get(axis, "space")}
        if axis in "zyx":
            entry["unit"] = "micrometer"
        listed.append(entry)
    datasets = []
    for level, path in enumerate(paths):
        size = {"z": 2.0, "y": PIXEL_UM * 2**level, "x": PIXEL_UM * 2**level}
        scale = [size.get(axis, 1.0) for axis in axes]
        datasets.append(
            {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    multiscale: dict[str, Any] = {"axes": listed, "datasets": datasets, "name": "sample"}
    content: dict[str, Any] = {"multiscales": [multiscale]}
    if labels is not None:
        content["omero"] = {"channels": [{"label": label} for label in labels]}
    if version == "0.5":
        return {"ome": {"version": "0.5", **content}}
    multiscale["version"] = "0.4"
    return content


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., Path]:
    """Write an image of the given levels; returns its path."""

    def write(
        *levels: np.ndarray,
        name: str = "image.zarr",
        version: str = "0.4",
        axes: str = "czyx",
        labels: Sequence[str] | None = None,
        chunks: Sequence[int] | None = None,
        attributes: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Path:
        path = tmp_path / name
        paths = [str(level) for level in range(len(levels))]
        group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
        group.attrs.put({**ngff(axes, paths, version, labels), **(attributes or {})})
        for key, pixels in zip(paths, levels, strict=True):
            array = group.create_array(
                key,
                shape=pixels.shape,
                dtype=pixels.dtype,
                chunks=tuple(chunks) if chunks else pixels.shape,
                **settings,
            )
            array[...] = pixels
        return path

    return write


@pytest.fixture
def edit_attributes() -> Callable[[Path, Callable[[dict[str, Any]], None]], None]:
    """Change the attributes of a group in place."""

    def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
        group = zarr.open_group(path, mode="r+", use_consolidated=False)
        content = json.loads(json.dumps(dict(group.attrs)))
        change(content)
        group.attrs.put(content)

    return edit


@pytest.fixture(scope="session")
def two_fovs(tmp_path_factory: pytest.TempPathFactory, unpack: Callable[[str, Path], None]) -> Path:
    """A real image of two fields of view, as the Fractal project publishes it."""
    folder = tmp_path_factory.mktemp("two_fovs")
    unpack("fractal_two_fovs", folder)
    return folder / "fractal_two_fovs.zarr"
