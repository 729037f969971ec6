"""A job that another Python with other libraries began is ended here, and the other way around.

MESOSPIM_SHADING_OTHER_PYTHON names the interpreter of an environment that has this package on the
other line of dependencies (`.ci/run` names one); otherwise these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from tests.support.kills import SLOW_CLI, kill_after

VARIABLE = "MESOSPIM_SHADING_OTHER_PYTHON"
OTHER = os.environ.get(VARIABLE, "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OTHER, reason=f"{VARIABLE} names no Python of the other line"),
]

SMALL = {
    "flatfield": "engine.plan",
    "background": "jobs.background_parts",
    "both": "jobs.background_parts",
}
"""What groups small write units, which would leave a small image a single block."""

RESULTS = {
    "flatfield": "flatfield_corr",
    "background": "background_corr",
    "both": "flatfield_corr_background_corr",
}

JOBS = {
    "flatfield": ["correct-flatfield", "IMAGE", "--fov-list", "1,4", "--no-report"],
    "background": ["correct-background", "IMAGE", "--method", "median:4"],
    "both": [
        "correct-flatfield",
        "IMAGE",
        "--no-report",
        "--fov-list",
        "1,4",
        "--background",
        "gaussian:3",
    ],
}


def pixels(image: Path) -> dict[str, NDArray[Any]]:
    """Every level of an image."""
    group = zarr.open_group(image, mode="r")
    return {name: np.asarray(array[...]) for name, array in group.arrays()}


@pytest.mark.parametrize(
    ("job", "begins"), [("flatfield", "here"), ("background", "there"), ("both", "there")]
)
def test_it_is_the_same_in_every_pixel(
    job: str, begins: str, make_empty_mosaic: Callable[..., Path], tmp_path: Path
) -> None:
    first, second = (sys.executable, OTHER) if begins == "here" else (OTHER, sys.executable)
    source = make_empty_mosaic(chunks=(1, 64, 64))
    command = [str(source) if word == "IMAGE" else word for word in JOBS[job]]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    name = f"brain_{RESULTS[job]}.zarr"

    def run(python: str, folder: Path) -> str:
        words = [python, SLOW_CLI, "0", SMALL[job], *command, "--output-folder", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    for folder in (whole, halves):
        folder.mkdir()
    run(sys.executable, whole)
    recorded = kill_after(
        30,
        [*command, "--output-folder", str(halves)],
        halves / name,
        python=first,
        small=SMALL[job],
    )
    assert "An unfinished run is continued" in run(second, halves)
    found, expected = pixels(halves / name), pixels(whole / name)
    assert len(recorded) >= 29
    assert sorted(found) == sorted(expected)
    for level, array in expected.items():
        np.testing.assert_array_equal(found[level], array)
