"""Environments of other programs, in which they meet what is written here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

BUILD = Path(__file__).parents[2] / "build"
"""Where environments are kept, so that only the first run makes them."""

_CURRENT = ("python3.14", "python3.13", "python3.12")


def run_command(*words: Any, **settings: Any) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **settings
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def asked_for(config: pytest.Config, word: str) -> bool:
    """Whether a mark, or a path with that word in it, was given to pytest."""
    words = [config.option.markexpr.replace(f"not {word}", ""), *config.args]
    return any(word in text for text in words)


def newest_python() -> str:
    """The newest interpreter that runs here; `PYTHON313` names one that has no such name."""
    for name in (os.environ.get("PYTHON313", ""), *_CURRENT):
        try:
            # A name on the path may be a shim that refuses.
            subprocess.run([name, "-c", ""], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return name
    return sys.executable


def made_environment(name: str, packages: Sequence[str], python: str = sys.executable) -> Path:
    """The interpreter of an environment with some packages, as new as it can have them.

    It is made once, below `build`. Where they are installed beside these tests, it is the
    interpreter of the tests. Where they cannot be installed, the test is skipped.

    Args:
        name: of its folder.
        packages: distributions, by name.
        python: interpreter to make it of.
    """
    if all(map(_installed, packages)):
        return Path(sys.executable)
    said = run_command(python, "-c", "import sys; print(*sys.version_info[:2], sep='.')")
    folder = BUILD / f"{name}-{said.strip()}"
    installed = folder / "installed.txt"
    interpreter = folder / "bin" / "python"
    if not installed.exists():
        run_command(python, "-m", "venv", "--clear", folder)
        pip = [interpreter, "-m", "pip", "install", "--quiet", "--prefer-binary", *packages]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            error = (done.stderr.strip() or "pip failed").splitlines()[-1]
            pytest.skip(f"{', '.join(packages)} cannot be installed here: {error}")
        installed.write_text(run_command(interpreter, "-m", "pip", "freeze"))
    return interpreter


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def answer_of(interpreter: Path, program: Path, *arguments: Any, silent: bool = True) -> Any:
    """What a program prints in its last line, as JSON.

    Args:
        interpreter: of its environment.
        program: file of Python; it may import what that environment has, and nothing from here.
        arguments: of the program.
        silent: whether it must not warn.
    """
    words = [str(word) for word in (interpreter, program, *arguments)]
    # Nothing of this environment may be seen by the other one.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program.name}: {done.stdout[-1000:]}{done.stderr[-3000:]}"
    assert not (silent and "warning" in done.stderr.lower()), done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
