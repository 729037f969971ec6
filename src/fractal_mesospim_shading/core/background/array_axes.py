"""Where the planes of an array lie: which of its axes are y and x, and which z."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.parameters import shown
from fractal_mesospim_shading.errors import BackgroundError

Index = tuple[int, ...]

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
