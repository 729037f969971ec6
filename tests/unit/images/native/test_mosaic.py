"""Virtual mosaics of native stacks against plain pasting of the known planes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import LayoutError, ParameterError, SourceReadError
from fractal_mesospim_shading.images.native import stack as native_stack
from fractal_mesospim_shading.images.native.collection import SignOptions, TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from tests.support.acquisition import (
    grid_stacks,
    stack_pixels,
    write_acquisition,
)
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack

SIGNS = SignOptions(-1, -1)
SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))


def pasted(
    stacks: Sequence[SyntheticStack], settings: SyntheticSettings, shape: tuple[int, ...]
) -> NDArray[np.uint16]:
    """Each known plane at its row, column and height, one by one."""
    lasers = sorted({stack.laser for stack in stacks})
    xs = sorted({settings.sign_x * stack.x_um for stack in stacks})
    ys = sorted({settings.sign_y * stack.y_um for stack in stacks})
    heights = []
    for stack in stacks:
        step = settings.z_step_um * (-1 if stack.z_end_um < stack.z_start_um else 1)
        count = len(stack_pixels(stack, settings))
        heights.append([stack.z_start_um + k * step for k in range(count)])
    lowest = min(min(z) for z in heights)
    result = np.zeros(shape, np.uint16)
    height, width = settings.tile_shape
    for stack, zs in zip(stacks, heights, strict=True):
        row, column = ys.index(settings.sign_y * stack.y_um), xs.index(settings.sign_x * stack.x_um)
        for plane, z in zip(stack_pixels(stack, settings), zs, strict=True):
            k = round((z - lowest) / settings.z_step_um)
            y, x = row * height, column * width
            result[lasers.index(stack.laser), k, y : y + height, x : x + width] = plane
    return result


def whole(mosaic: NativeMosaic) -> NDArray[Any]:
    return mosaic.read(0, tuple(slice(0, size) for size in mosaic.shape))


def open_one(
    folder: Path,
    stacks: Sequence[SyntheticStack],
    settings: SyntheticSettings = SETTINGS,
    signs: SignOptions = SIGNS,
) -> NativeMosaic:
    path = write_acquisition(folder, "brain.ome.zarr", stacks, settings)
    (mosaic,) = TileCollection.open(path, signs=signs).mosaics()
    return mosaic


def table(rows: int = 2, columns: int = 3, **more: Any) -> list[SyntheticStack]:
    return grid_stacks(rows, columns, SETTINGS, overlap_px=4, **more)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, version="0.4"),
        replace(SETTINGS, shards=(4, 32, 32)),
        replace(SETTINGS, levels=2, version="0.4", xml=True),
    ],
    ids=["0.5", "0.4", "sharded", "pyramid"],
)
def test_whole_mosaic(tmp_path: Path, settings: SyntheticSettings) -> None:
    stacks = table(lasers=("561 nm", "488 nm"))
    mosaic = open_one(tmp_path, stacks, settings)
    assert mosaic.shape == (2, 6, 40, 84)
    assert [channel.label for channel in mosaic.channels] == ["488 nm", "561 nm"]
    np.testing.assert_array_equal(whole(mosaic), pasted(stacks, settings, mosaic.shape))


@pytest.mark.parametrize("direction", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_numbers_follow_places_whatever_the_start_corner(
    tmp_path: Path, direction: tuple[int, int]
) -> None:
    stacks = table(direction=direction)
    mosaic = open_one(tmp_path, stacks)
    np.testing.assert_array_equal(whole(mosaic), pasted(stacks, SETTINGS, mosaic.shape))
    # Both axes of the stage run against the image: the highest x is the first column.
    first = max(stacks, key=lambda stack: (stack.x_um, stack.y_um))
    below = max(
        (s for s in stacks if s.y_um < first.y_um), key=lambda stack: (stack.x_um, stack.y_um)
    )
    assert mosaic.layout.tile(1).name == f"Tile{first.tile}"
    assert mosaic.layout.tile(2).name == f"Tile{below.tile}"
    if direction == (-1, -1):
        assert mosaic.numbering is None
    else:
        assert f"1 is Tile{first.tile}" in (mosaic.numbering or "")


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1)])
def test_signs_mirror_the_grid(tmp_path: Path, signs: tuple[int, int]) -> None:
    settings = replace(SETTINGS, sign_x=signs[0], sign_y=signs[1])
    stacks = table()
    mosaic = open_one(tmp_path, stacks, settings, SignOptions(*signs))
    np.testing.assert_array_equal(whole(mosaic), pasted(stacks, settings, mosaic.shape))


def test_boxes_equal_parts_of_the_whole(tmp_path: Path) -> None:
    stacks = table(lasers=("488 nm", "561 nm"))
    stacks[3] = replace(stacks[3], planes=2)
    mosaic = open_one(tmp_path, stacks)
    everything = pasted(stacks, SETTINGS, mosaic.shape)
    rng = np.random.default_rng(1)
    for _ in range(30):
        corners = [sorted(rng.choice(size + 1, 2, replace=False)) for size in mosaic.shape]
        box = tuple(slice(int(a), int(b)) for a, b in corners)
        np.testing.assert_array_equal(mosaic.read(0, box), everything[box])


def test_downward_scans_and_other_starts_meet_at_their_heights(tmp_path: Path) -> None:
    stacks = table(2, 2)
    stacks[0] = replace(stacks[0], z_start_um=25.0, z_end_um=0.0)
    stacks[1] = replace(stacks[1], z_start_um=-10.0, z_end_um=15.0)
    # Stopped after three planes from the top: they lie at 35, 30 and 25 um.
    stacks[2] = replace(stacks[2], z_start_um=35.0, z_end_um=0.0, planes=3)
    mosaic = open_one(tmp_path, stacks)
    assert mosaic.shape[1] == 10
    assert mosaic.z_start_um == -10.0
    np.testing.assert_array_equal(whole(mosaic), pasted(stacks, SETTINGS, mosaic.shape))
    number = next(place.number for place in mosaic.places if place.name == "Tile2")
    assert mosaic.planes_of(0, number) == range(7, 10)
    assert any("do not fill all 10 planes" in note for note in mosaic.notes)


def test_part_of_a_downward_scan(tmp_path: Path) -> None:
    stacks = [replace(s, z_start_um=25.0, z_end_um=0.0) for s in table(1, 1)]
    mosaic = open_one(tmp_path, stacks)
    for start in range(6):
        for stop in range(start + 1, 7):
            box = (slice(0, 1), slice(start, stop), slice(3, 9), slice(5, 6))
            found = mosaic.read(0, box)
            expected = np.stack(
                [stack_pixels(stacks[0], SETTINGS)[5 - z] for z in range(start, stop)]
            )
            np.testing.assert_array_equal(found[0], expected[:, 3:9, 5:6])


def test_channels_of_one_tile_may_start_at_different_heights(tmp_path: Path) -> None:
    stacks = table(1, 2, lasers=("488 nm", "561 nm"))
    stacks = [
        replace(s, z_start_um=10.0, z_end_um=35.0) if s.laser == "561 nm" else s for s in stacks
    ]
    mosaic = open_one(tmp_path, stacks)
    found = whole(mosaic)
    np.testing.assert_array_equal(found, pasted(stacks, SETTINGS, mosaic.shape))
    assert not found[1, :2].any()
    assert not found[0, 6:].any()


def test_planes_between_planes_go_to_the_nearest(tmp_path: Path) -> None:
    stacks = table(1, 2)
    stacks[1] = replace(stacks[1], z_start_um=7.0, z_end_um=32.0)
    mosaic = open_one(tmp_path, stacks)
    number = next(place.number for place in mosaic.places if place.name == "Tile1")
    assert mosaic.planes_of(0, number) == range(1, 7)
    assert any("at most half a step (2.5 um)" in note for note in mosaic.notes)


def test_missing_corner_stays_empty_and_keeps_its_number(tmp_path: Path) -> None:
    stacks = table(3, 3)
    corner = max(stacks, key=lambda stack: (stack.x_um, stack.y_um))
    # The microscope closes the gap in its own numbers.
    rest = [s for s in stacks if s is not corner]
    rest = [replace(s, tile=number) for number, s in enumerate(rest)]
    mosaic = open_one(tmp_path, rest)
    assert mosaic.layout.missing == (1,)
    found = whole(mosaic)
    np.testing.assert_array_equal(found, pasted(rest, SETTINGS, mosaic.shape))
    assert not found[..., :20, :28].any()
    assert any("missing in the mosaic" in note for note in mosaic.notes)


def test_missing_row_leaves_its_gap(tmp_path: Path) -> None:
    stacks = [stack for stack in table(4, 2) if stack.tile % 4 != 1]
    mosaic = open_one(tmp_path, stacks)
    assert mosaic.shape[2] == 4 * 20
    found = whole(mosaic)
    assert not found[0, :, 40:60].any()
    assert found[0, 0, 20:40].all()
    assert found[0, 0, 60:].all()


def test_places_are_those_of_the_stage(tmp_path: Path) -> None:
    stacks = table(2, 2)
    stacks = [replace(s, x_um=s.x_um + 0.37 * s.tile) for s in stacks]
    mosaic = open_one(tmp_path, stacks)
    top, left = max(s.y_um for s in stacks), max(s.x_um for s in stacks)
    for place in mosaic.places:
        stack = next(s for s in stacks if f"Tile{s.tile}" == place.name)
        assert (place.stage_x_um, place.stage_y_um) == (stack.x_um, stack.y_um)
        assert place.x_px == pytest.approx((left - stack.x_um) / 2.0)
        assert place.y_px == pytest.approx((top - stack.y_um) / 2.0)
        assert mosaic.original_um()[place.number] == pytest.approx(
            (left - stack.x_um, top - stack.y_um)
        )
        assert mosaic.origins_px[place.number] == (place.y_px, place.x_px)


def test_chunks_lie_where_the_frame_of_a_tile_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes between neighbouring chunk edges open one chunk each, downward scans as well."""
    stacks = table(2, 2)
    stacks[0] = replace(stacks[0], z_start_um=25.0, z_end_um=0.0)
    stacks[1] = replace(stacks[1], z_start_um=-10.0, z_end_um=15.0)
    mosaic = open_one(tmp_path, stacks)
    read_array, boxes = native_stack.read_array, []

    def noting(array: Any, where: str, box: tuple[slice, ...]) -> NDArray[Any]:
        boxes.append(box)
        return read_array(array, where, box)

    monkeypatch.setattr(native_stack, "read_array", noting)
    units = mosaic.read_units(0)[-3:]
    for tile in mosaic.layout.tiles:
        frame = mosaic.chunk_frame(0, tile.number)
        edges = []
        for corner, (low, stop), unit in zip(frame.corner, frame.spans, units, strict=True):
            inner = {corner + k * unit for k in range(-9, 9)} & set(range(low, stop))
            edges.append(sorted({low, stop} | inner))
        spans = [[slice(a, b) for a, b in pairwise(e)] for e in edges]
        for box in product(*spans):
            boxes.clear()
            mosaic.read(0, (slice(0, 1), *box))
            (read,) = boxes
            assert all(
                part.start // u == (part.stop - 1) // u for part, u in zip(read, units, strict=True)
            )


def test_each_stack_is_read_once_for_a_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = table(2, 2, lasers=("488 nm", "561 nm"))
    mosaic = open_one(tmp_path, stacks)
    read_array, calls = native_stack.read_array, []

    def counting(array: Any, where: str, box: tuple[slice, ...]) -> NDArray[Any]:
        calls.append(where)
        return read_array(array, where, box)

    monkeypatch.setattr(native_stack, "read_array", counting)
    whole(mosaic)
    assert len(calls) == len(set(calls)) == 8


def test_pickled_mosaic_reads_the_same(tmp_path: Path) -> None:
    mosaic = open_one(tmp_path, table())
    box = (slice(0, 1), slice(1, 4), slice(5, 33), slice(20, 60))
    copy = pickle.loads(pickle.dumps(mosaic))
    assert copy == mosaic
    np.testing.assert_array_equal(copy.read(0, box), mosaic.read(0, box))


def test_level_and_units(tmp_path: Path) -> None:
    mosaic = open_one(tmp_path, table())
    assert mosaic.axes == "czyx"
    assert mosaic.levels[0].scale == (1.0, 5.0, 2.0, 2.0)
    assert mosaic.read_units(0) == (1, 4, 16, 16)
    assert mosaic.voxel_size_um == {"z": 5.0, "y": 2.0, "x": 2.0}
    with pytest.raises(ParameterError, match="level 0"):
        mosaic.read(1, (slice(0, 1),) * 4)
    with pytest.raises(LayoutError, match="Tile 9"):
        mosaic.place_of(9)


def test_unreadable_chunk_is_named(tmp_path: Path) -> None:
    stacks = table(1, 2)
    mosaic = open_one(tmp_path, stacks)
    chunk = tmp_path / "brain.ome.zarr" / stacks[1].group_name / "0" / "c" / "1" / "0" / "1"
    chunk.write_bytes(b"broken")
    intact = (slice(0, 1), slice(0, 4), slice(0, 20), slice(0, 56))
    assert mosaic.read(0, intact).all()
    with pytest.raises(SourceReadError, match=r"Tile1_.*/0/c/1/0/1"):
        whole(mosaic)


def test_unequal_tiles_are_refused_with_their_names(tmp_path: Path) -> None:
    stacks = table(1, 2)
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks[:1], SETTINGS)
    write_acquisition(
        tmp_path, "brain.ome.zarr", stacks[1:], replace(SETTINGS, tile_shape=(10, 14))
    )
    collection = TileCollection.open(path, signs=SIGNS)
    with pytest.raises(LayoutError, match=r"(?s)\(20, 28\).*Tile0.*\(10, 14\).*Tile1"):
        collection.mosaics()
    (rest,) = TileCollection.open(
        path, signs=SIGNS, exclude_groups=[stacks[1].group_name]
    ).mosaics()
    assert rest.shape == (1, 6, 20, 28)


def test_unequal_plane_distance_is_refused(tmp_path: Path) -> None:
    stacks = table(1, 2)
    path = write_acquisition(tmp_path, "brain.ome.zarr", stacks[:1], SETTINGS)
    write_acquisition(tmp_path, "brain.ome.zarr", stacks[1:], replace(SETTINGS, z_step_um=2.5))
    with pytest.raises(LayoutError, match=r"(?s)distance of planes.*5.0.*2.5"):
        TileCollection.open(path, signs=SIGNS).mosaics()


def test_guessed_sign_is_said(tmp_path: Path) -> None:
    stacks = grid_stacks(2, 1, SETTINGS, overlap_px=0)
    mosaic = open_one(tmp_path, stacks, signs=SignOptions())
    (note,) = mosaic.notes
    assert "stage y" in note
    assert "sign_y" in note
