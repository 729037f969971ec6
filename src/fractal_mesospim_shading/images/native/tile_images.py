"""Containers of one t,c,z,y,x image for each tile, side and angle, whose (t, c) are stacks.

They come from the writer `MP_OME_Zarr_TCZYX_Writer` of mesoSPIM-control. What differs from one
image for each stack: the names of the groups, the channels, and which text lies beside them.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.native.channels import laser_name
from fractal_mesospim_shading.images.native.discovery import GroupImage, open_image
from fractal_mesospim_shading.images.native.meta import MetaFile
from fractal_mesospim_shading.images.native.stack import GroupName, Stack, meta_file_name
from fractal_mesospim_shading.images.native.surroundings import Surroundings, names_below, read_meta
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url

_TILE = re.compile(
    r"^Mag(?P<zoom>.+?)_Tile(?P<tile>\d+)_Sh(?P<shutter>[01])_Rot(?P<rotation>-?\d+\.?\d*)"
    r"(?:\.ome)?\.zarr$"
)


def timed_name(container: str, time: int) -> str:
    """The name of a container with the mark that the microscope gives a time point of a run."""
    stem, dot, ending = container.rpartition(".")
    return f"{stem}_Time{time:03d}{dot}{ending}"


def parse_tile_name(name: str) -> GroupName | None:
    """Take the name of such a group apart; None where it is none."""
    match = _TILE.match(name)
    if not match:
        return None
    return GroupName(
        zoom=match["zoom"],
        tile=int(match["tile"]),
        shutter=int(match["shutter"]),
        rotation=float(match["rotation"]),
    )


def read_stacks(
    around: Surroundings, child: str, storage_options: StorageOptions
) -> tuple[Stack, ...] | str:
    """Read the metadata of one image: each time point and channel in it is a stack.

    Of a (t, c) that was never written there is no stack.

    Args:
        around: the container.
        child: name of the group.
        storage_options: for remote addresses.

    Returns:
        The stacks by time point and channel, or the reason why the image is left out.
    """
    image = open_image(around, child, storage_options, "tczyx")
    if isinstance(image, str):
        return image
    try:
        channels = image.metadata.channels(image.first.shape)
    except ImageFormatError as error:
        return f"its channels cannot be told: {error}"
    stacks: list[Stack] = []
    times = image.first.shape[0]
    for time, written in _written(image, storage_options).items():
        meta_file, meta, notes = _text_of(around, child, time, times, storage_options)
        stack = image.stack(parse_tile_name(child), meta, notes, meta_file)
        if isinstance(stack, str):
            return stack
        stacks += [_of_channel(stack, channels[index], channels, time) for index in written]
    return tuple(stacks) or "no time point and channel of it was written"


def _written(image: GroupImage, storage_options: StorageOptions) -> dict[int, list[int]]:
    """The channels of each time point that have any chunk, as far as names of folders tell."""
    times, channels = image.first.shape[:2]
    everything = {time: list(range(channels)) for time in range(times)}
    key = image.first.encode_chunk_key((0,) * 5).split("/")
    if len(key) < 5 or any(size > 1 for size in (image.first.shards or image.first.chunks)[:2]):
        return everything
    top = join_url(image.around.url, image.child, image.levels[0].path, *key[:-5])
    begun = set(names_below(top, storage_options))
    written = {
        time: set(names_below(join_url(top, str(time)), storage_options))
        for time in everything
        if str(time) in begun
    }
    return {
        time: [channel for channel in everything[time] if str(channel) in names]
        for time, names in written.items()
    }


def _text_of(
    around: Surroundings, child: str, time: int, times: int, storage_options: StorageOptions
) -> tuple[str, MetaFile | None, list[str]]:
    """The metadata file of a time point, else that of another: the stage takes the same places.

    Returns:
        Its name, its content (None without one that can be used), and what is odd about it.
    """
    usual = meta_file_name(around.name, child)
    order = sorted(range(times), key=lambda other: (other != time, other))
    timed = [meta_file_name(timed_name(around.name, other), child) for other in order]
    names = [timed[0], usual, *timed[1:]] if times > 1 else [usual, *timed]
    name = next((name for name in names if name in around.beside), usual)
    return (name, *read_meta(around, child, storage_options, name))


def _of_channel(stack: Stack, channel: Channel, channels: tuple[Channel, ...], time: int) -> Stack:
    """The stack of one channel, from what the image and its metadata file say together.

    That file is of the channel that was taken last: laser and filter in it are of that one.
    """
    lasers = [laser_name(one.label) for one in channels]
    laser, lead = lasers[channel.index], (time, channel.index)
    notes, remark, unnamed = stack.notes, "", channel.label == f"channel_{channel.index}"
    if unnamed and stack.laser and len(channels) == 1:
        return replace(stack, lead=lead)
    if stack.laser and stack.laser not in lasers:
        notes += (
            f"has a metadata file of the laser '{stack.laser}', which is none of its channels; "
            "their names are taken from 'omero'",
        )
    elif stack.laser and len(channels) > 1:
        remark = (
            f"The channels of an image share one metadata file, written for '{stack.laser}': "
            "place, zoom and side of the others are taken from it as well, their lasers from "
            "'omero'; it does not tell their filters."
        )
    own = stack.laser == laser
    return replace(
        stack,
        laser=laser,
        filter=stack.filter if own else "",
        filter_in_full=stack.filter_in_full and own,
        lead=lead,
        notes=notes,
        remark=remark,
    )
