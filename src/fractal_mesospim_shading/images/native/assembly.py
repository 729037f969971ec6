"""Sort the stacks of an acquisition into mosaics, and lay each of these out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import LayoutError
from fractal_mesospim_shading.images.native.channels import NativeChannel, filter_key
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.native.placement import PlacedStack, TilePlace
from fractal_mesospim_shading.images.native.positions import Orientation, connected, lines_of
from fractal_mesospim_shading.images.native.stack import Stack, listed, natural_key


@dataclass(frozen=True)
class Acquisition:
    """What mosaics are made from.

    Attributes:
        url: of the container.
        storage_options: as JSON.
        orientation: how the stage's axes run in the image.
        channels: of the whole acquisition.
        channel_index: by laser and `filter_key`.
    """

    url: str
    storage_options: str
    orientation: Orientation
    channels: tuple[NativeChannel, ...]
    channel_index: Mapping[tuple[str, str], int]

    def channel_of(self, stack: Stack) -> int:
        """Index of a stack's channel in the whole acquisition."""
        return self.channel_index[stack.laser, filter_key(stack.filter)]

    def image_um(self, stack: Stack) -> tuple[float, float]:
        """(y, x) of a stack in the orientation of the image."""
        return self.orientation.image_um(stack.x_um, stack.y_um)


@dataclass(frozen=True)
class _Group:
    """Stacks that become one mosaic, what tells it from the others, and what to know."""

    stacks: tuple[Stack, ...]
    suffix: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def build_mosaics(stacks: Sequence[Stack], acquisition: Acquisition) -> tuple[NativeMosaic, ...]:
    """Sort stacks by angle, zoom, place, height and, where tiles have both, by side.

    Args:
        stacks: of the acquisition.
        acquisition: what they have in common.

    Raises:
        LayoutError: stacks that should form one mosaic differ in size or plane distance.
    """
    groups: list[_Group] = []
    for by_angle in _by_angle_and_zoom(stacks):
        _refuse_unequal(by_angle.stacks)
        for by_place in _by_place(by_angle, acquisition):
            for by_layer in _by_layer(by_place, acquisition):
                groups += _by_side(by_layer, acquisition)
    return tuple(_lay_out(group, acquisition) for group in groups)


def _by_angle_and_zoom(stacks: Sequence[Stack]) -> list[_Group]:
    groups: dict[tuple[float, float], list[Stack]] = defaultdict(list)
    for stack in stacks:
        groups[round(stack.rotation, 2), round(stack.pixel_size_um[1], 6)].append(stack)
    angles, sizes = {key[0] for key in groups}, {key[1] for key in groups}
    result = []
    for (angle, size), members in sorted(groups.items()):
        suffix = [f"Rot{angle:g}"] if len(angles) > 1 else []
        suffix += [f"px{size:g}um"] if len(sizes) > 1 else []
        result.append(_Group(tuple(members), tuple(suffix)))
    return result


def _refuse_unequal(stacks: Sequence[Stack]) -> None:
    checks: tuple[tuple[str, Callable[[Stack], object]], ...] = (
        ("size (y, x) in pixels", lambda stack: stack.tile_shape),
        ("distance of planes in micrometers", lambda stack: round(stack.z_step_um, 4)),
        ("type of pixels", lambda stack: stack.dtype),
    )
    for what, value_of in checks:
        values: dict[object, list[str]] = defaultdict(list)
        for stack in stacks:
            values[value_of(stack)].append(stack.group)
        if len(values) > 1:
            unequal = "; ".join(
                f"{value}: {listed(_once(groups))}" for value, groups in values.items()
            )
            raise LayoutError(
                f"The stacks of one mosaic differ in {what}: {unequal}. Expected the same for all; "
                "stacks left by another run, or camera binning, may be the cause. Leave the odd "
                "groups out (`exclude_groups`) or take them out of the container."
            )


def _by_place(group: _Group, acquisition: Acquisition) -> list[_Group]:
    places = [acquisition.image_um(stack) for stack in group.stacks]
    numbers = connected(places, group.stacks[0].tile_size_um)
    count = max(numbers) + 1
    if count == 1:
        return [group]
    parts = [
        tuple(s for s, number in zip(group.stacks, numbers, strict=True) if number == mosaic)
        for mosaic in range(count)
    ]
    ranges = " and ".join(
        f"x {min(s.x_um for s in part):g} to {max(s.x_um for s in part):g} um, "
        f"y {min(s.y_um for s in part):g} to {max(s.y_um for s in part):g} um "
        f"({listed(_labels(part), quote='')})"
        for part in parts
    )
    note = f"The acquisition holds tiles far apart, which make {count} mosaics: {ranges}."
    return [
        _Group(part, (*group.suffix, f"part{number}"), (*group.notes, note))
        for number, part in enumerate(parts, start=1)
    ]


def _by_layer(group: _Group, acquisition: Acquisition) -> list[_Group]:
    """Stacks of one place, channel and side that were planned at different heights."""
    heights: set[float] = set()
    for same in _cells(group.stacks, acquisition, with_side=True).values():
        lows = sorted({round(stack.z_low_planned_um, 3) for stack in same})
        if any(b - a > 0.5 * same[0].z_step_um for a, b in pairwise(lows)):
            heights.update(lows)
    if len(heights) < 2:
        return [group]
    layers: dict[float, list[Stack]] = defaultdict(list)
    for stack in group.stacks:
        layers[min(heights, key=lambda z: (abs(z - stack.z_low_planned_um), z))].append(stack)
    note = (
        "Tiles were taken at the same place from several heights, which make "
        f"{len(layers)} mosaics: z from {', '.join(f'{z:g}' for z in sorted(layers))} um."
    )
    return [
        _Group(tuple(layers[z]), (*group.suffix, f"layer{number}"), (*group.notes, note))
        for number, z in enumerate(sorted(layers), start=1)
    ]


def _by_side(group: _Group, acquisition: Acquisition) -> list[_Group]:
    """One mosaic a side, where in some channel most tiles have more than one side."""
    sides_of = {
        cell: {stack.side for stack in same}
        for cell, same in _cells(group.stacks, acquisition).items()
    }
    tiles, doubled = Counter[int](), Counter[int]()
    for cell, of_cell in sides_of.items():
        tiles[cell[0]] += 1
        doubled[cell[0]] += len(of_cell) > 1
    if not any(2 * doubled[channel] >= tiles[channel] for channel in tiles if doubled[channel]):
        return [group]
    sides = sorted({stack.side for stack in group.stacks})
    return [
        replace(
            group,
            stacks=tuple(stack for stack in group.stacks if stack.side == side),
            suffix=(*group.suffix, side),
        )
        for side in sides
    ]


def _cells(
    stacks: Sequence[Stack], acquisition: Acquisition, *, with_side: bool = False
) -> dict[tuple[int, int, int, str, int], list[Stack]]:
    """Stacks by channel, row, column, side (if wanted) and time point."""
    (rows, _), (columns, _) = _grid_lines(stacks, acquisition)
    cells: dict[tuple[int, int, int, str, int], list[Stack]] = defaultdict(list)
    for stack, row, column in zip(stacks, rows, columns, strict=True):
        side = stack.side if with_side else ""
        cells[acquisition.channel_of(stack), row, column, side, stack.time].append(stack)
    return cells


def _grid_lines(
    stacks: Sequence[Stack], acquisition: Acquisition
) -> tuple[tuple[list[int], int], tuple[list[int], int]]:
    """The row of each stack and the number of rows; the same for columns."""
    places = [acquisition.image_um(stack) for stack in stacks]
    height, width = stacks[0].tile_size_um
    return lines_of([y for y, _ in places], height), lines_of([x for _, x in places], width)


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _labels(stacks: Sequence[Stack]) -> list[str]:
    return sorted({stack.tile_label for stack in stacks}, key=natural_key)


def _lay_out(group: _Group, acquisition: Acquisition) -> NativeMosaic:
    """Number the tiles by position and put the stacks at their heights."""
    cells = _cells(group.stacks, acquisition)
    notes = [*group.notes, *sorted({stack.remark for stack in group.stacks} - {""})]
    chosen = {}
    for (channel, row, column, _, time), same in cells.items():
        chosen[channel, row, column, time], note = _newest(same)
        notes += [note] if note else []
    (_, row_count), (_, column_count) = _grid_lines(group.stacks, acquisition)
    height, width = group.stacks[0].tile_shape
    tiles: dict[tuple[int, int], list[Stack]] = defaultdict(list)
    for (_, row, column, _), stack in sorted(chosen.items()):
        tiles[row, column].append(stack)
    layout = TileLayout.from_origins(
        [(row * height, column * width) for row, column in tiles],
        (height, width),
        (row_count * height, column_count * width),
        ["/".join(_labels(same)) for same in tiles.values()],
    )
    numbers = {(tile.y // height, tile.x // width): tile.number for tile in layout.tiles}
    used = sorted({channel for channel, *_ in chosen})
    step = group.stacks[0].z_step_um
    z_start = min(stack.z_low_um for stack in chosen.values())
    placed = tuple(
        PlacedStack(
            used.index(channel),
            numbers[row, column],
            stack,
            round((stack.z_low_um - z_start) / step),
        )
        for (channel, row, column, _), stack in sorted(chosen.items())
    )
    depth = max(item.planes.stop for item in placed)
    times = max(item.stack.time for item in placed) + 1
    notes += _depth_notes(placed, depth, z_start, step) + _hole_notes(
        placed, layout, used, acquisition
    )
    notes += acquisition.orientation.notes(layout.columns, layout.rows)
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
        shape=(*((times,) if times > 1 else ()), len(used), depth, *layout.plane_shape),
        voxel_um=(step, *group.stacks[0].pixel_size_um),
        z_start_um=z_start,
        dtype=np.dtype(group.stacks[0].dtype),
        notes=tuple(_once(notes)),
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


def _depth_notes(
    placed: Sequence[PlacedStack], depth: int, z_start: float, step: float
) -> list[str]:
    notes = []
    short = _once(p.stack.group for p in placed if len(p.planes) != depth)
    if short:
        notes.append(
            f"The stacks do not fill all {depth} planes of the mosaic: {listed(short)}. They are "
            "placed by their heights; planes without data are 0."
        )
    heights = [(p, (p.stack.z_low_um - z_start) / step) for p in placed]
    between = _once(p.stack.group for p, z in heights if abs(z - p.first_plane) > 0.1)
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
    held = {(item.channel, item.tile, item.stack.time) for item in placed}
    points = []
    for time in range(max(time for *_, time in held) + 1):
        lacking = sorted({tile for channel, tile in taken if (channel, tile, time) not in held})
        points += (
            [f"{time} ({listed([f'tile {n}' for n in lacking], quote='')})"] if lacking else []
        )
    if points:
        text = "Time points not written in every tile and channel, and 0 there"
        notes.append(f"{text}: {'; '.join(points)}.")
    return notes
