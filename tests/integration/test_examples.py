"""Every example runs as it stands, and the one with all parameters has all of them."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.cli import main
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.world import LightSheetWorld

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"

WORLD = LightSheetWorld(tile_shape=(96, 96), planes=12, sample_radius=0.4)

SCRIPTS = {"quickstart.py", "run_flatfield_correction.py", "local_dask.py", "slurm_dask.py"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small mosaic whose first and last planes, and corner tiles, are empty."""
    path = tmp_path / "brain.zarr"
    write_mosaic(path, WORLD, ["488 nm"], chunks=(4, 96, 96))
    return path


def run(name: str, *arguments: Any, folder: Path) -> str:
    """What a script prints, run in a folder of its own; its failure shows what it said."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def corrected(folder: Path, name: str = "brain_flatfield_corr.zarr") -> np.ndarray[Any, Any]:
    return np.asarray(zarr.open_group(folder / name, mode="r")["0"][:])


def unevenness(stack: np.ndarray[Any, Any]) -> float:
    """Spread of the mean planes of the four empty corner tiles, relative; 0 is flat."""
    tile = np.mean(stack[0, :, :96, :96], axis=0)
    smooth = tile.reshape(8, 12, 8, 12).mean(axis=(1, 3))
    return float(smooth.std() / smooth.mean())


def test_all_examples_are_run_here() -> None:
    """A script that is added to the folder has to be added to these tests."""
    other = {"local_background.py"}  # it has a test of its own, beside the background methods
    assert {path.name for path in EXAMPLES.glob("*.py")} - other == SCRIPTS


def test_quickstart_comes_close_to_the_truth(tmp_path: Path) -> None:
    said = run("quickstart.py", "here", folder=tmp_path)
    assert "  1  4  7" in said
    error = float(re.search(r"flat-field: ([0-9.]+) %", said)[1])  # type: ignore[index]
    assert error < 1.5
    before, after = (
        [float(value) for value in found]
        for found in re.findall(r": ([0-9.]+) in its middle, ([0-9.]+) in its corner", said)
    )
    assert abs(before[0] - before[1]) > 20
    assert abs(after[0] - after[1]) < 3
    assert (tmp_path / "here" / "quickstart_flatfield_corr.zarr").is_dir()


def test_the_script_with_all_parameters_runs(image: Path) -> None:
    before = unevenness(np.asarray(zarr.open_group(image, mode="r")["0"][:]))
    said = run("run_flatfield_correction.py", image, folder=image.parent)
    assert said.strip().endswith("brain_flatfield_corr.zarr")
    # BaSiC has 12 planes of 9 small tiles here; what counts is that it went the right way.
    assert unevenness(corrected(image.parent)) < before


def test_the_script_with_all_parameters_has_all_with_their_defaults() -> None:
    script = runpy.run_path(str(EXAMPLES / "run_flatfield_correction.py"))
    parameters = script["PARAMETERS"]
    expected = FlatfieldOptions().model_dump()
    # Excluded from dumps: one may hold secrets, and the others are not for a server.
    expected |= {"storage_options": None, "follow_links": False, "basic_python": None}
    assert parameters == expected


def test_the_script_with_all_parameters_comments_each() -> None:
    lines = (EXAMPLES / "run_flatfield_correction.py").read_text().splitlines()
    names = {*FlatfieldOptions.model_fields}
    found = set()
    for number, line in enumerate(lines):
        name = re.match(r'\s+"(\w+)":', line)
        if name and name[1] in names:
            assert lines[number - 1].lstrip().startswith("#"), f"{name[1]} has no comment"
            found.add(name[1])
    assert found == names


def test_the_script_says_errors_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "run_flatfield_correction.py"), "no_such.zarr"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no image")
    assert "Traceback" not in done.stderr


def test_a_dask_cluster_gives_the_bytes_of_threads(image: Path) -> None:
    run("local_dask.py", image, folder=image.parent)
    assert (
        main(["correct-flatfield", str(image), "--z-levels", "2,9", "--output-image-name", "other"])
        == 0
    )
    np.testing.assert_array_equal(corrected(image.parent), corrected(image.parent, "other.zarr"))


def test_the_job_script_of_slurm(tmp_path: Path) -> None:
    script = run("slurm_dask.py", "--script", folder=tmp_path)
    command = re.escape(sys.executable) + " -m distributed.cli.dask_worker "
    script = re.sub(command + r"tcp://\S+:\d+ --name \S+", "WORKER", script)
    assert script.strip() == (
        "#!/usr/bin/env bash\n\n"
        "#SBATCH -J dask-worker\n"
        "#SBATCH -e slurm_logs/dask-worker-%J.err\n"
        "#SBATCH -o slurm_logs/dask-worker-%J.out\n"
        "#SBATCH -p standard\n"
        "#SBATCH -A imaging\n"
        "#SBATCH -n 1\n"
        "#SBATCH --cpus-per-task=4\n"
        "#SBATCH --mem=15G\n"
        "#SBATCH -t 08:00:00\n"
        "export GLIBC_TUNABLES=glibc.malloc.arena_max=1\n"
        "WORKER --nthreads 4 --memory-limit 14.90GiB --no-nanny --death-timeout 600 "
        "--no-dashboard"
    )


def test_the_job_script_of_execution_slurm() -> None:
    """Each job gets that memory, and one block in flight."""
    from fractal_mesospim_shading.engine.cluster import slurm_cluster
    from fractal_mesospim_shading.engine.resources import Resources

    use = Resources(workers=4, memory=8 * 2**30)
    with slurm_cluster(use, queue="long", scheduler_options={"dashboard": False}) as cluster:
        lines = cluster.job_script().splitlines()
    assert "#SBATCH -p long" in lines
    assert "#SBATCH --cpus-per-task=1" in lines
    assert "#SBATCH --mem=8G" in lines
    assert "--nthreads 1" in lines[-1]


def test_the_parameters_file_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = json.loads((EXAMPLES / "flatfield_params.json").read_text())
    source = tmp_path / parameters["zarr_url"]
    source.parent.mkdir()
    write_mosaic(source, WORLD, ["488 nm"], chunks=(4, 96, 96))
    monkeypatch.chdir(tmp_path)
    file = EXAMPLES / "flatfield_params.json"
    assert main(["correct-flatfield", "--params", str(file)]) == 0
    url = capsys.readouterr().out.strip()
    assert Path(url).resolve() == source.with_name("quickstart_flatfield_corr.zarr").resolve()
    models = source.with_name("quickstart_shading_models") / "488 nm" / "profiles.npz"
    with np.load(models) as profiles:
        error = np.sqrt(np.mean((profiles["flatfield"] / WORLD.flatfield() - 1) ** 2))
    # 4 tiles of 5 planes, of 96 x 96 pixels each.
    assert error < 0.02
