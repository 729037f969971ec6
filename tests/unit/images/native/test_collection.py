"""Native acquisitions: samples of the real writer, and the traps that readers fall into."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import (
    ImageFormatError,
    ImageNotFoundError,
    LayoutError,
    ParameterError,
)
from fractal_mesospim_shading.images.native.collection import (
    SignOptions,
    TileCollection,
)
from fractal_mesospim_shading.images.native.container import is_container
from tests.support.acquisition import (
    grid_stacks,
    stack_pixels,
    write_acquisition,
    write_stack,
)
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack

SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))
SIGNS = SignOptions(-1, -1)


@pytest.fixture(scope="module", params=["v04", "v05"])
def sample(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    unpack: Callable[[str, Path], None],
) -> tuple[Path, dict[str, Any]]:
    """A container of the real writer, and what is true about it."""
    folder = tmp_path_factory.mktemp(request.param)
    unpack(f"native_{request.param}", folder)
    (truth_file,) = folder.rglob("truth.npz")
    truth = json.loads(str(np.load(truth_file)["truth"]))
    (container,) = truth_file.parent.glob("*.zarr")
    return container, truth


def table(rows: int = 2, columns: int = 2, **more: Any) -> list[SyntheticStack]:
    return grid_stacks(rows, columns, SETTINGS, overlap_px=4, **more)


def write(
    folder: Path,
    stacks: Sequence[SyntheticStack],
    settings: SyntheticSettings = SETTINGS,
    name: str = "brain.ome.zarr",
) -> Path:
    return write_acquisition(folder, name, stacks, settings)


def meta_path(container: Path, stack: SyntheticStack) -> Path:
    return container.parent / f"{container.name}_{stack.group_name}_meta.txt"


def warned(collection: TileCollection, *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in collection.warnings)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestSamples:
    """Acquisitions written by mesoSPIM-control itself."""

    @pytest.mark.slow
    def test_positions_equal_the_truth(self, sample: tuple[Path, dict[str, Any]]) -> None:
        container, truth = sample
        (mosaic,) = TileCollection.open(container).mosaics()
        assert len(truth["acquisitions"]) == len(mosaic.placed) == 18
        for item in truth["acquisitions"]:
            (placed,) = (p for p in mosaic.placed if p.stack.group == item["group"])
            place = mosaic.place_of(placed.tile)
            assert place.x_px == pytest.approx(item["x0_px"], abs=0.01)
            assert place.y_px == pytest.approx(item["y0_px"], abs=0.01)
            assert placed.first_plane == item["z0_plane"]
            assert placed.stack.planes_planned == item["planes_meta"]
            assert placed.stack.planes_found == item["planes_pushed"]
            assert placed.stack.side == item["side"].lower()
            assert mosaic.native_channels[placed.channel].laser == item["laser"]

    def test_grid_by_place(self, sample: tuple[Path, dict[str, Any]]) -> None:
        container, truth = sample
        (mosaic,) = TileCollection.open(container).mosaics()
        assert (mosaic.layout.rows, mosaic.layout.columns) == (3, 3)
        places = {(round(i["x0_px"], 6), round(i["y0_px"], 6)) for i in truth["acquisitions"]}
        for number, (x, y) in enumerate(sorted(places), start=1):
            place = mosaic.place_of(number)
            assert (place.x_px, place.y_px) == pytest.approx((x, y), abs=1e-5)

    def test_nothing_is_suspicious(self, sample: tuple[Path, dict[str, Any]]) -> None:
        container, _ = sample
        collection = TileCollection.open(container)
        assert collection.warnings == ()
        assert collection.mosaics()[0].notes == ()
        assert [c.label for c in collection.channels] == ["488 nm", "561 nm"]
        assert collection.channels[0].filter == "520/35 BrightLine"

    @pytest.mark.slow
    def test_sign_by_file_and_by_measurement_agree(
        self, sample: tuple[Path, dict[str, Any]], tmp_path: Path
    ) -> None:
        container, _ = sample
        found = TileCollection.open(container).orientation
        assert (found.sign_x, found.sign_y) == (-1, -1)
        has_xml = container.with_name(container.name + ".xml").exists()
        assert found.source_x == ("xml" if has_xml else "measured")
        # Without the files beside it, positions come from NGFF and signs from the pixels.
        alone = shutil.copytree(container, tmp_path / container.name)
        collection = TileCollection.open(alone)
        assert collection.orientation.source_x == collection.orientation.source_y == "measured"
        assert (collection.orientation.sign_x, collection.orientation.sign_y) == (-1, -1)
        assert warned(collection, "no metadata files", "NGFF")
        with_files = TileCollection.open(container).mosaics()[0].places
        assert collection.mosaics()[0].places == with_files

    def test_pixels_are_those_of_the_stacks(self, sample: tuple[Path, dict[str, Any]]) -> None:
        container, _ = sample
        (mosaic,) = TileCollection.open(container).mosaics()
        data = mosaic.read(0, tuple(slice(0, size) for size in mosaic.shape))
        for placed in mosaic.placed:
            tile = mosaic.layout.tile(placed.tile)
            height, width = mosaic.layout.tile_shape
            array = zarr.open_array(str(container / placed.stack.group / "0"), mode="r")
            found = data[placed.channel, :, tile.y : tile.y + height, tile.x : tile.x + width]
            np.testing.assert_array_equal(found, array[...])

    def test_overlaps_agree_at_the_places_given(self, sample: tuple[Path, dict[str, Any]]) -> None:
        container, truth = sample
        (mosaic,) = TileCollection.open(container).mosaics()
        data = mosaic.read(0, tuple(slice(0, size) for size in mosaic.shape))[0].mean(axis=0)
        height, width = mosaic.layout.tile_shape
        flat = np.load(container.parent / "truth.npz")["flatfield_488"]

        def tile_image(number: int) -> np.ndarray:
            tile = mosaic.layout.tile(number)
            raw = data[tile.y : tile.y + height, tile.x : tile.x + width]
            return (raw - truth["offset"]) / flat

        for first, second in ((5, 6), (5, 8), (4, 5), (2, 5)):
            a, b = mosaic.place_of(first), mosaic.place_of(second)
            dy, dx = round(b.y_px - a.y_px), round(b.x_px - a.x_px)
            left = tile_image(first)[dy:, dx:]
            right = tile_image(second)[: height - dy, : width - dx]
            assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.95

    def test_acquisition_stays_as_it_is(self, sample: tuple[Path, dict[str, Any]]) -> None:
        container, _ = sample
        before = snapshot(container.parent)
        (mosaic,) = TileCollection.open(container).mosaics()
        mosaic.read(0, tuple(slice(0, size) for size in mosaic.shape))
        assert snapshot(container.parent) == before


class TestStructure:
    """Channels, sides, angles and separate mosaics."""

    def test_label_names_the_filter_where_a_laser_has_several(self, tmp_path: Path) -> None:
        stacks = [
            replace(stack, filter=name)
            for stack in table(1, 2, lasers=("488 nm", "561 nm"))
            for name in (("520/35", "Empty") if stack.laser == "488 nm" else ("LP",))
        ]
        collection = TileCollection.open(write(tmp_path, stacks), signs=SIGNS)
        assert [c.label for c in collection.channels] == ["488 nm 520/35", "488 nm Empty", "561 nm"]
        (mosaic,) = collection.mosaics()
        assert [c.wavelength_id for c in mosaic.channels] == [
            "488 nm 520/35",
            "488 nm Empty",
            "561",
        ]

    def test_filter_in_the_name_is_the_filter_in_the_file(self, tmp_path: Path) -> None:
        stacks = table(1, 2)
        container = write(tmp_path, stacks)
        meta_path(container, stacks[0]).unlink()
        collection = TileCollection.open(container, signs=SIGNS)
        assert [(c.label, c.filter) for c in collection.channels] == [
            ("488 nm", "520/35 BrightLine")
        ]

    def test_both_sides_of_each_tile_make_two_mosaics(self, tmp_path: Path) -> None:
        stacks = table(shutters=("Left", "Right"))
        left, right = TileCollection.open(write(tmp_path, stacks), signs=SIGNS).mosaics()
        assert (left.side, right.side) == ("left", "right")
        assert (left.suffix, right.suffix) == ("left", "right")
        assert len(left.placed) == len(right.placed) == 4
        assert left.notes == right.notes == ()

    def test_one_side_for_each_tile_makes_one_mosaic(self, tmp_path: Path) -> None:
        middle = np.median([stack.x_um for stack in table()])
        stacks = [
            replace(stack, shutter="Right" if stack.x_um < middle else "Left") for stack in table()
        ]
        (mosaic,) = TileCollection.open(write(tmp_path, stacks), signs=SIGNS).mosaics()
        assert mosaic.side is None
        assert mosaic.sides(0) == ("left", "right")
        # High stage x is image left.
        assert [mosaic.side_of(0, number) for number in (1, 2, 3, 4)] == [
            "left",
            "left",
            "right",
            "right",
        ]
        assert [sorted(group.planes) for group in mosaic.model_groups] == [[1, 2], [3, 4]]

    def test_one_tile_with_two_sides_does_not_split(self, tmp_path: Path) -> None:
        stacks = table(2, 3)
        stacks.append(replace(stacks[0], shutter="Right", started="20260101-130000"))
        (mosaic,) = TileCollection.open(write(tmp_path, stacks), signs=SIGNS).mosaics()
        assert len(mosaic.placed) == 6
        assert any(stacks[0].group_name in note for note in mosaic.notes)
        assert sorted(mosaic.sides(0)) == ["left", "right"]

    def test_both_is_told_by_the_shutter_not_by_the_name(self, tmp_path: Path) -> None:
        stacks = [replace(stack, shutter="Both") for stack in table(1, 2)]
        container = write(tmp_path, stacks)
        assert "_Sh1_" in stacks[0].group_name
        assert {s.side for s in TileCollection.open(container, signs=SIGNS).stacks} == {"both"}
        meta_path(container, stacks[0]).unlink()
        collection = TileCollection.open(container, signs=SIGNS)
        assert {s.side for s in collection.stacks} == {"both", "right"}
        assert warned(collection, "right or from both sides")

    def test_angles_are_mosaics_of_their_own(self, tmp_path: Path) -> None:
        first = table()
        second = [replace(s, rotation=-90.0, tile=s.tile + 4) for s in first]
        turned, straight = TileCollection.open(
            write(tmp_path, [*first, *second]), signs=SIGNS
        ).mosaics()
        assert (turned.rotation, straight.rotation) == (-90.0, 0.0)
        assert (turned.suffix, straight.suffix) == ("Rot-90", "Rot0")
        assert turned.layout.tile(1).name == "Tile7"

    def test_mosaics_far_apart_are_split_and_named(self, tmp_path: Path) -> None:
        here = table()
        there = [replace(s, x_um=s.x_um + 20000.0, tile=s.tile + 4) for s in here]
        left, right = TileCollection.open(write(tmp_path, [*here, *there]), signs=SIGNS).mosaics()
        assert {place.name for place in left.places} == {"Tile4", "Tile5", "Tile6", "Tile7"}
        assert {place.name for place in right.places} == {"Tile0", "Tile1", "Tile2", "Tile3"}
        assert left.shape == right.shape == (1, 6, 40, 56)
        assert (left.suffix, right.suffix) == ("part1", "part2")
        for name in ("Tile0", "Tile4", "far apart"):
            assert all(any(name in note for note in m.notes) for m in (left, right))

    def test_same_place_at_two_heights_makes_two_mosaics(self, tmp_path: Path) -> None:
        low = table()
        high = [replace(s, z_start_um=100.0, z_end_um=125.0, tile=s.tile + 4) for s in low]
        first, second = TileCollection.open(write(tmp_path, [*low, *high]), signs=SIGNS).mosaics()
        assert (first.z_start_um, second.z_start_um) == (0.0, 100.0)
        assert len(first.placed) == len(second.placed) == 4
        assert any("several heights" in note for note in first.notes)

    def test_names_with_numbers_above_nine_sort_as_numbers(self, tmp_path: Path) -> None:
        collection = TileCollection.open(write(tmp_path, table(1, 12)), signs=SIGNS)
        assert [stack.number for stack in collection.stacks] == list(range(12))

    @pytest.mark.parametrize(
        ("name", "stem", "time"),
        [("my brain (2) ä.zarr", "my brain (2) ä", None), ("b.ome_Time003.zarr", "b", 3)],
    )
    def test_odd_and_time_lapse_names(
        self, tmp_path: Path, name: str, stem: str, time: int | None
    ) -> None:
        stacks = [replace(s, zoom="4x Olympus", filter="a (b), c") for s in table(1, 2)]
        collection = TileCollection.open(write(tmp_path, stacks, name=name), signs=SIGNS)
        assert (collection.name, collection.time_point) == (stem, time)
        assert collection.warnings == ()
        assert collection.stacks[0].filter == "a (b), c"
        assert len(collection.mosaics()[0].placed) == 2


class TestOlderNames:
    """Groups as development versions of 2025 named them."""

    def old(self, stacks: list[SyntheticStack]) -> list[SyntheticStack]:
        return [replace(s, group=f"s{number}-t0.zarr") for number, s in enumerate(stacks)]

    def test_name_without_filter(self, tmp_path: Path) -> None:
        stacks = [
            replace(s, group=f"Mag2_Tile{s.tile}_Ch488_Sh0_Rot0.0.ome.zarr") for s in table(1, 2)
        ]
        with_files = TileCollection.open(write(tmp_path, stacks), signs=SIGNS)
        assert with_files.channels[0].filter == "520/35 BrightLine"
        without = write(tmp_path / "b", stacks, replace(SETTINGS, meta=False))
        assert TileCollection.open(without, signs=SIGNS).channels[0].label == "488 nm"

    def test_setups_with_metadata_files(self, tmp_path: Path) -> None:
        stacks = self.old(table(lasers=("488 nm", "561 nm")))
        (mosaic,) = TileCollection.open(write(tmp_path, stacks), signs=SIGNS).mosaics()
        assert [c.label for c in mosaic.channels] == ["488 nm", "561 nm"]
        assert len(mosaic.placed) == 8

    def test_setups_with_a_project_file_only(self, tmp_path: Path) -> None:
        settings = replace(SETTINGS, version="0.4", meta=False, xml=True)
        stacks = self.old(table(lasers=("488 nm", "561 nm")))
        collection = TileCollection.open(write(tmp_path, stacks, settings))
        assert [c.label for c in collection.channels] == ["488 nm", "561 nm"]
        assert {stack.number for stack in collection.stacks} == {0, 1, 2, 3}
        assert collection.orientation.source_x == "xml"
        assert len(collection.mosaics()[0].placed) == 8

    def test_setups_without_anything_get_channels_by_order(self, tmp_path: Path) -> None:
        settings = replace(SETTINGS, meta=False)
        stacks = self.old(table(lasers=("488 nm", "561 nm")))
        collection = TileCollection.open(write(tmp_path, stacks, settings), signs=SIGNS)
        assert [c.label for c in collection.channels] == ["channel 0", "channel 1"]
        assert warned(collection, "Each of the 8 stacks", "does not say its laser")
        (mosaic,) = collection.mosaics()
        tile = mosaic.layout.tile(4)
        box = (slice(1, 2), slice(0, 6), slice(tile.y, tile.y + 20), slice(tile.x, tile.x + 28))
        np.testing.assert_array_equal(mosaic.read(0, box)[0], stack_pixels(stacks[1], SETTINGS))


class TestDefects:
    """What the microscope's writer leaves behind; each is said, none stops the reading."""

    def test_stopped_stack(self, tmp_path: Path) -> None:
        stacks = table()
        stacks[3] = replace(stacks[3], planes=2)
        collection = TileCollection.open(write(tmp_path, stacks), signs=SIGNS)
        assert warned(collection, stacks[3].group_name, "holds 2 planes, 6 were planned")
        assert collection.mosaics()[0].shape[1] == 6

    def test_stale_stack_of_the_same_place(self, tmp_path: Path) -> None:
        stacks = table()
        stale = replace(stacks[2], tile=9, started="20251231-120000")
        collection = TileCollection.open(write(tmp_path, [stale, *stacks]), signs=SIGNS)
        (mosaic,) = collection.mosaics()
        assert {p.stack.group for p in mosaic.placed} == {s.group_name for s in stacks}
        assert any(
            f"'{stacks[2].group_name}' is used" in note and stale.group_name in note
            for note in mosaic.notes
        )
        other = TileCollection.open(
            collection.url, signs=SIGNS, exclude_groups=[stacks[2].group_name]
        )
        assert stale.group_name in {p.stack.group for p in other.mosaics()[0].placed}
        assert warned(other, "excluded")

    def test_stale_stack_beside_the_project_file(self, tmp_path: Path) -> None:
        settings = replace(SETTINGS, version="0.4", xml=True)
        container = write(tmp_path, table(), settings)
        extra = replace(table(3, 2)[2], tile=7)
        write_stack(container, extra, settings)
        collection = TileCollection.open(container)
        assert warned(collection, "project file does not list", extra.group_name)
        assert len(collection.stacks) == 5

    def test_selected_row_run_again_has_the_name_of_another_tile(self, tmp_path: Path) -> None:
        stacks = table(1, 3)
        # The third tile was run alone: it is called Tile0 and lies where the first one was.
        rerun = replace(stacks[2], tile=0)
        container = write(tmp_path, [stacks[1], rerun])
        (mosaic,) = TileCollection.open(container, signs=SIGNS).mosaics()
        assert {p.name: p.number for p in mosaic.places} == {"Tile0": 1, "Tile1": 2}

    def test_translation_that_a_conversion_tool_overwrote(self, tmp_path: Path) -> None:
        stacks = table()
        container = write(tmp_path, stacks)
        expected = TileCollection.open(container, signs=SIGNS).mosaics()[0].places
        for number, stack in enumerate(stacks):
            path = container / stack.group_name / "zarr.json"
            document = json.loads(path.read_text())
            dataset = document["attributes"]["ome"]["multiscales"][0]["datasets"][0]
            place = [0.0, 40.0 * (number % 2), 56.0 * (number // 2)]
            dataset["coordinateTransformations"][1]["translation"] = place
            path.write_text(json.dumps(document))
        collection = TileCollection.open(container, signs=SIGNS)
        assert warned(collection, "Each of the 4 stacks", "differs from its metadata file")
        assert collection.mosaics()[0].places == expected

    def test_overwritten_translations_without_metadata_files(self, tmp_path: Path) -> None:
        # Edge to edge from 0 on, as that tool writes them: nothing else is left to go by.
        stacks = grid_stacks(2, 2, SETTINGS, overlap_px=0, start_um=(0.0, 0.0))
        container = write(tmp_path, stacks, replace(SETTINGS, meta=False))
        collection = TileCollection.open(container)
        assert warned(collection, "no metadata files")
        assert warned(collection, "conversion tool has probably overwritten")
        true_places = write(tmp_path / "b", table(), replace(SETTINGS, meta=False))
        assert not warned(TileCollection.open(true_places), "conversion tool")

    def test_metadata_file_of_another_container(self, tmp_path: Path) -> None:
        stacks = table()
        container = write(tmp_path, stacks)
        other = write(
            tmp_path / "other", [replace(s, x_um=s.x_um + 500) for s in stacks], name="o.zarr"
        )
        shutil.copy(meta_path(other, stacks[0]), meta_path(container, stacks[0]))
        collection = TileCollection.open(container, signs=SIGNS)
        assert warned(collection, stacks[0].group_name, "another container", "not used")
        assert collection.stacks[0].x_um == stacks[0].x_um
        assert collection.stacks[0].position_source == "ngff"

    def test_renamed_acquisition_keeps_its_metadata_files(self, tmp_path: Path) -> None:
        stacks = [replace(s, z_start_um=25.0, z_end_um=0.0) for s in table()]
        container = write(tmp_path, stacks, name="old.zarr")
        for path in sorted(tmp_path.iterdir(), reverse=True):
            path.rename(path.with_name(path.name.replace("old", "new")))
        collection = TileCollection.open(container.with_name("new.zarr"), signs=SIGNS)
        assert warned(collection, "Each of the 4 stacks", "written for the container 'old.zarr'")
        assert all(stack.downward for stack in collection.stacks)

    def test_metadata_file_of_another_group(self, tmp_path: Path) -> None:
        stacks = table()
        container = write(tmp_path, stacks)
        shutil.copy(meta_path(container, stacks[1]), meta_path(container, stacks[0]))
        collection = TileCollection.open(container, signs=SIGNS)
        assert warned(collection, "belongs to", stacks[1].group_name)
        assert (collection.stacks[0].x_um, collection.stacks[0].y_um) == (
            stacks[0].x_um,
            stacks[0].y_um,
        )

    def test_processors(self, tmp_path: Path) -> None:
        stacks = [replace(s, processors=("BackgroundSubtraction", "Binning")) for s in table(1, 2)]
        collection = TileCollection.open(write(tmp_path, stacks), signs=SIGNS)
        assert warned(collection, "BackgroundSubtraction, Binning", "do not subtract an offset")
        assert all(stack.offset_removed for stack in collection.stacks)
        blurred = replace(collection.stacks[0], processors=("GaussianBlur",))
        assert not blurred.offset_removed

    def test_binned_camera(self, tmp_path: Path) -> None:
        stacks = table(1, 1)
        container = write(tmp_path, stacks)
        path = meta_path(container, stacks[0])
        path.write_text(path.read_text().replace("[x_pixels] 20", "[x_pixels] 40"))
        assert warned(TileCollection.open(container), "20 x 28", "40 x 28", "binning")

    def test_groups_that_are_no_stacks_are_listed_and_left_out(self, tmp_path: Path) -> None:
        stacks = table(2, 3, lasers=("488 nm",))
        container = write(tmp_path, stacks)
        shutil.copytree(container / stacks[0].group_name, container / "copy of a tile.zarr")
        (container / "thumbs.db").write_text("x")
        shutil.rmtree(container / stacks[1].group_name / "0")
        (container / stacks[2].group_name / "zarr.json").write_text('{"zarr_for')
        (container / stacks[3].group_name / "zarr.json").unlink()
        zarr.open_group(str(container / "Mag2_Tile77_Ch488_FltA_Sh0_Rot0.0.ome.zarr"), mode="w")
        collection = TileCollection.open(container, signs=SIGNS)
        assert [s.group for s in collection.stacks] == [
            s.group_name for s in (stacks[0], *stacks[4:])
        ]
        assert {item.name for item in collection.left_out} == {
            "copy of a tile.zarr",
            "thumbs.db",
            "Mag2_Tile77_Ch488_FltA_Sh0_Rot0.0.ome.zarr",
            *(stack.group_name for stack in stacks[1:4]),
        }
        assert warned(collection, stacks[1].group_name, "is left out", "missing")
        assert warned(collection, "copy of a tile.zarr", "its name is none")
        assert collection.mosaics()[0].layout.missing

    def test_stacks_that_only_the_files_beside_know(self, tmp_path: Path) -> None:
        stacks = table()
        container = write(tmp_path, stacks)
        shutil.rmtree(container / stacks[1].group_name)
        collection = TileCollection.open(container, signs=SIGNS)
        assert warned(collection, "does not hold", stacks[1].group_name)

    def test_missing_coarse_level(self, tmp_path: Path) -> None:
        stacks = table(1, 2)
        container = write(tmp_path, stacks, replace(SETTINGS, levels=2))
        shutil.rmtree(container / stacks[0].group_name / "1")
        collection = TileCollection.open(container, signs=SIGNS)
        assert warned(collection, stacks[0].group_name, "not finished")
        assert [len(stack.levels) for stack in collection.stacks] == [1, 2]

    def test_project_file_that_is_broken_or_wrong(self, tmp_path: Path) -> None:
        settings = replace(SETTINGS, version="0.4", xml=True)
        container = write(tmp_path, table(), settings)
        path = tmp_path / "brain.ome.zarr.xml"
        good = path.read_text()
        path.write_text(good[: len(good) // 2])
        collection = TileCollection.open(container, signs=SIGNS)
        assert warned(collection, "project file", "cannot be read")
        path.write_text(good.replace("1.0 0.0 0.0 -5", "1.0 0.0 0.0 -7", 1))
        collection = TileCollection.open(container)
        assert warned(collection, "do not follow the stage")
        assert collection.orientation.source_x != "xml"

    def test_places_from_the_project_file_alone(self, tmp_path: Path) -> None:
        settings = replace(SETTINGS, version="0.4", xml=True, meta=False, sign_x=1)
        stacks = table()
        container = write(tmp_path, stacks, settings)
        expected = TileCollection.open(container).mosaics()[0].layout
        for stack in stacks:
            path = container / stack.group_name / ".zattrs"
            content = json.loads(path.read_text())
            transformations = content["multiscales"][0]["datasets"][0]["coordinateTransformations"]
            del transformations[1]
            path.write_text(json.dumps(content))
        collection = TileCollection.open(container)
        assert {stack.position_source for stack in collection.stacks} == {"xml"}
        assert collection.mosaics()[0].layout == expected
        (tmp_path / "brain.ome.zarr.xml").unlink()
        with pytest.raises(ImageFormatError, match="give its place"):
            TileCollection.open(container)


class TestBadInput:
    """One clear error each."""

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ImageNotFoundError, match=r"nowhere\.zarr"):
            TileCollection.open(tmp_path / "nowhere.zarr")

    def test_plain_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageFormatError, match="no zarr group"):
            TileCollection.open(tmp_path)

    def test_empty_container(self, tmp_path: Path) -> None:
        container = write(tmp_path, [])
        with pytest.raises(ImageFormatError, match="is empty"):
            TileCollection.open(container)
        assert not is_container(str(container))

    def test_container_of_other_things(self, tmp_path: Path) -> None:
        container = write(tmp_path, [])
        zarr.open_group(str(container / "labels"), mode="w")
        with pytest.raises(ImageFormatError, match="'labels'"):
            TileCollection.open(container)

    def test_single_tile_points_at_its_container(self, tmp_path: Path) -> None:
        stacks = table(1, 1)
        container = write(tmp_path, stacks)
        with pytest.raises(ImageFormatError, match=r"brain\.ome\.zarr'\."):
            TileCollection.open(container / stacks[0].group_name)
        assert is_container(str(container))
        assert not is_container(str(container / stacks[0].group_name))

    def test_unknown_group_to_exclude(self, tmp_path: Path) -> None:
        with pytest.raises(ParameterError, match="'x'"):
            TileCollection.open(write(tmp_path, table(1, 1)), exclude_groups=["x"])

    def test_sign_that_is_none(self) -> None:
        with pytest.raises(ParameterError, match="sign_x is 0"):
            SignOptions(sign_x=0)

    def test_types_of_pixels_must_agree(self, tmp_path: Path) -> None:
        stacks = table(1, 2)
        container = write(tmp_path, stacks)
        group = zarr.open_group(str(container / stacks[0].group_name), mode="r+")
        group.create_array("0", data=np.zeros((6, 20, 28), np.uint8), overwrite=True)
        with pytest.raises(LayoutError, match="type of pixels"):
            TileCollection.open(container, signs=SIGNS).mosaics()


def test_files_beside_a_container(tmp_path: Path) -> None:
    settings = replace(SETTINGS, version="0.4", xml=True)
    stacks = grid_stacks(1, 2, settings, shutters=("Left", "Right"))
    path = write_acquisition(tmp_path, "a.zarr", stacks, settings)
    (path / "note.txt").write_text("x")
    projection = tmp_path / f"MAX_a.zarr_{stacks[0].group_name}.tif"
    projection.write_bytes(b"")
    (tmp_path / f"a.zarr_{stacks[1].group_name}_meta.txt").unlink()
    found = TileCollection.open(path)
    assert found.xml_file == "a.zarr.xml"
    assert [item.name for item in found.left_out] == ["note.txt"]
    assert [(s.group, found.channel_of(s).label, s.side) for s in found.stacks] == [
        (s.group_name, "488 nm", s.shutter.lower()) for s in stacks
    ]
    assert found.stacks[0].projection_file == projection.name
    assert found.stacks[1].meta_file is None
    assert found.stacks[0].meta_file == f"a.zarr_{stacks[0].group_name}_meta.txt"
