"""Memory does not grow with the number of tiles: the same pixels in few and in many of them."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from fractal_mesospim_shading import correct_background, correct_flatfield
from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.images.models.folder import save_models
from fractal_mesospim_shading.synthetic.images import write_image

pytestmark = pytest.mark.slow

SIDE, FEW, MANY = 1024, 256, 32
"""Of the image, and of its tiles: 16 or 1024 of them."""

MOST = 5000
"""Bytes for one more tile while a job runs: its place in the table and in the layout, and where its
planes hold data, which is kept of the last 16384 planes. 200 to 3200 were seen."""

MOST_KEPT = 1500
"""The same once the job is done: where planes hold data. 400 to 800 were seen."""

METHODS = ("median:5", "tile_median", "gaussian:3")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The same pixels in tiles of both sizes, with margins of 0, and models for both."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(1).integers(150, 250, (1, 1, SIDE, SIDE)).astype(np.uint16)
    pixels.reshape(-1, MANY, SIDE)[:, :4] = 0
    for tile in (FEW, MANY):
        write_image(
            folder / f"{tile}.zarr",
            pixels,
            channels=["a"],
            tile_shape=(tile, tile),
            chunks=(1, 512, 512),
            codec="blosc",
        )
        rows = np.linspace(0.5, 1.5, tile, dtype=np.float32)
        flat = np.broadcast_to(rows, (tile, tile))
        models = {"a": ShadingProfile.create(flat, np.float32(100), None)}
        save_models(folder / f"models {tile}", models)
    return folder


def _traced(correct, tile):
    """The most that a job holds at one time, and what is held when it is done."""
    gc.collect()
    tracemalloc.start()
    try:
        correct(tile)
        most = tracemalloc.get_traced_memory()[1]
        gc.collect()
        return np.array([most, tracemalloc.get_traced_memory()[0]])
    finally:
        tracemalloc.stop()


def _for_one_more(correct):
    """What a tile adds to both."""
    # The first run compiles kernels and loads libraries.
    correct(FEW)
    few, many = (_traced(correct, tile) for tile in (FEW, MANY))
    return (many - few) / ((SIDE // MANY) ** 2 - (SIDE // FEW) ** 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("both", [False, True], ids=["background alone", "both in one pass"])
def test_a_job_holds_little_for_a_tile(both, method, images, tmp_path):
    options = {"output_folder": str(tmp_path), "report": False, "n_workers": 1, "overwrite": True}

    def correct(tile):
        url = str(images / f"{tile}.zarr")
        if both:
            models = str(images / f"models {tile}")
            correct_flatfield(url, models_folder=models, background=method, **options)
        else:
            correct_background(url, method=method, **options)

    most, kept = _for_one_more(correct)
    assert most < MOST
    assert kept < MOST_KEPT
