"""Sort the stacks of an acquisition: by angle, zoom, place, height and side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from fractal_mesospim_shading.errors import LayoutError
from fractal_mesospim_shading.images.native.channels import NativeChannel, filter_key
from fractal_mesospim_shading.images.native.names import natural_key
from fractal_mesospim_shading.images.native.positions import Orientation, connected, lines_of
from fractal_mesospim_shading.images.native.stack import Stack

_SHOWN = 4


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
class StackGroup:
    """Stacks that become one mosaic, what tells it from the others, and what to know."""

    stacks: tuple[Stack, ...]
    suffix: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def split_stacks(stacks: Sequence[Stack], acquisition: Acquisition) -> list[StackGroup]:
    """Split stacks by angle, zoom, place, height and, where tiles have both, by side.

    Args:
        stacks: of the acquisition.
        acquisition: what they have in common.

    Raises:
        LayoutError: stacks that should form one mosaic differ in size or plane distance.
    """
    groups = []
    for by_angle in _by_angle_and_zoom(stacks):
        _refuse_unequal(by_angle.stacks)
        for by_place in _by_place(by_angle, acquisition):
            for by_layer in _by_layer(by_place, acquisition):
                groups += _by_side(by_layer, acquisition)
    return groups


def _by_angle_and_zoom(stacks: Sequence[Stack]) -> list[StackGroup]:
    groups: dict[tuple[float, float], list[Stack]] = defaultdict(list)
    for stack in stacks:
        groups[round(stack.rotation, 2), round(stack.pixel_size_um[1], 6)].append(stack)
    angles, sizes = {key[0] for key in groups}, {key[1] for key in groups}
    result = []
    for (angle, size), members in sorted(groups.items()):
        suffix = [f"Rot{angle:g}"] if len(angles) > 1 else []
        suffix += [f"px{size:g}um"] if len(sizes) > 1 else []
        result.append(StackGroup(tuple(members), tuple(suffix)))
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
            found = "; ".join(f"{value}: {listed(groups)}" for value, groups in values.items())
            raise LayoutError(
                f"The stacks of one mosaic differ in {what}: {found}. Expected the same for all; "
                "stacks left by another run, or camera binning, may be the cause. Leave the odd "
                "groups out (`exclude_groups`) or take them out of the container."
            )


def _by_place(group: StackGroup, acquisition: Acquisition) -> list[StackGroup]:
    places = [acquisition.image_um(stack) for stack in group.stacks]
    numbers = connected(places, group.stacks[0].tile_size_um)
    count = max(numbers) + 1
    if count == 1:
        return [group]
    parts = [
        tuple(s for s, number in zip(group.stacks, numbers, strict=True) if number == wanted)
        for wanted in range(count)
    ]
    ranges = " and ".join(
        f"x {min(s.x_um for s in part):g} to {max(s.x_um for s in part):g} um, "
        f"y {min(s.y_um for s in part):g} to {max(s.y_um for s in part):g} um ({_tiles(part)})"
        for part in parts
    )
    note = f"The acquisition holds tiles far apart, which make {count} mosaics: {ranges}."
    return [
        StackGroup(part, (*group.suffix, f"part{number}"), (*group.notes, note))
        for number, part in enumerate(parts, start=1)
    ]


def _by_layer(group: StackGroup, acquisition: Acquisition) -> list[StackGroup]:
    """Stacks of one place, channel and side that were planned at different heights."""
    heights: set[float] = set()
    for same in cells_of(group.stacks, acquisition, with_side=True).values():
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
        StackGroup(tuple(layers[z]), (*group.suffix, f"layer{number}"), (*group.notes, note))
        for number, z in enumerate(sorted(layers), start=1)
    ]


def _by_side(group: StackGroup, acquisition: Acquisition) -> list[StackGroup]:
    """One mosaic a side, where in some channel most tiles have more than one side."""
    sides_of = {
        cell: {stack.side for stack in same}
        for cell, same in cells_of(group.stacks, acquisition).items()
    }
    tiles, doubled = Counter[int](), Counter[int]()
    for cell, found in sides_of.items():
        tiles[cell[0]] += 1
        doubled[cell[0]] += len(found) > 1
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


def cells_of(
    stacks: Sequence[Stack], acquisition: Acquisition, *, with_side: bool = False
) -> dict[tuple[int, int, int, str], list[Stack]]:
    """Stacks by channel, row, column and, if wanted, side."""
    (rows, _), (columns, _) = grid_lines(stacks, acquisition)
    cells: dict[tuple[int, int, int, str], list[Stack]] = defaultdict(list)
    for stack, row, column in zip(stacks, rows, columns, strict=True):
        side = stack.side if with_side else ""
        cells[acquisition.channel_of(stack), row, column, side].append(stack)
    return cells


def grid_lines(
    stacks: Sequence[Stack], acquisition: Acquisition
) -> tuple[tuple[list[int], int], tuple[list[int], int]]:
    """The row of each stack and the number of rows; the same for columns."""
    places = [acquisition.image_um(stack) for stack in stacks]
    height, width = stacks[0].tile_size_um
    return lines_of([y for y, _ in places], height), lines_of([x for _, x in places], width)


def listed(groups: Sequence[str]) -> str:
    """The first names of a list, quoted, and how many more there are."""
    shown = ", ".join(f"'{group}'" for group in groups[:_SHOWN])
    return shown + (f" and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else "")


def _tiles(stacks: Sequence[Stack]) -> str:
    labels = sorted({stack.tile_label for stack in stacks}, key=natural_key)
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more
