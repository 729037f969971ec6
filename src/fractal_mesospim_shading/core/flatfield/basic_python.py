"""Which Python fits BaSiC: this one, or that of an environment with BaSiCPy.

BaSiCPy 1.2 needs a jax that ends with Python 3.12, and NumPy 1. The fit runs in a process of its
own, so its Python may be another one: it needs BaSiCPy and NumPy, and nothing of this package.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.messages import shown

VARIABLE = "MESOSPIM_SHADING_BASIC_PYTHON"
"""The environment variable that names the interpreter of an environment with BaSiCPy."""

INSTALL = (
    "python3.12 -m venv basic && basic/bin/pip install 'basicpy<2' 'hyperactive<5' "
    "'gradient-free-optimizers<1.8' 'numpy<2'"
)
"""What makes such an environment, as one line of a shell, with Python 3.11 or 3.12."""

_OTHER_WAYS = (
    "measured models (`models_folder` or `flatfield_files`), tiles without sample (`fov_list`), or "
    "planes without sample (`z_levels`)"
)
_BELONGS = "'basicpy' of version 1.2 or later, but below 2, and 'numpy'"

_QUESTION = """
import importlib.metadata, json
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in ("basicpy", "numpy")}))
"""
_PATIENCE = 60.0
"""Seconds for an interpreter to answer."""


def find_basic_python(named: str | None = None) -> str:
    """The interpreter that BaSiC is fitted with.

    What was named goes first, then what the variable `MESOSPIM_SHADING_BASIC_PYTHON` names, then
    this Python. One that is named is asked whether it has BaSiCPy; nothing is imported.

    Args:
        named: path of an interpreter, or its name where a shell would find it; None where nobody
            named one.

    Returns:
        Path of the interpreter.

    Raises:
        ParameterError: it cannot be run or has no fitting BaSiCPy, or none was named and this
            Python has none; with the ways to go on.
    """
    text = named or os.environ.get(VARIABLE)
    if text:
        source = "`basic_python`" if named else f"The variable {VARIABLE}"
        return _asked(text, source)
    if find_spec("basicpy") is not None:
        return sys.executable
    raise ParameterError(
        "There is no BaSiCPy in this environment, and nothing else was given that a flat-field "
        f"could come from. Give {_OTHER_WAYS}; or make an environment with BaSiCPy, by Python 3.11 "
        f"or 3.12, and let the variable {VARIABLE} name its Python (basic/bin/python):\n  {INSTALL}"
    )


def _asked(text: str, source: str) -> str:
    """The path of an interpreter that was named, once it has said that it has BaSiCPy."""
    path = os.path.expanduser(text)
    if Path(path).is_dir():
        raise _refused(text, source, "is a folder; expected the interpreter in it (bin/python)")
    found = shutil.which(path)
    if found is None:
        raise _refused(text, source, "is no program that can be run")
    path = os.path.abspath(found)
    command = [path, "-P", "-c", _QUESTION]
    try:
        done = subprocess.run(
            command,
            env=basic_environment(path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_PATIENCE,
        )
    except OSError as error:
        raise _refused(text, source, f"cannot be run ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise _refused(text, source, f"gave no answer in {_PATIENCE:g} s") from error
    try:
        versions = json.loads(done.stdout)
        basicpy, numpy = versions["basicpy"], versions["numpy"]
    except (ValueError, KeyError, TypeError) as error:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        cause = f": {shown(lines[-1])}" if lines else ""
        raise _refused(text, source, f"did not answer as Python does{cause}") from error
    if basicpy is None or numpy is None:
        missing = "basicpy" if basicpy is None else "numpy"
        raise _refused(text, source, f"has no '{missing}'")
    if not _fits(basicpy):
        raise _refused(text, source, f"has 'basicpy' {shown(basicpy)}")
    return path


def _fits(version: str) -> bool:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return major == "1" and minor.isdecimal() and int(minor) >= 2


def _refused(text: str, source: str, what: str) -> ParameterError:
    return ParameterError(
        f"{source} is '{shown(text)}', which {what}. Expected a Python with {_BELONGS}, as this "
        f"line makes one of 3.11 or 3.12 (basic/bin/python):\n  {INSTALL}\n  Or give {_OTHER_WAYS}."
    )


def basic_environment(python: str) -> dict[str, str]:
    """The environment variables of a process that fits BaSiC.

    Args:
        python: its interpreter. Another than this one must not look for modules where this does.
    """
    dropped = {"XLA_FLAGS", "JAX_ENABLE_X64", "PYTHONSTARTUP"}
    if python != sys.executable:
        dropped |= {"PYTHONPATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "__PYVENV_LAUNCHER__"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}


def module_places(python: str) -> list[str]:
    """Where a process that fits BaSiC also finds modules: where this one does, if it is the same.

    Args:
        python: its interpreter.
    """
    if python != sys.executable:
        return []
    return [place for place in sys.path if os.path.isabs(place)]
