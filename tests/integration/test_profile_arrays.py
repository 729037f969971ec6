"""Models applied to arrays give the bytes of the task."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield


@pytest.mark.parametrize(
    ("dtype", "offset", "more"),
    [
        ("uint16", 100, {"output_offset": 20}),
        ("uint8", 3, {}),
        ("float32", 0, {}),
        ("uint16", 0, {}),
        ("uint16", 0, {"zero_is": "data", "output_offset": 9}),
    ],
)
def test_the_bytes_of_the_task(make_mosaic, make_models, pixels, dtype, offset, more):
    data = pixels((2, 4, 96, 80), dtype)
    # Margins of a tile, and a plane that was never recorded.
    data[0, :2, :10, :40] = 0
    data[1, 3, 48:, 40:] = 0
    image = make_mosaic(array=data)
    result = correct_flatfield(
        str(image), models_folder=str(make_models()), camera_offset=offset, report=False, **more
    )
    written = zarr.open_array(f"{result.image_url}/0", mode="r")[...]
    for channel, model in enumerate(result.models.values()):
        for y in (0, 48):
            for x in (0, 40):
                tile = (channel, slice(None), slice(y, y + 48), slice(x, x + 40))
                assert np.array_equal(model.apply(data[tile], **more), written[tile])


def test_results_are_shown_in_few_words_and_hold_their_quality(make_empty_mosaic):
    result = correct_flatfield(str(make_empty_mosaic()), fov_list=[1, 4], report=False)
    for model in result.models.values():
        assert len(repr(model)) < 250
        assert "from 16 planes" in repr(model)
        assert model.planes_used == 16
        assert model.relative_uncertainty == model.facts["relative_uncertainty"]
        assert model.offset_uncertainty == model.facts["offset_uncertainty"]
    assert repr(result) == f"JobResult({result.image_url}; models: 488 nm, 561 nm; verdict: look)"
