"""The shading profile of one channel: flat-field, dark-field and baseline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractal_mesospim_shading.core.profile_checks import (
    checked_image,
    checked_number,
    counts,
    refuse_wide_span,
)
from fractal_mesospim_shading.core.profile_shapes import shape_text
from fractal_mesospim_shading.errors import ProfileError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatImage = NDArray[np.float32]

Found = TypeVar("Found")

_MOST_LOOKED_AT = 1_000_000
"""Pixels that percentiles are taken of, at most."""

USUAL_RANGE = (0.05, 20.0)
"""Values of a flat-field (mean 1) outside which a person should look at it."""


@dataclass(frozen=True, eq=False)
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
        *,
        in_place: bool = False,
    ) -> ShadingProfile:
        """Check a measured or estimated profile and scale it to mean 1.

        Args:
            flatfield: (y, x), any real type; relative brightness above 0.
            darkfield: (y, x) or a number, counts.
            baseline: counts.
            in_place: whether the flat-field's array is nobody else's, and may be scaled itself.

        Raises:
            ProfileError: wrong rank, NaN or infinite values, values of 0 or below, a flat-field
                whose largest value is more than 100 times its smallest.
        """
        flat, (smallest, largest) = checked_image(flatfield, "flatfield")
        if smallest <= 0:
            raise ProfileError(
                f"The flatfield holds values of 0 or below (smallest {smallest:g}, "
                f"{int((flat <= 0).sum())} pixels); every value must be above 0. "
                "Estimate it again, or leave out what made it reach 0."
            )
        with np.errstate(over="ignore"):
            scale = float(flat.mean(dtype=np.float64))
        if not np.isfinite(scale):
            raise ProfileError(
                f"The flatfield holds values as large as {largest:g}; its mean is not "
                "finite. Divide it by its largest value first."
            )
        refuse_wide_span(smallest, largest, scale)
        dark: FloatImage | float | None = None
        if darkfield is not None:
            array = np.asarray(darkfield)
            if array.size == 1 and array.dtype.kind in "uif":
                dark = checked_number(array.reshape(()).item(), "darkfield")
            else:
                dark = counts(*checked_image(array, "darkfield"), "darkfield")
        if baseline is not None:
            baseline = checked_number(baseline, "baseline")
        return cls(
            flatfield=_frozen(_divided(flat, scale, in_place=in_place)),
            darkfield=_frozen(dark) if isinstance(dark, np.ndarray) else dark,
            baseline=baseline,
            scale=scale,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of the flat-field in pixels."""
        return self.flatfield.shape[0], self.flatfield.shape[1]

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value of the flat-field."""
        return self._once("_ends", _ends)

    @property
    def typical_range(self) -> tuple[float, float]:
        """1st and 99th percentile of the flat-field, of a million pixels at most, evenly spread."""
        return self._once("_typical_range", _typical_range)

    @property
    def digest(self) -> str:
        """Fingerprint of what is applied, for provenance, and to match a continued run."""
        return self._once("_digest", _digest)

    def __eq__(self, other: object) -> bool:
        """Whether both correct alike."""
        return self.digest == other.digest if isinstance(other, ShadingProfile) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def _once(self, name: str, find: Callable[[ShadingProfile], Found]) -> Found:
        """What takes long to find out of a large tile is found once, by whoever asks first."""
        # No `cached_property`: Python 3.11 makes those of two profiles one after the other.
        if name not in vars(self):
            object.__setattr__(self, name, find(self))
        found: Found = vars(self)[name]
        return found

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

    def apply(
        self,
        array: Any,
        *,
        camera_offset: float | None = None,
        output_offset: float = 0.0,
        zero_is: Literal["auto", "data", "no_data"] = "auto",
        subtract_baseline: bool = False,
        output_type: Literal["source", "float32"] = "source",
    ) -> Any:
        """Correct planes of a tile, with the bytes that the flat-field task gives.

        Args:
            array: (..., y, x), uint8, uint16 or float32, where (y, x) is the shape of the profile:
                a NumPy array, masked array or memory map, or a Dask array.
            camera_offset: counts to subtract; needed where the profile has no dark-field, and
                only there.
            output_offset: counts to add at the end.
            zero_is: what a pixel of 0 is, as for the task.
            subtract_baseline: also subtract the baseline, after the division.
            output_type: `source`, the type of the array, in which values are rounded and cut off
                at its ends; or `float32`, in which they are not.

        Returns:
            An array of the same shape. Of a Dask array, a Dask array in chunks of whole planes,
            of which nothing is computed yet.

        Raises:
            ProfileError: planes of another shape.
            ParameterError: another type of pixels, or an argument that does not fit.

        Example:
            >>> import numpy as np
            >>> from fractal_mesospim_shading.core.profile import ShadingProfile
            >>> profile = ShadingProfile.create([[0.5, 1.5]] * 2)
            >>> planes = np.full((3, 2, 2), 400, np.uint16)
            >>> profile.apply(planes, camera_offset=100)[0]
            array([[600, 200],
                   [600, 200]], dtype=uint16)
        """
        from fractal_mesospim_shading.core.profile_arrays import ProfileUse, apply_profile

        use = ProfileUse(camera_offset, output_offset, zero_is, subtract_baseline, output_type)
        return apply_profile(self, array, use)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the flat-field, with lines of equal brightness.

        Args:
            axes: of matplotlib, to draw into; None for a new figure.

        Returns:
            The axes; `axes.figure.savefig("flatfield.png")` writes the picture.
        """
        from fractal_mesospim_shading.core.profile_picture import plot_flatfield

        return plot_flatfield(self.flatfield, axes)

    def __repr__(self) -> str:
        low, high = self.ends
        parts = [f"{shape_text(self.shape)} pixels", f"flat-field {low:.3g} to {high:.3g}"]
        if self.darkfield is not None:
            parts.append(f"dark-field {float(np.mean(self.darkfield)):.4g} counts")
        if self.baseline is not None:
            parts.append(f"baseline {self.baseline:.4g} counts")
        return f"ShadingProfile({', '.join(parts)})"


def _ends(profile: ShadingProfile) -> tuple[float, float]:
    return float(profile.flatfield.min()), float(profile.flatfield.max())


def _typical_range(profile: ShadingProfile) -> tuple[float, float]:
    step = ceil(sqrt(profile.flatfield.size / _MOST_LOOKED_AT))
    low, high = np.percentile(profile.flatfield[::step, ::step], (1, 99))
    return float(low), float(high)


def _digest(profile: ShadingProfile) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(profile.flatfield).data)
    dark = np.asarray(profile.darkfield if profile.darkfield is not None else 0)
    digest.update(np.ascontiguousarray(dark).data)
    digest.update(json.dumps(profile.baseline).encode())
    return digest.hexdigest()[:16]


def range_warning(profile: ShadingProfile) -> str | None:
    """What to say of a flat-field that leaves the usual range of 0.05 to 20 anywhere.

    Returns:
        Words that follow "The flat-field"; None where there is nothing to say.
    """
    (low, high), flatfield = profile.ends, profile.flatfield
    least, most = USUAL_RANGE
    if low >= least and high <= most:
        return None
    number = int(np.count_nonzero((flatfield < least) | (flatfield > most)))
    return (
        f"goes from {low:.3g} to {high:.3g} of its mean, and {number} of its pixels lie outside "
        f"{least:g} to {most:g}: noise and errors of the offset grow with it. Such values come "
        "from an offset or dark frame near the light itself, or from dead or masked pixels."
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
    result: NDArray[np.floating[Any]] = image
    for axis, size in enumerate(shape):
        old, moved = result.shape[axis], np.moveaxis(result, axis, 0)
        if size < old:
            result = np.moveaxis(_averaged(moved, size), 0, axis)
        elif size > old:
            position = (np.arange(size) + 0.5) * old / size - 0.5
            result = np.moveaxis(_linear(moved.astype(np.float64), position), 0, axis)
    return np.clip(result.astype(np.float64), image.min(), image.max()).astype(np.float32)


def _averaged(rows: NDArray[np.floating[Any]], size: int) -> NDArray[np.float64]:
    """Exact area averages of (n, ...) rows: differences of their cumulative sum at the new edges.

    A row at a time: a whole array of sums would leave the processor's cache.
    """
    old = len(rows)
    edges = np.linspace(0, old, size + 1)
    first = np.minimum(edges.astype(np.intp), old - 1)
    result = np.empty((size, *rows.shape[1:]))
    total, at_last, number = np.zeros(rows.shape[1:]), np.zeros(rows.shape[1:]), 0
    for index, row in enumerate(rows):
        before, total = total, total + row.astype(np.float64)
        while number <= size and first[number] == index:
            weight = edges[number] - index
            at_edge = before * (1 - weight) + total * weight
            if number:
                np.subtract(at_edge, at_last, out=result[number - 1])
            at_last, number = at_edge, number + 1
    result *= size / old
    return result


def _linear(rows: NDArray[np.float64], position: NDArray[np.float64]) -> NDArray[np.float64]:
    position = np.clip(position, 0, len(rows) - 1)
    low = np.minimum(position.astype(np.intp), max(len(rows) - 2, 0))
    high = np.minimum(low + 1, len(rows) - 1)
    weight = (position - low)[:, None]
    between: NDArray[np.float64] = rows[low] * (1 - weight) + rows[high] * weight
    return between


def _divided(image: NDArray[Any], scale: float, *, in_place: bool) -> FloatImage:
    """Divide in float64, which NumPy does piece by piece; no array of float64 is made."""
    own = in_place and image.dtype == np.float32 and image.flags.owndata
    if own:
        image.flags.writeable = True
    result = image if own else np.empty(image.shape, np.float32)
    return np.divide(image, scale, out=result, dtype=np.float64, casting="same_kind")


def _frozen(array: FloatImage) -> FloatImage:
    array.flags.writeable = False
    return array
