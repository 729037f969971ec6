"""The tables of an image: where its tiles lie, and how tables and labels are carried over."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.process import warnings_ignored
from fractal_mesospim_shading.errors import ImageFormatError, LayoutError
from fractal_mesospim_shading.images.plain_tables import PlainTable
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    filesystem,
    join_url,
    reading_errors,
)
from fractal_mesospim_shading.images.storage.stores import members_of, open_group, subgroup

if TYPE_CHECKING:
    import pandas as pd

FOV_TABLE = "FOV_ROI_table"
_INDEX_KEYS = ("FieldIndex", "index", "__index_level_0__")
_FARTHEST_PX = 1e12
_TOLERANCE_PX = 0.1
# Positions may have been stored as float32: one unit in the last place of 24 bits, and
# as much again for the difference of two.
_FLOAT32 = 2.0**-23


def table_names(group: zarr.Group) -> tuple[str, ...]:
    """Names of the tables of an image, those listed first, then others that are there."""
    tables = subgroup(group, "tables")
    if tables is None:
        return ()
    present = [name for name, item in members_of(tables).items() if isinstance(item, zarr.Group)]
    listed = [name for name in _as_list(tables.attrs.get("tables")) if name in present]
    return tuple(dict.fromkeys([*listed, *present]))


def read_table(url: str, name: str, storage_options: StorageOptions = None) -> pd.DataFrame | None:
    """Read a table of an image, whatever the backend that wrote it.

    Args:
        url: address of the image.
        name: of the table.
        storage_options: for a remote address.

    Returns:
        One row a region, indexed by its name; None where there is no such table.

    Raises:
        ImageFormatError: the table is there but cannot be read.
    """
    group = open_group(url, storage_options)
    path = f"tables/{name}"
    table = subgroup(group, path)
    if table is None:
        return None
    where = join_url(url, path)
    backend = _backend(table)
    try:
        if backend in ("csv", "parquet"):
            frame = _read_file(where, backend, storage_options)
        elif backend == "json":
            frame = _read_json(table)
        elif backend.startswith("anndata"):
            frame = _read_anndata(table)
        else:
            raise ImageFormatError(
                f"The table '{where}' has the backend '{backend}'; expected anndata, csv, json "
                "or parquet."
            )
    except ImageFormatError:
        raise
    except _table_errors() as error:
        raise ImageFormatError(
            f"The table '{where}' (backend {backend}) cannot be read: "
            f"{type(error).__name__}: {error}. Write it again, or remove it to have the whole "
            "plane taken as one tile."
        ) from error
    return _indexed(frame, table.attrs.get("index_key"))


def layout_from_table(
    table: pd.DataFrame | PlainTable | None,
    pixel_size_um: tuple[float, float],
    plane_shape: tuple[int, int],
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
            f"The table '{FOV_TABLE}' has no row; expected one for each tile. "
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
    notes += _order_note(layout, names, pairs)
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
    layout: TileLayout, names: Sequence[str], origins: Sequence[tuple[int, int]]
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
        return [f"Tile numbers begin with 1: tile {first.number} is '{first.name}' in {FOV_TABLE}."]
    odd = [
        f"{tile.number} is '{tile.name}' (row {row})"
        for tile, row, d in zip(layout.tiles, rows, digits, strict=True)
        if row != tile.number or (d and int(d) != tile.number)
    ]
    shown = ", ".join(odd[:8]) + (f" and {len(odd) - 8} more" if len(odd) > 8 else "")
    note = (
        "Tile numbers count down the first column, then on from the top of the next; the table "
        f"{FOV_TABLE} counts otherwise: tile {shown}."
    )
    return [note]


def _table_errors() -> tuple[type[Exception], ...]:
    return (*reading_errors(), AttributeError, ImportError)


def _backend(table: zarr.Group) -> str:
    named = table.attrs.get("backend")
    if isinstance(named, str) and named:
        return named.lower()
    return "anndata"


def _read_file(where: str, backend: str, storage_options: StorageOptions) -> pd.DataFrame:
    import pandas as pd

    fs, path = filesystem(join_url(where, f"table.{backend}"), storage_options)
    content = io.BytesIO(fs.cat_file(path))
    return pd.read_csv(content) if backend == "csv" else pd.read_parquet(content)


def _read_json(table: zarr.Group) -> pd.DataFrame:
    import pandas as pd

    inner = table["table"]
    return pd.DataFrame(dict(inner.attrs))


def _read_anndata(table: zarr.Group) -> pd.DataFrame:
    import pandas as pd

    # Versions of anndata warn about the age of a table; there is nothing to do about it.
    with warnings_ignored:
        from anndata.io import read_elem

        # Part by part: old tables lack the attributes that make the whole an AnnData.
        values, rows, columns = (read_elem(table[name]) for name in ("X", "obs", "var"))
    frame = pd.DataFrame(np.asarray(values), index=rows.index, columns=columns.index)
    return frame.join(rows) if len(rows.columns) else frame


def _indexed(frame: pd.DataFrame, index_key: Any) -> pd.DataFrame:
    for key in (index_key, *_INDEX_KEYS):
        if isinstance(key, str) and key in frame.columns:
            frame = frame.set_index(key)
            break
    frame.index = frame.index.map(str)
    return frame


def _as_list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []
