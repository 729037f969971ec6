"""Installations that cannot be written, no home, standard streams that are closed or full."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading.errors import OutputWriteError

pytestmark = pytest.mark.slow

PACKAGE = Path(fractal_mesospim_shading.__file__).parent


@pytest.fixture
def command(make_mosaic, make_models):
    """The words of a correction, and the address of its result."""
    source, models = make_mosaic(), make_models()
    words = [sys.executable, "-m", "fractal_mesospim_shading", "correct-flatfield", str(source)]
    words += ["--models-folder", str(models), "--camera-offset", "100", "--no-report"]
    return words, source.with_name("brain_flatfield_corr.zarr")


def test_a_read_only_installation_and_no_home(command):
    words, result = command
    read_only = f"mount --bind {PACKAGE} {PACKAGE} && mount -o remount,bind,ro {PACKAGE}"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("no mounts of its own can be made here")
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment |= {"HOME": "/proc/none", "TMPDIR": str(result.parent)}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{read_only} && exec {shlex.join(words)}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{result}\n"
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("redirection", [">&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_closed_and_full_streams(redirection, command, tree):
    words, result = command
    whole = subprocess.run(words, capture_output=True, text=True)
    assert whole.returncode == 0
    expected = tree(result)
    shutil.rmtree(result)
    done = subprocess.run(
        ["bash", "-c", f"exec {shlex.join(words)} {redirection}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert tree(result) == expected
    assert not list(result.parent.glob(".*"))
    if redirection == ">/dev/full":
        assert "could not be written to the standard output" in done.stderr
    if redirection == "2>/dev/full":
        assert done.stdout == f"{result}\n"


def test_a_command_that_prints_its_result_says_that_it_was_lost(make_mosaic):
    words = [sys.executable, "-m", "fractal_mesospim_shading", "info", str(make_mosaic())]
    done = subprocess.run(
        ["bash", "-c", f"exec {shlex.join(words)} >/dev/full"], capture_output=True, text=True
    )
    assert done.returncode == OutputWriteError.exit_code
    assert "standard output cannot be written" in done.stderr
