"""What the local background correction does to one plane, or stack of planes, of a tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod
from fractal_mesospim_shading.core.background.apply import Application, apply_background
from fractal_mesospim_shading.core.background.masks import dilate_mask, largest_dilation
from fractal_mesospim_shading.core.background.methods import TileMedian
from fractal_mesospim_shading.core.background.noise import estimate_noise_sigma, noise_bias
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.errors import BackgroundError
from fractal_mesospim_shading.local_background.surfaces import Level, Nothing, Surface

Keep = tuple[slice, ...]
"""The part of a plane (y, x) or stack (z, y, x) that is wanted."""


SCARCE = 0.01
"""Of the pixels with data; an estimate from fewer is worth a word."""


@dataclass(frozen=True)
class BackgroundCounts(PixelCounts):
    """What happened to the pixels of a block.

    Attributes:
        unestimated: planes of tiles with data, but no pixel to estimate from.
        eaten: of these, planes whose objects left some before they were widened.
        most_dilation: the largest dilation that leaves some in each of these.
        scarce: planes with less than 1 % of their pixels to estimate from.
        even: planes in which no square had pixels enough.
    """

    unestimated: int = 0
    eaten: int = 0
    most_dilation: int = 0
    scarce: int = 0
    even: int = 0

    def __add__(self, other: PixelCounts) -> BackgroundCounts:
        sums = {name: getattr(self, name) + getattr(other, name, 0) for name in vars(self)}
        eaten = [one for one in (self, other) if isinstance(one, BackgroundCounts) and one.eaten]
        sums["most_dilation"] = min((one.most_dilation for one in eaten), default=0)
        return BackgroundCounts(**sums)


@dataclass(frozen=True)
class Estimate:
    """The background of the wanted part.

    Attributes:
        values: what it is taken away from.
        background, noise: of the same shape; noise for methods that have one.
        absent: True where there is no data; None where there is everywhere.
        estimated: False where no pixel could be used; the part stays as it is.
        has_data: whether the plane holds pixels at all.
        share: of the pixels with data, those that the estimate used.
        even: whether no square of the plane had pixels enough.
        largest_dilation: of the objects that would have left a pixel; None where no dilation
            is to blame.
    """

    values: NDArray[Any]
    background: NDArray[np.float32]
    noise: NDArray[np.float32] | None
    absent: NDArray[np.bool_] | None
    estimated: bool
    has_data: bool = True
    share: float = 1.0
    even: bool = False
    largest_dilation: int | None = None

    def counted(self, planes: int) -> BackgroundCounts:
        """What is to be said of so many planes that were estimated together."""
        if self.estimated:
            scarce = planes if self.share < SCARCE else 0
            return BackgroundCounts(scarce=scarce, even=planes if self.even else 0)
        if not self.has_data:
            return BackgroundCounts()
        if self.largest_dilation is None:
            return BackgroundCounts(unestimated=planes)
        return BackgroundCounts(
            unestimated=planes, eaten=planes, most_dilation=self.largest_dilation
        )


@dataclass(frozen=True)
class PlaneCorrection:
    """How planes are corrected, whatever the method.

    Attributes:
        application: how the background is taken away.
        dtype: of the result.
        threshold: counts above which a pixel is an object, or None.
        dilation_px: by which objects are widened.
        add_noise_bias: add back what noise pulls the estimate down by.
    """

    application: Application
    dtype: np.dtype[Any]
    threshold: float | None = None
    dilation_px: int = 0
    add_noise_bias: bool = False

    def estimate(
        self,
        method: BackgroundMethod,
        values: NDArray[Any],
        objects: NDArray[np.bool_] | None,
        absent: NDArray[np.bool_] | None,
        keep: Keep,
    ) -> Estimate:
        """Estimate from a plane or stack, and keep a part.

        Args:
            method: of the channel.
            values: (y, x), or (z, y, x) for a method with a depth.
            objects: same shape; of a label image, before they are widened.
            absent: same shape; pixels without data.
            keep: the part wanted.
        """
        marked = self._marked(values, objects)
        found = method.background(values, self._widened(marked), absent)
        missing = None if absent is None else absent[keep]
        background = found.background[keep]
        if self.add_noise_bias and found.estimated:
            background = self._without_bias(method, values, absent, background, keep)
        part = values[keep]
        if found.denoised is not None:
            part = found.denoised[keep]
            if missing is not None:
                part = np.where(missing, values[keep], part)
        noise = None if found.noise is None else found.noise[keep]
        if not found.estimated:
            nothing = self._nothing(method, marked, absent)
            return Estimate(
                part,
                background,
                noise,
                missing,
                False,
                nothing.has_data,
                largest_dilation=nothing.largest_dilation,
            )
        return Estimate(part, background, noise, missing, True, share=found.share, even=found.even)

    def surface(
        self,
        method: BackgroundMethod,
        plane: NDArray[Any],
        objects: NDArray[np.bool_] | None,
        absent: NDArray[np.bool_] | None,
    ) -> Surface | Nothing:
        """The surface of a whole plane; the arguments are those of `estimate`."""
        marked = self._marked(plane, objects)
        mask = self._widened(marked)
        if isinstance(method, TileMedian):
            mesh = method.mesh(plane, mask, absent)
            return self._nothing(method, marked, absent) if mesh is None else mesh
        found = method.background(plane, mask, absent)
        if not found.estimated:
            return self._nothing(method, marked, absent)
        usable = found.background if absent is None else found.background[~absent]
        return Level(float(usable.flat[0]), found.share, found.even)

    def on_surface(
        self,
        values: NDArray[Any],
        absent: NDArray[np.bool_] | None,
        surface: Surface | Nothing,
        keep: Keep,
        *,
        noise: bool,
    ) -> Estimate:
        """The background of a part of a plane from the surface of the whole.

        Args:
            values: (y, x), the part.
            absent: same shape; pixels without data.
            surface: of the whole plane.
            keep: where the part lies in it.
            noise: whether its noise is wanted.
        """
        if isinstance(surface, Nothing):
            zero = np.zeros(values.shape, np.float32)
            return Estimate(
                values,
                zero,
                None,
                absent,
                False,
                surface.has_data,
                largest_dilation=surface.largest_dilation,
            )
        background = surface.background(keep[0], keep[1])
        map_ = surface.noise_map(keep[0], keep[1]) if noise else None
        if absent is not None:
            background[absent] = 0
            if map_ is not None:
                map_[absent] = 0
        return Estimate(
            values, background, map_, absent, True, share=surface.share, even=surface.even
        )

    def apply(
        self, method: BackgroundMethod, raw: NDArray[Any], found: Estimate, out: NDArray[Any]
    ) -> BackgroundCounts:
        """Take the background away.

        Args:
            method: of the channel.
            raw: the part as it was read.
            found: its background.
            out: gets the result; any strides.

        Returns:
            Counts; planes without an estimate are not among them.
        """
        absent = found.absent
        if not found.estimated:
            absent = np.ones(found.values.shape, np.bool_)
        how = replace(self.application, rounding="half_up" if method.halves_up else "half_even")
        _, some = apply_background(
            found.values, found.background, how, dtype=self.dtype, coverage=absent, out=out
        )
        missing = 0 if found.absent is None else int(np.count_nonzero(found.absent))
        saturated = 0
        if np.issubdtype(raw.dtype, np.integer):
            saturated = int(np.count_nonzero(raw == np.iinfo(raw.dtype).max))
        return BackgroundCounts(raw.size, missing, some.clipped_low, some.clipped_high, saturated)

    def _marked(
        self, values: NDArray[Any], objects: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        """Where objects are, before they are widened; None where there are none."""
        if objects is None and self.threshold is None:
            return None
        marked = np.asarray(values > self.threshold) if objects is None else objects
        return marked if marked.any() else None

    def _widened(self, marked: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        if marked is None or marked.ndim == 2:
            return None if marked is None else dilate_mask(marked, self.dilation_px)
        return np.stack([dilate_mask(plane, self.dilation_px) for plane in marked])

    def _nothing(
        self,
        method: BackgroundMethod,
        marked: NDArray[np.bool_] | None,
        absent: NDArray[np.bool_] | None,
    ) -> Nothing:
        """Why no pixel of a plane can be used."""
        if absent is not None and absent.all():
            return Nothing(False)
        own = method.dilation if isinstance(method, TileMedian) else 0
        if marked is None or not self.dilation_px + own:
            return Nothing(True)
        return Nothing(True, largest_dilation(marked, absent))

    def _without_bias(
        self,
        method: BackgroundMethod,
        values: NDArray[Any],
        absent: NDArray[np.bool_] | None,
        background: NDArray[np.float32],
        keep: Keep,
    ) -> NDArray[np.float32]:
        """Each plane by its own noise, so that it does not matter which are read together."""
        lifted = np.array(background, np.float32)
        for index, wanted in _planes(values, keep):
            missing = None if absent is None else absent[index]
            bias = _bias(method, _sigma(values[index], missing))
            lifted[wanted] -= np.float32(bias)
        if absent is not None:
            lifted[absent[keep]] = 0
        return lifted


def _planes(values: NDArray[Any], keep: Keep) -> Iterator[tuple[Any, Any]]:
    """Index of each wanted plane, and its place in what is kept."""
    if values.ndim == 2:
        yield ..., ...
        return
    for place, z in enumerate(range(*keep[0].indices(len(values)))):
        yield z, place


def _sigma(plane: NDArray[Any], absent: NDArray[np.bool_] | None) -> float:
    try:
        return estimate_noise_sigma(plane, absent)
    except BackgroundError:
        # No two neighbours have data.
        return 0.0


def _bias(method: BackgroundMethod, sigma: float) -> float:
    """The bias of a method for noise of that size.

    Balls and paraboloids have a height in counts, so their bias does not grow with the
    noise; it is found for sizes that differ by 2 %, and taken in proportion between.
    """
    if sigma <= 0:
        return 0.0
    near = exp(round(50 * log(sigma)) / 50)
    known: Any = method
    return _simulated(known, near) * sigma / near


@lru_cache(maxsize=1024)
def _simulated(method: Any, sigma: float) -> float:
    return noise_bias(method, sigma)
