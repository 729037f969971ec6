"""Flat-fields refined by overlaps, in whole jobs on acquisitions of known truth."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractal_mesospim_shading import correct_flatfield, errors, estimate_flatfield
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.overlaps import sampling
from fractal_mesospim_shading.synthetic.images import write_image
from fractal_mesospim_shading.synthetic.overlapping import (
    OverlappingWorld,
    write_overlapping_mosaic,
)
from tests.support.overlapping import write_overlapping_acquisition

WORLD = OverlappingWorld(
    tile_shape=(128, 160), structure_px=(10.0, 3.0), planes=8, overlap=0.2, gain_range=0.15
)
CENTRED = replace(WORLD, region="centre")
CORNERS: dict[str, Any] = {"fov_list": [1, 3, 7, 9]}
LABEL = "488 nm"


def error(model: ChannelModel) -> float:
    """RMS error of a flat-field, percent."""
    flat = model.profile.resampled(WORLD.tile_shape).flatfield
    return 100 * float(np.std(np.log(flat / WORLD.flatfield())))


def estimated(source: str | Path, folder: Path, **arguments: Any) -> ChannelModel:
    given = {"camera_offset": 100, "resolution_level": 0, "overlap_refine": True, **arguments}
    return estimate_flatfield(str(source), str(folder), **given)[LABEL]


@pytest.mark.slow
def test_a_filled_mosaic(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BaSiC prints the sample into the flat-field; overlaps take it out, and every page tells."""
    mosaic = write_overlapping_mosaic(tmp_path / "brain.zarr", WORLD)
    plain = estimated(mosaic, tmp_path / "plain", overlap_refine=False)
    evidence = []
    observe = sampling.observe_overlaps

    def watched(*arguments: Any, **named: Any) -> sampling.OverlapEvidence:
        evidence.append(observe(*arguments, **named))
        return evidence[-1]

    monkeypatch.setattr("fractal_mesospim_shading.flatfield.refining.observe_overlaps", watched)
    with caplog.at_level(logging.INFO):
        result = correct_flatfield(
            mosaic, camera_offset=100, resolution_level=0, overlap_refine=True
        )
    refined = result.models[LABEL]
    facts = refined.facts["overlap_refine"]
    assert facts["used"] and facts["pairs"] >= 10
    assert error(plain) > 4
    assert error(refined) < 5 and error(refined) < error(plain) / 2
    assert error(refined) < 2.5 * facts["error_after_percent"]
    assert refined.facts["relative_uncertainty"] == pytest.approx(
        facts["error_after_percent"] / 100, abs=1e-5
    )
    before, after = facts["residual_before_percent"], facts["residual_after_percent"]
    assert after["median"] < before["median"] / 2 and after["p90"] < before["p90"] / 2
    assert "was refined by" in caplog.text and "overlaps; camera offset" in caplog.text
    assert result.report is not None
    assert "Refined by overlaps" in Path(result.report).read_text()
    # Each chunk was decoded once at most: no more bytes than the image has.
    assert evidence[0].decoded_bytes <= 2 * WORLD.planes * 9 * 128 * 160
    assert "overlap_refine" not in plain.facts


@pytest.mark.slow
def test_planes_called_empty_that_are_not(tmp_path: Path) -> None:
    """Sample in the corners prints itself; in a mosaic and in a container, by any workers."""
    world = replace(CENTRED, share=0.15)
    mosaic = write_overlapping_mosaic(tmp_path / "brain.zarr", world)
    plain = estimated(mosaic, tmp_path / "plain", overlap_refine=False, **CORNERS)
    refined = estimated(mosaic, tmp_path / "refined", n_workers=1, **CORNERS)
    assert error(plain) > 4
    assert error(refined) < error(plain) / 2
    facts = refined.facts["overlap_refine"]
    assert facts["used"] and error(refined) < 2 * facts["error_after_percent"]
    container = write_overlapping_acquisition(tmp_path / "native", world)
    native = estimated(container, tmp_path / "native_models", n_workers=2, **CORNERS)
    np.testing.assert_array_equal(native.profile.flatfield, refined.profile.flatfield)
    assert native.facts["overlap_refine"] == facts


@pytest.mark.slow
def test_empty_planes_that_are_right_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To the last bit; the log says why."""
    mosaic = write_overlapping_mosaic(tmp_path / "brain.zarr", replace(CENTRED, share=0.04))
    plain = estimated(mosaic, tmp_path / "plain", overlap_refine=False, **CORNERS)
    with caplog.at_level(logging.INFO):
        kept = estimated(mosaic, tmp_path / "kept", **CORNERS)
    assert error(plain) < 1
    np.testing.assert_array_equal(kept.profile.flatfield, plain.profile.flatfield)
    assert not kept.facts["overlap_refine"]["used"]
    assert f"because {kept.facts['overlap_refine']['reason']}" in caplog.text


@pytest.mark.parametrize("original", [None, {1: (0.0, 0.0), 2: (0.0, 900.0)}])
def test_without_overlaps_it_is_refused_before_a_pixel_is_read(
    original: dict[int, tuple[float, float]] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write_image(
        tmp_path / "brain.zarr",
        np.full((1, 4, 128, 64), 200, np.uint16),
        channels=[LABEL],
        tile_shape=(64, 64),
        original_um=original,
    )
    monkeypatch.setattr(MosaicImage, "read", None)
    words = "x_micrometer_original" if original is None else "no two tiles do"
    with pytest.raises(errors.ParameterError, match=f"overlap_refine.* compares.*{words}"):
        correct_flatfield(source, overlap_refine=True)
    with pytest.raises(errors.ParameterError, match="tile_gains.* and .*overlap_refine"):
        correct_flatfield(source, overlap_refine=True, tile_gains="overlaps")


def test_measured_models_go_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_overlapping_mosaic(tmp_path / "brain.zarr", WORLD)
    (tmp_path / "models" / LABEL).mkdir(parents=True)
    np.savez(tmp_path / "models" / LABEL / "profiles.npz", flatfield=WORLD.flatfield())
    with caplog.at_level(logging.INFO):
        result = correct_flatfield(
            source,
            models_folder=str(tmp_path / "models"),
            camera_offset=100,
            overlap_refine=True,
            report=False,
        )
    assert re.search("Passed over: .*overlap_refine.*; .*models_folder.* goes first", caplog.text)
    assert "overlap_refine" not in result.models[LABEL].facts
