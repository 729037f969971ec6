"""What is said and written down of the gains of tiles."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from fractal_mesospim_shading.core.overlaps.gains import TileGain
from fractal_mesospim_shading.core.overlaps.observing import Rejected
from fractal_mesospim_shading.flatfield.channel_gains import ChannelGains, gain_of, tell_gains

NAMES = {number: f"Tile{number - 1}" for number in range(1, 7)}
TILES = {
    1: TileGain(1.25, 0.002, 2, 0),
    2: TileGain(0.8, 0.003, 2, 0),
    3: TileGain(1.0, 0.002, 2, 0),
    4: TileGain(1.01, 0.004, 1, 1),
    5: TileGain(1 / 1.01, 0.004, 1, 1),
    6: TileGain(1.0, np.inf, 0, 2),
}
FOUND = ChannelGains("488 nm", NAMES, TILES, (Rejected(5, 6, "too little light, or saturated"),))


def said(found: ChannelGains, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    caplog.set_level(logging.INFO)
    tell_gains(found)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_the_log_names_the_tiles_that_differ_most_and_those_that_nothing_tells_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = said(FOUND, caplog)
    assert {level for level, _ in lines} == {"INFO"}
    first, unlinked, parts = (line for _, line in lines)
    assert "0.800 to 1.250 from 4 overlaps, each known to 0.3 %" in first
    assert "tile 1 was 20 % dimmer; tile 2 was 25 % brighter" in first
    assert "the tiles 6, which keep it (5 and 6: too little light, or saturated)" in unlinked
    assert "in 2 parts" in parts
    assert "1, 2, 3; 4, 5" in parts


def test_a_gain_at_its_limit_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    tiles = {1: TileGain(3.0, 0.01, 1, 0, limited=True), 2: TileGain(1 / 3, 0.01, 1, 0)}
    lines = said(ChannelGains("561 nm", NAMES, tiles), caplog)
    (warning,) = (line for level, line in lines if level == "WARNING")
    assert "the tiles 1 differ from the others by more than a factor of 3" in warning


def test_where_nothing_tells_anything_that_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    tiles = {1: TileGain(1.0, np.inf, 0, 0), 2: TileGain(1.0, np.inf, 0, 1)}
    ((level, line),) = said(ChannelGains("561 nm", NAMES, tiles), caplog)
    assert level == "WARNING"
    assert "no overlap tells the brightness of the tiles 1, 2" in line


def test_kept_with_a_job_and_in_the_provenance_as_plain_json() -> None:
    assert ChannelGains.from_bytes(FOUND.to_bytes()) == FOUND
    facts = json.loads(json.dumps(FOUND.facts(), allow_nan=False))
    assert facts["tile"] == [1, 2, 3, 4, 5, 6]
    assert facts["name"][5] == "Tile5"
    assert facts["uncertainty"][4:] == [0.004, None]
    assert FOUND.of_tile(2).facts()["gain"] == [0.8]


def test_the_gain_of_a_side_comes_on_top() -> None:
    with_side = ChannelGains("488 nm", NAMES, TILES, side=TileGain(1.1, 0.001, 5, 0))
    assert gain_of({0: with_side}, 0, 1) == pytest.approx(1.25 * 1.1)
    assert gain_of({0: with_side}, 1, 1) == 1
    assert with_side.facts()["side"] == {"gain": 1.1, "uncertainty": 0.001}
    assert with_side.facts()["gain"] == FOUND.facts()["gain"]


def test_the_report_has_a_number_for_each_tile() -> None:
    rows = dict(FOUND.rows())
    assert "tile 1 was 20 % dimmer" in rows["Tile gains"]
    assert rows["Gain of each tile"].startswith("1: 1.250, 2: 0.800, 3: 1.000")


def test_the_log_tells_the_mosaics_of_a_job_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell_gains(FOUND, "left: ")
    assert caplog.records
    for record in caplog.records:
        assert record.getMessage().startswith(f"Channel left: {FOUND.label}: ")


def test_where_no_overlap_shows_the_same_tissue_positions_are_doubted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tiles = {number: TileGain(1.0, 0.05, 1, 0) for number in (1, 2)}
    pair = Rejected(1, 2, "what both views show does not correlate (0.30)")
    found = ChannelGains("561 nm", {1: "a", 2: "b"}, tiles, (pair,), as_placed=1)
    level, line = said(found, caplog)[-1]
    assert level == "WARNING" and "none of the overlaps" in line and "does not correlate" in line
    assert ChannelGains.from_bytes(found.to_bytes()) == found
    caplog.clear()
    assert all(level == "INFO" for level, _ in said(replace(found, as_placed=0), caplog))
