"""The report of a corrected image: what it shows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fractal_mesospim_shading.core.correct import PixelCounts, TileCorrection
from fractal_mesospim_shading.core.layout import Tile
from fractal_mesospim_shading.core.quality import ShadingQuality, flattened
from fractal_mesospim_shading.flatfield.channel_gains import ImageGains, gain_of
from fractal_mesospim_shading.flatfield.model_texts import offset_text, uncertainty_text
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.flatfield.refining import refined_text
from fractal_mesospim_shading.flatfield.sampling import z_factor
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import split_name
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.messages import heard_so_far
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.views.coarse import (
    READ_BYTES,
    coarse_level,
    cost_of,
    plane_box,
    planes_shown,
    shrinking,
)
from fractal_mesospim_shading.views.figures import ChannelReport, Facts
from fractal_mesospim_shading.views.report_page import ImageReport, write_report

logger = logging.getLogger(__name__)


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
    checks: Mapping[str, OverlapCheck],
    counts: Mapping[str, PixelCounts],
    output_offset: float,
    seconds: float,
    written_to: Callable[[str], str],
    background: BackgroundToReport | None = None,
) -> str:
    """Write the report of a result from some planes of a coarse level, and what overlaps say.

    Beside it lie `<name>_report.html`, `.png` and `.json` then.

    Args:
        url: of the result.
        image: the source, to which `report_obstacle` knows none.
        target: the result.
        models, counts: by channel label.
        gains: of the tiles.
        checks: of the overlaps, by channel label.
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
                channel,
                image,
                target,
                model,
                gains,
                checks.get(channel.label),
                counted,
                output_offset,
                background,
            )
        )
    _, name = places.parent_and_name(url)
    facts = _image_facts(image, seconds)
    report = ImageReport(name, tuple(channels), facts, image.notes, heard_so_far())
    html = report_url(url)
    stem = html.removesuffix(".html")
    write_report(written_to(html), written_to(f"{stem}.png"), report)
    told = {"channels": [check.facts() for check in checks.values()]}
    Path(written_to(f"{stem}.json")).write_text(json.dumps(told, indent=2))
    return html


def _channel_report(
    channel: Channel,
    image: MosaicImage,
    target: TargetImage,
    model: ChannelModel,
    gains: ImageGains,
    check: OverlapCheck | None,
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
        before,
        flat,
        image.layout,
        offset=offset,
        output_offset=added,
        factor=factor,
        counts=counts,
    )
    measured = check is not None and check.says_enough
    if quality.seam_text is not None and not measured:
        logger.info(
            "Channel %s: step at the tile seams, in empty medium, %s: weaker evidence than "
            "overlaps, which this image does not tell.",
            channel.label,
            quality.seam_text,
        )
    if channel.index in gains:
        rows += gains[channel.index].rows()
    if check is not None:
        rows += check.rows()
    rows += quality.rows(seams=not measured)
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
        check,
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
