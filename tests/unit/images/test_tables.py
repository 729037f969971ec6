"""Tables of tiles in every backend, and the layouts they give or cannot give."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numcodecs
import numpy as np
import pandas as pd
import pytest
import zarr

from fractal_mesospim_shading.errors import ImageFormatError, LayoutError, SourceReadError
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.roi_tables import FOV_TABLE, layout_from_table
from fractal_mesospim_shading.images.tables import read_table

PX = (0.65, 0.65)
NAMES = ["FOV_1", "FOV_2", "FOV_3"]
COLUMNS = [
    "x_micrometer",
    "y_micrometer",
    "z_micrometer",
    "len_x_micrometer",
    "len_y_micrometer",
    "len_z_micrometer",
    "x_micrometer_original",
    "y_micrometer_original",
]
POSITIONS = [(0, 0), (40, 0), (0, 60)]  # y, x in pixels of tiles of 40 x 60


def table(
    positions: list[tuple[float, float]],
    tile: tuple[float, float] = (40, 60),
    names: list[str] | None = None,
    dtype: str = "float64",
    pixel_um: float = 0.65,
) -> pd.DataFrame:
    rows = [
        [x * pixel_um, y * pixel_um, 0.0, tile[1] * pixel_um, tile[0] * pixel_um, 8.0, -1448.3, 2.5]
        for y, x in positions
    ]
    index = pd.Index(names or [f"FOV_{i + 1}" for i in range(len(rows))], name="FieldIndex")
    return pd.DataFrame(rows, index=index, columns=COLUMNS, dtype=dtype)


def write_table(image: Path, frame: pd.DataFrame, backend: str, name: str = FOV_TABLE) -> None:
    """Lay a table down as ngio 1.1 and older writers do, without using them."""
    group = zarr.open_group(image, mode="r+", use_consolidated=False)
    tables = group.require_group("tables")
    tables.attrs["tables"] = [*tables.attrs.get("tables", []), name]
    entry = tables.create_group(name)
    entry.attrs.update({"type": "roi_table", "table_version": "1", "index_key": "FieldIndex"})
    folder = image / "tables" / name
    flat = frame.reset_index()
    if backend in ("csv", "json", "parquet"):
        entry.attrs["backend"] = backend
    if backend == "csv":
        flat.to_csv(folder / "table.csv", index=False)
    elif backend == "parquet":
        flat.to_parquet(folder / "table.parquet", index=False)
    elif backend == "json":
        entry.create_group("table").attrs.put(flat.to_dict(orient="list"))
    else:
        write_anndata(entry, frame, backend)


def write_anndata(entry: zarr.Group, frame: pd.DataFrame, backend: str) -> None:
    if backend != "anndata, oldest":
        entry.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    if backend == "anndata":
        entry.attrs["backend"] = "anndata"
    values = entry.create_array("X", data=frame.to_numpy())
    values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for axis, index, key in (("obs", frame.index, "FieldIndex"), ("var", frame.columns, "_index")):
        part = entry.create_group(axis)
        part.attrs.update(
            {
                "encoding-type": "dataframe",
                "encoding-version": "0.2.0",
                "_index": key,
                "column-order": [],
            }
        )
        strings = part.create_array(key, shape=(len(index),), dtype=str)
        strings[:] = np.array([str(entry) for entry in index], dtype=object)
        strings.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        part = entry.create_group(name)
        part.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})


@pytest.fixture
def image(write_image: Callable[..., Path], request: pytest.FixtureRequest) -> Path:
    version = getattr(request, "param", "0.4")
    return write_image(np.zeros((1, 2, 80, 120), np.uint16), version=version)


BACKENDS = ["anndata", "anndata, no backend attribute", "anndata, oldest", "csv", "json", "parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("image", ["0.4", "0.5"], indirect=True)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_backend(image: Path, backend: str, dtype: str) -> None:
    write_table(image, table(POSITIONS, dtype=dtype), backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = MosaicImage.open(image)
        frame = read_table(str(image), FOV_TABLE)
    assert found.layout.tile_shape == (40, 60)
    assert [(t.number, t.y, t.x, t.name) for t in found.layout.tiles] == [
        (1, 0, 0, "FOV_1"),
        (2, 40, 0, "FOV_2"),
        (3, 0, 60, "FOV_3"),
    ]
    assert found.layout.missing == (4,)
    assert found.notes == ()
    assert frame is not None
    assert list(frame.index) == NAMES
    np.testing.assert_allclose(frame[COLUMNS], table(POSITIONS)[COLUMNS], rtol=1e-6)


def test_the_real_table(two_fovs: Path) -> None:
    found = MosaicImage.open(two_fovs)
    assert found.layout.tile_shape == (540, 640)
    assert [(t.number, t.y, t.x, t.name) for t in found.layout.tiles] == [
        (1, 0, 0, "FOV_0"),
        (2, 0, 640, "FOV_1"),
    ]
    assert len(found.notes) == 1
    assert "tile 1 is 'FOV_0'" in found.notes[0]


def test_no_table_is_one_tile(image: Path) -> None:
    assert read_table(str(image), FOV_TABLE) is None
    found = MosaicImage.open(image)
    assert found.layout.is_single
    assert found.layout.tile_shape == (80, 120)


@pytest.mark.parametrize("backend", ["csv", "json", "parquet", "anndata"])
def test_tables_that_cannot_be_read(image: Path, backend: str) -> None:
    write_table(image, table(POSITIONS), backend)
    folder = image / "tables" / FOV_TABLE
    victim = {
        "csv": "table.csv",
        "json": "table/.zattrs",
        "parquet": "table.parquet",
        "anndata": "X/.zarray",
    }[backend]
    (folder / victim).write_bytes(b"\x00{,")
    with pytest.raises((ImageFormatError, LayoutError), match=r"FOV_ROI_table|no column"):
        MosaicImage.open(image)
    (folder / victim).unlink()
    with pytest.raises((ImageFormatError, LayoutError)):
        MosaicImage.open(image)


def test_unknown_backend(image: Path) -> None:
    write_table(image, table(POSITIONS), "csv")
    zarr.open_group(image / "tables" / FOV_TABLE, mode="r+").attrs["backend"] = "sqlite"
    with pytest.raises(ImageFormatError, match=r"'sqlite'; expected anndata, csv, json"):
        MosaicImage.open(image)


def test_index_column_of_another_name(image: Path) -> None:
    frame = table(POSITIONS, names=["c", "a", "b"])
    frame.index.name = "region"
    write_table(image, frame, "csv")
    zarr.open_group(image / "tables" / FOV_TABLE, mode="r+").attrs["index_key"] = "region"
    assert [t.name for t in MosaicImage.open(image).layout.tiles] == ["c", "a", "b"]


def test_order_and_names_that_differ_are_said_with_both() -> None:
    grid = [(y, x) for y in (0, 40) for x in (0, 60, 120)]
    layout, notes = layout_from_table(table(grid), PX, (80, 180))
    assert [t.name for t in layout.tiles] == ["FOV_1", "FOV_4", "FOV_2", "FOV_5", "FOV_3", "FOV_6"]
    assert layout.map_text() == "1  3  5\n2  4  6"
    assert len(notes) == 1
    assert "2 is 'FOV_4' (row 4), 3 is 'FOV_2' (row 2)" in notes[0]
    _, notes = layout_from_table(table([(0, 0), (40, 0)], names=["B", "A"]), PX, (80, 60))
    assert notes == ()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pixel_um", [0.65, 5.2619047, 1 / 3])
def test_large_mosaics_in_float32(dtype: str, pixel_um: float) -> None:
    grid = [(y * 2048, x * 2048) for x in range(12) for y in range(11)]
    frame = table(grid, (2048, 2048), dtype=dtype, pixel_um=pixel_um)
    layout, notes = layout_from_table(frame, (pixel_um, pixel_um), (11 * 2048, 12 * 2048))
    assert [(t.y, t.x) for t in layout.tiles] == grid
    assert notes == ()


def test_tiles_that_fit_are_used_where_they_are() -> None:
    layout, notes = layout_from_table(table([(40, 60), (80, 60)]), PX, (120, 180))
    assert [(t.y, t.x) for t in layout.tiles] == [(40, 60), (80, 60)]
    assert notes == ()


@pytest.mark.parametrize("offset", [1000.0, 1000.3])
def test_an_offset_is_taken_off_and_said(offset: float) -> None:
    shifted = [(y, x + offset) for y, x in POSITIONS]
    layout, notes = layout_from_table(table(shifted, dtype="float32"), PX, (80, 120))
    assert [(t.y, t.x) for t in layout.tiles] == POSITIONS
    assert len(notes) == 1
    assert "x = " in notes[0]
    assert f"{offset:.1f} pixels was subtracted" in notes[0]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (table([(0, -60), (0, 0)]), "micrometers.*negative"),
        (table([(-0.5, 0), (40, 0)]), "negative"),
        (table([(0, 0), (0.3, 60)]), "0.300 pixels.*between pixels"),
        (table([(0, 0), (40, 59.88)]), "between pixels"),
        (table([(0, 0), (40, 61)]), "reach from x = 0.0 to 121.0"),
        (table([(0, 0), (0, 59)]), "overlap"),
        (table([(0, 0), (0, 0)]), "overlap"),
        (table([(0, 0)], (40, 60.4)), "60.400 pixels long in x"),
        (table([(0, 0)], (0, 60)), "0 pixels long in y"),
        (table([(0, 0)], (81, 60)), "reach from y"),
        (table([]), "no row"),
        (table([(0, 0)]).drop(columns="len_y_micrometer"), "no column 'len_y_micrometer'"),
        (table([(0, 0), (np.nan, 60)]), "empty or NaN"),
        (table([(0, 0), (0, np.inf)]), "empty or NaN"),
        (table([(0, 0), (0, 1e300)]), "no image reaches so far"),
        (table([(0, 0), (0, -1e300)]), "no image reaches so far"),
        (table([(0, 0)], (40, 1e300)), "no image is so large"),
    ],
)
def test_tables_that_give_no_mosaic(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        layout_from_table(frame, PX, (80, 120))


def test_unequal_sizes_and_columns_without_numbers() -> None:
    frame = table(POSITIONS)
    frame.loc["FOV_2", "len_x_micrometer"] = 59 * 0.65
    with pytest.raises(
        LayoutError, match=r"'FOV_2' is 59.000 pixels long in x, expected 60 \(1 of"
    ):
        layout_from_table(frame, PX, (80, 120))
    frame = table(POSITIONS).astype(object)
    frame.loc["FOV_2", "y_micrometer"] = "high"
    with pytest.raises(LayoutError, match="no numbers"):
        layout_from_table(frame, PX, (80, 120))


def test_within_a_tenth_of_a_pixel_is_on_it() -> None:
    layout, _ = layout_from_table(table([(-0.05, 0), (0.08, 60.09)], (40, 59.95)), PX, (80, 120))
    assert [(t.y, t.x) for t in layout.tiles] == [(0, 0), (0, 60)]


def test_unequal_depths_are_said_and_not_used() -> None:
    frame = table(POSITIONS)
    frame.loc["FOV_2", "len_z_micrometer"] = 4.0
    layout, notes = layout_from_table(frame, PX, (80, 120))
    assert len(layout.tiles) == 3
    assert len(notes) == 1
    assert "len_z_micrometer" in notes[0]


def test_original_columns_are_not_needed() -> None:
    frame = table(POSITIONS).drop(columns=["x_micrometer_original", "y_micrometer_original"])
    layout, _ = layout_from_table(frame, PX, (80, 120))
    assert len(layout.tiles) == 3


def test_codec_of_the_oldest_tables(image: Path) -> None:
    """Compressed with a codec that only zarr's own pipeline knows."""
    write_table(image, table(POSITIONS), "anndata")
    group = zarr.open_group(image / "tables" / FOV_TABLE, mode="r+")
    values = group["X"][...]
    attributes = dict(group["X"].attrs)
    group.create_array(
        "X", data=values, compressors=numcodecs.LZMA(), overwrite=True, attributes=attributes
    )
    assert json.loads((image / "tables" / FOV_TABLE / "X" / ".zarray").read_text())["compressor"]
    assert len(MosaicImage.open(image).layout.tiles) == 3


@pytest.mark.parametrize("gone", ["tables", f"tables/{FOV_TABLE}"])
def test_tables_without_a_group_file(image: Path, gone: str) -> None:
    write_table(image, table(POSITIONS), "anndata")
    for name in (".zgroup", ".zattrs", "zarr.json"):
        (image / gone / name).unlink(missing_ok=True)
    found = read_table(str(image), FOV_TABLE)
    assert found is not None
    assert list(found.index) == NAMES


def test_a_table_that_is_a_link_to_nothing(image: Path) -> None:
    write_table(image, table(POSITIONS), "anndata")
    (image / "tables" / FOV_TABLE).rename(image.parent / "taken")
    (image / "tables" / FOV_TABLE).symlink_to(image / "nowhere")
    with pytest.raises(SourceReadError, match="which is not there"):
        read_table(str(image), FOV_TABLE)
