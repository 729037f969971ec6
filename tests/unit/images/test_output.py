from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.images.output import output_url, pixel_bytes, split_name
from fractal_mesospim_shading.images.target import TargetLevel, own_shards


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.zarr", ("a", ".zarr")),
        ("a.ome.zarr", ("a", ".ome.zarr")),
        ("a.zarr.zip", ("a", ".zarr")),
        ("a.ome.zarr.zip", ("a", ".ome.zarr")),
        ("0", ("0", "")),
        ("a.b", ("a.b", "")),
        (".zarr", (".zarr", "")),
    ],
)
def test_endings(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize(
    ("source", "template", "folder", "expected"),
    [
        ("/d/a.zarr", "{image_name}_x", None, "/d/a_x.zarr"),
        ("/d/a.zarr", "{image_name}_x", "/e", "/e/a_x.zarr"),
        ("s3://b/a.zarr", "{image_name}_x", None, "s3://b/a_x.zarr"),
        ("s3://b/a.zarr", "{image_name}", "/e", "/e/a.zarr"),
        ("/d/a.zarr", "{image_name}_x", "s3://b/c/", "s3://b/c/a_x.zarr"),
        ("/p/B/03/0", "{image_name}_x", None, "/p/B/03/0_x"),
    ],
)
def test_addresses(source, template, folder, expected):
    assert output_url(source, template, folder) == expected


def test_a_remote_source_is_not_written_onto():
    with pytest.raises(ParameterError, match="own source"):
        output_url("s3://b/a.zarr", "a", None)
    with pytest.raises(ParameterError, match="within its own source"):
        output_url("s3://b/a.zarr", "x", "s3://b/a.zarr/sub")


@pytest.mark.parametrize(
    ("chunks", "shape", "expected"),
    [
        ((1, 64, 1024, 1024), (2, 660, 8192, 8192), (1, 64, 1024, 1024)),
        ((1, 64, 512, 512), (2, 660, 8192, 8192), (1, 64, 1024, 1024)),
        ((1, 32, 256, 256), (1, 32, 256, 256), (1, 32, 256, 256)),
        ((1, 1, 16, 16), (1, 3, 64, 64), (1, 4, 64, 64)),
        ((100, 100), (1000, 150), (1600, 200)),
    ],
)
def test_own_shards(chunks, shape, expected):
    got = own_shards(chunks, shape, 2)
    assert got == expected
    assert all(s % c == 0 for s, c in zip(got, chunks, strict=True))
    assert np.prod(got) * 2 <= max(128 * 2**20, np.prod(chunks) * 2)


def test_size_in_bytes():
    document = {"zarr_format": 2, "dtype": "<u2", "fill_value": 0}
    levels = [
        TargetLevel(str(n), shape, shape, None, (1.0,) * 3, document)
        for n, shape in enumerate([(2, 10, 10), (2, 5, 5)])
    ]
    assert pixel_bytes(levels) == 2 * (200 + 50)
