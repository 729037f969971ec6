"""The offset is found from the noise, and the uncertainty covers the error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, BinnedStack, bin_block
from fractal_mesospim_shading.core.flatfield.estimate import estimate_flatfield
from fractal_mesospim_shading.core.flatfield.offset import Pixels, estimate_offset
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

BinWorld = Callable[..., BinnedStack]

WORLD = LightSheetWorld(tile_shape=(256, 256), planes=16, sample=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 90.0},
        {"offset": 210.0, "shape": "band"},
        {"gain": 0.2, "read_noise": 3.5},
        {"gain": 4.0},
        {"medium": 10.0},
        {"medium": 300.0, "shape": "tilted"},
        {"falloff": 0.8},
    ],
)
def test_the_uncertainty_covers_the_error(
    bin_world: BinWorld, changes: dict[str, float | str]
) -> None:
    world = replace(WORLD, **changes)
    found = estimate_offset(bin_world(world, [(1, range(16)), (2, range(16))]), mostly_empty=True)
    assert abs(found.value - world.offset) < 2 * found.uncertainty
    assert found.uncertainty < 10
    assert found.details["gain"] == pytest.approx(world.gain, rel=0.15)


def test_a_usual_camera_is_found_within_three_counts(bin_world: BinWorld) -> None:
    world = replace(WORLD, read_noise=1.5)
    found = estimate_offset(
        bin_world(world, [(tile, range(16)) for tile in (1, 2, 3)]), mostly_empty=True
    )
    assert found.value == pytest.approx(100, abs=3)
    assert found.uncertainty < 3
    assert "pairs" in found.method
    assert "third moment" in found.method


@pytest.mark.slow
def test_planes_with_sample_do_not_pull_it(bin_world: BinWorld) -> None:
    world = replace(WORLD, sample=600.0, sample_radius=0.65, planes=32)
    slabs = [(tile, range(4, 12)) for tile in world.tile_numbers]
    held = sum(not world.is_empty(tile, z) for tile, planes in slabs for z in planes)
    assert held > 30
    for mostly_empty in (False, True):
        found = estimate_offset(bin_world(world, slabs), mostly_empty=mostly_empty)
        assert abs(found.value - 100) < 2 * found.uncertainty
        assert found.uncertainty < 5


def test_an_offset_that_is_gone_is_about_zero(bin_world: BinWorld) -> None:
    world = replace(WORLD, offset=0.0, medium=120.0)
    found = estimate_offset(bin_world(world, [(1, range(16))]), mostly_empty=True)
    assert abs(found.value) < 2 * found.uncertainty
    assert found.uncertainty < 5


def test_single_planes_are_used_with_a_larger_uncertainty(bin_world: BinWorld) -> None:
    pairs = estimate_offset(bin_world(WORLD, [(1, range(16))]), mostly_empty=True)
    single = estimate_offset(bin_world(WORLD, [(1, [z]) for z in range(16)]), mostly_empty=True)
    assert "within planes" in single.method
    assert single.uncertainty > pairs.uncertainty
    assert abs(single.value - 100) < 2 * single.uncertainty


def test_a_flat_image_tells_nothing() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    stack = (rng.poisson(30, (8, 128, 128)) + 100).astype(np.uint16)
    found = _offset_of(stack)
    assert found.uncertainty > 5


def test_constant_images_have_no_noise_to_tell() -> None:
    assert _offset_of(np.zeros((8, 64, 64), np.uint16)).value == 0
    found = _offset_of(np.full((8, 64, 64), 100, np.uint16))
    assert found.method == "darkest pixels"
    assert 0 < found.value <= 100
    assert found.uncertainty > 20
    nothing = _offset_of(np.full((8, 64, 64), np.nan, np.float32))
    assert nothing.uncertainty == np.inf


def test_the_offset_is_never_above_the_darkest_square(bin_world: BinWorld) -> None:
    found = estimate_offset(
        bin_world(replace(WORLD, medium=3.0), [(1, range(8))]), mostly_empty=True
    )
    assert found.value <= found.details["darkest"]


# --- Cameras that are not those of the textbook ------------------------------------------------

CAMERA_ROWS: dict[str, tuple[dict[str, Any], float]] = {
    "photons": ({}, 1.0),
    "scientific CMOS": ({"camera": "scientific CMOS"}, 1.0),
    "stepped": ({"camera": "stepped"}, 1.0),
    "shared": ({"camera": "shared"}, 2.5),
    "despeckled": ({"camera": "despeckled"}, 2.5),
    "gaussian": ({"camera": "gaussian"}, 2.5),
    "shifted by 0.25": ({"camera": "shifted by 0.25"}, 2.5),
    "shifted by 0.5": ({"camera": "shifted by 0.5"}, 2.5),
    "averaged": ({"camera": "averaged"}, 2.5),
    "offset 0": ({"offset": 0.0}, 2.5),
    "8 bit": ({"offset": 20.0, "pixel_type": "uint8"}, 2.5),
    "float": ({"pixel_type": "float32"}, 2.5),
    "gaussian, offset 130": ({"camera": "gaussian", "offset": 130.0}, 2.5),
}
"""What a world differs in, and how far off its flat-field may be, percent."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("row", CAMERA_ROWS)
def test_whatever_the_camera(bin_world: BinWorld, row: str, seed: int) -> None:
    changes, most = CAMERA_ROWS[row]
    world = LightSheetWorld(tile_shape=(512, 512), planes=16, sample=0.0, seed=seed)
    world = replace(world, **changes)
    stack = bin_world(world, [(1, range(12)), (9, range(12))])
    found = estimate_offset(stack, mostly_empty=True, pixels=_pixels(world))
    assert abs(found.value - world.offset) <= 2 * found.uncertainty
    estimate = estimate_flatfield(stack, found.value, offset_uncertainty=found.uncertainty)
    wrong = estimate.profile.flatfield / world.flatfield() - 1
    rms = float(np.sqrt(np.mean(wrong**2)))
    assert 100 * rms <= most
    assert rms <= 2 * estimate.relative_uncertainty


@pytest.mark.parametrize("camera", ["gaussian", "despeckled", "shared"])
def test_noise_that_is_not_of_photons_is_seen(bin_world: BinWorld, camera: str) -> None:
    world = replace(WORLD, camera=camera)
    slabs = [(tile, range(8)) for tile in (1, 2, 3, 4)]
    stack = bin_world(world, slabs)
    for mostly_empty in (True, False):
        found = estimate_offset(stack, mostly_empty=mostly_empty, pixels=_pixels(world))
        assert found.details["photons"] < 0.5
        assert "third_moment" not in found.details
        assert abs(found.value - 100) <= 2 * found.uncertainty


def test_what_is_usual_is_asked_of_raw_pixels_alone(bin_world: BinWorld) -> None:
    stack = bin_world(replace(WORLD, camera="gaussian"), [(1, range(8)), (2, range(8))])
    raw, others = (
        estimate_offset(stack, mostly_empty=True, pixels=Pixels(raw=raw)) for raw in (True, False)
    )
    assert abs(raw.value - 100) < 1.5
    assert others.uncertainty > 2 * raw.uncertainty


def _pixels(world: LightSheetWorld) -> Pixels:
    return Pixels(raw=world.pixel_type == "uint16")


def _offset_of(stack: np.ndarray):  # type: ignore[no-untyped-def]
    gathered = BinnedPlanes(len(stack), stack.shape[1:])
    gathered.add(bin_block(stack, 0, 0, gathered.bin_px), range(len(stack)))
    return estimate_offset(
        gathered.finish(np.issubdtype(stack.dtype, np.integer)), mostly_empty=True
    )
