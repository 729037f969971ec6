"""How the values of options are read, and what is said of wrong ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from fractal_mesospim_shading.core.background.inputs import parse_list
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.messages import is_option, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")
OptionsT = TypeVar("OptionsT", bound=BaseModel)


class Bearing(Enum):
    """Whether an option decides bytes of a result; every option says it."""

    DECISIVE = "decisive"
    NEUTRAL = "neutral"


Decisive = Annotated[T, Bearing.DECISIVE]
"""An option that decides bytes: it is in the provenance, and a continued run must have the same."""

Neutral = Annotated[T, Bearing.NEUTRAL]
"""An option that decides none: where a result goes, what lies beside it, where it is computed; or
a path to files that are recorded by what they hold."""


def parse_options(value: Any) -> Any:
    """Accept JSON text where a model or a mapping is expected."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f'expected JSON such as {{"key": 1}}; this is none at {place}') from None
    except RecursionError:
        raise ValueError("expected JSON of fewer levels") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys differ: else the last would count without a word."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"expected each key once; '{shown(twice)}' is there twice")
    return values


NumberList = Annotated[list[int], BeforeValidator(parse_list)]


def files_in_short(value: Any) -> Any:
    """Accept `flat.tif`, `488=flat.tif`, several of these, and JSON."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple) and len(value) == 1 and _is_json(value[0]):
        value = parse_options(value[0])
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return value
    files: dict[str, str] = {}
    for item in value:
        channel, equals, path = item.partition("=")
        key, path = (channel.strip(), path.strip()) if equals else ("", item)
        if key in files:
            which = f"the channel {key}" if key else "all channels"
            raise ValueError(f"expected one file for {which}")
        files[key] = path
    return files


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("{")


FlatfieldFiles = Annotated[
    dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(files_in_short)
]


def validated(model: type[OptionsT], arguments: dict[str, Any]) -> OptionsT:
    """Build an options model; all wrong arguments come in one readable error.

    Raises:
        ParameterError: names each argument, what was found and what was expected.
    """
    try:
        return model(**arguments)
    except ValidationError as error:
        raise ParameterError(sentences(error)) from None


def combined(
    model: type[OptionsT], options: OptionsT | None, arguments: dict[str, Any]
) -> OptionsT:
    """Options from an object, from arguments that go before it, or from both.

    Raises:
        ParameterError: the object is of another kind, or an argument is wrong.
    """
    if options is None:
        return validated(model, arguments)
    if not isinstance(options, model):
        raise ParameterError(
            f"`options` is {value_text(options)}; expected {model.__name__}, or the arguments by "
            "their names."
        )
    asked = {name: value for name, value in options if name in options.model_fields_set}
    return validated(model, {**asked, **arguments})


def asked_for(
    model: type[OptionsT], written: dict[str, Any], typed: dict[str, Any] | None = None
) -> OptionsT:
    """Options of a form or a file, where every parameter stands, asked for or not.

    Args:
        model: of the options.
        written: values of the form; one that is the default was not asked for.
        typed: values that go before them, all of them asked for.

    Raises:
        ParameterError: names each argument, what was found and what was expected.
    """
    typed = typed or {}
    values = dict(validated(model, {**written, **typed}))
    fields = model.model_fields
    changed = {
        name: value
        for name, value in written.items()
        if name in typed or values[name] != fields[name].get_default()
    }
    return validated(model, {**changed, **typed})


_MOST = 80
"""Letters of a value that are shown."""


_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": 'names with values, such as {"key": 1}',
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of a usual size",
    "int_type": "a whole number",
    "list_type": "a list, such as [1, 9]",
    "model_attributes_type": 'names with values, such as {"key": 1}',
    "model_type": 'names with values, such as {"key": 1}',
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "string_unicode": "a text of valid characters",
    "tuple_type": "a list, such as [1, 9]",
}


_LIMITS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda limit: f"a number above {limit['gt']:g}",
    "greater_than_equal": lambda limit: f"a number of at least {limit['ge']:g}",
    "less_than": lambda limit: f"a number below {limit['lt']:g}",
    "less_than_equal": lambda limit: f"a number of at most {limit['le']:g}",
    "literal_error": lambda limit: f"{limit['expected']}".replace("'", ""),
    "too_long": lambda limit: f"no more than {limit['max_length']} values",
    "too_short": lambda limit: f"at least {limit['min_length']} values",
    "union_tag_invalid": lambda limit: f"one of {limit['expected_tags']}".replace("'", ""),
}


def _way_of(value: Any) -> str:
    """What else to do with an array that was given for an address; empty for anything else."""
    if not _is_array(value):
        return ""
    return (
        " The flat-field of an array is corrected by the method apply of a model, which "
        "estimate_flatfield gives; its background by core.background.arrays.correct_array."
    )


def _is_array(value: Any) -> bool:
    shape = getattr(value, "shape", None)
    return isinstance(shape, tuple) and bool(shape)


def value_text(value: Any) -> str:
    """A value that somebody gave, short enough for a sentence."""
    if _is_array(value):
        return f"an array of the shape {tuple(value.shape)}"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - whatever an object of somebody else raises
        text = f"an object of the type {type(value).__name__}"
    return shown(text if len(text) <= _MOST else f"{text[: _MOST - 3]}...")


def address(value: Any, name: str) -> str:
    """An address that a person gave to a function.

    Raises:
        ParameterError: it is neither a text nor a path.
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str):
            return text
    raise ParameterError(
        f"`{name}` is {value_text(value)}; expected a path or an address, as a text."
        f"{_way_of(value)}"
    )


def addresses(value: Any, name: str) -> list[str]:
    """One address or several that a person gave to a function.

    Raises:
        ParameterError: there is none, or something else among them.
    """
    if isinstance(value, str | os.PathLike):
        return [address(value, name)]
    if not isinstance(value, list | tuple):
        raise ParameterError(
            f"`{name}` is {value_text(value)}; expected a path or an address, or a list of these."
            f"{_way_of(value)}"
        )
    return [address(item, name) for item in value]


def sentences(error: ValidationError) -> str:
    """All that is wrong with some arguments, a line each."""
    lines = sorted({_sentence(problem) for problem in error.errors(include_url=False)})
    if len(lines) == 1:
        return lines[0]
    return "Some parameters are wrong.\n  " + "\n  ".join(lines)


_WITH_KINDS = ("method", "mask")
"""Options that are one of several kinds, each with parameters of its own."""


def _sentence(problem: ErrorDetails) -> str:
    # Numbers are those of values in a list; a key may be made of digits as well.
    place = [
        f"Value {part + 1}" if isinstance(part, int) else shown(part) for part in problem["loc"]
    ] or ["arguments"]
    first = place[0]
    name = f"`{first}`" if is_option(first) else first
    if first in _WITH_KINDS and len(place) > 2:
        # Its second part is no name of a person's, but which of the kinds it is.
        name = f"`{first}={place.pop(1)}`"
    elif len(place) > 3 and place[1] in _WITH_KINDS:
        within, kind_of_it = place.pop(1), place.pop(1)
        name = f"the {within} {kind_of_it} of {name}"
    within = ".".join(place[1:])
    kind, found = problem["type"], value_text(problem["input"])
    if kind == "extra_forbidden":
        where = f" of {name}" if within else ""
        return f"{within or first}{where}: there is no such parameter."
    if within:
        part = within if isinstance(problem["loc"][-1], int) else f"'{within}'"
        name = f"{part} of {name}"
    if kind == "missing":
        return f"{name} is missing."
    if kind == "union_tag_not_found":
        key = str(problem["ctx"]["discriminator"]).strip("'")
        return f"{name} is {found}; expected a '{key}' in it."
    if kind == "union_tag_invalid":
        found = f"'{shown(problem['ctx']['tag'])}'"
    return f"{name} is {found}; expected {_expected(problem)}."


def _expected(problem: ErrorDetails) -> str:
    kind = problem["type"]
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _LIMITS:
        return _LIMITS[kind](problem["ctx"])
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return text.removeprefix("expected ").rstrip(".")
