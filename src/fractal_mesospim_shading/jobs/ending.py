"""How a job ends: what was counted, windows, provenance and marks, a look with ome-zarr's eyes.

The end is rehearsed before the first pixel, with metadata alone, in memory, by the very functions
that end a job: what they refuse then they would have refused after all pixels.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.pyramid import Histogram
from fractal_mesospim_shading.core.threads import Shared
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.process import logs_quieted
from fractal_mesospim_shading.engine.schedule import PartOfJob
from fractal_mesospim_shading.engine.zero_look import NO_DATA, no_data_met
from fractal_mesospim_shading.errors import ImageFormatError, Problems
from fractal_mesospim_shading.flatfield.channel_gains import ChannelGains, ImageGains
from fractal_mesospim_shading.flatfield.models import Models, profile_digest
from fractal_mesospim_shading.images.arrays.documents import Document, write_attributes
from fractal_mesospim_shading.images.mosaic import MARK
from fractal_mesospim_shading.images.ngff import ngff_content, ome_zarr_format, with_windows
from fractal_mesospim_shading.images.output import companion_url
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.stores import open_store
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.jobs.models import labelled_gains
from fractal_mesospim_shading.jobs.work import Counts, Part, Work, labelled
from fractal_mesospim_shading.options.base import parameters_of

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


def marked(attributes: Document, mark: Document, *, complete: bool) -> Document:
    """Attributes with our mark; an earlier mark goes into its history."""
    own: Document = {"complete": complete, **mark}
    earlier = attributes.get(MARK)
    if isinstance(earlier, dict):
        history = earlier.get("history")
        before = {key: value for key, value in earlier.items() if key != "history"}
        own["history"] = [*(history if isinstance(history, list) else ()), before]
    return {**attributes, MARK: own}


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
) -> Counts:
    """Write the final attributes of all images of a job, and add up what was counted.

    Args:
        work: whose pixels are written.
        models: of its choices of planes.
        gains: of the tiles of these.
        job: that has the records of all blocks.

    Returns:
        Counts by the labels that results show.
    """
    all_counts: Counts = {}
    for part in work.parts:
        channels = part.plan.source.channels
        records = PartOfJob(job, part.name).records
        counted, histograms = totals(channels, records, counted=work.counted)
        counts: Counts = {}
        for label, number in counted.items():
            name = part.labels.get(label, label)
            counts[name] = counts.get(name, work.counted()) + number
        own = models[part.choice] if work.choices else {}
        used = {label: own[label] for label in (part.models or own)}
        target, *companions = part.plan.targets
        for i, (kind, companion) in enumerate(zip(work.companions, companions, strict=True), 1):
            _, beside = totals(channels, records, f"channels_{kind}", work.counted)
            note = {**_provenance(work, {}, {}), "content": kind}
            complete(companion, part.attributes_of(i), channels, beside, note)
        mark = {**_provenance(work, used, counts), **part.facts, **_no_data(work, counts)}
        mark |= _tile_gains(part, gains[part.choice] if work.choices else {})
        complete(target, part.attributes, channels, histograms, mark)
        for label, number in counts.items():
            before = all_counts.get(part.prefix + label, work.counted())
            all_counts[part.prefix + label] = before + number
    if work.enclosure is not None:
        whole = _provenance(work, labelled(work.choices, models), all_counts)
        found = labelled_gains(work.choices, gains)
        marks = [{**whole, **_no_data(work, all_counts), **_gain_facts(found)}]
        marks += [{**_provenance(work, {}, {}), "content": kind} for kind in work.companions]
        places_of = _enclosures(work, job.unfinished_url)
        for (place, attributes), mark in zip(places_of, marks, strict=True):
            final = marked(attributes, mark, complete=True)
            write_attributes(place, work.enclosure.zarr_format, final, work.storage)
    return all_counts


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
        which: `channels` for the result, `channels_<kind>` for an image that goes with it.
        counted: the kind of counts in the records.
    """
    labels = {str(channel.index): channel.label for channel in channels}
    counts = {label: counted() for label in labels.values()}
    histograms = {label: Histogram() for label in labels.values()}
    for record in records:
        for index, entry in record.get(which, {}).items():
            label = labels[index]
            counts[label] = counts[label] + counted(*entry["counts"])
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


def _provenance(work: Work, models: Models, counts: Counts) -> Document:
    """How a result was made, without anything that differs between two runs of the same job."""
    return {
        "task": work.task,
        "package": "fractal-mesospim-shading",
        "version": __version__,
        "parameters": parameters_of(work.options),
        "models": {
            label: {**model.facts, "profile": profile_digest(model.profile)}
            for label, model in models.items()
        },
        "pixels": {label: vars(numbers) for label, numbers in counts.items()},
    }


def _tile_gains(part: Part, gains: ImageGains) -> Document:
    """The gains of the tiles of a part."""
    own = [gain for index, gain in gains.items() if part.channels is None or index in part.channels]
    if part.tile is not None:
        own = [gain.of_tile(part.tile) for gain in own if part.tile in gain.tiles]
    return _gain_facts({gain.label: gain for gain in own})


def _gain_facts(gains: Mapping[str, ChannelGains]) -> Document:
    """Tile gains by channel label, where there are some."""
    return {"tile_gains": {label: own.facts() for label, own in gains.items()}} if gains else {}


def _no_data(work: Work, counts: Counts) -> Document:
    """Whether channels hold pixels without data, where a correction has looked."""
    return {} if work.correction is None else {NO_DATA: no_data_met(counts)}


def complete(
    target: TargetImage,
    attributes: Document,
    channels: Sequence[Channel],
    histograms: Mapping[str, Histogram],
    mark: Document,
) -> None:
    """Write the final attributes of an image: windows, provenance, and the mark.

    A stack of one channel that has no channel metadata is left without.

    Raises:
        ImageFormatError: ome-zarr does not read what was written.
    """
    content = ngff_content(attributes, target.zarr_format)
    if len(target.levels[0].shape) > 3 or "omero" in content:
        labels = [channel.label for channel in channels]
        windows = [window(histograms[label], target.levels[0].dtype) for label in labels]
        attributes = with_windows(attributes, target.zarr_format, windows, labels)
    final = marked(attributes, mark, complete=True)
    write_attributes(target.url, target.zarr_format, final, target.storage_options)
    refuse_unreadable(target)


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


def rehearse(work: Work) -> None:
    """Write the metadata of a result in memory, complete them, and look at them with ome-zarr.

    Args:
        work: that has passed all other checks.

    Raises:
        ShadingError: one error with all that the end of the job would refuse.
    """
    problems = Problems()
    for part in work.parts:
        with problems.collected():
            _rehearse_part(work, part)
    problems.raise_all()


def _rehearse_part(work: Work, part: Part) -> None:
    stage = f"memory://{uuid.uuid4().hex}"
    histograms = {channel.label: Histogram() for channel in part.plan.source.channels}
    try:
        for number, written in enumerate(part.plan.targets):
            target = replace(written, url=places.join_url(stage, str(number)), storage_options=None)
            target.create(marked(part.attributes_of(number), {}, complete=False))
            if number == 0:
                work.add_tables(target)
            complete(target, part.attributes_of(number), part.plan.source.channels, histograms, {})
    except ImageFormatError as error:
        where = f"stack '{part.name}' of " if part.name else ""
        raise ImageFormatError(
            f"The result could not be read by others: {error} Its metadata are those of the {where}"
            f"source, {work.source_url}; correct them there."
        ) from error
    finally:
        places.remove(stage)
