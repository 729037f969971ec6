"""How a job ends: what was counted, windows, provenance and marks, a look with ome-zarr's eyes.

The end is rehearsed before the first pixel, with metadata alone, in memory, by the very functions
that end a job: what they refuse then they would have refused after all pixels.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.pyramid import Histogram
from fractal_mesospim_shading.core.threads import Shared, garbage_kept
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.process import logs_quieted
from fractal_mesospim_shading.engine.schedule import records_by_part
from fractal_mesospim_shading.errors import ImageFormatError, Problems, ShadingError
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains
from fractal_mesospim_shading.flatfield.models import Models
from fractal_mesospim_shading.images.arrays.documents import Document, write_attributes
from fractal_mesospim_shading.images.ngff import ngff_content, ome_zarr_format, with_windows
from fractal_mesospim_shading.images.output import companion_url
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.stores import open_store
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.models import labelled_gains
from fractal_mesospim_shading.jobs.provenance import (
    completed,
    gain_facts,
    marked,
    marks_of,
    note_of,
    tile_gain_facts,
)
from fractal_mesospim_shading.jobs.steps import Counts
from fractal_mesospim_shading.jobs.work import Part, Work, labelled

_quiet_reader = Shared(partial(logs_quieted, logging.CRITICAL, "ome_zarr"))

# ome-zarr checks little and says in its own ways what it does not understand.
_OME_ZARR_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    RuntimeError,
    OSError,
)


def begin(work: Work, url: str) -> None:
    """Write all metadata of a result, with the mark of unfinished work, and no pixel.

    Args:
        work: what is written.
        url: of the unfinished result.
    """
    if work.enclosure is not None:
        for place, attributes in _enclosures(work, url):
            begun = marked(attributes, {}, complete=False)
            write_attributes(place, work.enclosure.zarr_format, begun, work.storage)
    for part in work.parts:
        for number, target in enumerate(part.plan.targets):
            target.create(marked(part.attributes_of(number), {}, complete=False))


def complete_all(
    work: Work, models: Sequence[Models], gains: Sequence[ImageGains], job: Job
) -> list[Counts]:
    """Write the final attributes of all images of a job, and add up what was counted.

    Args:
        work: whose pixels are written.
        models: of its choices of planes.
        gains: of the tiles of these.
        job: that has the records of all blocks.

    Returns:
        Counts of each step, by the labels that results show.
    """
    all_counts: list[Counts] = [{} for _ in work.kinds_of_counts]
    records_of = records_by_part(job.records)
    for part in work.parts:
        channels = part.plan.source.channels
        records = records_of[part.name]
        counts, histograms = _counted(work, part, records)
        own = models[part.choice] if work.choices else {}
        used = {label: own[label] for label in (part.models or own)}
        of_tiles = tile_gain_facts(part, gains[part.choice] if work.choices else {})
        marks = marks_of(work, used, counts, ({**part.facts, **of_tiles}, part.facts_then))
        target, *companions = part.plan.targets
        for i, (kind, companion) in enumerate(zip(work.companions, companions, strict=True), 1):
            _, beside = _counted(work, part, records, f"channels_{kind}")
            notes = [*marks[:-1], note_of(work, kind)]
            complete(companion, part.attributes_of(i), channels, beside, notes)
        complete(target, part.attributes, channels, histograms, marks)
        for whole, found, kind_of in zip(all_counts, counts, work.kinds_of_counts, strict=True):
            for label, number in found.items():
                before = whole.get(part.prefix + label, kind_of())
                whole[part.prefix + label] = before + number
    if work.enclosure is not None:
        facts: tuple[Document, Document] = (gain_facts(labelled_gains(work.choices, gains)), {})
        all_marks = [marks_of(work, labelled(work.choices, models), all_counts, facts)]
        all_marks += [[note_of(work, kind)] for kind in work.companions]
        places_of = _enclosures(work, job.unfinished_url)
        for (place, attributes), marks in zip(places_of, all_marks, strict=True):
            final = completed(attributes, marks)
            write_attributes(place, work.enclosure.zarr_format, final, work.storage)
    return all_counts


def _counted(
    work: Work, part: Part, records: Sequence[Mapping[str, Any]], which: str = "channels"
) -> tuple[list[Counts], dict[str, Histogram]]:
    """The counts of each step by the labels that results show, and the histograms by channel.

    Args:
        work, part: whose.
        records: of the journal.
        which: of the images written, as for `totals`.
    """
    channels = part.plan.source.channels
    last, histograms = totals(channels, records, which, work.kinds_of_counts[-1])
    counted = [last]
    if work.then is not None:
        first, _ = totals(channels, records, "before", work.counted)
        last, histograms = work.then.settled(last, histograms, first)
        counted = [first, last]
    named: list[Counts] = []
    for own, kind in zip(counted, work.kinds_of_counts, strict=True):
        named.append({})
        for label, number in own.items():
            name = part.labels.get(label, label)
            named[-1][name] = named[-1].get(name, kind()) + number
    return named, histograms


def _enclosures(work: Work, url: str) -> list[tuple[str, Document]]:
    """Address and attributes of the groups around the images of a job, that of the result first.

    Those around the images that go with it hold nothing else.
    """
    result = {} if work.enclosure is None else work.enclosure.attributes
    beside: list[tuple[str, Document]] = [(companion_url(url, k), {}) for k in work.companions]
    return [(url, result), *beside]


def totals(
    channels: Sequence[Channel],
    records: Iterable[Mapping[str, Any]],
    which: str = "channels",
    counted: type[PixelCounts] = PixelCounts,
) -> tuple[dict[str, PixelCounts], dict[str, Histogram]]:
    """Counts and histograms by channel label, summed over the journal.

    Args:
        channels: of the image.
        records: of the journal.
        which: `channels` for the result, `channels_<kind>` for an image that goes with it,
            `before` for a first step, whose pixels have no histogram.
        counted: the kind of counts in the records.
    """
    labels = {str(channel.index): channel.label for channel in channels}
    counts = {label: counted() for label in labels.values()}
    histograms = {label: Histogram() for label in labels.values()}
    for record in records:
        for index, entry in record.get(which, {}).items():
            label = labels[index]
            counts[label] = counts[label] + counted(*entry["counts"])
            if "histogram" in entry:
                histograms[label] = histograms[label] + Histogram.from_text(entry["histogram"])
    return counts, histograms


def window(histogram: Histogram, dtype: np.dtype[Any]) -> dict[str, float]:
    """Contrast window of a channel: 0.1 to 99.9 % of its pixels, within the range of its type."""
    if not histogram.total:
        low, high, bounds = 0.0, 1.0, (0.0, 1.0)
    else:
        low, high = histogram.quantile(0.001), histogram.quantile(0.999)
        bounds = (histogram.quantile(0.0), max(histogram.quantile(1.0), high))
    if np.issubdtype(dtype, np.integer):
        bounds = (0.0, float(np.iinfo(dtype).max))
    return {"min": bounds[0], "max": bounds[1], "start": low, "end": max(high, low + 1e-6)}


def complete(
    target: TargetImage,
    attributes: Document,
    channels: Sequence[Channel],
    histograms: Mapping[str, Histogram],
    marks: Sequence[Document],
) -> None:
    """Write the final attributes of an image: windows, and the marks with its provenance.

    A stack of one channel that has no channel metadata is left without.

    Raises:
        ImageFormatError: ome-zarr does not read what was written.
    """
    content = ngff_content(attributes, target.zarr_format)
    if len(target.levels[0].shape) > 3 or "omero" in content:
        labels = [channel.label for channel in channels]
        windows = [window(histograms[label], target.levels[0].dtype) for label in labels]
        attributes = with_windows(attributes, target.zarr_format, windows, labels)
    final = completed(attributes, marks)
    write_attributes(target.url, target.zarr_format, final, target.storage_options)
    refuse_unreadable(target)


def load_reader() -> None:
    """Import ome-zarr, which takes as long as all that is imported before it."""
    import ome_zarr.io
    import ome_zarr.reader  # noqa: F401


def refuse_unreadable(target: TargetImage) -> None:
    """Open an image with ome-zarr's own reader before it counts as complete.

    Raises:
        ImageFormatError: it finds no image, or another pyramid than was written.
    """
    from ome_zarr.io import ZarrLocation
    from ome_zarr.reader import Reader

    fmt = ome_zarr_format(target.zarr_format)
    store, _ = open_store(target.url, target.storage_options)
    try:
        # Its chatter about versions and optional parts would mark a server's job.
        with _quiet_reader:
            nodes = list(Reader(ZarrLocation(store, fmt=fmt))())
        shapes = [tuple(array.shape) for array in nodes[0].data] if nodes else []
    except _OME_ZARR_ERRORS as error:
        raise ImageFormatError(
            "ome-zarr cannot open an image with these metadata "
            f"({type(error).__name__}: {str(error) or 'no reason given'})."
        ) from error
    expected = [level.shape for level in target.levels]
    if shapes != expected:
        raise ImageFormatError(
            f"ome-zarr reads the levels {shapes} from an image with these metadata; expected "
            f"{expected}."
        )


@garbage_kept
def rehearse(work: Work) -> None:
    """Write the metadata of a result in memory, complete them, and look at them with ome-zarr.

    What many stacks have in common is tried out once, and refused for each of them.

    Args:
        work: that has passed all other checks.

    Raises:
        ShadingError: one error with all that the end of the job would refuse.
    """
    problems = Problems()
    refusals: dict[str, ShadingError | None] = {}
    for part in work.parts:
        metadata = _metadata_of(part)
        if metadata not in refusals:
            refusals[metadata] = _refusal(work, part)
        refusal = refusals[metadata]
        if refusal is not None:
            problems.errors.append(_named(refusal, work, part))
    problems.raise_all()


def _metadata_of(part: Part) -> str:
    """All metadata of a part that are tried out, but for names and places: any will do."""
    channels = [channel.label for channel in part.plan.source.channels]
    targets = [
        (
            target.zarr_format,
            [(level.path, level.document) for level in target.levels],
            _anywhere(part.attributes_of(number)),
        )
        for number, target in enumerate(part.plan.targets)
    ]
    return json.dumps([channels, targets], sort_keys=True)


def _anywhere(content: Any) -> Any:
    """Attributes with the kinds of numbers in place of translations, and pyramids without name."""
    if isinstance(content, list):
        return [_anywhere(value) for value in content]
    if not isinstance(content, dict):
        return content
    result = {key: _anywhere(value) for key, value in content.items()}
    place = content.get("translation")
    if isinstance(place, list) and all(isinstance(n, int | float) and isfinite(n) for n in place):
        result["translation"] = [type(n).__name__ for n in place]
    if "datasets" in content and isinstance(content.get("name"), str):
        result["name"] = str(bool(content["name"]))
    return result


def _refusal(work: Work, part: Part) -> ShadingError | None:
    """What the end of the job would refuse of a part."""
    stage = f"memory://{uuid.uuid4().hex}"
    histograms = {channel.label: Histogram() for channel in part.plan.source.channels}
    try:
        for number, written in enumerate(part.plan.targets):
            target = replace(written, url=places.join_url(stage, str(number)), storage_options=None)
            target.create(marked(part.attributes_of(number), {}, complete=False))
            if number == 0:
                work.add_tables(target)
            complete(
                target, part.attributes_of(number), part.plan.source.channels, histograms, [{}]
            )
    except ShadingError as error:
        return error
    finally:
        places.remove(stage)
    return None


def _named(refusal: ShadingError, work: Work, part: Part) -> ShadingError:
    """The same with the place of the metadata that are refused."""
    if not isinstance(refusal, ImageFormatError):
        return refusal
    where = f"stack '{part.name}' of " if part.name else ""
    named = ImageFormatError(
        f"The result could not be read by others: {refusal} Its metadata are those of the {where}"
        f"source, {work.source_url}; correct them there."
    )
    named.__cause__ = refusal
    return named
