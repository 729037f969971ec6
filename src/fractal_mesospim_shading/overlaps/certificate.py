"""The certificate of a correction, by the overlaps of the image: numbers, and plain words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fractal_mesospim_shading.core.overlaps.observations import OverlapPair
from fractal_mesospim_shading.core.overlaps.observing import Rejected
from fractal_mesospim_shading.core.overlaps.pedestal import LEAST_PAIRS, Pedestal, pedestal
from fractal_mesospim_shading.core.overlaps.residual import (
    PairResidual,
    Residual,
    Taken,
    pair_residuals,
    summary,
)
from fractal_mesospim_shading.messages import counted
from fractal_mesospim_shading.overlaps.sampling import OverlapEvidence

# A residual has grown beyond so many of its standard deviations, and this fraction.
_SIGMAS = 3.0
_LEAST_GROWTH = 0.005
# Counts of the offset are doubted beyond so many standard deviations, and this share of the dimmest
# light.
_OFFSET_SIGMAS = 4.0
_LEAST_SHARE = 0.03
# A flat-field is as good as the overlaps can tell up to this multiple of the floor.
_AT_FLOOR = 1.3


@dataclass(frozen=True)
class Views:
    """How the tiles of one image differ where they show the same tissue.

    Attributes:
        whole: of all pairs.
        along: of those that are neighbours along `y`, and along `x`.
        pairs: of each pair, in the order of the numbers.
    """

    whole: Residual
    along: Mapping[str, Residual]
    pairs: tuple[PairResidual, ...]

    @classmethod
    def of(
        cls, pairs: Sequence[OverlapPair], taken: Taken | None = None, left: float = 0.0
    ) -> Views:
        """Those of some pairs; arguments as for `pair_residuals`."""
        each = pair_residuals(pairs, taken, left)
        along = {
            axis: summary([pair for pair in each if pair.axis == axis])
            for axis in "yx"
            if any(pair.axis == axis for pair in each)
        }
        return cls(summary(each), along, each)

    def facts(self) -> dict[str, float | None]:
        """Its numbers in percent; None where there is none."""
        return _facts(self.whole)


@dataclass(frozen=True)
class OverlapCheck:
    """What the overlaps say of the correction of one channel and illumination side.

    Attributes:
        label: of the channel, with the side where models are kept by it.
        side: of the illumination, None where it is not known.
        before: of the image.
        after: once corrected; None where nothing was to compare with.
        pedestal: counts without light that are left under the light, by the overlaps.
        seen_in_result: whether that was seen in a result, where a flat-field has changed these
            counts: it says then whether there are any, not how many.
        rejected: pairs of tiles that could not be compared.
    """

    label: str
    side: str | None
    before: Views
    after: Views | None
    pedestal: Pedestal
    seen_in_result: bool = False
    rejected: tuple[Rejected, ...] = ()

    @classmethod
    def of_models(
        cls,
        label: str,
        side: str | None,
        seen: OverlapEvidence,
        taken: Taken | None,
    ) -> OverlapCheck:
        """From the image alone: what models would make of it, or what it is.

        A correction does to each pixel what its model says, so the corrected views follow from
        those of the image.
        """
        left = pedestal(seen.pairs, seen.dark_structure)
        before = Views.of(seen.pairs, None, left.supported)
        after = None if taken is None else Views.of(seen.pairs, taken, left.supported)
        return cls(label, side, before, after, left, rejected=seen.rejected)

    @classmethod
    def of_result(
        cls,
        label: str,
        side: str | None,
        raw: OverlapEvidence,
        done: OverlapEvidence,
    ) -> OverlapCheck:
        """From an image and its result, of which pairs that both show are compared."""
        both = {(p.first, p.second) for p in raw.pairs} & {(p.first, p.second) for p in done.pairs}
        views, lefts = [], []
        # Of a result nobody asks how many counts are left: what a dark frame adds does not matter.
        for seen, structure in ((raw, raw.dark_structure), (done, 0.0)):
            common = [pair for pair in seen.pairs if (pair.first, pair.second) in both]
            left = pedestal(common, structure)
            views.append(Views.of(common, None, left.supported))
            lefts.append(left)
        rejected = (*raw.rejected, *done.rejected)
        return cls(label, side, views[0], views[1], lefts[1], True, rejected)

    @property
    def measured(self) -> bool:
        """Whether any pair could be compared."""
        return bool(self.before.pairs)

    @property
    def why_unmeasured(self) -> str:
        """Why no pair could be compared, as a clause."""
        reasons = "; ".join(dict.fromkeys(pair.reason for pair in self.rejected))
        return f"{self._unusable} ({reasons})" if reasons else self._unusable

    @property
    def _unusable(self) -> str:
        if not self.rejected:
            return "no two tiles overlap"
        number = len({(pair.first, pair.second) for pair in self.rejected})
        none = "the one overlap cannot" if number == 1 else f"none of {number} overlaps can"
        return f"{none} be used"

    @property
    def says_enough(self) -> bool:
        """Whether at least half of the overlaps could be compared."""
        return self.measured and len(self.before.pairs) >= len(self.rejected)

    @property
    def grew(self) -> bool:
        """Whether the correction made the views differ more, beyond doubt."""
        if self.after is None or not self.measured:
            return False
        before, after = self.before.whole, self.after.whole
        error = math.hypot(before.error, after.error)
        growth = after.median - before.median
        return bool(growth > max(_SIGMAS * error, _LEAST_GROWTH))

    @property
    def offset_doubted(self) -> bool:
        """Whether the overlaps show counts without light under the light, beyond doubt."""
        found = self.pedestal
        doubt = max(_OFFSET_SIGMAS * found.uncertainty, _LEAST_SHARE * found.light)
        return bool(found.known and abs(found.value) > doubt)

    @property
    def offset_right(self) -> bool | None:
        """Whether the offset was right; None where the overlaps cannot tell."""
        found = self.pedestal
        if self.after is None or not found.known:
            return None
        if found.fits:
            return True
        return False if self.offset_doubted else None

    def facts(self) -> dict[str, Any]:
        """All of it as JSON."""
        along = {}
        for axis, before in self.before.along.items():
            after = None if self.after is None else _facts(self.after.along[axis])
            along[axis] = {"before": _facts(before), "after": after}
        last = self._views[-1]
        known = self.pedestal.known
        told = known and not self.seen_in_result
        return {
            "label": self.label,
            "side": self.side,
            "pairs": len(self.before.pairs),
            "before": self.before.facts(),
            "after": None if self.after is None else self.after.facts(),
            "uncertainty_percent": _percent(last.whole.error),
            "along": along,
            "rejected": [
                {"tiles": [pair.first, pair.second], "reason": pair.reason}
                for pair in self.rejected
            ],
            "offset": {
                "known": known,
                "right": self.offset_right,
                "counts_left": _rounded(self.pedestal.value) if told else None,
                "uncertainty": _rounded(self.pedestal.uncertainty) if told else None,
            },
            "map": [_pair_facts(self, number) for number in range(len(self.before.pairs))],
            "says": list(self.lines()),
        }

    def rows(self) -> tuple[tuple[str, str], ...]:
        """For a report: what was measured, as names and values."""
        if not self.measured:
            return (("Same tissue in two tiles", f"not compared: {self.why_unmeasured}"),)
        rows = [("Same tissue in two tiles differs by", self._differ())]
        for axis in self.before.along:
            values = [views.along[axis].median for views in self._views]
            rows.append((f"Neighbours along {axis} differ by", _changed(values)))
        gains = [views.whole.gain for views in self._views]
        rows.append(("Tiles differ in brightness by", _changed(gains)))
        rows.append(("Camera offset, by overlaps", self._offset_words()))
        return tuple(rows)

    @property
    def _views(self) -> tuple[Views, ...]:
        return (self.before,) if self.after is None else (self.before, self.after)

    def lines(self) -> tuple[str, ...]:
        """What it means, in plain words, short sentences that say one thing each."""
        if not self.measured:
            line = f"overlaps say nothing of the correction: {self._unusable}."
            # What follows in brackets is a number of that pair.
            reasons = Counter(pair.reason.partition(" (")[0] for pair in self.rejected)
            return (line, *(f"Mostly because: {why}." for why, _ in reasons.most_common(1)))
        last, number = self._views[-1].whole, counted(len(self.before.pairs), "overlap")
        lines = [f"the same tissue in two tiles differs by {self._medians()}, in {number}."]
        if self.after is not None and last.median <= _AT_FLOOR * last.noise_floor:
            lines.append("That is as good as the overlaps can tell.")
        lines.append(f"Noise and stage errors alone give {_words(last.noise_floor)}.")
        lines.append(f"Camera offset: {self._offset_words()}.")
        return tuple(lines)

    def details(self) -> tuple[str, ...]:
        """What else was measured, likewise."""
        if not self.measured:
            return ()
        return (
            f"A tenth of the places differs by more than {self._p90()}.",
            f"The uncertainty of the difference is {self._unsure()}.",
        )

    def _differ(self) -> str:
        return (
            f"{self._medians()} (a tenth of the places by more than {self._p90()}; "
            f"{counted(len(self.before.pairs), 'overlap')}; uncertainty {self._unsure()}; noise "
            f"and stage errors leave {_words(self._views[-1].whole.noise_floor)})"
        )

    def _medians(self) -> str:
        return _changed([views.whole.median for views in self._views])

    def _p90(self) -> str:
        return _changed([views.whole.p90 for views in self._views])

    def _unsure(self) -> str:
        error = self._views[-1].whole.error
        return _words(error) if math.isfinite(error) else "not known"

    def _offset_words(self) -> str:
        found = self.pedestal
        if not found.known:
            why = "there is too little shading in them"
            if not found.enough_tissue:
                why = f"fewer than {LEAST_PAIRS} hold tissue three times as bright as the medium"
            return f"overlaps cannot tell: {why}"
        counts = f"{found.value:.1f} +- {found.uncertainty:.1f} counts"
        if self.after is None:
            return f"by the overlaps, {counts} under the light are no light"
        if found.fits:
            return f"right, as far as the overlaps can tell ({counts} are left)"
        if not self.offset_doubted:
            return f"not far off, but perhaps not right: by the overlaps, {counts} are left"
        if self.seen_in_result:
            return "wrong: by the overlaps, counts of the result are no light"
        if found.value > 0:
            return f"too small by {counts}: so many are left under the light, and are no light"
        return f"too large by {-found.value:.1f} +- {found.uncertainty:.1f} counts"


def _pair_facts(check: OverlapCheck, number: int) -> dict[str, Any]:
    before = check.before.pairs[number]
    after = None if check.after is None else check.after.pairs[number]
    return {
        "tiles": [before.first, before.second],
        "axis": before.axis,
        "before_percent": _percent(before.shape),
        "after_percent": None if after is None else _percent(after.shape),
        "gain_before_percent": _percent(before.gain),
        "gain_after_percent": None if after is None else _percent(after.gain),
    }


def _facts(residual: Residual) -> dict[str, float | None]:
    return {
        "median_percent": _percent(residual.median),
        "p90_percent": _percent(residual.p90),
        "noise_floor_percent": _percent(residual.noise_floor),
        "gain_percent": _percent(residual.gain),
    }


def _percent(fraction: float) -> float | None:
    return _rounded(100 * fraction)


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _words(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 0.1 else f"{100 * fraction:.1f} %"


def _changed(values: Sequence[float]) -> str:
    """One number, or those before and after."""
    words = [_words(value) for value in values]
    return words[0] if len(words) == 1 else f"{words[0]} before, {words[1]} after"
