"""Server, command line and Python: equal bytes of the whole output tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading import correct_flatfield

pytestmark = pytest.mark.slow

PACKAGE = Path(fractal_mesospim_shading.__file__).parent
TASK = PACKAGE / "tasks" / "correct_flatfield.py"


def _run(*command: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(str(part) for part in command)],
        capture_output=True,
        text=True,
        check=False,
        **more,  # type: ignore[call-overload]
    )


def _server(
    folder: Path, arguments: dict[str, object]
) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder.mkdir(exist_ok=True)
    args, out = folder / "args.json", folder / "out.json"
    args.write_text(json.dumps(arguments))
    return _run(TASK, "--args-json", args, "--out-json", out, cwd=folder), out


def _files(tree, result: str):
    return tree(Path(result))


@pytest.fixture
def images(make_mosaic, tmp_path):
    """The same mosaic three times."""
    return [make_mosaic(folder=tmp_path / door) for door in ("server", "shell", "python")]


def test_all_doors_give_equal_bytes(images, make_models, tree, tmp_path):
    arguments = {"models_folder": str(make_models()), "camera_offset": 100.0, "output_offset": 5.0}
    run, out = _server(tmp_path / "server", {"zarr_url": str(images[0]), **arguments})
    assert run.returncode == 0, run.stderr
    update = json.loads(out.read_text())
    made = str(tmp_path / "server" / "brain_flatfield_corr.zarr")
    assert update == {
        "image_list_updates": [
            {
                "zarr_url": made,
                "origin": str(images[0]),
                "types": {"flatfield_corrected": True},
            }
        ]
    }
    assert "warning" not in (run.stdout + run.stderr).lower()

    options = ["--models-folder", arguments["models_folder"], "--camera-offset", "100"]
    shell = _run(
        *("-m", "fractal_mesospim_shading.cli", "correct-flatfield", images[1]),
        *(*options, "--output-offset", "5"),
    )
    assert shell.returncode == 0, shell.stderr
    assert "warning" not in shell.stderr.lower()

    result = correct_flatfield(images[2], **arguments)
    trees = [tree(Path(url)) for url in (made, shell.stdout.strip(), result.image_url)]
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) > 100


def test_estimates_too(make_empty_mosaic, tree, tmp_path):
    """Empty tiles, with lists in each of the spellings; the options of the server from a file."""
    images = [make_empty_mosaic(folder=tmp_path / door) for door in ("server", "shell", "python")]
    arguments = {"fov_list": [1, 4], "z_levels": [3, 4], "n_zplanes": 12, "report": False}
    run, _ = _server(tmp_path / "server", {"zarr_url": str(images[0]), **arguments})
    assert run.returncode == 0, run.stderr
    params = tmp_path / "params.json"
    params.write_text(json.dumps({**arguments, "zarr_url": str(images[1]), "z_levels": [0, 7]}))
    command = ("-m", "fractal_mesospim_shading.cli", "correct-flatfield")
    shell = _run(*command, "--params", params, "--z-levels", "3", "--z-levels", "4")
    assert shell.returncode == 0, shell.stderr
    result = correct_flatfield(images[2], **{**arguments, "fov_list": "[1,4]", "z_levels": "3,4"})
    trees = [
        tree(Path(url))
        for url in (
            tmp_path / "server" / "brain_flatfield_corr.zarr",
            shell.stdout.strip(),
            result.image_url,
        )
    ]
    assert trees[0] == trees[1] == trees[2]


def test_in_place_on_the_server(make_mosaic, make_models, tmp_path):
    source = make_mosaic(folder=tmp_path / "server")
    run, out = _server(
        tmp_path / "server",
        {
            "zarr_url": str(source),
            "models_folder": str(make_models()),
            "camera_offset": 100,
            "overwrite_input": True,
            "report": False,
        },
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(out.read_text()) == {
        "image_list_updates": [{"zarr_url": str(source), "types": {"flatfield_corrected": True}}]
    }


def test_errors_of_the_server_are_one_clear_line(make_mosaic, tmp_path, monkeypatch):
    source = make_mosaic(folder=tmp_path / "server")
    run, out = _server(tmp_path / "server", {"zarr_url": str(source), "fov_list": [7]})
    assert run.returncode == 2
    started, error, *map_of_tiles = run.stderr.splitlines()
    assert started.endswith("START correct_flatfield task")
    assert "; ERROR; " in error and "Tile 7 is outside this mosaic" in error
    assert map_of_tiles == ["  1  3", "  2  4"]
    assert not out.exists()
    assert sorted(os.listdir(tmp_path / "server")) == ["args.json", "brain.zarr"]
    run, out = _server(tmp_path / "server", {"zarr_url": str(source), "fov": [7]})
    assert run.returncode == 2
    assert "fov" in run.stderr
    assert "Traceback" not in run.stderr
    monkeypatch.setenv("FRACTAL_TASK_LOG_LEVEL", "DEBUG")
    run, _ = _server(tmp_path / "server", {"zarr_url": str(source), "fov_list": [7]})
    assert "Traceback" in run.stderr
    assert "Tile 7 is outside this mosaic" in run.stderr.splitlines()[-3]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["info", "nowhere.zarr"], 1, "There is no image at"),
        (["correct-flatfield", "nowhere.zarr"], 1, "There is no image at"),
        (["correct-flatfield", "nowhere.zarr", "--seed", "x"], 2, "seed"),
        (["correct-flatfield"], 2, "address of the image"),
        (["correct-flatfield", "--params", "none.json"], 2, "none.json"),
    ],
)
def test_errors_of_the_shell_are_one_message(arguments, code, words, tmp_path):
    run = _run("-m", "fractal_mesospim_shading.cli", *arguments, cwd=tmp_path)
    assert run.returncode == code
    assert run.stderr.startswith("Error: ")
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert os.listdir(tmp_path) == []


def test_debug_shows_the_traceback(tmp_path):
    run = _run(
        "-m", "fractal_mesospim_shading.cli", "info", "nowhere.zarr", "--debug", cwd=tmp_path
    )
    assert run.returncode == 1
    assert "Traceback" in run.stderr


def test_models_of_the_estimate_command_give_the_same_image(make_empty_mosaic, tree, tmp_path):
    source = make_empty_mosaic()
    options = ["--fov-list", "1,4", "--camera-offset", "90", "--n-zplanes", "8"]
    run = _run(
        *("-m", "fractal_mesospim_shading.cli", "estimate", source),
        *("--output", tmp_path / "models", *options),
    )
    assert run.returncode == 0, run.stderr
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["488 nm", "561 nm"]
    one = correct_flatfield(source, fov_list=[1, 4], camera_offset=90, n_zplanes=8, report=False)
    two = correct_flatfield(source, models_folder=str(tmp_path / "models"), output_image_name="two")
    first, second = _files(tree, one.image_url), _files(tree, two.image_url)
    assert first.keys() == second.keys()
    assert {k: v for k, v in first.items() if k != ".zattrs"} == {
        k: v for k, v in second.items() if k != ".zattrs"
    }
