from __future__ import annotations

from itertools import product

import numcodecs
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.images import target
from fractal_mesospim_shading.images.arrays import reading
from fractal_mesospim_shading.images.arrays.documents import document_of, output_document
from fractal_mesospim_shading.images.arrays.reading import forget
from fractal_mesospim_shading.images.target import TargetImage, TargetLevel


def _source(tmp_path, version=2, dtype="uint16", **settings):
    """A document as another program wrote it."""
    group = zarr.open_group(tmp_path / "source.zarr", mode="w", zarr_format=version)
    array = group.create_array("0", shape=(4, 40, 40), chunks=(2, 16, 16), dtype=dtype, **settings)
    return document_of(array.metadata)


def _target(tmp_path, document, unit_shards=None, name="target.zarr"):
    shape, chunks = (4, 40, 40), (2, 16, 16)
    level = TargetLevel("0", shape, chunks, unit_shards, (1.0,) * 3, document)
    image = TargetImage(str(tmp_path / name), document["zarr_format"], (level,))
    image.create({"hello": "world"})
    return image


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("wanted", [2, 3])
@pytest.mark.parametrize("codec", ["default", "none", "gzip"])
def test_what_is_written_is_read_by_plain_zarr(tmp_path, version, wanted, codec):
    settings = {"none": {"compressors": None}, "default": {}}.get(codec)
    if settings is None:
        gzip = numcodecs.GZip(level=1) if version == 2 else zarr.codecs.GzipCodec(level=1)
        settings = {"compressors": gzip}
    document = output_document(
        _source(tmp_path, version, **settings),
        zarr_format=wanted,
        shape=(4, 40, 40),
        chunks=(2, 16, 16),
        shards=None,
        dimension_names=("z", "y", "x"),
    )
    image = _target(tmp_path, document)
    data = np.random.default_rng(0).integers(0, 60000, (4, 40, 40)).astype("uint16")
    box = tuple(slice(0, n) for n in data.shape)
    image.write(0, box, data)
    np.testing.assert_array_equal(image.read(0, box), data)
    group = zarr.open_group(str(tmp_path / "target.zarr"), mode="r", zarr_format=wanted)
    np.testing.assert_array_equal(group["0"][...], data)
    assert dict(group.attrs) == {"hello": "world"}
    names = {type(c).__name__.lower() for c in group["0"].compressors}
    if codec != "default":
        assert bool(names) == (codec == "gzip")
        assert all("gzip" in name for name in names)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("version", [2, 3])
def test_another_type(tmp_path, version, dtype):
    document = output_document(
        _source(tmp_path, version, compressors="auto"),
        zarr_format=version,
        shape=(4, 40, 40),
        chunks=(2, 16, 16),
        shards=None,
        dtype=np.dtype(dtype),
    )
    image = _target(tmp_path, document)
    data = np.random.default_rng(0).uniform(0, 200, (4, 40, 40)).astype(dtype)
    box = tuple(slice(0, n) for n in data.shape)
    image.write(0, box, data)
    array = zarr.open_group(str(tmp_path / "target.zarr"), mode="r")["0"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[...], data)


def test_shards_of_our_own(tmp_path):
    document = output_document(
        _source(tmp_path, 3),
        zarr_format=3,
        shape=(4, 40, 40),
        chunks=(2, 16, 16),
        shards=(4, 32, 48),
    )
    image = _target(tmp_path, document, (4, 32, 48))
    assert image.levels[0].unit == (4, 32, 48)
    data = np.random.default_rng(0).integers(0, 60000, (4, 40, 40)).astype("uint16")
    for y in ((0, 32), (32, 40)):
        box = (slice(0, 4), slice(*y), slice(0, 40))
        image.write(0, box, data[box])
    array = zarr.open_group(str(tmp_path / "target.zarr"), mode="r")["0"]
    assert (array.shards, array.chunks) == ((4, 32, 48), (2, 16, 16))
    np.testing.assert_array_equal(array[...], data)


@pytest.mark.parametrize(
    ("dtype", "fill"), [("uint16", 0), ("uint16", 7), ("float32", 0), ("float32", float("nan"))]
)
@pytest.mark.parametrize("version", [2, 3])
def test_units_of_nothing_but_the_fill_value_stay_unwritten(tmp_path, version, dtype, fill):
    document = output_document(
        _source(tmp_path, version, dtype=dtype, fill_value=fill),
        zarr_format=version,
        shape=(4, 40, 40),
        chunks=(2, 16, 16),
        shards=None,
    )
    image = _target(tmp_path, document)
    data = np.full((4, 40, 40), fill, dtype)
    # One pixel at the very end of a unit, one at the beginning of another.
    data[1, 15, 31], data[2, 32, 0] = 5, 5
    box = tuple(slice(0, n) for n in data.shape)
    image.write(0, box, data)
    encode = image.array(0).metadata.encode_chunk_key
    written = {
        index
        for index in product(range(2), range(3), range(3))
        if (tmp_path / "target.zarr" / "0" / encode(index)).exists()
    }
    assert written == {(0, 0, 1), (1, 2, 0)}
    np.testing.assert_array_equal(image.read(0, box), data)


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "target.zarr").write_text("")
    document = output_document(
        _source(tmp_path), zarr_format=2, shape=(4, 40, 40), chunks=(2, 16, 16), shards=None
    )
    with pytest.raises(OutputWriteError, match="target.zarr"):
        _target(tmp_path, document)


def test_arrays_are_opened_anew_once_forgotten(tmp_path):
    document = output_document(
        _source(tmp_path), zarr_format=2, shape=(4, 40, 40), chunks=(2, 16, 16), shards=None
    )
    image = _target(tmp_path, document)
    first = image.array(0)
    assert image.array(0) is first
    forget(image.url)
    assert image.array(0) is not first


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("torn", [b"", b"torn" * 9])
def test_what_a_killed_run_left_of_a_chunk_is_written_over(tmp_path, version, torn):
    """Also at the end of the array, where a chunk is decoded before it is written."""
    document = output_document(
        _source(tmp_path, version),
        zarr_format=version,
        shape=(4, 40, 40),
        chunks=(2, 16, 16),
        shards=None,
        dimension_names=("z", "y", "x"),
    )
    image = _target(tmp_path, document)
    for index in [(0, 0, 0), (1, 2, 2), (0, 2, 1)]:
        path = tmp_path / "target.zarr" / "0" / image.array(0).metadata.encode_chunk_key(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(torn)
    data = np.random.default_rng(0).integers(1, 60000, (4, 40, 40)).astype("uint16")
    box = tuple(slice(0, n) for n in data.shape)
    image.write(0, box, data)
    np.testing.assert_array_equal(image.read(0, box), data)


@pytest.mark.parametrize(
    ("box", "whole"),
    [
        ((slice(0, 2), slice(16, 32), slice(0, 40)), True),
        ((slice(2, 4), slice(32, 40), slice(32, 40)), True),
        ((slice(0, 1), slice(0, 16), slice(0, 16)), False),
        ((slice(0, 2), slice(8, 16), slice(0, 16)), False),
        ((slice(0, 2), slice(0, 16), slice(16, 39)), False),
    ],
)
@pytest.mark.parametrize("codec", ["blosc", "gzip"])
def test_parts_of_write_units_are_refused(tmp_path, box, whole, codec):
    """Two writers of one unit would each take the other's pixels for their own."""
    compressor = {"blosc": numcodecs.Blosc(), "gzip": numcodecs.GZip(1)}[codec]
    image = _target(tmp_path, _source(tmp_path, compressors=compressor))
    data = np.ones([part.stop - part.start for part in box], "uint16")
    if whole:
        image.write(0, box, data)
        np.testing.assert_array_equal(image.read(0, box), data)
        return
    with pytest.raises(RuntimeError, match="not of whole write units of .2, 16, 16.; please"):
        image.write(0, box, data)
    assert not image.read(0, tuple(slice(0, n) for n in (4, 40, 40))).any()


def test_the_unit_of_a_sharded_array_is_the_shard(tmp_path):
    document = output_document(
        _source(tmp_path, 3),
        zarr_format=3,
        shape=(4, 40, 40),
        chunks=(2, 16, 16),
        shards=(4, 32, 32),
    )
    image = _target(tmp_path, document, (4, 32, 32))
    chunk = (slice(0, 2), slice(0, 16), slice(0, 16))
    with pytest.raises(RuntimeError, match="not of whole write units of .4, 32, 32."):
        image.write(0, chunk, np.ones((2, 16, 16), "uint16"))


def test_only_writing_passes_by_the_page_cache(tmp_path, monkeypatch):
    """A file system that refuses must not keep a continued run from reading back."""
    opened = []
    real = reading.open_array

    def noted(*arguments, direct=False, **more):
        opened.append(direct)
        return real(*arguments, direct=direct, **more)

    monkeypatch.setattr(reading, "open_array", noted)
    monkeypatch.setattr(target, "past_cache", lambda size: True)
    document = output_document(
        _source(tmp_path, compressors=numcodecs.GZip(1)),
        zarr_format=2,
        shape=(4, 40, 40),
        chunks=(2, 16, 16),
        shards=None,
    )
    image = _target(tmp_path, document)
    data = np.ones((4, 40, 40), "uint16")
    box = tuple(slice(0, n) for n in data.shape)
    image.write(0, box, data)
    assert opened == [True]
    opened.clear()
    forget(image.url)
    np.testing.assert_array_equal(image.read(0, box), data)
    assert opened == [False]
