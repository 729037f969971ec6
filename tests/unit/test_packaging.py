"""What lies in `packaging/` follows the package: versions, dependencies, commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import fractal_mesospim_shading

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"

pytestmark = pytest.mark.skipif(
    not PACKAGING.is_dir(), reason="needs the whole repository, not an sdist"
)

# The line that has everything.
WITH_BASICPY = SpecifierSet(">=3.11,<3.13")

# Names of conda-forge where they are others than those of PyPI.
CONDA_NAMES = {"opencv-python-headless": "py-opencv", "matplotlib": "matplotlib-base"}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def recipe() -> dict[str, Any]:
    return yaml.safe_load((PACKAGING / "conda" / "recipe.yaml").read_text("utf-8"))


def on(python: str) -> dict[str, Requirement]:
    """What is installed on a version of Python, by name."""
    ours = [Requirement(line) for line in project()["dependencies"]]
    fitting = [
        one for one in ours if one.marker is None or one.marker.evaluate({"python_version": python})
    ]
    assert len({one.name for one in fitting}) == len(fitting)
    return {one.name: one for one in fitting}


def test_two_lines_that_differ_by_what_basicpy_needs() -> None:
    older, today = on("3.11"), on("3.13")
    assert older == on("3.12")
    assert today == on("3.14") == on("3.15")
    assert set(older) - set(today) == {"basicpy", "hyperactive", "gradient-free-optimizers"}
    assert not set(today) - set(older)


def test_the_recipe_needs_what_the_package_needs() -> None:
    wanted = {CONDA_NAMES.get(name, name): one.specifier for name, one in on("3.12").items()}
    wanted["python"] = WITH_BASICPY
    given = [Requirement(line) for line in recipe()["requirements"]["run"]]
    assert {one.name: one.specifier for one in given} == wanted


def test_the_recipe_is_of_this_version_and_has_its_command() -> None:
    assert recipe()["context"]["version"] == fractal_mesospim_shading.__version__
    (command,) = recipe()["build"]["python"]["entry_points"]
    assert dict([command.split(" = ")]) == project()["scripts"]
    assert recipe()["about"]["summary"] == project()["description"]


def test_the_image_runs_the_tests_by_the_command_of_the_readme() -> None:
    lines = (PACKAGING / "Dockerfile").read_text("utf-8")
    command = re.search(r"AS tests\n(?:.*\n)*?CMD \[(.*)\]", lines)
    assert command is not None
    words = " ".join(re.findall(r'"([^"]*)"', command[1]))
    assert f"&& {words}\n" in (ROOT / "README.md").read_text("utf-8")


def test_the_image_has_a_python_that_the_package_takes() -> None:
    version = re.search(r"FROM python:([\d.]+)", (PACKAGING / "Dockerfile").read_text("utf-8"))
    assert version is not None
    assert WITH_BASICPY.contains(f"{version[1]}.0")
    environment = yaml.safe_load((PACKAGING / "conda" / "environment.yml").read_text("utf-8"))
    assert Requirement(environment["dependencies"][0]).specifier == WITH_BASICPY
