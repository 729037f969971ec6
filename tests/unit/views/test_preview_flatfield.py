"""A plane before and after its flat-field correction."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import cli, correct_flatfield, errors
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.views import preview_flatfield
from fractal_mesospim_shading.views.preview_figures import flatfield_preview
from fractal_mesospim_shading.views.preview_flatfield import write_flatfield_preview
from fractal_mesospim_shading.views.preview_plane import PlaneWanted


@pytest.fixture
def drawn(monkeypatch):
    """What the figure was given, in place of the figure."""
    seen: dict[str, object] = {}

    def remember(before, after, flatfield, **more):
        seen.update(before=before, after=after, flatfield=flatfield, **more)
        return b"picture"

    monkeypatch.setattr(preview_flatfield, "flatfield_preview", remember)
    return seen


@pytest.mark.parametrize(
    "options",
    [
        {"camera_offset": 500.0, "output_offset": 20.0},
        {"camera_offset": 0.0},
        {"camera_offset": 500.0, "output_type": "float32"},
        {"camera_offset": 0.0, "zero_is": "no_data"},
    ],
)
def test_the_pixels_of_the_task(make_mosaic, make_models, pixels, drawn, tmp_path, options):
    data = pixels((2, 4, 96, 80))
    data[1, :, :10, :40] = 0
    source = str(make_mosaic(array=data))
    given = {"models_folder": str(make_models()), **options}
    wanted = PlaneWanted(channel="561 nm", z=3)
    write_flatfield_preview(source, str(tmp_path / "p.png"), wanted, FlatfieldOptions(**given))
    result = correct_flatfield(source, report=False, **given)
    after = zarr.open_array(f"{result.image_url}/0", mode="r")[1, 3]
    assert drawn["after"].dtype == after.dtype
    np.testing.assert_array_equal(drawn["before"], data[1, 3])
    np.testing.assert_array_equal(drawn["after"], after)
    model = result.models["561 nm"].profile
    np.testing.assert_array_equal(drawn["flatfield"], model.flatfield)
    assert drawn["title"] == "brain.zarr, channel 561 nm, plane 3"
    assert drawn["offsets"] == (options["camera_offset"], options.get("output_offset", 0))


def test_a_large_plane_is_shown_from_a_coarser_level(
    make_mosaic, make_models, pixels, drawn, tmp_path, monkeypatch
):
    monkeypatch.setattr(preview_flatfield, "coarse_level", lambda levels: 1)
    smooth = np.broadcast_to(np.linspace(600, 900, 80).astype("uint16"), (2, 4, 96, 80))
    source = str(make_mosaic(array=np.ascontiguousarray(smooth)))
    options = FlatfieldOptions(models_folder=str(make_models()), camera_offset=100)
    write_flatfield_preview(source, str(tmp_path / "p.png"), PlaneWanted(tile=2), options)
    coarse = zarr.open_array(f"{source}/1", mode="r")
    plane = coarse[0, coarse.shape[1] // 2]
    np.testing.assert_array_equal(drawn["before"], plane)
    flat = np.tile(drawn["flatfield"].astype(float), (2, 2)).reshape(48, 2, 40, 2).mean((1, 3))
    np.testing.assert_allclose(drawn["after"], (plane - 100.0) / flat, rtol=0.01, atol=1)
    assert drawn["factor"] == 2
    assert drawn["rows"] == slice(24, 48)


def test_of_a_plane_that_is_too_large_whole_tiles_are_shown(
    make_mosaic, make_models, drawn, tmp_path, monkeypatch
):
    monkeypatch.setattr(preview_flatfield, "_MOST_PIXELS", 50 * 50)
    monkeypatch.setattr(preview_flatfield, "coarse_level", lambda levels: 0)
    options = FlatfieldOptions(models_folder=str(make_models()), camera_offset=100)
    source = str(make_mosaic())
    for tile, corner in ((1, (0, 0)), (4, (46, 30))):
        wanted = PlaneWanted(tile=tile, z=0)
        write_flatfield_preview(source, str(tmp_path / "p.png"), wanted, options)
        plane = zarr.open_array(f"{source}/0", mode="r")[0, 0]
        y, x = corner
        np.testing.assert_array_equal(drawn["before"], plane[y : y + 50, x : x + 50])


def test_an_estimate_of_one_channel_and_the_picture(
    make_empty_mosaic, tmp_path, capsys, monkeypatch
):
    made = []
    plain = preview_flatfield.estimate_model
    monkeypatch.setattr(
        preview_flatfield,
        "estimate_model",
        lambda choice, group, workers: made.append(group.label) or plain(choice, group, workers),
    )
    output = tmp_path / "p.png"
    command = ["preview-flatfield", str(make_empty_mosaic()), "--fov-list", "1", "4"]
    assert cli.main([*command, "--channel", "561", "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert made == ["561 nm"]
    width, height = struct.unpack(">II", output.read_bytes()[16:24])
    assert width == 750
    assert height < 1200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brain.zarr", "p.png"]


def test_planes_without_light_are_drawn():
    zeros = np.zeros((30, 40), np.uint16)
    arguments = {"title": "$a", "offsets": (100.0, 0.0), "rows": slice(0, 30), "note": "x" * 300}
    assert flatfield_preview(zeros, zeros, np.ones((30, 40), np.float32), **arguments)


@pytest.mark.parametrize(
    ("wanted", "options", "says"),
    [
        ({"z": 9}, {}, "the image has the planes 0 to 3"),
        ({"tile": 9}, {}, "Tile 9"),
        ({"channel": "640"}, {}, "no channel '640'"),
        ({}, {"models_folder": "/no/such"}, "/no/such"),
        ({}, {"fov_list": [7]}, "Tile 7"),
    ],
)
def test_what_is_not_there(make_mosaic, make_models, tmp_path, wanted, options, says):
    given = FlatfieldOptions(**(options or {"models_folder": str(make_models())}))
    with pytest.raises(errors.ShadingError, match=says):
        write_flatfield_preview(
            str(make_mosaic()), str(tmp_path / "p.png"), PlaneWanted(**wanted), given
        )
