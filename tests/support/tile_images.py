"""Small acquisitions laid out as one t,c,z,y,x image for each tile, side and angle.

They show the same sample as those of `acquisition`, so that one table can be written in both ways.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from tests.support.acquisition import half, stack_pixels
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack, meta_text

_COLORS = {"488": "00FF66", "561": "FFBF1A"}


def tile_group_name(stack: SyntheticStack) -> str:
    """The name of the group that a row of the table lands in."""
    side = 0 if stack.shutter == "Left" else 1
    return f"Mag{stack.zoom[:-1]}_Tile{stack.tile}_Sh{side}_Rot{stack.rotation}.ome.zarr"


def write_tile_images(
    folder: str | Path,
    name: str,
    stacks: Sequence[SyntheticStack],
    settings: SyntheticSettings,
    *,
    times: Sequence[SyntheticSettings] = (),
    unwritten: Collection[tuple[int, int, str]] = (),
    shared_texts: bool = False,
) -> Path:
    """Write a container and its metadata files.

    Args:
        folder: gets the container and the files beside it.
        name: of the container, with its ending.
        stacks: rows of the acquisition table, in their order; lasers become channels in the order
            in which they appear.
        settings: how to write.
        times: settings of each time point (their pixels differ by the seed); empty for no time
            lapse.
        unwritten: (time, tile, laser) that the run did not come to.
        shared_texts: whether all channels of an image have one metadata file, so that the last
            one's stays; the microscope writes one for each.

    Returns:
        The path of the container.
    """
    container = Path(folder) / name
    container.mkdir(parents=True, exist_ok=True)
    zarr_format: Literal[2, 3] = 3 if settings.version == "0.5" else 2
    zarr.open_group(str(container), mode="a", zarr_format=zarr_format)
    lasers = list(dict.fromkeys(stack.laser for stack in stacks))
    points = list(times) or [settings]
    for time, point in enumerate(points):
        for stack in stacks:
            if (time, stack.tile, stack.laser) in unwritten:
                continue
            group_name = tile_group_name(stack)
            where = str(container / group_name)
            if not (container / group_name).exists():
                _create(where, stack, settings, lasers, zarr_format)
            group = zarr.open_group(where, mode="r+", zarr_format=zarr_format)
            _fill(group, stack, point, time, lasers.index(stack.laser))
            if settings.meta:
                base, _, ending = name.rpartition(".")
                timed = f"{base}_Time{time:03d}.{ending}" if times else name
                own = "" if shared_texts else f"_Ch{_label(stack.laser)}"
                text = meta_text(container, replace(stack, group=group_name), settings)
                (container.parent / f"{timed}_{group_name}{own}_meta.txt").write_text(text)
    return container


def _label(laser: str) -> str:
    return laser.removesuffix(" nm")


def _create(
    where: str,
    stack: SyntheticStack,
    settings: SyntheticSettings,
    lasers: Sequence[str],
    zarr_format: Literal[2, 3],
) -> None:
    group = zarr.open_group(where, mode="w", zarr_format=zarr_format)
    pixels = stack_pixels(stack, settings)
    datasets = []
    for level in range(settings.levels):
        pixels = half(pixels) if level else pixels
        _create_array(group, str(level), pixels.shape, len(lasers), settings)
        size = settings.pixel_um * 2**level
        scale = [1.0, 1.0, settings.z_step_um, size, size]
        place = [0.0, 0.0, stack.z_start_um, stack.y_um, stack.x_um]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": place},
                ],
            }
        )
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    image: dict[str, Any] = {"axes": axes, "datasets": datasets, "name": "image"}
    channels = [
        {"label": _label(laser), "active": True, "color": _COLORS[_label(laser)]}
        for laser in lasers
    ]
    omero = {"channels": channels}
    if zarr_format == 3:
        content: dict[str, Any] = {
            "ome": {
                "version": "0.5",
                "multiscales": [{**image, "type": "image"}],
                "omero": omero,
            }
        }
    else:
        content = {"multiscales": [{"version": "0.4", **image}], "omero": omero}
    group.attrs.update(json.loads(json.dumps(content)))


def _create_array(
    group: zarr.Group,
    path: str,
    shape: tuple[int, ...],
    channels: int,
    settings: SyntheticSettings,
) -> None:
    chunks = tuple(min(c, n) for c, n in zip(settings.chunks, shape, strict=True))
    more: dict[str, Any] = {
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
        "compressors": Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE),
        "attributes": {"_ARRAY_DIMENSIONS": list("tczyx")},
    }
    if settings.version == "0.5":
        more = {
            "dimension_names": list("tczyx"),
            "compressors": BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"),
        }
        if settings.shards is not None:
            sizes = zip(settings.shards, shape, chunks, strict=True)
            more["shards"] = (1, 1, *(max(c, min(s, n) // c * c) for s, n, c in sizes))
    group.create_array(
        path,
        shape=(1, channels, *shape),
        dtype=np.uint16,
        chunks=(1, 1, *chunks),
        fill_value=0,
        **more,
    )


def _fill(
    group: zarr.Group, stack: SyntheticStack, settings: SyntheticSettings, time: int, channel: int
) -> None:
    """Write the pixels of a stack to its place; the image grows along t as the run goes on.

    The first stack has trimmed it to its own planes. Of later ones, the last chunk is filled up
    with their last plane, and what goes beyond is lost.
    """
    pixels = stack_pixels(stack, settings)
    for level in range(settings.levels):
        pixels = half(pixels) if level else pixels
        array = group[str(level)]
        assert isinstance(array, zarr.Array)
        if array.shape[0] <= time:
            array.resize((time + 1, *array.shape[1:]))
        missing = -len(pixels) % array.chunks[2]
        filled = np.concatenate([pixels, pixels[-1:].repeat(missing, axis=0)])
        planes = min(len(filled), array.shape[2])
        array[time, channel, :planes] = filled[:planes]
