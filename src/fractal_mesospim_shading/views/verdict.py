"""Did it work: what is known of a correction, judged in one of three words, and what to do.

Each thing that is known speaks for itself, and the worst decides. What is not known is never good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fractal_mesospim_shading.views.evidence import BackgroundEvidence, Evidence, OffsetSeen

Word = Literal["good", "look", "wrong"]

_ORDER: tuple[Word, ...] = ("good", "look", "wrong")

# A residual is as good as can be told up to this multiple of its floor, and good below the second.
_AT_FLOOR = 2.0
_GOOD_RESIDUAL = 0.02
# Planes that tell a flat-field.
_ENOUGH_PLANES = 8
# Uncertainty of a flat-field, a fraction, that a person should know of.
_UNSURE = 0.02
# Share of pixels that became 0 by a background: noise explains half, and a few are nobody's loss.
_CUT, _EXPLAINED = 0.01, 0.6
# Share of saturated pixels from which on that is said.
_SATURATED = 0.001

_HEADLINES: Mapping[Word, str] = {
    "good": "Good: it worked.",
    "look": "Look: whether it worked has to be seen by eye.",
    "wrong": "Wrong: this is not to be used as it is.",
}

# Counts do not tell whether a radius fits the objects.
_OF_BACKGROUNDS: Mapping[Word, str] = {
    **_HEADLINES,
    "good": "Good: no light was lost. Whether the radius fits the objects is for the eye.",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is known.

    Attributes:
        word: what it says alone.
        text: a sentence.
        todo: what to do about it; empty where nothing.
    """

    word: Word
    text: str
    todo: str = ""


@dataclass(frozen=True)
class ChannelVerdict:
    """What is to be said of one channel.

    Attributes:
        label: of it.
        findings: the worst first.
    """

    label: str
    findings: tuple[Finding, ...]

    @property
    def word(self) -> Word:
        """That of the worst."""
        return worst(finding.word for finding in self.findings)


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a job.

    Attributes:
        word: `good`, `look` or `wrong`.
        headline: in plain words.
        channels: of each, why.
        todo: what to do, each once.
    """

    word: Word
    headline: str
    channels: tuple[ChannelVerdict, ...]
    todo: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """All of it as JSON."""
        channels = [
            {"word": own.word, "label": own.label, "findings": [asdict(f) for f in own.findings]}
            for own in self.channels
        ]
        return {
            "word": self.word,
            "headline": self.headline,
            "channels": channels,
            "todo": list(self.todo),
        }

    def lines(self) -> tuple[str, ...]:
        """For the log: the verdict, its reasons by channel, what to do."""
        reasons = [
            f"{own.label}: {' '.join(_capital(f.text) for f in self._decisive(own))}"
            for own in self.channels
        ]
        return (self.headline, *reasons, *self.todo)

    def _decisive(self, own: ChannelVerdict) -> list[Finding]:
        """Of a channel, what makes it what it is."""
        return [finding for finding in own.findings if finding.word == own.word]


def worst(words: Iterable[Word]) -> Word:
    """The worst of some words; `good` for none."""
    return max(words, key=_ORDER.index, default="good")


def judged(channels: Sequence[Evidence], warnings: int = 0) -> Verdict:
    """Judge a correction.

    It is *good* where tiles agree as well as can be told or to 2 %, the offset is what the image
    says within two uncertainties, and eight planes or more tell the flat-field; *wrong* where
    tiles differ more than before, or the offset contradicts the image by more than five
    uncertainties; else, and where nothing could be measured, *look*.

    Args:
        channels: what is known of each.
        warnings: how many lines of the log ask for a look.
    """
    return combined([channel_verdict(own) for own in channels], warnings)


def combined(
    verdicts: Sequence[ChannelVerdict],
    warnings: int = 0,
    headlines: Mapping[Word, str] = _HEADLINES,
) -> Verdict:
    """The verdict of a job from those of its channels; a line that asks for a look is never good.

    Args:
        verdicts: of the channels.
        warnings: see `judged`.
        headlines: by word.
    """
    words = [own.word for own in verdicts]
    if warnings:
        words.append("look")
    word = worst(words)
    todo = [f.todo for own in verdicts for f in own.findings if f.word == own.word and f.todo]
    if warnings:
        todo.append("Read what the log asks to look at.")
    return Verdict(word, headlines[word], tuple(verdicts), tuple(dict.fromkeys(todo)))


def channel_verdict(own: Evidence) -> ChannelVerdict:
    """Judge one channel by all that is known of it."""
    if own.copied:
        nothing = Finding("look", "it holds no light and was left as it is.")
        return ChannelVerdict(own.label, (nothing,))
    found = [
        _views(own),
        *_offset(own),
        *_planes(own),
        *_uncertainty(own),
        *_saturated_pixels(own.saturated),
    ]
    ordered = sorted(found, key=lambda finding: -_ORDER.index(finding.word))
    return ChannelVerdict(own.label, tuple(ordered))


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
    found += _saturated_pixels(own.saturated)
    ordered = sorted(found, key=lambda finding: -_ORDER.index(finding.word))
    return ChannelVerdict(own.label, tuple(ordered))


def _views(own: Evidence) -> Finding:
    harm = (
        "Do not use the result. The flat-field does not fit this image: it may be of another "
        "channel, objective or side, turned or mirrored, or made from tiles that hold sample."
    )
    views = own.views
    if views is None:
        return _steps(own, harm)
    text = (
        f"the same tissue in two tiles differs by {percent(views.before)} before and "
        f"{percent(views.after)} after"
    )
    if views.grew:
        return Finding("wrong", f"{text}: more than before.", harm)
    floor = f"noise and stage errors alone give {percent(views.floor)}"
    if views.after <= max(_AT_FLOOR * views.floor, _GOOD_RESIDUAL):
        return Finding("good", f"{text} ({floor}).")
    return Finding(
        "look",
        f"{text}, where {floor}.",
        "Look at the map of the overlaps: where single pairs are bad, the stage or the sample "
        "has moved; where all are, estimate from other tiles or planes, or set `overlap_refine`.",
    )


def _steps(own: Evidence, harm: str) -> Finding:
    """Where overlaps tell nothing."""
    if own.steps is None:
        return Finding(
            "look",
            f"nothing tells how good the correction is: {own.unseen}.",
            "Look at the picture before and after: no step should be left where tiles meet.",
        )
    text = (
        f"the step where tiles meet was {percent(own.steps.before)} and is "
        f"{percent(own.steps.after)}"
    )
    if own.steps.grew:
        return Finding("wrong", f"{text}: more than before.", harm)
    return Finding(
        "look",
        f"{text}; that is weaker evidence than overlaps, of which none can be compared "
        f"({own.unseen}).",
        "Look at the picture before and after: no step should be left where tiles meet.",
    )


def _offset(own: Evidence) -> list[Finding]:
    used = f"{own.offset:.1f} counts at no light were taken off"
    measure = "Measure a dark frame, or leave `camera_offset` out to have it estimated."
    findings = []
    for seen in own.seen:
        says = f"{seen.by} says {own.offset + seen.apart:.1f} +- {seen.uncertainty:.1f}"
        if seen.contradicts:
            text = f"{used}, but {says}: {_harm_of_offset(own, seen)}."
            findings.append(Finding("wrong", text, f"Do it again with the right offset. {measure}"))
        elif seen.agrees:
            findings.append(Finding("good", f"{used}, and {says}."))
        else:
            findings.append(Finding("look", f"{used}, while {says}.", measure))
    if findings:
        return findings
    if own.offset_uncertainty is not None:
        text = (
            f"the noise of the image says that {own.offset:.1f} +- {own.offset_uncertainty:.1f} "
            "counts are no light."
        )
        return [Finding("good", text)]
    return [Finding("look", f"{used}; nothing in the image tells whether that is right.", measure)]


def _harm_of_offset(own: Evidence, seen: OffsetSeen) -> str:
    if own.estimated:
        return f"the flat-field is too {'flat' if seen.apart > 0 else 'steep'}"
    return f"what is dim comes out too {'bright' if seen.apart > 0 else 'dark'}"


def _planes(own: Evidence) -> list[Finding]:
    if own.planes is None:
        return []
    number = f"{own.planes} plane{'s' if own.planes != 1 else ''}"
    if own.planes >= _ENOUGH_PLANES:
        return [Finding("good", f"the flat-field rests on {number}.")]
    return [
        Finding(
            "look",
            f"the flat-field rests on {number}; expected {_ENOUGH_PLANES} at least.",
            "Choose more tiles or planes without sample.",
        )
    ]


def _uncertainty(own: Evidence) -> list[Finding]:
    whole = own.whole_uncertainty
    if whole is None or whole <= _UNSURE:
        return []
    text = f"the flat-field is sure to {percent(whole)} only."
    return [Finding("look", text, "Use more planes, or a measured offset.")]


def _saturated_pixels(share: float | None) -> list[Finding]:
    if share is None or share < _SATURATED:
        return []
    text = f"{percent(share)} of the pixels are saturated: their true light is not known."
    return [Finding("look", text, "Image with less light or shorter exposure.")]


def percent(fraction: float) -> str:
    """A fraction as people read it, two digits."""
    value = 100 * fraction
    return f"{value:.2g} %" if value < 10 else f"{value:.0f} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
