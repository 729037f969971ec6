"""The camera offset of a channel: where it comes from, and what the data say of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.flatfield.estimation import (
    EstimationPlan,
    drawn_planes,
    full_resolution_planes,
)
from fractal_mesospim_shading.flatfield.models import dark_facts, processor_warning
from fractal_mesospim_shading.flatfield.sampling import Sample, read_sample
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import EmptyRegions, EstimationOptions

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.flatfield.offset import OffsetEstimate
    from fractal_mesospim_shading.core.flatfield.offset_check import OffsetDoubt

logger = logging.getLogger(__name__)

_OFFSET_PLANES = 48
"""Planes at full resolution from which the offset is estimated where nothing else is read."""

OFFSET_PIXELS = 2**23
"""Pixels that tell the offset well; more planes are read where those of the estimate hold fewer."""

_WORST_OFFSET = 5.0
_WORST_SHARE = 0.1
"""Counts of uncertainty, and share of the offset, above both of which it is not used."""


def find_offset(
    image: MultitileImage,
    group: ModelGroup,
    stack: BinnedStack | None,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    workers: int,
) -> tuple[float, dict[str, Any]]:
    """The camera offset of a channel: measured, given, or estimated from the noise.

    Args:
        image: to read from.
        group: of the image's model groups.
        stack: planes that were read for the flat-field; None where it was given.
        plan: from `plan_estimation`.
        options: of the estimate.
        workers: boxes read at a time.

    Returns:
        Counts to subtract, 0 where a dark frame is; and what is known about them.
    """
    measured = group.channel.label in plan.dark
    warning = processor_warning(group, dark=measured, offset=options.camera_offset)
    if warning:
        logger.warning("%s", warning)
    if measured:
        return 0.0, dark_facts(plan.dark[group.channel.label], "measured dark-field")
    if options.camera_offset is not None:
        return options.camera_offset, {"offset": options.camera_offset, "offset_from": "given"}
    if group.offset_gone:
        return 0.0, {"offset": 0.0, "offset_from": "taken away by an image processor"}
    estimate = _estimate(image, group, stack, plan, options, workers=workers)
    facts: dict[str, Any] = {
        "offset": estimate.value,
        "offset_uncertainty": estimate.uncertainty,
        "offset_from": f"estimated ({estimate.method})",
    }
    facts |= {
        key: estimate.details[key] for key in ("gain", "read_noise") if key in estimate.details
    }
    if not estimate.uncertainty <= max(_WORST_OFFSET, _WORST_SHARE * estimate.value):
        logger.warning(
            "Channel %s: the camera offset cannot be told from the noise (%s counts); 0 is used, "
            "and the flat-field will be too flat. Give `camera_offset` or `darkfield_file`.",
            group.label,
            _number(estimate.value, estimate.uncertainty),
        )
        return 0.0, {**facts, **_not_used(estimate.value, "too uncertain")}
    if estimate.uncertainty > _WORST_OFFSET:
        logger.warning(
            "Channel %s: the camera offset is not well known (%.1f +- %.1f counts). Give "
            "`camera_offset` or `darkfield_file` for a better flat-field.",
            group.label,
            estimate.value,
            estimate.uncertainty,
        )
    if estimate.value <= estimate.uncertainty:
        return 0.0, {**facts, **_not_used(estimate.value, "no different from 0")}
    return estimate.value, facts


def _estimate(
    image: MultitileImage,
    group: ModelGroup,
    stack: BinnedStack | None,
    plan: EstimationPlan,
    options: EstimationOptions,
    *,
    workers: int,
) -> OffsetEstimate:
    """The offset from the noise of the planes read, or of more where they are few."""
    from fractal_mesospim_shading.core.flatfield.offset import estimate_offset

    def read(candidates: dict[int, list[int]], number: int) -> BinnedStack:
        refs = drawn_planes(image, candidates, 0, number, options.seed)
        sample = Sample(group.channel.index, 0, refs, image.layout)
        no_data = options.zero_is != "data"
        return read_sample(image, sample, dark=None, zero_is_no_data=no_data, workers=workers)

    if stack is None or plan.level > 0:
        # The noise of averaged pixels says nothing about the camera.
        candidates = full_resolution_planes(image, group, plan, like_estimate=stack is not None)
        stack = read(candidates, _OFFSET_PLANES)
    estimate = estimate_offset(stack, mostly_empty=isinstance(plan.scenario, EmptyRegions))
    candidates = full_resolution_planes(image, group, plan, like_estimate=False)
    wanted = -(-OFFSET_PIXELS // prod(stack.tile_shape))
    if len(stack.mean) < min(wanted, sum(len(planes) for planes in candidates.values())):
        more = estimate_offset(read(candidates, wanted), mostly_empty=False)
        estimate = min(estimate, more, key=lambda found: found.uncertainty)
    return estimate


def _not_used(value: float, why: str) -> dict[str, Any]:
    return {"offset": 0.0, "offset_rejected": value, "offset_rejected_because": why}


def _number(value: float, uncertainty: float) -> str:
    return f"{value:.1f} +- {uncertainty:.1f}" if np.isfinite(uncertainty) else "no value"


def question_offset(
    stack: BinnedStack,
    facts: Mapping[str, Any],
    flatfield: NDArray[np.float32] | None,
    *,
    dark: NDArray[np.float32] | float | None,
    full_resolution: bool,
    mostly_empty: bool,
) -> str | None:
    """What the planes of an estimate say against the offset that was not estimated from them.

    Args:
        stack: the planes, with the dark frame taken off where there is one.
        facts: from `find_offset`.
        flatfield: that was estimated; None where it could not be.
        dark: the dark frame.
        full_resolution: whether the pixels are those of the camera.
        mostly_empty: whether the planes were chosen as empty.

    Returns:
        One line; None where nothing speaks against it.
    """
    if "offset_uncertainty" in facts:
        return None
    from fractal_mesospim_shading.core.flatfield.noise import NoiseSquares
    from fractal_mesospim_shading.core.flatfield.offset import estimate_offset
    from fractal_mesospim_shading.core.flatfield.offset_check import doubt_offset

    given = float(facts["offset"])
    if dark is not None:
        stack = replace(
            stack,
            mean=stack.mean + np.float32(given),
            noise_mean=stack.noise_mean + np.float32(given),
        )
    estimate = estimate_offset(stack, mostly_empty=mostly_empty) if full_resolution else None
    doubt = doubt_offset(NoiseSquares.of(stack), given, estimate)
    if doubt is None:
        return None
    brightness = float(np.nanmedian(stack.noise_mean))
    return doubt_text(doubt, facts, harm_to_flatfield(doubt, flatfield, brightness))


def doubt_text(doubt: OffsetDoubt, facts: Mapping[str, Any], harm: str) -> str:
    """An offset, what contradicts it, what harm it does, and what to do.

    Args:
        doubt: from `doubt_offset`.
        facts: of the model that the offset belongs to.
        harm: what follows a colon.
    """
    given, origin = f"{doubt.given:.4g}", facts["offset_from"]
    if origin == "given":
        what = f"you gave a camera offset of {given} counts"
        todo = "Leave `camera_offset` out to have it estimated"
        todo += f", or give `camera_offset={doubt.noise.value:.0f}`." if doubt.noise else "."
    elif "measured" in origin:
        what = f"the dark-field given has {given} counts in the mean"
        todo = "It has to be measured with the camera settings of this image."
    else:
        what = f"a camera offset of {given} counts is taken off ({origin})"
        todo = "Give the right `camera_offset`."
    against = []
    if doubt.noise is not None:
        against.append(f"the noise says {doubt.noise.value:.1f} +- {doubt.noise.error:.1f}")
    if doubt.darkest is not None:
        found = f"{doubt.darkest.value:.1f} +- {doubt.darkest.error:.1f}"
        against.append(f"the darkest parts of the image have {found}, and no offset can be higher")
    return f"{what}, but {'; '.join(against)}: {harm}. {todo}"


def harm_to_flatfield(
    doubt: OffsetDoubt, flatfield: NDArray[np.float32] | None, brightness: float
) -> str:
    """What a wrong offset does to a flat-field that is estimated with it.

    Args:
        doubt: from `doubt_offset`.
        flatfield: that was estimated; None where it could not be.
        brightness: of the medium with the offset, counts.
    """
    if doubt.noise is None:
        return "what is as dark becomes 0, and the flat-field too steep"
    left = doubt.noise.value - doubt.given
    light = brightness - doubt.noise.value
    shape = "flat" if left > 0 else "steep"
    spread = np.inf if flatfield is None else float(np.std(flatfield))
    wrong = 100 * abs(left) * spread / light if light > 0 else np.inf
    if wrong > 100:
        return f"the flat-field comes out far too {shape}"
    return f"the flat-field comes out too {shape}, wrong by about {wrong:.2g} % (RMS)"
