"""The memory foreseen for a block, held against what a fresh process takes for it."""

from __future__ import annotations

import re
import subprocess
import sys
from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fractal_mesospim_shading.core.background import make_method
from fractal_mesospim_shading.core.background.apply import Application
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.engine.zero_look import ZeroLook
from fractal_mesospim_shading.images.source import Axes
from fractal_mesospim_shading.local_background.kernel import BackgroundKernel
from fractal_mesospim_shading.local_background.planes import PlaneCorrection

STATUS = Path("/proc/self/status")
PARAMETERS = {
    "opening": {"radius_px": 6},
    "rolling_ball": {"radius_px": 50},
    "sliding_paraboloid": {"radius_px": 50},
    "gaussian": {"radius_px": 9.0},
    "difference_of_filters": {"small_radius_px": 2, "big_radius_px": 6},
}
SIZE, DEPTH = 2400, 4


class Source:
    """Planes with objects, made as they are read."""

    dtype = np.dtype("uint16")
    levels = (SimpleNamespace(shape=(DEPTH, SIZE, SIZE)),)

    def read_grain(self):
        return (DEPTH, 600, 600)

    def read(self, level, box):
        pixels = np.full([part.stop - part.start for part in box], 300, np.uint16)
        pixels[:, ::7] += 9
        pixels[:, ::50, ::40] = 3000
        return pixels

    def read_block(self, box):
        return self.read(0, box)


def _kernel(name, size):
    layout, axes = TileLayout.single((size, size)), Axes("zyx")
    correction = PlaneCorrection(Application(), np.dtype(np.float32), 1000.0, 2)
    look, method = ZeroLook(axes, (layout,), ("data",)), make_method(name, **PARAMETERS[name])
    return BackgroundKernel(axes, layout, (method,), correction, look, None, (), DEPTH)


def _resident(what):
    return int(re.search(rf"{what}:\s+(\d+)", STATUS.read_text())[1]) * 1024


def _box(size):
    return (slice(0, DEPTH), slice(0, size), slice(0, size))


def ratio(name, size):
    """What is foreseen for a block over what it takes, in this process."""
    for small in (300, 150):
        # Compiled kernels and loaded libraries are no part of it.
        _kernel(name, 300).process(Source(), _box(small))
    kernel, block = _kernel(name, SIZE), (DEPTH, size, size)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    done = kernel.process(Source(), _box(size))
    used = _resident("VmHWM") - before
    assert done.pixels[0].any()
    return (kernel.working_bytes(block, Source()) + 4 * prod(block)) / used


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="peaks are read where Linux tells them")
@pytest.mark.parametrize("size", [SIZE, 600], ids=["whole", "in parts"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_memory_is_foreseen_within_a_half(name, size):
    command = [sys.executable, __file__, name, str(size)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1 <= float(run.stdout) <= 1.5


if __name__ == "__main__":
    print(ratio(sys.argv[1], int(sys.argv[2])))
