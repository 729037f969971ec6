"""What a job is: everything that decides the bytes of its result, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Request = dict[str, Any]


def same(earlier: Request, now: Request) -> bool:
    """Whether two requests are of the same job."""
    return plain(earlier) == plain(now)


def plain(request: Request) -> Request:
    """A request as it comes back from its file."""
    found: Request = json.loads(to_bytes(request))
    return found


def to_bytes(request: Request) -> bytes:
    """A request as it lies in its file."""
    return json.dumps(request, indent=2, sort_keys=True).encode()


def differences(earlier: Any, now: Any, *where: str) -> list[str]:
    """Lines that say in what two requests differ.

    Args:
        earlier, now: requests, or parts of them.
        where: keys that lead to these parts.
    """
    if isinstance(earlier, dict) and isinstance(now, dict):
        lines: list[str] = []
        for key in sorted(earlier.keys() | now.keys()):
            lines += differences(earlier.get(key), now.get(key), *where, key)
        return lines
    if earlier == now:
        return []
    return [f"{_place(where)}: unfinished job {_short(earlier)}, now {_short(now)}"]


def _place(keys: Sequence[str]) -> str:
    """Where in a request something stands; parameters as the options that they are."""
    if keys[:1] != ("parameters",) or len(keys) < 2:
        return ".".join(keys)
    option, *inner = keys[1:]
    return f"'{'.'.join(inner)}' of `{option}`" if inner else f"`{option}`"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
