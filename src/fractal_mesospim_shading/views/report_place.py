"""Where the report of a result goes, and whether there can be one; asked before a pixel is read."""

from __future__ import annotations

from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.output import split_name
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.views.coarse import READ_BYTES, coarse_level, cost_of, planes_shown


def report_obstacle(url: str) -> str | None:
    """Why no report of a result can be written; None where it can.

    Args:
        url: of the result.
    """
    return None if places.is_local(url) else "where the result lies on remote storage"


def can_show(image: MosaicImage) -> bool:
    """Whether planes of an image can be shown without decoding too much."""
    level = coarse_level(image.levels)
    return cost_of(image, level, planes_shown(image, level)) <= READ_BYTES


def report_url(url: str) -> str:
    """Where people find the report of a result."""
    parent, name = places.parent_and_name(url)
    return places.join_url(parent, f"{split_name(name)[0]}_report.html")
