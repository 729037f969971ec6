"""The marks of a result: how each step made it, what of it holds no data, its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.core.threads import in_order
from fractal_mesospim_shading.engine.zero_look import NO_DATA, no_data_met
from fractal_mesospim_shading.flatfield.channel_gains import ChannelGains, ImageGains
from fractal_mesospim_shading.flatfield.models import Models
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.jobs.steps import Counts
from fractal_mesospim_shading.jobs.work import Part, Work


def marked(attributes: Document, mark: Document, *, complete: bool) -> Document:
    """Attributes with our mark; an earlier mark goes into its history."""
    own: Document = {"complete": complete, **mark}
    earlier = attributes.get(MARK)
    if isinstance(earlier, dict):
        history = earlier.get("history")
        before = {key: value for key, value in earlier.items() if key != "history"}
        own["history"] = [*(history if isinstance(history, list) else ()), before]
    return {**attributes, MARK: own}


def marks_of(
    work: Work,
    models: Models,
    counts: Sequence[Counts],
    facts: Sequence[Document] = ({}, {}),
) -> list[Document]:
    """How a result was made, a mark for each step as if it had been made by itself.

    Args:
        work: that made it.
        models: of the first step.
        counts: of each step.
        facts: what else is said of each.
    """
    told = [_provenance(work.task, work.parameters, models)]
    if work.then is not None:
        told.append(_provenance(work.then.task, work.then.parameters, {}))
    return [
        {**mark, "pixels": {label: vars(n) for label, n in own.items()}, **fact}
        | ({NO_DATA: no_data_met(own)} if work.corrections else {})
        for mark, own, fact in zip(told, counts, facts, strict=False)
    ]


def note_of(work: Work, kind: str) -> Document:
    """The mark of the last step in an image that goes with its result."""
    *_, last = marks_of(work, {}, [{} for _ in work.kinds_of_counts])
    return {k: v for k, v in last.items() if k != NO_DATA} | {"content": kind}


def _provenance(task: str, parameters: Document, models: Models) -> Document:
    """How a step was made, without anything that differs between two runs of the same job."""
    profiles = [model.profile for model in models.values()]
    digests = in_order(lambda profile: profile.digest, profiles, workers=2)
    return {
        "task": task,
        "package": "fractal-mesospim-shading",
        "version": __version__,
        "parameters": parameters,
        "models": {
            label: {**model.facts, "profile": digest}
            for (label, model), digest in zip(models.items(), digests, strict=True)
        },
    }


def tile_gain_facts(part: Part, gains: ImageGains) -> Document:
    """The gains of the tiles of a part."""
    own = [gain for index, gain in gains.items() if part.channels is None or index in part.channels]
    if part.tile is not None:
        own = [gain.of_tile(part.tile) for gain in own if part.tile in gain.tiles]
    return gain_facts({gain.label: gain for gain in own})


def gain_facts(gains: Mapping[str, ChannelGains]) -> Document:
    """Tile gains by channel label, where there are some."""
    return {"tile_gains": {label: own.facts() for label, own in gains.items()}} if gains else {}


def completed(attributes: Document, marks: Sequence[Document]) -> Document:
    """Attributes with the marks of all steps, the last one on top."""
    for mark in marks:
        attributes = marked(attributes, mark, complete=True)
    return attributes
