"""The memory foreseen for whole jobs, held against what their processes take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.images.models.folder import save_models
from fractal_mesospim_shading.synthetic.images import write_image

STATUS = Path("/proc/self/status")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STATUS.exists(), reason="peaks are read where Linux tells them"),
]

SIDE, TILE, DEPTH = 3072, 1536, 8
_RUNS = 4
CHILD = """
import pathlib, sys
from fractal_mesospim_shading.cli import program
code = program()
print(pathlib.Path("/proc/self/status").read_text(), file=sys.stderr)
sys.exit(code)
"""

FORMS = {
    "small chunks": {"chunks": (8, 512, 512)},
    "whole planes": {"chunks": (1, SIDE, SIDE)},
    "large chunks": {"chunks": (8, TILE, TILE)},
    "shards": {"ngff_version": "0.5", "chunks": (8, 256, 256), "shards": (8, TILE, TILE)},
    "no data": {"chunks": (8, 512, 512)},
    "one level": {"chunks": (8, 512, 512), "factors": ()},
    "gzip": {"chunks": (8, 512, 512), "codec": "gzip"},
}

BACKGROUND = "correct-background --method"
FLATFIELD = "correct-flatfield"

JOBS = [
    ("small chunks", f"{BACKGROUND} gaussian:9 --mask threshold:400 --tiles plane", 1),
    ("small chunks", f"{BACKGROUND} sliding_paraboloid", 2),
    ("whole planes", f"{BACKGROUND} tile_median --save-background", 2),
    ("no data", f"{BACKGROUND} opening:9 --output-type source", 2),
    ("shards", f"{BACKGROUND} gaussian:9", 2),
    ("one level", f"{BACKGROUND} rolling_ball:20", 1),
    ("large chunks", FLATFIELD, 2),
    ("shards", f"{FLATFIELD} --output-type float32", 1),
    ("gzip", FLATFIELD, 1),
    ("small chunks", f"{FLATFIELD} --background tile_median", 2),
    ("large chunks", f"{FLATFIELD} --execution processes", 1),
    ("large chunks", f"{FLATFIELD} --execution processes", 3),
    ("small chunks", f"{BACKGROUND} gaussian:9 --execution processes", 2),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image in each form, and the models of its channel."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.Generator(np.random.PCG64(2)).normal(300, 20, (1, DEPTH, SIDE, SIDE))
    pixels = pixels.astype(np.uint16)
    pixels[..., ::50, ::40] = 3000
    common = {"channels": ["a"], "tile_shape": (TILE, TILE), "codec": "blosc"}
    common["factors"] = ((1, 2, 2),) * 4
    for name, form in FORMS.items():
        if name == "no data":
            pixels = pixels.copy()
            pixels[..., :400] = 0
        write_image(folder / name, pixels, **{**common, **form})
    rows = np.linspace(0.5, 1.5, TILE, dtype=np.float32)
    flat = np.broadcast_to(rows, (TILE, TILE))
    save_models(folder / "models", {"a": ShadingProfile.create(flat, np.float32(100), None)})
    return folder


def _run(*words: str) -> tuple[str, int]:
    """What a command says, and the largest memory of its process."""
    run = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout, int(re.findall(r"VmHWM:\s+(\d+)", run.stderr)[-1]) * 1024


def _run_together(*words: str) -> int:
    """The largest memory of a command and its worker processes together."""
    command = [sys.executable, "-m", "fractal_mesospim_shading.cli", *words]
    most = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        main = psutil.Process(run.pid)
        while run.poll() is None:
            held = 0
            with suppress(psutil.NoSuchProcess):
                for process in (main, *main.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        held += process.memory_info().rss
            most = max(most, held)
            time.sleep(0.02)
    assert run.returncode == 0
    return most


@pytest.mark.parametrize(("form", "words", "workers"), JOBS)
def test_it_takes_no_more_and_not_much_less(form, words, workers, images, tmp_path):
    command, *more = words.split()
    if command == FLATFIELD:
        more += ["--models-folder", str(images / "models")]
    more += ["--n-workers", str(workers), "--output-folder", str(tmp_path)]
    arguments = [command, str(images / form), *more]
    said, _ = _run(*arguments, "--dry-run", "--json")
    foreseen = json.loads(said)["dry_run"][0]["memory_bytes"]
    used = 0
    for _ in range(_RUNS):
        # How much blocks hold at one time depends on how they meet; the most is foreseen.
        again = (*arguments, "--overwrite")
        took = _run_together(*again) if "processes" in more else _run(*again)[1]
        used = max(used, took)
        assert foreseen >= used
        if foreseen <= 1.5 * used:
            return
    pytest.fail(f"{foreseen} bytes are foreseen, and {used} were used at most")
