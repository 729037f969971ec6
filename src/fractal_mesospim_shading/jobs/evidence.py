"""What is known of a correction, gathered for the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.seam_growth import SeamGrowth
from fractal_mesospim_shading.flatfield.models import ChannelModel, Models
from fractal_mesospim_shading.flatfield.offset_doubts import Judgement, is_given
from fractal_mesospim_shading.flatfield.sampling import PlaneChoice
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.views.evidence import Evidence, OffsetSeen, Steps, Views

# Share of the light that an offset may be off and do no harm; counts where no light is known.
_HARMLESS = 0.03
_HARMLESS_COUNTS = 5.0


@dataclass(frozen=True)
class Looked:
    """What a job has found out about its own models.

    Attributes:
        checks: of the overlaps, by label of the model.
        offsets: what the pass says of offsets that were given, the same.
        growths: of the steps at the seams, by channel label, where overlaps tell nothing.
        counts: what happened to the pixels, by the labels of results.
    """

    checks: Mapping[str, OverlapCheck] = field(default_factory=dict)
    offsets: Mapping[str, Judgement] = field(default_factory=dict)
    growths: Mapping[str, SeamGrowth] = field(default_factory=dict)
    counts: Mapping[str, PixelCounts] = field(default_factory=dict)


def gathered(
    choices: Sequence[PlaneChoice], models: Sequence[Models], looked: Looked
) -> dict[str, Evidence]:
    """What is known of each model, by its label in results."""
    found = {}
    for choice, own in zip(choices, models, strict=True):
        for group in choice.image.model_groups:
            label = choice.prefix + group.label
            channel = choice.prefix + group.channel.label
            alone = len(choice.image.layout.tiles) < 2
            found[label] = _evidence(label, channel, own[group.label], looked, alone=alone)
    return found


def _evidence(
    label: str, channel: str, model: ChannelModel, looked: Looked, *, alone: bool
) -> Evidence:
    """What is known of one model.

    Args:
        label: of it.
        channel: of the image, which may hold several sides.
        model: itself.
        looked: all that was found out.
        alone: whether there is but one tile.
    """
    facts = {**model.facts.get("origin", {}).get("facts", {}), **model.facts}
    check = looked.checks.get(label)
    counts = looked.counts.get(label, looked.counts.get(channel))
    uncertainty = facts.get("relative_uncertainty", facts.get("relative_uncertainty_of_offset"))
    brightness = facts.get("brightness")
    spread = float(np.std(model.profile.flatfield))
    return Evidence(
        label,
        views=_views(check),
        unseen=_unseen(check, alone=alone),
        steps=_steps(looked.growths.get(channel)),
        offset=float(facts.get("offset", model.offset)),
        offset_uncertainty=None if is_given(model) else facts.get("offset_uncertainty"),
        estimated=model.facts.get("origin") is None and "planes_used" in facts,
        seen=(*_by_overlaps(check, facts), *_by_noise(model.facts, looked.offsets.get(label))),
        planes=facts.get("planes_used"),
        uncertainty=uncertainty,
        harm=spread / brightness if brightness else None,
        saturated=None if counts is None else counts.saturated / max(counts.pixels, 1),
        copied=not model.corrects,
    )


def _views(check: OverlapCheck | None) -> Views | None:
    if check is None or check.after is None or not check.measured:
        return None
    before, after = check.before.whole, check.after.whole
    number = len(check.before.pairs)
    return Views(before.median, after.median, after.noise_floor, number, grew=check.grew)


def _unseen(check: OverlapCheck | None, *, alone: bool) -> str:
    if alone:
        return "there is one tile"
    return "no two tiles are known to overlap" if check is None else check.why_unmeasured


def _steps(growth: SeamGrowth | None) -> Steps | None:
    return None if growth is None else Steps(growth.before, growth.after, grew=growth.grew)


def _by_overlaps(check: OverlapCheck | None, facts: Mapping[str, Any]) -> list[OffsetSeen]:
    if check is None or check.seen_in_result or not check.pedestal.known:
        return []
    found = check.pedestal
    both = float(np.hypot(found.uncertainty, facts.get("offset_uncertainty") or 0.0))
    harmless = _HARMLESS * found.light
    return [OffsetSeen("tissue in overlaps", found.value, both, harmless=harmless)]


def _by_noise(facts: Mapping[str, Any], judged: Judgement | None) -> list[OffsetSeen]:
    """From the planes of the estimate, or else from the pixels of the pass."""
    value, error = facts.get("offset_seen"), facts.get("offset_seen_uncertainty")
    doubted = bool(facts.get("offset_doubted"))
    if (value is None or error is None) and judged is not None and judged.seen is not None:
        value, error = judged.seen
        doubted = judged.text is not None
    if value is None or error is None:
        return []
    brightness = facts.get("brightness")
    harmless = _HARMLESS_COUNTS if brightness is None else _HARMLESS * brightness
    return [
        OffsetSeen(
            "the noise",
            float(value) - float(facts["offset"]),
            float(error),
            independent=doubted,
            counted="level" in facts,
            harmless=harmless,
        )
    ]
