"""What a job is: everything that decides the bytes of its result, as JSON."""

from __future__ import annotations

import json
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


def differences(earlier: Any, now: Any, where: str = "") -> list[str]:
    """Lines that say in what two requests differ."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        lines: list[str] = []
        for key in sorted(earlier.keys() | now.keys()):
            path = f"{where}.{key}" if where else key
            lines += differences(earlier.get(key), now.get(key), path)
        return lines
    if earlier == now:
        return []
    return [f"{where}: unfinished job {_short(earlier)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
