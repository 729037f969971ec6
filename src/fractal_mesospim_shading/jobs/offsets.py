"""The offsets of a job: which are looked at on the way, and what is said of them at its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.schedule import PartOfJob
from fractal_mesospim_shading.flatfield.finding import Models
from fractal_mesospim_shading.flatfield.offset_look import (
    OffsetLook,
    is_given,
    judge,
    lost_to_noise,
    offset_look,
)
from fractal_mesospim_shading.jobs.work import Part, Work

logger = logging.getLogger(__name__)


def planned_look(work: Work, part: Part, models: Models) -> OffsetLook | None:
    """The planes of a part that tell whether a given offset fits; None where none was given."""
    given = {label for label in part.models or models if is_given(models[label])}
    if not given:
        return None
    sharing = [p for p in work.parts if p.choice == part.choice and p.models == part.models]
    return offset_look(part.plan.source, given, len(sharing))


def judge_offsets(
    work: Work, models: Sequence[Models], job: Job, counts: Mapping[str, PixelCounts]
) -> None:
    """Say what the pass has found out about the offsets that it subtracted."""
    for number, (choice, found) in enumerate(zip(work.choices, models, strict=True)):
        records = [
            record
            for part in work.parts
            if part.choice == number
            for record in sorted(PartOfJob(job, part.name).records, key=_node)
        ]
        spoken = set()
        labels = {group.label: group.channel.label for group in choice.image.model_groups}
        for label, model in found.items():
            # An image counts by channel, whatever the models of its sides.
            counted = choice.prefix + label
            if counted not in counts:
                counted = choice.prefix + labels[label]
            # A baseline that is subtracted as well makes pixels 0 at will.
            lost = PixelCounts() if choice.options.subtract_baseline else counts[counted]
            texts = [text for record in records for text in record.get("noise", {}).get(label, ())]
            doubt = judge(model, texts, lost)
            line = None if counted in spoken else lost_to_noise(lost)
            if doubt is not None:
                logger.warning("Channel %s: %s", choice.prefix + label, doubt)
            elif line is not None:
                logger.info("Channel %s: %s", counted, line)
            spoken.add(counted)


def _node(record: Mapping[str, object]) -> str:
    return str(record["node"])
