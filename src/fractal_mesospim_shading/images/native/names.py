"""What the names say that mesoSPIM-control gives to containers and the groups in them.

A name is a label. It never decides where a tile lies, and it yields to the metadata file
of a stack, which holds filter, zoom and side as they were typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STACK = re.compile(
    r"^Mag(?P<zoom>.+?)_Tile(?P<tile>\d+)_Ch(?P<laser>[^_]+)(?:_Flt(?P<filter>.*))?"
    r"_Sh(?P<shutter>[01])_Rot(?P<rotation>-?\d+\.?\d*)(?:\.ome)?\.zarr$"
)
# Before December 2025: number of the BigDataViewer setup and of the time point.
_SETUP = re.compile(r"^s(?P<setup>\d+)-t(?P<time>\d+)(?:\.ome)?\.zarr$")
_CONTAINER = re.compile(
    r"^(?P<stem>.+?)(?:\.ome)?(?:_Time(?P<time>\d+))?(?:\.ome)?\.zarr(?:\.zip)?$"
)


@dataclass(frozen=True)
class GroupName:
    """The parts of a group's name; None where the name does not say it.

    Attributes:
        zoom: without its last letter, such as `5` for `5x`.
        tile: number in the acquisition table; not a place in the mosaic.
        laser: without ` nm`.
        filter: with `_` for spaces and slashes; None in names older than January 2026.
        shutter: 0 is left; 1 is right or both.
        rotation: in degrees.
        setup: number in names such as `s3-t0.zarr`, which say nothing else.
        time_point: 0 except in such names.
    """

    zoom: str | None = None
    tile: int | None = None
    laser: str | None = None
    filter: str | None = None
    shutter: int | None = None
    rotation: float | None = None
    setup: int | None = None
    time_point: int = 0


def parse_group_name(name: str) -> GroupName | None:
    """Take the name of a group apart; None where it is no name that the microscope gives."""
    found = _STACK.match(name)
    if found:
        return GroupName(
            zoom=found["zoom"],
            tile=int(found["tile"]),
            laser=found["laser"],
            filter=found["filter"],
            shutter=int(found["shutter"]),
            rotation=float(found["rotation"]),
        )
    found = _SETUP.match(name)
    if found:
        return GroupName(setup=int(found["setup"]), time_point=int(found["time"]))
    return None


def split_container_name(name: str) -> tuple[str, int | None]:
    """The name of an acquisition without its endings, and its time point.

    Args:
        name: last part of the container's address, such as `brain_Ch561.ome_Time003.zarr`.

    Returns:
        Here `("brain_Ch561", 3)`; without `_Time` the time point is None.
    """
    found = _CONTAINER.match(name)
    if not found:
        return name, None
    return found["stem"], int(found["time"]) if found["time"] else None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts Tile2 before Tile10."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts if part)


def meta_file_name(container: str, group: str) -> str:
    """The name of a stack's metadata file, which lies beside the container."""
    return f"{container}_{group}_meta.txt"


def projection_file_name(container: str, group: str) -> str:
    """The name of a stack's maximum projection, which lies beside the container."""
    return f"MAX_{container}_{group}.tif"
