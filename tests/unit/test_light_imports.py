"""What takes long to import is not imported where it is not used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fractal_mesospim_shading.cli.commands import COMMANDS

HEAVY = ("anndata", "basicpy", "cv2", "dask", "jax", "matplotlib", "numba", "pandas", "scipy")

OF_NO_MODEL = ("fsspec", "numpy", "pydantic", "zarr", *HEAVY)

SCRIPT = """
import contextlib, io, json, sys
heavy = json.loads(sys.argv[1])
loaded = {}
def look(what):
    loaded[what] = [name for name in heavy if name in sys.modules]
import fractal_mesospim_shading
look("import")
from fractal_mesospim_shading.cli import main
for words in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(words)
    assert code == (2 if words[-1] == "--nope" else 0), (words, code)
    look(" ".join(words))
print(json.dumps(loaded))
"""


def _loaded(heavy: Sequence[str], commands: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """What of some modules is loaded at first and after each command."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(heavy), json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    assert len(loaded) == len(commands) + 1
    return loaded


def test_the_package_its_help_and_info_load_nothing_heavy(make_mosaic: Callable[..., Path]) -> None:
    image = str(make_mosaic())
    commands = [["--help"], ["correct-flatfield", "--help"], ["info", image]]
    loaded = _loaded(HEAVY, commands)
    assert all(names == [] for names in loaded.values()), loaded


def test_help_and_wrong_use_of_commands_without_models_load_no_model() -> None:
    names = ("info", "find-empty", "check", "demo", "completion")
    commands = [["--help"], *([name, word] for name in names for word in ("--help", "--nope"))]
    loaded = _loaded(OF_NO_MODEL, commands)
    assert all(names == [] for names in loaded.values()), loaded


def test_help_and_wrong_use_of_all_other_commands_load_the_models_alone() -> None:
    names = [name for name in COMMANDS.commands if "params" in _options_of(name)]
    assert {"correct-flatfield", "estimate", "import", "correct-background"} <= {*names}
    commands = [[name, word] for name in names for word in ("--help", "--nope")]
    loaded = _loaded(("fsspec", "zarr", *HEAVY), commands)
    assert all(names == [] for names in loaded.values()), loaded


def test_a_message_names_options_of_a_command_that_did_not_load_them() -> None:
    text = "Set `camera_offset`, not `no_option`."
    script = (
        "import sys; from fractal_mesospim_shading.cli import main; "
        "from fractal_mesospim_shading.messages import Door, rendered, through; "
        "assert main(['info', '--help']) == 0; assert 'pydantic' not in sys.modules\n"
        f"with through(Door.COMMAND): print(rendered({text!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "Set --camera-offset, not `no_option`."


def test_the_work_of_an_image_is_planned_without_what_acquisitions_and_verdicts_take(
    make_mosaic: Callable[..., Path],
) -> None:
    image = str(make_mosaic())
    script = (
        "import json, sys\n"
        "from fractal_mesospim_shading.jobs.flatfield import plan_flatfield\n"
        "from fractal_mesospim_shading.options.flatfield import FlatfieldOptions\n"
        f"plan_flatfield({image!r}, FlatfieldOptions(fov_list=[1], camera_offset=100))\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    names = ("images.native.collection", "jobs.containers", "jobs.judging", "overlaps.sampling")
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "ome_zarr.reader" in loaded
    assert {f"fractal_mesospim_shading.{name}" for name in names} & {*loaded} == set()


def _options_of(command: str) -> set[str | None]:
    made = COMMANDS.commands[command]
    with made.make_context(command, ["--help"], resilient_parsing=True) as context:
        return {param.name for param in made.get_params(context)}
