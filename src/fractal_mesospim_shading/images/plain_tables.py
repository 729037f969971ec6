"""Read the usual table of tiles without anndata and pandas.

Their imports alone take as long as the correction of a gigabyte, and 0.1 GB of memory. A
table of plain numbers with names for its rows and columns needs neither; any other is
left to the full reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.core.process import warnings_ignored
from fractal_mesospim_shading.images.storage.places import reading_errors
from fractal_mesospim_shading.images.storage.stores import subgroup


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


def _table_errors() -> tuple[type[Exception], ...]:
    return (*reading_errors(), AttributeError)


def _plain_numbers(table: zarr.Group) -> zarr.Array[Any] | None:
    """The array of a table of plain numbers."""
    if not str(table.attrs.get("backend") or "anndata").lower().startswith("anndata"):
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
