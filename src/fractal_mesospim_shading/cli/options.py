"""Options of the command line, made from the models in `options/`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from inspect import get_annotations
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel

from fractal_mesospim_shading.cli.command import Heading, OneOf, Option, Place, dashes
from fractal_mesospim_shading.core.background import ALIASES, METHODS
from fractal_mesospim_shading.messages import rendered
from fractal_mesospim_shading.options.background import BackgroundStep
from fractal_mesospim_shading.options.base import ExecutionOptions, ordered_fields
from fractal_mesospim_shading.options.flatfield import EstimationOptions

_OF_CLASSES: dict[type[BaseModel], Heading] = {
    EstimationOptions: Heading.ESTIMATE,
    BackgroundStep: Heading.BACKGROUND,
    ExecutionOptions: Heading.RUNNING,
}
"""The group of the fields of a class; those of all others are about the output."""

_OF_NAMES = {
    "exclude_groups": Heading.INPUT,
    "input_roi_table": Heading.INPUT,
    "storage_options": Heading.INPUT,
    "zero_is": Heading.INPUT,
    "correct_flatfield": Heading.ESTIMATE,
    "output_offset": Heading.OUTPUT,
    "output_type": Heading.OUTPUT,
    "save_background": Heading.OUTPUT,
    "save_models": Heading.OUTPUT,
    "save_noise": Heading.OUTPUT,
    "restart": Heading.RUNNING,
    "add_noise_bias": Heading.ADVANCED,
    "basic_python": Heading.ADVANCED,
    "basicpy_model_params": Heading.ADVANCED,
    "durable": Heading.ADVANCED,
    "follow_links": Heading.ADVANCED,
    "outside_tiles": Heading.ADVANCED,
    "profile_shape": Heading.ADVANCED,
    "resolution_level": Heading.ADVANCED,
    "scheduler_address": Heading.ADVANCED,
    "seed": Heading.ADVANCED,
    "sign_x": Heading.ADVANCED,
    "sign_y": Heading.ADVANCED,
    "skip_empty_channels": Heading.ADVANCED,
    "subtract_baseline": Heading.ADVANCED,
}
"""The fields that belong to another group than those of their class."""


_SPELLINGS = {
    "method": "NAME[:RADIUS]",
    "background": "NAME[:RADIUS]",
    "mask": "LABEL[:DILATION]",
    "memory_limit": "SIZE",
}


def options_of(model: type[BaseModel], hidden: Collection[str] = ()) -> list[click.Parameter]:
    """An option for each field; texts are passed on, and pydantic understands them.

    Args:
        model: of the options.
        hidden: those that the help does not offer, and whose use is an error of its own.
    """
    made: list[click.Parameter] = [
        Option(
            "--params",
            heading=Heading.INPUT,
            metavar="FILE",
            type=Place(),
            help="JSON file of arguments, as a Fractal server writes them.",
        )
    ]
    for name in ordered_fields(model):
        made.append(_option(model, name, hidden=name in hidden))
    return made


def _option(model: type[BaseModel], name: str, *, hidden: bool) -> Option:
    info = model.model_fields[name]
    flag = f"--{dashes(name)}"
    settings: dict[str, Any] = {
        "heading": _heading(model, name),
        "help": rendered(info.description or "") + _default(info.default) + _in_short(name),
        "default": None,
        "hidden": hidden,
    }
    kinds = _flat(get_args(info.annotation) or (info.annotation,))
    if info.annotation is bool:
        both = f"{flag}/--no-{dashes(name)}"
        return Option(both, name, shown=None if info.default else flag, **settings)
    if get_origin(info.annotation) is Literal:
        return Option(flag, name, type=OneOf(get_args(info.annotation)), **settings)
    if name == "flatfield_files":
        settings |= {"multiple": True, "metavar": "[CHANNEL=]FILE", "type": Place()}
        return Option("--flatfield-file", flag, name, shown="--flatfield-file FILE", **settings)
    lists = [kind for kind in kinds if get_origin(kind) is list]
    if lists:
        numbers = get_args(lists[0]) == (int,)
        settings |= {"multiple": True, "numbers": numbers}
        return Option(flag, name, metavar="N N ..." if numbers else "NAME", **settings)
    suffix = name.rpartition("_")[2]
    if suffix in ("file", "folder", "python"):
        return Option(flag, name, metavar=suffix.upper(), type=Place(), **settings)
    metavar = _SPELLINGS.get(name) or _metavar(kinds)
    return Option(flag, name, metavar=metavar, type=click.UNPROCESSED, **settings)


def _in_short(name: str) -> str:
    """What the command line takes besides JSON for options that have parameters of their own."""
    if name == "mask":
        return (
            " A label image by its name (nuclei), pixels above a number of counts (threshold:400), "
            "or none; with a dilation in pixels or micrometers behind it (nuclei:3, "
            "threshold:400:2um). Or JSON."
        )
    if name != "method":
        return ""
    return (
        " One of the methods below, with its radius in pixels or micrometers if you like (median, "
        "median:25, median:15um); or JSON of all its parameters."
    )


def methods_table() -> list[tuple[str, str]]:
    """The background methods as they are written in short with their defaults, and what they do."""
    rows = []
    for name, method in METHODS.items():
        default = method.model_fields[method.short].default
        said = (method.__doc__ or "").splitlines()[0]
        also = [alias for alias, of in ALIASES.items() if of == name and "_" not in alias]
        rows.append(
            (
                name if default is None else f"{name}:{default:g}",
                f"{said} Also called {also[0]}." if also else said,
            )
        )
    return rows


def _default(value: Any) -> str:
    """What the help says of a default, where it says something."""
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return f" Default: {value}." if plain else ""


def _heading(model: type[BaseModel], name: str) -> Heading:
    if name in _OF_NAMES:
        return _OF_NAMES[name]
    owner = next(c for c in model.__mro__ if name in get_annotations(c))
    return _OF_CLASSES.get(owner, Heading.OUTPUT)


def _flat(kinds: Sequence[Any]) -> list[Any]:
    """The members of unions and annotated types."""
    result: list[Any] = []
    for kind in kinds:
        if hasattr(kind, "__metadata__"):
            result += _flat([get_args(kind)[0]])
        else:
            result.append(kind)
    return result


def _metavar(kinds: Sequence[Any]) -> str:
    names = {int: "N", float: "X", str: "TEXT"}
    return next((names[kind] for kind in kinds if kind in names), "JSON")
