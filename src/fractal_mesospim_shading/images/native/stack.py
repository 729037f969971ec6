"""One stack of an acquisition: what its name and its channel say, and what is known about it.

A name is a label. It never decides where a tile lies, and it yields to the metadata file of a
stack, which holds filter, zoom and side as they were typed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading import messages
from fractal_mesospim_shading.images.arrays.chunk_files import decoded_in_parts
from fractal_mesospim_shading.images.arrays.documents import Box, StoredArray
from fractal_mesospim_shading.images.arrays.reading import opened, read_array
from fractal_mesospim_shading.images.light_path import LightPath
from fractal_mesospim_shading.images.metadata import OpenedImage
from fractal_mesospim_shading.images.source import Level
from fractal_mesospim_shading.images.storage.places import join_url

_STACK = re.compile(
    r"^Mag(?P<zoom>.+?)_Tile(?P<tile>\d+)_Ch(?P<laser>[^_]+)(?:_Flt(?P<filter>.*))?"
    r"_Sh(?P<shutter>[01])_Rot(?P<rotation>-?\d+\.?\d*)(?:\.ome)?\.zarr$"
)
# Before December 2025: number of the BigDataViewer setup and of the time point.
_SETUP = re.compile(r"^s(?P<setup>\d+)-t(?P<time>\d+)(?:\.ome)?\.zarr$")
_TIME_MARK = re.compile(r"_Time(\d+)")
_CONTAINER = re.compile(
    r"^(?P<stem>.+?)(?:\.ome)?(?:_Time(?P<time>\d+))?(?:\.ome)?\.zarr(?:\.zip)?$"
)


@dataclass(frozen=True)
class Stack:
    """What is known about one stack, without its pixels.

    Attributes:
        group: name of its group in the container.
        number: of the tile in the name: a label, never a place. None where unknown.
        laser, filter: see `NativeChannel`.
        filter_in_full: whether the filter is spelled as in the metadata file.
        side, rotation: `left`, `right` or `both`; in degrees.
        x_um, y_um: position of the stage.
        z_start_um, z_end_um: first and last plane as planned; the end lies below the start
            for a downward scan.
        z_step_um: distance of the planes, above 0.
        planes_planned: None where nothing says it.
        pixel_size_um: (y, x).
        levels: its arrays as far as they are its own, of axes z, y, x, finest first.
        dtype, ngff_version: of the pixels in native byte order; `0.4` or `0.5`.
        processors: image processors that changed the data before they were written.
        position_source: `meta`, `ngff` or `xml`.
        zoom, camera: as the metadata file says it, else, without its last letter, the name; may be
            empty.
        side_told: whether something says the side; else it is a guess.
        started: time stamp of the first plane as text that sorts; may be empty.
        in_xml: whether the project file lists it; None without such a file.
        meta_file, projection_file: names of the files beside the container, if they exist.
        fingerprint: of the metadata of its finest array.
        notes: lines about this stack that a person should read.
        remark: what of it was taken from where, if that is worth a line; nothing to act on.
        lead: index along t and c in arrays shared with others; empty where they are its own.
    """

    group: str
    number: int | None
    laser: str
    filter: str
    filter_in_full: bool
    side: str
    rotation: float
    x_um: float
    y_um: float
    z_start_um: float
    z_end_um: float
    z_step_um: float
    planes_planned: int | None
    pixel_size_um: tuple[float, float]
    levels: tuple[Level, ...]
    dtype: str
    ngff_version: str
    processors: tuple[str, ...] = ()
    position_source: str = "meta"
    zoom: str = ""
    camera: str = ""
    side_told: bool = True
    started: str = ""
    in_xml: bool | None = None
    meta_file: str | None = None
    projection_file: str | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = ()
    remark: str = ""
    lead: tuple[int, ...] = ()

    @property
    def light_path(self) -> LightPath:
        """What is told of the light path."""
        side = self.side if self.side_told else ""
        return LightPath.of(self.zoom, self.camera, side, self.filter, self.pixel_size_um)

    @property
    def time(self) -> int:
        """Index of its time point; 0 where its container holds one only."""
        return self.lead[0] if self.lead else 0

    @property
    def channel_index(self) -> int:
        """Index of its channel within its group."""
        return self.lead[-1] if self.lead else 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x) of the finest array."""
        return self.levels[0].shape

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(y, x) in pixels."""
        return (self.shape[1], self.shape[2])

    @property
    def tile_size_um(self) -> tuple[float, float]:
        """(y, x) in micrometers."""
        (height, width), (size_y, size_x) = self.tile_shape, self.pixel_size_um
        return (height * size_y, width * size_x)

    @property
    def planes_found(self) -> int:
        """Planes that are really there."""
        return self.shape[0]

    @property
    def downward(self) -> bool:
        """Whether the first plane lies at the highest z."""
        return self.z_end_um < self.z_start_um

    @property
    def z_low_um(self) -> float:
        """z of the lowest plane that is there."""
        if self.downward:
            return self.z_start_um - (self.planes_found - 1) * self.z_step_um
        return self.z_start_um

    @property
    def z_low_planned_um(self) -> float:
        """z of the lowest plane that was planned."""
        return min(self.z_start_um, self.z_end_um)

    def plane_z_um(self, plane: int) -> float:
        """z of a plane by its index in the array."""
        step = -self.z_step_um if self.downward else self.z_step_um
        return self.z_start_um + plane * step

    def plane_at(self, z_um: float) -> int:
        """Index of the plane that is nearest to a height, within the array."""
        distance = self.z_start_um - z_um if self.downward else z_um - self.z_start_um
        return int(np.clip(round(distance / self.z_step_um), 0, self.planes_found - 1))

    def stored(self, container_url: str, storage_options: str, level: int = 0) -> StoredArray:
        """One of its arrays, as it is opened.

        Args:
            container_url: address of the container.
            storage_options: as JSON.
            level: 0 is the finest, which has to be the same array as when it was listed.
        """
        expected = self.fingerprint if level == 0 else ""
        where = join_url(container_url, self.group)
        return StoredArray(where, self.levels[level].path, storage_options, expected)

    def read(
        self, container_url: str, storage_options: str, box: Box, level: int = 0
    ) -> NDArray[Any]:
        """Read a box (z, y, x) of one of its arrays; the rest is as for `stored`.

        Raises:
            SourceReadError: a chunk is there but cannot be read; the message names it.
        """
        stored = self.stored(container_url, storage_options, level)
        lead = tuple(slice(index, index + 1) for index in self.lead)
        pixels = read_array(opened(stored), stored.where, (*lead, *box))
        return pixels.reshape(pixels.shape[-3:])

    def planes_apart(self, container_url: str, storage_options: str) -> bool:
        """Whether some planes of a chunk are decoded without the others of it."""
        return decoded_in_parts(opened(self.stored(container_url, storage_options)))

    @property
    def offset_removed(self) -> bool:
        """Whether a processor may have taken the camera offset away already."""
        names = [name.lower() for name in self.processors]
        return any("background" in name or "difference" in name for name in names)

    @property
    def tile_label(self) -> str:
        """How people know the tile."""
        return f"Tile{self.number}" if self.number is not None else self.group


@dataclass(frozen=True)
class GroupStacks:
    """The stacks that a group holds.

    Attributes:
        stacks: by time point and channel.
        image: that they lie in.
    """

    stacks: tuple[Stack, ...]
    image: OpenedImage


@dataclass(frozen=True)
class LeftOut:
    """A group, or a thing that is no group, that was not read.

    Attributes:
        name: in the container.
        reason: why.
    """

    name: str
    reason: str


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
    match = _STACK.match(name)
    if match:
        return GroupName(
            zoom=match["zoom"],
            tile=int(match["tile"]),
            laser=match["laser"],
            filter=match["filter"],
            shutter=int(match["shutter"]),
            rotation=float(match["rotation"]),
        )
    match = _SETUP.match(name)
    if match:
        return GroupName(setup=int(match["setup"]), time_point=int(match["time"]))
    return None


def split_container_name(name: str) -> tuple[str, int | None]:
    """The name of an acquisition without its endings, and its time point.

    Args:
        name: last part of the container's address, such as `brain_Ch561.ome_Time003.zarr`.

    Returns:
        Here `("brain_Ch561", 3)`; without `_Time` the time point is None.
    """
    match = _CONTAINER.match(name)
    if not match:
        return name, None
    return match["stem"], int(match["time"]) if match["time"] else None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts Tile2 before Tile10."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts if part)


def listed(names: Sequence[str], quote: str = "'") -> str:
    """The first four names of a list, and how many more there are."""
    return messages.listed([f"{quote}{name}{quote}" for name in names], 4)


@dataclass(frozen=True)
class BesideName:
    """What the name of a file beside a container says of what is in the file.

    Attributes:
        group: that it is about.
        time: index of the time point; None where the name has no mark of one.
        channel: name of the one channel that it is about; None for what is in the group.
    """

    group: str
    time: int | None = None
    channel: str | None = None


def meta_file_name(container: str, about: BesideName) -> str:
    """The name of a metadata file."""
    return f"{_beside(container, about)}_meta.txt"


def projection_file_name(container: str, about: BesideName) -> str:
    """The name of a maximum projection."""
    return f"MAX_{_beside(container, about)}.tif"


def parse_meta_file_name(container: str, name: str) -> BesideName | None:
    """The inverse of `meta_file_name`; None for files of other names."""
    if not name.endswith("_meta.txt"):
        return None
    rest = name.removesuffix("_meta.txt")
    # The mark stands somewhere in the name of the container.
    marks = [m for m in _TIME_MARK.finditer(rest) if m.end() <= len(container) + len(m[0])]
    for mark in (None, *reversed(marks)):
        plain = rest if mark is None else rest[: mark.start()] + rest[mark.end() :]
        if plain.startswith(f"{container}_"):
            group, ending, channel = plain[len(container) + 1 :].partition(".zarr_Ch")
            time = None if mark is None else int(mark[1])
            own = channel if ending else None
            return BesideName(f"{group}.zarr" if ending else group, time, own)
    return None


def _beside(container: str, about: BesideName) -> str:
    if about.time is not None:
        stem, dot, ending = container.rpartition(".")
        container = f"{stem}_Time{about.time:03d}{dot}{ending}"
    channel = "" if about.channel is None else f"_Ch{about.channel}"
    return f"{container}_{about.group}{channel}"
