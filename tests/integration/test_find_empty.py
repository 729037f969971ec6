"""Empty regions of whole images: by the command and by Python, of mosaics and acquisitions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading import (
    correct_flatfield,
    estimate_flatfield,
    find_empty,
    import_mesospim,
)
from fractal_mesospim_shading.cli import main
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.flatfield import plane_sample
from fractal_mesospim_shading.flatfield.empty_sample import sample_to_look_at
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.synthetic.images import write_image
from tests.support.littered import LitteredWorld

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]

WORLD = LitteredWorld(tile_shape=(96, 112), planes=24, sample=200.0, sample_radius=0.45)


def _written(folder, world=WORLD, channels=1, **style):
    rows, columns = world.grid
    height, width = world.tile_shape
    mosaic = np.zeros((channels, world.planes, rows * height, columns * width), np.uint16)
    for tile in world.tile_numbers:
        row, column = world.tile_row_column(tile)
        place = (
            slice(row * height, (row + 1) * height),
            slice(column * width, (column + 1) * width),
        )
        for channel in range(channels):
            mosaic[(channel, slice(None), *place)] = world.tile_stack(tile, channel)
    url = folder / "brain.zarr"
    write_image(url, mosaic, tile_shape=world.tile_shape, **style)
    return str(url)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return _written(tmp_path_factory.mktemp("find"), channels=2)


def test_corner_tiles_of_a_round_sample_are_found_and_the_line_to_copy_names_them(source):
    found = find_empty(source)
    assert found.fov_list == (1, 3, 7, 9)
    assert found.z_levels is None
    assert found.command.endswith("--fov-list 1,3,7,9")
    for channel in found.channels:
        shares = {tile.tile: tile.share for tile in channel.tiles}
        truth = {
            tile: np.mean([WORLD.excess(tile, z) < 1e-3 for z in range(24)]) for tile in shares
        }
        for tile, share in shares.items():
            assert 0.75 * truth[tile] <= share <= truth[tile] + 0.05
        assert 0.9 < channel.confidence <= 1


def test_ends_of_stacks_are_named_as_levels_where_no_tile_is_empty(tmp_path):
    world = replace(WORLD, sample_radius=1.3)
    found = find_empty(_written(tmp_path, world))
    assert found.fov_list is None or len(found.fov_list) < 9
    low, high = found.z_levels
    tiles = found.fov_list or (1, 3, 7, 9)
    for tile in tiles:
        assert all(world.excess(tile, z) <= 1 for z in range(24) if z < low or z > high)
    assert low + 23 - high >= 3


def test_the_command_prints_a_table_and_json_and_writes_a_picture(source, tmp_path, capsys):
    picture = tmp_path / "empty.png"
    assert main(["find-empty", source, "--output", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "--fov-list 1,3,7,9" in text
    assert str(picture) in text
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert main(["find-empty", source, "--json", "--output", str(picture)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fov_list"] == [1, 3, 7, 9]
    assert [tile["tile"] for tile in facts["channels"][0]["tiles"]] == list(range(1, 10))
    assert picture.read_bytes() == content


def test_one_channel_alone_and_one_that_does_not_exist(source):
    assert len(find_empty(source, channel=1).channels) == 1
    with pytest.raises(ParameterError, match="no channel '9'"):
        find_empty(source, channel=9)


CHUNK = 4 * 96 * 112 * 2
"""Bytes of a slab of a tile."""


def _bytes_read(monkeypatch, action, kind=MosaicImage):
    """What came of an action, and bytes of the boxes that it read of images of a kind."""
    sizes = []
    read = kind.read

    def counted(self, level, box):
        values = read(self, level, box)
        sizes.append(values.nbytes)
        return values

    with monkeypatch.context() as patched:
        patched.setattr(kind, "read", counted)
        return action(), sum(sizes)


@pytest.mark.parametrize("slabs", [2, 5, 9, 17, 18, 26, 30, 53, 54])
def test_what_may_be_read_is_spread_evenly_over_tiles_and_planes(chunked, slabs, monkeypatch):
    # Else small chunks are read together, and what lies between them with them.
    monkeypatch.setattr(plane_sample, "_BOX_BYTES", CHUNK)
    image = MosaicImage.open(chunked)
    sample = sample_to_look_at(image, image.model_groups[0], budget=slabs * CHUNK)
    of_tile = {}
    for tile, z in sample.planes:
        of_tile.setdefault(tile, []).append(z // 4)
    numbers = {len(set(of_tile[tile])) for tile in of_tile}
    assert len(of_tile) == min(slabs, 9)
    assert numbers == {max(slabs // 9, 1)}
    if slabs >= 18:
        places = [sorted(set(own)) for own in of_tile.values()]
        assert all({0, 5} <= {*own} for own in places)
        assert all(np.ptp(np.diff(own)) <= 1 for own in places)
    else:
        assert {z for own in of_tile.values() for z in own} == {0, 5}
    read, size = _bytes_read(
        monkeypatch, lambda: find_empty(chunked, read_at_most=slabs * CHUNK, channel=0)
    )
    assert size == sample.read_bytes() <= slabs * CHUNK
    assert read.channels[0].looked_at == len(sample.planes)


@pytest.fixture(scope="module")
def chunked(tmp_path_factory):
    return _written(tmp_path_factory.mktemp("chunked"), chunks=(4, 96, 112))


def test_of_less_less_is_found_and_nothing_wrong(chunked):
    for slabs in (9, 18, 27, 54):
        found = find_empty(chunked, read_at_most=slabs * CHUNK)
        for tile in found.channels[0].tiles:
            for first, last in tile.ranges:
                assert all(WORLD.excess(tile.tile, z) < 1 for z in range(first, last + 1))
        assert (found.fov_list == (1, 3, 7, 9)) == (slabs == 54)


def test_empty_ends_do_not_make_a_tile_empty_whose_middle_nobody_saw(tmp_path):
    world = replace(WORLD, sample_radius=1.0)
    url = _written(tmp_path, world, chunks=(4, 96, 112))
    found = find_empty(url, read_at_most=18 * CHUNK)
    low, high = found.z_levels
    assert 0 < low <= 4 and 19 <= high < 23
    for tile in found.fov_list or (1, 3, 7, 9):
        assert all(world.excess(tile, z) < 1 for z in range(24) if z < low or z > high)
    assert not any(tile.whole for tile in found.channels[0].tiles)


def test_too_little_to_compare_anything_is_refused_with_what_is_enough(chunked, monkeypatch):
    def refused():
        with pytest.raises(ParameterError, match="Expected 1MB or more"):
            find_empty(chunked, read_at_most=2 * CHUNK - 1)

    assert _bytes_read(monkeypatch, refused)[1] == 0
    assert find_empty(chunked, read_at_most="1MB").channels
    for wrong in ("much", "-1GB", None):
        with pytest.raises(ParameterError, match="an amount such as 4GB"):
            find_empty(chunked, read_at_most=wrong)


def test_a_dry_run_says_what_is_read_and_reads_nothing(chunked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["find-empty", chunked, "--read-at-most", f"{20 * CHUNK}", "--dry-run"]
    code, size = _bytes_read(monkeypatch, lambda: main(words))
    assert (code, size) == (0, 0)
    text = capsys.readouterr().out
    assert "72 planes of level 0 of 9 tiles, 1.55 MB of pixels" in text
    assert "Nothing was written" in text
    assert main([*words, "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["dry_run"]
    assert said["result"] == "empty_regions.png"
    assert [*said["planes"]] == ["channel_0"]
    assert not [*tmp_path.iterdir()]
    assert main([*words[:-1], "--output", str(tmp_path / "empty.png"), "--json"]) == 0
    (channel,) = json.loads(capsys.readouterr().out)["channels"]
    assert (channel["planes_looked_at"], channel["most_planes"]) == (72, 216)
    assert main([*words[:-1], "--output", str(tmp_path / "empty.png")]) == 0
    assert "72 planes of level 0 looked at, of 216 that a larger --read-at-most shows" in (
        capsys.readouterr().out
    )


def test_an_acquisition_is_looked_at_as_well_within_what_may_be_read(native, monkeypatch):
    monkeypatch.setattr(plane_sample, "_BOX_BYTES", 1)
    url = str(native.container)
    everything, most = _bytes_read(monkeypatch, lambda: find_empty(url, channel=0), NativeMosaic)
    assert everything.channels
    assert all(channel.tiles for channel in everything.channels)
    some, size = _bytes_read(
        monkeypatch, lambda: find_empty(url, channel=0, read_at_most=most // 2), NativeMosaic
    )
    assert 0 < size <= len(some.channels) * (most // 2)
    for of_all, of_some in zip(everything.channels, some.channels, strict=True):
        assert {tile.tile for tile in of_some.tiles} <= {tile.tile for tile in of_all.tiles}
        assert 0 < of_some.looked_at < of_all.looked_at


def _wrong(result, world=WORLD, label="channel_0"):
    flat = result.models[label].profile.flatfield
    return np.sqrt(np.mean((flat / world.flatfield(int(label[-1])) - 1) ** 2))


def test_the_scenario_auto_is_as_good_as_the_best_choice_by_hand(source, tmp_path, caplog):
    caplog.set_level("INFO")
    given = {"camera_offset": 100.0, "report": False}
    auto = correct_flatfield(source, scenario="auto", output_folder=str(tmp_path), **given)
    assert "estimated from what is empty" in caplog.text
    by_hand = correct_flatfield(
        source,
        fov_list=[1, 3, 7, 9],
        output_folder=str(tmp_path),
        output_image_name="by_hand.zarr",
        **given,
    )
    for label in auto.models:
        assert auto.models[label].facts["scenario"] == "empty regions"
        assert _wrong(auto, label=label) <= _wrong(by_hand, label=label) + 0.001
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_the_scenario_auto_lets_basic_estimate_where_nothing_is_empty(tmp_path, caplog):
    caplog.set_level("INFO")
    world = replace(WORLD, sample_radius=2.0, grid=(2, 2), planes=24)
    url = _written(tmp_path, world)
    model = estimate_flatfield(url, str(tmp_path / "models"), scenario="auto", fov_list=[], seed=1)
    assert model["channel_0"].facts["scenario"] == "BaSiCPy"
    assert "BaSiC estimates the flat-field" in caplog.text


def test_a_tile_given_as_empty_that_is_not_is_named(source, tmp_path, caplog):
    estimate_flatfield(source, str(tmp_path / "models"), fov_list=[1, 3, 5, 7], camera_offset=100.0)
    named = [r.getMessage() for r in caplog.records if "was given as empty" in r.getMessage()]
    assert len(named) == 2
    assert all("tile 5 was given as empty" in line for line in named)


def test_the_scenario_auto_gives_the_same_bytes_on_any_number_of_workers(source, tmp_path):
    one, two = (
        estimate_flatfield(source, str(tmp_path / f"{n}"), scenario="auto", n_workers=n)
        for n in (1, 2)
    )
    for label, model in one.items():
        assert model.profile.flatfield.tobytes() == two[label].profile.flatfield.tobytes()
        assert model.facts == two[label].facts


def test_an_import_finds_what_is_empty_by_itself(native_v04, tmp_path, caplog):
    caplog.set_level("INFO")
    results = import_mesospim(
        str(native_v04.container),
        str(tmp_path),
        correct_flatfield=True,
        scenario="auto",
        camera_offset=100.0,
    )
    assert results
    assert "estimated from what is empty" in caplog.text


def test_it_is_named_as_well_where_the_offset_was_taken_away_and_pixels_are_zero(tmp_path, caplog):
    class Dim(LitteredWorld):
        def tile_stack(self, tile, channel=0):
            light = np.maximum(super().tile_stack(tile, channel).astype(float) - 100, 0)
            noise = np.random.default_rng(tile).poisson(0.15 * light)
            return np.maximum(noise - 1, 0).astype(np.uint16)

    url = _written(tmp_path, Dim(tile_shape=(96, 112), planes=24, sample=200.0, sample_radius=0.45))
    models = estimate_flatfield(url, str(tmp_path / "models"), fov_list=[1, 3, 5, 7])
    assert models["channel_0"].facts["offset"] == 0
    named = [r.getMessage() for r in caplog.records if "was given as empty" in r.getMessage()]
    assert len(named) == 1
    assert "tile 5 was given as empty" in named[0]
