"""Overlapping acquisitions of known truth as containers, in both layouts of the microscope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.synthetic.overlapping import OverlappingWorld
from tests.support.acquisition import write_acquisition
from tests.support.acquisition_table import SyntheticSettings, SyntheticStack
from tests.support.tile_images import write_tile_images

LASERS = ("488 nm", "561 nm", "638 nm")
SHUTTERS = ("Left", "Right")


def write_overlapping_acquisition(
    folder: str | Path,
    world: OverlappingWorld,
    name: str = "acquisition.ome.zarr",
    *,
    channels: int = 1,
    one_image_per_tile: bool = False,
    **settings: Any,
) -> Path:
    """Write a world as a container: tiles, then lasers, then sides.

    Args:
        folder: gets the container and the files beside it.
        world: what the microscope looks at; its sides are the left and the right shutter.
        name: of the container.
        channels: lasers of each tile.
        one_image_per_tile: the layout of t,c,z,y,x images, else that of one group a stack.
        settings: fields of `SyntheticSettings`.

    Returns:
        The path of the container.
    """

    def pixels(stack: SyntheticStack) -> NDArray[np.uint16]:
        side = SHUTTERS.index(stack.shutter)
        return world.tile_stack(stack.tile + 1, LASERS.index(stack.laser), side)

    form = SyntheticSettings(
        **{"tile_shape": world.tile_shape, "chunks": (4, 64, 64), "pixels": pixels, **settings}
    )
    stacks = [
        SyntheticStack(
            tile=number - 1,
            x_um=form.sign_x * float(x) * form.pixel_um,
            y_um=form.sign_y * float(y) * form.pixel_um,
            laser=laser,
            shutter=shutter,
            z_end_um=(world.planes - 1) * form.z_step_um,
        )
        for number, (y, x) in zip(world.tile_numbers, world.nominal_positions, strict=True)
        for laser in LASERS[:channels]
        for shutter in SHUTTERS[: len(world.sides)]
    ]
    write = write_tile_images if one_image_per_tile else write_acquisition
    return write(folder, name, stacks, form)
