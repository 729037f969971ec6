from __future__ import annotations

import logging

from fractal_mesospim_shading.engine import schedule
from fractal_mesospim_shading.engine.schedule import Progress


def test_plain_lines_without_a_terminal(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    with Progress(100, done=20) as bar:
        for _ in range(80):
            now[0] += 10.0
            bar.advance()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "80 blocks to write"
    assert lines[-1] == "100 of 100 blocks (100 %)"
    # One for each tenth that is left.
    assert len(lines) == 1 + 8


def test_few_lines_where_it_goes_fast(caplog):
    caplog.set_level(logging.INFO)
    with Progress(1000) as bar:
        for _ in range(1000):
            bar.advance()
    assert [record.getMessage() for record in caplog.records] == [
        "1000 blocks to write",
        "1000 of 1000 blocks (100 %)",
    ]


def test_nothing_to_do(caplog):
    with Progress(0):
        pass


def test_a_bar_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(schedule.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(3) as bar:
        for _ in range(3):
            bar.advance()
    assert "3/3" in capsys.readouterr().err
