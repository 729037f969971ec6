"""What threads share: changes of the process, facts that are found out once, work in order."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import copy_context
from typing import Generic, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


class Shared:
    """A change of the state of the process, as a context that several threads may be in at once.

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


class Kept(Generic[T]):
    """Facts by what they belong to; each is made by one thread, others wait for it."""

    def __init__(self, limit: int) -> None:
        """Hold nothing yet.

        Args:
            limit: facts held; beyond it the oldest are dropped.
        """
        self._limit = limit
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, Future[T]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The fact of a key; made where it is not there."""
        mine: Future[T] = Future()
        with self._lock:
            held = self._held.setdefault(key, mine)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
        if held is mine:
            try:
                mine.set_result(make())
            except BaseException as error:
                mine.set_exception(error)
                with self._lock:
                    self._held.pop(key, None)
                raise
        return held.result()


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
