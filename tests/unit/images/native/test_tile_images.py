"""One t,c,z,y,x image for each tile, side and angle, read as stacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.flatfield.sampling import choose, every_plane
from fractal_mesospim_shading.images.native import report
from fractal_mesospim_shading.images.native.collection import (
    TileCollection,
)
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.positions import SignOptions
from fractal_mesospim_shading.images.native.tile_images import parse_tile_name
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.views.inspection_native import container_text
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack
from tests.support.tile_images import tile_group_name, write_tile_images

SIGNS = SignOptions(-1, -1)
SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16), levels=2)
# The table's order is not that of the wavelengths.
LASERS = ("561 nm", "488 nm")


def table(shutters: Sequence[str] = ("Left",)) -> list[SyntheticStack]:
    return grid_stacks(2, 2, SETTINGS, lasers=LASERS, shutters=shutters, overlap_px=6)


def whole(mosaic: NativeMosaic) -> NDArray[Any]:
    return mosaic.read(0, tuple(slice(0, size) for size in mosaic.shape))


def opened(container: Path) -> TileCollection:
    return TileCollection.open(str(container), signs=SIGNS)


def test_names() -> None:
    name = parse_tile_name("Mag5_Tile12_Sh1_Rot-90.0.ome.zarr")
    assert name is not None
    assert (name.zoom, name.tile, name.shutter, name.rotation) == ("5", 12, 1, -90.0)
    assert name.laser is None
    assert parse_tile_name("Mag5_Tile12_Ch488_Sh1_Rot0.ome.zarr") is None


@pytest.mark.parametrize("shards", [None, (4, 32, 32)])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_same_acquisition_in_either_layout(tmp_path: Path, version: Any, shards: Any) -> None:
    settings = replace(SETTINGS, version=version, shards=shards)
    stacks = [replace(s, z_start_um=25.0, z_end_um=0.0) if s.tile == 1 else s for s in table()]
    one = opened(write_acquisition(tmp_path / "a", "brain.ome.zarr", stacks, settings))
    other = opened(write_tile_images(tmp_path / "b", "brain.ome.zarr", stacks, settings))
    (first,), (second,) = one.mosaics(), other.mosaics()
    assert [c.label for c in other.channels] == ["488 nm", "561 nm"]
    assert second.shape == first.shape == (2, 6, 40, 56)
    assert (second.layout, second.places) == (first.layout, first.places)
    assert second.levels == first.levels
    np.testing.assert_array_equal(whole(second), whole(first))
    # All channels of a tile lie in one array, which is watched once.
    assert len(second.stored(0)) == 4


def test_orientation_is_measured(tmp_path: Path) -> None:
    settings = replace(SETTINGS, tile_shape=(48, 64), sign_x=1)
    stacks = grid_stacks(2, 2, settings, lasers=LASERS)
    container = write_tile_images(tmp_path, "brain.ome.zarr", stacks, settings)
    orientation = TileCollection.open(str(container)).orientation
    assert (orientation.sign_x, orientation.sign_y) == (1, -1)


def test_sides_and_angles(tmp_path: Path) -> None:
    stacks = table(("Left", "Right"))
    stacks += [replace(s, tile=s.tile + 4, rotation=90.0) for s in table()]
    collection = opened(write_tile_images(tmp_path, "brain.ome.zarr", stacks, SETTINGS))
    mosaics = collection.mosaics()
    assert [m.suffix for m in mosaics] == ["Rot0_left", "Rot0_right", "Rot90"]
    assert [m.side for m in mosaics] == ["left", "right", "left"]
    assert {m.shape for m in mosaics} == {(2, 6, 40, 56)}


def test_what_was_never_written_is_no_data(tmp_path: Path) -> None:
    stacks = table()
    container = write_tile_images(
        tmp_path, "brain.ome.zarr", stacks, SETTINGS, unwritten=[(0, 3, "488 nm")]
    )
    collection = opened(container)
    assert len(collection.stacks) == 7
    (mosaic,) = collection.mosaics()
    number = next(p.number for p in mosaic.places if p.name == "Tile3")
    assert mosaic.stack_of(0, number) is None
    assert mosaic.stack_of(1, number) is not None
    tile = mosaic.layout.tile(number)
    part = np.s_[tile.y : tile.y + 20, tile.x : tile.x + 28]
    pixels = whole(mosaic)
    assert not pixels[(0, slice(None), *part)].any()
    assert pixels[(1, slice(None), *part)].all()
    assert any(f"'488 nm' was not taken in the tiles {number}" in note for note in mosaic.notes)


def test_nothing_of_a_tile_was_written(tmp_path: Path) -> None:
    container = write_tile_images(tmp_path, "brain.ome.zarr", table(), SETTINGS)
    name = tile_group_name(table()[0])
    shutil.rmtree(container / name / "0" / "c")
    collection = opened(container)
    assert [(i.name, i.reason) for i in collection.left_out] == [
        (name, "no time point and channel of it was written")
    ]


class TestStopped:
    """The first stack of a tile decides how many planes its image has."""

    def stacks(self, **planes: int) -> list[SyntheticStack]:
        return [
            replace(s, planes=planes.get(f"nm{s.laser[:3]}")) if s.tile == 3 else s for s in table()
        ]

    def test_the_first_stack(self, tmp_path: Path) -> None:
        container = write_tile_images(tmp_path, "brain.ome.zarr", self.stacks(nm561=3), SETTINGS)
        collection = opened(container)
        assert [s.planes_found for s in collection.stacks] == [6] * 6 + [3] * 2
        assert any("holds 3 planes, 6 were planned" in line for line in collection.warnings)
        (mosaic,) = collection.mosaics()
        assert whole(mosaic)[:, :3].all()

    def test_a_later_stack(self, tmp_path: Path) -> None:
        """Its last chunk holds its last plane again and again, which nothing tells."""
        container = write_tile_images(tmp_path, "brain.ome.zarr", self.stacks(nm488=3), SETTINGS)
        (mosaic,) = opened(container).mosaics()
        number = next(p.number for p in mosaic.places if p.name == "Tile3")
        tile = mosaic.layout.tile(number)
        pixels = whole(mosaic)[0, :, tile.y : tile.y + 20, tile.x : tile.x + 28]
        np.testing.assert_array_equal(pixels[3], pixels[2])
        assert not pixels[4:].any()

    def test_a_run_that_was_killed(self, tmp_path: Path) -> None:
        """An image is trimmed at the end of its first stack; before, it has all planes planned."""
        stacks = [s for s in self.stacks(nm561=3) if s.tile < 3 or s.laser == "561 nm"]
        container = write_tile_images(tmp_path, "brain.ome.zarr", stacks, SETTINGS)
        group = zarr.open_group(str(container / tile_group_name(stacks[-1])), mode="r+")
        for level in ("0", "1"):
            array = group[level]
            assert isinstance(array, zarr.Array)
            array.resize((*array.shape[:2], 6, *array.shape[3:]))
        (mosaic,) = opened(container).mosaics()
        number = next(p.number for p in mosaic.places if p.name == "Tile3")
        tile = mosaic.layout.tile(number)
        pixels = whole(mosaic)[:, :, tile.y : tile.y + 20, tile.x : tile.x + 28]
        assert pixels[1, :3].all()
        assert not pixels[1, 4:].any()
        assert not pixels[0].any()


class TestTimes:
    points = tuple(replace(SETTINGS, seed=seed) for seed in (1, 2, 3))

    def write(self, folder: Path, unwritten: Sequence[tuple[int, int, str]] = ()) -> Path:
        return write_tile_images(
            folder, "brain.ome.zarr", table(), SETTINGS, times=self.points, unwritten=unwritten
        )

    def test_along_t(self, tmp_path: Path) -> None:
        (mosaic,) = opened(self.write(tmp_path)).mosaics()
        assert mosaic.axes == "tczyx"
        assert mosaic.shape == (3, 2, 6, 40, 56)
        assert mosaic.levels[0].scale == (1.0, 1.0, 5.0, 2.0, 2.0)
        pixels = whole(mosaic)
        for time, point in enumerate(self.points):
            lone = write_acquisition(tmp_path / str(time), "brain.ome.zarr", table(), point)
            (own,) = opened(lone).mosaics()
            np.testing.assert_array_equal(pixels[time], whole(own))
        box = (slice(1, 3), slice(1, 2), slice(2, 5), slice(3, 30), slice(10, 50))
        np.testing.assert_array_equal(mosaic.read(0, box), pixels[box])

    def test_one_that_was_not_reached(self, tmp_path: Path) -> None:
        unwritten = [(2, tile, laser) for tile in (2, 3) for laser in LASERS]
        collection = opened(self.write(tmp_path, unwritten))
        (mosaic,) = collection.mosaics()
        assert mosaic.shape[0] == 3
        assert any("not written in every tile" in n and ": 2 (tile" in n for n in mosaic.notes)
        pixels = whole(mosaic)
        assert pixels[:2].all()
        assert pixels[2].any()
        assert not pixels[2].all()

    def test_no_model_is_made_from_what_was_never_written(self, tmp_path: Path) -> None:
        (mosaic,) = opened(self.write(tmp_path, [(1, 2, LASERS[0])])).mosaics()
        number = next(p.number for p in mosaic.places if p.name == "Tile2")
        full, lacking = mosaic.model_groups
        assert (full.unwritten, lacking.unwritten) == (frozenset(), {(number, 1)})
        planes = [every_plane(mosaic, group)[number] for group in mosaic.model_groups]
        assert planes == [list(range(18)), [*range(6), *range(12, 18)]]
        choice = choose(mosaic, FlatfieldOptions(fov_list=[number]), {}, {})
        assert choice.of_group(lacking)[number] == planes[1]

    def test_texts_of_time_points(self, tmp_path: Path) -> None:
        container = self.write(tmp_path)
        name = tile_group_name(table()[0])
        collection = opened(container)
        texts = {s.lead: s.meta_file for s in collection.stacks if s.group == name}
        assert texts == {
            (time, channel): f"brain.ome_Time00{time}.zarr_{name}_Ch{label}_meta.txt"
            for time in range(3)
            for channel, label in enumerate(("561", "488"))
        }
        (mosaic,) = collection.mosaics()
        assert not [note for note in mosaic.notes if "metadata file" in note]
        # What is missing is told by the nearest time of the channel, and that is said.
        for label in ("561", "488"):
            (tmp_path / texts[1, 0].replace("561", label)).unlink()
        (tmp_path / texts[0, 1]).unlink()
        again = opened(container)
        assert {s.position_source for s in again.stacks} == {"meta"}
        own = {s.lead: s.meta_file for s in again.stacks if s.group == name}
        assert own == {
            **texts,
            (0, 1): texts[2, 1],
            (1, 0): texts[0, 0],
            (1, 1): texts[2, 1],
        }
        (mosaic,) = again.mosaics()
        (line,) = [note for note in mosaic.notes if "metadata file" in note]
        assert line.startswith("Some time points have no metadata file of their own")
        assert [c.filter for c in again.channels] == ["520/35 BrightLine"] * 2

    def test_a_mark_of_time_that_a_person_typed(self, tmp_path: Path) -> None:
        """The writer takes the last one out of the name, wherever it stands."""
        container = self.write(tmp_path)
        for path in tmp_path.glob("*_meta.txt"):
            path.rename(
                path.with_name(
                    path.name.replace("brain.ome_Time00", "brain_Time").replace(
                        ".zarr_Mag", ".ome.zarr_Mag"
                    )
                )
            )
        texts = {str(stack.meta_file) for stack in opened(container).stacks}
        assert len(texts) == 24
        assert all(text.startswith("brain_Time") for text in texts)

    def test_info(self, tmp_path: Path) -> None:
        facts = report.describe(opened(self.write(tmp_path)))
        json.dumps(facts)
        assert facts["mosaics"][0]["shape"] == {"t": 3, "c": 2, "z": 6, "y": 40, "x": 56}
        assert len({stack["metadata_file"] for stack in facts["stacks"]}) == 24
        files = (tmp_path / "brain.ome.zarr").glob("Mag*/**/*")
        size = sum(file.stat().st_size for file in files if file.is_file())
        assert facts["size_bytes"] == pytest.approx(size, rel=0.1)
        text = "\n".join(container_text(facts))
        assert "24 stacks in 4 images" in text
        assert "6 planes, 3 time points" in text

    @pytest.mark.parametrize(("version", "shards"), [("0.4", None), ("0.5", (4, 32, 32))])
    def test_the_size_of_a_stack_is_its_own(
        self, tmp_path: Path, version: str, shards: tuple[int, ...] | None
    ) -> None:
        settings = replace(SETTINGS, version=version, shards=shards)
        container = write_tile_images(
            tmp_path,
            "brain.ome.zarr",
            table(),
            settings,
            times=[replace(settings, seed=seed) for seed in (1, 2)],
            unwritten=[(1, 3, "561 nm")],
        )
        facts = report.describe(opened(container))
        for entry in facts["stacks"]:
            time, channel = entry["time"], entry["channel_index"]
            parts = ("c",) if version == "0.5" else ()
            folders = [
                container.joinpath(entry["group"], level, *parts, str(time), str(channel))
                for level in ("0", "1")
            ]
            files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
            assert len(files) > 1
            assert entry["size_bytes"] == sum(path.stat().st_size for path in files)
        # With the metadata of the images it is all of the container.
        own = sum(entry["size_bytes"] for entry in facts["stacks"])
        metadata = [*container.glob("Mag*/**/.z*"), *container.glob("Mag*/**/zarr.json")]
        assert facts["size_bytes"] == own + sum(path.stat().st_size for path in metadata)

    def test_what_was_not_written_is_named_by_tile(self, tmp_path: Path) -> None:
        unwritten = [(1, 3, "561 nm"), *((2, tile, n) for tile in (1, 2, 3) for n in LASERS)]
        container = self.write(tmp_path, unwritten=unwritten)
        (mosaic,) = opened(container).mosaics()
        # Tile0 is the last one, since the stage runs against the image.
        assert (
            "Time points not written in every tile and channel, and 0 there: 1 (tile 1); 2 "
            "(tile 1, tile 2, tile 3)." in mosaic.notes
        )


class TestTexts:
    def test_each_channel_has_its_own(self, tmp_path: Path) -> None:
        stacks = [replace(s, filter=f"Filter {s.laser}") for s in table()]
        collection = opened(write_tile_images(tmp_path, "brain.ome.zarr", stacks, SETTINGS))
        assert [(c.label, c.filter) for c in collection.channels] == [
            ("488 nm", "Filter 488 nm"),
            ("561 nm", "Filter 561 nm"),
        ]
        (mosaic,) = collection.mosaics()
        assert not [line for line in (*collection.warnings, *mosaic.notes) if "metadata" in line]

    @pytest.mark.parametrize("shared", [True, False])
    def test_that_of_another_channel_speaks_for_one_without(
        self, tmp_path: Path, shared: bool
    ) -> None:
        stacks = [replace(s, filter=f"Filter {s.laser}") for s in table()]
        container = write_tile_images(
            tmp_path, "brain.ome.zarr", stacks, SETTINGS, shared_texts=shared
        )
        for path in tmp_path.glob("*_Ch561_meta.txt"):
            path.unlink()
        collection = opened(container)
        assert {s.position_source for s in collection.stacks} == {"meta"}
        assert [(c.label, c.filter) for c in collection.channels] == [
            ("488 nm", "Filter 488 nm"),
            ("561 nm", ""),
        ]
        assert not [w for w in collection.warnings if "metadata file" in w]
        (mosaic,) = collection.mosaics()
        (line,) = [note for note in mosaic.notes if "metadata file" in note]
        assert line.startswith("Channel '561 nm' has no metadata file of its own: place,")
        assert "that of '488 nm', the laser from 'omero'; its filter is not known" in line

    def test_of_a_tile_that_is_gone(self, tmp_path: Path) -> None:
        container = write_tile_images(tmp_path, "brain.ome.zarr", table(), SETTINGS)
        name = tile_group_name(table()[0])
        shutil.rmtree(container / name)
        (line,) = [w for w in opened(container).warnings if "does not hold" in w]
        assert f"The container does not hold '{name}', of which" in line

    def test_projections_are_those_of_each_channel(self, tmp_path: Path) -> None:
        container = write_tile_images(tmp_path, "brain.ome.zarr", table(), SETTINGS)
        name = tile_group_name(table()[0])
        for label in ("488", "561"):
            (tmp_path / f"MAX_brain.ome.zarr_{name}_Ch{label}.tif").touch()
        named = {(s.group, s.laser): s.projection_file for s in opened(container).stacks}
        assert {key: value for key, value in named.items() if value} == {
            (name, f"{label} nm"): f"MAX_brain.ome.zarr_{name}_Ch{label}.tif"
            for label in ("488", "561")
        }

    def test_without_texts_the_translation_tells(self, tmp_path: Path) -> None:
        settings = replace(SETTINGS, meta=False)
        collection = opened(write_tile_images(tmp_path, "brain.ome.zarr", table(), settings))
        assert {s.position_source for s in collection.stacks} == {"ngff"}
        assert {(s.x_um, s.y_um) for s in collection.stacks} == {(s.x_um, s.y_um) for s in table()}
        assert {s.side for s in collection.stacks} == {"left"}

    def test_of_a_laser_that_is_no_channel(self, tmp_path: Path) -> None:
        container = write_tile_images(tmp_path, "brain.ome.zarr", table(), SETTINGS)
        for path in tmp_path.glob("*_meta.txt"):
            path.write_text(path.read_text().replace("488 nm", "640 nm"))
        collection = opened(container)
        assert any("'640 nm', which is none of its channels" in w for w in collection.warnings)
        assert [c.label for c in collection.channels] == ["488 nm", "561 nm"]


def test_without_names_channels_keep_their_order(tmp_path: Path) -> None:
    container = write_tile_images(tmp_path, "brain.ome.zarr", table(), SETTINGS)
    for stack in table():
        path = container / tile_group_name(stack) / "zarr.json"
        content = json.loads(path.read_text())
        content["attributes"]["ome"].pop("omero", None)
        path.write_text(json.dumps(content))
    assert [c.label for c in opened(container).channels] == ["channel_0", "channel_1"]


def test_it_is_a_container(tmp_path: Path) -> None:
    settings = replace(SETTINGS, meta=False)
    container = write_tile_images(tmp_path, "brain.ome.zarr", table(), settings)
    assert is_container(str(container))
    with pytest.raises(ImageFormatError, match="single image"):
        opened(container / tile_group_name(table()[0]))


def test_a_refusal_is_said_once(tmp_path: Path) -> None:
    settings = replace(SETTINGS, meta=False)
    container = write_tile_images(tmp_path, "brain.ome.zarr", table(), settings)
    for stack in table():
        path = container / tile_group_name(stack) / "zarr.json"
        path.write_text(path.read_text().replace('"0.5"', '"0.9"'))
    with pytest.raises(ImageFormatError) as caught:
        opened(container)
    reason = "is NGFF version 0.9"
    assert str(caught.value).count(reason) == 1
    assert all(tile_group_name(stack) in str(caught.value) for stack in table())
