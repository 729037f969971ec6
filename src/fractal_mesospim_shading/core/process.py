"""Changes of the state of the process that are put back, also where several threads make them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager


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
