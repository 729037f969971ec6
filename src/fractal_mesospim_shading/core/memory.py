"""Keep freed memory for the next block instead of giving it back to the system.

Blocks are large, so each of their buffers would be mapped from the system, filled
with zeros page by page, and given back after use. On images with chunks of 128 MB
that costs more than half of the time of a plain copy. So the pixels of blocks lie in
buffers that are used again (`empty`), and glibc is asked to do the same with what
codecs take; other C libraries are left as they are. Kept apart, the two do not break
each other's free memory into pieces too small to be used.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from typing import TYPE_CHECKING, Any

from fractal_mesospim_shading.core.threads import Shared

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1
_DEFAULT_TRIM, _DEFAULT_MMAPS = 128 * 1024, 65536
_SMALL = 2 * 2**20


def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """An array with no values yet, in a buffer of an array that is gone where there is one.

    Buffers are only kept within `freed_memory_kept` (or after `keep_freed_memory`).
    """
    # Not at the top: a program asks for one arena before it imports what starts threads.
    import numpy as np

    kind = np.dtype(dtype)
    count = prod(shape)
    if not _buffers.kept or count * kind.itemsize < _SMALL:
        return np.empty(shape, kind)
    buffer = _buffers.take(count * kind.itemsize)
    array = np.frombuffer(buffer, kind, count)
    weakref.finalize(array, _buffers.give_back, buffer).atexit = False
    return array.reshape(shape)


class _Buffers:
    """Buffers of arrays that are gone.

    What is free but does not fit makes room for what does, as soon as all together would
    hold more than arrays have ever held at one time.
    """

    def __init__(self) -> None:
        self.kept = False
        self._used = self._mapped = self._most = 0
        # A finalizer may run in the middle of anything, also of `take` in the same thread.
        self._lock = threading.RLock()
        self._free: list[mmap.mmap] = []

    def take(self, size: int) -> mmap.mmap:
        with self._lock:
            fitting = [buffer for buffer in self._free if size <= len(buffer) <= 2 * size]
            best = min(fitting, key=len) if fitting else None
            self._used += size if best is None else len(best)
            self._most = max(self._most, self._used)
            if best is not None:
                self._free = [buffer for buffer in self._free if buffer is not best]
                return best
            self._mapped += size
            while self._free and self._mapped > self._most:
                self._mapped -= len(self._free.pop(0))
        return _mapped(size)

    def give_back(self, buffer: mmap.mmap) -> None:
        with self._lock:
            self._used -= len(buffer)
            if self.kept:
                self._free.append(buffer)
            else:
                self._mapped -= len(buffer)

    def keep(self, kept: bool) -> None:
        with self._lock:
            self.kept = kept
            if not kept:
                self._mapped -= sum(len(buffer) for buffer in self._free)
                self._free, self._most = [], self._used


_buffers = _Buffers()


def _mapped(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, size)
    buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Fewer page faults; kernels without huge pages refuse.
        with suppress(OSError):
            buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


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


def keep_freed_memory() -> None:
    """Keep what is freed."""
    _buffers.keep(True)
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)


@contextmanager
def _kept() -> Iterator[None]:
    keep_freed_memory()
    try:
        yield
    finally:
        # What is free now is given back as well.
        _buffers.keep(False)
        library = _glibc()
        if library is not None:
            library.mallopt(_M_MMAP_MAX, _DEFAULT_MMAPS)
            library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM)
            library.malloc_trim(0)


freed_memory_kept = Shared(_kept)
"""Freed memory is kept within this context."""


def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)
