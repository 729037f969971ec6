"""Which tiles and planes of any image are empty; nothing is written but a picture, if wanted."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fractal_mesospim_shading.core.emptiness.regions import Choice, TileRegions, choose
from fractal_mesospim_shading.engine.resources import estimate_workers, parse_amount
from fractal_mesospim_shading.errors import OutputWriteError, ParameterError
from fractal_mesospim_shading.flatfield.empty_planes import EmptyPlanes, look_for_empty
from fractal_mesospim_shading.flatfield.empty_sample import (
    READ_AT_MOST,
    least_to_read,
    level_to_look_at,
    most_planes,
    sample_to_look_at,
)
from fractal_mesospim_shading.flatfield.plane_sample import Sample, box_bytes
from fractal_mesospim_shading.flatfield.sampling import plane_count
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.images.native.opening import open_collection
from fractal_mesospim_shading.images.roi_tables import FOV_TABLE
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.tile_tables import refuse_table_of_acquisition
from fractal_mesospim_shading.jobs.outlook import Outlook, size_text
from fractal_mesospim_shading.jobs.work import prefix_of
from fractal_mesospim_shading.messages import counted, know_options
from fractal_mesospim_shading.options.base import ZeroIs
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.options.values import validated
from fractal_mesospim_shading.views.contact_sheet import contact_sheet

know_options("picture", "read_at_most")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmptyWanted:
    """How a person wants empty regions to be looked for.

    Attributes:
        channel: label, wavelength or index; None for all.
        picture: PNG file to write; None for none.
        zero_is: what a pixel of 0 is, as in the correction.
        storage_options: of remote addresses.
        read_at_most: amount of pixels of each channel and side, such as 4GB, or bytes.
        input_roi_table: name of the table of the fields of view.
    """

    channel: str | int | None = None
    picture: str | None = None
    zero_is: ZeroIs = "auto"
    storage_options: StorageOptions = None
    read_at_most: str | int = READ_AT_MOST
    input_roi_table: str = FOV_TABLE


@dataclass(frozen=True)
class EmptyChannel:
    """What of a channel and illumination side is empty.

    Attributes:
        label: of the channel and side.
        looked_at: planes that were read.
        most_planes: that would be where all may be read.
        level: of the pyramid.
        tiles: what of each tile is empty.
        confidence: probability that light of sample at the limit (2 % of the medium's, and five
            standard errors, over a hundredth of a plane) would have shown in any place of a
            plane that is called empty; 0 without such planes.
    """

    label: str
    looked_at: int
    most_planes: int
    level: int
    tiles: tuple[TileRegions, ...]
    confidence: float

    def facts(self) -> Document:
        """All of it as JSON."""
        return {
            "label": self.label,
            "planes_looked_at": self.looked_at,
            "most_planes": self.most_planes,
            "level": self.level,
            "confidence": round(self.confidence, 4),
            "tiles": [
                {
                    "tile": tile.tile,
                    "planes": [tile.planes[0], tile.planes[1] - 1],
                    "planes_looked_at": tile.looked_at,
                    "empty_share": round(tile.share, 4),
                    "empty_z": [list(ends) for ends in tile.ranges],
                    "confidence": round(tile.confidence, 4),
                }
                for tile in self.tiles
            ],
        }

    def lines(self) -> list[str]:
        """The same as a table."""
        head = f"{self.label}: {counted(self.looked_at, 'plane')} of level {self.level} looked at"
        if self.looked_at < self.most_planes:
            head += f", of {self.most_planes} that a larger `read_at_most` shows"
        if not self.confidence:
            return [head + "; no shape is shared by planes of two tiles, or of both ends of one."]
        rows = [head, "  tile   empty   from plane to plane      confidence"]
        for tile in self.tiles:
            ranges = "all" if tile.whole else ", ".join(f"{a} to {b}" for a, b in tile.ranges)
            sure = f"{tile.confidence:.2f}" if tile.confidence else ""
            share = f"{100 * tile.share:.0f} %" if tile.looked_at else "no data"
            rows.append(
                f"  {tile.tile:>4}  {share:>6}   {ranges or 'none':<24} {sure:>10}".rstrip()
            )
        return rows


@dataclass(frozen=True)
class EmptyResult:
    """Which regions of an image are empty.

    Attributes:
        image_url: of the image or acquisition.
        channels: by channel and illumination side.
        fov_list: tiles to name as empty, for all channels; None for no tiles.
        z_levels: two planes: those below the first and above the second are empty in these tiles
            (in the corner tiles where `fov_list` is None); None for all planes.
        picture: address of the contact sheet, None without.
        input_roi_table: name of the table of the fields of view.
    """

    image_url: str
    channels: tuple[EmptyChannel, ...]
    fov_list: tuple[int, ...] | None
    z_levels: tuple[int, int] | None
    picture: str | None = None
    input_roi_table: str = FOV_TABLE

    @property
    def options(self) -> str:
        """The options of the command line that name what is empty; "" where nothing is."""
        return Choice(self.fov_list, self.z_levels).options()

    @property
    def command(self) -> str:
        """A line to copy."""
        words = ["mesospim-shading", "correct-flatfield", shlex.quote(self.image_url)]
        if self.input_roi_table != FOV_TABLE:
            words += ["--input-roi-table", shlex.quote(self.input_roi_table)]
        return " ".join([*words, self.options]).rstrip()

    def facts(self) -> Document:
        """All of it as JSON."""
        return {
            "image": self.image_url,
            "channels": [channel.facts() for channel in self.channels],
            "fov_list": None if self.fov_list is None else list(self.fov_list),
            "z_levels": None if self.z_levels is None else list(self.z_levels),
            "command": self.command,
            "picture": self.picture,
        }

    def lines(self) -> list[str]:
        """In plain words."""
        rows = [line for channel in self.channels for line in (*channel.lines(), "")]
        if self.options:
            rows += ["What is empty in all channels:", f"  {self.command}"]
        else:
            rows += [
                "Nothing is surely empty in all channels: without tiles and planes BaSiC estimates "
                "the flat-field from all of them:",
                f"  {self.command}",
            ]
        rows.append("Or let each channel use what it has (`scenario=auto`).")
        if self.picture is not None:
            rows.append(f"Picture: {self.picture}")
        return rows


def find_empty(url: str, wanted: EmptyWanted) -> EmptyResult:
    """Look for empty tiles and planes of an image or an acquisition.

    Args:
        url: of the image, or of the container.
        wanted: what is looked at.

    Raises:
        ShadingError: one readable error.
    """
    shared = {"zero_is": wanted.zero_is, "storage_options": wanted.storage_options}
    options = validated(FlatfieldOptions, shared)
    with workable(url):
        looks = _looks(url, wanted, options)
        found = [_look(look, options, drawn=wanted.picture is not None) for look in looks]
    choice = _common(found)
    picture = None
    if wanted.picture is not None:
        picture = _write(wanted.picture, [look.label for look in looks], found)
    channels = tuple(
        EmptyChannel(
            look.label,
            len(seen.refs),
            most_planes(look.image, look.group),
            seen.level,
            seen.regions,
            seen.confidence,
        )
        for look, seen in zip(looks, found, strict=True)
    )
    return EmptyResult(
        url, channels, choice.fov_list, choice.z_levels, picture, wanted.input_roi_table
    )


def plan_find_empty(url: str, wanted: EmptyWanted) -> Outlook:
    """What `find_empty` is going to read; no pixel is.

    Raises:
        ShadingError: it would be refused.
    """
    options = validated(
        FlatfieldOptions, {"zero_is": wanted.zero_is, "storage_options": wanted.storage_options}
    )
    with workable(url):
        looks = _looks(url, wanted, options)
        stored = sum(look.bytes * look.image.stored_share() for look in looks)
    return Outlook(
        url,
        wanted.picture or "nothing",
        {},
        {},
        planes={look.label: look.text() for look in looks},
        read_bytes=int(stored),
    )


@dataclass(frozen=True)
class _Look:
    """What is looked at of a channel and side.

    Attributes:
        image: to read from.
        group: of its model groups.
        label: of the channel and side, with that of the mosaic.
        sample: the planes.
        bytes: of pixels that are read for it.
    """

    image: MultitileImage
    group: ModelGroup
    label: str
    sample: Sample
    bytes: int

    def text(self) -> str:
        """The planes in words."""
        tiles = {tile for tile, _ in self.sample.planes}
        number = counted(len(self.sample.planes), "plane")
        where = f"of {counted(len(tiles), 'tile')}, {size_text(self.bytes)} of pixels"
        return f"{number} of level {self.sample.level} {where}"


def _looks(url: str, wanted: EmptyWanted, options: FlatfieldOptions) -> list[_Look]:
    """What is looked at of each channel and side.

    Raises:
        ParameterError: there is no such channel, or too little may be read to compare anything.
    """
    budget = parse_amount(wanted.read_at_most, "read_at_most")
    images = _opened(url, options.storage_options, wanted.input_roi_table)
    looks = []
    for image, group in _chosen(images, wanted.channel):
        sample = sample_to_look_at(image, group, budget)
        label = prefix_of(image, images) + group.label
        if not sample.planes:
            raise ParameterError(
                f"`read_at_most` is {size_text(budget)}, too little for channel {label}: its "
                f"chunks are large, and planes of two places have to be compared. Expected "
                f"{-(-least_to_read(image, group) // 10**6)}MB or more."
            )
        looks.append(_Look(image, group, label, sample, sample.read_bytes()))
    return looks


def _look(look: _Look, options: FlatfieldOptions, *, drawn: bool) -> EmptyPlanes:
    """What was found, with the means of windows where they are going to be drawn."""
    workers = estimate_workers(box_bytes(look.image, level_to_look_at(look.image)), options)
    logger.info("Channel %s: looking for empty planes", look.group.label)
    no_data = options.zero_is != "data"
    seen = look_for_empty(look.group, look.sample, zero_is_no_data=no_data, workers=workers)
    return replace(seen, means=None, windows=seen.windows if drawn else None)


def _opened(url: str, storage: StorageOptions, roi_table: str) -> list[MultitileImage]:
    if is_container(url, storage):
        refuse_table_of_acquisition(roi_table)
        return list(open_collection(url, storage).mosaics())
    return [MosaicImage.open(url, storage, roi_table)]


def _chosen(
    images: Sequence[MultitileImage], channel: str | int | None
) -> list[tuple[MultitileImage, ModelGroup]]:
    every = [(image, group) for image in images for group in image.model_groups]
    if channel is None:
        return every
    named = [
        (image, group)
        for image, group in every
        if str(channel)
        in (group.label, group.channel.label, group.channel.wavelength_id, f"{group.channel.index}")
    ]
    if not named:
        labels = ", ".join(dict.fromkeys(repr(group.channel.label) for _, group in every))
        raise ParameterError(f"There is no channel '{channel}'; the image has {labels}.")
    return named


def _common(found: Sequence[EmptyPlanes]) -> Choice:
    """What is empty in all of them."""
    image = found[0].image
    depth = max(plane_count(seen.image, 0) for seen in found)
    return choose([seen.regions for seen in found], image.layout.corners, depth)


def _write(path: str, labels: Sequence[str], found: Sequence[EmptyPlanes]) -> str:
    try:
        Path(path).write_bytes(contact_sheet(labels, found))
    except OSError as error:
        raise OutputWriteError(f"The picture cannot be written to {path}: {error}") from error
    return path
