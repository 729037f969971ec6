"""Two computations at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """What two functions return that do not depend on each other.

    Args:
        first: called in this thread; its error comes first where both fail.
        second: called in another one, with the context variables of this one.
    """
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(copy_context().run, second)
        found = first()
        return found, coming.result()
