"""The BigStitcher project file that mesoSPIM-control writes for NGFF 0.4 containers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

_Affine = tuple[tuple[float, ...], ...]
_GRID = "translation to regular grid"
_IDENTITY: _Affine = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))


@dataclass(frozen=True)
class XmlView:
    """One stack as the project file describes it; None where it does not say.

    Attributes:
        group: name of the group in the container.
        setup: number of the view setup.
        channel, side, angle, tile: names of its attributes.
        voxel_um: size of a voxel as (x, y, z).
        shift_px: place as (x, y) in pixels, in the orientation of the image.
    """

    group: str
    setup: int
    channel: str | None
    side: str | None
    angle: str | None
    tile: str | None
    voxel_um: tuple[float, float, float] | None
    shift_px: tuple[float, float] | None


def parse_xml(data: bytes) -> tuple[str | None, tuple[XmlView, ...]]:
    """Read a project file.

    Args:
        data: content of the file.

    Returns:
        The name of the container it points at, and its stacks.

    Raises:
        ValueError: it is not XML, or numbers in it cannot be read.
    """
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not valid XML ({error})") from error
    names = _attribute_names(root)
    setups = {int(_text(item, "id") or -1): item for item in root.iter("ViewSetup")}
    shifts = _shifts(root)
    views = []
    for item in root.iter("zgroup"):
        setup, point = int(item.get("setup", -1)), item.get("tp", item.get("timepoint", "0"))
        path = item.get("path") or _text(item, "path") or f"s{setup}-t{point}.zarr"
        description = setups.get(setup)
        attributes = _attributes(description)
        views.append(
            XmlView(
                group=path.rstrip("/").rpartition("/")[2],
                setup=setup,
                channel=names.get(("channel", attributes.get("channel"))),
                side=names.get(("illumination", attributes.get("illumination"))),
                angle=names.get(("angle", attributes.get("angle"))),
                tile=names.get(("tile", attributes.get("tile"))),
                voxel_um=_voxel(description),
                shift_px=shifts.get(setup),
            )
        )
    loader = next(iter(root.iter("ImageLoader")), None)
    container = _text(loader, "zarr") if loader is not None else None
    return (
        container.replace("\\", "/").rstrip("/").rpartition("/")[2] if container else None
    ), tuple(views)


def _text(item: ElementTree.Element | None, path: str) -> str | None:
    found = item.findtext(path) if item is not None else None
    return found.strip() if found and found.strip() else None


def _numbers(item: ElementTree.Element | None, path: str) -> list[float]:
    """The numbers of an element, separated by white space; all of them must be finite."""
    numbers = [float(part) for part in (_text(item, path) or "").split()]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"'{path}' holds a number that is not finite")
    return numbers


def _attribute_names(root: ElementTree.Element) -> dict[tuple[str, str | None], str]:
    names = {}
    for group in root.iter("Attributes"):
        kind = (group.get("name") or "").lower()
        for item in group:
            name = _text(item, "name")
            if name is not None:
                names[kind, _text(item, "id")] = name
    return names


def _attributes(setup: ElementTree.Element | None) -> dict[str, str | None]:
    listed = setup.find("attributes") if setup is not None else None
    return {item.tag: (item.text or "").strip() for item in listed} if listed is not None else {}


def _voxel(setup: ElementTree.Element | None) -> tuple[float, float, float] | None:
    sizes = _numbers(setup, "voxelSize/size")
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None


def _shifts(root: ElementTree.Element) -> dict[int, tuple[float, float]]:
    shifts = {}
    for registration in root.iter("ViewRegistration"):
        whole = _IDENTITY
        for transform in registration.iter("ViewTransform"):
            # White space in the numbers includes line breaks.
            numbers = _numbers(transform, "affine")
            if len(numbers) != 12:
                continue
            affine = (tuple(numbers[:4]), tuple(numbers[4:8]), tuple(numbers[8:]))
            if (_text(transform, "Name") or "").lower() == _GRID:
                # What the stage said; later steps of a stitcher stand before it.
                whole = affine
                break
            whole = _after(whole, affine)
        shifts[int(registration.get("setup", -1))] = (whole[0][3], whole[1][3])
    return shifts


def _after(outer: _Affine, inner: _Affine) -> _Affine:
    """The affine that applies `inner` first."""
    rows = []
    for row in outer:
        mixed = [sum(row[k] * inner[k][column] for k in range(3)) for column in range(4)]
        mixed[3] += row[3]
        rows.append(tuple(mixed))
    return tuple(rows)
