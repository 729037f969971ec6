"""Where the tiles of an image lie: from its table of regions to the layout, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import LayoutError, OutputWriteError
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    connection_errors,
    join_url,
)
from fractal_mesospim_shading.images.storage.stores import open_group
from fractal_mesospim_shading.images.tables import Columns, PlainTable, list_tables, write_table
from fractal_mesospim_shading.messages import listed

if TYPE_CHECKING:
    import pandas as pd

FOV_TABLE = "FOV_ROI_table"
WELL_TABLE = "well_ROI_table"
WELL_NAME = "well_1"

_FARTHEST_PX = 1e12
_TOLERANCE_PX = 0.1
# Positions may have been stored as float32: one unit in the last place of 24 bits, and
# as much again for the difference of two.
_FLOAT32 = 2.0**-23


def layout_from_table(
    table: pd.DataFrame | PlainTable | None,
    pixel_size_um: tuple[float, float],
    plane_shape: tuple[int, int],
    name: str = FOV_TABLE,
) -> tuple[TileLayout, tuple[str, ...]]:
    """Put the tiles of a table on the pixel grid of the image.

    Positions and sizes are divided by the pixel size and have to lie within 0.1 pixel of
    the grid. Where tiles leave the image along an axis as they stand, but fit once the
    smallest position is subtracted, the offset is taken off.

    Args:
        table: regions by name, columns `x_micrometer`, `y_micrometer`, `len_x_micrometer`,
            `len_y_micrometer`; None takes the whole plane as one tile.
        pixel_size_um: (y, x) at full resolution.
        plane_shape: (y, x) in pixels.
        name: of the table, for messages.

    Returns:
        The layout, and notes that a person should read, one line each.

    Raises:
        LayoutError: missing columns, negative or fractional positions, unequal sizes, tiles
            that overlap or leave the image.
    """
    if table is None:
        return TileLayout.single(plane_shape), ()
    if len(table) == 0:
        raise LayoutError(
            f"The table '{name}' has no row; expected one for each tile. "
            "Fill it, or remove it to have the whole plane taken as one tile."
        )
    names = [str(name) for name in table.index]
    origins, sizes, notes = [], [], []
    for axis, pixel_um, extent in zip("yx", pixel_size_um, plane_shape, strict=True):
        start, size, note = _axis_in_pixels(table, names, axis, pixel_um, extent)
        origins.append(start)
        sizes.append(size)
        notes += note
    pairs = [(int(y), int(x)) for y, x in zip(*origins, strict=True)]
    layout = TileLayout.from_origins(pairs, (sizes[0], sizes[1]), plane_shape, names)
    notes += _depth_note(table)
    notes += _order_note(layout, names, pairs, name)
    return layout, tuple(notes)


def _axis_in_pixels(
    table: pd.DataFrame | PlainTable, names: Sequence[str], axis: str, pixel_um: float, extent: int
) -> tuple[NDArray[np.int64], int, list[str]]:
    start_um = _column(table, f"{axis}_micrometer")
    length_um = _column(table, f"len_{axis}_micrometer")
    size = _common_size(length_um / pixel_um, length_um * _FLOAT32 / pixel_um, names, axis)
    position = start_um / pixel_um
    _refuse_endless(position, names, axis)
    slack = _TOLERANCE_PX + 2 * np.abs(start_um) * _FLOAT32 / pixel_um
    negative = position < -slack
    if negative.any():
        first = int(np.flatnonzero(negative)[0])
        raise LayoutError(
            f"Tile '{names[first]}' begins at {axis} = {start_um[first]:g} micrometers "
            f"({int(negative.sum())} of {len(names)} tiles are negative). Positions count from "
            "the corner of the image; subtract the smallest one from the table."
        )
    notes = []
    if (position + size > extent + slack).any():
        offset = float(position.min())
        if (position - offset + size > extent + slack).any():
            raise LayoutError(
                f"The tiles reach from {axis} = {offset:.1f} to {position.max() + size:.1f} "
                f"pixels, but the image has only {extent}. The table does not belong to this "
                "image, or its pixel size is another one."
            )
        notes.append(
            f"Tile positions begin at {axis} = {start_um.min():g} micrometers and would leave "
            f"the image; this offset of {offset:.1f} pixels was subtracted."
        )
        position = position - offset
    grid = np.rint(position)
    fractional = np.abs(position - grid) > slack
    if fractional.any():
        first = int(np.flatnonzero(fractional)[0])
        raise LayoutError(
            f"Tile '{names[first]}' begins at {axis} = {position[first]:.3f} pixels "
            f"({int(fractional.sum())} of {len(names)} tiles lie between pixels; the pixel size "
            f"is {pixel_um:g} micrometers). Every tile has to begin on a pixel."
        )
    return np.clip(grid, 0, extent - size).astype(np.int64), size, notes


def _refuse_endless(position: NDArray[np.float64], names: Sequence[str], axis: str) -> None:
    far = np.abs(position) > _FARTHEST_PX
    if far.any():
        first = int(np.flatnonzero(far)[0])
        raise LayoutError(
            f"Tile '{names[first]}' begins at {axis} = {position[first]:.3g} pixels; no image "
            "reaches so far. The position or the pixel size is wrong."
        )


def _common_size(
    lengths: NDArray[np.float64], rounding: NDArray[np.float64], names: Sequence[str], axis: str
) -> int:
    typical = float(np.median(lengths))
    if not abs(typical) <= _FARTHEST_PX:
        raise LayoutError(
            f"The tiles are {typical:.3g} pixels long in {axis}; no image is so large. Their size "
            "or the pixel size is wrong."
        )
    size = round(typical)
    odd = np.abs(lengths - size) > _TOLERANCE_PX + rounding
    if odd.any():
        first = int(np.flatnonzero(odd)[0])
        raise LayoutError(
            f"Tile '{names[first]}' is {lengths[first]:.3f} pixels long in {axis}, expected "
            f"{size} ({int(odd.sum())} of {len(names)} tiles differ). All tiles must have the "
            "same size, a whole number of pixels."
        )
    if size < 1:
        raise LayoutError(f"The tiles are {size} pixels long in {axis}; expected at least 1.")
    return size


def _column(table: pd.DataFrame | PlainTable, name: str) -> NDArray[np.float64]:
    if name not in table.columns:
        raise LayoutError(
            f"The table of tiles has no column '{name}'; it has "
            f"{', '.join(str(column) for column in table.columns)}."
        )
    try:
        values = np.asarray(table[name], dtype=np.float64)
    except (TypeError, ValueError):
        raise LayoutError(f"The column '{name}' of the table of tiles holds no numbers.") from None
    if not np.isfinite(values).all():
        raise LayoutError(f"The column '{name}' of the table of tiles has empty or NaN entries.")
    return values


def _depth_note(table: pd.DataFrame | PlainTable) -> list[str]:
    differing = [
        name
        for name in ("z_micrometer", "len_z_micrometer")
        if name in table.columns and len(set(np.asarray(table[name]).tolist())) > 1
    ]
    if not differing:
        return []
    note = (
        f"Tiles differ in {' and '.join(differing)}; depth is not used, every tile is taken to "
        "span all planes."
    )
    return [note]


def _order_note(
    layout: TileLayout, names: Sequence[str], origins: Sequence[tuple[int, int]], table: str
) -> list[str]:
    row_of = {origin: row for row, origin in enumerate(origins, 1)}
    rows = [row_of[tile.y, tile.x] for tile in layout.tiles]
    digits = [tile.name[len(tile.name.rstrip("0123456789")) :] for tile in layout.tiles]
    shifts = {int(d) - tile.number for tile, d in zip(layout.tiles, digits, strict=True) if d}
    if rows == sorted(rows) and len(shifts) <= 1:
        # The same order; gaps of missing tiles aside, at most counted from another number.
        first = layout.tiles[0]
        if shifts in (set(), {0}):
            return []
        return [f"Tile numbers begin with 1: tile {first.number} is '{first.name}' in {table}."]
    odd = [
        f"{tile.number} is '{tile.name}' (row {row})"
        for tile, row, d in zip(layout.tiles, rows, digits, strict=True)
        if row != tile.number or (d and int(d) != tile.number)
    ]
    note = (
        "Tile numbers count down the first column, then on from the top of the next; the table "
        f"{table} counts otherwise: tile {listed(odd)}."
    )
    return [note]


def write_roi_tables(
    image_url: str,
    layout: TileLayout,
    pixel_size_um: Mapping[str, float],
    n_z: int,
    original_um: Mapping[int, Sequence[float]] | None = None,
    storage_options: StorageOptions = None,
) -> tuple[str, ...]:
    """Write `FOV_ROI_table` and `well_ROI_table` of an image; other tables stay.

    The first has one row for each tile, in the order of the tile numbers (down the first
    column, then the next), named as in the layout, else `FOV_1`, `FOV_2` and so on; the second
    one row for the whole plane. Positions are stored as float64, in micrometers from the
    corner of the image.

    Args:
        image_url: of the image group, which must exist.
        layout: the tiles at full resolution.
        pixel_size_um: size of a pixel at full resolution for `y`, `x` and, unless the
            image has no z axis, `z`.
        n_z: number of planes; 1 for an image without z axis.
        original_um: (x, y) or (x, y, z) of the stage for every tile number; becomes the
            columns `x_micrometer_original` and so on. Readers put tiles back in their
            place on the stage with them. None leaves the columns out.
        storage_options: for a remote address.

    Returns:
        The names of the tables written.

    Raises:
        LayoutError: two tiles share a name, or a tile has no original position.
        OutputWriteError: no permission, or no space.
    """
    image = open_group(image_url, storage_options, mode="r+")
    tiles = _tile_columns(layout, pixel_size_um, n_z, original_um)
    rows = _row_names(layout)
    plane = _box_columns([(0, 0)], layout.plane_shape, pixel_size_um, n_z)
    try:
        tables = image.require_group("tables")
        write_table(tables, FOV_TABLE, rows, tiles)
        write_table(tables, WELL_TABLE, [WELL_NAME], plane)
        list_tables(tables, (FOV_TABLE, WELL_TABLE))
    except connection_errors() as error:
        raise OutputWriteError(
            f"The tables '{join_url(image_url, 'tables')}' cannot be written "
            f"({type(error).__name__}: {error}). Check the free space and the rights."
        ) from error
    return FOV_TABLE, WELL_TABLE


def _row_names(layout: TileLayout) -> list[str]:
    rows = [tile.name or f"FOV_{tile.number}" for tile in layout.tiles]
    repeated = sorted(name for name, count in Counter(rows).items() if count > 1)
    if repeated:
        raise LayoutError(
            f"Several tiles are called {', '.join(repeated)}; every tile of a table needs a "
            "name of its own."
        )
    return rows


def _tile_columns(
    layout: TileLayout,
    pixel_size_um: Mapping[str, float],
    n_z: int,
    original_um: Mapping[int, Sequence[float]] | None,
) -> Columns:
    origins = [(tile.y, tile.x) for tile in layout.tiles]
    columns = _box_columns(origins, layout.tile_shape, pixel_size_um, n_z)
    if original_um is None:
        return columns
    lacking = [tile.number for tile in layout.tiles if tile.number not in original_um]
    if lacking:
        raise LayoutError(
            f"Original positions are given for the tiles {sorted(original_um)}, but not for "
            f"{lacking}; expected one for every tile of the layout."
        )
    positions = [tuple(original_um[tile.number]) for tile in layout.tiles]
    lengths = {len(position) for position in positions}
    if lengths not in ({2}, {3}):
        raise LayoutError(
            f"The original positions have {sorted(lengths)} numbers; expected (x, y) for all "
            "tiles, or (x, y, z) for all."
        )
    for axis, values in zip("xyz", zip(*positions, strict=True), strict=False):
        columns[f"{axis}_micrometer_original"] = np.asarray(values, dtype=np.float64)
    return columns


def _box_columns(
    origins_yx: Sequence[tuple[int, int]],
    shape_yx: tuple[int, int],
    pixel_size_um: Mapping[str, float],
    n_z: int,
) -> Columns:
    """Positions and sizes of equal boxes that span all planes."""
    size_um = {"z": 1.0, **pixel_size_um}
    starts = {"x": [x for _, x in origins_yx], "y": [y for y, _ in origins_yx]}
    starts["z"] = [0] * len(origins_yx)
    lengths = {"x": shape_yx[1], "y": shape_yx[0], "z": n_z}
    columns = {f"{axis}_micrometer": np.array(starts[axis]) * size_um[axis] for axis in "xyz"}
    for axis in "xyz":
        columns[f"len_{axis}_micrometer"] = np.full(len(origins_yx), lengths[axis] * size_um[axis])
    return columns
