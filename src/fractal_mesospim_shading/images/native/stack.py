"""One stack of an acquisition: one tile, one channel, one side, one angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fractal_mesospim_shading.images.native.meta import removes_offset
from fractal_mesospim_shading.images.source import Level


@dataclass(frozen=True)
class Stack:
    """What is known about one stack, without its pixels.

    Attributes:
        group: name of its group in the container.
        number: of the tile in the name: a label, never a place. None where unknown.
        laser, filter: see `native_channels`.
        filter_in_full: whether the filter is spelled as in the metadata file.
        side: `left`, `right` or `both`.
        rotation: in degrees.
        x_um, y_um: position of the stage.
        z_start_um, z_end_um: first and last plane as planned; the end lies below the start
            for a downward scan.
        z_step_um: distance of the planes, above 0.
        planes_planned: None where nothing says it.
        pixel_size_um: (y, x).
        levels: its arrays of axes z, y, x, finest first.
        dtype: of the pixels in native byte order.
        ngff_version: `0.4` or `0.5`.
        processors: image processors that changed the data before they were written.
        position_source: `meta`, `ngff` or `xml`.
        zoom: as the metadata file or the name says it; may be empty.
        started: time stamp of the first plane as text that sorts; may be empty.
        in_xml: whether the project file lists it; None without such a file.
        meta_file, projection_file: names of the files beside the container, if they exist.
        fingerprint: of the metadata of its finest array.
        notes: lines about this stack that a person should read.
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
    started: str = ""
    in_xml: bool | None = None
    meta_file: str | None = None
    projection_file: str | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

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
        return (
            self.tile_shape[0] * self.pixel_size_um[0],
            self.tile_shape[1] * self.pixel_size_um[1],
        )

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

    @property
    def offset_removed(self) -> bool:
        """Whether a processor may have taken the camera offset away already."""
        return removes_offset(self.processors)

    @property
    def tile_label(self) -> str:
        """How people know the tile."""
        return f"Tile{self.number}" if self.number is not None else self.group


@dataclass(frozen=True)
class LeftOut:
    """A group, or a thing that is no group, that was not read.

    Attributes:
        name: in the container.
        reason: why.
    """

    name: str
    reason: str
