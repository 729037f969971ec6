"""Background correction of images: the same numbers as the array functions, however it is cut."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import cli, correct_background, errors
from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.apply import Application
from fractal_mesospim_shading.core.background.arrays import correct_array, estimate_array
from fractal_mesospim_shading.core.background.masks import dilate_mask
from fractal_mesospim_shading.core.background.noise import estimate_noise_sigma, noise_bias
from fractal_mesospim_shading.images import target
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs import background, background_parts
from fractal_mesospim_shading.jobs.work import image_list_update
from fractal_mesospim_shading.synthetic.images import write_image

TILE = (48, 40)
LABELS = ("488 nm", "561 nm")

METHODS: dict[str, tuple[dict[str, Any], Any]] = {
    "tile_median": (
        {"method": "tile_median", "tile_size": 16},
        make_method("tile_median", tile_size=16),
    ),
    "pyama": (
        {"method": "tile_median", "tile_size": 16, "compatibility": "pyama"},
        make_method("tile_median", tile_size=16, compatibility="pyama"),
    ),
    "median": ({"method": "median", "radius": 9}, make_method("median", radius_px=9)),
    "exact median": (
        {"method": "median", "radius": 4, "exact": True},
        make_method("median", radius_px=4, exact=True),
    ),
    "opening": (
        {"method": "opening", "radius": 4, "smoothing_sigma": 1},
        make_method("opening", radius_px=4, smoothing_sigma_px=1),
    ),
    "rolling_ball": (
        {"method": "rolling_ball", "radius": 11},
        make_method("rolling_ball", radius_px=11),
    ),
    "sliding_paraboloid": (
        {"method": "sliding_paraboloid", "radius": 8},
        make_method("sliding_paraboloid", radius_px=8),
    ),
    "gaussian": ({"method": "gaussian", "radius": 5}, make_method("gaussian", radius_px=5.0)),
    "difference_of_filters": (
        {"method": "difference_of_filters", "small_radius": 2, "big_radius": 6},
        make_method("difference_of_filters", small_radius_px=2, big_radius_px=6),
    ),
    "constant": ({"method": "constant"}, make_method("constant")),
}
each_method = pytest.mark.parametrize("name", METHODS)


MARGIN = np.s_[..., 48:, 76:]
"""Four columns of the last tile that hold no data."""


def scene(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    """A slope with noise and bright squares, zeros among them, and a tile with a margin."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape[-2:])
    image = 300 + 1.5 * x + y + rng.normal(0, 9, shape)
    for _ in range(6):
        top, left = rng.integers(0, 60, 2)
        image[..., top : top + 5, left : left + 5] += 700
    image[..., 30:36, 4:30] = 0
    image[MARGIN] = 0
    if dtype == "uint8":
        return np.clip(image / 8, 0, 255).astype(dtype)
    return image.astype(dtype) if dtype == "float32" else np.rint(image).astype(dtype)


def tiles_of(shape: tuple[int, ...], tile: tuple[int, int] | None) -> list[tuple[Any, ...]]:
    height, width = tile or shape[-2:]
    return [
        (..., slice(y, y + height), slice(x, x + width))
        for y in range(0, shape[-2], height)
        for x in range(0, shape[-1], width)
    ]


def expected(array, method, tile=TILE, *, mask=None, application=None, dtype="float32"):
    """The array function on each tile by itself."""
    result = np.empty(array.shape, dtype)
    for part in tiles_of(array.shape, tile):
        own = None if mask is None else np.broadcast_to(mask, array.shape)[part]
        result[part] = correct_array(
            array[part],
            method,
            mask=own,
            application=application,
            dtype=dtype,
        ).image
    return result


def pixels_of(url: str) -> np.ndarray:
    return np.asarray(MosaicImage.open(url).array(0)[...])


def write(path: Path, array: np.ndarray, tile=TILE, **style: Any) -> Path:
    style.setdefault("axes", "czyx")
    style.setdefault("chunks", (2, 16, 32))
    channels = LABELS[: array.shape[style["axes"].index("c")]] if "c" in style["axes"] else None
    write_image(path, array, channels=channels, tile_shape=tile, **style)
    return path


def write_label(image: Path, array: np.ndarray, axes: str, name: str = "cells") -> None:
    labels = zarr.open_group(str(image / "labels"), mode="a", zarr_format=2)
    labels.attrs["labels"] = [name]
    write_image(image / "labels" / name, array, axes=axes, chunks=(2, 20, 20))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of one chunk each, which cut tiles."""
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    monkeypatch.setattr(background_parts, "_MOST_BLOCK_BYTES", 1)


# --- The numbers --------------------------------------------------------------------------------


@pytest.mark.slow
@each_method
def test_mosaic_equals_the_array_function_tile_by_tile(name, tmp_path):
    array = scene((2, 3, 96, 80))
    options, method = METHODS[name]
    source = write(tmp_path / "a.zarr", array)
    result = correct_background(source, method=options)
    assert result.image_url == str(tmp_path / "a_background_corr.zarr")
    found = pixels_of(result.image_url)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected(array, method))
    assert not found[MARGIN].any()
    assert found[..., 30:36, 4:30].any()


@pytest.mark.slow
@each_method
@pytest.mark.parametrize("chunks", [(2, 16, 32), (1, 25, 33)])
@pytest.mark.parametrize("tile", [TILE, None], ids=["mosaic", "fused"])
def test_blocks_that_cut_tiles_and_planes(name, chunks, tile, tmp_path, small_blocks):
    array = scene((1, 2, 96, 80))
    options, method = METHODS[name]
    source = write(tmp_path / "a.zarr", array, tile, chunks=chunks)
    result = correct_background(source, method=options)
    np.testing.assert_array_equal(pixels_of(result.image_url), expected(array, method, tile))


DEEP = {
    "opening": (
        {"method": "opening", "radius": 3, "smoothing_sigma": 1, "radius_z_planes": 1},
        make_method("opening", radius_px=3, smoothing_sigma_px=1, radius_z_px=1),
    ),
    "median": (
        {"method": "median", "radius": 3, "exact": True, "radius_z_planes": 1},
        make_method("median", radius_px=3, exact=True, radius_z_px=1),
    ),
    "gaussian": (
        {"method": "gaussian", "radius": 3, "radius_z_planes": 2},
        make_method("gaussian", radius_px=3.0, radius_z_px=2),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", DEEP)
def test_neighbourhoods_in_three_dimensions(name, masked, tmp_path, small_blocks):
    array = scene((1, 9, 96, 80))
    # Wider than any neighbourhood, in all directions.
    cells = np.zeros((9, 96, 80), "uint16")
    cells[2:8, 50:90, 5:30] = 3
    options, method = DEEP[name]
    source = write(tmp_path / "a.zarr", array)
    mask = {"kind": "none"}
    if masked:
        write_label(source, cells, "zyx")
        mask = {"kind": "label", "label_name": "cells"}
    result = correct_background(source, method=options, mask=mask)
    wanted = expected(array, method, mask=cells[None] if masked else None)
    np.testing.assert_array_equal(pixels_of(result.image_url), wanted)


@pytest.mark.slow
def test_planes_instead_of_tiles(tmp_path):
    array = scene((1, 2, 96, 80))
    options, _ = METHODS["gaussian"]
    source = write(tmp_path / "a.zarr", array)
    result = correct_background(source, method={**options, "radius": 44}, tiles="plane")
    # What is no data is told tile by tile all the same.
    absent = np.zeros((96, 80), bool)
    absent[MARGIN] = True
    method = make_method("gaussian", radius_px=44.0)
    for plane, found in zip(array[0], pixels_of(result.image_url)[0], strict=True):
        background = method.background(plane, None, absent).background
        np.testing.assert_array_equal(found, np.where(absent, 0, plane - background))
    assert set(result.noise_factors) == {LABELS[0]}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_types_of_pixels(dtype, tmp_path):
    array = scene((1, 2, 96, 80), dtype)
    if dtype == "float32":
        array[0, 0, 60:63, 10:20] = np.nan
    for name in ("tile_median", "gaussian", "rolling_ball"):
        options, method = METHODS[name]
        source = write(tmp_path / f"{name}.zarr", array)
        result = correct_background(source, method=options)
        found = pixels_of(result.image_url)
        np.testing.assert_array_equal(found, expected(array, method))
        assert np.isnan(found).sum() == (30 if dtype == "float32" else 0)


@pytest.mark.parametrize("compatibility", ["none", "pyama"])
def test_a_step_by_the_command_by_python_and_by_arrays(compatibility, tmp_path, small_blocks):
    x = np.indices((1, 2, 96, 80))[-1]
    array = (100 + 400 * (x % 40 > 20) + np.random.default_rng(2).normal(0, 3, x.shape)).round()
    options = {"method": "tile_median", "tile_size": 10, "compatibility": compatibility}
    method = make_method("tile_median", tile_size=10, compatibility=compatibility)
    source = write(tmp_path / "a.zarr", array.astype("uint16"))
    by_python = correct_background(source, method=options, output_image_name="python")
    command = ["correct-background", str(source), "--method", json.dumps(options)]
    assert cli.main([*command, "--output-image-name", "command"]) == 0
    wanted = expected(array.astype("uint16"), method)
    for url in (by_python.image_url, str(Path(by_python.image_url).with_name("command.zarr"))):
        np.testing.assert_array_equal(pixels_of(url), wanted)
    background = array - wanted
    swings = background.min() < 90 or background.max() > 510
    assert swings == (compatibility == "pyama")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({"method": "rolling_ball", "radius": 150}, make_method("rolling_ball", radius_px=150)),
        ({"method": "gaussian", "radius": 300}, make_method("gaussian", radius_px=300.0)),
        (
            {"method": "sliding_paraboloid", "radius": 0.2},
            make_method("sliding_paraboloid", radius_px=0.2),
        ),
    ],
)
def test_radii_of_imagej_beyond_the_tile(options, method, tmp_path, small_blocks):
    array = scene((1, 2, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    found = pixels_of(correct_background(source, method=options).image_url)
    np.testing.assert_array_equal(found, expected(array, method))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("yx", (96, 80)),
        ("zyx", (3, 96, 80)),
        ("tyx", (3, 96, 80)),
        ("cyx", (2, 96, 80)),
        ("tczyx", (2, 2, 3, 96, 80)),
        ("tcyx", (2, 2, 96, 80)),
    ],
)
def test_axes_in_front_of_the_plane(axes, shape, tmp_path, small_blocks):
    array = scene(shape)
    version = "0.5" if "c" in axes else "0.4"
    options, method = METHODS["tile_median"]
    source = write(tmp_path / "a.zarr", array, None, axes=axes, ngff_version=version)
    result = correct_background(source, method=options, save_background=True)
    np.testing.assert_array_equal(pixels_of(result.image_url), expected(array, method, None))
    for url in (result.image_url, result.companions["background"]):
        image = MosaicImage.open(url)
        assert image.axes == axes and image.finished
        assert len(image.levels) == 3
        coarse = np.asarray(image.array(1)[...])
        fine = np.asarray(image.array(0)[...], np.float64)
        mean = fine.reshape(*shape[:-2], 48, 2, 40, 2).mean(axis=(-3, -1))
        np.testing.assert_allclose(coarse, mean, rtol=1e-6, atol=1e-4)


# --- Masks --------------------------------------------------------------------------------------


def cells_of(shape: tuple[int, ...]) -> np.ndarray:
    cells = np.zeros(shape, "uint32")
    cells[..., 10:20, 12:30] = 4
    cells[..., 55:80, 50:70] = 70000
    if len(shape) == 3:
        cells[1, :30] = 9
    return cells


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "unit", "name"),
    [
        ("zyx", "pixels", "tile_median"),
        ("yx", "micrometers", "tile_median"),
        ("czyx", "pixels", "gaussian"),
        ("zyx", "micrometers", "opening"),
    ],
)
def test_label_images_as_mask(axes, unit, name, tmp_path, small_blocks):
    array = scene((2, 3, 96, 80))
    cells = cells_of((3, 96, 80) if axes != "yx" else (96, 80))
    if axes == "czyx":
        cells = np.stack([cells, np.roll(cells, 9, axis=1)])
    options, method = METHODS[name]
    source = write(tmp_path / "a.zarr", array)
    write_label(source, cells, axes)
    # Pixels of 1.3 um: 4 um are 3 pixels.
    dilation = {"dilation": 3 if unit == "pixels" else 4, "dilation_unit": unit}
    mask = {"kind": "label", "label_name": "cells", **dilation}
    result = correct_background(source, method=options, mask=mask)
    grown = np.zeros(array.shape, bool)
    full = np.broadcast_to(cells, array.shape)
    for index in np.ndindex(2, 3):
        # Each tile by itself, as everything else.
        for part in tiles_of(array.shape, TILE):
            grown[index][part[1:]] = dilate_mask(full[index][part[1:]], 3)
    wanted = expected(array, method, mask=grown)
    np.testing.assert_array_equal(pixels_of(result.image_url), wanted)


@pytest.mark.slow
def test_labels_below_1_are_no_objects(tmp_path, small_blocks):
    array = scene((1, 2, 96, 80))
    cells = cells_of((2, 96, 80)).astype("int32")
    options, method = METHODS["tile_median"]
    source = write(tmp_path / "a.zarr", array)
    write_label(source, np.where(cells > 0, cells, -1).astype("int32"), "zyx")
    result = correct_background(
        source, method=options, mask={"kind": "label", "label_name": "cells"}
    )
    wanted = expected(array, method, mask=cells[None])
    np.testing.assert_array_equal(pixels_of(result.image_url), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tile_median", "gaussian"])
def test_a_coarser_label_image_and_one_of_one_plane(name, tmp_path, small_blocks, caplog):
    array = scene((1, 3, 90, 76))
    cells = cells_of((3, 96, 80))
    options, method = METHODS[name]
    # 90 rows are 22.5 of its own, written as 23.
    coarse = cells[:1, ::4, ::4][:, :23, :19]
    source = write(tmp_path / "a.zarr", array, None)
    labels = zarr.open_group(str(source / "labels"), mode="a", zarr_format=2)
    labels.attrs["labels"] = ["cells"]
    style = {"axes": "zyx", "chunks": (1, 7, 7), "pixel_size_um": (5.0, 5.2, 5.2)}
    write_image(source / "labels" / "cells", coarse, **style)
    mask = {"kind": "label", "label_name": "cells", "dilation": 1}
    with caplog.at_level(logging.INFO):
        result = correct_background(source, method=options, mask=mask)
    full = np.repeat(np.repeat(coarse[0], 4, axis=0), 4, axis=1)[:90, :76]
    wanted = expected(array, method, None, mask=dilate_mask(full, 1))
    np.testing.assert_array_equal(pixels_of(result.image_url), wanted)
    assert "'cells' is coarser than the image, by 4 along y, 4 along x" in caplog.text
    assert "'cells' has a length of 1 along z" in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.slow
def test_a_label_image_for_each_frame(tmp_path, small_blocks):
    """PyAMA: t, y, x, with a segmentation of every frame."""
    array = scene((4, 96, 80))
    cells = np.stack([np.roll(cells_of((96, 80)), 7 * t, axis=0) for t in range(4)])
    options, method = METHODS["tile_median"]
    source = write(tmp_path / "a.zarr", array, None, axes="tyx")
    write_label(source, cells, "tyx")
    mask = {"kind": "label", "label_name": "cells"}
    result = correct_background(source, method=options, mask=mask)
    found = pixels_of(result.image_url)
    np.testing.assert_array_equal(found, expected(array, method, None, mask=cells))
    assert not np.array_equal(found, expected(array, method, None, mask=cells[:1]))


def test_a_threshold_as_mask(tmp_path, small_blocks):
    array = scene((1, 2, 96, 80))
    options, method = METHODS["gaussian"]
    source = write(tmp_path / "a.zarr", array)
    mask = {"kind": "threshold", "threshold": 800, "dilation": 1}
    result = correct_background(source, method=options, mask=mask)
    grown = np.zeros(array.shape, bool)
    for z in range(2):
        for part in tiles_of((96, 80), TILE):
            grown[0, z][part] = dilate_mask(array[0, z][part] > 800, 1)
    wanted = expected(array, method, mask=grown)
    np.testing.assert_array_equal(pixels_of(result.image_url), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tile_median", "gaussian", "constant"])
@pytest.mark.parametrize("cut", [False, True])
def test_wholly_masked_planes_pass_with_a_warning(name, cut, tmp_path, caplog, request):
    if cut:
        request.getfixturevalue("small_blocks")
    array = scene((1, 3, 96, 80))
    # A tile that is not there at all is no reason to warn.
    array[0, :, 48:, 40:] = 0
    cells = np.zeros((3, 96, 80), "uint8")
    cells[1, :48, :40] = 1
    cells[:, 48:, 40:] = 1
    options, _ = METHODS[name]
    source = write(tmp_path / "a.zarr", array)
    write_label(source, cells, "zyx")
    with caplog.at_level(logging.WARNING):
        result = correct_background(
            source, method=options, mask={"kind": "label", "label_name": "cells"}
        )
    found = pixels_of(result.image_url)
    np.testing.assert_array_equal(found[0, 1, :48, :40], array[0, 1, :48, :40])
    assert abs(np.median(found[0, 0, :20, :40])) < 60
    [warning] = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "488 nm: 1 planes of tiles" in warning
    assert result.counts[LABELS[0]].unestimated == 1  # type: ignore[attr-defined]


def gaps(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cells of 24 x 20 pixels; 24 and 20 to the next in each tile, so that 23 px leave some."""
    cells = np.zeros(shape, "uint16")
    for y in range(0, shape[-2], 48):
        for x in range(0, shape[-1], 40):
            cells[..., y : y + 24, x : x + 20] = 1
    array = np.rint(300 + 500 * cells + np.random.default_rng(3).normal(0, 5, shape))
    return array.astype("uint16"), cells


def warnings_of(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    ("method", "dilation", "blamed"),
    [
        (
            {"method": "tile_median", "tile_size": 30, "dilation": 24},
            0,
            "widened 24 px by the dilation of the method tile_median,",
        ),
        (
            {"method": "tile_median", "tile_size": 30, "dilation": 14},
            10,
            "widened 10 px by the dilation of the mask and 14 px by the dilation of the method",
        ),
        ({"method": "gaussian", "radius": 9}, 24, "widened 24 px by the dilation of the mask,"),
        ({"method": "constant"}, 24, "widened 24 px by the dilation of the mask,"),
        (
            {"method": "gaussian", "radius": 9, "radius_z_planes": 2},
            24,
            "widened 24 px by the dilation of the mask,",
        ),
    ],
)
def test_a_dilation_that_eats_all_background_is_named(
    method, dilation, blamed, cut, tmp_path, caplog, request
):
    if cut:
        request.getfixturevalue("small_blocks")
    array, cells = gaps((1, 2, 96, 80))
    # In the lower tiles the gaps are 4 px narrower, and there is nothing to correct in one.
    cells[..., 72:76, :] = cells[..., 71:72, :]
    cells[..., 48:, 60:64] = cells[..., 48:, 59:60]
    source = write(tmp_path / "a.zarr", array)
    write_label(source, cells[0], "zyx")
    mask = {"kind": "label", "label_name": "cells", "dilation": dilation}
    with caplog.at_level(logging.INFO):
        result = correct_background(source, method=method, mask=mask, save_background=True)
    np.testing.assert_array_equal(pixels_of(result.image_url), array)
    assert not pixels_of(result.companions["background"]).any()
    [warning] = warnings_of(caplog)
    assert f"In 8 planes of tiles the objects, {blamed}" in warning
    assert "The largest dilation that leaves some in each of them is 19 px" in warning
    assert ("px in all." in warning) == (" and " in blamed)
    # What was advised helps.
    caplog.clear()
    left = 19 if not (dilation and "dilation" in method) else 5
    if "dilation" in method:
        method = {**method, "dilation": left if not dilation else 14}
    mask["dilation"] = left if dilation else 0
    with caplog.at_level(logging.WARNING):
        result = correct_background(source, method=method, mask=mask, overwrite=True)
    assert not warnings_of(caplog)
    assert abs(np.median(pixels_of(result.image_url)[cells == 0])) < 10


def test_some_planes_eaten_and_some_masked_are_one_warning(tmp_path, caplog):
    array, cells = gaps((1, 3, 96, 80))
    cells[0, 1] = 1
    source = write(tmp_path / "a.zarr", array, None)
    write_label(source, cells[0], "zyx")
    mask = {"kind": "label", "label_name": "cells", "dilation": 40}
    with caplog.at_level(logging.WARNING):
        correct_background(source, method={"method": "gaussian"}, mask=mask)
    [warning] = warnings_of(caplog)
    assert "1 planes of tiles had no pixel outside of the mask" in warning
    assert "In 2 planes of tiles the objects, widened 40 px" in warning


def test_a_threshold_below_everything_is_named(tmp_path, caplog):
    array, _ = gaps((1, 2, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    with caplog.at_level(logging.WARNING):
        correct_background(
            source, method={"method": "gaussian"}, mask={"kind": "threshold", "threshold": 50}
        )
    [warning] = warnings_of(caplog)
    assert "488 nm: 8 planes of tiles had no pixel outside of the mask" in warning
    assert "Everything in them lies above the threshold of 50 counts." in warning


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tile_median", "gaussian", "constant"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_mask_that_leaves_little_is_said_in_a_plain_line(name, cut, tmp_path, caplog, request):
    if cut:
        request.getfixturevalue("small_blocks")
    array, _ = gaps((1, 2, 96, 80))
    cells = np.ones((2, 96, 80), "uint16")
    cells[:, 5::48, 3::40] = 0
    cells[1, :, :40] = 0
    options, _ = METHODS[name]
    source = write(tmp_path / "a.zarr", array)
    write_label(source, cells, "zyx")
    options = options | ({"dilation": 0} if name == "tile_median" else {})
    with caplog.at_level(logging.INFO):
        correct_background(source, method=options, mask={"kind": "label", "label_name": "cells"})
    assert not warnings_of(caplog)
    assert "In 6 planes of tiles less than 1 % of the pixels lay outside of the mask" in caplog.text
    assert "warning" not in caplog.text.lower()


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
def test_squares_that_all_lack_pixels_are_said(cut, tmp_path, caplog, request):
    if cut:
        request.getfixturevalue("small_blocks")
    array, cells = gaps((1, 1, 96, 80))
    cells[...] = np.arange(80) % 6 != 0
    source = write(tmp_path / "a.zarr", array)
    write_label(source, cells[0], "zyx")
    method = {"method": "tile_median", "tile_size": 24, "dilation": 0}
    mask = {"kind": "label", "label_name": "cells"}
    for fraction, number in ((0.1, 0), (0.5, 4)):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            correct_background(
                source, method={**method, "min_unmasked_fraction": fraction}, mask=mask,
                overwrite=True,
            )  # fmt: skip
        said = f"In {number} planes of tiles no square had a share of {fraction:g}" in caplog.text
        assert said == bool(number)


# --- What is done with the background -----------------------------------------------------------


@pytest.mark.slow
def test_no_data_stays_and_counts(tmp_path):
    array = scene((1, 2, 96, 80))
    array[0, 0, 90, 70] = 65535
    source = write(tmp_path / "a.zarr", array)
    options, _ = METHODS["gaussian"]
    margin = np.zeros(array.shape, bool)
    margin[MARGIN] = True
    for zero_is, absent in (("auto", margin), ("no_data", array == 0), ("data", array < 0)):
        result = correct_background(
            source,
            method=options,
            zero_is=zero_is,
            output_type="source",
            output_offset=50,
            save_background=True,
            overwrite=True,
        )
        counts = result.counts[LABELS[0]]
        assert (counts.pixels, counts.saturated) == (2 * 96 * 80, 1)
        assert (counts.no_data, counts.zeros) == (
            absent.sum(),
            2 * 6 * 26 if zero_is == "auto" else 0,
        )
        assert not pixels_of(result.image_url)[absent].any()
        assert not pixels_of(result.companions["background"])[absent].any()
        assert pixels_of(result.companions["background"])[~absent].all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["subtract", "divide"])
@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_the_type_of_the_source_with_an_offset_or_clipped(mode, weight, tmp_path, caplog):
    array = scene((1, 2, 96, 80))
    options, method = METHODS["gaussian"]
    for offset in (0, 200):
        source = write(tmp_path / f"{offset}.zarr", array)
        with caplog.at_level(logging.INFO):
            result = correct_background(
                source,
                method=options,
                mode=mode,
                weight=weight,
                output_type="source",
                output_offset=offset,
                **({"reference": 500} if mode == "divide" else {}),
            )
        how = Application(mode, weight, offset, 500)
        wanted = expected(array, method, application=how, dtype="uint16")
        np.testing.assert_array_equal(pixels_of(result.image_url), wanted)
        exact = expected(array, method, application=how)
        recorded = np.ones(exact.shape, bool)
        recorded[MARGIN] = False
        exact = exact[recorded]
        clipped = np.count_nonzero(np.rint(exact) < 0) + np.count_nonzero(np.rint(exact) > 65535)
        counts = result.counts[LABELS[0]]
        assert counts.clipped_low + counts.clipped_high == clipped
        assert f"{100 * clipped / exact.size:.2f} % of the pixels were cut off" in caplog.text
        # Without an offset, half of the noise around 0 is lost.
        lost = mode == "subtract" and weight == 1 and offset == 0
        assert (clipped / exact.size > 0.3) == lost
        assert (clipped / exact.size < 0.03) != lost


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rolling_ball", "opening", "sliding_paraboloid"])
def test_light_background(name, tmp_path, small_blocks):
    array = (2000 - scene((1, 1, 96, 80))).astype("uint16")
    options, _ = METHODS[name]
    parameters = {"radius_px": options["radius"], "light_background": True}
    if name == "opening":
        parameters["smoothing_sigma_px"] = 1
    source = write(tmp_path / "a.zarr", array)
    result = correct_background(source, method=options, light_background=True, output_type="source")
    wanted = expected(array, make_method(name, **parameters), dtype="uint16")
    found = pixels_of(result.image_url)
    np.testing.assert_array_equal(found, wanted)
    assert np.median(found) > 65000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rolling_ball", "sliding_paraboloid", "opening"])
def test_images_of_floats_under_a_ball_are_a_plain_line(name, tmp_path, caplog):
    array = scene((2, 1, 96, 80), "float32") / 1000
    options, _ = METHODS[name]
    source = write(tmp_path / "a.zarr", array)
    with caplog.at_level(logging.INFO):
        correct_background(source, method=options)
    said = [r for r in caplog.records if "has a height in counts" in r.getMessage()]
    assert len(said) == (0 if name == "opening" else 1)
    assert "warning" not in caplog.text.lower()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["opening", "rolling_ball"])
def test_the_bias_of_the_noise_is_added_back(name, tmp_path, small_blocks):
    """On a flat plane with noise, whose background is known, the mean error goes."""
    rng = np.random.default_rng(3)
    array = np.rint(500 + rng.normal(0, 20, (1, 2, 96, 80))).astype("uint16")
    options, method = METHODS[name]
    source = write(tmp_path / "a.zarr", array, None)
    means = {}
    for add in (False, True):
        result = correct_background(
            source,
            method=options,
            add_noise_bias=add,
            save_background=True,
            output_image_name=f"{{image_name}}_{add}",
        )
        means[add] = pixels_of(result.companions["background"])[..., 15:-15, 15:-15].mean()
        same = pixels_of(result.image_url) + pixels_of(result.companions["background"])
        np.testing.assert_allclose(same, array, atol=1e-3)
    assert means[False] < 495
    assert abs(means[True] - 500) < 0.2 * abs(means[False] - 500)
    bias = noise_bias(method, estimate_noise_sigma(array[0, 0]))
    assert means[True] - means[False] == pytest.approx(-bias, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
def test_background_and_noise_beside_the_result(cut, tmp_path, tree, request):
    if cut:
        request.getfixturevalue("small_blocks")
    array = scene((2, 3, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    result = correct_background(
        source,
        method={"method": "tile_median", "tile_size": 16},
        save_background=True,
        save_noise=True,
    )
    assert result.companions == {
        "background": str(tmp_path / "a_background_corr_background.zarr"),
        "noise": str(tmp_path / "a_background_corr_noise.zarr"),
    }
    method = make_method("tile_median", tile_size=16, noise_map=True)
    wanted, noise = np.empty(array.shape), np.empty(array.shape)
    for part in tiles_of(array.shape, TILE):
        wanted[part] = estimate_array(array[part], method)
        for index in np.ndindex(2, 3):
            absent = np.zeros(array.shape[2:], bool)
            absent[MARGIN] = True
            own = (*index, *part[1:])
            noise[own] = method.background(array[own], None, absent[part[1:]]).noise
    np.testing.assert_array_equal(pixels_of(result.companions["background"]), wanted)
    np.testing.assert_array_equal(pixels_of(result.companions["noise"]), noise)
    for kind, url in result.companions.items():
        attributes = json.loads((Path(url) / ".zattrs").read_text())
        assert attributes["mesospim_shading"]["complete"] is True
        assert attributes["mesospim_shading"]["content"] == kind
        assert [c["label"] for c in attributes["omero"]["channels"]] == list(LABELS)
    # The windows are those of each image.
    window = attributes["omero"]["channels"][0]["window"]
    assert 0 < window["start"] < window["end"] < 400
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.zarr",
        "a_background_corr.zarr",
        "a_background_corr_background.zarr",
        "a_background_corr_noise.zarr",
        "a_background_corr_report.html",
        "a_background_corr_report.json",
    ]


def test_radii_for_each_channel_and_their_noise(tmp_path):
    array = scene((2, 2, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    result = correct_background(
        source,
        method={
            "method": "gaussian",
            "radius_per_channel": [3.9, 9.1],
            "radius_unit": "micrometers",
        },
    )
    found = pixels_of(result.image_url)
    for channel, radius in enumerate((3.0, 7.0)):
        wanted = expected(array[channel], make_method("gaussian", radius_px=radius))
        np.testing.assert_allclose(found[channel], wanted, atol=1e-3)
    exact = [round(factors["exact"], 3) for factors in result.noise_factors.values()]
    published = [round(factors["published"], 3) for factors in result.noise_factors.values()]
    assert list(result.noise_factors) == list(LABELS)
    # Of the facts about smlmlp: .946 and .990, published .659 and .853.
    assert exact == pytest.approx([0.946, 0.990], abs=1e-3)
    assert published == pytest.approx([0.659, 0.853], abs=1e-3)
    mark = json.loads((Path(result.image_url) / ".zattrs").read_text())["mesospim_shading"]
    assert mark["noise_factors"] == result.noise_factors


def test_micrometers_are_those_of_the_image(tmp_path):
    array = scene((1, 1, 96, 80))
    source = write(tmp_path / "a.zarr", array, pixel_size_um=(5, 0.5, 0.5))
    options, method = METHODS["opening"]
    result = correct_background(
        source,
        method={**options, "radius": 2, "smoothing_sigma": 0.5, "radius_unit": "micrometers"},
    )
    np.testing.assert_array_equal(pixels_of(result.image_url), expected(array, method))


def test_constants_for_each_channel(tmp_path):
    array = scene((2, 1, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    result = correct_background(
        source, method={"method": "constant", "value_per_channel": [100, 250]}
    )
    wanted = array.astype("float32") - np.array([100, 250], "float32")[:, None, None, None]
    wanted[MARGIN] = 0
    np.testing.assert_array_equal(pixels_of(result.image_url), wanted)


# --- Where and how it runs ------------------------------------------------------------------------


@pytest.mark.slow
@each_method
def test_workers_change_no_byte(name, tmp_path, tree, small_blocks):
    array = scene((2, 2, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    found = []
    for workers in (1, 2):
        result = correct_background(
            source,
            method=METHODS[name][0],
            n_workers=workers,
            save_background=True,
            output_image_name=f"{{image_name}}_{workers}",
        )
        files = tree(Path(result.image_url)) | tree(Path(result.companions["background"]))
        found.append({k: v for k, v in files.items() if not k.startswith(".z")})
    assert found[0] == found[1]


@pytest.mark.slow
def test_processes_change_no_byte(tmp_path, tree, small_blocks, two_cpus):
    array = scene((2, 2, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    write_label(source, cells_of((96, 80)), "yx")
    arguments = {
        "method": {"method": "tile_median", "tile_size": 16},
        "mask": {"kind": "label", "label_name": "cells"},
        "save_noise": True,
        "n_workers": 2,
    }
    files = []
    for execution in ("threads", "processes"):
        result = correct_background(source, execution=execution, overwrite=True, **arguments)
        files.append((tree(Path(result.image_url)), tree(Path(result.companions["noise"]))))
    assert files[0] == files[1]


@pytest.mark.parametrize("chunks", [(2, 24, 20), (2, 48, 40), (1, 16, 40)])
def test_each_chunk_is_read_once(chunks, tmp_path, monkeypatch):
    array = scene((2, 4, 96, 80))
    source = write(tmp_path / "a.zarr", array, chunks=chunks)
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    read, seen = MosaicImage.read, []

    def counted(image, level, box):
        ranges = [
            range(s.start // c, -(-s.stop // c)) for s, c in zip(box, (1, *chunks), strict=True)
        ]
        seen.extend(
            (level, i)
            for i in np.ndindex(*map(len, ranges))
            for i in [tuple(r[k] for r, k in zip(ranges, i, strict=True))]
        )
        return read(image, level, box)

    monkeypatch.setattr(MosaicImage, "read", counted)
    # A report reads planes of its own.
    correct_background(source, method={"method": "gaussian", "radius": 10}, report=False)
    counts = [-(-n // c) for n, c in zip(array.shape, (1, *chunks), strict=True)]
    assert len(seen) == len(set(seen)) == np.prod(counts)


def _stop_after(patch, blocks: int) -> None:
    """The disk is full after some writes."""
    write_, seen = target.TargetImage.write, []

    def failing(image, level, box, data):
        seen.append(box)
        if len(seen) > blocks:
            raise errors.OutputWriteError("No space left on device")
        return write_(image, level, box, data)

    patch.setattr(target.TargetImage, "write", failing)


def test_a_stopped_run_is_continued_with_the_blocks_it_began_with(tmp_path, tree, monkeypatch):
    array = scene((1, 8, 384, 400))
    source = write(tmp_path / "a.zarr", array, None, chunks=(8, 64, 64))
    arguments = {"method": METHODS["median"][0], "save_background": True}
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    whole = correct_background(source, output_image_name="whole", **arguments)
    with monkeypatch.context() as patch:
        _stop_after(patch, 30)
        with pytest.raises(errors.OutputWriteError):
            correct_background(source, memory_limit="362MB", **arguments)
    request = json.loads((tmp_path / ".a_background_corr.zarr.job" / "request.json").read_text())
    assert request["blocks"] == {"": [1, 8, 64, 64]}
    assert not (tmp_path / "a_background_corr.zarr").exists()
    assert not (tmp_path / "a_background_corr_background.zarr").exists()
    with pytest.raises(errors.JobMismatchError, match="weight"):
        correct_background(source, weight=0.5, **arguments)
    # With more memory a new run would take larger blocks: that of the whole plane is one.
    written = []
    write_ = target.TargetImage.write

    def counted(image, level, box, data):
        written.append((image.url, level, str(box)))
        return write_(image, level, box, data)

    monkeypatch.setattr(target.TargetImage, "write", counted)
    result = correct_background(source, n_workers=1, **arguments)
    assert len(written) == len(set(written)) > 20
    for one, other in (
        (result.image_url, whole.image_url),
        (result.companions["background"], whole.companions["background"]),
    ):
        made, wanted = tree(Path(one)), tree(Path(other))
        # The name of the result is one of its parameters.
        made.pop(".zattrs"), wanted.pop(".zattrs")
        assert made == wanted
    assert not list(tmp_path.glob(".*"))


SLOW = str(Path(__file__).parents[1] / "slow_cli.py")


@pytest.mark.slow
def test_a_killed_run_is_continued(tmp_path, tree, monkeypatch):
    array = scene((2, 8, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    whole = correct_background(source, save_background=True)
    wanted = tree(Path(whole.image_url)), tree(Path(whole.companions["background"]))
    for url in (whole.image_url, *whole.companions.values()):
        shutil.rmtree(url)
    words = [
        sys.executable,
        SLOW,
        "0.05",
        "jobs.background_parts",
        "correct-background",
        str(source),
        "--save-background",
    ]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / ".a_background_corr.zarr.job" / "journal" / "blocks.jsonl"
    end = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert not (tmp_path / "a_background_corr.zarr").exists()
    result = correct_background(source, save_background=True)
    made = tree(Path(result.image_url)), tree(Path(result.companions["background"]))
    assert made == wanted
    assert not list(tmp_path.glob(".*"))


def test_another_label_image_is_another_job(tmp_path, monkeypatch):
    array = scene((1, 4, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    write_label(source, cells_of((96, 80)), "yx")
    arguments = {"mask": {"kind": "label", "label_name": "cells"}, "n_workers": 1}
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    with monkeypatch.context() as patch:
        _stop_after(patch, 3)
        with pytest.raises(errors.OutputWriteError):
            correct_background(source, **arguments)
    group = zarr.open_group(str(source / "labels" / "cells"), mode="r+")
    group["0"][...] = np.roll(cells_of((96, 80)), 5)  # type: ignore[index]
    with pytest.raises(errors.JobMismatchError, match="label_state"):
        correct_background(source, **arguments)
    assert correct_background(source, restart=True, **arguments).image_url


@pytest.mark.slow
def test_smaller_blocks_where_memory_is_short(tmp_path, monkeypatch):
    """The result is the same; the limit that an error names is enough."""
    array = scene((1, 8, 384, 400))
    source = write(tmp_path / "a.zarr", array, None, chunks=(4, 32, 32))
    options, method = METHODS["median"]
    image = MosaicImage.open(str(source))
    monkeypatch.setattr(background_parts, "BLOCK_BYTES", 1)
    sizes = {}
    for limit in ("8GB", "362MB"):
        settings = background.BackgroundOptions(method=options, memory_limit=limit, n_workers=2)
        sizes[limit] = background.prepare_background(image, settings).parts[0].plan.grid.boxes[0]
    assert sizes["8GB"][-2:] == (384, 800)
    assert sizes["362MB"][-2:] == (32, 32)
    result = correct_background(source, method=options, memory_limit="362MB")
    np.testing.assert_array_equal(pixels_of(result.image_url), expected(array, method, None))
    with pytest.raises(errors.MemoryLimitError) as caught:
        correct_background(source, method=options, memory_limit="100MB", overwrite=True)
    limit = str(caught.value).partition("at least ")[2].partition("GB")[0] + "GB"
    assert correct_background(source, method=options, memory_limit=limit, overwrite=True)


def test_overwriting_and_taking_the_place_of_the_source(tmp_path):
    array = scene((1, 1, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    arguments = {"method": METHODS["gaussian"][0], "save_background": True}
    first = correct_background(source, **arguments)
    with pytest.raises(errors.OutputExistsError, match="already something at.*corr.zarr"):
        correct_background(source, **arguments)
    shutil.rmtree(first.image_url)
    with pytest.raises(errors.OutputExistsError, match="already something at.*_background.zarr"):
        correct_background(source, **arguments)
    assert correct_background(source, overwrite=True, **arguments).companions == first.companions
    result = correct_background(source, overwrite_input=True, overwrite=True, **arguments)
    assert result.image_url == str(source)
    np.testing.assert_array_equal(pixels_of(str(source)), pixels_of(first.image_url))
    assert image_list_update(result) == {
        "zarr_url": str(source),
        "types": {"background_corrected": True},
    }


def test_tables_labels_and_provenance_go_along(tmp_path, tree):
    array = scene((1, 1, 96, 80))
    source = write(tmp_path / "a.zarr", array)
    write_label(source, cells_of((96, 80)), "yx")
    result = correct_background(
        source, method=METHODS["gaussian"][0], mask={"kind": "label", "label_name": "cells"}
    )
    made, given = tree(Path(result.image_url)), tree(source)
    for name, content in given.items():
        if name.startswith(("tables", "labels")):
            assert made[name] == content
    mark = json.loads((Path(result.image_url) / ".zattrs").read_text())["mesospim_shading"]
    assert mark["task"] == "correct_background"
    assert mark["parameters"]["method"]["method"] == "gaussian"
    assert mark["parameters"]["mask"]["label_name"] == "cells"
    assert mark["pixels"][LABELS[0]]["pixels"] == 96 * 80
