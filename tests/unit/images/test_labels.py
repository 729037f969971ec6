"""Label images as masks."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import ImageFormatError, ParameterError
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.synthetic.images import write_image

SIZES = {"t": 2, "c": 3, "z": 4, "y": 12, "x": 10}


def _image(path, axes, label_axes, version="0.4", pixel_um=(5.0, 1.3, 1.3), **changes):
    shape = tuple(SIZES[axis] for axis in axes)
    write_image(path, np.ones(shape, "uint16"), axes=axes, ngff_version=version, factors=())
    group = zarr.open_group(str(path), mode="r+")
    group.create_group("labels").attrs["labels"] = ["cells"]
    sizes = {**SIZES, **changes}
    cells = np.random.default_rng(0).integers(0, 3, [sizes[axis] for axis in label_axes])
    write_image(
        path / "labels" / "cells",
        cells.astype("uint32"),
        axes=label_axes,
        ngff_version=version,
        factors=(),
        pixel_size_um=pixel_um,
    )
    return MosaicImage.open(path), cells


def _box(axes, **where):
    return tuple(where.get(axis, slice(0, SIZES[axis])) for axis in axes)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_part_of_a_stack(version, tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "czyx", "zyx", version)
    label = LabelImage.open(image, "cells")
    box = _box("czyx", c=slice(2, 3), z=slice(1, 3), x=slice(4, 9))
    found = label.read(box)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, cells[1:3, :, 4:9] > 0)


def test_a_plane_stands_for_all_planes(tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "tczyx", "yx")
    box = _box("tczyx", t=slice(1, 2), c=slice(0, 1), z=slice(1, 4))
    found = LabelImage.open(image, "cells").read(box)
    assert found.shape == (3, 12, 10)
    assert all(np.array_equal(plane, cells > 0) for plane in found)


def test_a_time_point_has_its_own(tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "tyx", "tyx")
    found = LabelImage.open(image, "cells").read(_box("tyx", t=slice(1, 2)))
    np.testing.assert_array_equal(found, cells[1:] > 0)


@pytest.mark.parametrize(("length", "index"), [(1, 0), (3, 2)])
def test_channels_share_one_or_have_their_own(length, index, tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "czyx", "czyx", c=length)
    found = LabelImage.open(image, "cells").read(_box("czyx", c=slice(2, 3)))
    np.testing.assert_array_equal(found, cells[index] > 0)


@pytest.mark.parametrize("changes", [{"z": 3}, {"y": 6}, {"c": 2}])
def test_another_shape_is_refused(changes, tmp_path):
    image, _ = _image(tmp_path / "a.zarr", "czyx", "czyx", **{"c": 1, **changes})
    with pytest.raises(ImageFormatError, match="'cells' has the shape .* but the image has"):
        LabelImage.open(image, "cells")


def _enlarged(cells, factors, shape):
    """Each pixel takes the one that its centre lies in; the last is held."""
    result = np.zeros(shape, bool)
    for at in np.ndindex(*shape):
        own = [int((i + 0.5) / f) for i, f in zip(at, factors, strict=True)]
        result[at] = cells[tuple(min(i, n - 1) for i, n in zip(own, cells.shape, strict=True))] > 0
    return result


@pytest.mark.parametrize(
    ("factors", "sizes"),
    [
        ((1, 2, 2), {"y": 6, "x": 5}),
        ((1, 5, 4), {"y": 2, "x": 2}),
        ((1, 5, 4), {"y": 3, "x": 3}),
        ((2, 4, 4), {"z": 2, "y": 3, "x": 2}),
        ((1, 1, 2), {"x": 5}),
        ((1, 1.5, 1.25), {"y": 8, "x": 8}),
    ],
)
def test_a_coarser_label_image_counts_by_its_own_scale(factors, sizes, tmp_path):
    pixel = tuple(f * s for f, s in zip(factors, (5.0, 1.3, 1.3), strict=True))
    image, cells = _image(tmp_path / "a.zarr", "czyx", "zyx", pixel_um=pixel, **sizes)
    label = LabelImage.open(image, "cells")
    whole = _enlarged(cells, factors, (4, 12, 10))
    for where in ({}, {"y": slice(1, 2), "x": slice(9, 10)}, {"z": slice(1, 4), "y": slice(3, 8)}):
        found = label.read(_box("czyx", c=slice(1, 2), **where))
        part = tuple(where.get(axis, slice(None)) for axis in "zyx")
        np.testing.assert_array_equal(found, whole[part])
    [remark] = label.remarks
    assert "'cells' is coarser than the image, by " in remark
    assert f"{factors[2]:g} along x" in remark


def test_a_rounded_scale_is_a_whole_one(tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "zyx", "zyx", pixel_um=(5.0, 2.6, 2.599), y=6, x=5)
    label = LabelImage.open(image, "cells")
    assert label.factors == (1, 2, 2)
    wanted = np.repeat(np.repeat(cells > 0, 2, axis=1), 2, axis=2)
    np.testing.assert_array_equal(label.read(_box("zyx")), wanted)


@pytest.mark.parametrize("axes", ["tczyx", "tzyx"])
def test_a_length_of_1_masks_all_alike(axes, tmp_path):
    image, cells = _image(tmp_path / "a.zarr", axes, "tzyx", t=1, z=1, pixel_um=(20.0, 1.3, 1.3))
    label = LabelImage.open(image, "cells")
    alone = {"t": slice(1, 2)} | ({"c": slice(0, 1)} if "c" in axes else {})
    found = label.read(_box(axes, **alone, z=slice(1, 4)))
    np.testing.assert_array_equal(found, np.broadcast_to(cells[0] > 0, (3, 12, 10)))
    assert "has a length of 1 along t, z: it masks all alike" in label.remarks[0]


def test_a_label_image_of_the_size_of_the_image_needs_no_remark(tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "czyx", "czyx", c=1, pixel_um=(5.0, 2.6, 2.6))
    label = LabelImage.open(image, "cells")
    assert label.remarks == []
    np.testing.assert_array_equal(label.read(_box("czyx", c=slice(1, 2))), cells[0] > 0)


@pytest.mark.parametrize("sizes", [{"y": 5, "x": 5}, {"y": 6, "x": 10}, {"y": 24, "x": 20}])
def test_a_scale_that_does_not_explain_the_size_is_refused(sizes, tmp_path):
    pixel = (5.0, 1.3 * 4, 1.3 * 2) if sizes["y"] < 20 else (5.0, 0.65, 0.65)
    image, _ = _image(tmp_path / "a.zarr", "czyx", "zyx", pixel_um=pixel, **sizes)
    with pytest.raises(ImageFormatError, match="smaller ones by the ratio of the pixels") as caught:
        LabelImage.open(image, "cells")
    assert f"pixels of 5 x {pixel[1]:g} x {pixel[2]:g} um" in str(caught.value)


def test_a_label_image_with_a_pyramid_counts_by_its_finest_level(tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "zyx", "zyx")
    write_image(tmp_path / "a.zarr" / "labels" / "deep", cells.astype("uint32"), axes="zyx")
    found = LabelImage.open(image, "deep").read(_box("zyx"))
    np.testing.assert_array_equal(found, cells > 0)


def test_labels_below_1_are_none(tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "zyx", "zyx")
    write_image(
        tmp_path / "a.zarr" / "labels" / "signed",
        np.where(cells > 1, 7, -1).astype("int32"),
        axes="zyx",
        factors=(),
    )
    found = LabelImage.open(image, "signed").read(_box("zyx"))
    np.testing.assert_array_equal(found, cells > 1)


def test_an_image_without_labels(tmp_path):
    write_image(tmp_path / "a.zarr", np.ones((12, 10), "uint16"), axes="yx", factors=())
    image = MosaicImage.open(tmp_path / "a.zarr")
    with pytest.raises(ParameterError, match="no label image 'cells'.*it has none"):
        LabelImage.open(image, "cells")


def test_a_label_image_that_is_none(tmp_path):
    image, _ = _image(tmp_path / "a.zarr", "czyx", "zyx")
    zarr.open_group(str(tmp_path / "a.zarr" / "labels"), mode="r+").create_group("empty")
    with pytest.raises(ImageFormatError):
        LabelImage.open(image, "empty")
    with pytest.raises(ParameterError, match="it has cells, empty"):
        LabelImage.open(image, "../tables")


@pytest.mark.parametrize("gone", ["labels", "labels/cells"])
def test_labels_without_a_group_file(gone, tmp_path):
    image, cells = _image(tmp_path / "a.zarr", "zyx", "zyx")
    if gone == "labels":
        for name in (".zgroup", ".zattrs"):
            (tmp_path / "a.zarr" / gone / name).unlink()
        found = LabelImage.open(image, "cells").read(_box("zyx"))
        np.testing.assert_array_equal(found, cells > 0)
    with pytest.raises(ParameterError, match="it has cells"):
        LabelImage.open(image, "absent")


@pytest.mark.parametrize("name", ["../labels/cells", "/cells", "", "a\\b", ".."])
def test_names_of_labels_that_lead_elsewhere(name, tmp_path):
    image, _ = _image(tmp_path / "a.zarr", "zyx", "zyx")
    with pytest.raises(ParameterError, match="There is no label image"):
        LabelImage.open(image, name)
