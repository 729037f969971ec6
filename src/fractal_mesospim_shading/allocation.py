"""Keep freed memory for the next block instead of giving it back to the system.

Blocks are large, so each of their buffers would be mapped from the system, filled
with zeros page by page, and given back after use. On images with chunks of 128 MB
that costs more than half of the time of a plain copy. With the settings made here
glibc hands the same pages out again; other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1
_DEFAULT_TRIM, _DEFAULT_MMAPS = 128 * 1024, 65536


def use_one_arena() -> None:
    """Let all threads share one pool of memory.

    The pools that glibc gives to further threads hold no large block, so what these
    threads free cannot be kept. It has to be said before the process has a second
    thread, thus by a program at its start; a library imported into a program of
    others leaves this alone, and gains less.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def keep_freed_memory() -> bool:
    """Ask glibc to keep what is freed; returns whether it could be asked."""
    library = _glibc()
    if library is None:
        return False
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    return True


def give_back_freed_memory() -> None:
    """Undo `keep_freed_memory`, and give back what is free now."""
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_MAX, _DEFAULT_MMAPS)
        library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM)
        library.malloc_trim(0)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory within this context."""
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            give_back_freed_memory()


def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)
