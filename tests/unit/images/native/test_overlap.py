"""The signs of the stage's axes, measured from what neighbouring tiles share."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from fractal_mesospim_shading.images.native import overlap as projection
from fractal_mesospim_shading.images.native import stack as native_stack
from fractal_mesospim_shading.images.native.collection import SignOptions, TileCollection
from fractal_mesospim_shading.images.native.stack import BesideName, projection_file_name
from tests.support.acquisition import (
    grid_stacks,
    stack_pixels,
    write_acquisition,
)
from tests.support.acquisition_table import SyntheticSettings, project_text

SETTINGS = SyntheticSettings(tile_shape=(64, 96), chunks=(4, 32, 32))
SIGNS = list(itertools.product((1, -1), repeat=2))


def ramp(height: int, width: int) -> np.ndarray:
    """A strong shading that has nothing to do with the sample."""
    y, x = np.mgrid[:height, :width]
    return (0.5 + x / width + 0.4 * y / height).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("levels", [1, 2])
def test_measured_signs(tmp_path: Path, signs: tuple[int, int], levels: int) -> None:
    flat = {("488 nm", "Left"): ramp(64, 96)}
    settings = replace(SETTINGS, sign_x=signs[0], sign_y=signs[1], levels=levels, flatfields=flat)
    path = write_acquisition(tmp_path, "a.ome.zarr", grid_stacks(2, 2, settings), settings)
    found = TileCollection.open(path).orientation
    assert (found.sign_x, found.sign_y) == signs
    assert (found.source_x, found.source_y) == ("measured", "measured")
    assert "correlation in overlaps x" in found.text


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("projections", [True, False])
def test_stacks_that_are_too_big_to_read_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signs: tuple[int, int],
    projections: bool,
) -> None:
    monkeypatch.setattr(projection, "_CHEAP_BYTES", 1000)
    settings = replace(SETTINGS, sign_x=signs[0], sign_y=signs[1])
    stacks = grid_stacks(2, 2, settings)
    stacks[0] = replace(stacks[0], z_start_um=25.0, z_end_um=0.0)
    path = write_acquisition(tmp_path, "a.ome.zarr", stacks, settings)
    if projections:
        for stack in stacks:
            name = projection_file_name("a.ome.zarr", BesideName(stack.group_name))
            tifffile.imwrite(tmp_path / name, stack_pixels(stack, settings).max(axis=0))
            if stack.tile:
                # Only the projections are looked at.
                (path / stack.group_name / "0" / "c" / "0" / "0" / "0").unlink()
    found = TileCollection.open(path).orientation
    assert (found.sign_x, found.sign_y, found.source_x) == (*signs, "measured")


def test_big_stacks_are_read_within_single_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "_CHEAP_BYTES", 1000)
    settings = replace(SETTINGS, tile_shape=(64, 96), chunks=(4, 32, 96))
    path = write_acquisition(tmp_path, "a.ome.zarr", grid_stacks(1, 2, settings), settings)
    read_array, boxes = native_stack.read_array, []

    def watching(array: object, where: str, box: tuple[slice, ...]) -> np.ndarray:
        boxes.append(box)
        return read_array(array, where, box)

    monkeypatch.setattr(native_stack, "read_array", watching)
    assert TileCollection.open(path).orientation.source_x == "measured"
    # Two strips for each of two tiles.
    assert len(boxes) == 4
    for box in boxes:
        chunks = [
            (part.stop - 1) // size - part.start // size
            for part, size in zip(box, (4, 32, 96), strict=True)
        ]
        assert chunks == [0, 0, 0]


def test_one_column_leaves_x_at_its_default(tmp_path: Path) -> None:
    settings = replace(SETTINGS, sign_y=1)
    path = write_acquisition(tmp_path, "a.ome.zarr", grid_stacks(3, 1, settings), settings)
    found = TileCollection.open(path).orientation
    assert (found.sign_x, found.source_x) == (-1, "default")
    assert (found.sign_y, found.source_y) == (1, "measured")


def test_tiles_without_overlap_give_the_default(tmp_path: Path) -> None:
    path = write_acquisition(
        tmp_path, "a.ome.zarr", grid_stacks(2, 2, SETTINGS, overlap_px=0), SETTINGS
    )
    found = TileCollection.open(path).orientation
    assert (found.source_x, found.source_y) == ("default", "default")


def test_order_of_trust(tmp_path: Path) -> None:
    settings = replace(SETTINGS, version="0.4", xml=True, sign_x=1)
    path = write_acquisition(tmp_path, "a.ome.zarr", grid_stacks(2, 2, settings), settings)
    found = TileCollection.open(path, signs=SignOptions(sign_y=1)).orientation
    assert (found.sign_x, found.source_x) == (1, "xml")
    assert (found.sign_y, found.source_y) == (1, "option")
    assert found.text == "Sign of the stage axes in the image: x +1 (xml), y +1 (option)."


def test_project_file_against_the_overlaps_is_used_but_said(tmp_path: Path) -> None:
    # The writer's own default does not flip, whatever the stage does.
    stacks = grid_stacks(2, 2, SETTINGS)
    settings = replace(SETTINGS, version="0.4", levels=2)
    path = write_acquisition(tmp_path, "a.ome.zarr", stacks, settings)
    unflipped = replace(settings, sign_x=1, sign_y=1)
    (tmp_path / "a.ome.zarr.xml").write_text(project_text("a.ome.zarr", stacks, unflipped))
    collection = TileCollection.open(path)
    found = collection.orientation
    assert (found.sign_x, found.sign_y, found.source_x, found.source_y) == (1, 1, "xml", "xml")
    (note,) = collection.mosaics()[0].notes
    assert "give sign_x=-1, sign_y=-1" in note
    told = TileCollection.open(path, signs=SignOptions(-1, -1))
    assert told.mosaics()[0].notes == ()


def test_project_file_is_not_checked_where_that_is_dear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "_CHEAP_BYTES", 1000)
    settings = replace(SETTINGS, version="0.4", xml=True)
    path = write_acquisition(tmp_path, "a.ome.zarr", grid_stacks(2, 2, settings), settings)

    def refuse(*_: object) -> None:
        raise AssertionError("a chunk was read")

    monkeypatch.setattr(native_stack, "read_array", refuse)
    assert TileCollection.open(path).orientation.source_x == "xml"


def test_columns_lit_from_different_sides(tmp_path: Path) -> None:
    settings = replace(SETTINGS, sign_x=1)
    first, second = grid_stacks(1, 2, settings)
    stacks = [first, replace(second, shutter="Right")]
    path = write_acquisition(tmp_path, "a.ome.zarr", stacks, settings)
    found = TileCollection.open(path).orientation
    assert (found.sign_x, found.source_x) == (1, "measured")
