"""The lines of the README run, in their order and as they are typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "README.md").is_file(), reason="needs the whole repository, not an sdist"
    ),
]


def _blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of the blocks that can be run, from above to below."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(900)
def test_every_block_in_its_order(tmp_path, native_v04, two_threads):
    shutil.copytree(native_v04.container, tmp_path / "acquisition.ome.zarr")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    programs = tmp_path / "programs"
    programs.mkdir()
    command = programs / "mesospim-shading"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fractal_mesospim_shading "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    ran = []
    for language, block in _blocks((ROOT / "README.md").read_text("utf-8")):
        # Installing, and running these very tests, is what `.ci/run` does.
        line = block.rpartition("pip install . && ")[2] if "pip install" in block else block
        if "pytest" in line:
            continue
        words = ["sh", "-ec", line] if language == "sh" else [sys.executable, "-c", line]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        ran.append(line)
    assert ran[0] == "mesospim-shading demo\n"
    assert len(ran) >= 7
