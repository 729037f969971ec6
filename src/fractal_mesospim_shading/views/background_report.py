"""The report of a job that takes local backgrounds away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import prod

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.source import MultitileImage
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.messages import heard_so_far
from fractal_mesospim_shading.views.report_facts import asked_rows
from fractal_mesospim_shading.views.report_page import write_page
from fractal_mesospim_shading.views.report_parts import (
    ChannelReport,
    Facts,
    ImageReport,
    PlanesShown,
)
from fractal_mesospim_shading.views.report_place import report_url
from fractal_mesospim_shading.views.report_planes import background_planes
from fractal_mesospim_shading.views.reporting import made_by
from fractal_mesospim_shading.views.verdict import Verdict, percent


@dataclass(frozen=True)
class BackgroundDone:
    """What was done.

    Attributes:
        task: name of it.
        sources: addresses of what was corrected.
        images: that were: a mosaic, or stacks.
        verdict: whether it worked.
        counts: what happened to the pixels, by the labels of results.
        titles: of the methods, the same.
        output_offset: counts that were added.
        seconds: that it took.
        asked: options that were given, as JSON.
        shown: a source and its result of which a plane is shown; None where none is.
    """

    task: str
    sources: tuple[str, ...]
    images: tuple[MultitileImage, ...]
    verdict: Verdict | None
    counts: Mapping[str, PixelCounts]
    titles: Mapping[str, str]
    output_offset: float
    seconds: float
    asked: Document
    shown: tuple[MosaicImage, TargetImage] | None = None


def write_background_report(
    url: str, done: BackgroundDone, written_to: Callable[[str], str]
) -> str:
    """Write the report of a result: whether it worked, what became of the pixels, some planes.

    Args:
        url: of the result, to which `report_obstacle` knows none.
        done: what was done.
        written_to: where to write the file that goes to an address.

    Returns:
        The address of the report.
    """
    _, name = places.parent_and_name(url)
    facts = (*_job_facts(done), ("Made by", made_by()))
    channels = _channels(done)
    warnings = heard_so_far()
    numbers: Document = {
        "name": name,
        "verdict": None if done.verdict is None else done.verdict.facts(),
        "facts": dict(facts),
        "task": done.task,
        "asked": done.asked,
        "warnings": warnings,
        "methods": dict(done.titles),
        "pixels": {label: asdict(counts) for label, counts in done.counts.items()},
    }
    html = report_url(url)
    report = ImageReport(
        name,
        "Background correction",
        channels,
        done.verdict,
        facts,
        asked_rows(done.task, done.sources, done.asked),
        warnings=warnings,
        numbers=numbers,
    )
    write_page(written_to(html), report)
    return html


def _channels(done: BackgroundDone) -> tuple[ChannelReport, ...]:
    """What is known of each channel, with a plane where one is shown."""
    image = done.images[0]
    pixel_mm = (image.voxel_size_um["y"] / 1000, image.voxel_size_um["x"] / 1000)
    shown: dict[str, PlanesShown] = {}
    if done.shown is not None:
        source, target = done.shown
        shown = {
            c.label: background_planes(source, target, c, done.output_offset)
            for c in source.channels
        }
    return tuple(
        ChannelReport(
            label,
            image.layout,
            pixel_mm,
            shown=shown.get(label),
            facts=_rows(done.titles.get(label, ""), counts),
        )
        for label, counts in done.counts.items()
    )


def _rows(title: str, counts: PixelCounts) -> Facts:
    known = max(counts.pixels - counts.no_data, 1)
    cut = (counts.clipped_low + counts.clipped_high) / known
    return (
        ("Method", title),
        ("Pixels that became 0 or the largest value", percent(cut)),
        ("Pixels saturated by the camera", percent(counts.saturated / known)),
        ("Pixels never acquired", percent(counts.no_data / max(counts.pixels, 1))),
    )


def _job_facts(done: BackgroundDone) -> Facts:
    names = ", ".join(places.parent_and_name(url)[1] for url in done.sources)
    pixels = sum(prod(image.levels[0].shape) * image.dtype.itemsize for image in done.images)
    shape = " x ".join(str(n) for n in done.images[0].levels[0].shape)
    size = f"{shape} ({','.join(done.images[0].axes)})"
    if len(done.images) > 1:
        size = f"{len(done.images)} stacks, the first {size}"
    rate = pixels / max(done.seconds, 1e-9) / 1e6
    return (("Source", names), ("Size", size), ("Time", f"{done.seconds:.0f} s, {rate:.3g} MB/s"))
