"""What people hand over, checked before anything is computed: parameters, arrays, their axes."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, prod
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
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


_SUFFIXES: dict[str, Unit] = {"um": "micrometers", "\u00b5m": "micrometers", "px": "pixels"}


def length_in_short(text: str) -> tuple[str, Unit]:
    """The number and the unit of `25`, `25px` and `15um`; the number is not looked at."""
    for suffix, unit in _SUFFIXES.items():
        if text.endswith(suffix):
            return text.removesuffix(suffix).strip(), unit
    return text.strip(), "pixels"


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


Index = tuple[int, ...]
Bool = NDArray[np.bool_]

MOST_COLOURS = 4


@dataclass(frozen=True)
class ArrayAxes:
    """The parts of an array that are estimated together, each a plane or a stack.

    Attributes:
        shape: of the array.
        inner: positions of y and x, or of z, y and x, among its axes.
    """

    shape: tuple[int, ...]
    inner: tuple[int, ...]

    @property
    def leading(self) -> tuple[int, ...]:
        """Positions of the other axes, along which the parts are numbered."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.inner)

    @property
    def parts(self) -> int:
        """How many there are."""
        return prod(self.shape[axis] for axis in self.leading)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Length of y and of x."""
        return self.shape[self.inner[-2]], self.shape[self.inner[-1]]

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """The shape of a mask for all planes: y and x in the order that the array has them."""
        return tuple(self.shape[axis] for axis in sorted(self.inner[-2:]))

    def indices(self) -> Iterator[Index]:
        """The number of each part along the leading axes."""
        yield from np.ndindex(*(self.shape[axis] for axis in self.leading))

    def part(self, array: Any, index: Index) -> NDArray[Any]:
        """One part of an array of this shape, its axes in the order (z,) y, x."""
        return self._turned(np.asarray(array[self._where(index)]))

    def put(self, array: Any, index: Index, values: NDArray[Any]) -> None:
        """Write one part, its axes in the order (z,) y, x, into an array of this shape."""
        order = sorted(self.inner)
        array[self._where(index)] = values.transpose([self.inner.index(axis) for axis in order])

    def part_of_mask(self, mask: Any, index: Index) -> NDArray[Any]:
        """One part of a mask of the shape of the array, or of `mask_shape` for all planes."""
        if mask.shape == self.shape:
            return self.part(mask, index)
        plane = np.asarray(mask)
        plane = plane if self.inner[-2] < self.inner[-1] else plane.T
        return np.broadcast_to(plane, [self.shape[axis] for axis in self.inner])

    def _where(self, index: Index) -> tuple[Any, ...]:
        where: list[Any] = [slice(None)] * len(self.shape)
        for axis, number in zip(self.leading, index, strict=True):
            where[axis] = number
        return tuple(where)

    def _turned(self, part: NDArray[Any]) -> NDArray[Any]:
        order = sorted(self.inner)
        return part.transpose([order.index(axis) for axis in self.inner])


def find_axes(shape: tuple[int, ...], axes: str | None, *, stacks: bool) -> ArrayAxes:
    """Find y and x (and z) among the axes of an array.

    Args:
        shape: of the array.
        axes: a letter for each axis, such as `zyx` or `yxc`; None where the last two are y
            and x and, for stacks, the one before z.
        stacks: whether z, y and x belong together, for a method with a z radius.

    Raises:
        BackgroundError: letters that do not fit the array, an empty array, or a last axis so
            short that it may hold colours, of which nothing was said.
    """
    needed = "zyx" if stacks else "yx"
    if axes is not None:
        names = _checked_names(shape, axes, needed)
    else:
        names = "." * (len(shape) - len(needed)) + needed
    if len(shape) < len(needed) or 0 in shape:
        raise BackgroundError(
            f"The image has shape {shape}; expected {len(needed)} or more axes, ending with "
            f"{', '.join(needed)}, and at least one pixel."
        )
    if axes is None and len(shape) > 2 and shape[-1] <= MOST_COLOURS:
        given = "uvwtczyx"[-len(shape) :]
        colours = (given.replace("c", "") if "c" in given else given[1:]) + "c"
        raise BackgroundError(
            f"The image has shape {shape}, with a last axis of {shape[-1]}: these may be colours "
            f"or channels, as in an RGB picture, or x. Say which with an argument: "
            f"axes='{colours}' if it holds channels, axes='{given}' if it is x."
        )
    return ArrayAxes(shape, tuple(names.index(name) for name in needed))


def _checked_names(shape: tuple[int, ...], axes: Any, needed: str) -> str:
    names = axes.lower() if isinstance(axes, str) else ""
    if not names.isalpha() or len(set(names)) != len(names) or len(names) != len(shape):
        raise BackgroundError(
            f"axes is {shown(axes)}, the image has shape {shape}; expected a text of "
            f"{len(shape)} different letters, one for each axis, such as 'zyx' or 'yxc'."
        )
    missing = [name for name in needed if name not in names]
    if missing:
        raise BackgroundError(
            f"axes is {axes!r}, without {' and '.join(missing)}; expected "
            f"{', '.join(needed)} among the letters"
            f"{', as the method has a z radius' if 'z' in needed else ''}."
        )
    return names


def as_numbers(array: Any, what: str) -> Any:
    """An array of real numbers.

    Args:
        array: an array; anything else with a shape, a NumPy type and an index (a memory map,
            a zarr or HDF5 array) stays as it is and is read in parts; lists are converted.
        what: its name in a message, such as `image`.

    Raises:
        BackgroundError: it holds no numbers.
    """
    if isinstance(array, np.ma.MaskedArray):
        numbers: Any = array
    elif not isinstance(array, np.ndarray) and _is_arraylike(array):
        numbers = array
    else:
        try:
            numbers = np.asarray(array)
        except (TypeError, ValueError) as error:
            raise BackgroundError(
                f"The {what} is {shown(array)}, which is no array: {error}."
            ) from error
    if numbers.dtype.kind not in "buif":
        raise BackgroundError(
            f"The {what} is {shown(array) if numbers.dtype.kind == 'O' else 'an array'} of type "
            f"{numbers.dtype}; expected an array of integers or floats."
        )
    return numbers


def without_mask(array: Any) -> tuple[Any, Bool | None]:
    """The data of a masked array and its mask, None where nothing is masked; others as they are."""
    if not isinstance(array, np.ma.MaskedArray):
        return array, None
    hidden = array.mask
    return array.data, np.asarray(hidden) if np.any(hidden) else None


def with_mask(array: NDArray[Any], hidden: Bool | None) -> NDArray[Any]:
    """A masked array with this mask; the array itself where there is none."""
    if hidden is None:
        return array
    masked = array.view(np.ma.MaskedArray)
    masked.mask = hidden
    return masked


def _is_arraylike(array: Any) -> bool:
    return (
        isinstance(getattr(array, "dtype", None), np.dtype)
        and isinstance(getattr(array, "shape", None), tuple)
        and hasattr(array, "__getitem__")
    )
