"""Arrays of many planes, in files without a name where they are large.

Their pages belong to a file and not to the process alone: where memory is short, the system writes
them there and takes them back.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.kernel_cache import scratch_folder
from fractal_mesospim_shading.errors import OutputWriteError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

LEAST_BYTES = 64 * 2**20
"""Of an array in a file. Those of 4000 planes, which are looked at of few tiles, are less."""


def large_zeros(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros; one that is large lies in a file that is gone with it.

    It lies in memory where the folder for temporary files has no room for it, or no system call
    sets room aside: a mapped file that finds none would end the process.
    """
    kind = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    if size >= LEAST_BYTES and hasattr(os, "posix_fallocate"):
        try:
            with tempfile.TemporaryFile(dir=scratch_folder()) as file:
                os.posix_fallocate(file.fileno(), 0, size)
                mapped = mmap.mmap(file.fileno(), size)
        except (OSError, OutputWriteError):
            return np.zeros(shape, kind)
        return np.frombuffer(mapped, kind).reshape(shape)
    return np.zeros(shape, kind)
