"""The import through all doors: both halves of the task as a server runs them, shell, Python."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import fractal_mesospim_shading
from fractal_mesospim_shading import errors, import_mesospim
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

pytestmark = pytest.mark.slow

TASKS = Path(fractal_mesospim_shading.__file__).parent / "tasks"
CLI = (sys.executable, "-m", "fractal_mesospim_shading.cli")
SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16))


def _task(name: str, folder: Path, arguments: dict[str, object]):
    """Run a task as a Fractal server does: arguments and result are files of JSON."""
    args, out = folder / f"{name}.args.json", folder / f"{name}.out.json"
    args.write_text(json.dumps(arguments))
    command = [sys.executable, TASKS / f"{name}.py", "--args-json", args, "--out-json", out]
    out.unlink(missing_ok=True)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run, json.loads(out.read_text()) if out.exists() else None


@pytest.fixture
def acquisition(tmp_path):
    """Two angles of two tiles in two channels, and a model of each channel."""
    first = grid_stacks(1, 2, SETTINGS, lasers=("488 nm", "561 nm"), overlap_px=8)
    stacks = first + [replace(s, tile=s.tile + 2, rotation=90.0) for s in first]
    path = write_acquisition(tmp_path / "data", "brain.ome.zarr", stacks, SETTINGS)
    for i, label in enumerate(("488 nm", "561 nm")):
        folder = tmp_path / "models" / label
        folder.mkdir(parents=True)
        flat = 1 - 0.01 * (i + 1) * np.arange(28) * np.ones((20, 1))
        np.savez(folder / "profiles.npz", flatfield=flat)
    return path


def test_all_doors_give_equal_bytes(acquisition, tree, tmp_path, state_of):
    before = state_of(tmp_path / "data")
    options = {
        "correct_flatfield": True,
        "models_folder": str(tmp_path / "models"),
        "camera_offset": 100.0,
        "output_offset": 5.0,
        # It holds the date.
        "report": False,
    }
    server = tmp_path / "server"
    server.mkdir()
    run, init = _task(
        "import_mesospim_init",
        tmp_path,
        {"zarr_dir": str(server), "containers": [str(acquisition)], **options},
    )
    assert run.returncode == 0, run.stderr
    # The first half writes nothing.
    assert not list(server.iterdir())
    units = init["parallelization_list"]
    assert [unit["zarr_url"] for unit in units] == [
        str(server / "brain.zarr" / f"raw_image_Rot{angle}_flatfield_corr") for angle in (0, 90)
    ]
    for unit, angle in zip(units, ("0", "90"), strict=True):
        run, out = _task("import_mesospim", tmp_path, {**unit, "n_workers": 1})
        assert run.returncode == 0, run.stderr
        assert "warning" not in (run.stdout + run.stderr).lower()
        assert out == {
            "image_list_updates": [
                {
                    "zarr_url": unit["zarr_url"],
                    "attributes": {"sample": "brain", "rotation": angle, "side": "left"},
                    "types": {"is_3D": True, "flatfield_corrected": True},
                }
            ]
        }

    flags = ["--correct-flatfield", "--models-folder", options["models_folder"]]
    flags += ["--camera-offset", "100", "--output-offset", "5", "--no-report"]
    shell = subprocess.run(
        [*CLI, "import", acquisition, "--zarr-dir", tmp_path / "shell", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stderr
    made = [Path(line) for line in shell.stdout.split()]
    assert made == [tmp_path / "shell" / "brain.zarr" / Path(u["zarr_url"]).name for u in units]

    results = import_mesospim(acquisition, str(tmp_path / "python"), **options)
    assert len(results) == 2
    trees = [tree(tmp_path / door) for door in ("server", "shell", "python")]
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) > 40
    assert state_of(tmp_path / "data") == before


@pytest.fixture
def state_of():
    def state(folder: Path):
        paths = sorted(folder.rglob("*"))
        return {
            str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in paths
        }

    return state


def test_wrong_input_stops_the_first_half(acquisition, tmp_path):
    run, out = _task(
        "import_mesospim_init",
        tmp_path,
        {"zarr_dir": str(tmp_path / "out"), "containers": [str(tmp_path / "data"), str(tmp_path)]},
    )
    assert run.returncode != 0
    assert out is None
    assert "2 problems were found" in run.stderr
    assert not (tmp_path / "out").exists()


def test_info_of_a_container(acquisition):
    text = subprocess.run(
        [*CLI, "info", acquisition], capture_output=True, text=True, check=True
    ).stdout
    assert "Mosaic Rot90: 1 rows x 2 columns of 20 x 28 pixels (y, x), 6 planes" in text
    assert "  1 Tile1    2 Tile0\n" in text
    assert "Overlap of neighbours: x 28.6 % = 16.0 um = 8.0 pixels" in text
    assert "Planes: 6 planned, 6 found, in each of the 4 stacks" in text
    assert text.endswith("Nothing suspicious.\n")
    found = json.loads(
        subprocess.run(
            [*CLI, "info", "--json", acquisition], capture_output=True, text=True, check=True
        ).stdout
    )
    assert [mosaic["suffix"] for mosaic in found["mosaics"]] == ["Rot0", "Rot90"]
    assert found["finished"] is True


SLOW = str(Path(__file__).parents[1] / "slow_cli.py")


def test_killed_and_continued(acquisition, tree, tmp_path, monkeypatch):
    from fractal_mesospim_shading.engine import plan
    from fractal_mesospim_shading.images import target

    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    import_mesospim(acquisition, str(tmp_path / "whole"))
    folder = tmp_path / "killed" / "brain.zarr"
    command = ["import", str(acquisition), "--zarr-dir", str(folder.parent), "--n-workers", "1"]
    child = subprocess.Popen([sys.executable, SLOW, "0.05", "engine.plan", *command])
    journal = folder / ".raw_image_Rot90.job" / "journal" / "blocks.jsonl"
    ended = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert child.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < ended
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = {json.loads(line)["node"] for line in journal.read_bytes().splitlines()[:-1]}
    assert not (folder / "raw_image_Rot90").exists()
    made = []
    write = target.TargetImage.write

    def counted(image, level, box, data):
        made.append((level, *(s.start for s in box)))
        return write(image, level, box, data)

    monkeypatch.setattr(target.TargetImage, "write", counted)
    # The same command goes on: the first image is complete and stays.
    results = import_mesospim(acquisition, str(folder.parent))
    assert [r.attributes["rotation"] for r in results] == ["0", "90"]
    whole = zarr.open_array(str(folder / "raw_image_Rot90" / "0"), mode="r")
    blocks = np.prod([-(-n // c) for n, c in zip(whole.shape, whole.chunks, strict=True)])
    assert len({m for m in made if m[0] == 0}) == len([m for m in made if m[0] == 0])
    assert len([m for m in made if m[0] == 0]) <= blocks - len({n for n in done if n[0] == "0"})
    assert tree(folder.parent) == tree(tmp_path / "whole")
    # Now that all is there, it is not made again unasked.
    with pytest.raises(errors.OutputExistsError, match="2 problems"):
        import_mesospim(acquisition, str(folder.parent))
    (folder / "raw_image_Rot90").rename(tmp_path / "moved")
    # What was made in another way is in the way.
    with pytest.raises(errors.OutputExistsError, match="raw_image_Rot0"):
        import_mesospim(acquisition, str(folder.parent), levels=1)
