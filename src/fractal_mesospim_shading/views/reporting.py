"""Gather what a report of a flat-field correction shows, and write it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.correct import PixelCounts
from fractal_mesospim_shading.core.quality import ShadingQuality
from fractal_mesospim_shading.flatfield.models import ChannelModel, offset_text
from fractal_mesospim_shading.flatfield.sampling import z_factor
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import split_name
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.target import TargetImage
from fractal_mesospim_shading.messages import heard_so_far

logger = logging.getLogger(__name__)

_PLANE_PIXELS = 1 << 20
"""Planes of a report are taken from the first level with no more pixels than this."""

_PLANES = 8
"""Planes along z that the seam step is measured on."""

_READ_BYTES = 2**31
"""A report is left out where it would have to decode more than this."""


@dataclass(frozen=True)
class Views:
    """Planes of one channel before and after.

    Attributes:
        before, after: (n, y, x) at one level.
        level: of the pyramid.
        shown: which of the planes is shown.
        plane: its number along z.
    """

    before: NDArray[Any]
    after: NDArray[Any]
    level: int
    shown: int
    plane: int


def report_obstacle(image: MosaicImage, url: str) -> str | None:
    """Why no report of a result can be written; None where it can.

    Args:
        image: the source.
        url: of the result.
    """
    if not places.is_local(url):
        return "where the result lies on remote storage"
    level = _level(image)
    if _cost(image, level, _planes(image, level)) > _READ_BYTES:
        return "for an image without a coarse level to look at"
    return None


def _level(image: MosaicImage) -> int:
    """The level that a report shows."""
    return next(
        (i for i, found in enumerate(image.levels) if prod(found.shape[-2:]) <= _PLANE_PIXELS),
        len(image.levels) - 1,
    )


def gather_views(image: MosaicImage, target: TargetImage) -> dict[str, Views]:
    """Read some coarse planes of source and result; empty where that would cost too much."""
    level = _level(image)
    planes = _planes(image, level)
    views: dict[str, Views] = {}
    shape = image.levels[level].shape[-2:]
    if _cost(image, level, planes) > _READ_BYTES:
        logger.info("The image has no coarse level to look at: no report is written.")
        return views
    middle = len(planes) // 2
    for channel in image.channels:
        boxes = [_box(image, channel, level, z) for z in planes]
        before = np.stack([image.read(level, box).reshape(shape) for box in boxes])
        after = np.stack([target.read(level, box).reshape(shape) for box in boxes])
        plane = planes[middle] * z_factor(image, level)
        views[channel.label] = Views(before, after, level, middle, plane)
    return views


def write_flatfield_report(
    url: str,
    image: MosaicImage,
    views: Mapping[str, Views],
    models: Mapping[str, ChannelModel],
    counts: Mapping[str, PixelCounts],
    output_offset: float,
    seconds: float,
    written_to: Callable[[str], str],
) -> str | None:
    """Write `<name>_report.html` and `.png` beside a result; None where there is nothing to show.

    Args:
        url: of the result.
        image: the source.
        views: from `gather_views`.
        models, counts: by channel label.
        output_offset: counts that were added.
        seconds: that the correction took.
        written_to: where to write the file that goes to an address.

    Returns:
        The address of the report.
    """
    if not views or not places.is_local(url):
        return None
    from fractal_mesospim_shading.views.content import ChannelReport, ImageReport
    from fractal_mesospim_shading.views.html import write_report

    size = image.voxel_size_um
    channels = []
    for channel in image.channels:
        view, model = views[channel.label], models[channel.label]
        profile = model.profile.resampled(image.layout.tile_shape)
        dark = model.profile.darkfield
        offset = model.offset if dark is None else float(np.mean(dark))
        factor = _factor(image, view.level)
        quality = ShadingQuality.measure(
            profile,
            view.before.mean(axis=0),
            view.after.mean(axis=0),
            image.layout,
            offset=offset,
            output_offset=output_offset,
            factor=factor,
            counts=counts[channel.label],
        )
        if quality.seam_text is not None:
            logger.info("Channel %s: step at the tile seams %s", channel.label, quality.seam_text)
        channels.append(
            ChannelReport(
                channel.label,
                profile,
                view.before[view.shown],
                view.after[view.shown],
                image.layout,
                factor,
                offset,
                output_offset,
                view.plane,
                quality,
                _model_facts(model.facts),
                (size["y"], size["x"]),
            )
        )
    _, name = places.parent_and_name(url)
    facts = _image_facts(image, seconds)
    report = ImageReport(name, tuple(channels), facts, image.notes, heard_so_far())
    html = report_url(url)
    write_report(written_to(html), written_to(html.removesuffix(".html") + ".png"), report)
    return html


def report_url(url: str) -> str:
    """Where people find the report of a result."""
    parent, name = places.parent_and_name(url)
    return places.join(parent, f"{split_name(name)[0]}_report.html")


def _image_facts(image: MosaicImage, seconds: float) -> tuple[tuple[str, str], ...]:
    voxels = prod(image.levels[0].shape)
    return (
        ("Source", places.parent_and_name(image.url)[1]),
        ("Size", " x ".join(str(n) for n in image.levels[0].shape) + f" ({','.join(image.axes)})"),
        ("Time", f"{seconds:.0f} s, {voxels * image.dtype.itemsize / seconds / 1e6:.0f} MB/s"),
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
    if facts.get("relative_uncertainty") is not None:
        rows.append(("Flat-field uncertainty", f"{100 * facts['relative_uncertainty']:.2f} %"))
    if "resampled" in facts:
        rows.append(("Resampled", str(facts["resampled"])))
    return tuple(rows)


def _planes(image: MosaicImage, level: int) -> Sequence[int]:
    axis = _z(image)
    depth = image.levels[level].shape[axis] if axis is not None else 1
    number = min(_PLANES, depth)
    # Within as few chunks as possible: planes around the middle, then from end to end.
    chunk = image.levels[level].chunks[axis] if axis is not None else 1
    if chunk >= number:
        start = max(0, min(depth // 2 - number // 2, depth - number))
        return range(start, start + number)
    return sorted({round((i + 0.5) * depth / number - 0.5) for i in range(number)})


def _cost(image: MosaicImage, level: int, planes: Sequence[int]) -> int:
    """Bytes of pixels that are decoded for these planes of all channels."""
    axis = _z(image)
    chunk = image.levels[level].chunks[axis] if axis is not None else 1
    slabs = len({z // chunk for z in planes})
    pixels = slabs * chunk * prod(image.levels[level].shape[-2:])
    return 2 * pixels * image.dtype.itemsize * len(image.channels)


def _box(image: MosaicImage, channel: Channel, level: int, z: int) -> Box:
    shape = image.levels[level].shape
    where = {
        "t": slice(0, 1),
        "c": slice(channel.index, channel.index + 1),
        "z": slice(z, z + 1),
        "y": slice(0, shape[-2]),
        "x": slice(0, shape[-1]),
    }
    return tuple(where[axis] for axis in image.axes)


def _factor(image: MosaicImage, level: int) -> tuple[int, int]:
    fine, coarse = image.levels[0].scale, image.levels[level].scale
    y, x = (max(1, round(c / f)) for f, c in zip(fine[-2:], coarse[-2:], strict=True))
    return y, x


def _z(image: MosaicImage) -> int | None:
    return image.axes.index("z") if "z" in image.axes else None
