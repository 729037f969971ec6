"""A pipe in the place of a file is an error at once, wherever it lies and whoever reads it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import ImageFormatError, ShadingError, SourceReadError
from fractal_mesospim_shading.images.arrays.codecs import uses_rust
from fractal_mesospim_shading.images.arrays.reading import open_array, read_array
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.storage.local_files import refuse_special
from fractal_mesospim_shading.images.storage.places import filesystem
from fractal_mesospim_shading.images.storage.stores import LocalStore, open_store
from fractal_mesospim_shading.images.tables import read_table


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "name"),
    [
        ({}, ".zattrs"),
        ({}, ".zgroup"),
        ({}, "0/.zarray"),
        ({}, "1/.zarray"),
        ({"ngff_version": "0.5"}, "zarr.json"),
        ({"ngff_version": "0.5"}, "0/zarr.json"),
    ],
)
def test_metadata(make_mosaic, style, name):
    source = make_mosaic(**style)
    _pipe(source / name)
    with pytest.raises(ShadingError, match=f"{name}' is no regular file"):
        MosaicImage.open(str(source))


@pytest.mark.parametrize("codec", ["blosc", "gzip"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_chunks_by_every_way_of_reading(make_mosaic, codec, byte_order):
    source = make_mosaic(codec=codec, byte_order=byte_order)
    _pipe(source / "0" / "0" / "0" / "0" / "0")
    array = open_array(str(source), "0")
    with pytest.raises(SourceReadError, match="0/0/0/0"):
        read_array(array, "where", tuple(slice(0, n) for n in array.shape))


def test_tables_of_files(make_mosaic):
    source = make_mosaic()
    table = zarr.open_group(source, mode="r+").require_group("tables").require_group("regions")
    table.attrs["backend"] = "csv"
    _pipe(source / "tables" / "regions" / "table.csv")
    with pytest.raises(ImageFormatError, match="no regular file"):
        read_table(str(source), "regions")


def test_plain_files_and_what_is_no_pipe(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("gone")
    for name in ("file", "link", "nowhere", "not there", ""):
        refuse_special(tmp_path / name)
    fs, path = filesystem(str(tmp_path))
    assert fs.cat_file(f"{path}/link") == b"x"
    _pipe(tmp_path / "pipe")
    with pytest.raises(SourceReadError, match="pipe"):
        fs.cat_file(f"{path}/pipe")
    with pytest.raises(SourceReadError, match="device"):
        refuse_special("/dev/null")


def test_the_fast_pipeline_knows_the_store(make_mosaic):
    store, _ = open_store(str(make_mosaic(codec="gzip")))
    assert type(store) is LocalStore
    array = open_array(str(make_mosaic("b.zarr", codec="gzip")), "0")
    assert uses_rust(array)
    assert np.asarray(array[...]).any()
