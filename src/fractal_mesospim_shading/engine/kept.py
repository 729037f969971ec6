"""What is found out once for all blocks of a process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


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
