"""The tables of tiles: what is written is what a reader of Fractal's tables finds."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import LayoutError
from fractal_mesospim_shading.images.roi_tables import (
    layout_from_table,
    write_roi_tables,
)
from fractal_mesospim_shading.images.tables import read_table
from fractal_mesospim_shading.images.tile_tables import original_origins

# Tile 3 of a grid of 2 x 2 is missing.
ORIGINS = [(0, 0), (6, 0), (6, 10)]
LAYOUT = TileLayout.from_origins(ORIGINS, (6, 10), (12, 20))
PIXEL_UM = {"z": 2.0, "y": 0.5, "x": 0.25}


def new_image(path: Path, zarr_format: int) -> Path:
    zarr.open_group(path, mode="w", zarr_format=zarr_format)
    return path


def content(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_rows_are_tiles_in_the_order_of_their_numbers(tmp_path: Path, zarr_format: int) -> None:
    path = new_image(tmp_path / "a.zarr", zarr_format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = write_roi_tables(str(path), LAYOUT, PIXEL_UM, 7)
    assert written == ("FOV_ROI_table", "well_ROI_table")
    table = read_table(str(path), "FOV_ROI_table")
    assert table is not None
    assert list(table.index) == ["FOV_1", "FOV_2", "FOV_4"]
    assert list(table["x_micrometer"]) == [0.0, 0.0, 2.5]
    assert list(table["y_micrometer"]) == [0.0, 3.0, 3.0]
    assert list(table["z_micrometer"]) == [0.0, 0.0, 0.0]
    assert list(table["len_x_micrometer"]) == [2.5] * 3
    assert list(table["len_y_micrometer"]) == [3.0] * 3
    assert list(table["len_z_micrometer"]) == [14.0] * 3
    well = read_table(str(path), "well_ROI_table")
    assert well is not None
    assert well.loc["well_1"].to_dict() == {
        "x_micrometer": 0.0,
        "y_micrometer": 0.0,
        "z_micrometer": 0.0,
        "len_x_micrometer": 5.0,
        "len_y_micrometer": 6.0,
        "len_z_micrometer": 14.0,
    }
    layout, _ = layout_from_table(table, (0.5, 0.25), (12, 20))
    assert [(t.number, t.y, t.x) for t in layout.tiles] == [(1, 0, 0), (2, 6, 0), (4, 6, 10)]
    group = zarr.open_group(path, mode="r")
    assert tuple(group["tables"].attrs["tables"]) == written
    assert group["tables"].metadata.zarr_format == zarr_format
    attributes = dict(group["tables/FOV_ROI_table"].attrs)
    assert attributes["type"] == "roi_table" and attributes["table_version"] == "1"
    assert attributes["backend"] == "anndata" and attributes["index_type"] == "str"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_anndata_reads_the_tables(tmp_path: Path, zarr_format: int) -> None:
    path = new_image(tmp_path / "a.zarr", zarr_format)
    original = {1: (100.0, 7.0, 1.5), 2: (100.5, 8.0, 1.5), 4: (-3.0, 8.0, 1.5)}
    layout = TileLayout.from_origins(ORIGINS, (6, 10), (12, 20), ["links oben", "Größe", "x"])
    write_roi_tables(str(path), layout, PIXEL_UM, 7, original)
    table = anndata.read_zarr(path / "tables" / "FOV_ROI_table")
    assert table.obs.index.name == "FieldIndex"
    assert list(table.obs_names) == ["links oben", "Größe", "x"]
    assert list(table.var_names[-3:]) == [f"{axis}_micrometer_original" for axis in "xyz"]
    np.testing.assert_array_equal(table.X[:, -3:], [original[1], original[2], original[4]])
    assert table.X.dtype == np.float64


def test_same_table_same_bytes_and_other_tables_stay(tmp_path: Path) -> None:
    first, second = new_image(tmp_path / "a.zarr", 3), new_image(tmp_path / "b.zarr", 3)
    tables = zarr.open_group(second, mode="r+").create_group("tables")
    tables.attrs["tables"] = ["nuclei"]
    tables.create_group("nuclei")
    for _ in range(2):
        write_roi_tables(str(second), LAYOUT, PIXEL_UM, 7, {1: (1, 2), 2: (3, 4), 4: (5, 6)})
    write_roi_tables(str(first), LAYOUT, PIXEL_UM, 7, {1: (1, 2), 2: (3, 4), 4: (5, 6)})
    assert content(first / "tables" / "FOV_ROI_table") == content(
        second / "tables" / "FOV_ROI_table"
    )
    listed = zarr.open_group(second / "tables", mode="r").attrs["tables"]
    assert listed == ["nuclei", "FOV_ROI_table", "well_ROI_table"]


def test_names_of_the_layout_are_kept(tmp_path: Path) -> None:
    path = new_image(tmp_path / "a.zarr", 2)
    layout = TileLayout.from_origins([(6, 0), (0, 0)], (6, 10), (12, 10), ["lower", "upper"])
    write_roi_tables(str(path), layout, {"y": 1.0, "x": 1.0}, 1)
    table = read_table(str(path), "FOV_ROI_table")
    assert table is not None and list(table.index) == ["upper", "lower"]
    assert list(table["len_z_micrometer"]) == [1.0, 1.0]


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = new_image(tmp_path / "a.zarr", 2)
    before = content(path)
    with pytest.raises(LayoutError, match=r"not for \[4\]"):
        write_roi_tables(str(path), LAYOUT, PIXEL_UM, 7, {1: (0, 0), 2: (0, 0)})
    with pytest.raises(LayoutError, match=r"\(x, y\) for all"):
        write_roi_tables(str(path), LAYOUT, PIXEL_UM, 7, {1: (0, 0), 2: (0, 0), 4: (0, 0, 1)})
    with pytest.raises(LayoutError, match="called a"):
        twins = TileLayout.from_origins(ORIGINS, (6, 10), (12, 20), ["a", "a", "x"])
        write_roi_tables(str(path), twins, PIXEL_UM, 7)
    assert content(path) == before


def test_original_places_are_those_that_were_written(tmp_path: Path) -> None:
    path = new_image(tmp_path / "a.zarr", 3)
    original = {1: (100.0, 7.0, 1.5), 2: (100.5, 8.0, 1.5), 4: (97.0, 8.0, 1.5)}
    write_roi_tables(str(path), LAYOUT, PIXEL_UM, 7, original)
    table = read_table(str(path), "FOV_ROI_table")
    layout, _ = layout_from_table(table, (0.5, 0.25), (12, 20))
    found = original_origins(table, layout, (0.5, 0.25))
    assert found == {1: (0.0, 12.0), 2: (2.0, 14.0), 4: (2.0, 0.0)}
    # Whatever the order of the rows.
    assert original_origins(table.iloc[::-1], layout, (0.5, 0.25)) == found


def test_no_place_where_one_is_not_known(tmp_path: Path) -> None:
    path = new_image(tmp_path / "a.zarr", 3)
    write_roi_tables(str(path), LAYOUT, PIXEL_UM, 7, dict.fromkeys((1, 2, 4), (1.0, 2.0)))
    table = read_table(str(path), "FOV_ROI_table")
    layout, _ = layout_from_table(table, (0.5, 0.25), (12, 20))
    assert original_origins(table, layout, (0.5, 0.25)) is not None
    assert original_origins(None, layout, (0.5, 0.25)) is None
    assert original_origins(table.drop(columns="x_micrometer_original"), layout, (1, 1)) is None
    table.loc["FOV_2", "x_micrometer_original"] = np.nan
    assert original_origins(table, layout, (0.5, 0.25)) is None
