"""Containers of one t,c,z,y,x image for each tile, side and angle, whose (t, c) are stacks.

They come from the writer `MP_OME_Zarr_TCZYX_Writer` of mesoSPIM-control. What differs from one
image for each stack: the names of the groups, the channels, and which text lies beside them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.native.channels import laser_name
from fractal_mesospim_shading.images.native.discovery import GroupImage, open_image
from fractal_mesospim_shading.images.native.stack import (
    BesideName,
    GroupName,
    GroupStacks,
    Stack,
)
from fractal_mesospim_shading.images.native.surroundings import Surroundings, names_below, read_meta
from fractal_mesospim_shading.images.source import Channel
from fractal_mesospim_shading.images.storage.places import StorageOptions, join_url

_TILE = re.compile(
    r"^Mag(?P<zoom>.+?)_Tile(?P<tile>\d+)_Sh(?P<shutter>[01])_Rot(?P<rotation>-?\d+\.?\d*)"
    r"(?:\.ome)?\.zarr$"
)


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
) -> GroupStacks | str:
    """Read the metadata of one image: each time point and channel in it is a stack.

    Of a (t, c) that was never written there is no stack. The microscope writes a metadata file for
    each; where that is missing, another one serves, and that is said.

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
    name, texts = parse_tile_name(child), around.texts.get(child, {})
    # A text may have to serve several channels and time points; it is read once.
    described: dict[BesideName, Stack | str] = {}
    stacks: list[Stack] = []
    for time, written in _written(image, storage_options).items():
        for index in written:
            own = BesideName(child, time, channels[index].label)
            nearest = partial(min, texts, key=partial(_distance, own), default=own)
            about = own if own in texts else nearest()
            if about not in described:
                text = read_meta(around, about, storage_options)
                described[about] = image.stack(name, text, about)
            stack = described[about]
            if isinstance(stack, str):
                return stack
            stack = replace(stack, lead=(time, index), projection_file=_projection(around, own))
            stacks.append(_of_channel(stack, channels, own_time=(about.time or 0) == time))
    if not stacks:
        return "no time point and channel of it was written"
    return GroupStacks(tuple(stacks), image.opened)


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


def _distance(own: BesideName, text: BesideName) -> tuple[int, int, str]:
    """How far a metadata file is from being that of a stack: the least serves.

    Its own comes first, then one of its channel at another time (the stage takes the same places),
    one that is for all channels, and one of another channel.
    """
    away = abs((text.time or 0) - (own.time or 0))
    if text.channel is None:
        return 1, away, ""
    other = laser_name(text.channel) != laser_name(own.channel or "")
    return 2 if other else 0, away, text.channel


def _projection(around: Surroundings, own: BesideName) -> str | None:
    """Name of the maximum projection of a stack; without a mark where there is one time point."""
    unmarked = None if own.time else around.projection_name(replace(own, time=None))
    return unmarked or around.projection_name(own)


def _of_channel(stack: Stack, channels: tuple[Channel, ...], *, own_time: bool) -> Stack:
    """A stack with what its image and a metadata file say of its channel together.

    That file may be of another channel: laser and filter in it are of that one.

    Args:
        stack: as the file tells it.
        channels: of the image.
        own_time: whether the file is of its time point.
    """
    lasers = [laser_name(one.label) for one in channels]
    laser, index = lasers[stack.channel_index], stack.channel_index
    if stack.laser and len(channels) == 1 and channels[index].label == f"channel_{index}":
        return stack
    notes, remarks = stack.notes, []
    if stack.laser and stack.laser not in lasers:
        notes += (
            f"has a metadata file of the laser '{stack.laser}', which is none of its channels; "
            "their names are taken from 'omero'",
        )
    elif stack.laser and stack.laser != laser:
        remarks.append(
            f"Channel '{laser}' has no metadata file of its own: place, zoom, camera and side are "
            f"taken from that of '{stack.laser}', the laser from 'omero'; its filter is not known."
        )
    if stack.meta_file and not own_time:
        remarks.append(
            "Some time points have no metadata file of their own; the nearest that there is tells "
            "their places."
        )
    own = stack.laser == laser
    return replace(
        stack,
        laser=laser,
        filter=stack.filter if own else "",
        filter_in_full=stack.filter_in_full and own,
        notes=notes,
        remark=" ".join(remarks),
    )
