"""Methods side by side on one plane."""

from __future__ import annotations

import logging
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import cli, correct_background, errors
from fractal_mesospim_shading.core.background import METHODS, make_method
from fractal_mesospim_shading.core.background.arrays import estimate_array
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.views import preview, preview_figures
from fractal_mesospim_shading.views.preview import write_preview


@pytest.fixture
def drawn(monkeypatch):
    """What the figure was given, in place of the figure."""
    seen: dict[str, object] = {}

    def remember(image, methods, **more):
        seen.update(image=image, methods=methods, **more)
        return b"picture"

    monkeypatch.setattr(preview, "background_preview", remember)
    return seen


def test_all_methods_on_a_tile_in_the_middle(make_mosaic, drawn, pixels, tmp_path):
    source = make_mosaic()
    path = write_preview(str(source), str(tmp_path / "p.png"), radius=5)
    assert Path(path).read_bytes() == b"picture"
    plane = pixels((2, 4, 96, 80))[0, 2, :48, 40:]
    np.testing.assert_array_equal(drawn["image"], plane)
    assert list(drawn["methods"]) == [
        "tile median, squares of 20 px",
        "median, radius 5 px",
        "opening, radius 5 px",
        "rolling ball, radius 5 px",
        "sliding paraboloid, radius 5 px",
        "gaussian, radius 5 px",
        "difference of filters, radii 2 and 5 px",
        "constant, the median of the plane",
    ]
    background, result = drawn["methods"]["gaussian, radius 5 px"]
    wanted = estimate_array(plane, make_method("gaussian", radius_px=5.0))
    np.testing.assert_array_equal(background, wanted)
    np.testing.assert_array_equal(result, plane - wanted)
    assert drawn["pixel_size_um"] == pytest.approx(1.3)
    assert drawn["note"] == ""


def test_what_does_not_fit_is_left_out_and_said(make_mosaic, drawn, tmp_path, caplog):
    source = make_mosaic()
    with caplog.at_level(logging.WARNING):
        write_preview(str(source), str(tmp_path / "p.png"), methods=["median:41", "opening:4"])
    assert list(drawn["methods"]) == ["opening, radius 4 px"]
    assert "Left out: The radius of the method median is 41 px" in str(drawn["note"])
    assert "median is 41 px" in caplog.text
    with pytest.raises(errors.BackgroundError, match="median is 41 px"):
        write_preview(str(source), str(tmp_path / "p.png"), methods=["median:41"])


def test_a_constant_is_drawn_with_its_own_number(make_mosaic, drawn, pixels, tmp_path):
    methods = ["constant:100", "constant", "constant:-2.5"]
    write_preview(str(make_mosaic()), str(tmp_path / "p.png"), methods=methods, radius=7)
    plane = drawn["image"]
    titles = ["constant, 100 counts", "constant, the median of the plane", "constant, -2.5 counts"]
    assert list(drawn["methods"]) == titles
    for title, value in zip(titles, (100, np.median(plane[plane > 0]), -2.5), strict=True):
        background, result = drawn["methods"][title]
        np.testing.assert_array_equal(background, np.where(plane == 0, 0, np.float32(value)))
        np.testing.assert_array_equal(result, plane - background)


@pytest.mark.parametrize(
    "options",
    [
        {"method": {"method": "median", "radius": 7.0, "radius_unit": "micrometers"}},
        {"method": "opening:6", "light_background": True, "output_type": "source"},
        {"method": "median:5", "mask": "threshold:9000:2um", "weight": 0.5, "output_offset": 9},
        {"method": "median:5", "mode": "divide", "reference": 500},
        {"method": "gaussian:6", "tiles": "plane"},
        {"method": {"method": "constant", "value_per_channel": [5, 70]}, "channel": "561 nm"},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_count_as_in_the_task(options, make_mosaic, drawn, tmp_path):
    source, (channel, index) = str(make_mosaic()), ("488 nm", 0)
    asked = dict(options)
    if "channel" in asked:
        channel, index = asked.pop("channel"), 1
    method = asked.pop("method")
    picture = str(tmp_path / "p.png")
    write_preview(source, picture, methods=[method], channel=channel, tile=2, z=1, **asked)
    [(background, result)] = drawn["methods"].values()
    run = correct_background(source, method=method, save_background=True, **asked)
    own = (index, 1, slice(48, 96), slice(0, 40))
    for url, shown in ((run.image_url, result), (run.companions["background"], background)):
        wanted = zarr.open_group(url, mode="r")["0"][own]
        assert shown.dtype == wanted.dtype
        np.testing.assert_array_equal(wanted, shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", ["", ":9"])
def test_what_is_drawn_is_what_the_run_does(name, size, make_mosaic, drawn, tmp_path):
    """The second plane of the first tile, as the command with the same words makes it."""
    source = make_mosaic()
    arguments = {"methods": f"{name}{size}", "tile": 1, "z": 1}
    write_preview(str(source), str(tmp_path / "p.png"), **arguments)
    [(background, result)] = drawn["methods"].values()
    run = correct_background(str(source), method=f"{name}{size}", save_background=True)
    own = (0, 1, slice(0, 48), slice(0, 40))
    for url, shown in ((run.image_url, result), (run.companions["background"], background)):
        np.testing.assert_array_equal(zarr.open_group(url, mode="r")["0"][own], shown)


def test_a_ball_on_floats_has_a_note(make_mosaic, drawn, tmp_path, caplog):
    plane = np.random.default_rng(0).random((96, 80), "float32")
    source = make_mosaic(array=plane, axes="yx", tile_shape=None, chunks=(16, 32))
    with caplog.at_level(logging.INFO):
        write_preview(str(source), str(tmp_path / "p.png"), methods=["rolling_ball:9", "median:9"])
    assert drawn["note"] == "rolling ball, radius 9 px: its height is in counts, see the log."
    assert "range from 0 to 1" in caplog.text


def test_a_plane_without_a_pixel_to_estimate_from_is_said(make_mosaic, drawn, tmp_path):
    source = make_mosaic(array=np.zeros((96, 80), "uint16"), axes="yx", tile_shape=None)
    write_preview(str(source), str(tmp_path / "p.png"), methods=["gaussian"])
    assert "gaussian, radius 7 px: the plane holds no data" in str(drawn["note"])


def test_the_plane_that_was_asked_for(make_mosaic, drawn, pixels, tmp_path):
    source = make_mosaic()
    output = str(tmp_path / "p.png")
    arguments = {"methods": ["constant"], "channel": "561 nm", "tile": 2}
    write_preview(str(source), output, z=3, **arguments)
    np.testing.assert_array_equal(drawn["image"], pixels((2, 4, 96, 80))[1, 3, 48:, :40])
    assert drawn["title"] == "brain.zarr, channel 561 nm, tile 2, plane 3"


def test_a_label_image_is_left_out(make_mosaic, drawn, tmp_path):
    source = make_mosaic(shape=(96, 80), axes="yx", chunks=(16, 32), tile_shape=None)
    cells = np.zeros((96, 80), "uint8")
    cells[20:30, 20:40] = 1
    zarr.open_group(str(source / "labels"), mode="w", zarr_format=2).attrs["labels"] = ["cells"]
    write_image(source / "labels" / "cells", cells, axes="yx")
    output = str(tmp_path / "p.png")
    write_preview(str(source), output, methods=["gaussian"], mask="cells")
    background, _ = drawn["methods"]["gaussian, radius 7 px"]
    wanted = make_method("gaussian").background(drawn["image"], cells).background
    np.testing.assert_array_equal(background, wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channel": "640 nm"}, "no channel '640 nm'; the image has 0 '488 nm', 1 '561 nm'"),
        ({"z": 4}, "z is 4, but the image has the planes 0 to 3"),
        ({"tile": 5}, "Tile 5"),
        ({"level": 3}, "level: there is no such parameter"),
        ({"mode": "divde"}, "mode is 'divde'; expected subtract or divide"),
        ({"reference": 5}, "reference can do nothing"),
        ({"mask": "cells"}, "no label image 'cells'"),
        ({"methods": ["gausian"]}, "no background method 'gausian'"),
        ({"methods": ["median:x"]}, "'radius' of method='median' is 'x'; expected a number"),
        ({"methods": ["median:-3"]}, "radius"),
        ({"methods": ["constant:nan"]}, "value"),
        ({"methods": [25]}, "25: expected the name of a method"),
        ({"z": "1"}, "z=? is '1'; expected a whole number"),
    ],
)
def test_bad_input(arguments, words, make_mosaic, tmp_path):
    output = tmp_path / "p.png"
    with pytest.raises(errors.ShadingError, match=words):
        write_preview(str(make_mosaic()), str(output), **arguments)
    assert not output.exists()


@pytest.mark.slow
def test_the_command(make_mosaic, tmp_path, capsys):
    output = tmp_path / "p.png"
    arguments = ["preview", str(make_mosaic()), "--output", str(output), "--method", "median:5"]
    assert cli.main([*arguments, "--method", "tile_median:20", "--z", "1"]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    width, height = struct.unpack(">II", output.read_bytes()[16:24])
    assert width == 750 and 500 < height < 1500
    assert cli.main([*arguments[:2], "--output", str(tmp_path / "no" / "p.png")]) == 3
    assert "cannot be written" in capsys.readouterr().err


def test_pixels_without_data_do_not_choose_the_line_of_a_preview():
    image = np.full((40, 30), 5, np.float32)
    image[3], image[9, ::2], image[20] = np.nan, np.inf, 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert preview_figures._brightest_row(image) == 20
        assert preview_figures.background_preview(image, {"a": (np.zeros_like(image), image)})


def test_background_preview_has_a_row_for_each_method():
    def size_of(png):
        return struct.unpack(">II", png[16:24])

    rng = np.random.default_rng(1)
    image = rng.poisson(100, (30, 40)).astype(np.uint16)
    pair = (np.full((30, 40), 100.0), image - 100.0)
    one = size_of(preview_figures.background_preview(image, {"median": pair}, pixel_size_um=0.65))
    two = size_of(preview_figures.background_preview(image, {"a": pair, "b": pair}))
    assert one[0] == two[0]
    # The plane itself has a row as well.
    assert 1.4 * one[1] < two[1] < 1.6 * one[1]
