"""The errors of the package.

One root, `ShadingError`, for callers that want to catch them all. Each child is
also the builtin that a caller would expect, so `except ValueError` keeps working.
A message says what was found, what was expected, and what to do; options stand between
backticks in it, and are shown in the words of the door (see `messages`).

Each kind of mistake has one exit code of the command line, whatever the command:

| code | kind |
|---|---|
| 1 | the data: what was given is not there, or cannot be read or used |
| 2 | wrong use: an option or a value is wrong, or does not fit the image |
| 3 | the place: no right or room to write, something in the way, memory or a worker missing |
| 70 | a fault of this package |
| 130 | stopped from outside |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

from fractal_mesospim_shading.messages import rendered

T = TypeVar("T")


class ShadingError(Exception):
    """Root of all errors that this package raises on purpose.

    Attributes:
        exit_code: of the command line.
        problems: the errors that it lists, where it stands for several.
    """

    exit_code: ClassVar[int] = 1
    problems: tuple[ShadingError, ...] = ()

    def __str__(self) -> str:
        return rendered(super().__str__())


class ParameterError(ShadingError, ValueError):
    """An argument is wrong by itself or does not fit the image."""

    exit_code = 2


class LayoutError(ShadingError, ValueError):
    """The tiles of an image do not form a mosaic that can be corrected."""


class TileNumberError(ParameterError, LayoutError):
    """A tile was asked for that the mosaic does not have, or twice."""


class ProfileError(ShadingError, ValueError):
    """A flat-field, dark-field or model folder is missing or unusable."""


class SamplingError(ParameterError):
    """The planes asked for cannot give an estimate."""


class NoLightError(SamplingError):
    """The planes of a channel hold nothing above the camera offset."""


class BackgroundError(ParameterError):
    """A background method cannot be used as asked, or cannot be divided by."""


class ImageFormatError(ShadingError, ValueError):
    """What is on disk is not an image that this package can read."""


class ImageNotFoundError(ShadingError, FileNotFoundError):
    """There is nothing at the address given."""


class SourceReadError(ShadingError, OSError):
    """A chunk of the source exists but cannot be read."""


class SourceChangedError(ShadingError, RuntimeError):
    """The source did not stay what it was while it was read."""


class OutputWriteError(ShadingError, OSError):
    """The result cannot be written: no permission, or the disk is full."""

    exit_code = 3


class FolderError(ParameterError, OutputWriteError):
    """The folder that was given for the result cannot be written."""

    exit_code = 3


class OutputExistsError(ShadingError, FileExistsError):
    """There is already something where the result would go."""

    exit_code = 3


class JobMismatchError(ShadingError, ValueError):
    """An unfinished job lies at the output, and it is not this one."""

    exit_code = 3


class JobLockedError(ShadingError, RuntimeError):
    """Another run is writing the same output at this moment."""

    exit_code = 3


class WorkerLostError(ShadingError, RuntimeError):
    """A worker process died while it computed."""

    exit_code = 3


class WorkerVersionError(ShadingError, RuntimeError):
    """A Dask worker runs another version of this package."""

    exit_code = 3


class StoppedError(ShadingError, RuntimeError):
    """The run was stopped from outside: Ctrl-C, or SIGTERM."""

    exit_code = 130


class MemoryLimitError(ShadingError, MemoryError):
    """The memory limit is too small for a single write unit."""

    exit_code = 3


class Problems:
    """Collects the errors of several checks, to raise them as one."""

    def __init__(self) -> None:
        self.errors: list[ShadingError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep an error of this block for later; what was said before is not said again."""
        try:
            yield
        except ShadingError as error:
            said = {str(earlier) for earlier in self.errors}
            self.errors += [e for e in error.problems or (error,) if str(e) not in said]

    def run(self, check: Callable[[], T]) -> T | None:
        """The result of a check, None if it failed."""
        with self.collected():
            return check()
        return None

    def passed(self, value: T | None) -> T:
        """The result of a check, once it is known that no check has failed.

        Raises:
            ShadingError: one did.
        """
        self.raise_all()
        if value is None:
            raise RuntimeError("a failed check left no error")
        return value

    def raise_all(self) -> None:
        """Raise what was collected; a single error as it is.

        Raises:
            ShadingError: of the kind of the first one.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            lines = "\n".join(f"- {error}" for error in self.errors)
            error = type(self.errors[0])(f"{len(self.errors)} problems were found:\n{lines}")
            error.problems = tuple(self.errors)
            raise error
