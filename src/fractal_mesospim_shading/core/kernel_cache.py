"""Where compiled kernels are kept between runs.

numba keeps them beside the source, else in the user's cache folder, and raises where
neither can be written: in a container image, or in a system's installation run by an account
without a home. There they go to a temporary folder of the user's own, and where that cannot be
made either, they are compiled anew in each process.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import numba

from fractal_mesospim_shading.core.scratch import scratch_folder
from fractal_mesospim_shading.errors import OutputWriteError


def _trial() -> int:
    """Stands for a kernel."""
    return 0


def _can_be_kept() -> bool:
    """Whether numba finds a place for the kernels of this package."""
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
            found = folder.lstat()
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            return None
        others = stat.S_IWGRP | stat.S_IWOTH
        mine = not hasattr(os, "getuid") or found.st_uid == user
        if stat.S_ISDIR(found.st_mode) and mine and not found.st_mode & others:
            return str(folder)
    return None


def find_place() -> bool:
    """Whether compiled kernels can be kept; gives numba a folder where it has none."""
    if _can_be_kept():
        return True
    folder = own_temporary_folder()
    if folder is None:
        return False
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
    if _can_be_kept():
        return True
    numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
    return False


KEPT = find_place()
"""What kernels are compiled with: `numba.njit(cache=KEPT)`."""
