"""Label images as masks."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import ImageFormatError, ParameterError
from fractal_mesospim_shading.images.labels import LabelImage
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.synthetic_images import write_image

SIZES = {"t": 2, "c": 3, "z": 4, "y": 12, "x": 10}


def _image(path, axes, label_axes, version="0.4", **changes):
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


@pytest.mark.parametrize("changes", [{"z": 3}, {"y": 6}, {"z": 1}, {"c": 2}])
def test_another_shape_is_refused(changes, tmp_path):
    image, _ = _image(tmp_path / "a.zarr", "czyx", "czyx", **{"c": 1, **changes})
    with pytest.raises(ImageFormatError, match="'cells' has the shape .* but the image has"):
        LabelImage.open(image, "cells")


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
