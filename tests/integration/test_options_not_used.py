"""Options that are passed over, and options that can do nothing, in whole jobs."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from fractal_mesospim_shading import (
    correct_flatfield,
    errors,
    estimate_flatfield,
    import_mesospim,
)
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings


def test_models_and_dark_frames_go_before_lists_and_numbers(make_mosaic, make_models, caplog, tree):
    source = str(make_mosaic())
    models = str(make_models(darkfield=np.float32(100)))
    with caplog.at_level(logging.INFO):
        one = correct_flatfield(source, models_folder=models, report=False)
        # None of these is looked at: not even whether the tile or the file exists.
        two = correct_flatfield(
            source,
            models_folder=models,
            report=False,
            output_image_name="two",
            fov_list=[99],
            z_levels=[7],
            camera_offset=3,
            darkfield_file="/no/such/frame.tif",
        )
    lines = [line for line in caplog.messages if line.startswith("Passed over")]
    assert lines == [
        "Passed over: fov_list= and z_levels=; models_folder= goes first.",
        "Passed over: darkfield_file= and camera_offset=; the dark-field in the models goes first "
        "('488 nm', '561 nm').",
        "Passed over: camera_offset=; darkfield_file= goes first.",
    ]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert one.counts == two.counts


def test_a_report_that_cannot_be_written_is_refused_if_asked_for(make_mosaic, make_models):
    url = "memory://no-report"
    arguments = {"models_folder": str(make_models()), "camera_offset": 100, "output_folder": url}
    source = str(make_mosaic())
    with pytest.raises(errors.ParameterError, match="report can do nothing where.*remote storage"):
        correct_flatfield(source, report=True, **arguments)
    result = correct_flatfield(source, **arguments)
    assert result.report is None


def test_an_estimate_has_no_use_for_options_of_a_result(make_mosaic, tmp_path):
    with pytest.raises(errors.ParameterError, match="overwrite and output_offset= can do nothing"):
        estimate_flatfield(
            str(make_mosaic()), str(tmp_path / "m"), overwrite=True, output_offset=5, fov_list=[1]
        )
    assert not (tmp_path / "m").exists()


def test_an_acquisition_is_not_corrected_unless_asked(tmp_path):
    settings = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))
    path = str(write_acquisition(tmp_path, "a.zarr", grid_stacks(1, 1, settings), settings))
    with pytest.raises(errors.ParameterError, match="z_levels can do nothing without"):
        import_mesospim(path, str(tmp_path / "out"), z_levels=[1, 3])
    with pytest.raises(errors.ParameterError, match="report can do nothing where.*remote storage"):
        correct_flatfield(path, report=True, z_levels=[1, 3], output_folder="memory://none")
    with pytest.raises(errors.ParameterError, match="report can do nothing where.*remote storage"):
        import_mesospim(path, "memory://none", report=True)
    assert not (tmp_path / "out").exists()
