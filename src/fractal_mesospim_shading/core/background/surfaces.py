"""Backgrounds that follow from a small description of a whole plane, such as a mesh of tiles.

Found once for a plane, they are evaluated in every block that cuts it. So planes of any size are
corrected in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background.masks import plus_level
from fractal_mesospim_shading.core.kernel_cache import kernel
from fractal_mesospim_shading.errors import BackgroundError

Interpolation = Literal["spline", "linear", "none"]


class Surface(Protocol):
    """The background of a plane, to be evaluated in parts; see `Mesh` for the attributes."""

    @property
    def share(self) -> float: ...

    @property
    def even(self) -> bool: ...

    def background(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Of a part of the plane, (y, x)."""

    def noise_map(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """The standard deviation of the same part."""


@dataclass(frozen=True)
class Axis:
    """How every pixel of an axis is made of the values of a grid.

    Attributes:
        first: (length,) index of the first coefficient that a pixel needs.
        weights: (length, n) its weight and those of the following ones.
        centres: of the tiles, in pixels.
        before: (length,) index of the last centre that does not lie behind the pixel; the
            one after it is the other neighbour. 0 where there is one centre only.
        degree: of the spline; None where coefficients are values.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float64]
    centres: NDArray[np.float64]
    before: NDArray[np.int64]
    degree: int | None

    def coefficients(self, values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        """Coefficients such that the spline goes through the values at the centres."""
        if self.degree is None:
            return values
        from scipy.interpolate import make_interp_spline

        spline = make_interp_spline(self.centres, values, k=self.degree, axis=axis)
        return np.asarray(np.moveaxis(spline.c, 0, axis), np.float64)


@dataclass(frozen=True)
class Mesh:
    """Values at the centres of tiles, ready to be interpolated.

    Attributes:
        values: (rows, columns) float32.
        centres_y, centres_x: pixel coordinates, 0 is the centre of the first pixel.
        shape: (y, x) of the image.
        interpolation: spline of degree min(3, tiles - 1), linear, or none (nearest).
        held: whether the surface stays within the values of the four tiles around a pixel.
            A spline alone swings by a tenth of a step on both sides of it.
        noise: (rows, columns) float32, robust standard deviation in each tile, if
            it was asked for.
        share: of the pixels with data, those that the values rest on.
        even: whether all values are that of the whole image, as no tile had pixels enough.
        level: counts to add to the values, where float32 does not hold their sum.
    """

    values: NDArray[np.float32]
    centres_y: NDArray[np.float64]
    centres_x: NDArray[np.float64]
    shape: tuple[int, int]
    interpolation: Interpolation
    held: bool = True
    noise: NDArray[np.float32] | None = None
    level: int | float | None = None
    share: float = 1.0
    even: bool = False

    def background(self, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[Any]:
        """The background of a part of the image; the same bits as in the whole."""
        return plus_level(self._evaluated(self.values, rows, columns), self.level)

    def noise_map(
        self, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float32]:
        """The standard deviation of the background of a part of the image.

        Raises:
            BackgroundError: if the mesh was made without it.
        """
        if self.noise is None:
            raise BackgroundError("This mesh holds no noise; ask for it when it is made.")
        return self._evaluated(self.noise, rows, columns)

    def _evaluated(
        self, values: NDArray[np.float32], rows: slice, columns: slice
    ) -> NDArray[np.float32]:
        vertical = _axis(self.centres_y, self.shape[0], self.interpolation)
        horizontal = _axis(self.centres_x, self.shape[1], self.interpolation)
        grid = vertical.coefficients(values.astype(np.float64), 0)
        grid = np.ascontiguousarray(horizontal.coefficients(grid, 1))
        result: NDArray[np.float32] = _evaluate(
            grid,
            vertical.first[rows],
            vertical.weights[rows],
            horizontal.first[columns],
            horizontal.weights[columns],
        )
        if self.held and max(vertical.degree or 0, horizontal.degree or 0) > 1:
            lowest, highest = _ranges(values)
            _hold(result, lowest, highest, vertical.before[rows], horizontal.before[columns])
        return result


def _axis(centres: NDArray[np.float64], length: int, kind: Interpolation) -> Axis:
    # Beyond the outer centres the value is held, not extrapolated.
    place = np.clip(np.arange(length, dtype=np.float64), centres[0], centres[-1])
    before = np.searchsorted(centres, place, side="right") - 1
    before = np.clip(before, 0, max(centres.size - 2, 0))
    degree = min({"spline": 3, "linear": 1, "none": 0}[kind], centres.size - 1)
    if degree == 0:
        between = (centres[1:] + centres[:-1]) / 2
        nearest = np.searchsorted(between, place, side="right")
        return Axis(nearest, np.ones((length, 1)), centres, before, None)
    from scipy.interpolate import BSpline, make_interp_spline

    knots = make_interp_spline(centres, np.zeros(centres.size), k=degree).t
    design: Any = BSpline.design_matrix(place, knots, degree)
    first = design.indices.reshape(length, degree + 1)[:, 0].astype(np.int64)
    weights = np.asarray(design.data).reshape(length, degree + 1)
    return Axis(first, weights, centres, before, degree)


def _ranges(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smallest and largest of each four neighbouring values; of two or one on a short axis."""
    corners = [
        values[min(y, values.shape[0] - 1) :, min(x, values.shape[1] - 1) :]
        for y in (0, 1)
        for x in (0, 1)
    ]
    shape = tuple(max(size - 1, 1) for size in values.shape)
    cut = np.stack([corner[: shape[0], : shape[1]] for corner in corners])
    return cut.min(axis=0), cut.max(axis=0)


@kernel
def _evaluate(grid, rows, row_weights, columns, column_weights):  # type: ignore[no-untyped-def]
    height, width = rows.shape[0], columns.shape[0]
    result = np.empty((height, width), np.float32)
    line = np.empty(grid.shape[1], np.float64)
    for y in range(height):
        line[:] = 0
        for m in range(row_weights.shape[1]):
            weight = row_weights[y, m]
            for i in range(grid.shape[1]):
                line[i] += weight * grid[rows[y] + m, i]
        for x in range(width):
            total = 0.0
            for m in range(column_weights.shape[1]):
                total += column_weights[x, m] * line[columns[x] + m]
            result[y, x] = total
    return result


@kernel
def _hold(surface, lowest, highest, rows, columns):  # type: ignore[no-untyped-def]
    """Cut a surface off at the range of the grid values around each pixel, in place."""
    for y in range(surface.shape[0]):
        low, high = lowest[rows[y]], highest[rows[y]]
        for x in range(surface.shape[1]):
            i = columns[x]
            value = surface[y, x]
            value = low[i] if value < low[i] else value
            surface[y, x] = high[i] if value > high[i] else value
