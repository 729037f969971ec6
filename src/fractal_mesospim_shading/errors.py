"""The errors of the package.

One root, `ShadingError`, for callers that want to catch them all. Each child is
also the builtin that a caller would expect, so `except ValueError` keeps working.
A message says what was found, what was expected, and what to do; options stand between
backticks in it, and are shown in the words of the door (see `messages`).
"""

from __future__ import annotations

from fractal_mesospim_shading.messages import rendered


class ShadingError(Exception):
    """Root of all errors that this package raises on purpose."""

    def __str__(self) -> str:
        return rendered(super().__str__())


class ParameterError(ShadingError, ValueError):
    """An argument is wrong by itself or does not fit the image."""


class LayoutError(ShadingError, ValueError):
    """The tiles of an image do not form a mosaic that can be corrected."""


class ProfileError(ShadingError, ValueError):
    """A flat-field, dark-field or model folder is missing or unusable."""


class SamplingError(ShadingError, ValueError):
    """The planes asked for cannot give an estimate."""


class BackgroundError(ShadingError, ValueError):
    """A background method cannot be used as asked, or cannot be divided by."""


class ImageFormatError(ShadingError, ValueError):
    """What is on disk is not an image that this package can read."""


class ImageNotFoundError(ShadingError, FileNotFoundError):
    """There is nothing at the address given."""


class SourceReadError(ShadingError, OSError):
    """A chunk of the source exists but cannot be read."""


class OutputWriteError(ShadingError, OSError):
    """The result cannot be written: no permission, or the disk is full."""


class OutputExistsError(ShadingError, FileExistsError):
    """There is already something where the result would go."""


class JobMismatchError(ShadingError, ValueError):
    """An unfinished job lies at the output, and it is not this one."""


class JobLockedError(ShadingError, RuntimeError):
    """Another run is writing the same output at this moment."""


class WorkerLostError(ShadingError, RuntimeError):
    """A worker process died while it computed."""


class WorkerVersionError(ShadingError, RuntimeError):
    """A Dask worker runs another version of this package."""


class StoppedError(ShadingError, RuntimeError):
    """The run was stopped from outside: Ctrl-C, or SIGTERM."""


class MemoryLimitError(ShadingError, MemoryError):
    """The memory limit is too small for a single write unit."""
