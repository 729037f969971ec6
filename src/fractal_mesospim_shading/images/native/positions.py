"""From positions of the stage to places in the mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Tiles whose origins differ by less than this part of a tile are one row or column.
_SAME_LINE = 0.1
# Tiles further apart than this many steps belong to different mosaics.
_REACH = 2.5


@dataclass(frozen=True)
class Orientation:
    """How the axes of the stage run in the image.

    Attributes:
        sign_x, sign_y: +1 where the image coordinate grows with the stage's, else -1.
        transposed: whether image x follows stage y, and image y stage x.
        source_x, source_y: `option`, `xml`, `measured` or `default`.
        detail: the correlations, where they were measured; may be empty.
        conflict: a warning where the overlaps speak against the project file; else empty.
    """

    sign_x: int = -1
    sign_y: int = -1
    transposed: bool = False
    source_x: str = "default"
    source_y: str = "default"
    detail: str = ""
    conflict: str = ""

    def image_um(self, x_um: float, y_um: float) -> tuple[float, float]:
        """(y, x) in the orientation of the image, for a position of the stage."""
        if self.transposed:
            x_um, y_um = y_um, x_um
        return self.sign_y * y_um, self.sign_x * x_um

    @property
    def text(self) -> str:
        """What was used and why, in one line."""
        parts = [
            f"{axis} {sign:+d} ({source})"
            for axis, sign, source in (
                ("x", self.sign_x, self.source_x),
                ("y", self.sign_y, self.source_y),
            )
        ]
        swapped = "; stage x and y exchanged" if self.transposed else ""
        detail = f"; {self.detail}" if self.detail else ""
        return f"Sign of the stage axes in the image: {', '.join(parts)}{swapped}{detail}."


@dataclass(frozen=True)
class XmlSigns:
    """What the project file says about the axes; None where it cannot tell."""

    sign_x: int | None
    sign_y: int | None
    transposed: bool


def signs_from_xml(
    stage_xy_um: Sequence[tuple[float, float]],
    image_xy_um: Sequence[tuple[float, float]],
    tolerance_um: float,
) -> XmlSigns | None:
    """Compare the places in the project file with the positions of the stage.

    Args:
        stage_xy_um: x, y of the stage for each stack.
        image_xy_um: x, y of the project file for the same stacks, in micrometers.
        tolerance_um: by how much the differences of places may deviate, about a pixel.

    Returns:
        None where the file contradicts the positions.
    """
    stage, image = np.array(stage_xy_um), np.array(image_xy_um)
    for transposed in (False, True):
        source = stage[:, ::-1] if transposed else stage
        signs = []
        for axis in (0, 1):
            if np.ptp(source[:, axis]) <= tolerance_um and np.ptp(image[:, axis]) <= tolerance_um:
                signs.append(0)
                continue
            fitting = [
                sign
                for sign in (1, -1)
                if np.ptp(image[:, axis] - sign * source[:, axis]) <= tolerance_um
            ]
            if not fitting:
                break
            signs.append(fitting[0])
        if len(signs) == 2:
            return XmlSigns(signs[0] or None, signs[1] or None, transposed)
    return None


def line_starts(values: Sequence[float], size: float) -> list[float]:
    """The coordinates at which rows (or columns) begin.

    Args:
        values: one coordinate for each tile.
        size: of a tile along the axis, in the same unit.
    """
    starts: list[float] = []
    for value in sorted(values):
        if not starts or value - starts[-1] > _SAME_LINE * size:
            starts.append(value)
    return starts


def lines_of(values: Sequence[float], size: float) -> tuple[list[int], int]:
    """The row (or column) of each tile, and how many there are.

    A line without any tile is kept empty where the gap is a whole number of steps.

    Args:
        values: one coordinate for each tile.
        size: of a tile along the axis, in the same unit.
    """
    starts = line_starts(values, size)
    steps = np.diff(starts)
    numbers = [0]
    for step in steps:
        ratio = step / steps.min()
        whole = round(ratio)
        numbers.append(numbers[-1] + (whole if abs(ratio - whole) < 0.1 else 1))
    lines = [
        numbers[max(i for i, start in enumerate(starts) if start <= value)] for value in values
    ]
    return lines, numbers[-1] + 1


def typical_step(values: Sequence[float], size: float) -> float | None:
    """The median distance of neighbouring rows (or columns); None for a single one."""
    steps = np.diff(line_starts(values, size))
    return float(np.median(steps)) if len(steps) else None


def connected(
    places_yx_um: Sequence[tuple[float, float]], size_yx_um: tuple[float, float]
) -> list[int]:
    """Which tiles belong to one mosaic: the number of the mosaic for each tile.

    Tiles are neighbours when they are no further apart than two steps and a half; a step
    counts as at most three tiles. Mosaics are numbered from the left, then from the top.

    Args:
        places_yx_um: origin of each tile in the orientation of the image.
        size_yx_um: of a tile.
    """
    reach = []
    for axis, size in enumerate(size_yx_um):
        step = typical_step([place[axis] for place in places_yx_um], size) or size
        reach.append(_REACH * max(size, min(step, 3 * size)))
    groups: list[list[int]] = []
    places = np.array(places_yx_um)
    for index in range(len(places)):
        near = [
            group
            for group in groups
            if np.any(np.all(np.abs(places[group] - places[index]) <= reach, axis=1))
        ]
        groups = [group for group in groups if group not in near]
        groups.append(sorted([index, *(member for group in near for member in group)]))
    groups.sort(key=lambda group: (places[group, 1].min(), places[group, 0].min()))
    result = [0] * len(places)
    for number, group in enumerate(groups):
        for member in group:
            result[member] = number
    return result
