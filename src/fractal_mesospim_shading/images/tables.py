"""The tables of an image on disk: read whatever the backend, written as anndata does.

The usual table, of plain numbers with names for its rows and columns, is read without
anndata and pandas: their imports alone take as long as the correction of a gigabyte, and
0.1 GB of memory. Any other is left to the full reader.

Tables are written in the layout that anndata gives a table on disk
(https://anndata.readthedocs.io/en/stable/fileformat-prose.html), because that is the
backend which every reader of Fractal's tables knows. The few groups and arrays are made
directly: the same table then has the same bytes whatever version of anndata is there.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import warnings_ignored
from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    filesystem,
    join_url,
    reading_errors,
)
from fractal_mesospim_shading.images.storage.stores import open_group, subgroup

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, NDArray[np.float64]]

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
_INDEX_KEYS = (_INDEX_KEY, "index", "__index_level_0__")


@dataclass(frozen=True)
class PlainTable:
    """Numbers with names.

    Attributes:
        index: name of each row.
        columns: name of each column.
        values: (rows, columns).
    """

    index: tuple[str, ...]
    columns: tuple[str, ...]
    values: NDArray[Any]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, column: str) -> NDArray[Any]:
        numbers: NDArray[Any] = self.values[:, self.columns.index(column)]
        return numbers


def read_plain_table(group: zarr.Group, name: str) -> PlainTable | None:
    """Read a table of an image if it is one of plain numbers, written by anndata.

    Args:
        group: of the image.
        name: of the table.

    Returns:
        None where there is no such table, or one of another kind, or a damaged one: the full
        reader knows the first, reads the second, and says what is wrong with the third.
    """
    # zarr warns that its type for text may change; there is nothing to do about it.
    with warnings_ignored:
        try:
            table = subgroup(group, f"tables/{name}")
            stored = None if table is None else _plain_numbers(table)
            if table is None or stored is None:
                return None
            rows, columns = _names(table, "obs"), _names(table, "var")
            values = np.asarray(stored[:])
        except _table_errors():
            return None
    if values.shape != (len(rows), len(columns)) or table.attrs.get("index_key") in columns:
        return None
    return PlainTable(rows, columns, values)


def _plain_numbers(table: zarr.Group) -> zarr.Array[Any] | None:
    """The array of a table of plain numbers."""
    if not _backend(table).startswith("anndata"):
        return None
    values = table["X"]
    if isinstance(values, zarr.Array) and values.dtype.kind in "iuf" and values.ndim == 2:
        return values
    return None


def _names(table: zarr.Group, part: str) -> tuple[str, ...]:
    """Names of rows or columns; KeyError where there is more than names."""
    frame: Any = table[part]
    if len(frame.attrs["column-order"]):
        raise KeyError("column-order")
    names: Any = frame[frame.attrs["_index"]]
    if names.attrs.get("encoding-type") != "string-array":
        raise KeyError("encoding-type")
    return tuple(str(name) for name in names[:])


def table_names(group: zarr.Group) -> list[str]:
    """Names of the tables of an image: those that it lists, then others that are there."""
    tables = subgroup(group, "tables")
    if tables is None:
        return []
    listed = tables.attrs.get("tables")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    # Some stores cannot say what they hold.
    with suppress(*reading_errors()):
        names += sorted(tables.group_keys())
    return list(dict.fromkeys(names))


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


def _table_errors() -> tuple[type[Exception], ...]:
    return (*reading_errors(), AttributeError, ImportError)


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


def _backend(table: zarr.Group) -> str:
    named = table.attrs.get("backend")
    return named.lower() if isinstance(named, str) and named else "anndata"


def write_table(tables: zarr.Group, name: str, rows: Sequence[str], columns: Columns) -> None:
    """Write a table of regions into the group of tables, in the place of one of that name."""
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


def list_tables(tables: zarr.Group, names: Sequence[str]) -> None:
    """Add names to the list that readers go by."""
    listed = tables.attrs.get("tables")
    before = [str(name) for name in listed] if isinstance(listed, list) else []
    tables.attrs["tables"] = list(dict.fromkeys([*before, *names]))
