"""Which plane a preview shows: of a tile of an image, or of a stack of an acquisition."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import Tile
from fractal_mesospim_shading.engine.zero_look import no_data_held
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.flatfield.kernel import profile_names
from fractal_mesospim_shading.flatfield.sampling import plane_count
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.container import is_container
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.results import container_attributes, refuse_unfinished
from fractal_mesospim_shading.images.native.stack import Stack
from fractal_mesospim_shading.images.roi_tables import FOV_TABLE
from fractal_mesospim_shading.images.source import Channel, MultitileImage, PixelSource, SourceView
from fractal_mesospim_shading.images.storage.names import image_name
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.images.tile_tables import refuse_table_of_acquisition
from fractal_mesospim_shading.messages import know_options

know_options("channel", "tile", "z", "mosaic")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlaneWanted:
    """Which plane a person asks for.

    Attributes:
        channel: label, wavelength or index; None for the first.
        tile: number; None for one in the middle.
        z: plane; None for the middle.
        mosaic: which one of an acquisition that holds several, as `info` names them.
    """

    channel: str | int | None = None
    tile: int | None = None
    z: int | None = None
    mosaic: str | None = None


@dataclass(frozen=True)
class PlaneFound:
    """A plane of one tile, at full resolution.

    Attributes:
        image: that holds it.
        box: where it lies in the image.
        channel: its index in the image.
        name: what a person calls it: image, channel, tile and plane.
        held: by channel label, whether the image holds pixels without data, where it says so.
        labels: of the channels that parameters with a number for each are given for.
        own: of these, those that the image has, in its order.
    """

    image: MosaicImage
    box: Box
    channel: int
    name: str
    held: Mapping[str, bool]
    labels: tuple[str, ...]
    own: tuple[int, ...]


class KeptPixels(SourceView):
    """A `PixelSource` that keeps what was read, and reads nothing twice that lies within it.

    For few planes: all of them stay in memory.
    """

    def __init__(self, source: PixelSource) -> None:
        """Nothing is read yet."""
        super().__init__(source)
        self._kept: list[tuple[int, Box, NDArray[Any]]] = []

    def read(self, level: int, box: Box) -> NDArray[Any]:
        """A box of a level, which the caller may change."""
        for kept, whole, pixels in self._kept:
            pairs = list(zip(box, whole, strict=True))
            if kept == level and all(b.start <= a.start and a.stop <= b.stop for a, b in pairs):
                inside = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in pairs)
                return pixels[inside].copy()
        pixels = self._source.read(level, box)
        self._kept.append((level, box, pixels))
        return pixels.copy()


def find_plane(
    url: str, wanted: PlaneWanted, storage: StorageOptions = None, roi_table: str = FOV_TABLE
) -> PlaneFound:
    """Find a plane of an image, or of an acquisition.

    Args:
        url: of the image, or of the container.
        wanted: which plane.
        storage: for a remote address.
        roi_table: name of the table of the fields of view of an image.

    Raises:
        ParameterError: a channel, mosaic, plane or table that does not exist.
        LayoutError: a tile that does not exist.
    """
    with workable(url):
        if is_container(url, storage):
            refuse_table_of_acquisition(roi_table)
            return _of_acquisition(url, wanted, storage)
        image = MosaicImage.open(url, storage, roi_table)
        if wanted.mosaic is not None:
            raise ParameterError("`mosaic` is for acquisitions; an image holds one. Leave it out.")
        channel = channel_index(image.channels, wanted.channel)
        tile = _tile(image, wanted.tile)
        z, box = _box(image, channel, tile, wanted)
        labels = tuple(own.label for own in image.channels)
        name = _name(image.url, labels[channel], tile.number, z)
        every = tuple(range(len(labels)))
        return PlaneFound(image, box, channel, name, no_data_held(image), labels, every)


def _of_acquisition(url: str, wanted: PlaneWanted, storage: StorageOptions) -> PlaneFound:
    """The plane of a stack, which is an image of one tile: its pyramid and labels are its own."""
    collection = open_container(url, storage)
    mosaic = mosaic_named(collection.mosaics(), wanted.mosaic)
    channel = channel_index(mosaic.channels, wanted.channel)
    tile, stack = _stack(mosaic, channel, wanted.tile)
    label = mosaic.channels[channel].label
    logger.info("Tile %d, channel %s: %s", tile, label, stack.group)
    image = MosaicImage.open(join_url(collection.url, stack.group), storage)
    own, names = image.channels[stack.channel_index].label, profile_names(mosaic)
    held = no_data_held(image, {own: names.get((channel, tile)) or names[channel, None]})
    z, box = _box(image, stack.channel_index, _tile(image, None), wanted, stack.time)
    labels = tuple(one.label for one in collection.channels)
    # What else the image of the stack holds is not looked at.
    places = [labels.index(label)] * len(image.channels)
    name = _name(collection.url, label, tile, z)
    return PlaneFound(image, box, stack.channel_index, name, held, labels, tuple(places))


def open_container(url: str, storage: StorageOptions) -> TileCollection:
    """An acquisition that was written to its end.

    Raises:
        ShadingError: it cannot be read, or is an unfinished result.
    """
    refuse_unfinished(url, container_attributes(url, storage))
    return TileCollection.open(url, storage)


def _name(url: str, label: str, tile: int, z: int) -> str:
    return f"{image_name(url)}, channel {label}, tile {tile}, plane {z}"


def _tile(image: MosaicImage, number: int | None) -> Tile:
    tiles = image.layout.tiles
    return tiles[len(tiles) // 2] if number is None else image.layout.tile(number)


def mosaic_named(mosaics: Sequence[NativeMosaic], suffix: str | None) -> NativeMosaic:
    """The mosaic of a name; the only one where there is no other."""
    named = {mosaic.suffix: mosaic for mosaic in mosaics}
    if suffix in named or (suffix is None and len(mosaics) == 1):
        return mosaics[0] if suffix is None else named[suffix]
    known = ", ".join(f"'{name}'" for name in named if name)
    if suffix is None:
        raise ParameterError(f"The acquisition holds the mosaics {known}. Say which by `mosaic`.")
    have = f"it has {known}" if known else "it holds one alone. Leave `mosaic` out"
    raise ParameterError(f"There is no mosaic '{suffix}' in the acquisition; {have}.")


def _stack(mosaic: NativeMosaic, channel: int, tile: int | None) -> tuple[int, Stack]:
    """A tile, and its stack of a channel."""
    if tile is not None:
        mosaic.layout.tile(tile)
    stacks = {t.number: mosaic.stack_of(channel, t.number) for t in mosaic.layout.tiles}
    taken = [(number, stack) for number, stack in stacks.items() if stack is not None]
    if tile is None:
        return taken[len(taken) // 2]
    for number, stack in taken:
        if number == tile:
            return number, stack
    raise ParameterError(
        f"The channel '{mosaic.channels[channel].label}' was not taken in tile {tile}; it was in "
        f"{', '.join(str(number) for number, _ in taken)}. Give another `tile` or `channel`."
    )


def _box(
    image: MosaicImage, channel: int, tile: Tile, wanted: PlaneWanted, time: int = 0
) -> tuple[int, Box]:
    """The plane of one tile, and its box."""
    z = plane_number(image, wanted.z)
    height, width = image.layout.tile_shape
    box = image.axes.box(
        {
            "t": slice(time, time + 1),
            "c": slice(channel, channel + 1),
            "z": slice(z, z + 1),
            "y": slice(tile.y, tile.y + height),
            "x": slice(tile.x, tile.x + width),
        }
    )
    return z, box


def plane_number(image: MultitileImage, z: int | None) -> int:
    """A plane at full resolution; the one in the middle where none is named.

    Raises:
        ParameterError: the image does not have it.
    """
    depth = plane_count(image, 0)
    chosen = depth // 2 if z is None else z
    if not 0 <= chosen < depth:
        raise ParameterError(f"`z` is {z}, but the image has the planes 0 to {depth - 1}.")
    return chosen


def channel_index(channels: Sequence[Channel], chosen: str | int | None) -> int:
    """The channel of a label, else of a wavelength, an index, or a number in a label."""
    if chosen is None:
        return 0
    for names in (
        [channel.label for channel in channels],
        [channel.wavelength_id for channel in channels],
        [str(channel.index) for channel in channels],
        [channel.number for channel in channels],
    ):
        if str(chosen) in names:
            return names.index(str(chosen))
    labels = ", ".join(f"{c.index} '{c.label}'" for c in channels)
    raise ParameterError(f"There is no channel {chosen!r}; the image has {labels}.")
