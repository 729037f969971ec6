"""Today's ngio opens what is written here.

It needs NumPy 2 and so cannot live beside BaSiCPy: it runs in an environment of its own,
whose interpreter MESOSPIM_SHADING_NGIO_PYTHON names (`.ci/run` makes one).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading import correct_flatfield

pytestmark = pytest.mark.server

VARIABLE = "MESOSPIM_SHADING_NGIO_PYTHON"

LOOK = """
import hashlib, json, sys
import numpy as np
from ngio import open_ome_zarr_container

container = open_ome_zarr_container(sys.argv[1])
image = container.get_image()
tables = {}
for name in container.list_tables():
    rois = container.get_table(name).rois()
    tables[name] = {
        roi.name: [
            [s.start, s.length]
            for s in (roi.to_pixel(pixel_size=image.pixel_size).get(axis) for axis in "zyx")
        ]
        for roi in rois
    }
levels = {}
for path in container.level_paths:
    level = container.get_image(path=path)
    pixels = np.ascontiguousarray(level.get_as_numpy())
    levels[path] = {
        "shape": list(pixels.shape),
        "dtype": str(pixels.dtype),
        "pixel_size": [level.pixel_size.z, level.pixel_size.y, level.pixel_size.x],
        "digest": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }
print(json.dumps({"channels": list(image.channel_labels), "levels": levels, "tables": tables}))
"""


@pytest.fixture(scope="module")
def interpreter() -> str:
    """Python of an environment with ngio."""
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} names no interpreter of an environment with ngio")
    return path


def seen_by_ngio(interpreter: str, url: str) -> Any:
    done = subprocess.run(
        [interpreter, "-c", LOOK, url],
        # Nothing of this environment may be seen by the other one.
        env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "arning" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("style", "ngff_version"),
    [
        pytest.param({"ngff_version": "0.4"}, "source", id="0.4"),
        pytest.param({"ngff_version": "0.5"}, "source", id="0.5"),
        pytest.param({"ngff_version": "0.5", "shards": (4, 32, 64)}, "source", id="0.5 sharded"),
        pytest.param({"ngff_version": "0.4"}, "0.5", id="0.4 to 0.5"),
    ],
)
def test_ngio_opens_a_corrected_image(
    interpreter: str,
    make_mosaic: Callable[..., Path],
    make_models: Callable[..., Path],
    style: dict[str, Any],
    ngff_version: str,
) -> None:
    source = make_mosaic(**style)
    result = correct_flatfield(
        str(source),
        models_folder=str(make_models()),
        camera_offset=100.0,
        ngff_version=ngff_version,
        report=False,
    )
    seen = seen_by_ngio(interpreter, result.image_url)
    assert seen["channels"] == ["488 nm", "561 nm"]
    # 2 x 2 tiles of 48 x 40 pixels, numbered down the columns.
    rois = seen["tables"]["FOV_ROI_table"]
    corners = {(round(roi[1][0], 3), round(roi[2][0], 3)) for roi in rois.values()}
    assert corners == {(0, 0), (48, 0), (0, 40), (48, 40)}
    for roi in rois.values():
        assert [round(roi[axis][1], 3) for axis in range(3)] == [4, 48, 40]
    group = zarr.open_group(result.image_url, mode="r")
    assert list(seen["levels"]) == ["0", "1", "2"]
    for level, (path, found) in enumerate(seen["levels"].items()):
        pixels = np.ascontiguousarray(group[path][:])
        assert found["shape"] == [2, 4, 96 >> level, 80 >> level]
        assert found["dtype"] == "uint16"
        np.testing.assert_allclose(
            found["pixel_size"], [5.0, 1.3 * 2**level, 1.3 * 2**level], rtol=1e-6
        )
        assert found["digest"] == hashlib.sha256(pixels.tobytes()).hexdigest()
