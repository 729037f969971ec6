"""The report of a corrected image: what it shows, and its page, one HTML file, and picture."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from html import escape
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection
from fractal_mesospim_shading.core.layout import Tile
from fractal_mesospim_shading.core.quality import ShadingQuality, flattened
from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains, gain_of
from fractal_mesospim_shading.flatfield.models import ChannelModel, offset_text, uncertainty_text
from fractal_mesospim_shading.flatfield.refining import refined_text
from fractal_mesospim_shading.flatfield.sampling import z_factor
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import split_name
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.messages import heard_so_far, shown
from fractal_mesospim_shading.views.coarse import (
    READ_BYTES,
    coarse_level,
    cost_of,
    plane_box,
    planes_shown,
    shrinking,
)
from fractal_mesospim_shading.views.figures import (
    ChannelReport,
    Facts,
    channel_figure,
    overview_figure,
    shortened,
)

logger = logging.getLogger(__name__)

_CSS = """
body { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #222;
       max-width: 1200px; margin: 2em auto; padding: 0 1em; line-height: 1.4; }
h1 { font-size: 1.5em; overflow-wrap: anywhere; }
h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { text-align: left; vertical-align: top; padding: 0.25em 1.2em 0.25em 0;
         border-bottom: 1px solid #e4e4e4; overflow-wrap: anywhere; }
th { font-weight: normal; color: #555; white-space: nowrap; }
img { max-width: 100%; height: auto; }
.note { background: #f3f3f3; border-left: 4px solid #999; padding: 0.4em 0.8em; }
.warning { background: #fff6df; border-left: 4px solid #d9a400; padding: 0.4em 0.8em; }
.caption { color: #555; font-size: 0.9em; }
"""

_MOST = 200
"""Letters of a label in a heading."""

_CAPTION = (
    "Before and after have the same logarithmic contrast; the ticks at their edges mark where "
    "tiles meet. A good correction leaves no step there, while the sample keeps its brightness."
)


@dataclass(frozen=True)
class ImageReport:
    """A corrected image.

    Attributes:
        title: such as the name of the image.
        channels: in the order of the image.
        facts: of the whole image: shape, size, time, throughput.
        notes: lines that a person may want to read.
        warnings: lines that a person should look at.
    """

    title: str
    channels: tuple[ChannelReport, ...]
    facts: Facts = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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


def report_obstacle(image: MosaicImage, url: str) -> str | None:
    """Why no report of a result can be written; None where it can.

    Args:
        image: the source.
        url: of the result.
    """
    if not places.is_local(url):
        return "where the result lies on remote storage"
    level = coarse_level(image.levels)
    if cost_of(image, level, planes_shown(image, level)) > READ_BYTES:
        return "for an image without a coarse level to look at"
    return None


def write_flatfield_report(
    url: str,
    image: MosaicImage,
    target: TargetImage,
    models: Mapping[str, ChannelModel],
    gains: ImageGains,
    counts: Mapping[str, PixelCounts],
    output_offset: float,
    seconds: float,
    written_to: Callable[[str], str],
    background: BackgroundToReport | None = None,
) -> str:
    """Write `<name>_report.html` and `.png` beside a result, from some planes of a coarse level.

    Args:
        url: of the result.
        image: the source, to which `report_obstacle` knows none.
        target: the result.
        models, counts: by channel label.
        gains: of the tiles.
        output_offset: counts that were added.
        seconds: that the correction took.
        written_to: where to write the file that goes to an address.
        background: that was taken away as well; what is measured of the flat-field is then
            measured on the planes shown, corrected anew without it.

    Returns:
        The address of the report.
    """
    channels = []
    for channel in image.channels:
        model, counted = models[channel.label], counts[channel.label]
        channels.append(
            _channel_report(
                channel, image, target, model, gains, counted, output_offset, background
            )
        )
    _, name = places.parent_and_name(url)
    facts = _image_facts(image, seconds)
    report = ImageReport(name, tuple(channels), facts, image.notes, heard_so_far())
    html = report_url(url)
    write_report(written_to(html), written_to(html.removesuffix(".html") + ".png"), report)
    return html


def _channel_report(
    channel: Channel,
    image: MosaicImage,
    target: TargetImage,
    model: ChannelModel,
    gains: ImageGains,
    counts: PixelCounts,
    output_offset: float,
    background: BackgroundToReport | None,
) -> ChannelReport:
    """Read some planes of a channel before and after, and measure what was done to them."""
    level = coarse_level(image.levels)
    numbers, shape = planes_shown(image, level), image.levels[level].shape[-2:]
    y, x = (slice(0, size) for size in shape)
    middle, factor = len(numbers) // 2, shrinking(image.levels, level)
    pixel_mm = (image.voxel_size_um["y"] / 1000, image.voxel_size_um["x"] / 1000)
    boxes = [plane_box(image.axes, channel.index, slice(z, z + 1), y, x) for z in numbers]
    before, after = (
        np.stack([whole.read(level, box).reshape(shape) for box in boxes])
        for whole in (image, target)
    )
    correction = model.correction(image.layout.tile_shape)
    profile = model.profile.resampled(image.layout.tile_shape)
    dark, rows = model.profile.darkfield, _model_facts(model.facts)
    offset = model.offset if dark is None else float(np.mean(dark))
    flat, added, added_last = after, output_offset, output_offset
    if background is not None:

        def correction_of(tile: Tile) -> TileCorrection:
            return replace(correction, tile_gain=gain_of(gains, channel.index, tile.number))

        flat, added = flattened(before, image.layout, correction_of, factor=factor), 0.0
        added_last = background.output_offset
    quality = ShadingQuality.measure(
        profile,
        before.mean(axis=0),
        flat.mean(axis=0),
        image.layout,
        offset=offset,
        output_offset=added,
        factor=factor,
        counts=counts,
    )
    if quality.seam_text is not None:
        logger.info("Channel %s: step at the tile seams %s", channel.label, quality.seam_text)
    if channel.index in gains:
        rows += gains[channel.index].rows()
    rows += quality.rows()
    if background is not None:
        rows += background.rows(channel.label)
    return ChannelReport(
        channel.label,
        profile,
        before[middle],
        after[middle],
        image.layout,
        pixel_mm,
        factor,
        offset,
        added_last,
        numbers[middle] * z_factor(image, level),
        rows,
    )


def report_url(url: str) -> str:
    """Where people find the report of a result."""
    parent, name = places.parent_and_name(url)
    return places.join_url(parent, f"{split_name(name)[0]}_report.html")


def _image_facts(image: MosaicImage, seconds: float) -> tuple[tuple[str, str], ...]:
    voxels = prod(image.levels[0].shape)
    return (
        ("Source", places.parent_and_name(image.url)[1]),
        ("Size", " x ".join(str(n) for n in image.levels[0].shape) + f" ({','.join(image.axes)})"),
        ("Time", f"{seconds:.0f} s, {voxels * image.dtype.itemsize / seconds / 1e6:.3g} MB/s"),
    )


def _model_facts(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = {**facts.get("origin", {}).get("facts", {}), **facts}
    rows = [("Flat-field from", str(facts["scenario"]))]
    rows.append(("Camera offset", f"{offset_text(facts)}, counts"))
    if "planes_used" in facts:
        rows.append(("Planes used", str(facts["planes_used"])))
    if "planes_rejected" in facts:
        rows.append(("Planes left out (sample)", str(facts["planes_rejected"])))
    if "planes_partly_used" in facts:
        rows.append(("Planes used in part", str(facts["planes_partly_used"])))
    if "overlap_refine" in facts:
        rows.append(("Refined by overlaps", refined_text(facts["overlap_refine"])))
    uncertainty = uncertainty_text(facts)
    if uncertainty is not None:
        rows.append(("Flat-field uncertainty", uncertainty))
    if "resampled" in facts:
        rows.append(("Resampled", str(facts["resampled"])))
    return tuple(rows)


def write_report(
    path_html: str | os.PathLike[str], path_png: str | os.PathLike[str], report: ImageReport
) -> None:
    """Write the report of an image.

    Args:
        path_html: one file that needs no other; folders above it are made.
        path_png: the overview picture.
        report: what to show.

    Raises:
        OutputWriteError: no permission, or no space.
    """
    page, picture = report_html(report).encode(), overview_figure(report.title, report.channels)
    for path, content in ((Path(path_html), page), (Path(path_png), picture)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise OutputWriteError(
                f"The report '{path}' cannot be written: {error}. Check the free space and the "
                "rights."
            ) from error


def report_html(report: ImageReport) -> str:
    """The report as the text of an HTML page."""
    title = _text(report.title)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{title}: shading correction</title><style>{_CSS}</style></head><body>",
        f"<h1>Shading correction of {title}</h1>",
        *(f'<p class="warning">WARNING: {_text(line)}</p>' for line in report.warnings),
        *(f'<p class="note">{_text(note)}</p>' for note in report.notes),
        _table(report.facts),
        *(_channel(channel) for channel in report.channels),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _channel(channel: ChannelReport) -> str:
    image = base64.b64encode(channel_figure(channel)).decode()
    label = _text(shortened(channel.label, _MOST))
    description = f"Flat-field of channel {label}, and one plane before and after"
    parts = (
        f"<h2>Channel {label}</h2>",
        _table(channel.facts),
        f'<img alt="{description}" src="data:image/png;base64,{image}">',
        f'<p class="caption">{_CAPTION}</p>',
    )
    return "\n".join(parts)


def _table(facts: Facts) -> str:
    if not facts:
        return ""
    rows = (f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts)
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _text(value: str) -> str:
    """A text from outside as it may stand in a page."""
    return escape(shown(value))
