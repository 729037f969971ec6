"""Write the tables that say where the tiles of an image lie.

They are written in the layout that anndata gives a table on disk
(https://anndata.readthedocs.io/en/stable/fileformat-prose.html), because that is the
backend which every reader of Fractal's tables knows. The few groups and arrays are made
directly: the same table then has the same bytes whatever version of anndata is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import ImageFormatError, LayoutError, OutputWriteError
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    connection_errors,
    join_url,
)
from fractal_mesospim_shading.images.storage.stores import open_group
from fractal_mesospim_shading.images.tables import FOV_TABLE

WELL_TABLE = "well_ROI_table"
WELL_NAME = "well_1"

_INDEX_KEY = "FieldIndex"
_EMPTY_PARTS = ("layers", "obsm", "obsp", "uns", "varm", "varp")
_TABLE_ATTRIBUTES = {
    "encoding-type": "anndata",
    "encoding-version": "0.1.0",
    "type": "roi_table",
    "table_version": "1",
    "backend": "anndata",
    "index_key": _INDEX_KEY,
    "index_type": "str",
}

Columns = dict[str, NDArray[np.float64]]


def write_roi_tables(
    image_url: str,
    layout: TileLayout,
    pixel_size_um: Mapping[str, float],
    n_z: int,
    original_um: Mapping[int, Sequence[float]] | None = None,
    names: Mapping[int, str] | None = None,
    zarr_format: int | None = None,
    storage_options: StorageOptions = None,
) -> tuple[str, ...]:
    """Write `FOV_ROI_table` and `well_ROI_table` of an image; other tables stay.

    The first has one row for each tile, in the order of the tile numbers (down the first
    column, then the next), the second one row for the whole plane. Positions are stored
    as float64, in micrometers from the corner of the image.

    Args:
        image_url: of the image group, which must exist.
        layout: the tiles at full resolution.
        pixel_size_um: size of a pixel at full resolution for `y`, `x` and, unless the
            image has no z axis, `z`.
        n_z: number of planes; 1 for an image without z axis.
        original_um: (x, y) or (x, y, z) of the stage for every tile number; becomes the
            columns `x_micrometer_original` and so on. Readers put tiles back in their
            place on the stage with them. None leaves the columns out.
        names: of the tiles by number; None takes the names of the layout, and `FOV_1`,
            `FOV_2` and so on where these are empty.
        zarr_format: 2 or 3, which has to be the format of the image; None takes that.
        storage_options: for a remote address.

    Returns:
        The names of the tables written.

    Raises:
        ImageFormatError: the image has the other zarr format.
        LayoutError: two tiles share a name, or a tile has no original position.
        OutputWriteError: no permission, or no space.
    """
    image = open_group(image_url, storage_options, mode="r+")
    found = image.metadata.zarr_format
    if zarr_format not in (None, found):
        raise ImageFormatError(
            f"Tables of zarr format {zarr_format} were asked for, but the image "
            f"'{image_url}' has format {found}. Tables have the format of "
            "their image."
        )
    tiles = _tile_columns(layout, pixel_size_um, n_z, original_um)
    rows = _row_names(layout, names)
    plane = _box_columns([(0, 0)], layout.plane_shape, pixel_size_um, n_z)
    try:
        tables = image.require_group("tables")
        _write_table(tables, FOV_TABLE, rows, tiles)
        _write_table(tables, WELL_TABLE, [WELL_NAME], plane)
        _list_tables(tables, (FOV_TABLE, WELL_TABLE))
    except connection_errors() as error:
        raise OutputWriteError(
            f"The tables '{join_url(image_url, 'tables')}' cannot be written "
            f"({type(error).__name__}: {error}). Check the free space and the rights."
        ) from error
    return FOV_TABLE, WELL_TABLE


def _list_tables(tables: zarr.Group, names: Sequence[str]) -> None:
    """Add names to the list that readers go by."""
    listed = tables.attrs.get("tables")
    before = [str(name) for name in listed] if isinstance(listed, list) else []
    tables.attrs["tables"] = list(dict.fromkeys([*before, *names]))


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


def _row_names(layout: TileLayout, names: Mapping[int, str] | None) -> list[str]:
    given = names or {}
    rows = [given.get(tile.number) or tile.name or f"FOV_{tile.number}" for tile in layout.tiles]
    repeated = sorted(name for name, count in Counter(rows).items() if count > 1)
    if repeated:
        raise LayoutError(
            f"Several tiles are called {', '.join(repeated)}; every tile of a table needs a "
            "name of its own."
        )
    return rows


def _write_table(tables: zarr.Group, name: str, rows: Sequence[str], columns: Columns) -> None:
    table = tables.create_group(name, overwrite=True, attributes=dict(_TABLE_ATTRIBUTES))
    for part in _EMPTY_PARTS:
        attributes = {"encoding-type": "dict", "encoding-version": "0.1.0"}
        table.create_group(part, attributes=attributes)
    values = np.stack(list(columns.values()), axis=1)
    _write_array(table, "X", values, "array")
    _write_index(table, "obs", _INDEX_KEY, rows)
    _write_index(table, "var", "_index", list(columns))


def _write_index(table: zarr.Group, part: str, key: str, labels: Sequence[str]) -> None:
    """One side of the table: the names of its rows or columns, and nothing else."""
    attributes: dict[str, Any] = {
        "_index": key,
        "column-order": [],
        "encoding-type": "dataframe",
        "encoding-version": "0.2.0",
    }
    frame = table.create_group(part, attributes=attributes)
    _write_array(frame, key, np.array(labels, dtype=object), "string-array")


def _write_array(group: zarr.Group, name: str, values: NDArray[Any], encoding: str) -> None:
    text = values.dtype == object
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=str if text else values.dtype,
        fill_value="" if text else 0.0,
        compressors=None,
        attributes={"encoding-type": encoding, "encoding-version": "0.2.0"},
    )
    array[...] = values
