"""What the form of a Fractal server's web page can draw of the schema of a task's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

HIDDEN = frozenset({"zarr_url", "zarr_urls", "zarr_dir", "init_args"})
"""Arguments that the server sets itself; the form leaves them out."""

_PLAIN = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def not_drawn(schema: Schema) -> list[str]:
    """What of a task's arguments the form could not show, or not explain.

    Args:
        schema: of all arguments, as the manifest has it.
    """
    return list(_of_properties(schema, schema.get("$defs", {}), "", HIDDEN))


def _of_properties(
    schema: Schema, models: Schema, place: str, hidden: frozenset[str] = frozenset()
) -> Iterator[str]:
    required = schema.get("required", ())
    for name, entry in schema.get("properties", {}).items():
        if name in hidden:
            continue
        here = f"{place}.{name}".lstrip(".")
        yield from (
            f"{here}: no {word}" for word in ("title", "description") if not entry.get(word)
        )
        if name not in required and "default" not in entry and "const" not in entry:
            yield f"{here}: neither a default nor required"
        if entry.get("default") == "":
            yield f"{here}: the default is an empty text"
        if _resolved(entry, models).get("type") == "boolean" and "default" not in entry:
            yield f"{here}: a switch without a default"
        yield from _of_value(entry, models, here)


def _of_value(entry: Schema, models: Schema, place: str) -> Iterator[str]:
    value = _resolved(entry, models)
    if "anyOf" in value:
        first, *others = value["anyOf"]
        inner = _resolved(first, models)
        if others != [{"type": "null"}]:
            yield f"{place}: one of several kinds, of which the form draws none"
        elif inner.get("type") == "boolean" or "enum" in inner or "const" in inner:
            yield f"{place}: a switch or a choice that may be unset"
        else:
            yield from _of_value(first, models, place)
    elif "oneOf" in value:
        yield from _of_union(value, models, place)
    elif "enum" in value or "const" in value:
        yield from _of_choice(value, place)
    elif value.get("type") == "array":
        yield from _of_array(value, models, place)
    elif value.get("type") == "object":
        yield from _of_properties(value, models, place)
        free = value.get("additionalProperties")
        if isinstance(free, Mapping):
            if _resolved(free, models).get("type") == "boolean":
                yield f"{place}: switches by free names"
            yield from _of_value(free, models, f"{place}.*")
        elif "properties" not in value:
            yield f"{place}: an object of unknown content"
    elif value.get("type") not in _PLAIN:
        yield f"{place}: no kind that the form knows"


def _of_union(value: Schema, models: Schema, place: str) -> Iterator[str]:
    tag = value.get("discriminator", {}).get("propertyName")
    if tag is None:
        yield f"{place}: one of several models, with nothing that tells them apart"
    titles = [_resolved(member, models).get("title") for member in value["oneOf"]]
    if not all(titles) or len(set(titles)) < len(titles):
        yield f"{place}: the models of a choice need titles of their own"
    for member in value["oneOf"]:
        model = _resolved(member, models)
        yield from _of_properties(model, models, place, frozenset({tag}))


def _of_choice(value: Schema, place: str) -> Iterator[str]:
    members = value["enum"] if "enum" in value else [value["const"]]
    if len({type(member) for member in members}) > 1:
        yield f"{place}: a choice among values of several kinds"
    if not all(members):
        yield f"{place}: a choice with an empty value, which the form takes for none"


def _of_array(value: Schema, models: Schema, place: str) -> Iterator[str]:
    items = value.get("prefixItems") or [value.get("items", {})]
    for item in items:
        if "prefixItems" in value and _resolved(item, models).get("type") == "boolean":
            yield f"{place}: a fixed number of switches"
        yield from _of_value(item, models, f"{place}[]")


def _resolved(entry: Schema, models: Schema) -> Schema:
    """An entry, or the model that it refers to."""
    reference = entry.get("$ref")
    return entry if reference is None else models[reference.rsplit("/", 1)[-1]]
