from __future__ import annotations

import json
import logging

import pytest

from fractal_mesospim_shading import cli, errors
from fractal_mesospim_shading.jobs import flatfield


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def asked(monkeypatch):
    """What the command hands over to the workflow."""
    calls = []

    class Result:
        image_url = "/made"

    def correct(url, options):
        calls.append((url, options))
        return Result()

    monkeypatch.setattr(flatfield, "correct_flatfield", correct)
    return calls


@pytest.mark.parametrize(
    "words",
    [
        ["--fov-list", "1,9", "--z-levels", "4,60"],
        ["--fov-list", "[1,9]", "--z-levels", "[4, 60]"],
        ["--fov-list", "1", "--fov-list", "9", "--z-levels", "4", "--z-levels=60"],
        ["--fov-list", "1", "9", "--z-levels", "4,", "60"],
        ["--fov_list", "1", "9", "--z_levels=4,60"],
    ],
)
def test_lists(asked, capsys, words):
    assert cli.main(["correct-flatfield", "/a.zarr", *words, "--overwrite", "--no-report"]) == 0
    ((url, options),) = asked
    assert (url, options.fov_list, options.z_levels) == ("/a.zarr", [1, 9], [4, 60])
    assert (options.overwrite, options.report) == (True, False)
    assert capsys.readouterr().out == "/made\n"


def test_a_file_of_the_server_and_options_that_go_before_it(asked, tmp_path):
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"zarr_url": "/a.zarr", "seed": 3, "basicpy_model_params": {}}))
    assert cli.main(["correct-flatfield", "--params", str(path), "--seed", "5"]) == 0
    assert asked[0][0] == "/a.zarr"
    assert asked[0][1].seed == 5
    assert cli.main(["correct-flatfield", "/b.zarr", "--params", str(path)]) == 0
    assert asked[1][0] == "/b.zarr"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ImageNotFoundError("bad"), 1),
        (errors.ImageFormatError("bad"), 1),
        (errors.SourceReadError("bad"), 1),
        (errors.LayoutError("bad"), 1),
        (errors.ProfileError("bad"), 1),
        (errors.ParameterError("bad"), 2),
        (errors.TileNumberError("bad"), 2),
        (errors.SamplingError("bad"), 2),
        (errors.BackgroundError("bad"), 2),
        (errors.FolderError("bad"), 3),
        (errors.OutputExistsError("bad"), 3),
        (errors.OutputWriteError("bad"), 3),
        (errors.JobLockedError("bad"), 3),
        (errors.JobMismatchError("bad"), 3),
        (errors.MemoryLimitError("bad"), 3),
        (errors.WorkerLostError("bad"), 3),
        (errors.StoppedError("s"), 130),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 70),
    ],
)
def test_errors_are_one_message_and_a_code(monkeypatch, capsys, error, code):
    def fail(url, options):
        raise error

    monkeypatch.setattr(flatfield, "correct_flatfield", fail)
    assert cli.main(["correct-flatfield", "/a.zarr"]) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    if isinstance(error, KeyboardInterrupt):
        assert text == "Stopped.\n"
        return
    assert text.startswith("Error: ")
    assert cli.main(["correct-flatfield", "/a.zarr", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["correct-flatfield", "/a", "--fov", "1"], ["nothing"]])
def test_wrong_commands(command):
    assert cli.main(command) == 2


def test_help_names_every_parameter(capsys):
    from fractal_mesospim_shading.options.flatfield import FlatfieldOptions

    assert cli.main(["correct-flatfield", "--help"]) == 0
    text = capsys.readouterr().out
    for name in FlatfieldOptions.model_fields:
        assert "--" + name.replace("_", "-") in text
