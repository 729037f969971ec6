"""The blocks of a page, one after the other as a person types them, in an empty folder."""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from fractal_mesospim_shading import correct_flatfield
from fractal_mesospim_shading.cli import main
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (ROOT / ".ci").is_dir(), reason="needs the whole repository, not an sdist"
    ),
]

# Done by `.ci/run` in the environment that the tests run in, or for the eye of a person.
NOT_HERE = (
    "python3 -m venv ",
    "python3.12 -m venv ",
    ". .venv/",
    "pip ",
    "basic/bin/",
    "python -m pytest ",
    "viewer/bin/",
)

RESULTS = {
    "README.md": (
        "demo_flatfield_corr.zarr",
        "demo_flatfield_corr_background_corr.zarr",
        "imported/brain_v05_Mag5x_Ch488_Ch561.zarr/raw_image_flatfield_corr",
        "models/488 nm/profiles.npz",
        "preview.png",
        "v05/brain_v05_Mag5x_Ch488_Ch561_flatfield_corr.ome.zarr",
    ),
    "docs/tutorial.md": (
        "v04/brain_v04_Mag2x_Ch488_Ch561_flatfield_corr.ome.zarr.xml",
        "v04/brain_v04_Mag2x_Ch488_Ch561_flatfield_corr_background_corr.ome.zarr",
        "mosaics/brain_v04_Mag2x_Ch488_Ch561.zarr/raw_image_flatfield_corr",
        "plane.png",
        "methods.png",
    ),
}


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def type_in(block: str) -> None:
    """Carry out a shell block: our commands in this process, all else by the shell."""
    for command in [part for line in block.splitlines() for part in line.split(" && ")]:
        if command.startswith("mesospim-shading "):
            assert main(shlex.split(command)[1:]) == 0, command
        elif not command.startswith(NOT_HERE):
            subprocess.run(["bash", "-e", "-c", command], check=True, timeout=60)


@pytest.mark.parametrize("page", RESULTS)
def test_every_block_runs_in_order(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    caplog.set_level(logging.INFO)
    said = ""
    for language, block in blocks(page):
        if language == "sh":
            type_in(block)
        elif language == "python":
            exec(block, {})
        elif language == "json":
            FlatfieldOptions(**json.loads(block))
        else:
            # What the commands before have printed, perhaps not all of it.
            assert not [line for line in block.splitlines() if line not in said]
        printed = capsys.readouterr()
        said += printed.out + printed.err + caplog.text
    output = tmp_path / "demo_output"
    for name in RESULTS[page]:
        assert (output / name).exists(), sorted(str(path) for path in output.glob("*"))


def test_frames_of_a_dye_become_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of `measuring.md`, on frames whose flat-field is known."""
    monkeypatch.chdir(tmp_path)
    world = LightSheetWorld(tile_shape=(96, 96), planes=40, sample=0, medium=10000)
    light = world.tile_planes(1, range(40), 0)
    dark = np.random.default_rng(0).normal(world.offset, 1, light.shape)
    tifffile.imwrite("dye_488.tif", light)
    tifffile.imwrite("dark.tif", np.rint(dark).astype(np.uint16))
    ((_, lines),) = [block for block in blocks("docs/measuring.md") if block[0] == "python"]
    exec(lines, {})
    image = write_mosaic(tmp_path / "brain.zarr", LightSheetWorld((96, 96), planes=2), ["488 nm"])
    model = correct_flatfield(image, models_folder="models").models["488 nm"]
    error = model.profile.flatfield / world.flatfield() - 1
    assert float(np.sqrt(np.mean(error**2))) < 0.005
