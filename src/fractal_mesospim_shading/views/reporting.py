"""The report of a job: whether it worked, and what it shows of models, overlaps and pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from math import prod

import numpy as np

from fractal_mesospim_shading import __version__
from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection
from fractal_mesospim_shading.core.layout import Tile
from fractal_mesospim_shading.core.quality import ShadingQuality, flattened, mean_plane
from fractal_mesospim_shading.core.threads import in_order
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains, gain_of
from fractal_mesospim_shading.flatfield.models import ChannelModel, Models, model_facts
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.source import Channel, ModelGroup, MultitileImage
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.messages import heard_so_far
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.views.evidence import Evidence
from fractal_mesospim_shading.views.report_facts import Known, asked_rows, method_rows, plain_rows
from fractal_mesospim_shading.views.report_page import write_page
from fractal_mesospim_shading.views.report_parts import (
    ChannelReport,
    Facts,
    FloatArray,
    ImageReport,
    PlanesShown,
)
from fractal_mesospim_shading.views.report_place import report_url
from fractal_mesospim_shading.views.report_planes import planes_to_show, sampled_planes
from fractal_mesospim_shading.views.verdict import Verdict

logger = logging.getLogger(__name__)

_WHAT = {"estimate_flatfield": "Estimated flat-fields"}


@dataclass(frozen=True)
class BackgroundToReport:
    """A local background that was taken away in the same pass.

    Attributes:
        titles: of the method, by channel label.
        counts: what happened to the pixels, the same.
        output_offset: counts that were added afterwards.
    """

    titles: Mapping[str, str]
    counts: Mapping[str, PixelCounts]
    output_offset: float

    def rows(self, label: str) -> Facts:
        """Name and value of what is to be said of a channel, as text."""
        found = self.counts[label]
        cut = (found.clipped_low + found.clipped_high) / max(found.pixels - found.no_data, 1)
        return (
            ("Local background", f"{self.titles[label]}; taken away in the same pass"),
            ("Pixels cut off after it", f"{cut:.2%}" if cut else "none"),
        )


@dataclass(frozen=True)
class ImageDone:
    """An image that was corrected: a mosaic, or the stacks of one.

    Attributes:
        image: the source.
        models: by the labels of its model groups.
        gains: of its tiles.
        prefix: tells its channels from those of other images of the job.
    """

    image: MultitileImage
    models: Models
    gains: ImageGains
    prefix: str = ""


@dataclass(frozen=True)
class JobDone:
    """What a job has done, whatever its kind.

    Attributes:
        task: name of it.
        sources: addresses of what was corrected.
        images: that were.
        checks: of the overlaps, by label of the model.
        evidence: what is known of how well it worked, the same.
        verdict: whether it did; None where nothing was judged.
        counts: what happened to the pixels, by the labels of results.
        output_offset: counts that were added.
        seconds: that it took.
        asked: options that were given, as JSON.
        shown: a source and its result of which some planes are read and shown; None where none
            are.
        background: that was taken away as well; what is measured of the flat-field is then
            measured on the planes shown, corrected anew without it.
        truth: (y, x) true flat-fields that it is held against, by label of the model.
    """

    task: str
    sources: tuple[str, ...]
    images: tuple[ImageDone, ...]
    checks: Mapping[str, OverlapCheck]
    evidence: Mapping[str, Evidence]
    verdict: Verdict | None
    counts: Mapping[str, PixelCounts]
    output_offset: float
    seconds: float
    asked: Document
    shown: tuple[MosaicImage, TargetImage] | None = None
    background: BackgroundToReport | None = None
    truth: Mapping[str, FloatArray] = field(default_factory=dict)


def write_flatfield_report(url: str, done: JobDone, written_to: Callable[[str], str]) -> str:
    """Write the report of a result: whether it worked, its models, its overlaps, some planes.

    `<name>_report.html` and `<name>_report.json` lie beside it then. No pixel is read but those of
    the planes shown.

    Args:
        url: of the result, to which `report_obstacle` knows none.
        done: what was done.
        written_to: where to write the file that goes to an address.

    Returns:
        The address of the report.
    """
    every = [
        (own, group)
        for own in done.images
        for group in own.image.model_groups
        if group.label in own.models
    ]
    measured = in_order(lambda one: _measured(done, *one), every, workers=2)
    channels = tuple(
        _channel_report(done, *one, *found) for one, found in zip(every, measured, strict=True)
    )
    notes = dict.fromkeys(note for own in done.images for note in own.image.notes)
    _, name = places.parent_and_name(url)
    report = ImageReport(
        name,
        _WHAT.get(done.task, "Shading correction"),
        channels,
        done.verdict,
        (*_job_facts(done), ("Made by", made_by())),
        asked_rows(done.task, done.sources, done.asked),
        tuple(notes),
        heard_so_far(),
    )
    report = replace(report, numbers=_as_json(report, done))
    html = report_url(url)
    write_page(written_to(html), report)
    return html


def made_by() -> str:
    """This package, its version, and the time."""
    return f"fractal-mesospim-shading {__version__}, {datetime.now():%Y-%m-%d %H:%M}"


def _as_json(report: ImageReport, done: JobDone) -> Document:
    """The same facts for programs."""
    models = {own.prefix + label: m for own in done.images for label, m in own.models.items()}
    gains = {
        own.prefix + found.label: found.facts()
        for own in done.images
        for found in own.gains.values()
    }
    background = {} if done.background is None else done.background.counts
    return {
        "name": report.title,
        "verdict": None if done.verdict is None else done.verdict.facts(),
        "facts": dict(report.facts),
        "task": done.task,
        "asked": done.asked,
        "warnings": report.warnings,
        "notes": report.notes,
        "models": model_facts(models),
        "quality": {label: own.facts() for label, own in done.evidence.items()},
        "pixels": {label: asdict(counts) for label, counts in done.counts.items()},
        "background_pixels": {label: asdict(counts) for label, counts in background.items()},
        "tile_gains": gains,
        "channels": [check.facts() for check in done.checks.values()],
    }


def _measured(
    done: JobDone, own: ImageDone, group: ModelGroup
) -> tuple[PlanesShown | None, ShadingQuality]:
    """What a model did, measured on some planes where they are shown."""
    model, counts = own.models[group.label], done.counts.get(_counted(done, own, group))
    if done.shown is None or not model.corrects:
        profile = model.profile.resampled(own.image.layout.tile_shape)
        return None, ShadingQuality.of_counts(profile, counts)
    return _planes(done, done.shown, own, model, group.channel, counts)


def _counted(done: JobDone, own: ImageDone, group: ModelGroup) -> str:
    """By which label pixels were counted: an image's are by channel, a container's by model."""
    label = own.prefix + group.label
    return label if label in done.counts else own.prefix + group.channel.label


def _channel_report(
    done: JobDone,
    own: ImageDone,
    group: ModelGroup,
    shown: PlanesShown | None,
    quality: ShadingQuality,
) -> ChannelReport:
    """What is known of one model and of what it did; the last two are from `_measured`."""
    image, model, channel = own.image, own.models[group.label], group.channel
    label, counted = own.prefix + group.label, _counted(done, own, group)
    check = done.checks.get(label)
    if quality.seam_text is not None and not (check is not None and check.says_enough):
        logger.info(
            "Channel %s: step at the tile seams, in empty medium, %s: weaker evidence than "
            "overlaps, which this image does not tell.",
            label,
            quality.seam_text,
        )
    known = Known(model, quality, check, done.evidence.get(label))
    gains = own.gains[channel.index].rows() if channel.index in own.gains else ()
    background: Facts = ()
    if done.background is not None and counted in done.background.titles:
        background = done.background.rows(counted)
    pixel_mm = (image.voxel_size_um["y"] / 1000, image.voxel_size_um["x"] / 1000)
    return ChannelReport(
        label,
        image.layout,
        pixel_mm,
        model.profile.resampled(image.layout.tile_shape),
        shown,
        (*plain_rows(known), *background),
        (*method_rows(known), *gains),
        check,
        done.truth.get(label),
        model.planes,
    )


def _planes(
    done: JobDone,
    shown: tuple[MosaicImage, TargetImage],
    own: ImageDone,
    model: ChannelModel,
    channel: Channel,
    counts: PixelCounts | None,
) -> tuple[PlanesShown, ShadingQuality]:
    """Read some planes of a channel before and after, and measure what was done to them."""
    image, target = shown
    sampled = sampled_planes(image, target, channel)
    correction = model.correction(image.layout.tile_shape)
    dark = model.profile.darkfield
    offset = model.offset if dark is None else float(np.mean(dark))
    flat, added, added_last = sampled.after, done.output_offset, done.output_offset
    if done.background is not None:

        def correction_of(tile: Tile) -> TileCorrection:
            return replace(correction, tile_gain=gain_of(own.gains, channel.index, tile.number))

        flat = flattened(sampled.before, image.layout, correction_of, factor=sampled.factor)
        added, added_last = 0.0, done.background.output_offset
    means = mean_plane(sampled.before), mean_plane(flat)
    quality = ShadingQuality.measure(
        model.profile.resampled(image.layout.tile_shape),
        *means,
        image.layout,
        offset=offset,
        output_offset=added,
        factor=sampled.factor,
        counts=counts,
    )
    offsets = (offset, added, added_last)
    return planes_to_show(image, target, channel, sampled, means, offsets), quality


def _job_facts(done: JobDone) -> Facts:
    """Name and value of what is to be said of the whole job."""
    names = [places.parent_and_name(url)[1] for url in done.sources]
    rows = [("Source", ", ".join(names))]
    for own in done.images:
        image, prefix = own.image, own.prefix
        size = " x ".join(str(n) for n in image.levels[0].shape)
        rows.append((f"{prefix}Size", f"{size} ({','.join(image.axes)})"))
        layout = image.layout
        tiles = f"{len(layout.tiles)} ({layout.rows} rows, {layout.columns} columns)"
        rows.append((f"{prefix}Tiles", tiles))
    pixels = sum(own.image.dtype.itemsize * prod(own.image.levels[0].shape) for own in done.images)
    rate = pixels / done.seconds / 1e6
    return (*rows, ("Time", f"{done.seconds:.0f} s, {rate:.3g} MB/s"))
