"""Opening and reading mosaics of every kind, and refusing what is none."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import ImageFormatError, ParameterError, SourceReadError
from fractal_mesospim_shading.images.arrays.codecs import uses_rust
from fractal_mesospim_shading.images.mosaic import MosaicImage, unusual_forms
from fractal_mesospim_shading.images.source import Channel, MultitileImage

Write = Callable[..., Path]


def pixels(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    values = np.random.default_rng(sum(shape)).integers(1, 250, shape)
    return values.astype(dtype)


def whole(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in shape)


def read_in_a_worker(image: MosaicImage, box: tuple[slice, ...]) -> tuple[np.ndarray, bool]:
    return image.read(0, box), uses_rust(image.array(0))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["czyx", "zyx", "yx", "tczyx", "tyx"])
def test_axes_and_versions(write_image: Write, version: str, axes: str) -> None:
    shape = tuple({"t": 2, "c": 2, "z": 3, "y": 20, "x": 26}[axis] for axis in axes)
    fine = pixels(shape)
    coarse = fine[..., ::2, ::2].copy()
    path = write_image(
        fine, coarse, version=version, axes=axes, chunks=[1] * (len(axes) - 2) + [7, 9]
    )
    image: MultitileImage = MosaicImage.open(path)
    assert image.axes == axes
    assert image.url == str(path)
    assert [level.shape for level in image.levels] == [fine.shape, coarse.shape]
    assert image.levels[1].scale[-2:] == (1.3, 1.3)
    assert image.levels[0].chunks[-2:] == (7, 9) == tuple(image.read_units(0))[-2:]
    assert len(image.channels) == (2 if "c" in axes else 1)
    np.testing.assert_array_equal(image.read(0, whole(shape)), fine)
    box = (*whole(shape)[:-2], slice(3, 17), slice(8, 25))
    np.testing.assert_array_equal(image.read(0, box), fine[box])
    np.testing.assert_array_equal(image.read(1, whole(coarse.shape)), coarse)


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<f4", ">f4"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_types_come_out_in_native_order(write_image: Write, dtype: str, version: str) -> None:
    values = pixels((1, 2, 8, 12), dtype)
    settings: dict[str, Any] = {}
    if version == "0.5" and dtype != "|u1":
        endian = "big" if dtype[0] == ">" else "little"
        settings["serializer"] = zarr.codecs.BytesCodec(endian=endian)
        values = values.astype(values.dtype.newbyteorder("="))
    image = MosaicImage.open(write_image(values, version=version, **settings))
    read = image.read(0, whole(values.shape))
    assert image.dtype.isnative
    assert read.dtype.isnative
    assert read.dtype == image.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float64", "bool", "int8", "complex64"])
def test_other_types_are_refused(write_image: Write, dtype: str) -> None:
    path = write_image(np.zeros((1, 1, 4, 4), dtype))
    with pytest.raises(ImageFormatError, match=f"type {dtype}; expected uint8, uint16, float32"):
        MosaicImage.open(path)


@pytest.mark.parametrize("settings", [{"order": "F"}, {"compressors": numcodecs.LZMA()}])
def test_what_rust_lacks_is_read_in_silence(write_image: Write, settings: dict[str, Any]) -> None:
    values = pixels((2, 2, 9, 12))
    path = write_image(values, chunks=(1, 1, 4, 12), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = MosaicImage.open(path)
        read = image.read(0, whole(values.shape))
    assert not uses_rust(image.array(0))
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, values)


def test_sharded(write_image: Write) -> None:
    values = pixels((1, 4, 33, 40))
    path = write_image(values, version="0.5", chunks=(1, 2, 8, 8), shards=(1, 4, 16, 32))
    image = MosaicImage.open(path)
    assert image.levels[0].shards == (1, 4, 16, 32)
    assert image.read_units(0) == (1, 2, 8, 8)
    np.testing.assert_array_equal(image.read(0, whole(values.shape)), values)


@pytest.mark.parametrize("fill", [0, 7])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_chunk_that_is_not_there_holds_the_fill_value(
    write_image: Write, fill: int, version: str
) -> None:
    values = pixels((1, 1, 8, 12))
    path = write_image(values, version=version, chunks=(1, 1, 4, 12), fill_value=fill)
    (path / "0" / ("0.0.1.0" if version == "0.4" else "c/0/0/1/0")).unlink()
    values[:, :, 4:] = fill
    np.testing.assert_array_equal(MosaicImage.open(path).read(0, whole(values.shape)), values)


def test_channels_and_notes_and_pickling(write_image: Write) -> None:
    path = write_image(pixels((2, 1, 8, 8)), labels=["DAPI", "GFP"])
    image = MosaicImage.open(path)
    assert image.channels == (Channel(0, "DAPI"), Channel(1, "GFP"))
    assert image.voxel_size_um == {"z": 2.0, "y": 0.65, "x": 0.65}
    assert image.notes == ()
    image.read(0, whole((2, 1, 8, 8)))
    again = pickle.loads(pickle.dumps(image))
    assert again == image
    assert hash(again) == hash(image)
    assert pickle.dumps(MosaicImage.open(path)) == pickle.dumps(MosaicImage.open(path))
    with pytest.raises(AttributeError):
        image.url = "other"  # type: ignore[misc]


def test_regions_of_an_import_are_not_taken_for_tiles_in_silence(write_image: Write) -> None:
    """They may be the fields of view, or a grid that was laid over the image for other ends."""
    path = write_image(pixels((1, 1, 8, 8)))
    zarr.open_group(path, mode="r+").create_group("tables/grid_ROI_table")
    image = MosaicImage.open(path)
    assert len(image.layout.tiles) == 1
    assert any("set `input_roi_table=grid_ROI_table`" in note for note in image.notes)


def test_storage_options_are_plain_and_not_shown(write_image: Write) -> None:
    path = write_image(pixels((1, 1, 8, 8)))
    image = MosaicImage.open(path, {"secret": "hunter2"})
    assert "hunter2" not in repr(image)
    with pytest.raises(ParameterError, match="no plain value"):
        MosaicImage.open(path, {"session": object()})


@pytest.mark.slow
def test_the_real_image_in_another_process(two_fovs: Path) -> None:
    image = MosaicImage.open(two_fovs)
    assert image.channels == (Channel(0, "DAPI", "A01_C01"),)
    assert image.levels[0].shape == (1, 2, 540, 1280)
    box = (slice(0, 1), slice(1, 2), slice(100, 300), slice(600, 700))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        read, rust = pool.submit(read_in_a_worker, image, box).result()
    assert rust
    expected = zarr.open_array(two_fovs / "0", mode="r")[box]
    np.testing.assert_array_equal(read, expected)
    assert expected.std() > 1


def test_a_replaced_image_is_noticed(write_image: Write) -> None:
    first = MosaicImage.open(write_image(pixels((1, 1, 8, 8))))
    values = pixels((1, 1, 8, 8), "uint8")
    second = MosaicImage.open(write_image(values))
    np.testing.assert_array_equal(second.read(0, whole(values.shape)), values)
    with pytest.raises(ImageFormatError, match="replaced"):
        first.read(0, whole(values.shape))


CODECS = {
    "blosc": {"compressors": numcodecs.Blosc("zstd")},
    "gzip": {"compressors": numcodecs.GZip(1)},
    "zstd": {"compressors": numcodecs.Zstd(1)},
    "none": {"compressors": None},
    "lzma": {"compressors": numcodecs.LZMA()},
    "zlib, big-endian": {"compressors": numcodecs.Zlib(1), "dtype": ">u2"},
    "blosc, F": {"order": "F"},
}


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("damage", ["cut off", "emptied", "overwritten"])
def test_a_damaged_chunk_is_named(write_image: Write, codec: str, damage: str) -> None:
    settings = dict(CODECS[codec])
    values = pixels((1, 3, 8, 12), settings.pop("dtype", "<u2"))
    path = write_image(values, chunks=(1, 1, 4, 6), **settings)
    if damage == "overwritten" and codec == "none":
        pytest.skip("pixels without a codec cannot tell")
    chunk = path / "0" / "0.1.1.0"
    content = chunk.read_bytes()
    chunk.write_bytes(
        {"cut off": content[:-9], "emptied": b"", "overwritten": b"\x07" * len(content)}[damage]
    )
    image = MosaicImage.open(path)
    with pytest.raises(SourceReadError, match=r"image\.zarr/0/0\.1\.1\.0' cannot be read"):
        image.read(0, whole(values.shape))
    good = (slice(0, 1), slice(1, 2), slice(0, 4), slice(0, 12))
    np.testing.assert_array_equal(image.read(0, good), values[good])


@pytest.mark.parametrize("codec", ["blosc", "zstd", "gzip"])
def test_a_damaged_shard_is_named(write_image: Write, codec: str) -> None:
    compressor = {
        "blosc": zarr.codecs.BloscCodec(),
        "zstd": zarr.codecs.ZstdCodec(checksum=True),
        "gzip": zarr.codecs.GzipCodec(),
    }[codec]
    values = pixels((1, 4, 16, 32))
    path = write_image(
        values, version="0.5", chunks=(1, 2, 8, 8), shards=(1, 4, 16, 16), compressors=compressor
    )
    shard = path / "0" / "c" / "0" / "0" / "0" / "1"
    content = bytearray(shard.read_bytes())
    content[:16] = b"\xff" * 16
    shard.write_bytes(content)
    with pytest.raises(SourceReadError, match=r"/0/c/0/0/0/1' cannot be read"):
        MosaicImage.open(path).read(0, whole(values.shape))
    shard.write_bytes(content[:-30])
    with pytest.raises(SourceReadError, match=r"/0/c/0/0/0/1' cannot be read"):
        MosaicImage.open(path).read(0, whole(values.shape))


def test_a_missing_level(write_image: Write) -> None:
    values = pixels((1, 1, 8, 8))
    path = write_image(values, values[..., ::2, ::2].copy())
    (path / "1" / ".zarray").unlink()
    with pytest.raises(ImageFormatError, match=r"image\.zarr/1' is missing"):
        MosaicImage.open(path)


def test_levels_that_do_not_fit(write_image: Write) -> None:
    with pytest.raises(ImageFormatError, match="differ in type"):
        MosaicImage.open(write_image(pixels((1, 1, 8, 8)), pixels((1, 1, 4, 4), "uint8")))
    with pytest.raises(ImageFormatError, match="has 3 axes, but the metadata name 4"):
        MosaicImage.open(write_image(pixels((1, 8, 8))))
    with pytest.raises(ImageFormatError, match="is empty"):
        MosaicImage.open(write_image(np.zeros((1, 0, 8, 8), np.uint8), chunks=(1, 1, 8, 8)))
    with pytest.raises(ImageFormatError, match="no channel"):
        MosaicImage.open(write_image(np.zeros((0, 1, 8, 8), np.uint8), chunks=(1, 1, 8, 8)))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("mark", "finished"),
    [
        (None, True),
        ({"complete": True}, True),
        ({"complete": False}, False),
        ({"version": "0.1"}, False),
    ],
)
def test_unfinished_images(
    write_image: Write, version: str, mark: dict[str, Any] | None, finished: bool
) -> None:
    attributes = {} if mark is None else {"mesospim_shading": mark}
    path = write_image(pixels((1, 1, 8, 8)), version=version, attributes=attributes)
    assert MosaicImage.open(path, allow_unfinished=True).finished == finished
    if finished:
        assert MosaicImage.open(path).finished
    else:
        with pytest.raises(ImageFormatError, match="unfinished"):
            MosaicImage.open(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_plates_wells_and_containers_name_their_images(
    write_image: Write, tmp_path: Path, version: str
) -> None:
    zarr_format = 2 if version == "0.4" else 3

    def group(path: str, content: dict[str, Any]) -> None:
        entry = zarr.open_group(tmp_path / path, mode="a", zarr_format=zarr_format)
        entry.attrs.put(content if version == "0.4" else {"ome": content} if content else {})

    group("plate.zarr", {"plate": {"wells": [{"path": "A/01"}, {"path": "B/02"}]}})
    for well in ("A/01", "B/02"):
        group(f"plate.zarr/{well}", {"well": {"images": [{"path": "0"}]}})
    with pytest.raises(ImageFormatError, match=r"an HCS plate.*plate\.zarr/A/01/0', .*B/02/0'"):
        MosaicImage.open(tmp_path / "plate.zarr")
    with pytest.raises(ImageFormatError, match=r"a well of an HCS plate.*A/01/0'"):
        MosaicImage.open(tmp_path / "plate.zarr" / "A" / "01")
    group("box.zarr", {})
    for name in ("raw_image", "second"):
        write_image(pixels((1, 1, 4, 4)), name=f"box.zarr/{name}", version=version)
    with pytest.raises(ImageFormatError, match=r"container.*box\.zarr/raw_image', .*second'"):
        MosaicImage.open(tmp_path / "box.zarr")
    group("empty.zarr", {})
    with pytest.raises(ImageFormatError, match="not an OME-Zarr image"):
        MosaicImage.open(tmp_path / "empty.zarr")


def test_lines_about_unusual_forms() -> None:
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space"} for a in "zyx")]
    plain = {"multiscales": [{"axes": axes}]}
    assert unusual_forms(plain, 2) == ()
    odd = {"multiscales": [{"axes": [{"name": "c"}, *axes[1:]]}], "omero": ["x"]}
    first, second = unusual_forms(odd, 2)
    assert "The axes c of the source have no type" in first
    assert "'omero' is a list" in second
    windows = {"channels": [{"window": "x"}, {"window": None}, {}, {"window": {"start": 1}}]}
    (line,) = unusual_forms({**plain, "omero": windows}, 2)
    assert "channels 0 are no objects" in line
