"""How far a run is, shown in each of the ways that there are."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from fractal_mesospim_shading.engine import progress
from fractal_mesospim_shading.engine.progress import Progress, progress_shown
from fractal_mesospim_shading.errors import ParameterError


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def isatty(self) -> bool:
        return True


def count(total: int, done: int = 0) -> None:
    with Progress(total, done, doing="Counting", unit="tile") as counting:
        for _ in range(total - done):
            counting.advance()


def test_a_bar(capsys):
    with progress_shown(True):
        count(3)
    shown = capsys.readouterr().err
    assert "Counting" in shown
    assert "3/3" in shown


@pytest.mark.parametrize("stream", [Gone(), None], ids=["gone", "none at all"])
def test_a_bar_that_cannot_be_written_stops_nothing(monkeypatch, stream):
    """The second as in a program of Windows without a console."""
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_shown(True):
        count(3)


@pytest.mark.parametrize("shown", [None, False])
def test_nothing_is_shown_unless_somebody_asks(capsys, shown):
    count(3)
    with progress_shown(shown):
        count(3)
    with progress_shown(True), progress_shown(shown):
        count(3)
    assert capsys.readouterr() == ("", "")


def test_a_function_is_told_each_step_and_what_was_finished_before():
    told = []
    with progress_shown(lambda *step: told.append(step)):
        count(4, done=2)
    count(4)
    assert told == [("Counting", 2, 4), ("Counting", 3, 4), ("Counting", 4, 4)]


@pytest.mark.parametrize("shown", [3, "yes", 1.0])
def test_what_shows_nothing_is_refused(shown):
    with pytest.raises(ParameterError, match="progress.*expected True, False, or a function"):
        with progress_shown(shown):
            pass


def test_lines_of_the_log_at_tenths_but_half_a_minute_apart(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(100, done=20) as counting:
        for _ in range(80):
            now[0] += 10.0
            counting.advance()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "Correcting: 30 of 100 blocks (30 %)"
    assert lines[-1] == "Correcting: 100 of 100 blocks (100 %)"
    # One for each tenth that is left.
    assert len(lines) == 8


def test_no_lines_where_it_goes_fast(caplog):
    caplog.set_level(logging.INFO)
    count(1000)
    count(0)
    assert caplog.records == []
