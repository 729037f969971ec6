"""Decide how the stage's axes run in the image: option, project file, measurement, default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fractal_mesospim_shading.errors import ParameterError, SourceReadError
from fractal_mesospim_shading.images.native.groups import listed
from fractal_mesospim_shading.images.native.overlap import MeasuredSigns
from fractal_mesospim_shading.images.native.positions import Orientation, XmlSigns, signs_from_xml
from fractal_mesospim_shading.images.native.stack import Stack
from fractal_mesospim_shading.images.native.surroundings import Surroundings


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
        measure: looks at overlaps; its argument allows dear reading. Called if a sign is open,
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
    wanted = len(signs) < 2
    if not transposed and (wanted or any(source == "xml" for _, source in signs.values())):
        try:
            measured = measure(wanted)
        except SourceReadError:
            if wanted:
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
