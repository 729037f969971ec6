"""How many instructions of Python a call takes: work that is counted, and not timed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def steps(function: Callable[[], object]) -> int:
    """Bytecode instructions of a call, in this thread; loops inside of NumPy count as one.

    It is called twice: later Pythons see the instructions of a function from its second call on.
    """
    number = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal number
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        number += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
        number = 0
        function()
    finally:
        sys.settrace(before)
    return number
