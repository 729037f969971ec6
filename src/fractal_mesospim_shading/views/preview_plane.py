"""Which plane a preview shows: of a tile of an image, or of a stack of an acquisition."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fractal_mesospim_shading.engine.zero_look import no_data_held
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.flatfield.kernel import profile_names
from fractal_mesospim_shading.flatfield.sampling import layout_at_level, plane_count
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.native.collection import TileCollection, is_container
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.results import container_attributes, refuse_unfinished
from fractal_mesospim_shading.images.native.stack import Stack
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url
from fractal_mesospim_shading.images.storage.stores import workable
from fractal_mesospim_shading.messages import know_options

know_options("channel", "tile", "z", "level", "mosaic")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlaneWanted:
    """Which plane a person asks for.

    Attributes:
        channel: label, wavelength or index; None for the first.
        tile: number; None for one in the middle.
        z: plane of the level; None for the middle.
        level: of the pyramid.
        mosaic: which one of an acquisition that holds several, as `info` names them.
    """

    channel: str | int | None = None
    tile: int | None = None
    z: int | None = None
    level: int = 0
    mosaic: str | None = None


@dataclass(frozen=True)
class PlaneFound:
    """A plane of one tile.

    Attributes:
        image: that holds it.
        box: where it lies in a level of the image.
        held: whether its channel holds pixels without data, as the image says of itself; None
            where it does not say.
    """

    image: MosaicImage
    box: Box
    held: bool | None


def find_plane(url: str, wanted: PlaneWanted, storage: StorageOptions = None) -> PlaneFound:
    """Find a plane of an image, or of an acquisition.

    Args:
        url: of the image, or of the container.
        wanted: which plane.
        storage: for a remote address.

    Raises:
        ParameterError: a channel, mosaic, plane or level that does not exist.
        LayoutError: a tile that does not exist.
    """
    with workable(url):
        if is_container(url, storage):
            return _of_acquisition(url, wanted, storage)
        image = MosaicImage.open(url, storage)
        if wanted.mosaic is not None:
            raise ParameterError("`mosaic` is for acquisitions; an image holds one. Leave it out.")
        channel = _channel(image.channels, wanted.channel)
        held = no_data_held(image).get(image.channels[channel].label)
        return PlaneFound(image, _box(image, channel, wanted.tile, wanted), held)


def _of_acquisition(url: str, wanted: PlaneWanted, storage: StorageOptions) -> PlaneFound:
    """The plane of a stack, which is an image of one tile: its pyramid and labels are its own."""
    refuse_unfinished(url, container_attributes(url, storage))
    collection = TileCollection.open(url, storage)
    mosaic = _mosaic(collection.mosaics(), wanted.mosaic)
    channel = _channel(mosaic.channels, wanted.channel)
    tile, stack = _stack(mosaic, channel, wanted.tile)
    logger.info("Tile %d, channel %s: %s", tile, mosaic.channels[channel].label, stack.group)
    image = MosaicImage.open(join_url(collection.url, stack.group), storage)
    own, names = image.channels[stack.channel_index].label, profile_names(mosaic)
    held = no_data_held(image, {own: names.get((channel, tile)) or names[channel, None]})
    box = _box(image, stack.channel_index, None, wanted, stack.time)
    return PlaneFound(image, box, held.get(own))


def _mosaic(mosaics: Sequence[NativeMosaic], suffix: str | None) -> NativeMosaic:
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
    image: MosaicImage, channel: int, tile: int | None, wanted: PlaneWanted, time: int = 0
) -> Box:
    """The box of a plane of one tile."""
    level = wanted.level
    if not 0 <= level < len(image.levels):
        raise ParameterError(
            f"`level` is {level}, but the image has the levels 0 to {len(image.levels) - 1}."
        )
    layout = layout_at_level(image, level)
    middle = layout.tiles[len(layout.tiles) // 2].number
    place = layout.tile(middle if tile is None else tile)
    depth = plane_count(image, level)
    z = depth // 2 if wanted.z is None else wanted.z
    if not 0 <= z < depth:
        raise ParameterError(f"`z` is {z}, but level {level} has the planes 0 to {depth - 1}.")
    return image.axes.box(
        {
            "t": slice(time, time + 1),
            "c": slice(channel, channel + 1),
            "z": slice(z, z + 1),
            "y": slice(place.y, place.y + layout.tile_shape[0]),
            "x": slice(place.x, place.x + layout.tile_shape[1]),
        }
    )


def _channel(channels: Sequence[Channel], chosen: str | int | None) -> int:
    """The channel of a label, else of a wavelength, else of an index."""
    if chosen is None:
        return 0
    for names in (
        [channel.label for channel in channels],
        [channel.wavelength_id for channel in channels],
        [str(channel.index) for channel in channels],
    ):
        if str(chosen) in names:
            return names.index(str(chosen))
    labels = ", ".join(f"{c.index} '{c.label}'" for c in channels)
    raise ParameterError(f"There is no channel {chosen!r}; the image has {labels}.")
