"""Rows of a synthetic acquisition table, and the text files that describe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Flatfields = Mapping[tuple[str, str], NDArray[np.float32]]
"""Flat-field (y, x) by laser and shutter, such as `("488 nm", "Left")`."""


@dataclass(frozen=True)
class SyntheticStack:
    """One row of an acquisition table.

    Attributes:
        tile: number that goes into the name.
        x_um, y_um: position of the stage.
        laser, filter, shutter, rotation, zoom: as typed into the table.
        z_start_um, z_end_um: first and last plane; the end may lie below.
        planes: planes that were really written; None writes all that were planned.
        processors: image processors named in the metadata file.
        started: time stamp.
        group: name of the group; empty gives it the microscope's.
    """

    tile: int
    x_um: float
    y_um: float
    laser: str = "488 nm"
    filter: str = "520/35 BrightLine"
    shutter: str = "Left"
    rotation: float = 0.0
    zoom: str = "2x"
    z_start_um: float = 0.0
    z_end_um: float = 25.0
    planes: int | None = None
    processors: tuple[str, ...] = ()
    started: str = "20260101-120000"
    group: str = ""

    @property
    def group_name(self) -> str:
        """The name of the group."""
        if self.group:
            return self.group
        filter_part = self.filter.replace(" ", "_").replace("/", "_")
        side = 0 if self.shutter == "Left" else 1
        return (
            f"Mag{self.zoom[:-1]}_Tile{self.tile}_Ch{self.laser.removesuffix(' nm')}"
            f"_Flt{filter_part}_Sh{side}_Rot{self.rotation}.ome.zarr"
        )


@dataclass(frozen=True)
class SyntheticSettings:
    """How an acquisition is written.

    Attributes:
        version: of NGFF, `0.4` or `0.5`.
        tile_shape: (y, x) in pixels.
        pixel_um, z_step_um: size of a voxel.
        sign_x, sign_y: how the stage's axes run in the image.
        chunks: (z, y, x).
        shards: (z, y, x), for version 0.5 only; None writes none.
        levels: of the pyramid; each halves y and x.
        meta, xml: whether the files beside the container are written.
        camera: as the metadata files call it.
        offset: of the camera, in counts.
        seed: of the texture.
        pixels: gives the (z, y, x) pixels of a stack in the order in which planes were taken,
            in place of the texture.
    """

    version: Literal["0.4", "0.5"] = "0.5"
    tile_shape: tuple[int, int] = (48, 64)
    pixel_um: float = 2.0
    z_step_um: float = 5.0
    sign_x: int = -1
    sign_y: int = -1
    chunks: tuple[int, int, int] = (4, 32, 32)
    shards: tuple[int, int, int] | None = None
    levels: int = 1
    meta: bool = True
    xml: bool = False
    camera: str = "Synthetic camera"
    offset: int = 100
    seed: int = 0
    flatfields: Flatfields = field(default_factory=dict)
    pixels: Callable[[SyntheticStack], NDArray[np.uint16]] | None = None


def planned_planes(stack: SyntheticStack, settings: SyntheticSettings) -> int:
    """Planes of a stack by its table row."""
    return round(abs(stack.z_end_um - stack.z_start_um) / settings.z_step_um) + 1


def meta_text(container: Path, stack: SyntheticStack, settings: SyntheticSettings) -> str:
    """The metadata file of a stack."""
    height, width = settings.tile_shape
    sections: dict[str, dict[str, Any]] = {
        "CFG": {
            "Laser": stack.laser,
            "Intensity (%)": 20,
            "Zoom": stack.zoom,
            "Pixelsize in um": settings.pixel_um,
            "Filter": stack.filter,
            "Shutter": stack.shutter,
        },
        "POSITION": {
            "x_pos": stack.x_um,
            "y_pos": stack.y_um,
            "z_start": stack.z_start_um,
            "z_end": stack.z_end_um,
            "z_stepsize": settings.z_step_um,
            "z_planes": planned_planes(stack, settings),
            "rot": stack.rotation,
        },
        # The sensor before the image is turned: x_pixels become rows.
        "CAMERA PARAMETERS": {
            "camera_type": settings.camera,
            "x_pixels": height,
            "y_pixels": width,
        },
        "MICROSCOPE PARAMETERS": {"name": "Synthetic"},
        "OBJECTIVE_PARAMETERS": {"name": "Synthetic objective"},
        "IMAGE PROCESSORS": {
            "Processor count": len(stack.processors),
            **{f"Processor {i}": name for i, name in enumerate(stack.processors, start=1)},
        },
        "TIMING INFORMATION": {"Started stack": stack.started},
    }
    lines = [f"[Metadata for file] C:\\data\\{container.name}\\{stack.group_name}"]
    for section, entries in sections.items():
        lines += ["", f"[{section}] ", *(f"[{key}] {value}" for key, value in entries.items())]
    return "\n".join(
        [*lines, "[===================== END OF ACQUISITION ======================] ", ""]
    )


def project_text(name: str, stacks: Sequence[SyntheticStack], settings: SyntheticSettings) -> str:
    """The BigStitcher project file of an acquisition."""
    lasers = list(dict.fromkeys(stack.laser for stack in stacks))
    shutters = list(dict.fromkeys(stack.shutter for stack in stacks))
    groups, setups, registrations = [], [], []
    for number, stack in enumerate(stacks):
        groups.append(
            f'<zgroup setup="{number}" tp="0" path="{stack.group_name}" indicies="0 0" />'
        )
        setups.append(
            f"<ViewSetup><id>{number}</id><voxelSize><unit>um</unit><size>{settings.pixel_um} "
            f"{settings.pixel_um} {settings.z_step_um}</size></voxelSize><attributes>"
            f"<illumination>{shutters.index(stack.shutter)}</illumination>"
            f"<channel>{lasers.index(stack.laser)}</channel><tile>{stack.tile}</tile>"
            "<angle>0</angle></attributes></ViewSetup>"
        )
        x = settings.sign_x * stack.x_um / settings.pixel_um
        y = settings.sign_y * stack.y_um / settings.pixel_um
        registrations.append(
            f'<ViewRegistration timepoint="0" setup="{number}"><ViewTransform type="affine">'
            "<Name>Translation to Regular Grid</Name><affine>1.0 0.0 0.0 "
            f"{x:.6f} 0.0 1.0 0.0\n {y:.6f} 0.0 0.0 1.0 0.0</affine></ViewTransform>"
            '<ViewTransform type="affine"><Name>calibration</Name><affine>1.0 0.0 0.0 0.0 0.0 1.0 '
            "0.0 0.0 0.0 0.0 2.5 0.0</affine></ViewTransform></ViewRegistration>"
        )
    tiles = sorted({stack.tile for stack in stacks})
    return (
        '<?xml version="1.0" encoding="utf-8"?><SpimData version="0.2"><SequenceDescription>'
        f'<ImageLoader format="bdv.multimg.zarr" version="3.0"><zarr type="relative">{name}</zarr>'
        f"<zgroups>{''.join(groups)}</zgroups></ImageLoader><ViewSetups>{''.join(setups)}"
        f"{_names('illumination', 'Illumination', shutters)}{_names('channel', 'Channel', lasers)}"
        f"{_names('tile', 'Tile', [str(tile) for tile in range(max(tiles) + 1)])}"
        f"{_names('angle', 'Angle', [str(stacks[0].rotation)])}</ViewSetups></SequenceDescription>"
        f"<ViewRegistrations>{''.join(registrations)}</ViewRegistrations></SpimData>"
    )


def _names(kind: str, tag: str, names: Sequence[str]) -> str:
    items = "".join(
        f"<{tag}><id>{index}</id><name>{name}</name></{tag}>" for index, name in enumerate(names)
    )
    return f'<Attributes name="{kind}">{items}</Attributes>'
