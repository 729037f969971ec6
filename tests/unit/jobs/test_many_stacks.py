"""A container of many stacks: what all of them share is found once, not for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.jobs.flatfield import plan_flatfield
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings


def test_models_are_named_as_often_for_many_stacks_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, groups_of = [], NativeMosaic.model_groups.fget
    assert groups_of is not None

    def noted(mosaic: NativeMosaic) -> object:
        asked.append(mosaic)
        return groups_of(mosaic)

    monkeypatch.setattr(NativeMosaic, "model_groups", property(noted))
    counts = []
    for rows in (2, 6):
        settings = SyntheticSettings()
        stacks = grid_stacks(rows, 2, settings)
        url = write_acquisition(tmp_path, f"{rows}.ome.zarr", stacks, settings)
        asked.clear()
        plan_flatfield(str(url), FlatfieldOptions(camera_offset=100, output_folder=str(tmp_path)))
        counts.append(len(asked))
    assert counts[0] == counts[1]
