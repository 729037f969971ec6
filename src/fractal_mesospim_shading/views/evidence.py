"""What is known of how well a correction worked, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

# Offsets agree within so many uncertainties, and contradict beyond so many.
_AGREE = 2.0
_CONTRADICT = 5.0
# Of what does no harm, what is never looked at.
_NOTHING = 0.2


@dataclass(frozen=True)
class Views:
    """How far tiles differ in shape where they show the same tissue. Fractions.

    Attributes:
        before, after: typical difference.
        floor: what noise and stage errors leave of it.
        pairs: how many overlaps were compared.
        grew: whether it is larger after the correction, beyond doubt.
    """

    before: float
    after: float
    floor: float
    pairs: int
    grew: bool = False


@dataclass(frozen=True)
class Steps:
    """Steps at the tile seams, where nothing better is known. Fractions of the brightness.

    Attributes:
        before, after: typical step.
        grew: whether it is larger after the correction, beyond doubt.
    """

    before: float
    after: float
    grew: bool = False


@dataclass(frozen=True)
class OffsetSeen:
    """What the image itself says of the counts at no light.

    Attributes:
        by: what tells it, such as `the noise`.
        apart: counts by which it is above the offset that was used.
        uncertainty: of that, one standard deviation, counts.
        independent: whether it is sure enough to contradict alone.
        counted: whether the uncertainty of the flat-field holds it already.
        harmless: counts that an offset may be off and do no harm.
    """

    by: str
    apart: float
    uncertainty: float
    independent: bool = True
    counted: bool = False
    harmless: float = 5.0

    @property
    def agrees(self) -> bool:
        """Whether both are the same within two uncertainties."""
        return abs(self.apart) <= max(_AGREE * self.uncertainty, _NOTHING * self.harmless)

    @property
    def contradicts(self) -> bool:
        """Whether they are apart by more than five uncertainties, and by what does harm."""
        clear = max(_CONTRADICT * self.uncertainty, self.harmless)
        return self.independent and abs(self.apart) > clear


@dataclass(frozen=True)
class Evidence:
    """What is known of the correction of one channel, or one side of it.

    Attributes:
        label: of the model.
        views: what overlaps say; None where none could be compared.
        unseen: why not, as a clause.
        steps: at the seams; None where there are none, or where overlaps are compared.
        offset: counts at no light that were subtracted.
        offset_uncertainty: of that, where the image itself has told it; None where it was given.
        estimated: whether the flat-field was estimated here, with that offset.
        seen: what else the image says of it.
        planes: that the flat-field rests on; None where it was not estimated here.
        uncertainty: of the flat-field, RMS, if the offset is right; None where it is not known.
        harm: error of the flat-field for each count of a wrong offset; None where not known.
        saturated: share of the pixels at the upper end of the type; None where not counted.
        copied: whether the channel holds no light and was left as it is.
    """

    label: str
    views: Views | None = None
    unseen: str = "no two tiles are known to overlap"
    steps: Steps | None = None
    offset: float = 0.0
    offset_uncertainty: float | None = None
    estimated: bool = True
    seen: tuple[OffsetSeen, ...] = ()
    planes: int | None = None
    uncertainty: float | None = None
    harm: float | None = None
    saturated: float | None = None
    copied: bool = False

    def facts(self) -> dict[str, Any]:
        """All of it as JSON; fractions are 0 to 1."""
        told = {**asdict(self), "whole_uncertainty": self.whole_uncertainty}
        known: dict[str, Any] = _finite({**told, "offset_supported": self.offset_supported})
        return known

    @property
    def doubted(self) -> OffsetSeen | None:
        """The strongest of what disagrees with the offset; None where nothing does."""
        against = [seen for seen in self.seen if not seen.agrees]
        return max(against, key=lambda s: abs(s.apart) / max(s.uncertainty, 1e-9), default=None)

    @property
    def offset_supported(self) -> bool:
        """Whether the image says that the offset is right."""
        told = self.offset_uncertainty is not None or bool(self.seen)
        return told and self.doubted is None

    @property
    def whole_uncertainty(self) -> float | None:
        """Of the flat-field with all doubts about the offset; None where it is not known."""
        doubt = self.doubted
        if doubt is None or doubt.counted:
            return self.uncertainty
        if self.harm is None:
            return None
        return math.hypot(self.uncertainty or 0.0, self.harm * abs(doubt.apart))


@dataclass(frozen=True)
class BackgroundEvidence:
    """What is known of a local background that was taken away from a channel.

    Attributes:
        label: of it.
        cut: share of the pixels that became 0 or the largest value.
        unestimated: planes of tiles that hold nothing to estimate from, and stay as they were.
        saturated: share of the pixels at the upper end of the type of the source.
    """

    label: str
    cut: float = 0.0
    unestimated: int = 0
    saturated: float = 0.0


def _finite(value: Any) -> Any:
    """A document without numbers that JSON lacks: None for unknown."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
