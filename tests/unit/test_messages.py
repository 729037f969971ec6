from __future__ import annotations

import logging
import pickle

import pytest

from fractal_mesospim_shading.errors import ParameterError, SourceReadError
from fractal_mesospim_shading.messages import (
    Door,
    LogLines,
    listen,
    rendered,
    shown,
    through,
    warnings_heard,
)

LOG = logging.getLogger("fractal_mesospim_shading.somewhere")


@pytest.mark.parametrize(
    ("door", "text", "expected"),
    [
        (Door.TASK, "Set `overwrite` or `report=false`.", "Set overwrite or report = false."),
        (Door.COMMAND, "Set `overwrite` or `report=false`.", "Set --overwrite or --no-report."),
        (Door.PYTHON, "Set `overwrite` or `report=false`.", "Set overwrite= or report=False."),
        (Door.COMMAND, "`execution=dask` and `z_levels`", "--execution dask and --z-levels"),
        (Door.PYTHON, "`execution=dask`; `seed` is 3", "execution='dask'; seed is 3"),
        (Door.PYTHON, "`camera_offset=-1.5` `fov_list=[1,9]`", "camera_offset=-1.5 fov_list=[1,9]"),
        (Door.COMMAND, "`overwrite=true` with `zarr_url`", "--overwrite with IMAGE"),
    ],
)
def test_each_door_in_its_own_words(door, text, expected):
    with through(door):
        assert rendered(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "the levels 0 to 3, chunks, a seed, the report; overwrite what is there",
        "/data/camera_offset/output_folder.zarr and 'camera_offset' and camera_offset",
        "run `dask scheduler`, `mesospim-shading estimate` or `no_option`",
    ],
)
def test_prose_paths_and_commands_stay(text):
    for door in Door:
        with through(door):
            assert rendered(text) == text


def test_an_error_speaks_the_words_of_the_door_that_shows_it():
    error = ParameterError("Give `camera_offset`.")
    assert str(error) == "Give camera_offset=."
    with through(Door.COMMAND):
        assert str(error) == "Give --camera-offset."
        assert str(pickle.loads(pickle.dumps(error))) == "Give --camera-offset."
        assert str(SourceReadError("`n_workers`")) == "--n-workers"


def test_what_is_hidden_is_shown():
    assert str(ParameterError("a\x1b[31mb\r\u202ec\udc80\x85\n  d")) == (
        "a\\x1b[31mb\\r\\u202ec\\udc80\\x85\n  d"
    )
    assert shown("488\nnm\t\x00 µ 日本 $") == "488\\nnm\\t\\x00 µ 日本 $"


def test_only_lines_of_our_own_are_lines():
    error = ParameterError("2 problems:\n- one\n- two\n  more\nWARNING forged\n\n  x")
    assert str(error) == "2 problems:\n- one\n- two\n  more\\nWARNING forged\\n\n  x"


def test_the_log_is_rendered_for_every_handler(caplog):
    with caplog.at_level(logging.INFO), through(Door.COMMAND):
        LOG.info("Channel %s of %d: give `camera_offset`\n  here", "a\nWARNING\x1b[2J", 3)
        LOG.info("%s 100 %%", ValueError("two\n- lines\r"))
    assert caplog.messages == [
        "Channel a\\nWARNING\\x1b[2J of 3: give --camera-offset\n  here",
        "two\n- lines\\r 100 %",
    ]


def test_warnings_are_heard_once_by_those_who_listen():
    with warnings_heard() as outer:
        LOG.warning("one")
        with warnings_heard() as inner:
            LOG.warning("two")
            LOG.warning("%s", "two")
            LOG.info("three")
    LOG.warning("four")
    assert outer == ["one", "two"]
    assert inner == ["two"]


def test_warnings_are_shown_where_nobody_has_set_up_logging(capsys, monkeypatch):
    listen()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    LOG.warning("Look at `seed`")
    LOG.info("no need to look")
    assert capsys.readouterr().err == "WARNING: Look at seed=\n"


def test_a_line_of_the_terminal_says_that_it_is_a_warning():
    def line(level: int) -> str:
        return LogLines().format(logging.LogRecord("x", level, "", 0, "text", (), None))

    assert line(logging.WARNING) == "WARNING: text"
    assert line(logging.INFO) == "text"
