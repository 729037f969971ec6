from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import sys
from fractal_mesospim_shading.views.drawing import loaded_meanwhile
{before}
with loaded_meanwhile({wanted}):
    pass
print("matplotlib.figure" in sys.modules)
"""


@pytest.mark.parametrize(
    ("wanted", "before", "loaded"),
    [
        (True, "", True),
        (False, "", False),
        # Nobody is told of what cannot be imported until it is used.
        (True, "sys.modules['matplotlib'] = None", False),
    ],
)
def test_matplotlib_is_loaded_meanwhile(wanted: bool, before: str, loaded: bool) -> None:
    script = LOADED.format(before=before, wanted=wanted)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{loaded}\n", "")
