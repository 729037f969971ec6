"""Where compiled kernels go when nothing that numba knows can be written."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fractal_mesospim_shading.core import kernel_cache
from fractal_mesospim_shading.errors import OutputWriteError

pytestmark = pytest.mark.slow

CORE = Path(kernel_cache.__file__).parent


def test_every_kernel_asks_whether_it_can_be_kept():
    kernels = 0
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for decorator in map(ast.unparse, node.decorator_list):
                    kernels += decorator.startswith("kernel")
                    assert "njit" not in decorator, (path, node.name)
    assert kernels > 20


def test_a_kernel_is_compiled_when_it_is_first_called_also_by_another():
    code = """
import sys
from fractal_mesospim_shading.core.background import METHODS, noise, rolling_ball
print("numba" in sys.modules)
import numpy as np
print(rolling_ball._mean_3(np.full((3, 3), 6, "f4"), np.float32(1 / 3)).tolist()[0])
print("numba" in sys.modules, rolling_ball._mean_3.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "[6.0, 6.0, 6.0]", "True _mean_3"]


# numba with no place of its own: what is beside the source and in the home cannot be written.
HOMELESS = """
import sys
from numba.core import caching
for name in ("InTreeCacheLocator", "UserWideCacheLocator"):
    locator = getattr(caching, name, None) or getattr(caching, "_" + name)
    locator.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError("read-only"))
from fractal_mesospim_shading.core import kernel_cache
import numba, numpy as np
from fractal_mesospim_shading.core.pyramid import block_mean
print(kernel_cache.find_place(), numba.config.CACHE_DIR)
print(block_mean(np.full((1, 4, 4), 7, np.uint16), (1, 2, 2), (1, 2, 2)).tolist())
"""


def _homeless(folder: Path) -> list[str]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_temporary_folder_of_ones_own(tmp_path):
    lines = _homeless(tmp_path)
    own = tmp_path / f"mesospim-shading-{os.getuid()}"
    assert lines == [f"True {own}", "[[[7, 7], [7, 7]]]"]
    assert own.stat().st_mode & 0o777 == 0o700
    assert list(own.rglob("*.nbi"))


@pytest.mark.parametrize("planted", ["open to all", "link", "file"])
def test_a_folder_that_others_can_write_is_not_run_from(tmp_path, planted):
    """What lies there would be run as a program."""
    own = tmp_path / f"mesospim-shading-{os.getuid()}"
    if planted == "open to all":
        own.mkdir()
        own.chmod(0o777)
    elif planted == "link":
        (tmp_path / "other").mkdir()
        own.symlink_to(tmp_path / "other")
    else:
        own.write_text("")
    lines = _homeless(tmp_path)
    assert lines[0].startswith("False")
    assert lines[1] == "[[[7, 7], [7, 7]]]"
    assert not list(tmp_path.rglob("*.nbi"))


def test_no_temporary_folder_at_all(monkeypatch, tmp_path):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(kernel_cache, "_MEMORY", tmp_path / "not there")
    with pytest.raises(OutputWriteError, match="TMPDIR"):
        kernel_cache.scratch_folder()
    assert kernel_cache.own_temporary_folder() is None
    monkeypatch.setattr(kernel_cache, "_MEMORY", tmp_path)
    assert kernel_cache.scratch_folder() == str(tmp_path)
