"""What the mark of this package in an image says, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fractal_mesospim_shading.core.background.catalogue import METHODS
from fractal_mesospim_shading.images.arrays.documents import Document

_MOST_TEXT = 300
"""Letters of all settings together."""

_NOTHING: tuple[Any, ...] = (None, False, "", [], {})


def origin_line(mark: Document, usual: Mapping[str, Any] | None = None) -> str:
    """One line on how an image was made.

    Args:
        mark: of ours, of any version; what is in it may be anything.
        usual: parameters by default, which are left out; None leaves out those that ask for
            nothing.
    """
    given = mark.get("parameters")
    parameters = dict(given) if isinstance(given, Mapping) else {}
    text = f"by {mark.get('task')}, version {mark.get('version')}"
    chosen = _settings(parameters, usual)
    return f"{text}: {chosen[:_MOST_TEXT]}" if chosen else text


def _settings(parameters: Mapping[str, Any], usual: Mapping[str, Any] | None = None) -> str:
    """Names and values, those left out that are as usual."""
    return ", ".join(
        f"{name} {_value(value)}"
        for name, value in parameters.items()
        if (value not in _NOTHING if usual is None else usual.get(name) != value)
    )


def _value(value: Any) -> str:
    """A value; one with parameters of its own as its name, with these behind it."""
    if not isinstance(value, Mapping):
        return f"{value:g}" if isinstance(value, float) else str(value)
    named = next((key for key in ("method", "kind") if isinstance(value.get(key), str)), None)
    rest = {key: inner for key, inner in value.items() if key != named}
    if named is None:
        return f"({_settings(rest)})"
    name = str(value[named])
    method = METHODS.get(name)
    usual = None if method is None else method().model_dump(mode="json")
    inner = _settings(rest, usual)
    return f"{name} ({inner})" if inner else name
