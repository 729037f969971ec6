"""Small acquisitions on disk, laid out as mesoSPIM-control writes them, with known truth.

The sample is a texture defined on the whole pixel lattice, so that any stack at any stage
position shows the right part of it, and the expected pixels of any mosaic can be computed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from tests.support.acquisition_table import (
    SyntheticSettings,
    SyntheticStack,
    meta_text,
    planned_planes,
    project_text,
)


def grid_stacks(
    rows: int,
    columns: int,
    settings: SyntheticSettings,
    *,
    lasers: Sequence[str] = ("488 nm",),
    shutters: Sequence[str] = ("Left",),
    start_um: tuple[float, float] = (1000.0, -400.0),
    direction: tuple[int, int] = (1, 1),
    overlap_px: int = 16,
) -> list[SyntheticStack]:
    """The table of the microscope's wizard: x outside, y inside, then lasers, then sides.

    Args:
        rows, columns: of tiles.
        settings: shape of a tile and size of a pixel.
        lasers, shutters: of each tile.
        start_um: (x, y) of the stage at the first tile.
        direction: (x, y), +1 or -1: where the wizard walks from there.
        overlap_px: pixels that neighbours share.
    """
    height, width = settings.tile_shape
    stacks = []
    for column in range(columns):
        for row in range(rows):
            x = start_um[0] + direction[0] * column * (width - overlap_px) * settings.pixel_um
            y = start_um[1] + direction[1] * row * (height - overlap_px) * settings.pixel_um
            stacks += [
                SyntheticStack(column * rows + row, x, y, laser=laser, shutter=shutter)
                for laser in lasers
                for shutter in shutters
            ]
    return stacks


def sample(
    z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """The sample at pixels of the lattice, in counts; every plane differs.

    Args:
        z, y, x: indices of equal or broadcastable shapes; negative ones are fine.
        seed: of the texture.
    """
    rows = (y // 3).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    cell = rows ^ (x // 3).astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    cell ^= np.uint64((seed + 1) * 0x165667B19E3779F9 % 2**64)
    cell ^= cell >> np.uint64(29)
    cell *= np.uint64(0xBF58476D1CE4E5B9)
    cell ^= cell >> np.uint64(32)
    texture = (cell % np.uint64(600)).astype(np.float64)
    return np.asarray(20.0 + texture + 5.0 * (z % 40))


def stack_pixels(stack: SyntheticStack, settings: SyntheticSettings) -> NDArray[np.uint16]:
    """What the camera saw: (z, y, x), in the order in which planes were taken."""
    if settings.pixels is not None:
        return settings.pixels(stack)
    planes = planned_planes(stack, settings) if stack.planes is None else stack.planes
    sign = -1 if stack.z_end_um < stack.z_start_um else 1
    first = round(stack.z_start_um / settings.z_step_um)
    height, width = settings.tile_shape
    z = first + sign * np.arange(planes)[:, None, None]
    y = round(settings.sign_y * stack.y_um / settings.pixel_um) + np.arange(height)[:, None]
    x = round(settings.sign_x * stack.x_um / settings.pixel_um) + np.arange(width)
    signal = sample(z, y, x, settings.seed + int(stack.laser.split()[0]))
    flat = settings.flatfields.get((stack.laser, stack.shutter))
    if flat is not None:
        signal = signal * flat
    return np.asarray(np.rint(signal + settings.offset), dtype=np.uint16)


def write_acquisition(
    folder: str | Path,
    name: str,
    stacks: Sequence[SyntheticStack],
    settings: SyntheticSettings,
) -> Path:
    """Write a container, its metadata files and, if wanted, its project file.

    Args:
        folder: gets the container and the files beside it.
        name: of the container, with its ending.
        stacks: rows of the acquisition table, in their order.
        settings: how to write.

    Returns:
        The path of the container.
    """
    container = Path(folder) / name
    container.mkdir(parents=True, exist_ok=True)
    zarr.open_group(str(container), mode="a", zarr_format=_zarr_format(settings))
    for stack in stacks:
        write_stack(container, stack, settings)
    if settings.xml:
        (container.parent / f"{name}.xml").write_text(project_text(name, stacks, settings))
    return container


def write_stack(container: Path, stack: SyntheticStack, settings: SyntheticSettings) -> None:
    """Write one group and its metadata file."""
    group = zarr.open_group(
        str(container / stack.group_name), mode="w", zarr_format=_zarr_format(settings)
    )
    pixels: NDArray[Any] = stack_pixels(stack, settings)
    datasets = []
    for level in range(settings.levels):
        if level:
            pixels = half(pixels)
        _write_array(group, str(level), pixels, settings)
        size = settings.pixel_um * 2**level
        scale = [settings.z_step_um, size, size]
        place = [stack.z_start_um, stack.y_um, stack.x_um]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": place},
                ],
            }
        )
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    image: dict[str, Any] = {"axes": axes, "datasets": datasets, "name": "image"}
    if settings.version == "0.5":
        content: dict[str, Any] = {
            "ome": {"version": "0.5", "multiscales": [{**image, "type": "image"}]}
        }
    else:
        content = {"multiscales": [{"version": "0.4", **image}]}
    group.attrs.update(json.loads(json.dumps(content)))
    if settings.meta:
        path = container.parent / f"{container.name}_{stack.group_name}_meta.txt"
        path.write_text(meta_text(container, stack, settings))


def _write_array(
    group: zarr.Group, path: str, pixels: NDArray[Any], settings: SyntheticSettings
) -> None:
    chunks = tuple(min(c, n) for c, n in zip(settings.chunks, pixels.shape, strict=True))
    more: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    if settings.version == "0.5":
        more = {"dimension_names": ["z", "y", "x"]}
        if settings.shards is not None:
            sizes = zip(settings.shards, pixels.shape, chunks, strict=True)
            more["shards"] = tuple(max(c, min(s, n) // c * c) for s, n, c in sizes)
    array = group.create_array(
        path, shape=pixels.shape, dtype=pixels.dtype, chunks=chunks, fill_value=0, **more
    )
    array[...] = pixels


def half(pixels: NDArray[Any]) -> NDArray[Any]:
    """Means of 2 x 2 pixels, odd edges repeated, as the microscope's writer makes them."""
    padded = np.pad(pixels, [(0, 0), *((0, n % 2) for n in pixels.shape[1:])], mode="edge")
    z, y, x = padded.shape
    blocks = padded.reshape(z, y // 2, 2, x // 2, 2)
    return np.asarray(np.rint(blocks.mean(axis=(2, 4))), dtype=pixels.dtype)


def _zarr_format(settings: SyntheticSettings) -> Literal[2, 3]:
    return 3 if settings.version == "0.5" else 2
