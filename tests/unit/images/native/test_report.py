"""What `info` shows about a container, and the list for a corrected copy."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.images.native import report
from fractal_mesospim_shading.images.native.collection import SignOptions, TileCollection
from fractal_mesospim_shading.images.native.report import (
    acquisition_metadata,
    describe,
    zero_blocks,
)
from fractal_mesospim_shading.views.inspection_native import container_text
from tests.support.acquisition import (
    grid_stacks,
    stack_pixels,
    write_acquisition,
)
from tests.support.acquisition_table import SyntheticSettings

SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))
SIGNS = SignOptions(-1, -1)


def test_description(tmp_path: Path) -> None:
    stacks = grid_stacks(2, 2, SETTINGS, overlap_px=5, lasers=("488 nm", "561 nm"))
    stacks[1] = replace(stacks[1], planes=4)
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks, SETTINGS)
    found = describe(TileCollection.open(path, signs=SIGNS))
    assert json.loads(json.dumps(found)) == found
    (mosaic,) = found["mosaics"]
    assert mosaic["tile_map"] == "1  3\n2  4"
    assert mosaic["shape"] == {"c": 2, "z": 6, "y": 40, "x": 56}
    assert mosaic["overlap"] == {"y": 0.25, "x": pytest.approx(5 / 28, abs=1e-4)}
    assert mosaic["planes"] == {"smallest": 4, "largest": 6}
    assert mosaic["tiles"][0]["name"] == "Tile3"
    assert mosaic["tiles"][0]["sides"] == {"488 nm": "left", "561 nm": "left"}
    assert found["channels"][1]["label"] == "561 nm"
    entry = found["stacks"][1]
    assert (entry["planes_planned"], entry["planes_found"]) == (6, 4)
    assert (entry["chunks"], entry["shards"]) == ([4, 16, 16], None)
    on_disk = sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and f.parent != path)
    assert found["size_bytes"] == on_disk
    assert any("4 planes, 6 were planned" in line for line in found["suspicious"])


def test_the_size_of_very_many_files_is_told_from_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = [replace(stack, z_end_um=155.0) for stack in grid_stacks(2, 2, SETTINGS)]
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks, SETTINGS)
    collection = TileCollection.open(path, signs=SIGNS)
    exact = describe(collection)
    monkeypatch.setattr(report, "bytes_below", None)
    monkeypatch.setattr(report, "MOST_FILES", 80)
    some = describe(collection)
    assert (exact["size_from_some"], some["size_from_some"]) == (False, True)
    files = [f for f in path.rglob("*") if f.is_file() and f.name != "zarr.json"]
    assert some["size_bytes"] == pytest.approx(sum(f.stat().st_size for f in files), rel=0.2)
    assert sum(s["size_bytes"] for s in some["stacks"]) == some["size_bytes"]
    assert "4 stacks, about " in container_text(some)[1]
    assert "about" not in container_text(exact)[1]


def test_room_is_told_from_all_of_a_stack_and_not_from_its_first_planes(tmp_path: Path) -> None:
    """The first planes of a stack hold medium, which takes less room than tissue."""
    noise = np.random.default_rng(1).integers(0, 2**16, (64, 20, 28), np.uint16)
    noise[:32] = 0
    settings = replace(SETTINGS, chunks=(1, 10, 14), pixels=lambda _: noise)
    stacks = [replace(s, z_end_um=s.z_start_um + 63 * 5) for s in grid_stacks(1, 1, settings)]
    path = write_acquisition(tmp_path, "a.ome.zarr", stacks, settings)
    (mosaic,) = TileCollection.open(path, signs=SIGNS).mosaics()
    assert mosaic.stored_share() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("side", [1, 9])
def test_room_is_told_of_chunks_that_reach_beyond_a_stack(tmp_path: Path, side: int) -> None:
    """Also of more stacks than arrays are looked at."""
    path = write_acquisition(tmp_path, "a.ome.zarr", grid_stacks(side, side, SETTINGS), SETTINGS)
    (mosaic,) = TileCollection.open(path, signs=SIGNS).mosaics()
    files = [f for f in path.rglob("*") if f.is_file() and "c" in f.relative_to(path).parts]
    pixels = 6 * 20 * 28 * 2 * side**2
    truth = sum(f.stat().st_size for f in files) / pixels
    assert mosaic.stored_share() == pytest.approx(truth, rel=0.05)


def test_description_of_what_cannot_be_one_mosaic(tmp_path: Path) -> None:
    stacks = grid_stacks(1, 2, SETTINGS)
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks[:1], SETTINGS)
    write_acquisition(
        tmp_path, "brain.ome.zarr", stacks[1:], replace(SETTINGS, tile_shape=(10, 14))
    )
    found = describe(TileCollection.open(path, signs=SIGNS), sizes=False)
    assert found["mosaics"] == []
    assert any("differ in size" in line for line in found["suspicious"])
    assert found["size_bytes"] is None


def test_gaps_and_odd_overlaps_are_said(tmp_path: Path) -> None:
    stacks = grid_stacks(2, 2, SETTINGS, overlap_px=-4)
    path = write_acquisition(tmp_path, "a.zarr", stacks, SETTINGS)
    lines = describe(TileCollection.open(path, signs=SIGNS))["suspicious"]
    assert any("gaps between tiles along y (20% of a tile)" in line for line in lines)
    stacks = grid_stacks(2, 2, SETTINGS, overlap_px=14)
    path = write_acquisition(tmp_path, "b.zarr", stacks, SETTINGS)
    lines = describe(TileCollection.open(path, signs=SIGNS))["suspicious"]
    assert any("share 70% along y" in line for line in lines)


@pytest.mark.parametrize("shards", [None, (8, 16, 16)])
def test_zero_blocks_are_found_on_demand(
    tmp_path: Path, shards: tuple[int, int, int] | None
) -> None:
    settings = replace(SETTINGS, shards=shards)
    stacks = [replace(s, z_end_um=45.0) for s in grid_stacks(1, 2, settings, overlap_px=4)]
    path = write_acquisition(tmp_path, "a.zarr", stacks, settings)
    array = zarr.open_array(str(path / stacks[1].group_name / "0"), mode="r+")
    pixels = stack_pixels(stacks[1], settings)
    pixels[2:7, :16, 16:] = 0
    pixels[9, 3, 4] = 0
    array[...] = pixels
    collection = TileCollection.open(path, signs=SIGNS)
    assert zero_blocks(collection.url, "{}", collection.stacks[0]) == ()
    found = zero_blocks(collection.url, "{}", collection.stacks[1])
    assert found == (np.s_[2:4, 0:16, 16:28], np.s_[4:7, 0:16, 16:28])
    quiet, loud = describe(collection), describe(collection, find_zeros=True)
    assert quiet["suspicious"] == []
    (line,) = loud["suspicious"]
    assert "2 blocks of zeros, in 5 of 10 planes" in line
    (mosaic,) = collection.mosaics()
    box = (slice(0, 1), slice(0, 10), slice(0, 20), slice(0, 28))
    np.testing.assert_array_equal(mosaic.read(0, box)[0], pixels)


def test_damaged_chunk_does_not_hide_the_rest(tmp_path: Path) -> None:
    stacks = grid_stacks(1, 2, SETTINGS, overlap_px=8)
    path = write_acquisition(tmp_path, "a.zarr", stacks, SETTINGS)
    (path / stacks[0].group_name / "0" / "c" / "0" / "0" / "0").write_bytes(b"broken")
    found = describe(TileCollection.open(path))
    assert len(found["stacks"]) == 2
    assert any("c/0/0/0" in line for line in found["suspicious"])


def test_acquisition_metadata_keep_what_differs_apart(tmp_path: Path) -> None:
    stacks = grid_stacks(1, 2, SETTINGS)
    path = write_acquisition(tmp_path, "a.zarr", stacks, SETTINGS)
    found = acquisition_metadata(TileCollection.open(path, signs=SIGNS))
    assert found["common"]["CFG"]["Laser"] == "488 nm"
    assert found["common"]["OBJECTIVE_PARAMETERS"] == {"name": "Synthetic objective"}
    assert found["stacks"][stacks[1].group_name] == {
        "POSITION": {"x_pos": str(stacks[1].x_um)},
    }


def test_container_in_a_zip_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of an archive tells the sizes of all its files at once."""
    monkeypatch.setattr(report, "MOST_FILES", 0)
    stacks = grid_stacks(2, 2, SETTINGS, overlap_px=8)
    write_acquisition(tmp_path / "a", "brain.ome.zarr", stacks, SETTINGS)
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "a")
    found = describe(TileCollection.open(tmp_path / "a.zip" / "brain.ome.zarr"))
    plain = describe(TileCollection.open(tmp_path / "a" / "brain.ome.zarr"))
    assert found["suspicious"] == []
    assert found["mosaics"] == plain["mosaics"]
    assert (found["size_from_some"], plain["size_from_some"]) == (False, True)
    assert found["size_bytes"] > plain["size_bytes"] > 0
