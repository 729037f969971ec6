"""The shading profile of one channel: flat-field, dark-field and baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractal_mesospim_shading.errors import ProfileError

FloatImage = NDArray[np.float32]

_ROWS = 16


@dataclass(frozen=True)
class ShadingProfile:
    """What a channel is divided by, and what is subtracted before.

    Build it with `ShadingProfile.create`, which checks and normalises.

    Attributes:
        flatfield: (y, x), float32, finite, above 0, mean 1.
        darkfield: (y, x) float32 of the same shape, one number in counts, or
            None where it is not known.
        baseline: counts, subtracted after the division only when asked for.
        scale: the factor by which the given flat-field was divided to reach mean 1.
    """

    flatfield: FloatImage
    darkfield: FloatImage | float | None = None
    baseline: float | None = None
    scale: float = field(default=1.0, compare=False)

    @classmethod
    def create(
        cls,
        flatfield: ArrayLike,
        darkfield: ArrayLike | None = None,
        baseline: float | None = None,
    ) -> ShadingProfile:
        """Check a measured or estimated profile and scale it to mean 1.

        Args:
            flatfield: (y, x), any real type; relative brightness above 0.
            darkfield: (y, x) or a number, counts.
            baseline: counts.

        Raises:
            ProfileError: wrong rank, NaN or infinite values, values of 0 or below.
        """
        flat = _checked_image(flatfield, "flatfield")
        smallest = float(flat.min())
        if smallest <= 0:
            raise ProfileError(
                f"The flatfield holds values of 0 or below (smallest {smallest:g}, "
                f"{int((flat <= 0).sum())} pixels); every value must be above 0. "
                "Estimate it again, or leave out what made it reach 0."
            )
        scale = float(flat.mean(dtype=np.float64))
        dark: FloatImage | float | None = None
        if darkfield is not None:
            array = np.asarray(darkfield)
            if array.ndim == 0 or array.size == 1:
                dark = _checked_number(array.reshape(()).item(), "darkfield")
            else:
                dark = _checked_image(array, "darkfield").astype(np.float32)
        if baseline is not None:
            baseline = _checked_number(baseline, "baseline")
        return cls(
            flatfield=_frozen(_divided(flat, scale)),
            darkfield=_frozen(dark) if isinstance(dark, np.ndarray) else dark,
            baseline=baseline,
            scale=scale,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of the flat-field in pixels."""
        return self.flatfield.shape[0], self.flatfield.shape[1]

    def resampled(self, shape: tuple[int, int]) -> ShadingProfile:
        """The profile on another pixel grid over the same field of view."""
        dark = self.darkfield
        if isinstance(dark, np.ndarray) and dark.shape != shape:
            dark = _frozen(resample(dark, shape))
        if shape == self.shape:
            return ShadingProfile(self.flatfield, dark, self.baseline, self.scale)
        flat = resample(self.flatfield, shape).astype(np.float64)
        mean = float(flat.mean())
        return ShadingProfile(
            _frozen((flat / mean).astype(np.float32)), dark, self.baseline, self.scale * mean
        )


def resample(image: NDArray[np.floating[Any]], shape: tuple[int, int]) -> FloatImage:
    """Resample an image by pixel centres, bilinear, held constant beyond the outer ones.

    Pixel `i` of `n` covers `[i / n, (i + 1) / n]` of the field of view, whatever `n`
    is, so nothing shifts at the edges, and no value leaves the range of the input.
    When it shrinks, pixels are averaged over the area that the new pixel covers.

    Args:
        image: (y, x).
        shape: new (y, x), both at least 1.
    """
    result = np.asarray(image, dtype=np.float64)
    for axis, size in enumerate(shape):
        if result.shape[axis] != size:
            result = _resample_axis(result, size, axis)
    return np.clip(result, image.min(), image.max()).astype(np.float32)


def _resample_axis(image: NDArray[np.float64], size: int, axis: int) -> NDArray[np.float64]:
    old = image.shape[axis]
    moved = np.moveaxis(image, axis, 0)
    result: NDArray[np.float64]
    if size < old:
        # Exact area average: differences of the cumulative sum at the new edges.
        total = np.concatenate([np.zeros((1, *moved.shape[1:])), np.cumsum(moved, axis=0)])
        at_edges = _linear(total, np.linspace(0, old, size + 1))
        result = np.diff(at_edges, axis=0) * (size / old)
    else:
        result = _linear(moved, (np.arange(size) + 0.5) * old / size - 0.5)
    return np.moveaxis(result, 0, axis)


def _linear(rows: NDArray[np.float64], position: NDArray[np.float64]) -> NDArray[np.float64]:
    position = np.clip(position, 0, len(rows) - 1)
    low = np.minimum(position.astype(np.intp), max(len(rows) - 2, 0))
    high = np.minimum(low + 1, len(rows) - 1)
    weight = (position - low)[:, None]
    between: NDArray[np.float64] = rows[low] * (1 - weight) + rows[high] * weight
    return between


def _divided(image: NDArray[Any], scale: float) -> FloatImage:
    """Divide in float64, some rows at a time: a whole tile would leave the processor's cache."""
    result = np.empty(image.shape, np.float32)
    for y in range(0, len(image), _ROWS):
        result[y : y + _ROWS] = image[y : y + _ROWS].astype(np.float64) / scale
    return result


def _checked_image(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise ProfileError(f"The {name} has shape {array.shape}; expected a filled image (y, x).")
    if not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
        raise ProfileError(f"The {name} has type {array.dtype}; expected real numbers.")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ProfileError(
            f"The {name} holds {bad} values that are NaN or infinite; every value must be finite."
        )
    return array


def _checked_number(value: object, name: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ProfileError(f"The {name} is {value!r}; expected a number.") from None
    if not np.isfinite(number):
        raise ProfileError(f"The {name} is {number}; expected a finite number.")
    return number


def _frozen(array: FloatImage) -> FloatImage:
    array.flags.writeable = False
    return array
