"""Standard streams that cannot be written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time

import pytest

from fractal_mesospim_shading.engine import streams
from fractal_mesospim_shading.engine.streams import (
    SteadyStream,
    is_terminal,
    read_file_or_pipe,
    refuse_lost_output,
    steady_streams,
)
from fractal_mesospim_shading.errors import OutputWriteError


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def isatty(self) -> bool:
        return True


def test_what_cannot_be_written_is_dropped():
    stream = SteadyStream(Full())
    assert stream.write("a line") == 6
    stream.flush()
    assert stream.failure is not None
    assert stream.failure.errno == 28
    assert stream.isatty()
    closed = io.StringIO()
    closed.close()
    assert SteadyStream(closed).write("x") == 1
    open_one = io.StringIO()
    SteadyStream(open_one).write("x")
    assert open_one.getvalue() == "x"


def test_is_terminal():
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(None)
    assert not is_terminal(closed)
    assert not is_terminal(io.StringIO())
    assert is_terminal(Full())


def test_output_that_is_all_a_command_gives(monkeypatch):
    refuse_lost_output()
    monkeypatch.setattr(sys, "stdout", SteadyStream(Full()))
    print("lost")
    with pytest.raises(OutputWriteError, match="No space left"):
        refuse_lost_output()


def test_streams_are_given_back():
    before = sys.stdout, sys.stderr
    with steady_streams():
        assert isinstance(sys.stdout, SteadyStream)
    assert (sys.stdout, sys.stderr) == before


NUMBERS = """
import os
from fractal_mesospim_shading.engine.streams import steady_streams
with steady_streams():
    print("nobody reads this")
    descriptor = os.open("file", os.O_WRONLY | os.O_CREAT)
    # What a library prints does not land in the file.
    os.write(1, b"x" * 100)
    os.write(2, b"x" * 100)
    os.close(descriptor)
"""


@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", ">&-", "2>&-", ">/dev/full 2>/dev/full"])
def test_no_file_takes_the_number_of_a_closed_stream(redirection, tmp_path):
    if "full" in redirection:
        lines = NUMBERS.replace('    os.write(1, b"x" * 100)\n    os.write(2, b"x" * 100)\n', "")
    else:
        lines = NUMBERS
    command = f"exec '{sys.executable}' -c '{lines.replace(chr(39), '')}' {redirection}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_bytes() == b""


def test_files_and_pipes(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert read_file_or_pipe(str(tmp_path / "file")) == b"x" * 100_000
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write():
        with open(pipe, "wb") as file:
            file.write(b"first, ")
            file.flush()
            time.sleep(0.1)
            file.write(b"y" * 100_000)

    writer = threading.Timer(0.1, write)
    writer.start()
    assert read_file_or_pipe(str(pipe)) == b"first, " + b"y" * 100_000
    writer.join()
    monkeypatch.setattr(streams, "_PIPE_SECONDS", 0.1)
    with pytest.raises(TimeoutError, match="nothing came"):
        read_file_or_pipe(str(pipe))
