from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import sys
from fractal_mesospim_shading.core.threads import meanwhile
from fractal_mesospim_shading.views import drawing
{before}
with meanwhile(drawing.load):
    pass
print("matplotlib.figure" in sys.modules)
"""


@pytest.mark.parametrize(
    ("before", "loaded"),
    [
        ("", True),
        # Nobody is told of what cannot be imported until it is used.
        ("sys.modules['matplotlib'] = None", False),
    ],
)
def test_matplotlib_is_loaded_meanwhile(before: str, loaded: bool) -> None:
    script = LOADED.format(before=before)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{loaded}\n", "")
