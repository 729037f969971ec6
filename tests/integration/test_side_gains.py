"""Both illumination sides made equally bright, on acquisitions of known truth."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractal_mesospim_shading import correct_flatfield, errors, import_mesospim
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.synthetic.overlapping import (
    OverlappingWorld,
    write_overlapping_mosaic,
)
from tests.integration.test_tile_gains import finest
from tests.support.overlapping import write_overlapping_acquisition

SIDES = ("left", "right")
LABEL = "488 nm"
WORLD = OverlappingWorld(
    tile_shape=(128, 160),
    grid=(2, 3),
    planes=8,
    overlap=0.25,
    share=0.5,
    sides=SIDES,
    arms=(1.0, 0.8),
)


def write_models(folder: Path, world: OverlappingWorld) -> str:
    for side, name in enumerate(SIDES):
        (folder / name / LABEL).mkdir(parents=True)
        flat = world.flatfield(0, side)
        np.savez(folder / name / LABEL / "profiles.npz", flatfield=flat)
    return str(folder)


def mosaics(url: str) -> list[NativeMosaic]:
    return sorted(TileCollection.open(url).mosaics(), key=lambda mosaic: mosaic.suffix)


@pytest.mark.slow
@pytest.mark.parametrize("tiles", ["none", "overlaps"])
def test_both_sides_are_equally_bright_in_a_container_and_an_import(
    tiles: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = replace(WORLD, gain_range=0.3) if tiles == "overlaps" else WORLD
    container = write_overlapping_acquisition(tmp_path / "native", world)
    options: dict[str, Any] = {
        "models_folder": write_models(tmp_path / "models", world),
        "camera_offset": 100,
        "tile_gains": tiles,
        "side_gains": True,
    }
    result = correct_flatfield(str(container), **options)
    found = {name: result.tile_gains[f"{name}: {LABEL}"].side for name in SIDES}
    truth = {"left": np.sqrt(0.8), "right": 1 / np.sqrt(0.8)}
    for name, side in found.items():
        assert side is not None
        assert side.gain == pytest.approx(truth[name], rel=0.003)
        assert abs(np.log(side.gain / truth[name])) <= 3 * side.uncertainty
    assert "gains of the sides: left 0.89" in caplog.text
    with open(str(result.gains_table), newline="") as file:
        own = {(row["channel"], row["side_gain"]) for row in csv.DictReader(file)}
    assert own == {(f"{n}: {LABEL}", str(side.gain)) for n, side in found.items() if side}
    corrected = mosaics(result.image_url)
    whole = [mosaic.read(0, tuple(slice(0, n) for n in mosaic.shape)) for mosaic in corrected]
    medians = [np.median(pixels) for pixels in whole]
    assert medians[0] == pytest.approx(medians[1], rel=0.02)
    imported = import_mesospim(
        [str(container)], str(tmp_path / "out"), correct_flatfield=True, **options
    )
    for pixels, image in zip(whole, sorted(imported, key=lambda i: i.image_url), strict=True):
        np.testing.assert_array_equal(finest(image.image_url), pixels)
        assert len(image.tile_gains) == 1
        assert len(image.models) == 1


@pytest.mark.slow
def test_equal_sides_stay_as_they_are(tmp_path: Path) -> None:
    world = replace(WORLD, arms=(1.0, 1.0))
    container = write_overlapping_acquisition(tmp_path / "native", world)
    models = write_models(tmp_path / "models", world)
    given: dict[str, Any] = {"models_folder": models, "camera_offset": 100}
    result = correct_flatfield(str(container), side_gains=True, **given)
    assert [found.side.gain for found in result.tile_gains.values() if found.side] == [1, 1]
    plain = correct_flatfield(str(container), output_image_name="plain.ome.zarr", **given)
    for ours, theirs in zip(mosaics(result.image_url), mosaics(plain.image_url), strict=True):
        box = tuple(slice(0, n) for n in ours.shape)
        np.testing.assert_array_equal(ours.read(0, box), theirs.read(0, box))


@pytest.mark.parametrize("kind", ["container", "mosaic"])
def test_where_no_tile_has_both_sides_there_is_one_error_and_no_pixel_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = replace(WORLD, sides=("left",), arms=(1.0,), grid=(1, 2), planes=4)
    if kind == "container":
        source = str(write_overlapping_acquisition(tmp_path / "native", world, xml=True))
        monkeypatch.setattr(NativeMosaic, "read", None)
    else:
        source = write_overlapping_mosaic(tmp_path / "brain.zarr", world, (LABEL,))
    with pytest.raises(errors.ParameterError, match="no tiles that were taken from both"):
        correct_flatfield(source, side_gains=True, camera_offset=100)
