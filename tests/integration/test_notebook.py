"""The notebook of the examples runs from its first cell to its last, and holds no output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.synthetic.world import LightSheetWorld

NOTEBOOK = Path(__file__).parents[2] / "examples" / "mosaic.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_it_is_kept_as_it_is_written() -> None:
    """Outputs would hold paths of somebody's machine, and change with every run."""
    assert {(len(cell["outputs"]), cell["execution_count"]) for cell in CODE} == {(0, None)}
    told = sum(cell["cell_type"] == "markdown" for cell in CELLS)
    assert told >= 5


@pytest.mark.slow
def test_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("Agg")
    names: dict[str, Any] = {}
    for number, cell in enumerate(CODE):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    said = capsys.readouterr()
    assert "1  4  7" in said.out
    assert "Empty tiles: (1, 3, 7, 9)" in said.out
    assert "has the same bytes: True" in said.out
    assert "Reading planes" in said.err
    result = zarr.open_array(f"{names['result'].image_url}/0", mode="r")[0]
    raw = zarr.open_array(f"{names['image']}/0", mode="r")[0]
    truth = LightSheetWorld(tile_shape=(128, 128), planes=12, sample_radius=0.4).flatfield()
    tile = (slice(None), slice(0, 128), slice(0, 128))
    exact = (raw[tile].astype(float).mean(axis=0) - names["offset"]) / truth
    assert np.median(np.abs(result[tile].mean(axis=0) / exact - 1)) < 0.03
    assert len(names["figure"].axes) == 2
    pyplot.close("all")
