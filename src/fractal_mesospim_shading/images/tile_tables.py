"""Which table of an image tells where its tiles lie, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import zarr

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.roi_tables import FOV_TABLE, layout_from_table
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.images.storage.stores import subgroup, surely_lacks
from fractal_mesospim_shading.images.tables import (
    PlainTable,
    read_plain_table,
    read_table,
    table_names,
)
from fractal_mesospim_shading.messages import listed, shown

if TYPE_CHECKING:
    import pandas as pd

_GRID_TABLE = "grid_ROI_table"
_GRID_NOTE = (
    f"There is no {FOV_TABLE}, so the whole plane is one tile. If the regions of {_GRID_TABLE} are "
    f"the fields of view of the camera, set `input_roi_table={_GRID_TABLE}`."
)


@dataclass(frozen=True)
class TilesFound:
    """Where the tiles of an image lie.

    Attributes:
        layout: at full resolution.
        origins_px: where each tile really was, None where nothing tells.
        notes: lines that a person should read.
    """

    layout: TileLayout
    origins_px: dict[int, tuple[float, float]] | None
    notes: tuple[str, ...]


def tiles_of(
    group: zarr.Group,
    url: str,
    name: str,
    pixel_size_um: tuple[float, float],
    plane_shape: tuple[int, int],
    storage_options: StorageOptions = None,
) -> TilesFound:
    """Find the tiles of an image.

    Args:
        group: of the image.
        url: its address.
        name: of the table of fields of view; without `FOV_ROI_table`, the whole plane is a tile.
        pixel_size_um: (y, x) at full resolution.
        plane_shape: (y, x) in pixels.
        storage_options: for a remote address.

    Raises:
        ParameterError: there is no table of that name; the message names those that there are.
        LayoutError: it does not describe a mosaic.
    """
    bare = surely_lacks(group, "tables")
    known = not bare and (name == FOV_TABLE or name in table_names(group))
    plain = read_plain_table(group, name) if known else None
    table = plain or (read_table(url, name, storage_options) if known else None)
    if table is None and name != FOV_TABLE:
        names = [shown(one) for one in table_names(group)]
        has = f"it has {listed(names)}" if names else "it has none"
        raise ParameterError(
            f"`input_roi_table` is '{shown(name)}', but the image '{url}' has no such table; {has}."
        )
    layout, notes = layout_from_table(table, pixel_size_um, plane_shape, name)
    if table is None and not bare and subgroup(group, f"tables/{_GRID_TABLE}") is not None:
        notes = (*notes, _GRID_NOTE)
    return TilesFound(layout, original_origins(table, layout, pixel_size_um), notes)


def refuse_table_of_acquisition(name: str) -> None:
    """Refuse a table of tiles for a native acquisition.

    Raises:
        ParameterError: one was named.
    """
    if name != FOV_TABLE:
        raise ParameterError(
            "`input_roi_table` can do nothing with a native acquisition: each of its stacks is a "
            "tile. Leave it out."
        )


def original_origins(
    table: pd.DataFrame | PlainTable | None,
    layout: TileLayout,
    pixel_size_um: tuple[float, float],
) -> dict[int, tuple[float, float]] | None:
    """Where the tiles of a table really were, from its columns `*_micrometer_original`.

    Args:
        table: as for `layout_from_table`.
        layout: what that gave.
        pixel_size_um: (y, x) at full resolution.

    Returns:
        Origin (y, x) by tile number, in pixels, not rounded, the smallest 0. None where the
        columns are missing or incomplete, or names of tiles repeat.
    """
    columns = [f"{axis}_micrometer_original" for axis in "yx"]
    if table is None or not all(name in table.columns for name in columns):
        return None
    rows = {str(name): row for row, name in enumerate(table.index)}
    try:
        um = np.stack([np.asarray(table[name], dtype=np.float64) for name in columns], axis=1)
    except (TypeError, ValueError):
        return None
    if len(rows) != len(table) or not np.isfinite(um).all():
        return None
    px = (um - um.min(axis=0)) / pixel_size_um
    return {
        tile.number: (float(px[rows[tile.name], 0]), float(px[rows[tile.name], 1]))
        for tile in layout.tiles
    }
