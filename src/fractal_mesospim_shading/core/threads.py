"""What threads share: changes of the process, facts that are found out once, work in order, memory.

Freed memory is kept for the next block instead of being given back to the system. Blocks are
large, so each of their buffers would be mapped from the system, filled with zeros page by page,
and given back after use. On images with chunks of 128 MB that costs more than half of the time of
a plain copy. So the pixels of blocks lie in buffers that are used again (`empty_array`), and glibc
is asked to do the same with what codecs take; other C libraries are left as they are. Kept apart,
the two do not break each other's free memory into pieces too small to be used.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import platform
import threading
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import (
    AbstractContextManager,
    ContextDecorator,
    ExitStack,
    contextmanager,
    suppress,
)
from contextvars import copy_context
from math import inf, prod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

T = TypeVar("T")
Item = TypeVar("Item")

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1
_DEFAULT_TRIM, _DEFAULT_MMAPS = 128 * 1024, 65536
_SMALL = 2 * 2**20


class Shared(ContextDecorator):
    """A change of the state of the process, as a context that several threads may be in at once.

    It decorates functions as well.

    The first that enters makes it, the last that leaves takes it back: so none of them finds it
    taken back too early, and none puts back what another has changed.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[object]]) -> None:
        """Change nothing yet.

        Args:
            change: gives a context that makes the change and takes it back.
        """
        self._change = change
        self._lock = threading.Lock()
        self._users = 0
        self._made = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._made.enter_context(self._change())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._made.close()


@contextmanager
def _ignoring() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


warnings_ignored = Shared(_ignoring)
"""What libraries warn of is not shown."""


@contextmanager
def _one_thread() -> Iterator[None]:
    # SciPy brings a pool of its own, which is limited only once it is there.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


linear_algebra_by_one_thread = Shared(_one_thread)
"""Products of matrices are computed by one thread.

Their last bits depend on the number of threads. And where others use the processors as well, the
threads of a product wait for each other, which takes longer than our small matrices themselves: 6
to 30 times as long was seen.
"""


@contextmanager
def _collecting_later() -> Iterator[None]:
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


garbage_kept = Shared(_collecting_later)
"""Python looks for no garbage, which takes longer the more libraries are loaded: for what is short
and makes many small objects, such as figures."""


class Kept(Generic[T]):
    """Facts by what they belong to; each is made by one thread, others wait for it."""

    def __init__(
        self, limit: int, *, with_run: bool = False, room: Callable[[], float] = lambda: inf
    ) -> None:
        """Hold nothing yet.

        Args:
            limit: facts held; beyond it the oldest are dropped.
            with_run: whether all are dropped when a run of blocks ends (`forget_runs`): a run
                beside it in the same process makes its own anew.
            room: for how many more there is room; the oldest are dropped for a new one.
        """
        self._limit, self._room = limit, room
        self._number = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[Future[T], int]] = OrderedDict()
        if with_run:
            _with_runs.append(self)

    def clear(self) -> None:
        """Drop all facts; who is making or using one still has it."""
        with self._lock:
            self._held.clear()
            self._number = 0

    def get(self, key: Hashable, make: Callable[[], T], number: int = 1) -> T:
        """The fact of a key, or several that are kept as one; made where it is not there."""
        mine: Future[T] = Future()
        with self._lock:
            held, _ = self._held.setdefault(key, (mine, number))
            if held is mine:
                self._number += number
            while len(self._held) > 1 and (
                self._number > self._limit or (held is mine and self._room() < number)
            ):
                self._number -= self._held.popitem(last=False)[1][1]
        if held is mine:
            try:
                mine.set_result(make())
            except BaseException as error:
                mine.set_exception(error)
                with self._lock:
                    self._number -= self._held.pop(key, (mine, 0))[1]
                raise
        return held.result()


_with_runs: list[Kept[Any]] = []


def forget_runs() -> None:
    """Drop what is kept for blocks of a run, such as files, which take room on a disk."""
    for kept in _with_runs:
        kept.clear()


def in_order(
    function: Callable[[Item], T], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Iterator[T]:
    """The results of a function in the order of the items.

    Args:
        function: called in threads, each call with the context variables of this one.
        items: taken from as they are needed.
        workers: calls at a time.
        ahead: results that may wait for those before them; None for two a worker.
    """
    most = 2 * workers if ahead is None else ahead
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(copy_context().run, function, item))
                if len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def meanwhile(load: Callable[[], object]) -> Iterator[None]:
    """Import what takes long in a thread, while files are read or a disk is waited for.

    Args:
        load: imports it. What fails then fails again where it is used, and is said there.
    """

    def loaded() -> None:
        with suppress(Exception), garbage_kept:
            load()

    thread = threading.Thread(target=loaded)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def empty_array(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
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
