"""Background correction by server, command line and Python: equal bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading import correct_background

pytestmark = pytest.mark.slow

TASK = Path(fractal_mesospim_shading.__file__).parent / "tasks" / "correct_background.py"
CLI = ("-m", "fractal_mesospim_shading.cli")


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *(str(part) for part in command)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_all_doors_give_equal_bytes(make_mosaic, tree, tmp_path):
    images = [make_mosaic(folder=tmp_path / door) for door in ("server", "shell", "python")]
    arguments = {
        "method": {"method": "gaussian", "radius_per_channel": [4, 9]},
        "mask": {"kind": "threshold", "threshold": 9000, "dilation": 2},
        "weight": 0.9,
        "save_background": True,
    }
    args, out = tmp_path / "args.json", tmp_path / "out.json"
    args.write_text(json.dumps({"zarr_url": str(images[0]), **arguments}))
    server = _run(TASK, "--args-json", args, "--out-json", out)
    assert server.returncode == 0, server.stderr
    made = tmp_path / "server" / "brain_background_corr.zarr"
    assert json.loads(out.read_text()) == {
        "image_list_updates": [
            {
                "zarr_url": str(made),
                "origin": str(images[0]),
                "types": {"background_corrected": True},
            }
        ]
    }
    assert "warning" not in (server.stdout + server.stderr).lower()

    shell = _run(
        *(*CLI, "correct-background", images[1], "--save-background", "--weight", "0.9"),
        *("--method", '{"method": "gaussian", "radius_per_channel": "4,9"}'),
        *("--mask", json.dumps(arguments["mask"])),
    )
    assert shell.returncode == 0, shell.stderr
    lines = shell.stdout.split()
    assert [Path(line).name for line in lines] == [
        "brain_background_corr.zarr",
        "brain_background_corr_background.zarr",
    ]

    result = correct_background(images[2], **arguments)
    trees = [tree(Path(url)) for url in (made, lines[0], result.image_url)]
    assert trees[0] == trees[1] == trees[2]
    beside = made.with_name("brain_background_corr_background.zarr")
    trees = [tree(Path(url)) for url in (beside, lines[1], result.companions["background"])]
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--method", '{"method": "median", "radius": 41}'], 2, "The radius of the method median"),
        (["--method", "{median"], 2, "expected JSON"),
        (["--method", "medium"], 2, "expected one of tile_median, median"),
        (["--mask", '{"kind": "label", "label_name": "x"}'], 2, "no label image 'x'"),
    ],
)
def test_errors_are_one_line_for_a_person(arguments, code, words, make_mosaic):
    shell = _run(*CLI, "correct-background", make_mosaic(), *arguments)
    assert shell.returncode == code
    assert words in shell.stderr
    assert "Traceback" not in shell.stderr and not shell.stdout
