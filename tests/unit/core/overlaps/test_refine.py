"""A flat-field made better by overlaps, on acquisitions whose truth is known."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from fractal_mesospim_shading.core.flatfield.basic import (
    basic_planes,
    fit_basic,
    profile_from_basic,
)
from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, bin_block
from fractal_mesospim_shading.core.overlaps.neighbours import neighbours
from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.observing import Piece, observe
from fractal_mesospim_shading.core.overlaps.refine import refine_flatfield
from fractal_mesospim_shading.options.basic import BasicpyModelParams
from fractal_mesospim_shading.synthetic.overlapping import OverlappingWorld

BIN = 4


def in_bins(image, bin_px=BIN):
    """Means over squares."""
    *lead, height, width = image.shape
    cells = image.reshape(*lead, height // bin_px, bin_px, width // bin_px, bin_px)
    return cells.mean(axis=(-3, -1), dtype=np.float64)


def seen(world, stacks):
    """The overlaps of an acquisition, from the positions that its metadata would hold."""
    origins = dict(zip(world.tile_numbers, map(tuple, world.nominal_positions), strict=True))
    found = []
    for pair in neighbours(origins, world.tile_shape):
        (y0, y1), (x0, x1) = pair.window
        dy, dx = pair.shift
        pieces = []
        for start in range(0, world.planes, 4):
            planes = slice(start, start + 4)
            first = stacks[pair.first][planes, y0:y1, x0:x1]
            second = stacks[pair.second][planes, y0 - dy : y1 - dy, x0 - dx : x1 - dx]
            pieces.append(Piece(first, second, (y0, x0), start))
        bins = observe(pair, pieces)
        if isinstance(bins, OverlapPair):
            found.append(bins)
    return found, origins


def stacks_of(world):
    """Light of all tiles above the offset, by number."""
    return {
        number: world.tile_stack(number).astype(np.float32) - np.float32(world.offset)
        for number in world.tile_numbers
    }


def refined(world, stacks, log_flatfield):
    """A flat-field in bins, refined by the overlaps of an acquisition."""
    pairs, origins = seen(world, stacks)
    views = {number: in_bins(stack.mean(axis=0)) for number, stack in stacks.items()}
    return refine_flatfield(pairs, log_flatfield, views, origins, world.tile_shape)


def error(world, log_flatfield):
    """RMS error of a flat-field in bins, percent."""
    wrong = log_flatfield - np.log(in_bins(world.flatfield()))
    return 100 * float(np.std(wrong))


def mean_tile(stacks):
    """The flat-field that the mean of all tiles would be, in bins."""
    return np.log(np.mean([in_bins(s.mean(axis=0)) for s in stacks.values()], axis=0))


def with_basic(world, stacks, python):
    """BaSiC's flat-field of all planes, in bins."""
    planes = BinnedPlanes(len(stacks) * world.planes, world.tile_shape)
    for k, stack in enumerate(stacks.values()):
        slots = range(k * world.planes, (k + 1) * world.planes)
        planes.add(bin_block(stack, 0, 0, planes.bin_px), slots)
    settings = BasicpyModelParams().model_dump()
    fit = fit_basic(basic_planes(planes.finish(), 0.0, settings["working_size"]), settings, python)
    return np.log(in_bins(profile_from_basic(fit, world.tile_shape).flatfield))


FILLED = OverlappingWorld(gain_range=0.15, planes=8)


@pytest.fixture(scope="module")
def stacks():
    """Light of the tiles of an acquisition that is filled with sample."""
    return stacks_of(FILLED)


def test_a_filled_acquisition_gets_a_flat_field_from_its_mean_tile(stacks):
    """Profile and gains come out together, with an uncertainty that holds."""
    found = refined(FILLED, stacks, mean_tile(stacks))
    before, after = (error(FILLED, mean_tile(stacks) + c) for c in (0, found.log_change))
    assert found.used and found.reason == ""
    assert before > 6
    assert after < 3.5 and after < before / 2
    assert after < 200 * found.error_after
    assert 0.6 < 100 * found.error_before / before < 1.6
    assert found.after.median < found.before.median / 4
    assert found.after.p90 < found.before.p90 / 4
    gains = np.array([found.log_gains[number] for number in FILLED.tile_numbers])
    assert np.std(gains - np.log(FILLED.gains())) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 3},
        {"seed": 4, "stage_error": 4.0, "shape": "tilted"},
        {"seed": 5, "grid": (4, 5), "planes": 8, "shape": "band"},
    ],
)
def test_filled_acquisitions_at_most_5_percent_and_half_of_basic(changes, basic_python):
    world = OverlappingWorld(gain_range=0.15, **changes)
    stacks = stacks_of(world)
    basic = with_basic(world, stacks, basic_python)
    found = refined(world, stacks, basic)
    after = error(world, basic + found.log_change)
    assert found.used
    assert after < 5 and after < error(world, basic) / 2
    assert after < 250 * found.error_after


@pytest.mark.slow
def test_where_basic_is_good_nothing_gets_worse(basic_python):
    """A third of the area is sample: BaSiC finds the medium."""
    world = OverlappingWorld(gain_range=0.15, share=0.35, planes=8, seed=1)
    stacks = stacks_of(world)
    basic = with_basic(world, stacks, basic_python)
    found = refined(world, stacks, basic)
    assert error(world, basic) < 1
    assert error(world, basic + found.log_change) < error(world, basic) + 0.3


@pytest.mark.parametrize("wrong", [0.0, 0.004])
def test_a_good_flat_field_stays_to_the_last_bit(wrong, stacks):
    """Also if it is a few thousandths off."""
    bump = np.sin(np.arange(80) / 9)[None, :] * np.cos(np.arange(64) / 7)[:, None]
    found = refined(FILLED, stacks, np.log(in_bins(FILLED.flatfield())) + wrong * bump)
    assert not found.used
    assert "agree" in found.reason or "known" in found.reason
    assert not found.log_change.any()
    assert found.error_after < 0.015
    assert found.pairs == 12


def test_bleached_corners_are_no_shading():
    """What three tiles have lit is dimmer than what two have, and the flat-field is right."""
    world = OverlappingWorld(planes=4, bleaching=0.1, gain_range=0.15)
    found = refined(world, stacks_of(world), np.log(in_bins(world.flatfield())))
    assert not found.used and not found.log_change.any()


def test_an_error_unlike_the_sample_is_in_the_uncertainty():
    """Tiles do not scatter by it, so only the overlaps tell of it."""
    world = OverlappingWorld(planes=4, gain_range=0.15, share=0.35)
    y, x = (np.linspace(-1, 1, n) for n in (64, 80))
    bowl = y[:, None] ** 2 + x**2
    start = np.log(in_bins(world.flatfield())) + 0.02 * (bowl - bowl.mean()) / bowl.std()
    found = refined(world, stacks_of(world), start)
    assert error(world, start) == pytest.approx(2, rel=0.01)
    assert 100 * found.error_before > 1.6
    assert error(world, start + found.log_change) < 100 * found.error_after


def test_two_pairs_say_too_little():
    world = OverlappingWorld(grid=(1, 3), planes=4)
    stacks = stacks_of(world)
    found = refined(world, stacks, mean_tile(stacks))
    assert not found.used and not found.log_change.any()
    assert "2 overlaps could be compared" in found.reason
    assert np.isnan(found.before.median) and not np.isfinite(found.error_after)
    assert found.log_gains == {}


def test_overlaps_of_noise_change_nothing(stacks):
    """Views of different tissue say nothing of the flat-field."""
    pairs, origins = seen(FILLED, stacks)
    rng = np.random.default_rng(0)
    random = []
    for pair in pairs:
        places = (pair.y_first, pair.x_first), (pair.y_second, pair.x_second)
        first, second = (
            300
            * map_coordinates(FILLED.flatfield(), place, order=1, mode="nearest")
            * np.exp(0.3 * rng.standard_normal(len(pair.variance)))
            for place in places
        )
        random.append(replace(pair, light_first=first, light_second=second))
    views = {number: in_bins(stack.mean(axis=0)) for number, stack in stacks.items()}
    flat = np.log(in_bins(FILLED.flatfield()))
    found = refine_flatfield(random, flat, views, origins, FILLED.tile_shape)
    assert not found.used


@pytest.mark.slow
def test_threads_of_linear_algebra_change_no_byte():
    digests = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        code = (
            "import hashlib; from tests.unit.core.overlaps.test_refine import *;"
            "s = stacks_of(FILLED); f = refined(FILLED, s, mean_tile(s));"
            "print(hashlib.sha256(f.log_change.tobytes()).hexdigest(), f.error_after.hex())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
