"""Pixels that belong to no tile: nothing corrects them, so nothing may be there unasked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import prod

import numpy as np

from fractal_mesospim_shading.core.blocks import cut
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.core.threads import in_order
from fractal_mesospim_shading.errors import LayoutError, SourceReadError
from fractal_mesospim_shading.images.arrays.documents import Box, document_of, fill_value
from fractal_mesospim_shading.images.arrays.file_states import file_ranges, states
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.storage.places import reading_errors
from fractal_mesospim_shading.options.base import OutsideTiles

logger = logging.getLogger(__name__)

_SHOWN = 3


@dataclass(frozen=True)
class OutsideData:
    """One place outside of every tile where the image is not 0.

    Attributes:
        channel: its label.
        z: plane, None where there are none.
        y, x: (start, stop) of the part that was read there.
        largest: the largest value in it.
    """

    channel: str
    z: int | None
    y: tuple[int, int]
    x: tuple[int, int]
    largest: float


@dataclass(frozen=True)
class OutsideFacts:
    """What lies outside of every tile.

    Attributes:
        share: of a plane, 0 to 1.
        boxes: (y, x) that hold these pixels.
        found: a place where the image is not 0; None where none was found.
        whole: whether all of it was looked at.
    """

    share: float
    boxes: tuple[tuple[slice, slice], ...]
    found: OutsideData | None
    whole: bool

    def where(self) -> str:
        """The boxes for a person."""
        texts = [f"y {y.start}..{y.stop}, x {x.start}..{x.stop}" for y, x in self.boxes[:_SHOWN]]
        more = len(self.boxes) - _SHOWN
        return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")


def check_outside(
    image: MosaicImage, layout: TileLayout, outside_tiles: OutsideTiles, workers: int = 1
) -> None:
    """Refuse an image with data outside of every tile, unless it is said what to do.

    Chunks that are not there are not looked at; of others the pixels outside are read.

    Args:
        image: to be corrected.
        layout: of what is corrected each by itself: tiles, or the whole plane.
        outside_tiles: what to do.
        workers: chunks read at a time.

    Raises:
        LayoutError: the image is not 0 there.
        SourceReadError: a chunk cannot be read.
    """
    if not layout.gaps:
        return
    if outside_tiles != "refuse":
        facts = OutsideFacts(_share(layout), layout.gaps, None, False)
        done = "stay as they are" if outside_tiles == "keep" else "are made 0"
        logger.info(
            "%.2g %% of each plane belongs to no tile (%s); these pixels %s.",
            100 * facts.share,
            facts.where(),
            done,
        )
        return
    facts = outside_facts(image, layout, workers=workers)
    if facts.found is None:
        logger.info(
            "%.2g %% of each plane belongs to no tile (%s); the image is 0 there.",
            100 * facts.share,
            facts.where(),
        )
        return
    place = f"channel {facts.found.channel}"
    if facts.found.z is not None:
        place += f", plane {facts.found.z}"
    where, missing = facts.where(), ", ".join(str(number) for number in layout.missing)
    if missing:
        where += f"; missing tiles: {missing}"
    raise LayoutError(
        f"{100 * facts.share:.2g} % of each plane belongs to no tile of the table ({where}), but "
        f"the image is not 0 there: up to {facts.found.largest:g} in {place}. Nothing corrects "
        "these pixels, and they would stand raw among corrected ones. Correct the table of tiles, "
        "or set `outside_tiles` to keep (they stay as they are) or to zero (they are made 0)."
    )


def outside_facts(
    image: MosaicImage, layout: TileLayout, *, most: int | None = None, workers: int = 1
) -> OutsideFacts:
    """What lies outside of every tile; reads until it finds something that is not 0.

    Args:
        image: to look at.
        layout: of its tiles.
        most: chunks to read at most; None for no limit.
        workers: chunks read at a time.

    Raises:
        SourceReadError: a chunk cannot be read.
    """
    boxes = _boxes(image, layout)
    found = None
    for found in in_order(partial(_held, image), islice(boxes, most), workers):
        if found is not None:
            break
    whole = found is not None or most is None or next(boxes, None) is None
    return OutsideFacts(_share(layout), layout.gaps, found, whole)


def _share(layout: TileLayout) -> float:
    pixels = sum((y.stop - y.start) * (x.stop - x.start) for y, x in layout.gaps)
    return float(pixels / prod(layout.plane_shape))


def _boxes(image: MosaicImage, layout: TileLayout) -> Iterator[Box]:
    """The parts of chunks that lie outside, but for chunks that are not there."""
    level = image.levels[0]
    zero_fill = fill_value(document_of(image.array(0).metadata)) == 0
    lead = [slice(0, n) for n in level.shape[:-2]]
    for y, x in layout.gaps:
        for box in cut((*lead, y, x), level.shards or level.chunks):
            if not zero_fill or _is_there(image, box):
                yield from cut(box, level.chunks)


def _is_there(image: MosaicImage, box: Box) -> bool:
    array = image.array(0)
    try:
        return any(state is not None for state in states(array, file_ranges(array, box)))
    except reading_errors() as error:
        raise SourceReadError(
            f"A chunk of '{image.stored(0)[0].where}' cannot be looked at ({error}). It is damaged "
            "or not readable; copy it again from the original."
        ) from error


def _held(image: MosaicImage, box: Box) -> OutsideData | None:
    """What a box holds; None where that is nothing but zeros."""
    pixels = image.read(0, box)
    if not pixels.any():
        return None
    first = np.unravel_index(int(np.flatnonzero(pixels)[0]), pixels.shape)
    place = {
        axis: part.start + int(i) for axis, part, i in zip(image.axes, box, first, strict=True)
    }
    y, x = ((part.start, part.stop) for part in box[-2:])
    label = image.channels[place.get("c", 0)].label
    return OutsideData(label, place.get("z"), y, x, float(np.max(pixels)))
