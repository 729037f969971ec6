"""Tiles made equally bright, on acquisitions of known truth: in every form, through every door."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading import (
    JobResult,
    correct_flatfield,
    errors,
    estimate_flatfield,
    import_mesospim,
)
from fractal_mesospim_shading.flatfield.channel_gains import ChannelGains
from fractal_mesospim_shading.images.mosaic import MARK, MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.overlaps import sampling
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.overlapping import (
    OverlappingWorld,
    write_overlapping_mosaic,
)
from tests.support.overlapping import write_overlapping_acquisition

Tree = Callable[[Path], dict[str, bytes]]

WORLD = OverlappingWorld(
    tile_shape=(128, 160), grid=(2, 3), planes=8, overlap=0.25, gain_range=0.3, share=0.5
)
LABELS = ("488 nm", "561 nm")
SLOW = str(Path(__file__).parents[1] / "slow_cli.py")


def write_models(folder: Path, world: OverlappingWorld) -> str:
    """The true flat-fields, as somebody would have measured them."""
    for channel, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True)
        np.savez(folder / label / "profiles.npz", flatfield=world.flatfield(channel))
    return str(folder)


def corrected(source: str | Path, models: str, **arguments: Any) -> JobResult:
    given = {"models_folder": models, "camera_offset": 100, "tile_gains": "overlaps"}
    return correct_flatfield(str(source), **{**given, "report": False, **arguments})


def errors_of(found: ChannelGains, truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors of the log gains, in the order of the tile numbers."""
    gains = np.array([found.tiles[number].gain for number in sorted(found.tiles)])
    return np.asarray(np.log(gains) + np.log(truth))


def finest(url: str | Path) -> NDArray[Any]:
    array = zarr.open_group(str(url), mode="r")["0"]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


@pytest.fixture
def mosaic(tmp_path: Path) -> tuple[str, str]:
    """A mosaic of two channels, and the folder of its models."""
    source = write_overlapping_mosaic(tmp_path / "brain.zarr", WORLD, LABELS)
    return source, write_models(tmp_path / "models", WORLD)


@pytest.mark.slow
def test_a_mosaic_with_its_original_positions(
    mosaic: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source, models = mosaic
    result = corrected(source, models)
    assert list(result.tile_gains) == list(LABELS)
    raw, got = finest(source).astype(np.float64), finest(result.image_url)
    for channel, found in enumerate(result.tile_gains.values()):
        error = errors_of(found, WORLD.gains(channel))
        assert error.std() < 0.003
        said = np.array([found.tiles[n].uncertainty for n in WORLD.tile_numbers])
        assert np.mean(np.abs(error) <= 2 * said) >= 0.8
        # One factor in the formula, and nothing else.
        for tile in MosaicImage.open(result.image_url).layout.tiles:
            place = (channel, slice(None), slice(tile.y, tile.y + 128), slice(tile.x, tile.x + 160))
            gain = found.tiles[tile.number].gain
            exact = (raw[place] - 100) / WORLD.flatfield(channel).astype(float) * gain
            np.testing.assert_allclose(got[place], np.clip(exact, 0, 65535), atol=0.51)
    darkest = int(np.argmin(WORLD.gains(0))) + 1
    lost = 1 - 1 / result.tile_gains[LABELS[0]].tiles[darkest].gain
    assert f"tile {darkest} was {100 * lost:.2g} % dimmer" in caplog.text


@pytest.mark.slow
def test_what_is_written_down(mosaic: tuple[str, str], tmp_path: Path) -> None:
    result = corrected(*mosaic, report=True)
    mark = dict(zarr.open_group(result.image_url, mode="r").attrs)[MARK]
    assert mark["parameters"]["tile_gains"] == "overlaps"
    assert result.gains_table == str(tmp_path / "brain_flatfield_corr_tile_gains.csv")
    with open(result.gains_table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(WORLD.tile_numbers)
    for label, found in result.tile_gains.items():
        own = [row for row in rows if row["channel"] == label]
        assert [int(row["tile"]) for row in own] == list(WORLD.tile_numbers)
        assert [row["name"] for row in own] == [f"FOV_{n}" for n in WORLD.tile_numbers]
        gains = [found.tiles[n].gain for n in WORLD.tile_numbers]
        assert [float(row["gain"]) for row in own] == gains
        assert mark["tile_gains"][label]["gain"] == gains
        assert mark["tile_gains"][label]["uncertainty"] == [float(r["uncertainty"]) for r in own]
    assert result.report is not None
    page = Path(result.report).read_text()
    assert f"1: {result.tile_gains[LABELS[0]].tiles[1].gain:.3f}" in page


@pytest.mark.slow
@pytest.mark.parametrize("one_image_per_tile", [False, True])
def test_equal_pixels_through_every_door(
    one_image_per_tile: bool, mosaic: tuple[str, str], tmp_path: Path
) -> None:
    source, models = mosaic
    container = write_overlapping_acquisition(
        tmp_path / "native", WORLD, channels=2, one_image_per_tile=one_image_per_tile
    )
    whole = finest(corrected(source, models).image_url)
    stacks = corrected(container, models)
    arguments = {"models_folder": models, "camera_offset": 100, "tile_gains": "overlaps"}
    (imported,) = import_mesospim(
        [str(container)], str(tmp_path / "out"), correct_flatfield=True, **arguments
    )
    np.testing.assert_array_equal(finest(imported.image_url), whole)
    (together,) = TileCollection.open(stacks.image_url).mosaics()
    box = tuple(slice(0, size) for size in together.shape)
    np.testing.assert_array_equal(together.read(0, box), whole)
    for result in (stacks, imported):
        assert result.gains_table is not None
        assert Path(result.gains_table).exists()
        assert list(result.tile_gains) == list(LABELS)
    # Each stack tells its own gain; the container all of them.
    mark = dict(zarr.open_group(stacks.image_url, mode="r").attrs)[MARK]
    assert len(mark["tile_gains"][LABELS[0]]["gain"]) == len(WORLD.tile_numbers)
    for placed in together.placed:
        group = zarr.open_group(f"{stacks.image_url}/{placed.stack.group}", mode="r")
        own = dict(group.attrs)[MARK]["tile_gains"][LABELS[placed.channel]]
        assert own["tile"] == [placed.tile]
        assert own["gain"] == [stacks.tile_gains[LABELS[placed.channel]].tiles[placed.tile].gain]


@pytest.mark.slow
def test_repeated_and_after_a_kill_to_the_same_bytes(
    mosaic: tuple[str, str], tmp_path: Path, tree: Tree
) -> None:
    source, models = mosaic
    result = corrected(source, models)
    expected, table = tree(Path(result.image_url)), Path(str(result.gains_table)).read_bytes()
    shutil.rmtree(result.image_url)
    Path(str(result.gains_table)).unlink()
    command = [sys.executable, SLOW, "0.1", "engine.plan", "correct-flatfield", source]
    command += ["--models-folder", models, "--camera-offset", "100", "--no-report"]
    command += ["--tile-gains", "overlaps"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    job = tmp_path / ".brain_flatfield_corr.zarr.job"
    journal, end = job / "journal" / "blocks.jsonl", time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert {"gains-0.json", "gains-1.json"} <= {p.name for p in (job / "profiles").iterdir()}
    again = subprocess.run(
        [*command[:2], "0", *command[3:]], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert tree(Path(result.image_url)) == expected
    assert Path(str(result.gains_table)).read_bytes() == table


@pytest.mark.slow
def test_a_continued_run_reads_no_overlap_again_and_tells_the_same(
    mosaic: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tree: Tree,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, models = mosaic
    expected = corrected(source, models, output_image_name="whole")

    def full(*_: object) -> None:
        raise errors.OutputWriteError("The disk is full.")

    with monkeypatch.context() as patch, pytest.raises(errors.OutputWriteError):
        patch.setattr("fractal_mesospim_shading.images.target.TargetImage.write", full)
        corrected(source, models, n_workers=1)
    monkeypatch.setattr(sampling, "choose_parts", None)
    caplog.set_level(logging.INFO)
    caplog.clear()
    result = corrected(source, models)
    assert caplog.text.count(": tile gains: ") == len(LABELS)
    np.testing.assert_array_equal(finest(result.image_url), finest(expected.image_url))
    assert result.tile_gains == expected.tile_gains


@pytest.mark.slow
def test_equal_tiles_give_the_pixels_of_a_correction_without_gains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = replace(WORLD, gain_range=0.0)
    source = write_overlapping_mosaic(tmp_path / "brain.zarr", world, LABELS[:1])
    models = write_models(tmp_path / "models", world)
    result = corrected(source, models)
    plain = corrected(source, models, tile_gains="none", output_image_name="plain")
    np.testing.assert_array_equal(finest(result.image_url), finest(plain.image_url))
    assert result.tile_gains[LABELS[0]].all_one
    assert "tiles of equal brightness" in caplog.text
    assert plain.tile_gains == {}
    assert plain.gains_table is None


@pytest.mark.slow
def test_a_tile_that_overlaps_with_nothing_keeps_its_brightness_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = replace(WORLD, grid=(1, 3))
    source = write_overlapping_mosaic(tmp_path / "brain.zarr", world, LABELS[:1])
    y, x = world.nominal_positions[2]
    apart = {n: tuple(world.nominal_positions[n - 1][::-1] * 1.3) for n in (1, 2)}
    image = MosaicImage.open(source)
    write_image(
        tmp_path / "apart.zarr",
        finest(source),
        channels=LABELS[:1],
        tile_shape=world.tile_shape,
        original_um={**apart, 3: (x * 1.3 + 5000.0, y * 1.3)},
    )
    assert image.origins_px is not None
    models = write_models(tmp_path / "models", world)
    result = corrected(tmp_path / "apart.zarr", models)
    found = result.tile_gains[LABELS[0]]
    assert found.unlinked == (3,)
    assert found.tiles[3].gain == 1
    pair = world.gains()[:2] / np.exp(np.log(world.gains()[:2]).mean())
    assert np.abs(errors_of(replace(found, tiles=found.linked), pair)).max() < 0.01
    assert "no overlap tells the brightness of the tiles 3" in caplog.text
    with open(str(result.gains_table), newline="") as file:
        assert [row["uncertainty"] for row in csv.DictReader(file)][2] == ""


@pytest.mark.parametrize("original", [None, {1: (0.0, 0.0), 2: (9000.0, 0.0)}])
def test_without_positions_or_overlaps_there_is_one_error_and_no_pixel_is_read(
    original: dict[int, tuple[float, float]] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = replace(WORLD, grid=(1, 2))
    pixels = np.ones((1, 4, 128, 320), dtype=np.uint16)
    write_image(
        tmp_path / "brain.zarr",
        pixels,
        channels=LABELS[:1],
        tile_shape=world.tile_shape,
        original_um=original,
    )
    models = write_models(tmp_path / "models", world)
    monkeypatch.setattr(MosaicImage, "read", None)
    words = "x_micrometer_original" if original is None else "no two tiles do"
    with pytest.raises(errors.ParameterError, match=words):
        corrected(tmp_path / "brain.zarr", models)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brain.zarr", "models"]


def test_where_models_alone_are_written_gains_can_do_nothing(
    mosaic: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(errors.ParameterError, match="tile_gains"):
        estimate_flatfield(mosaic[0], str(tmp_path / "m"), tile_gains="overlaps", z_levels=[2, 5])


@pytest.mark.slow
@pytest.mark.parametrize("offset", [{"camera_offset": 100}, {}], ids=["given", "estimated"])
def test_with_an_estimated_flatfield(offset: dict[str, Any], tmp_path: Path) -> None:
    """What the estimates are wrong by is in the uncertainties of the gains."""
    world = replace(WORLD, grid=(3, 3), share=0.1, region="centre")
    source = write_overlapping_mosaic(tmp_path / "brain.zarr", world, LABELS[:1])
    arguments: dict[str, Any] = {"fov_list": [1, 3, 7, 9], "tile_gains": "overlaps", **offset}
    result = correct_flatfield(source, report=False, **arguments)
    found = result.tile_gains[LABELS[0]]
    error = errors_of(found, world.gains())
    assert error.std() < 0.02
    said = np.array([found.tiles[number].uncertainty for number in world.tile_numbers])
    assert np.mean(np.abs(error) <= 2 * said) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("offset", [40.0, 110.0])
def test_a_wrong_offset_that_was_given_is_in_the_uncertainties(
    offset: float, mosaic: tuple[str, str]
) -> None:
    """The overlaps show it themselves, where they hold bright tissue and medium."""
    found = corrected(*mosaic, camera_offset=offset).tile_gains[LABELS[0]]
    error = errors_of(found, WORLD.gains())
    said = np.array([found.tiles[number].uncertainty for number in WORLD.tile_numbers])
    assert error.std() > 0.003
    assert np.all(np.abs(error) <= 2 * said)
    assert np.median(said) < 3 * error.std()
    assert found.offset_told and "if the camera offset is right" not in found.text


def test_where_the_overlaps_cannot_tell_the_offset_that_is_said(tmp_path: Path) -> None:
    world = replace(WORLD, sample=0.0, gain_range=0.0, planes=4)
    source = write_overlapping_mosaic(tmp_path / "brain.zarr", world, LABELS[:1])
    models = write_models(tmp_path / "models", world)
    found = corrected(source, models).tile_gains[LABELS[0]]
    assert not found.offset_told
    assert " % if the camera offset is right" in found.text
    assert ChannelGains.from_bytes(found.to_bytes()) == found


@pytest.mark.slow
def test_overlaps_that_refine_a_flatfield_are_not_read_again_for_gains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = replace(WORLD, grid=(3, 3), structure_px=(10.0, 3.0))
    source = write_overlapping_mosaic(tmp_path / "brain.zarr", world, LABELS[:1])
    seen = []
    observe = sampling.observe_overlaps

    def watched(*arguments: Any, **named: Any) -> sampling.OverlapEvidence:
        seen.append(observe(*arguments, **named))
        return seen[-1]

    monkeypatch.setattr(sampling, "observe_overlaps", watched)
    arguments: dict[str, Any] = {"camera_offset": 100, "overlap_refine": True, "report": False}
    both = correct_flatfield(source, tile_gains="overlaps", save_models=True, **arguments)
    assert len(seen) == 1
    # They are the gains of a job that reads the overlaps for these alone.
    alone = corrected(source, str(both.models_folder), output_image_name="alone")
    assert len(seen) == 2
    gains = [[t.gain for t in r.tile_gains[LABELS[0]].tiles.values()] for r in (both, alone)]
    assert gains[0] == gains[1]


@pytest.mark.slow
def test_gains_of_a_job_are_kept_to_the_last_bit(mosaic: tuple[str, str]) -> None:
    for found in corrected(*mosaic).tile_gains.values():
        assert ChannelGains.from_bytes(found.to_bytes()) == found
        json.dumps(found.facts(), allow_nan=False)


@pytest.mark.slow
def test_with_the_local_background_in_the_same_pass(mosaic: tuple[str, str]) -> None:
    """What it finds are tiles that are equally bright."""
    source, models = mosaic
    method = "constant:10"
    together = corrected(source, models, background=method, output_image_name="together")
    first = corrected(source, models, output_image_name="first", report=False)
    raw = finest(source).astype(np.float64)
    got, plain = finest(together.image_url), finest(first.image_url)
    assert got.shape == raw.shape == plain.shape
    assert together.tile_gains == first.tile_gains
    # One is rounded to whole counts, and cut off at 0.
    inside = plain > 0
    np.testing.assert_allclose(got[inside], plain[inside] - 10.0, atol=0.51)
