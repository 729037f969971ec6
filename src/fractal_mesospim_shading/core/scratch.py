"""Where temporary files go."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fractal_mesospim_shading.errors import OutputWriteError

_MEMORY = Path("/dev/shm")


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
