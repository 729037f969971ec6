"""Two computations at the same time."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from fractal_mesospim_shading.core.together import both

_where: ContextVar[str] = ContextVar("where", default="nowhere")


def test_each_waits_for_the_other() -> None:
    """So they do run at the same time."""
    meeting = threading.Barrier(2, timeout=20)

    def met() -> int:
        meeting.wait()
        return threading.get_ident()

    first, second = both(met, met)
    assert first == threading.get_ident() != second


def test_both_have_the_context_of_the_caller() -> None:
    token = _where.set("here")
    try:
        assert both(_where.get, _where.get) == ("here", "here")
    finally:
        _where.reset(token)


def test_the_error_of_the_first_comes_first() -> None:
    def fails(number: int) -> int:
        raise ValueError(f"number {number}")

    with pytest.raises(ValueError, match="number 1"):
        both(lambda: fails(1), lambda: fails(2))
    with pytest.raises(ValueError, match="number 2"):
        both(lambda: 1, lambda: fails(2))
    with pytest.raises(ValueError, match="number 1"):
        both(lambda: fails(1), lambda: 2)
