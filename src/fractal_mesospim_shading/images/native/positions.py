"""From positions of the stage to places in the mosaic: orientation of the axes, rows and columns.

How the axes run is said by an option, by the project file or by a measurement, else by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import ParameterError, SourceReadError
from fractal_mesospim_shading.images.native.stack import Stack, listed
from fractal_mesospim_shading.images.native.surroundings import Surroundings

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

    def notes(self, columns: int, rows: int) -> list[str]:
        """Where tiles were ordered by a guess, or against what overlaps show.

        Args:
            columns, rows: of the mosaic.
        """
        guessed = [
            (axis, sign)
            for axis, sign, source, count in (
                ("x", self.sign_x, self.source_x, columns),
                ("y", self.sign_y, self.source_y, rows),
            )
            if source == "default" and count > 1
        ]
        return ([self.conflict] if self.conflict else []) + [
            f"Nothing shows how stage {axis} runs in the image (no project file, overlaps that do "
            f"not decide); taken as {sign:+d}, as on most microscopes. If the mosaic is mirrored "
            f"along {axis}, give sign_{axis}."
            for axis, sign in guessed
        ]


@dataclass(frozen=True)
class XmlSigns:
    """What the project file says about the axes; None where it cannot tell."""

    sign_x: int | None
    sign_y: int | None
    transposed: bool


@dataclass(frozen=True)
class MeasuredSigns:
    """Signs that the overlaps show; None where they do not decide.

    Attributes:
        sign_x, sign_y: +1, -1 or None.
        detail: the correlations behind them.
    """

    sign_x: int | None
    sign_y: int | None
    detail: str


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
    from scipy.sparse.csgraph import connected_components

    reach = []
    for axis, size in enumerate(size_yx_um):
        step = typical_step([place[axis] for place in places_yx_um], size) or size
        reach.append(_REACH * max(size, min(step, 3 * size)))
    places, of_place = np.unique(np.array(places_yx_um), axis=0, return_inverse=True)
    near = np.all(np.abs(places[:, None] - places) <= reach, axis=2)
    count, mosaics = connected_components(near, directed=False)
    members = [np.flatnonzero(mosaics[of_place.reshape(-1)] == number) for number in range(count)]

    def corner(tiles: NDArray[np.intp]) -> tuple[float, float, int]:
        y, x = np.min([places_yx_um[tile] for tile in tiles], axis=0)
        return x, y, tiles[-1]

    result = [0] * len(places_yx_um)
    for number, tiles in enumerate(sorted(members, key=corner)):
        for tile in tiles:
            result[tile] = number
    return result


@dataclass(frozen=True)
class SignOptions:
    """What a person knows about the axes of the stage; None where it is to be found out.

    Attributes:
        sign_x, sign_y: +1 where the image coordinate grows with the stage's, -1 where it
            falls, as it does on most microscopes.
        transposed: whether image x follows stage y.
    """

    sign_x: int | None = None
    sign_y: int | None = None
    transposed: bool | None = None

    def __post_init__(self) -> None:
        for name, sign in (("sign_x", self.sign_x), ("sign_y", self.sign_y)):
            if sign not in (None, 1, -1):
                raise ParameterError(f"{name} is {sign!r}; expected 1, -1 or nothing.")


def decide_orientation(
    given: SignOptions, xml: XmlSigns | None, measure: Callable[[bool], MeasuredSigns]
) -> Orientation:
    """Take each sign from the first that knows it.

    Args:
        given: what the caller says.
        xml: what the project file says, None without one.
        measure: looks at overlaps; its argument allows costly reading. Called if a sign is open,
            or, cheaply, to check the project file.

    Raises:
        SourceReadError: a sign is open and a chunk cannot be read.
    """
    transposed = given.transposed
    if transposed is None:
        transposed = xml.transposed if xml else False
    signs: dict[str, tuple[int, str]] = {}
    for axis, option, from_xml in (
        ("x", given.sign_x, xml.sign_x if xml else None),
        ("y", given.sign_y, xml.sign_y if xml else None),
    ):
        if option is not None:
            signs[axis] = (option, "option")
        elif from_xml is not None:
            signs[axis] = (from_xml, "xml")
    detail, conflict = "", ""
    is_open = len(signs) < 2
    if not transposed and (is_open or any(source == "xml" for _, source in signs.values())):
        try:
            measured = measure(is_open)
        except SourceReadError:
            if is_open:
                raise
            measured = MeasuredSigns(None, None, "")
        conflict = _conflict(signs, measured)
        for axis, sign in (("x", measured.sign_x), ("y", measured.sign_y)):
            if sign is not None and axis not in signs:
                signs[axis] = (sign, "measured")
                detail = measured.detail
    (sign_x, source_x), (sign_y, source_y) = (signs.get(a, (-1, "default")) for a in "xy")
    return Orientation(sign_x, sign_y, transposed, source_x, source_y, detail, conflict)


def _conflict(signs: Mapping[str, tuple[int, str]], measured: MeasuredSigns) -> str:
    """A warning where the overlaps clearly speak against the project file."""
    wrong = [
        (axis, sign)
        for axis, sign in (("x", measured.sign_x), ("y", measured.sign_y))
        if sign is not None and signs.get(axis, (sign, ""))[0] != sign and signs[axis][1] == "xml"
    ]
    if not wrong:
        return ""
    axes = " and ".join(axis for axis, _ in wrong)
    options = ", ".join(f"sign_{axis}={sign}" for axis, sign in wrong)
    return (
        f"The project file is used for the sign of {axes}, but tiles placed so do not agree in "
        f"their overlaps ({measured.detail}). The mosaic is probably mirrored; give {options}."
    )


def use_xml(
    stacks: list[Stack], around: Surroundings
) -> tuple[XmlSigns | None, list[Stack], list[str]]:
    """Take the signs from the project file, and places where nothing else gives them."""
    if not around.views:
        return None, stacks, []
    warnings: list[str] = []
    absent = [stack.group for stack in stacks if stack.in_xml is False]
    if absent:
        warnings.append(
            f"The project file does not list {listed(absent)}: left from an earlier run, or the "
            "file was written by a later, shorter one."
        )
    known, shifts = [], []
    for stack in stacks:
        shift = around.views[stack.group].shift_px if stack.in_xml else None
        if shift is not None and stack.position_source != "xml":
            known.append((stack.x_um, stack.y_um))
            shifts.append((shift[0] * stack.pixel_size_um[1], shift[1] * stack.pixel_size_um[0]))
    only_xml = any(stack.position_source == "xml" for stack in stacks)
    if not known:
        return (XmlSigns(1, 1, False) if only_xml else None), stacks, warnings
    signs = signs_from_xml(known, shifts, max(stacks[0].pixel_size_um))
    if signs is None:
        warnings.append(
            "The places in the project file do not follow the stage positions (a stitcher may "
            "have changed them); the file is not used for the orientation."
        )
    if only_xml and signs is not None:
        stacks = [_to_stage(stack, signs) for stack in stacks]
    return signs, stacks, warnings


def _to_stage(stack: Stack, signs: XmlSigns) -> Stack:
    """A place of the project file, in the orientation of the stage."""
    if stack.position_source != "xml":
        return stack
    x_um, y_um = (signs.sign_x or 1) * stack.x_um, (signs.sign_y or 1) * stack.y_um
    if signs.transposed:
        x_um, y_um = y_um, x_um
    return replace(stack, x_um=x_um, y_um=y_um)
