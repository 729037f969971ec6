"""What takes long to import is not imported where it is not used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HEAVY = ("anndata", "basicpy", "cv2", "dask", "jax", "matplotlib", "numba", "pandas", "scipy")

SCRIPT = """
import contextlib, io, json, sys
heavy = json.loads(sys.argv[1])
loaded = {}
def look(what):
    loaded[what] = [name for name in heavy if name in sys.modules]
import fractal_mesospim_shading
look("import")
from fractal_mesospim_shading.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    for words in (["--help"], ["correct-flatfield", "--help"], ["info", sys.argv[2]]):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
        assert not code, (words, code)
        look(" ".join(words[:2]))
print(json.dumps(loaded))
"""


def test_the_package_its_help_and_info_load_nothing_heavy(make_mosaic: Callable[..., Path]) -> None:
    image = str(make_mosaic())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(HEAVY), image],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert len(loaded) == 4
    assert all(names == [] for names in loaded.values()), loaded
