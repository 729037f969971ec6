"""Did it work: what is known of a local background that was taken away, in one of three words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fractal_mesospim_shading.views.evidence import BackgroundEvidence
from fractal_mesospim_shading.views.verdict import (
    HEADLINES,
    ChannelVerdict,
    Finding,
    Verdict,
    Word,
    combined,
    ordered,
    percent,
    saturated_pixels,
)

# Share of pixels that became 0 by a background: noise explains half, and a few are nobody's loss.
_CUT, _EXPLAINED = 0.01, 0.6

# Counts do not tell whether a radius fits the objects.
_OF_BACKGROUNDS: Mapping[Word, str] = {
    **HEADLINES,
    "good": "Good: no light was lost. Whether the radius fits the objects is for the eye.",
}


def judged_background(channels: Sequence[BackgroundEvidence], warnings: int = 0) -> Verdict:
    """Judge a local background that was taken away.

    It is *good* where it left all pixels in the range of the type, *wrong* where more of them fell
    below 0 than their noise explains, else, and where planes have no background, *look*.

    Args:
        channels: what is known of each.
        warnings: how many lines of the log ask for a look.
    """
    return combined([_background(own) for own in channels], warnings, _OF_BACKGROUNDS)


def _background(own: BackgroundEvidence) -> ChannelVerdict:
    text = f"{percent(own.cut)} of the pixels became 0 or the largest value"
    keep = "Set `output_type=float32` or an `output_offset`: dim objects and noise are kept then."
    if own.cut > _EXPLAINED:
        less = "The background is above what is there. Choose a larger radius, or a mask."
        found = [Finding("wrong", f"{text}: noise explains half of them at most.", less)]
    elif own.cut > _CUT:
        found = [Finding("look", f"{text}.", keep)]
    else:
        found = [Finding("good", f"{text}.")]
    if own.unestimated:
        planes = f"{own.unestimated} plane{'s' if own.unestimated != 1 else ''}"
        text = (
            f"{planes} of tiles hold nothing to estimate a background from and stay as they were."
        )
        found.append(Finding("look", text, "Make the mask, or the dilation of it, smaller."))
    found += saturated_pixels(own.saturated)
    return ordered(own.label, found)
