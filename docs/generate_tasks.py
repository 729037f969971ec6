"""Write `tasks.md` from the models that all doors share.

Run it as `python docs/generate_tasks.py`. A test fails when the page is not what it writes.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from importlib import import_module, resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fractal_mesospim_shading.options.base import ordered_fields

PACKAGE = "fractal_mesospim_shading"
PAGE = Path(__file__).with_name("tasks.md")

# Task -> where its options are, its command, its function.
TASKS = {
    "Correct Flat-Field": (
        "options.flatfield:FlatfieldOptions",
        "correct-flatfield IMAGE",
        "correct_flatfield",
    ),
    "Import mesoSPIM OME-Zarr": (
        "options.flatfield:ImportOptions",
        "import CONTAINER... --zarr-dir FOLDER",
        "import_mesospim",
    ),
    "Correct Background": (
        "options.background:BackgroundOptions",
        "correct-background IMAGE",
        "correct_background",
    ),
}

HEAD = """# Tasks and commands

This page is made by `docs/generate_tasks.py` from the models in `options/`, which are the one
definition of the arguments of the Fractal tasks, of the commands and of the Python functions.

On the command line `_` becomes `-`; lists are `1 9`, `1,9`, `[1,9]` or a repeated option; a switch
is `--report` or `--no-report`; models and mappings are JSON text. `--params FILE.json` takes a
file of arguments as a Fractal server writes it; options beside it win. [The command
line](command_line.md) says what all commands share.

A line of the log that begins with WARNING is something to look at; a good run has none.

An option that another one goes before (models before lists of tiles, a dark frame before a number)
is passed over, and a line of the log says so. An option that can do nothing at all here is an
error, such as `--z-levels` in an import without `--correct-flatfield`.

Commands that are no tasks:

- `mesospim-shading info IMAGE [--json]` shows what an image or an acquisition is: channels,
  pyramid, and the map of tile numbers.
- `mesospim-shading find-empty IMAGE` finds the tiles and planes without sample
  ([more](empty.md)), draws them, and prints what to type.
- `mesospim-shading estimate IMAGE... --output FOLDER` only estimates flat-fields, and writes them
  as a `models_folder`; several images share one flat-field of each channel. It takes the
  parameters of "Correct Flat-Field".
- `mesospim-shading preview IMAGE [--method NAME[:RADIUS]]...` draws background methods side by
  side on one plane, to choose method and radius by eye. It takes the parameters of "Correct
  Background"; `--channel`, `--tile` and `--z` choose what is shown, `--output` the picture's name.
- `mesospim-shading preview-flatfield IMAGE` draws one plane before and after its flat-field
  correction. It takes the parameters of "Correct Flat-Field" that concern the flat-field.
- `mesospim-shading check IMAGE` measures how far tiles
  differ where they show the same tissue ([more](overlaps.md)), and writes nothing.
- `mesospim-shading demo [--folder FOLDER]` makes a small mosaic of known truth, corrects it, and
  shows the errors.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    manifest = resources.files(PACKAGE).joinpath("__FRACTAL_MANIFEST__.json").read_text()
    described: set[type[BaseModel]] = set()
    for task in json.loads(manifest)["task_list"]:
        place, command, function = TASKS[task["name"]]
        module, name = place.split(":")
        model = getattr(import_module(f"{PACKAGE}.{module}"), name)
        doors = [f"Command: `mesospim-shading {command}`"]
        if function:
            doors.append(f"Python: `from {PACKAGE} import {function}`")
        parts += [f"## {task['name']}", "\\\n".join(doors), _bold_headings(task["docs_info"])]
        parts.append(_table(model, "### Parameters"))
        for nested in _nested(model):
            if nested not in described:
                described.add(nested)
                parts.append(_table(nested, f"### {_title(nested)}", nested.__doc__))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _bold_headings(text: str) -> str:
    """Headings of a task's own text, which would get in the way of the page's."""
    lines = text.strip().splitlines()
    return "\n".join(f"**{x.lstrip('# ')}**" if x.startswith("#") else x for x in lines)


def _table(model: type[BaseModel], heading: str, text: str | None = None) -> str:
    rows = [heading, ""]
    if text:
        rows += [" ".join(text.split()), ""]
    rows += ["| parameter | value | default | meaning |", "|---|---|---|---|"]
    for name in ordered_fields(model):
        field = model.model_fields[name]
        tag = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
        meaning = "Says which form this is." if tag else field.description or ""
        cells = [f"`{name}`", _kind(field), _default(field), meaning]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _kind(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if isinstance(getattr(rule, name, None), int | float)
    ]
    return ", ".join([_words(field.annotation), *limits])


def _words(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in inner if part is not type(None))
    if origin is list:
        return f"list of {_words(inner[0])}s"
    if origin is tuple:
        return " and ".join(_words(part) for part in inner)
    if origin is dict:
        return "mapping"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        title = _title(kind)
        return f"[{title}](#{_anchor(title)})"
    names = {int: "whole number", float: "number", str: "text", bool: "switch"}
    return names[kind]


def _anchor(heading: str) -> str:
    """The name that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, BaseModel):
        return _title(type(value))
    return f"`{value}`"


def _title(model: type[BaseModel]) -> str:
    return str(model.model_config.get("title") or model.__name__)


def _nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Models that are values of fields, in their order."""

    def found(kind: Any) -> Iterator[type[BaseModel]]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind
            yield from _nested(kind)
        for part in get_args(kind):
            yield from found(part)

    seen: set[type[BaseModel]] = set()
    for name in ordered_fields(model):
        for inner in found(model.model_fields[name].annotation):
            if inner not in seen:
                seen.add(inner)
                yield inner


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
