"""Which Python fits BaSiC: found, asked, or refused in one sentence; the fit is the same."""

from __future__ import annotations

import ast
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading.core.flatfield import basic_child, basic_python
from fractal_mesospim_shading.core.flatfield.basic import fit_basic
from fractal_mesospim_shading.core.flatfield.basic_python import (
    INSTALL,
    VARIABLE,
    basic_environment,
    find_basic_python,
)
from fractal_mesospim_shading.errors import ParameterError

Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """`program(line)`: a file that runs a line of a shell."""

    def write(line: str) -> Path:
        path = tmp_path / "bin" / "python"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return path

    return write


def answer(**versions: str | None) -> str:
    return f"echo {shlex.quote(json.dumps(versions))}"


@pytest.fixture
def without_basicpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment as that of Python 3.13."""
    monkeypatch.setattr(basic_python, "find_spec", lambda name: None)
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.usefixtures("without_basicpy")
def test_without_basicpy_the_error_names_the_other_ways_and_the_line_that_helps() -> None:
    with pytest.raises(ParameterError) as caught:
        find_basic_python()
    text = caught.value.args[0]
    for way in ("`models_folder`", "`flatfield_files`", "`fov_list`", "`z_levels`"):
        assert way in text
    assert VARIABLE in text
    assert text.endswith(INSTALL)


def test_this_python_is_taken_where_it_has_basicpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(basic_python, "find_spec", lambda name: object())
    assert find_basic_python() == sys.executable


@pytest.mark.usefixtures("without_basicpy")
def test_a_python_that_is_named_goes_before_the_variable(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(answer(basicpy="1.2.0", numpy="1.26.4"))
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    assert find_basic_python(str(path)) == str(path)
    monkeypatch.setenv(VARIABLE, str(path))
    assert find_basic_python() == str(path)
    # As a shell would find it, and from another folder as well.
    monkeypatch.chdir(path.parents[1])
    assert find_basic_python("bin/python") == str(path)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    assert find_basic_python("python") == str(path)
    monkeypatch.setenv("HOME", str(path.parents[1]))
    assert find_basic_python("~/bin/python") == str(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (answer(basicpy=None, numpy="2.3.0"), "has no 'basicpy'"),
        (answer(basicpy="1.2.0", numpy=None), "has no 'numpy'"),
        (answer(basicpy="2.0.0", numpy="2.3.0"), "has 'basicpy' 2.0.0"),
        (answer(basicpy="1.1.0", numpy="1.26.4"), "has 'basicpy' 1.1.0"),
        (answer(numpy="1.26.4"), "did not answer as Python does"),
        ("echo '\"yes\"'", "did not answer as Python does"),
        ("echo 'pyenv: python3.12: command not found' >&2; exit 127", "pyenv: python3.12: command"),
        ("exit 0", "did not answer as Python does"),
    ],
)
def test_a_python_that_does_not_fit_is_refused_with_what_would(
    program: Program, line: str, said: str
) -> None:
    path = program(line)
    with pytest.raises(ParameterError) as caught:
        find_basic_python(str(path))
    text = caught.value.args[0]
    assert text.startswith(f"`basic_python` is '{path}', which ")
    assert said in text
    assert INSTALL in text
    assert "`fov_list`" in text


def test_what_is_no_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="is a folder; expected the interpreter in it"):
        find_basic_python(str(tmp_path))
    file = tmp_path / "text"
    file.write_text("#!/nowhere/sh\n")
    monkeypatch.setenv(VARIABLE, str(file))
    with pytest.raises(ParameterError, match=f"{VARIABLE} is .*no program that can be run"):
        find_basic_python()
    file.chmod(0o755)
    with pytest.raises(ParameterError, match="cannot be run"):
        find_basic_python()


def test_a_python_that_does_not_answer_is_not_waited_for(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(basic_python, "_PATIENCE", 0.2)
    with pytest.raises(ParameterError, match=r"gave no answer in 0\.2 s"):
        find_basic_python(str(program("exec sleep 30")))


def test_another_python_is_kept_from_the_modules_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    other = basic_environment("/opt/basic/bin/python")
    assert not {"PYTHONPATH", "PYTHONHOME"} & set(other)
    assert basic_environment(sys.executable)["PYTHONPATH"] == "/elsewhere"


def test_the_child_needs_basicpy_and_numpy_alone() -> None:
    tree = ast.parse(Path(basic_child.__file__).read_text("utf-8"))
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            named.add(str(node.module).partition(".")[0])
    assert named - set(sys.stdlib_module_names) == {"numpy", "basicpy"}


@pytest.mark.slow
def test_the_same_planes_give_the_same_fit_by_another_python(
    basic_python: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another path, and so another environment: without the modules that this one finds."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    planes = (np.exp(-(x**2 + y**2) / 2) * rng.gamma(9, 20, (12, 1, 1))).astype(np.float32)
    planes += rng.normal(0, 2, planes.shape).astype(np.float32)
    other = program(f'exec {shlex.quote(basic_python)} "$@"')
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    assert find_basic_python(str(other)) == str(other)
    fits = [fit_basic(planes, {"epsilon": 0.1}, python) for python in (basic_python, str(other))]
    first, second = ([f.flatfield.tobytes(), f.baseline.tobytes()] for f in fits)
    assert first == second
