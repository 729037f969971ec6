from __future__ import annotations

import json
import logging

import pytest
import zarr

from fractal_mesospim_shading import cli
from fractal_mesospim_shading.views.inspection import as_text, describe


def test_facts(make_mosaic):
    found = describe(str(make_mosaic(missing=(3,), ngff_version="0.5", shards=(4, 32, 64))))
    assert json.loads(json.dumps(found)) == found
    assert found["ngff_version"] == "0.5"
    assert found["finished"] is True
    assert [channel["label"] for channel in found["channels"]] == ["488 nm", "561 nm"]
    tiles = found["tiles"]
    assert (tiles["rows"], tiles["columns"], tiles["shape_px"]) == (2, 2, [48, 40])
    assert [tile["number"] for tile in tiles["present"]] == [1, 2, 4]
    assert tiles["missing"] == [3]
    assert tiles["map"] == ["1  -", "2  4"]
    assert found["levels"][0] == {
        "path": "0",
        "shape": [2, 4, 96, 80],
        "chunks": [1, 2, 16, 32],
        "shards": [1, 4, 32, 64],
    }


def test_text(make_mosaic):
    text = as_text(describe(str(make_mosaic(shape=(2, 2, 144, 160)))))
    assert "  01  04  07  10\n  02  05  08  11\n  03  06  09  12" in text
    assert "uint16, finished" in text
    assert "0: 2 x 2 x 144 x 160, chunks 1 x 2 x 16 x 32" in text
    assert "488 nm" in text


def test_unfinished_images_are_shown_as_such(make_mosaic):
    path = make_mosaic()
    zarr.open_group(str(path), mode="r+").attrs["mesospim_shading"] = {"complete": False}
    assert "UNFINISHED" in as_text(describe(str(path)))


def test_command(make_mosaic, capsys):
    path = str(make_mosaic())
    assert cli.main(["info", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"] == path
    assert cli.main(["info", path]) == 0
    assert "1  3" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
