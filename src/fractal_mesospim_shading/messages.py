r"""What the package says, in the words of the door that it is said through.

A message names an option between backticks, as the tasks have it: `` `overwrite` ``, or with
a value: `` `execution=dask` ``. Each door renders that in its own words:

| door | `` `output_folder` `` | `` `report=false` `` |
|---|---|---|
| task | output_folder | report = false |
| command line | --output-folder | --no-report |
| Python | output_folder= | report=False |

Only names between backticks that are options are rendered, so that a word such as *levels*
or *report* stays prose, and a file or a label that is called like an option stays what it is.

What came from outside (labels, paths, names in tables) may hold line breaks and escape
sequences; they are shown as `\n` and `\x1b`, in errors as in the log. The further lines of a
message of our own begin with two blanks or with `- `: so no text from outside can pretend to be a
line of the log.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import Enum

PACKAGE = "fractal_mesospim_shading"


class Door(Enum):
    """How a wish arrived, and so how an answer names the options."""

    TASK = "task"
    COMMAND = "command line"
    PYTHON = "Python"


_door: ContextVar[Door] = ContextVar("door", default=Door.PYTHON)
_heard: ContextVar[tuple[list[str], ...]] = ContextVar("heard", default=())
_options: set[str] = set()
_more_options: list[Callable[[], object]] = []

_NAMED = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`\s]+))?`(?=( is | has |:)?)")
_BEGINS = (". ", "- ", "\n  ")
# What the command line calls otherwise.
_COMMAND_NAMES = {
    "zarr_url": "IMAGE",
    "containers": "CONTAINER",
    "methods": "--method",
    "flatfield_files": "--flatfield-file",
}

# Control characters, what changes the direction of writing, and halves of surrogate pairs.
_HIDDEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_HIDDEN}]")
_BREAK = re.compile(r"\n(?!  |- )")
_IN_LINE = re.compile(f"[{_HIDDEN}\t\n]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


@contextmanager
def through(door: Door) -> Iterator[None]:
    """Speak the words of a door for as long as the context lasts."""
    before = _door.set(door)
    try:
        yield
    finally:
        _door.reset(before)


def know_options(*names: str) -> None:
    """Take names for those of options: between backticks, the doors render them."""
    _options.update(names)


def know_more_options(load: Callable[[], object]) -> None:
    """Have options that take long to load known as soon as a message may name one of them.

    Args:
        load: makes them known; it may be called more than once.
    """
    _more_options.append(load)


def is_option(name: str) -> bool:
    """Whether that is the name of an option."""
    if name not in _options:
        for load in _more_options:
            load()
    return name in _options


def known_options() -> frozenset[str]:
    """The names of all options that are known so far."""
    return frozenset(_options)


def rendered(text: str) -> str:
    """A message as it is shown: options in the words of the door, nothing hidden in it."""
    return _NAMED.sub(_name, _BREAK.sub(r"\\n", _IN_TEXT.sub(_escape, text)))


def shown(value: object) -> str:
    """A label, a path or a name from outside as it may stand in a line of text."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return _IN_LINE.sub(_escape, text)


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names of a list, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, thing: str) -> str:
    """`1 block`, `2 blocks`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def has_control_characters(text: str) -> bool:
    """Whether a text holds something that could not be shown as it is."""
    return _IN_LINE.search(text) is not None


@contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """Collect the warnings that are logged meanwhile, each once, as they are shown."""
    lines: list[str] = []
    before = _heard.set((*_heard.get(), lines))
    try:
        yield lines
    finally:
        _heard.reset(before)


def heard_so_far() -> tuple[str, ...]:
    """The warnings since the outermost `warnings_heard` began."""
    heard = _heard.get()
    return tuple(heard[0]) if heard else ()


def listen() -> None:
    """Render the log lines of the package before any handler of the user sees them."""
    logger = logging.getLogger(PACKAGE)
    if not any(isinstance(handler, _Speaker) for handler in logger.handlers):
        logger.addHandler(_Speaker())


class _Speaker(logging.Handler):
    """Renders each record in place; shows warnings itself where nobody else would."""

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple):
            record.args = tuple(_argument(value) for value in record.args)
        text = rendered(record.getMessage())
        record.msg, record.args = text, ()
        if record.levelno < logging.WARNING:
            return
        for lines in _heard.get():
            if text not in lines:
                lines.append(text)
        if sys.stderr is not None and not self._has_company(record.name):
            # What Python does where nobody has set up logging, with the word it lacks.
            with suppress(OSError, ValueError):
                sys.stderr.write(f"{record.levelname}: {text}\n")

    def _has_company(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


class LogLines(logging.Formatter):
    """Lines for a person: a warning begins with that word.

    Args:
        dated: whether each line begins with its time and level, as in a log that is kept.
    """

    def __init__(self, *, dated: bool = False) -> None:
        super().__init__()
        self._dated = dated

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if self._dated:
            time = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
            return f"{time} {record.levelname}: {text}"
        return f"{record.levelname}: {text}" if record.levelno >= logging.WARNING else text


def _argument(value: object) -> object:
    if isinstance(value, str | os.PathLike):
        return shown(value)
    # An error of ours may have several lines of its own.
    return rendered(str(value)) if isinstance(value, BaseException) else value


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _name(match: re.Match[str]) -> str:
    name, value = match.group(1), match.group(2)
    if not is_option(name):
        return match.group()
    door = _door.get()
    if door is Door.COMMAND:
        if name in _COMMAND_NAMES:
            return _COMMAND_NAMES[name]
        flag = name.replace("_", "-")
        switch = {None: f"--{flag}", "true": f"--{flag}", "false": f"--no-{flag}"}
        return switch.get(value, f"--{flag} {value}")
    if door is Door.TASK:
        return name if value is None else f"{name} = {value}"
    if value is None:
        # "seed is 'x'" reads better than "seed= is 'x'".
        before = match.string[: match.start()]
        subject = not before or before.endswith(_BEGINS) or match.group(3)
        return name if subject else f"{name}="
    return f"{name}={_python(value)}"


def _python(value: str) -> str:
    if value in ("true", "false", "none"):
        return value.capitalize()
    plain = value[0] in "[({" or value.replace(".", "", 1).lstrip("+-").isdigit()
    return value if plain else repr(value)
