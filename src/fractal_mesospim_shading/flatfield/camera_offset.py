"""The camera offset of a channel: measured, given, or estimated from the noise."""

from __future__ import annotations

import logging
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.errors import SamplingError
from fractal_mesospim_shading.flatfield.model_texts import processor_warning
from fractal_mesospim_shading.flatfield.models import dark_facts
from fractal_mesospim_shading.flatfield.plane_sample import Sample
from fractal_mesospim_shading.flatfield.sampling import (
    PlaneChoice,
    drawn_planes,
    every_plane,
)
from fractal_mesospim_shading.images.source import ModelGroup

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.flatfield.offset import OffsetEstimate

logger = logging.getLogger(__name__)

_OFFSET_PLANES = 48
"""Planes at full resolution from which the offset is estimated where nothing else is read."""

OFFSET_PIXELS = 2**23
"""Pixels that tell the offset well; more planes are read where those of the estimate hold fewer."""

_WIDE = 1 / 8
"""Uncertainty of an offset, as a share of the light, from which on a person should look at it."""

_USELESS = 1 / 2
"""The same from which on nothing can be made of it."""

_NO_DIFFERENT = 1 / 20
"""An offset that is 0 within its uncertainty, and that is sure to this share of the light, is 0."""


def find_offset(
    choice: PlaneChoice, group: ModelGroup, stack: BinnedStack | None, workers: int
) -> tuple[float, dict[str, Any]]:
    """The camera offset of a channel: measured, given, or estimated from the noise.

    Args:
        choice: of planes.
        group: of the image's model groups.
        stack: planes that were read for the flat-field; None where it was given.
        workers: boxes read at a time.

    Returns:
        Counts to subtract, 0 where a dark frame is; and what is known about them.

    Raises:
        SamplingError: the offset is less sure than half of the light.
    """
    dark, given = choice.dark.get(group.channel.label), choice.options.camera_offset
    warning = processor_warning(group, dark=dark is not None, offset=given)
    if warning:
        logger.warning("Channel %s: %s", choice.name_of(group), warning)
    if dark is not None:
        return 0.0, dark_facts(dark, "measured dark-field")
    if given is not None:
        return given, {"offset": given, "offset_from": "given"}
    if group.offset_gone:
        return 0.0, {"offset": 0.0, "offset_from": "taken away by an image processor"}
    estimate, brightness = _estimate(choice, group, stack, workers)
    value, uncertainty = estimate.value, estimate.uncertainty
    light = brightness - value
    if not uncertainty <= _USELESS * light:
        raise SamplingError(
            f"The camera offset cannot be told from the image: {value:.4g} +- {uncertainty:.2g} "
            f"counts ({estimate.method}), where the planes have {brightness:.4g} in all. Give "
            "`camera_offset` (0 if it was taken away before), or `darkfield_file`."
        )
    if uncertainty > _WIDE * light:
        logger.warning(
            "Channel %s: the camera offset is not well known (%.4g +- %.2g counts, with %.4g "
            "counts of light above it). Give `camera_offset` or `darkfield_file` for a better "
            "flat-field.",
            choice.name_of(group),
            value,
            uncertainty,
            light,
        )
    facts: dict[str, Any] = {
        "offset": value,
        "offset_uncertainty": uncertainty,
        "offset_from": f"estimated ({estimate.method})",
    }
    facts |= {
        key: estimate.details[key]
        for key in ("gain", "read_noise", "photons")
        if key in estimate.details
    }
    if value <= uncertainty <= _NO_DIFFERENT * light:
        return 0.0, {**facts, **_not_used(value, "no different from 0")}
    return value, facts


def _estimate(
    choice: PlaneChoice, group: ModelGroup, stack: BinnedStack | None, workers: int
) -> tuple[OffsetEstimate, float]:
    """The offset from the noise of the planes read, or of more where they are few.

    Returns:
        The estimate, and the brightness of the planes that the flat-field is made from, counts.
    """
    from fractal_mesospim_shading.core.flatfield.offset import Pixels, estimate_offset

    image, options = choice.image, choice.options
    # A microscope that names its image processors may have changed the noise.
    raw = image.dtype == np.uint16 and not group.processors
    pixels = Pixels(raw=raw, processed=bool(group.processors))

    def read(candidates: dict[int, list[int]], number: int) -> BinnedStack:
        refs = drawn_planes(image, candidates, 0, number, options.seed, in_pairs=True)
        sample = Sample(image, group.channel.index, 0, refs)
        no_data = options.zero_is != "data"
        return sample.read(dark=None, zero_is_no_data=no_data, workers=workers)

    every = every_plane(image, group)
    if stack is None or choice.level > 0:
        # The noise of averaged pixels says nothing about the camera.
        candidates = every if stack is None else choice.at_full_resolution(group)
        stack = read(candidates, _OFFSET_PLANES)
    estimate = estimate_offset(stack, mostly_empty=choice.mostly_empty, pixels=pixels)
    enough = -(-OFFSET_PIXELS // prod(stack.tile_shape))
    if len(stack.mean) < min(enough, sum(len(planes) for planes in every.values())):
        more = estimate_offset(read(every, enough), mostly_empty=False, pixels=pixels)
        estimate = min(estimate, more, key=lambda one: one.uncertainty)
    return estimate, float(np.nanmedian(stack.noise_mean))


def _not_used(value: float, why: str) -> dict[str, Any]:
    return {"offset": 0.0, "offset_rejected": value, "offset_rejected_because": why}
