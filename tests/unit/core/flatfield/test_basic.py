"""BaSiC is really run: right profile, same bytes, silent, one clear error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield.basic import (
    BasicFit,
    basic_planes,
    fit_basic,
    fit_in_turn,
    profile_from_basic,
)
from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.errors import ProfileError, SamplingError
from fractal_mesospim_shading.options.basic import BasicpyModelParams
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

BinWorld = Callable[..., BinnedStack]

WORLD = LightSheetWorld(tile_shape=(128, 128), planes=24, sample_radius=0.65)
SETTINGS = BasicpyModelParams().model_dump()


@pytest.fixture
def stack(bin_world: BinWorld) -> BinnedStack:
    return bin_world(WORLD, [(tile, range(2, 24, 4)) for tile in WORLD.tile_numbers])


@pytest.mark.slow
def test_a_fit_is_near_the_truth_and_silent(
    stack: BinnedStack, basic_python: str, capfd: pytest.CaptureFixture[str]
) -> None:
    fit = fit_basic(basic_planes(stack, 100.0, 48), SETTINGS, basic_python)
    profile = profile_from_basic(fit, WORLD.tile_shape, 100.0)
    wrong = profile.flatfield / WORLD.flatfield() - 1
    assert np.sqrt(np.mean(wrong**2)) < 0.03
    assert fit.flatfield.shape == (48, 48)
    assert fit.baseline.shape == (54,)
    assert profile.darkfield == 100.0
    assert profile.baseline is not None
    assert profile.baseline > 0
    assert capfd.readouterr() == ("", "")


SCRIPT = """
import os, sys
import numpy as np
if sys.argv[1] != "all":
    os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
from fractal_mesospim_shading.core.flatfield.basic import fit_basic
planes = np.load(sys.argv[2])
fit = fit_basic(planes, {"epsilon": 0.1}, sys.argv[3])
print((fit.flatfield.tobytes() + fit.baseline.tobytes()).hex())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity (Linux)")
def test_equal_bytes_on_one_and_two_cpus_from_a_script_without_a_main_guard(
    stack: BinnedStack, basic_python: str, tmp_path: Path
) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("this machine gives the tests one CPU only")
    planes = tmp_path / "planes.npy"
    np.save(planes, basic_planes(stack, 100.0, 48))
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    # The child must not take these for the modules of the same name.
    for name in ("json.py", "numpy.py", "profile.py"):
        (tmp_path / name).write_text("raise RuntimeError('wrong module')")
    results = [
        subprocess.run(
            [sys.executable, str(script), mask, str(planes), basic_python],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        for mask in (f"{cpus[0]}", f"{cpus[0]},{cpus[1]}")
    ]
    assert len(results[0].stdout) > 48 * 48 * 8
    assert results[0].stdout == results[1].stdout
    assert results[0].stderr == results[1].stderr == ""


@pytest.mark.slow
def test_what_fails_in_the_child_is_one_clear_error(basic_python: str) -> None:
    planes = np.ones((4, 16, 16), np.float32)
    with pytest.raises(ProfileError) as caught:
        fit_basic(planes, {**SETTINGS, "epsilon": "high"}, basic_python)
    message = str(caught.value)
    assert "BaSiC could not fit 4 planes of 16 x 16: ValidationError: " in message
    assert "epsilon" in message
    assert "Traceback" not in message
    assert "\n" not in message


def test_planes_are_reduced_by_area_and_the_offset_taken_off(stack: BinnedStack) -> None:
    planes = basic_planes(stack, 90.0, 16)
    assert planes.shape == (54, 16, 16)
    # 64 bins to 16: exact means of 4 x 4 bins.
    expected = stack.mean[5].reshape(16, 4, 16, 4).mean(axis=(1, 3)) - 90
    np.testing.assert_allclose(planes[5], expected, rtol=1e-4)


def test_the_working_size_is_never_above_the_bins(stack: BinnedStack) -> None:
    assert basic_planes(stack, 0.0, 128).shape == (54, 64, 64)
    assert basic_planes(stack, 0.0, None).shape == (54, 64, 64)


def test_bad_planes_are_refused() -> None:
    planes = np.ones((4, 16, 16), np.float32)
    planes[0, 0, 0] = np.nan
    with pytest.raises(ProfileError, match="NaN"):
        fit_basic(planes, SETTINGS)


def test_bins_without_data_are_filled_and_empty_planes_left_out(stack: BinnedStack) -> None:
    mean = stack.mean.copy()
    mean[0] = np.nan
    mean[1, :5] = np.nan
    planes = basic_planes(replace(stack, mean=mean), 0.0, 128)
    assert len(planes) == 53
    assert np.isfinite(planes).all()
    with pytest.raises(SamplingError, match="below the camera offset of 9000"):
        basic_planes(stack, 9000.0, 128)
    mean[2:] = np.nan
    with pytest.raises(SamplingError, match="1 planes with data"):
        basic_planes(replace(stack, mean=mean), 0.0, 128)


def test_a_fitted_darkfield_is_added_to_what_was_subtracted() -> None:
    flat = np.ones((8, 8), np.float32)
    fit = BasicFit(flat, np.full((8, 8), 2.5, np.float32), np.array([30, 50, 40], np.float32))
    profile = profile_from_basic(fit, (32, 48), 100.0)
    np.testing.assert_allclose(profile.darkfield, np.full((32, 48), 102.5), rtol=1e-6)
    assert profile.baseline == 40


@pytest.mark.slow
def test_a_lower_offset_is_tried_where_nothing_comes_of_the_first(
    stack: BinnedStack, basic_python: str
) -> None:
    """The median of the planes is far below 400 counts above the dark; so are their corners."""
    settings = {**SETTINGS, "working_size": 48}
    fit, planes, used, changed = fit_in_turn(stack, 900.0, 400.0, settings, basic_python)
    assert used == 100.0 or used == 500.0
    assert fit.flatfield.min() > 0
    assert len(fit.baseline) == len(planes)
    assert changed is not None
    assert f"offset of {used:g} counts" in changed
    assert "because" in changed
    with pytest.raises(ProfileError, match="Tried: 900 counts, approximate; 900 counts, ladmap"):
        fit_in_turn(stack, 900.0, 0.0, settings, basic_python)


@pytest.mark.slow
def test_a_fit_that_works_is_the_only_one(stack: BinnedStack, basic_python: str) -> None:
    settings = {**SETTINGS, "working_size": 48}
    fit, planes, used, changed = fit_in_turn(stack, 100.0, 5.0, settings, basic_python)
    assert used == 100.0
    assert changed is None
    expected = fit_basic(basic_planes(stack, 100.0, 48), settings, basic_python)
    np.testing.assert_array_equal(fit.flatfield, expected.flatfield)
    assert planes.shape == (54, 48, 48)
