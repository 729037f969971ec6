"""Did it work: what is known of a correction, judged in one of three words, and what to do.

Each thing that is known speaks for itself, and the worst decides. What is not known is never good.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fractal_mesospim_shading.views.evidence import Evidence, OffsetSeen

Word = Literal["good", "look", "wrong"]

_ORDER: tuple[Word, ...] = ("good", "look", "wrong")

# A residual is as good as can be told up to this multiple of its floor, and good below the second.
_AT_FLOOR = 2.0
_GOOD_RESIDUAL = 0.02
# Planes that tell a flat-field.
_ENOUGH_PLANES = 8
# Uncertainty of a flat-field, a fraction, that a person should know of.
_UNSURE = 0.02
# Share of saturated pixels from which on that is said.
_SATURATED = 0.001

HEADLINES: Mapping[Word, str] = {
    "good": "Good: it worked.",
    "look": "Look: whether it worked has to be seen by eye.",
    "wrong": "Wrong: this is not to be used as it is.",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is known.

    Attributes:
        word: what it says alone.
        text: a sentence.
        todo: what to do about it; empty where nothing.
        warned: whether the log has warned of it before the verdict.
    """

    word: Word
    text: str
    todo: str = ""
    warned: bool = False

    def facts(self) -> dict[str, str]:
        """What it says, as JSON."""
        return {"word": self.word, "text": self.text, "todo": self.todo}


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

    @property
    def decisive(self) -> tuple[Finding, ...]:
        """What makes it what it is."""
        return tuple(finding for finding in self.findings if finding.word == self.word)

    @property
    def unwarned(self) -> tuple[str, ...]:
        """What of that no warning has said."""
        return tuple(finding.text for finding in self.decisive if not finding.warned)


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
            {"word": own.word, "label": own.label, "findings": [f.facts() for f in own.findings]}
            for own in self.channels
        ]
        return {
            "word": self.word,
            "headline": self.headline,
            "channels": channels,
            "todo": list(self.todo),
        }

    def lines(self) -> tuple[str, ...]:
        """The verdict, its reasons by channel, what to do: a line each."""
        reasons = [
            f"{own.label}: {_capital(finding.text)}"
            for own in self.channels
            for finding in own.decisive
        ]
        return (self.headline, *reasons, *self.todo)

    def log_lines(self) -> tuple[tuple[int, str], ...]:
        """The same for a log, each with its level.

        That a result is wrong is a warning, with those of its reasons that no warning has said
        before; what warnings have said is not said again.
        """
        if self.word != "wrong":
            return tuple((logging.INFO, line) for line in self.lines())
        wrong = [own for own in self.channels if own.word == "wrong"]
        reasons = [
            f"{own.label}: {' '.join(_capital(text) for text in own.unwarned)}"
            for own in wrong
            if own.unwarned
        ]
        said = ", ".join(own.label for own in wrong if not own.unwarned)
        if said:
            reasons.append(f"{said}: see the warnings above.")
        return (
            (logging.WARNING, " ".join((self.headline, *reasons))),
            *((logging.INFO, line) for line in self.todo),
        )


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
    headlines: Mapping[Word, str] = HEADLINES,
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


def ordered(label: str, found: Iterable[Finding]) -> ChannelVerdict:
    """What is to be said of a channel, by all that was found, in any order."""
    worst_first = sorted(found, key=lambda finding: -_ORDER.index(finding.word))
    return ChannelVerdict(label, tuple(worst_first))


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
        *saturated_pixels(own.saturated),
    ]
    return ordered(own.label, found)


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
        return Finding("wrong", f"{text}: more than before.", harm, warned=True)
    floor = f"noise and stage errors give {percent(views.floor)}"
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
        return Finding("wrong", f"{text}: more than before.", harm, warned=True)
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
            again = f"Do it again with the right offset. {measure}"
            findings.append(Finding("wrong", text, again, warned=True))
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


def saturated_pixels(share: float | None) -> list[Finding]:
    """What a share of saturated pixels says; nothing where it is small or not known."""
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
