"""Write small images to disk in every form that the package reads.

`write_image` takes any array, `write_mosaic` the world of `synthetic`; both make a pyramid
by block means, the metadata and the tables of tiles. Neither is meant for real data.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractal_mesospim_shading.core.layout import Tile, TileLayout
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.roi_tables import write_roi_tables
from fractal_mesospim_shading.images.storage.places import StorageOptions, normalise_url
from fractal_mesospim_shading.synthetic.image_style import (
    ImageStyle,
    image_attributes,
    new_group,
    write_levels,
)
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

_STAGE_OVERLAP = 0.1
_THREADS = 4


def write_image(
    url: str | os.PathLike[str],
    array: ArrayLike,
    *,
    channels: Sequence[str] | None = None,
    tile_shape: tuple[int, int] | None = None,
    missing: Sequence[int] = (),
    original_um: Mapping[int, Sequence[float]] | None = None,
    attributes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    storage_options: StorageOptions = None,
    **style: Any,
) -> str:
    """Write an array as an OME-Zarr image.

    Args:
        url: of the new image.
        array: pixels, one axis for each letter of `axes`.
        channels: labels; None writes no channel metadata.
        tile_shape: (y, x); writes the tables of a full grid of tiles of this size. None
            writes no tables.
        missing: numbers of tiles that the table leaves out; their pixels are written as given.
        original_um: for `write_roi_tables`.
        attributes: more attributes of the group, kept beside those of NGFF.
        overwrite: replace what is there.
        storage_options: for a remote address.
        style: fields of `ImageStyle`.

    Returns:
        The address.

    Raises:
        OutputExistsError: there is already something.
        ParameterError: axes, channels or tiles do not fit the array.
    """
    pixels = np.asarray(array)
    form = ImageStyle(**style)
    if pixels.ndim != len(form.axes):
        raise ParameterError(
            f"The array has shape {pixels.shape}, but the axes are '{form.axes}'; expected one "
            "axis for each letter."
        )
    count = pixels.shape[form.axes.index("c")] if "c" in form.axes else 1
    if channels is not None and len(channels) != count:
        raise ParameterError(f"{len(channels)} channel labels for {count} channels.")
    layout = None if tile_shape is None else grid_layout(pixels.shape[-2:], tile_shape, missing)
    depth = 1 if "z" not in form.axes else pixels.shape[-3]
    kind = np.dtype(form.dtype) if form.dtype else pixels.dtype.newbyteorder("=")

    def planes(lead: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        return _cast(pixels[lead].reshape(depth, *pixels.shape[-2:])[start:stop], kind)

    group = new_group(url, form, overwrite, storage_options)
    group.attrs.put(image_attributes(form, channels, attributes or {}, kind))
    write_levels(group, pixels.shape, kind, form, planes)
    if layout is not None:
        size_um = dict(zip("zyx", form.pixel_size_um, strict=True))
        address = normalise_url(url)
        write_roi_tables(address, layout, size_um, depth, original_um, None, None, storage_options)
    return os.fspath(url)


def write_mosaic(
    url: str | os.PathLike[str],
    world: LightSheetWorld,
    channels: Sequence[str] = ("488 nm", "561 nm"),
    *,
    missing: Sequence[int] = (),
    original_um: Mapping[int, Sequence[float]] | None = None,
    overwrite: bool = False,
    storage_options: StorageOptions = None,
    **style: Any,
) -> str:
    """Write a synthetic world as Fractal keeps a mosaic; memory holds a few planes.

    Args:
        url: of the new image.
        world: what the microscope looks at, and how.
        channels: labels; exactly one where the axes have no `c`.
        missing: numbers of tiles that were not acquired: no row in the table, pixels 0.
        original_um: (x, y[, z]) on the stage by tile number; None takes a grid whose tiles
            overlap by a tenth.
        overwrite: replace what is there.
        storage_options: for a remote address.
        style: fields of `ImageStyle`. A t axis has length 1; without a z axis the world
            must have one plane.

    Returns:
        The address.

    Raises:
        OutputExistsError: there is already something.
        ParameterError: the axes do not fit the world.
    """
    form = ImageStyle(**style)
    plane_shape = (world.grid[0] * world.tile_shape[0], world.grid[1] * world.tile_shape[1])
    lengths = {"t": 1, "c": len(channels), "z": world.planes, "y": plane_shape[0]}
    lengths["x"] = plane_shape[1]
    for axis in "cz":
        if axis not in form.axes and lengths[axis] != 1:
            raise ParameterError(
                f"The axes are '{form.axes}', but there are {lengths[axis]} along {axis}."
            )
    layout = grid_layout(plane_shape, world.tile_shape, missing)
    kind = np.dtype(form.dtype or "uint16")
    place = form.axes.find("c")

    def planes(lead: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        channel = lead[place] if place >= 0 else 0
        return _mosaic_planes(world, layout, range(start, stop), channel, kind)

    group = new_group(url, form, overwrite, storage_options)
    group.attrs.put(image_attributes(form, channels, {}, kind))
    write_levels(group, tuple(lengths[axis] for axis in form.axes), kind, form, planes)
    size_um = dict(zip("zyx", form.pixel_size_um, strict=True))
    stage = original_um if original_um is not None else _stage_positions(layout, size_um)
    address = normalise_url(url)
    write_roi_tables(address, layout, size_um, world.planes, stage, None, None, storage_options)
    return os.fspath(url)


def _mosaic_planes(
    world: LightSheetWorld, layout: TileLayout, planes: range, channel: int, kind: np.dtype[Any]
) -> NDArray[Any]:
    slab = np.zeros((len(planes), *layout.plane_shape), dtype=kind)

    def fill(tile: Tile) -> None:
        pixels = world.tile_planes(tile.number, planes, channel)
        box = np.s_[:, tile.y : tile.y + pixels.shape[1], tile.x : tile.x + pixels.shape[2]]
        slab[box] = _cast(pixels, kind)

    # Every plane has a random generator of its own, so the order does not matter.
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fill, layout.tiles))
    return slab


def grid_layout(
    plane_shape: Sequence[int], tile_shape: tuple[int, int], missing: Sequence[int] = ()
) -> TileLayout:
    """The layout of a full grid of tiles, without those that are missing.

    Raises:
        ParameterError: tiles do not fill the plane, or nothing is left.
    """
    (height, width), (tile_y, tile_x) = plane_shape, tile_shape
    if min(tile_shape) < 1 or height % tile_y or width % tile_x:
        raise ParameterError(
            f"Tiles of {tile_y} x {tile_x} do not fill a plane of {height} x {width} pixels."
        )
    rows, columns = height // tile_y, width // tile_x
    places = itertools.product(range(columns), range(rows))
    present = {
        number: (row * tile_y, column * tile_x)
        for number, (column, row) in enumerate(places, 1)
        if number not in missing
    }
    if not present or not set(missing) <= set(range(1, rows * columns + 1)):
        raise ParameterError(
            f"The missing tiles are {list(missing)}; the grid has the numbers 1 to "
            f"{rows * columns}, and at least one has to stay."
        )
    names = [f"FOV_{number}" for number in present]
    return TileLayout.from_origins(list(present.values()), tile_shape, (height, width), names)


def _stage_positions(
    layout: TileLayout, size_um: Mapping[str, float]
) -> dict[int, tuple[float, float]]:
    height, width = layout.tile_shape
    step_y = height * size_um["y"] * (1 - _STAGE_OVERLAP)
    step_x = width * size_um["x"] * (1 - _STAGE_OVERLAP)
    return {t.number: (1000 + t.column * step_x, 2000 + t.row * step_y) for t in layout.tiles}


def _cast(pixels: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Pixels of another type: rounded and clipped where that type is an integer."""
    if np.issubdtype(kind, np.integer) and pixels.dtype.newbyteorder("=") != kind:
        limits = np.iinfo(kind)
        pixels = np.clip(np.rint(pixels), limits.min, limits.max)
    return np.ascontiguousarray(pixels, dtype=kind)
