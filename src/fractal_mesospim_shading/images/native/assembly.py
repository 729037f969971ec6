"""Lay the stacks of one mosaic out: numbers by position, heights, missing tiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.images.native.groups import (
    Acquisition,
    StackGroup,
    cells_of,
    grid_lines,
    listed,
    split_stacks,
)
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic, PlacedStack, TilePlace
from fractal_mesospim_shading.images.native.names import natural_key
from fractal_mesospim_shading.images.native.stack import Stack


def build_mosaics(stacks: Sequence[Stack], acquisition: Acquisition) -> tuple[NativeMosaic, ...]:
    """Sort stacks into mosaics and lay out each.

    Args:
        stacks: of the acquisition.
        acquisition: what they have in common.

    Raises:
        LayoutError: stacks that should form one mosaic differ in size or plane distance.
    """
    return tuple(_lay_out(group, acquisition) for group in split_stacks(stacks, acquisition))


def _lay_out(group: StackGroup, acquisition: Acquisition) -> NativeMosaic:
    """Number the tiles by position and put the stacks at their heights."""
    cells = cells_of(group.stacks, acquisition)
    notes = list(group.notes)
    chosen = {}
    for (channel, row, column, _), same in cells.items():
        chosen[channel, row, column], note = _newest(same)
        notes += [note] if note else []
    (_, row_count), (_, column_count) = grid_lines(group.stacks, acquisition)
    height, width = group.stacks[0].tile_shape
    tiles: dict[tuple[int, int], list[Stack]] = defaultdict(list)
    for (_, row, column), stack in sorted(chosen.items()):
        tiles[row, column].append(stack)
    layout = TileLayout.from_origins(
        [(row * height, column * width) for row, column in tiles],
        (height, width),
        (row_count * height, column_count * width),
        [_name(same) for same in tiles.values()],
    )
    numbers = {(tile.y // height, tile.x // width): tile.number for tile in layout.tiles}
    used = sorted({channel for channel, _, _ in chosen})
    step = group.stacks[0].z_step_um
    z_start = min(stack.z_low_um for stack in chosen.values())
    placed = tuple(
        PlacedStack(
            used.index(channel),
            numbers[row, column],
            stack,
            round((stack.z_low_um - z_start) / step),
        )
        for (channel, row, column), stack in sorted(chosen.items())
    )
    depth = max(item.planes.stop for item in placed)
    notes += _depth_notes(placed, depth, z_start, step) + _hole_notes(
        placed, layout, used, acquisition
    )
    notes += _sign_notes(layout, acquisition)
    sides = {item.stack.side for item in placed}
    return NativeMosaic(
        url=acquisition.url,
        suffix="_".join(group.suffix),
        rotation=group.stacks[0].rotation,
        side=sides.pop() if len(sides) == 1 else None,
        native_channels=tuple(acquisition.channels[channel] for channel in used),
        layout=layout,
        places=_places({numbers[cell]: same[0] for cell, same in tiles.items()}, acquisition),
        placed=placed,
        shape=(len(used), depth, *layout.plane_shape),
        voxel_um=(step, *group.stacks[0].pixel_size_um),
        z_start_um=z_start,
        dtype=np.dtype(group.stacks[0].dtype),
        notes=tuple(notes),
        storage_options=acquisition.storage_options,
    )


def _newest(same: Sequence[Stack]) -> tuple[Stack, str | None]:
    """Of stacks that show the same, the one that the last run wrote."""
    if len(same) == 1:
        return same[0], None
    ordered = sorted(same, key=lambda s: natural_key(s.group))
    best = max(ordered, key=lambda s: (s.started, s.in_xml is True, s.planes_found))
    others = [stack.group for stack in ordered if stack is not best]
    return best, (
        f"Several stacks show the same place and channel: '{best.group}' is used (the last one "
        f"started), left out are {listed(others)}. They may be left from an earlier run; to use "
        "another one, exclude the first (`exclude_groups`)."
    )


def _places(first_of: Mapping[int, Stack], acquisition: Acquisition) -> tuple[TilePlace, ...]:
    origins = {number: acquisition.image_um(stack) for number, stack in first_of.items()}
    y0, x0 = min(y for y, _ in origins.values()), min(x for _, x in origins.values())
    places = []
    for number, (y, x) in sorted(origins.items()):
        stack = first_of[number]
        size_y, size_x = stack.pixel_size_um
        places.append(
            TilePlace(
                number=number,
                name=stack.tile_label,
                stage_x_um=stack.x_um,
                stage_y_um=stack.y_um,
                x_px=(x - x0) / size_x,
                y_px=(y - y0) / size_y,
                x_um=x - x0,
                y_um=y - y0,
            )
        )
    return tuple(places)


def _name(same: Sequence[Stack]) -> str:
    labels = sorted({stack.tile_label for stack in same}, key=natural_key)
    return "/".join(labels)


def _depth_notes(
    placed: Sequence[PlacedStack], depth: int, z_start: float, step: float
) -> list[str]:
    notes = []
    short = [p.stack.group for p in placed if len(p.planes) != depth]
    if short:
        notes.append(
            f"The stacks do not fill all {depth} planes of the mosaic: {listed(short)}. They are "
            "placed by their heights; planes without data are 0."
        )
    between = [
        p.stack.group
        for p in placed
        if abs((p.stack.z_low_um - z_start) / step - p.first_plane) > 0.1
    ]
    if between:
        notes.append(
            f"Planes of {listed(between)} lie between those of the others; each is placed at the "
            f"nearest one, at most half a step ({step / 2:g} um) off."
        )
    return notes


def _hole_notes(
    placed: Sequence[PlacedStack],
    layout: TileLayout,
    used: Sequence[int],
    acquisition: Acquisition,
) -> list[str]:
    notes = []
    if layout.missing:
        numbers = ", ".join(str(number) for number in layout.missing)
        notes.append(f"Tiles missing in the mosaic, and left empty: {numbers}.")
    taken = {(item.channel, item.tile) for item in placed}
    for index, channel in enumerate(used):
        absent = [tile.number for tile in layout.tiles if (index, tile.number) not in taken]
        if absent:
            notes.append(
                f"Channel '{acquisition.channels[channel].label}' was not taken in the tiles "
                f"{', '.join(str(number) for number in absent)}, which stay empty."
            )
    return notes


def _sign_notes(layout: TileLayout, acquisition: Acquisition) -> list[str]:
    """Where rows or columns were ordered by a guess, or against what overlaps show."""
    orientation = acquisition.orientation
    conflict = [orientation.conflict] if orientation.conflict else []
    guessed = [
        axis
        for axis, source, count in (
            ("x", orientation.source_x, layout.columns),
            ("y", orientation.source_y, layout.rows),
        )
        if source == "default" and count > 1
    ]
    return conflict + [
        f"Nothing shows how stage {axis} runs in the image (no project file, overlaps that do not "
        f"decide); taken as {orientation.sign_x if axis == 'x' else orientation.sign_y:+d}, as on "
        f"most microscopes. If the mosaic is mirrored along {axis}, give sign_{axis}."
        for axis in guessed
    ]
