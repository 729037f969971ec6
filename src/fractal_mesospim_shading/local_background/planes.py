"""What the local background correction does to one plane, or stack of planes, of a tile."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundMethod, BackgroundResult
from fractal_mesospim_shading.core.background.apply import Application, correct_plane
from fractal_mesospim_shading.core.background.masks import dilate_mask, largest_dilation, union
from fractal_mesospim_shading.core.background.noise import plane_bias, without_bias
from fractal_mesospim_shading.core.background.surfaces import Surface
from fractal_mesospim_shading.core.correct import PixelCounts

logger = logging.getLogger(__name__)

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

    def __add__(self, other: Self) -> Self:
        dilations = [one.most_dilation for one in (self, other) if one.eaten]
        return replace(super().__add__(other), most_dilation=min(dilations, default=0))


@dataclass(frozen=True)
class Nothing:
    """Why there is no background.

    Attributes:
        has_data: whether the plane holds pixels at all, which then are all masked.
        largest_dilation: of the objects that leaves a pixel; None where a dilation is not
            to blame.
    """

    has_data: bool
    largest_dilation: int | None = None


@dataclass(frozen=True)
class Estimate:
    """The background of the wanted part.

    Attributes:
        result: the background, its noise and what it rests on.
        absent: True where there is no data; None where there is everywhere.
        nothing: why no pixel could be used, so that the part stays as it is; None where some could.
    """

    result: BackgroundResult
    absent: NDArray[np.bool_] | None
    nothing: Nothing | None = None

    def counted(self, planes: int) -> BackgroundCounts:
        """What is to be said of so many planes that were estimated together."""
        if self.nothing is None:
            scarce = planes if self.result.share < SCARCE else 0
            return BackgroundCounts(scarce=scarce, even=planes if self.result.even else 0)
        if not self.nothing.has_data:
            return BackgroundCounts()
        dilation = self.nothing.largest_dilation
        if dilation is None:
            return BackgroundCounts(unestimated=planes)
        return BackgroundCounts(unestimated=planes, eaten=planes, most_dilation=dilation)


@dataclass(frozen=True)
class PlaneSurface:
    """The background of a whole plane, to be taken in parts.

    Attributes:
        surface: from which it follows; None where no pixel could be used.
        nothing: why none could.
    """

    surface: Surface | None
    nothing: Nothing | None = None

    def part(
        self, keep: tuple[slice, slice], absent: NDArray[np.bool_] | None, *, noise: bool
    ) -> Estimate:
        """The background of a part.

        Args:
            keep: where it lies in the plane.
            absent: (y, x) of the part; pixels without data.
            noise: whether its noise is wanted.
        """
        if self.surface is None:
            empty = np.zeros([part.stop - part.start for part in keep], np.float32)
            return Estimate(BackgroundResult(empty, estimated=False), absent, self.nothing)
        background = self.surface.background(*keep)
        deviation = self.surface.noise_map(*keep) if noise else None
        if absent is not None:
            background[absent] = 0
            if deviation is not None:
                deviation[absent] = 0
        share, even = self.surface.share, self.surface.even
        result = BackgroundResult(background, noise=deviation, share=share, even=even)
        return Estimate(result, absent)


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
        result = method.background(values, self._widened(marked), absent)
        part = result.part(keep)
        if self.add_noise_bias and result.estimated:
            lifted = without_bias(method, values, absent, part.background, keep)
            part = replace(part, background=lifted)
        nothing = None if result.estimated else _nothing(marked, absent)
        return Estimate(part, None if absent is None else absent[keep], nothing)

    def surface(
        self,
        method: BackgroundMethod,
        plane: NDArray[Any],
        objects: NDArray[np.bool_] | None,
        absent: NDArray[np.bool_] | None,
    ) -> PlaneSurface:
        """The surface of a whole plane; the arguments are those of `estimate`."""
        marked = self._marked(plane, objects)
        surface = method.surface(plane, self._widened(marked), absent)
        return PlaneSurface(surface, _nothing(marked, absent) if surface is None else None)

    def ignored(
        self,
        plane: NDArray[Any],
        objects: NDArray[np.bool_] | None,
        absent: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.bool_] | None, Nothing | None]:
        """The pixels of a whole plane that an estimate may not use; arguments as for `estimate`.

        Returns:
            (y, x), or None where all may be used; and why none may.
        """
        marked = self._marked(plane, objects)
        ignored = union(self._widened(marked), absent)
        none = ignored is not None and ignored.all()
        return ignored, _nothing(marked, absent) if none else None

    def bias(
        self,
        method: BackgroundMethod,
        plane: NDArray[Any],
        absent: NDArray[np.bool_] | None,
    ) -> np.float32 | None:
        """What is to be taken off the background of a whole plane; None for nothing."""
        return plane_bias(method, plane, absent) if self.add_noise_bias else None

    def apply(
        self, method: BackgroundMethod, raw: NDArray[Any], estimate: Estimate, out: NDArray[Any]
    ) -> BackgroundCounts:
        """Take the background away.

        Args:
            method: of the channel.
            raw: the part as it was read.
            estimate: its background.
            out: gets the result; any strides; may be `raw` itself.

        Returns:
            Counts; planes without an estimate are not among them.
        """
        # First, for the result may lie where the part does.
        saturated = 0
        if np.issubdtype(raw.dtype, np.integer):
            saturated = int(np.count_nonzero(raw == np.iinfo(raw.dtype).max))
        _, some = correct_plane(
            method,
            raw,
            estimate.result,
            estimate.absent,
            self.application,
            dtype=self.dtype,
            out=out,
        )
        missing = 0 if estimate.absent is None else int(np.count_nonzero(estimate.absent))
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


def _nothing(marked: NDArray[np.bool_] | None, absent: NDArray[np.bool_] | None) -> Nothing:
    """Why no pixel of a plane can be used."""
    if absent is not None and absent.all():
        return Nothing(False)
    return Nothing(True, largest_dilation(marked, absent))


def tell_masks(
    counts: Mapping[str, BackgroundCounts],
    methods: Mapping[str, BackgroundMethod],
    correction: PlaneCorrection,
) -> None:
    """Say where a mask left no background, or so little that a person should know.

    Args:
        counts: by channel label, of the whole image.
        methods: of the channels.
        correction: with the mask's threshold and dilation.
    """
    for label, total in counts.items():
        method = methods[label]
        if total.unestimated:
            said = _all_masked(total, correction) + _eaten(total, method, correction)
            logger.warning("Channel %s: %s", label, " ".join(said))
        for line in _little(total, method):
            logger.info("Channel %s: %s", label, line)


def _all_masked(total: BackgroundCounts, correction: PlaneCorrection) -> list[str]:
    number = total.unestimated - total.eaten
    if not number:
        return []
    advice = "Check the mask."
    if correction.threshold is not None:
        advice = f"Everything in them lies above the threshold of {correction.threshold:g} counts."
    return [
        f"{number} planes of tiles had no pixel outside of the mask; they passed through "
        f"unchanged. {advice}"
    ]


def _eaten(
    total: BackgroundCounts, method: BackgroundMethod, correction: PlaneCorrection
) -> list[str]:
    if not total.eaten:
        return []
    parts = [
        f"{size} px by the dilation of {owner}"
        for size, owner in (
            (correction.dilation_px, "the mask"),
            (method.own_dilation_px, f"the method {method.name}"),
        )
        if size
    ]
    in_all = " in all" if len(parts) > 1 else ""
    return [
        f"In {total.eaten} planes of tiles the objects, widened {' and '.join(parts)}, left no "
        "pixel of background; they passed through unchanged. The largest dilation that leaves "
        f"some in each of them is {total.most_dilation} px{in_all}."
    ]


def _little(total: BackgroundCounts, method: BackgroundMethod) -> list[str]:
    lines = []
    if total.scarce:
        lines.append(
            f"In {total.scarce} planes of tiles less than 1 % of the pixels lay outside of the "
            "mask and its dilation; their background rests on these."
        )
    if total.even:
        lines.append(
            f"In {total.even} planes of tiles no square had a share of "
            f"{method.least_share:g} of its pixels outside of the mask "
            "(min_unmasked_fraction); one number, the median of the plane, was taken."
        )
    return lines
