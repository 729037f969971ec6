"""What is called empty, on mosaics whose sample is known."""

from __future__ import annotations

import numpy as np
import pytest

from fractal_mesospim_shading.core.emptiness.deciding import decide
from tests.support.littered import LitteredWorld, SeenWorld

SMALL = {"tile_shape": (128, 128), "planes": 24, "sample_radius": 0.6}

WORLDS = {
    "bright": {},
    "debris": {"sample": 60.0, "debris": 60.0},
    "dim": {"sample": 20.0},
    "tilted": {"sample": 100.0, "tilt": 1.0},
    "gaps": {"gaps": 2},
    "glow": {"sample": 60.0, "glow": 0.3},
    "offset 0": {"offset": 0.0, "medium": 8.0, "sample": 60.0},
}
CAMERAS = {
    name: {"camera": name, "sample": 60.0, "seed": 3, "planes": 16}
    for name in (
        *("scientific CMOS", "stepped", "shared", "despeckled", "gaussian", "averaged"),
        *("shifted by 0.25", "shifted by 0.5"),
    )
}
LARGE = {
    "very dim": {"tile_shape": (256, 256), "sample": 5.0, "planes": 16},
    "low light": {"tile_shape": (192, 192), "medium": 10.0, "sample": 20.0, "planes": 16},
    "floats": {"pixel_type": "float32", "offset": 0.0, "sample": 60.0, "planes": 16},
    "oblong": {"tile_shape": (96, 200), "sample": 60.0},
}


def _judged(changes):
    world = LitteredWorld(**{**SMALL, **changes})
    seen = SeenWorld.of(world)
    decision = decide(seen.windows)
    excess = np.array([world.excess(*ref) for ref in seen.refs])
    return seen, decision, excess


def _hold(seen, decision, excess):
    called, world = decision.empty, seen.world
    assert excess[called].max() <= 1
    truly = decision.known & (excess < 1e-3)
    assert called[truly].mean() >= 0.8
    assert np.all(decision.confidence[called] > 0.5)
    assert not decision.confidence[~called].any()
    light = np.zeros(world.tile_shape)
    for (tile, z), empty in zip(seen.refs, called, strict=True):
        if empty:
            medium = world.medium_of(tile, z)
            light += 1 + world.sample_of(tile, z) / medium
    moved = light / light.mean() - 1
    assert np.sqrt((moved**2).mean()) <= 0.003


@pytest.mark.parametrize("name", ["bright", "debris"])
def test_no_sample_is_called_empty_and_most_of_the_medium_is(name):
    _hold(*_judged(WORLDS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*list(WORLDS)[2:], *CAMERAS, *LARGE])
def test_whatever_the_camera_and_however_dim_the_sample(name):
    _hold(*_judged({**WORLDS, **CAMERAS, **LARGE}[name]))


@pytest.mark.slow
def test_an_offset_that_nobody_knows_changes_nothing():
    world = LitteredWorld(**SMALL, sample=60.0, glow=0.3)
    one, other = (decide(SeenWorld.of(world, more).windows) for more in (0, 700))
    assert np.array_equal(one.empty, other.empty)
    assert one.empty.any()


@pytest.mark.parametrize("sample", [600.0, 60.0])
def test_where_all_is_sample_nothing_is_empty(sample):
    world = LitteredWorld(**{**SMALL, "sample_radius": 2.0}, sample=sample, first=8, last=16)
    assert not decide(SeenWorld.of(world).windows).empty.any()


def test_both_ends_of_a_single_tile_are_found_and_one_end_alone_is_not_believed():
    world = LitteredWorld(
        tile_shape=(128, 128), grid=(1, 1), planes=48, sample=60.0, sample_radius=1.2
    )
    seen = SeenWorld.of(world)
    excess = np.array([world.excess(*ref) for ref in seen.refs])
    decision = decide(seen.windows)
    assert excess[decision.empty].max() <= 1
    assert decision.empty[excess < 1e-3].mean() >= 0.8
    half = LitteredWorld(**{**world.__dict__, "last": 24})
    assert not decide(SeenWorld.of(half).windows).empty.any()


def test_a_tile_of_dim_haze_is_left_out_as_a_whole():
    """It is too dim for a single plane, but the flat-field of all planes would hold it."""
    world = LitteredWorld(**SMALL, sample=60.0, haze=4.0)
    decision = decide(SeenWorld.of(world).windows)
    assert decision.tiles
    assert not {4, 8} & set(decision.tiles)
