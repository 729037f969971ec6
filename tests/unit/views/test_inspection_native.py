"""What `info` prints about containers that are not all alike."""

from __future__ import annotations

from dataclasses import replace

import zarr

from fractal_mesospim_shading.flatfield.model_texts import processor_warning
from fractal_mesospim_shading.images.source import Channel, ModelGroup
from fractal_mesospim_shading.views.inspection import as_text, describe
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

SETTINGS = SyntheticSettings(version="0.4", tile_shape=(20, 28), chunks=(4, 16, 16), xml=True)


def test_a_container_with_everything(tmp_path):
    stacks = grid_stacks(2, 3, SETTINGS, overlap_px=8, lasers=("488 nm", "561 nm"))
    stacks = [replace(s, shutter="Left" if s.tile < 2 else "Right") for s in stacks if s.tile != 5]
    stacks[1] = replace(stacks[1], planes=4)
    stacks[2] = replace(stacks[2], processors=("GaussianBlur",))
    stacks[4] = replace(stacks[4], z_start_um=25.0, z_end_um=0.0)
    path = write_acquisition(tmp_path, "br ain_Time004.zarr", stacks, SETTINGS)
    (path / "junk").mkdir()
    text = as_text(describe(str(path)))
    lines = text.splitlines()
    assert lines[0] == str(path)
    assert lines[1].startswith("mesoSPIM acquisition, OME-Zarr 0.4, 10 stacks, ")
    assert lines[1].endswith("kB on disk, time point 4")
    for line in (
        "Illumination: left, right. Angles: 0 degrees.",
        "Sign of the stage axes in the image: x -1 (xml), y -1 (xml).",
        "Mosaic: 2 rows x 3 columns of 20 x 28 pixels (y, x), 6 planes",
        "Overlap of neighbours: y 40.0 % = 16.0 um = 8.0 pixels; x 28.6 % = 16.0 um = 8.0 pixels",
        "  -            3 Tile3 R    5 Tile1 L",
        "  2 Tile4 R    4 Tile2 R    6 Tile0 L",
        "Missing tiles: 1",
        "One flat-field for each of: 488 nm/left, 488 nm/right, 561 nm/left, 561 nm/right",
        "Planes: 6 planned and 6 found in 9; 6 planned and 4 found in 1 of the 10 stacks",
        "Stored as: 6 x 20 x 28 (z, y, x), chunks 4 x 16 x 16, 1 level",
        "  1 of them: 4 x 20 x 28 (z, y, x), chunks 4 x 16 x 16, 1 level",
        f"  {stacks[2].group_name}: changed by GaussianBlur",
        f"  {stacks[4].group_name}: scanned downward from 25 to 0 um",
        "Suspicious:",
        "  - 'junk' is left out: its name is none that mesoSPIM-control gives.",
    ):
        assert line in lines, line
    assert all(len(line) < 110 for line in lines[1:])


def test_an_unfinished_result_is_said_to_be_one(tmp_path):
    path = write_acquisition(tmp_path, "a.zarr", grid_stacks(1, 2, SETTINGS), SETTINGS)
    zarr.open_group(str(path), mode="r+").attrs["mesospim_shading"] = {"complete": False}
    found = describe(str(path))
    assert found["finished"] is False
    assert "unfinished" in found["suspicious"][0]


def _group(processors, gone):
    planes = dict.fromkeys((1, 2, 3), (0, 6))
    return ModelGroup("488 nm", Channel(0, "488 nm", "488"), None, planes, processors, gone)


def test_what_is_said_about_image_processors():
    assert processor_warning(_group((), ()), dark=False, offset=None) is None
    some = _group(("BackgroundSubtraction",), (1, 3))
    text = processor_warning(some, dark=False, offset=None)
    assert "in the tiles 1, 3" in text
    assert "the other tiles keep theirs" in text
    every = _group(("BackgroundSubtraction",), (1, 2, 3))
    assert "tiles" not in processor_warning(every, dark=False, offset=None)
    assert "an offset of 100 counts is subtracted" in processor_warning(
        every, dark=False, offset=100.0
    )
    assert "dark-field is subtracted" in processor_warning(every, dark=True, offset=None)
    assert processor_warning(every, dark=False, offset=0.0) is None
    blurred = _group(("GaussianBlur",), ())
    assert "cannot be trusted" in processor_warning(blurred, dark=False, offset=None)
    assert processor_warning(blurred, dark=True, offset=None) is None
    assert processor_warning(blurred, dark=False, offset=100.0) is None
