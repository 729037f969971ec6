"""What an acquisition holds: for people, and for the provenance of what is made from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from fractal_mesospim_shading.errors import LayoutError, SourceReadError
from fractal_mesospim_shading.images.arrays.documents import Box
from fractal_mesospim_shading.images.arrays.reading import chunk_boxes, opened
from fractal_mesospim_shading.images.arrays.sampled_files import stored_bytes
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.placement import TilePlace
from fractal_mesospim_shading.images.native.stack import Stack, listed
from fractal_mesospim_shading.images.native.surroundings import read_meta_text
from fractal_mesospim_shading.images.storage.places import (
    bytes_below,
    connection_errors,
    is_local,
    join_url,
    split_zip,
)

MOST_FILES = 100_000
"""Chunk files of a local folder whose sizes are added up; of more, so many tell what all take."""

# More than this share of a tile in common is unusual; the writer allows 50 %.
_ODD_OVERLAP = 0.55


def describe(
    collection: TileCollection, *, sizes: bool = True, find_zeros: bool = False
) -> dict[str, Any]:
    """Everything that `info` shows about a container, as plain values.

    Args:
        collection: to describe.
        sizes: add up the sizes of files; where they are very many, some tell how large all are.
        find_zeros: look for blocks of zeros, which reads every pixel.

    Returns:
        A dictionary of plain values that can be written as JSON. `suspicious` holds one line
        for each thing that a person should look at.
    """
    suspicious = list(collection.warnings)
    mosaics: tuple[NativeMosaic, ...] = ()
    orientation = "The orientation of the stage's axes is not known."
    try:
        orientation = collection.orientation.text
        mosaics = collection.mosaics()
    except (LayoutError, SourceReadError) as error:
        suspicious.append(str(error))
    for mosaic in mosaics:
        prefix = f"{mosaic.suffix}: " if mosaic.suffix else ""
        suspicious += [prefix + note for note in mosaic.notes]
        suspicious += [prefix + note for note in _overlap_notes(mosaic)]
    if find_zeros:
        suspicious += _zero_notes(collection)
    in_files = is_local(collection.url) and split_zip(collection.url) is None
    some = sizes and in_files and sum(map(_chunk_files, collection.stacks)) > MOST_FILES
    size_of = _sizes(collection, from_some=some) if sizes else {}
    stacks = [_stack_entry(collection, stack, size_of, some) for stack in collection.stacks]
    return {
        "url": collection.url,
        "kind": "mesoSPIM acquisition",
        "name": collection.name,
        "time_point": collection.time_point,
        "ngff_versions": sorted({stack.ngff_version for stack in collection.stacks}),
        "channels": [
            {"label": c.label, "laser": c.laser, "filter": c.filter} for c in collection.channels
        ],
        "sides": sorted({stack.side for stack in collection.stacks}),
        "angles": sorted({stack.rotation for stack in collection.stacks}),
        "orientation": orientation,
        "size_bytes": sum(size_of.values()) if sizes else None,
        "size_from_some": some,
        "mosaics": [_mosaic_entry(mosaic) for mosaic in mosaics],
        "stacks": stacks,
        "left_out": [{"name": i.name, "reason": i.reason} for i in collection.left_out],
        "suspicious": list(dict.fromkeys(suspicious)),
    }


def acquisition_facts(mosaic: NativeMosaic) -> dict[str, Any]:
    """What is worth keeping of the acquisition's metadata."""
    return {
        "rotation": mosaic.rotation,
        "side": mosaic.side,
        "z_start_um": mosaic.z_start_um,
        "stacks": [
            {
                "tile": placed.tile,
                "channel": placed.channel,
                "group": placed.stack.group,
                "laser": placed.stack.laser,
                "filter": placed.stack.filter,
                "side": placed.stack.side,
                "side_told": placed.stack.side_told,
                "zoom": placed.stack.zoom,
                "camera": placed.stack.camera,
                "stage_um": {
                    "x": placed.stack.x_um,
                    "y": placed.stack.y_um,
                    "z_start": placed.stack.z_start_um,
                    "z_end": placed.stack.z_end_um,
                },
                "planes_planned": placed.stack.planes_planned,
                "planes_found": placed.stack.planes_found,
                "first_plane": placed.first_plane,
                "processors": list(placed.stack.processors),
                **({"time": placed.stack.time} if "t" in mosaic.axes else {}),
            }
            for placed in mosaic.placed
        ],
    }


def acquisition_metadata(collection: TileCollection) -> dict[str, Any]:
    """What the metadata files say, for the provenance of a result.

    Returns:
        `common` holds what all files agree on, `stacks` the rest for each group, or, of the first
        time point, for each channel of one; both by section and key.
    """
    first = {(s.group, s.channel_index): s for s in reversed(collection.stacks) if s.meta_file}
    texts = {
        group if not stack.lead else f"{group}, {stack.laser}": read_meta_text(
            collection.url, stack.meta_file or "", collection.storage_options
        )
        for (group, _), stack in reversed(first.items())
    }
    entries = {
        group: {
            (section, key): value for section, keys in text.items() for key, value in keys.items()
        }
        for group, text in texts.items()
    }
    shared = set.intersection(*(set(e.items()) for e in entries.values())) if entries else set()
    return {
        "common": _by_section(dict(shared)),
        "stacks": {
            group: _by_section({k: v for k, v in entry.items() if (k, v) not in shared})
            for group, entry in entries.items()
        },
    }


def _by_section(entries: Mapping[tuple[str, str], str]) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = {}
    for (section, key), value in sorted(entries.items()):
        result.setdefault(section, {})[key] = value
    return result


def _mosaic_entry(mosaic: NativeMosaic) -> dict[str, Any]:
    layout = mosaic.layout
    planes = [item.stack.planes_found for item in mosaic.placed]
    overlap = overlap_of(mosaic)
    return {
        "suffix": mosaic.suffix,
        "rotation": mosaic.rotation,
        "side": mosaic.side,
        "sides": {c.label: list(mosaic.sides(c.index)) for c in mosaic.channels},
        "channels": [channel.label for channel in mosaic.channels],
        "shape": dict(zip(mosaic.axes, mosaic.shape, strict=True)),
        "dtype": mosaic.dtype.name,
        "voxel_um": mosaic.voxel_size_um,
        "tile_shape": {"y": layout.tile_shape[0], "x": layout.tile_shape[1]},
        "rows": layout.rows,
        "columns": layout.columns,
        "tile_map": layout.map_text(),
        "numbering": mosaic.numbering,
        "tiles": [_tile_entry(mosaic, place) for place in mosaic.places],
        "missing_tiles": list(layout.missing),
        "overlap": {axis: None if o is None else round(o, 4) for axis, o in overlap.items()},
        "groups": list(dict.fromkeys(item.stack.group for item in mosaic.placed)),
        "planes": {"smallest": min(planes), "largest": max(planes)},
        "read_units": list(mosaic.read_units(0)),
    }


def _tile_entry(mosaic: NativeMosaic, place: TilePlace) -> dict[str, Any]:
    tile = mosaic.layout.tile(place.number)
    return {
        "number": place.number,
        "row": tile.row,
        "column": tile.column,
        "name": place.name,
        "stage_um": {"x": place.stage_x_um, "y": place.stage_y_um},
        "place_px": {"x": place.x_px, "y": place.y_px},
        "sides": {
            channel.label: mosaic.side_of(channel.index, place.number)
            for channel in mosaic.channels
        },
    }


def _stack_entry(
    collection: TileCollection, stack: Stack, size_of: Mapping[str, int], some: bool
) -> dict[str, Any]:
    """What is shown of a stack; of an image of several, its size is that of its own chunks."""
    finest, size = stack.levels[0], size_of.get(stack.group)
    if stack.lead and size is not None:
        folders = None if some else _chunk_folders(collection, stack)
        size = None if folders is None else _size(collection, folders)
    return {
        "group": stack.group,
        "tile": stack.tile_label,
        "channel": collection.channel_of(stack).label,
        "side": stack.side,
        "rotation": stack.rotation,
        "shape": list(stack.shape),
        "planes_planned": stack.planes_planned,
        "planes_found": stack.planes_found,
        "z_um": [stack.plane_z_um(0), stack.plane_z_um(stack.planes_found - 1)],
        "levels": len(stack.levels),
        "chunks": list(finest.chunks),
        "shards": list(finest.shards) if finest.shards else None,
        "size_bytes": size,
        "processors": list(stack.processors),
        "position_from": stack.position_source,
        "metadata_file": stack.meta_file,
        **dict(zip(("time", "channel_index"), stack.lead, strict=False)),
    }


def _chunk_folders(collection: TileCollection, stack: Stack) -> list[str] | None:
    """Where the chunks of a stack lie in the arrays that it shares; None where they are not apart.

    Folders of a stack that was never written at a level are not there.
    """
    folders = []
    for number, level in enumerate(stack.levels):
        array = opened(stack.stored(collection.url, collection.storage_options, number))
        unit = (array.shards or array.chunks)[: len(stack.lead)]
        key = array.metadata.encode_chunk_key((*stack.lead, 0, 0, 0)).split("/")
        if any(size > 1 for size in unit) or len(key) < array.ndim:
            return None
        folders.append("/".join((stack.group, level.path, *key[:-3])))
    return folders


def _chunk_files(stack: Stack) -> int:
    """Files that the chunks of a stack lie in, those of all levels."""
    return sum(
        prod(-(-size // unit) for size, unit in zip(level.shape, units, strict=True))
        for level in stack.levels
        for units in [(level.shards or level.chunks)[-len(level.shape) :]]
    )


def _sizes(collection: TileCollection, *, from_some: bool) -> dict[str, int]:
    """Bytes of each group: of all its files, or of its chunks as some files tell."""
    groups = {stack.group: stack for stack in collection.stacks}
    if not from_some:
        return {group: _size(collection, [group]) for group in groups}
    each = max(1, MOST_FILES // sum(len(stack.levels) for stack in groups.values()))
    return {group: _size_from_some(collection, stack, each) for group, stack in groups.items()}


def _size_from_some(collection: TileCollection, stack: Stack, most: int) -> int:
    """Bytes of the chunks of a stack's arrays, told from so many files of each."""
    where = collection.url, collection.storage_options
    arrays = [opened(stack.stored(*where, number)) for number in range(len(stack.levels))]
    return sum(stored_bytes(array, most) or 0 for array in arrays)


def _size(collection: TileCollection, folders: Iterable[str]) -> int:
    """Bytes of all files in folders of the container."""
    options = json.loads(collection.storage_options)
    total = 0
    for folder in folders:
        with suppress(*connection_errors()):
            total += bytes_below(join_url(collection.url, folder), options)
    return total


def overlap_of(mosaic: NativeMosaic) -> dict[str, float | None]:
    """How much of a tile its neighbour sees too, for y and x: 0.1 is 10 %.

    None for a single row (column); below 0 where there is a gap. The largest overlap of
    direct neighbours counts.
    """
    tiles = {(t.row, t.column): mosaic.place_of(t.number) for t in mosaic.layout.tiles}
    height, width = mosaic.layout.tile_shape
    along_y, along_x = [], []
    for (row, column), place in tiles.items():
        below, right = tiles.get((row + 1, column)), tiles.get((row, column + 1))
        if below is not None:
            along_y.append(1 - (below.y_px - place.y_px) / height)
        if right is not None:
            along_x.append(1 - (right.x_px - place.x_px) / width)
    return {"y": max(along_y, default=None), "x": max(along_x, default=None)}


def _overlap_notes(mosaic: NativeMosaic) -> list[str]:
    notes = []
    for axis, overlap in overlap_of(mosaic).items():
        if overlap is not None and overlap > _ODD_OVERLAP:
            notes.append(
                f"Neighbouring tiles share {overlap:.0%} along {axis}; the microscope allows 50 %. "
                "Stacks of an earlier run may lie between those of this one."
            )
        if overlap is not None and overlap < 0:
            notes.append(f"There are gaps between tiles along {axis} ({-overlap:.0%} of a tile).")
    return notes


def _zero_notes(collection: TileCollection) -> list[str]:
    notes = []
    for stack in collection.stacks:
        blocks = zero_blocks(collection.url, collection.storage_options, stack)
        if blocks:
            planes = {plane for z, *_ in blocks for plane in range(z.start, z.stop)}
            notes.append(
                f"{listed([stack.group])} holds {len(blocks)} blocks of zeros, in {len(planes)} of "
                f"{stack.planes_found} planes: data that the microscope's writer lost. They stay 0 "
                "and are left out of estimates."
            )
    return notes


def zero_blocks(url: str, storage_options: str, stack: Stack) -> tuple[Box, ...]:
    """Read a stack chunk by chunk, each once, and list the blocks without any signal.

    Args:
        url: of the container.
        storage_options: as JSON.
        stack: to look at.

    Returns:
        One box for each run of zero planes in each chunk, in the order of the array.

    Raises:
        SourceReadError: a chunk cannot be read; the message names it.
    """
    level = stack.levels[0]
    blocks = []
    for box in chunk_boxes(level.shape, level.chunks):
        empty = ~stack.read(url, storage_options, box).any(axis=(1, 2))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], empty.view(np.int8), [0]])))
        for start, stop in (box[0].start + edges.reshape(-1, 2)).tolist():
            blocks.append((slice(start, stop), *box[1:]))
    return tuple(blocks)
