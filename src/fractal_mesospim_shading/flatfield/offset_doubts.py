"""What the data say against a camera offset that was not estimated from them.

It is held against the planes of the estimate, and at the end of a pass over the image against the
noise that was taken on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.flatfield.binning import BinnedStack
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.images.models.frames import DarkFrame

if TYPE_CHECKING:
    from fractal_mesospim_shading.core.flatfield.offset import OffsetEstimate
    from fractal_mesospim_shading.core.flatfield.offset_check import OffsetDoubt

_MOST_UNEXPLAINED = 0.01
"""Share of pixels below the offset beyond what noise explains."""

_MOST_BELOW = 0.5
"""Share of the pixels of an image below the offset that noise explains at most."""

_LEAST_LOST = 0.001
"""Share of pixels that became 0 from which on that is said."""


@dataclass(frozen=True)
class Question:
    """What planes say of an offset that was not estimated from them.

    Attributes:
        text: one line that speaks against it; None where the difference proves nothing.
        wrong: what a flat-field is wrong by if they are right, RMS, as a fraction; infinite
            where that cannot be said.
        facts: what they say themselves, for the model; nothing where they cannot tell.
    """

    text: str | None
    wrong: float
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """What a whole pass says of an offset.

    Attributes:
        text: one line that speaks against it; None where nothing does.
        seen: the offset that the pixels themselves tell, with its standard deviation, counts; None
            where they were asked before, or cannot tell.
    """

    text: str | None = None
    seen: tuple[float, float] | None = None


def question_offset(
    choice: PlaneChoice,
    stack: BinnedStack,
    facts: Mapping[str, Any],
    flatfield: NDArray[np.float32] | None,
    dark: DarkFrame | None,
) -> Question | None:
    """What the planes of an estimate say against the offset that was not estimated from them.

    Args:
        choice: of planes.
        stack: the planes, with the dark frame taken off where there is one.
        facts: from `find_offset`.
        flatfield: that was estimated; None where it could not be.
        dark: the dark frame.

    Returns:
        None where they cannot tell, or told the offset themselves.
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
    # The noise of averaged pixels says nothing about the camera.
    whole = choice.level == 0
    estimate = estimate_offset(stack, mostly_empty=choice.mostly_empty) if whole else None
    doubt = doubt_offset(NoiseSquares.of(stack), given, estimate)
    brightness = float(np.nanmedian(stack.noise_mean))
    level = _seen(doubt, estimate)
    seen: dict[str, Any] = {}
    if level is not None:
        seen = {"offset_seen": level[0], "offset_seen_uncertainty": level[1]}
        seen["offset_doubted"] = doubt is not None
    if doubt is not None:
        harm = harm_to_flatfield(doubt, flatfield, brightness)
        wrong = np.inf if level is None else _wrong(level[0], given, flatfield, brightness)
        return Question(doubt_text(doubt, facts, harm), wrong, seen)
    if estimate is None:
        return None
    if abs(estimate.value - given) <= 2 * estimate.uncertainty:
        return Question(None, 0.0, seen)
    return Question(None, _wrong(estimate.value, given, flatfield, brightness), seen)


def _seen(doubt: OffsetDoubt | None, estimate: OffsetEstimate | None) -> tuple[float, float] | None:
    """The offset that planes or pixels tell, with its standard deviation; None for none."""
    if doubt is not None:
        level = doubt.noise or doubt.darkest
        return None if level is None else (level.value, level.error)
    if estimate is None or not np.isfinite(estimate.uncertainty):
        return None
    return estimate.value, estimate.uncertainty


def _wrong(
    right: float, given: float, flatfield: NDArray[np.float32] | None, brightness: float
) -> float:
    """RMS error of a flat-field that was estimated with another offset, as a fraction."""
    light = brightness - right
    if flatfield is None or light <= 0:
        return float("inf")
    return abs(right - given) * float(np.std(flatfield)) / light


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
        darkest = f"{doubt.darkest.value:.1f} +- {doubt.darkest.error:.1f}"
        against.append(
            f"the darkest parts of the image have {darkest}, and no offset can be higher"
        )
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
    shape = "flat" if doubt.noise.value > doubt.given else "steep"
    wrong = 100 * _wrong(doubt.noise.value, doubt.given, flatfield, brightness)
    if wrong > 100:
        return f"the flat-field comes out far too {shape}"
    return f"the flat-field comes out too {shape}, wrong by about {wrong:.2g} % (RMS)"


def is_given(model: ChannelModel) -> bool:
    """Whether the offset of a model was not estimated from the image that it corrects."""
    return model.corrects and (
        model.facts.get("origin") is not None or "offset_uncertainty" not in model.facts
    )


def judge(model: ChannelModel, texts: Sequence[str], counts: PixelCounts) -> Judgement:
    """What the pixels of a pass say of its offset.

    Args:
        model: that the pixels were corrected with.
        texts: the noise found on the way, in an order that is always the same.
        counts: of all pixels of its channel.
    """
    lost = counts.clipped_low / max(counts.pixels, 1)
    found = _judged(model, texts, lost)
    if found.text is not None or lost <= _MOST_BELOW + _MOST_UNEXPLAINED:
        return found
    text = (
        f"{100 * lost:.0f} % of all pixels are darker than the camera offset of "
        f"{model.facts['offset']:.4g} counts and became 0; noise explains half at most. Give the "
        "right `camera_offset` or `darkfield_file`."
    )
    return replace(found, text=text)


def lost_to_noise(counts: PixelCounts) -> str | None:
    """A plain line about pixels that noise took below the offset; None where they are few."""
    lost = counts.clipped_low / max(counts.pixels, 1)
    if lost < _LEAST_LOST:
        return None
    return (
        f"{100 * lost:.2g} % of the pixels are darker than the camera offset, as their noise "
        "explains, and became 0. `output_offset` keeps them."
    )


def _judged(model: ChannelModel, texts: Sequence[str], lost: float) -> Judgement:
    if not texts:
        return Judgement()
    from fractal_mesospim_shading.core.flatfield.offset import offset_of_squares
    from fractal_mesospim_shading.core.flatfield.offset_check import (
        NoisePiece,
        doubt_offset,
        joined,
        shifted,
        unexplained_below,
    )

    facts = model.facts
    given = float(facts["offset"])
    squares, below = joined([NoisePiece.from_text(text) for text in texts])
    raw = shifted(squares, given)
    # The noise of the planes of an estimate at full resolution has been looked at.
    looked = facts.get("level") == 0
    estimate = None if looked else offset_of_squares(raw)
    doubt = doubt_offset(raw, given, estimate)
    seen = _seen(doubt, estimate)
    if doubt is not None:
        if "level" in facts:
            brightness = float(np.nanmedian(raw.noise_mean))
            harm = harm_to_flatfield(doubt, model.profile.flatfield, brightness)
        else:
            left = 0.0 if doubt.noise is None else doubt.noise.value - given
            harm = _harm_to_pixels(model, left, lost)
        return Judgement(doubt_text(doubt, facts, harm), seen)
    unexplained = unexplained_below(squares, below)
    if unexplained <= _MOST_UNEXPLAINED:
        return Judgement(None, seen)
    text = (
        f"{100 * unexplained:.0f} % of the pixels are darker than the camera offset of {given:.4g} "
        "counts beyond what their noise explains. Give the right `camera_offset` or "
        "`darkfield_file`."
    )
    return Judgement(text, seen)


def _harm_to_pixels(model: ChannelModel, left: float, lost: float) -> str:
    """What a wrong offset does to the pixels."""
    if left <= 0:
        return f"what is as dark is too dark now, and {100 * lost:.3g} % of the pixels became 0"
    dim, bright = model.profile.typical_range
    low, high = left / bright, left / dim
    return (
        f"{left:.0f} counts are left under all pixels, and the flat-field makes {low:.0f} to "
        f"{high:.0f} of them"
    )
