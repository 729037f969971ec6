"""The types of parameters, and what is said of wrong ones before anything is computed."""

from __future__ import annotations

import reprlib
from functools import lru_cache
from math import isfinite
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import AfterValidator, BeforeValidator

from fractal_mesospim_shading.errors import BackgroundError

_WORDS = {float: "a number", int: "a whole number", bool: "True or False", type(None): "None"}

_hints_of = lru_cache(get_type_hints)

_LARGEST_COUNTS = 3.4e38
"""What a pixel of 32 bits can hold; beyond, sums with pixels are infinite."""


def parse_list(value: Any) -> Any:
    """Accept `1,9`, `[1,9]` and repeated options for a list of numbers."""
    items = value if isinstance(value, list | tuple) else [value]
    if not any(isinstance(item, str) for item in items):
        return value
    numbers: list[Any] = []
    for item in items:
        if not isinstance(item, str):
            numbers.append(item)
            continue
        text = item.strip()
        text = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        numbers.extend(part.strip() for part in text.split(",") if part.strip())
    return numbers


def _pixel_value(value: float) -> float:
    if not abs(value) <= _LARGEST_COUNTS:
        raise ValueError("expected a number of counts that a pixel can hold")
    return value


Unit = Literal["pixels", "micrometers"]
Counts = Annotated[float, AfterValidator(_pixel_value)]
RadiusList = Annotated[list[float], BeforeValidator(parse_list)]
CountsList = Annotated[list[Counts], BeforeValidator(parse_list)]


def check_parameters(owner: str, parameters: Any) -> None:
    """Compare the fields of a dataclass with their annotations, see `checked`.

    Args:
        owner: whose parameters these are, for the message.
        parameters: an instance of a dataclass.

    Raises:
        BackgroundError: what was given for which field, and what may be.
    """
    for name, hint in _hints_of(parameters.__class__).items():
        value = getattr(parameters, name)
        object.__setattr__(parameters, name, checked(owner, name, value, hint))


def checked(owner: str, name: str, value: Any, hint: Any) -> Any:
    """A parameter of the type that it should have.

    Known are numbers (finite ones), whole numbers, True and False, None, choices of texts
    and pairs. A whole number that comes as 2.0 becomes 2.

    Args:
        owner: whose parameter it is, for the message.
        name: of the parameter.
        value: as it was given.
        hint: what it may be, as a type or a union of types.

    Raises:
        BackgroundError: what was given, and what may be.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = tuple(get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds)
    if not any(_is_one(value, kind) for kind in kinds):
        expected = " or ".join(dict.fromkeys(_in_words(kind) for kind in kinds))
        raise BackgroundError(f"{name} of {owner} is {shown(value)}; expected {expected}.")
    return int(value) if int in kinds and isinstance(value, float | np.floating) else value


def is_number(value: Any) -> bool:
    """Whether something is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return isfinite(value)


def check_radius(radius: Any, what: str, least: float = 1) -> None:
    """Refuse a radius in pixels that is no number, or too small.

    Args:
        radius: as it was given.
        what: its name in the message.
        least: the smallest that is allowed.

    Raises:
        BackgroundError: with what was found and what was expected.
    """
    if not is_number(radius) or radius < least:
        raise BackgroundError(f"{what} is {shown(radius)} px; expected {least:g} or more.")


def check_z_radius(radius: Any) -> None:
    """Refuse a radius in planes that is no number, or below 1; None is no radius.

    Raises:
        BackgroundError: with what was found.
    """
    if radius is not None and (not is_number(radius) or radius < 1):
        raise BackgroundError(f"The z radius is {shown(radius)} planes; expected 1 or more.")


def shown(value: Any) -> str:
    """A value as a short text for a message, with its type where that is not plain to see."""
    text = reprlib.repr(value)
    plain = value is None or isinstance(value, bool | int | float | str | list | tuple | dict)
    return text if plain else f"{text} ({type(value).__name__})"


def _is_one(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return (
            isinstance(value, tuple)
            and len(value) == len(inner)
            and all(_is_one(item, one) for item, one in zip(value, inner, strict=True))
        )
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if kind not in (int, float):
        return isinstance(value, kind)
    return is_number(value) and (kind is float or value == int(value))


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a pair (y, x), each {_in_words(get_args(kind)[0])}"
    return _WORDS[kind]
