"""Standard streams that may be closed, full, or gone.

A terminal may be closed while a correction runs in the background, and a log may lie on a
full disk. What is lost is a line of text; the result must not be.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from fractal_mesospim_shading.errors import OutputWriteError

_STANDARD = (0, 1, 2)

_PIPE_SECONDS = 10.0
"""How long a program that writes to a pipe may take to begin."""

_PIPE_PAUSE = 0.02


class SteadyStream:
    """A stream of text that drops what cannot be written.

    Args:
        stream: to write to; all else about it is its own.

    Attributes:
        failure: the first error, where something was dropped.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        with self._dropping():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits, or drop it."""
        with self._dropping():
            self._stream.flush()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except UnicodeError:
            raise
        except OSError as error:
            self.failure = self.failure or error
        except ValueError:
            # It has been closed.
            self.failure = self.failure or OSError(errno.EBADF, os.strerror(errno.EBADF))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is there and is a terminal."""
    with suppress(ValueError, OSError):
        return stream is not None and stream.isatty()
    return False


def read_file_or_pipe(path: str) -> bytes:
    """The content of a file, or of a pipe such as `<(...)` of a shell.

    A pipe that nobody writes to is not waited for longer than a few seconds.

    Raises:
        OSError: it cannot be read, or nothing comes.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb", buffering=0) as file:
        if not stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            return file.read()
        content, deadline = b"", time.monotonic() + _PIPE_SECONDS
        while time.monotonic() < deadline:
            part = file.read(2**16)
            if part == b"" and content:
                return content
            # Nothing: nobody has opened it yet. None: somebody has, and not written yet.
            content += part or b""
            if not part:
                time.sleep(_PIPE_PAUSE)
    raise TimeoutError(errno.ETIMEDOUT, f"nothing came in {_PIPE_SECONDS:.0f} s", path)


@contextmanager
def steady_streams() -> Iterator[None]:
    """Within this context the standard streams of the process can be written, whatever they are.

    For programs, at their start. Where one is closed, its number would be given to the next file
    that is opened, and what a library prints would land in that file.
    """
    _open_standard_files()
    before = sys.stdout, sys.stderr
    output, errors = (SteadyStream(stream) for stream in before)
    sys.stdout, sys.stderr = output, errors
    try:
        yield
    finally:
        output.flush()
        failure = output.failure
        if failure is not None and failure.errno != errno.EPIPE:
            errors.write(
                f"What was to be printed could not be written to the standard output: {failure}.\n"
            )
        errors.flush()
        for number, stream in ((1, output), (2, errors)):
            if stream.failure is not None:
                _discard(number)
        sys.stdout, sys.stderr = before


def refuse_lost_output() -> None:
    """Refuse to call a command done whose whole work is what it has printed.

    Raises:
        OutputWriteError: it could not be written.
    """
    stream = sys.stdout
    if isinstance(stream, SteadyStream):
        stream.flush()
        if stream.failure is not None and stream.failure.errno != errno.EPIPE:
            raise OutputWriteError(f"The standard output cannot be written: {stream.failure}.")


def _open_standard_files() -> None:
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given to what is opened next: this one.
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _discard(number: int) -> None:
    """Send what still waits for a standard stream to nowhere, so that the end does not fail."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
