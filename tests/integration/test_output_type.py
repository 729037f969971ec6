"""The flat-field correction with a result of float32, from all doors and kinds of sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import (
    correct_background,
    correct_flatfield,
    errors,
    estimate_flatfield,
    import_mesospim,
)
from fractal_mesospim_shading.engine import plan
from fractal_mesospim_shading.tasks.correct_flatfield import correct_flatfield as task
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

FLOAT = {"output_type": "float32", "report": False}


def read(url, level="0"):
    return zarr.open_array(f"{url}/{level}", mode="r")[...]


@pytest.fixture
def scene(pixels):
    """Saturated pixels, zeros, margins, and a plane of a tile that was never recorded."""
    data = pixels((2, 4, 96, 80))
    data[0, :2, :10, :40] = 0
    data[1, 3, 48:, 40:] = 0
    return data


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 500])
def test_the_formula_without_an_end(make_mosaic, make_models, scene, offset, many_blocks):
    image = make_mosaic(array=scene)
    shared = {"models_folder": str(make_models()), "camera_offset": offset}
    result = correct_flatfield(str(image), **shared, **FLOAT)
    written = read(result.image_url)
    assert written.dtype == np.float32
    for channel, model in enumerate(result.models.values()):
        flat = np.tile(model.profile.flatfield.astype(np.float64), (2, 2))
        exact = (scene[channel].astype(np.float64) - offset) / flat
        some = scene[channel] != 0
        np.testing.assert_allclose(written[channel][some], exact[some], rtol=1e-5, atol=1e-2)
        assert (written[channel, scene[channel] == 0] == 0).all()
        assert (written[channel].min() < 0) == (offset > 0)
        assert written[channel].max() > 65535
    rounded = correct_flatfield(str(image), output_image_name="u", report=False, **shared)
    assert np.array_equal(read(rounded.image_url), np.clip(np.rint(written), 0, 65535))
    for label, counts in result.counts.items():
        own = rounded.counts[label]
        assert (counts.clipped_low, counts.clipped_high) == (0, 0)
        assert (counts.no_data, counts.saturated, counts.pixels, counts.zeros) == (
            own.no_data,
            own.saturated,
            own.pixels,
            own.zeros,
        )
    assert own.clipped_high > 0
    mark = dict(zarr.open_group(result.image_url, mode="r").attrs)["mesospim_shading"]
    assert mark["parameters"]["output_type"] == "float32"


def test_the_image_between_both_steps_of_one_pass(make_mosaic, make_models, scene):
    """The background of nothing is taken away: a constant of 0 counts."""
    shared = {"models_folder": str(make_models()), "camera_offset": 100, "tile_gains": "none"}
    image = str(make_mosaic(array=scene))
    alone = correct_flatfield(image, **shared, **FLOAT)
    method = "constant:0"
    both = correct_flatfield(
        image, background={"method": method}, output_image_name="both", report=False, **shared
    )
    second = correct_background(alone.image_url, method=method)
    assert np.array_equal(read(alone.image_url), read(both.image_url))
    assert np.array_equal(read(second.image_url), read(both.image_url))


@pytest.mark.slow
def test_in_any_blocks_with_any_workers_and_from_the_task(
    make_mosaic, make_models, scene, tree, tmp_path, monkeypatch
):
    image = str(make_mosaic(array=scene))
    shared = {"models_folder": str(make_models()), "camera_offset": 0, **FLOAT}
    one = correct_flatfield(image, **shared, n_workers=1)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    many = correct_flatfield(image, **shared, n_workers=2, output_folder=str(tmp_path / "many"))
    update = task(zarr_url=image, **shared, output_folder=str(tmp_path / "task"))
    (listed,) = update["image_list_updates"]

    first, second, third = (
        tree(Path(u)) for u in (one.image_url, many.image_url, listed["zarr_url"])
    )
    assert first == second == third


@pytest.mark.slow
def test_acquisitions_imported_and_corrected_as_they_are(tmp_path, make_models):
    settings = SyntheticSettings(tile_shape=(48, 64))
    write_acquisition(tmp_path, "acquisition.ome.zarr", grid_stacks(2, 2, settings), settings)
    container = str(tmp_path / "acquisition.ome.zarr")
    models = make_models((48, 64), ("488 nm",), darkfield=np.float32(100))
    shared = {"models_folder": str(models), "output_type": "float32"}
    plain = import_mesospim(container, str(tmp_path / "plain"))[0]
    (imported,) = import_mesospim(
        container, str(tmp_path / "imported"), correct_flatfield=True, **shared
    )
    corrected = correct_flatfield(plain.image_url, report=False, **shared)
    pixels = read(imported.image_url)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, read(corrected.image_url))
    stacks = correct_flatfield(container, **shared)
    groups = list(zarr.open_group(stacks.image_url, mode="r").group_keys())
    assert len(groups) == 4
    for group in groups:
        assert read(f"{stacks.image_url}/{group}").dtype == np.float32


def test_where_it_can_do_nothing(make_mosaic, tmp_path):
    image = str(make_mosaic())
    with pytest.raises(errors.ParameterError, match="output_type can do nothing beside backgr"):
        correct_flatfield(image, fov_list=[1], background="median:5", output_type="float32")
    with pytest.raises(errors.ParameterError, match="output_type can do nothing where models"):
        estimate_flatfield(image, str(tmp_path / "m"), fov_list=[1], output_type="float32")
    with pytest.raises(errors.ParameterError, match="output_type is 'float64'; expected.*float32"):
        correct_flatfield(image, output_type="float64")
