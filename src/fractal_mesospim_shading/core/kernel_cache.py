"""How kernels are compiled, where they are kept between runs, and where temporary files go.

A kernel is compiled when it is first called: numba takes long to import, and modules of kernels
also hold what is asked for without them, such as the parameters of a method.

numba keeps them beside the source, else in the user's cache folder, and raises where
neither can be written: in a container image, or in a system's installation run by an account
without a home. There they go to a temporary folder of the user's own, and where that cannot be
made either, they are compiled anew in each process.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial, update_wrapper
from pathlib import Path
from threading import RLock
from typing import Any

from fractal_mesospim_shading.errors import OutputWriteError

_MEMORY = Path("/dev/shm")
"""Files in memory, where nothing else can be written."""


def scratch_folder() -> str:
    """A folder for temporary files.

    Raises:
        OutputWriteError: there is none; the message says how to name one.
    """
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK | os.X_OK):
            return str(_MEMORY)
        raise OutputWriteError(
            f"There is no folder for temporary files ({error}). Set the environment variable "
            "TMPDIR to a folder that can be written."
        ) from error


def _trial() -> int:
    """Stands for a kernel."""
    return 0


def _can_be_kept() -> bool:
    """Whether numba finds a place for the kernels of this package."""
    import numba

    try:
        numba.njit(cache=True)(_trial)
    except RuntimeError:
        return False
    return True


def own_temporary_folder() -> str | None:
    """A folder that nobody else can write: what lies there is run as a program.

    Returns:
        The same one in all processes of a user; None where there is none.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    with suppress(OutputWriteError):
        folder = Path(scratch_folder(), f"mesospim-shading-{user}")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            state = folder.lstat()
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            return None
        others = stat.S_IWGRP | stat.S_IWOTH
        own = not hasattr(os, "getuid") or state.st_uid == user
        if stat.S_ISDIR(state.st_mode) and own and not state.st_mode & others:
            return str(folder)
    return None


@cache
def find_place() -> bool:
    """Whether compiled kernels can be kept; gives numba a folder where it has none."""
    if _can_be_kept():
        return True
    import numba

    folder = own_temporary_folder()
    if folder is None:
        return False
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
    if _can_be_kept():
        return True
    numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
    return False


_first_call = RLock()


class Kernel:
    """A function that numba compiles when it is first called, by Python or by another kernel."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        """Compile nothing yet.

        Args:
            function: in the part of Python that numba knows.
            options: further ones of `numba.njit`.
        """
        update_wrapper(self, function)
        self._function, self._options = function, options
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        return (self._compiled or self.compiled)(*arguments)

    @property
    def compiled(self) -> Callable[..., Any]:
        """What numba makes of it."""
        with _first_call:
            if self._compiled is None:
                import numba

                options = {"nogil": True, "cache": find_place(), **self._options}
                self._compiled = numba.njit(**options)(self._function)
            return self._compiled

    @property
    def _numba_type_(self) -> Any:
        """What numba asks of a global name in the code of another kernel."""
        return self.compiled._numba_type_  # type: ignore[attr-defined]


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorate a kernel: `@kernel`, or `@kernel(error_model="numpy")`."""
    return partial(kernel, **options) if function is None else Kernel(function, options)
