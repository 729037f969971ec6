"""Which planes the models of an image are made from: chosen and checked before a pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fractal_mesospim_shading.core.flatfield.drawing import choose_planes, empty_planes
from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import LayoutError, SamplingError, TileNumberError
from fractal_mesospim_shading.images.models.folder import SavedModel
from fractal_mesospim_shading.images.models.frames import DarkFrame
from fractal_mesospim_shading.images.source import ModelGroup, MultitileImage
from fractal_mesospim_shading.options.flatfield import EstimationOptions
from fractal_mesospim_shading.options.precedence import (
    Automatic,
    Basic,
    EmptyRegions,
    MeasuredProfile,
    Scenario,
    choose_scenario,
)
from fractal_mesospim_shading.overlaps.memory import OverlapMemory

PlaneRef = tuple[int, int]
"""(tile number, plane); planes of later time points go on counting."""


def layout_at_level(image: MultitileImage, level: int) -> TileLayout:
    """The tiles on the pixel grid of a level."""
    if level == 0:
        return image.layout
    return image.layout.coarser(_yx_factor(image, level), image.levels[level].shape[-2:])


def tile_shape_at_level(image: MultitileImage, level: int) -> tuple[int, int]:
    """Shape of the tiles, (y, x), on the pixel grid of a level."""
    if level == 0:
        return image.layout.tile_shape
    return image.layout.coarser_tile(_yx_factor(image, level), image.levels[level].shape[-2:])


def _yx_factor(image: MultitileImage, level: int) -> tuple[int, ...]:
    """How many pixels of full resolution a pixel of a level stands for, along y and x."""
    fine, coarse = image.levels[0].scale[-2:], image.levels[level].scale[-2:]
    return tuple(max(1, round(b / a)) for a, b in zip(fine, coarse, strict=True))


def z_factor(image: MultitileImage, level: int) -> int:
    """How many planes of full resolution one plane of a level stands for."""
    axis = image.axes.position("z")
    if axis is None:
        return 1
    ratio = image.levels[level].scale[axis] / image.levels[0].scale[axis]
    return max(1, round(ratio))


def plane_count(image: MultitileImage, level: int) -> int:
    """Planes of a tile at a level, of one time point."""
    return image.axes.length("z", image.levels[level].shape)


def planes_behind(image: MultitileImage, level: int, plane: int) -> range:
    """The planes of full resolution that a plane of a level stands for.

    Args:
        image: of both.
        level: of the plane.
        plane: its number; those of later time points go on counting, as do those that are given.
    """
    n_z, factor = plane_count(image, 0), z_factor(image, level)
    time, z = divmod(plane, plane_count(image, level))
    return range(time * n_z + z * factor, time * n_z + min((z + 1) * factor, n_z))


def time_count(image: MultitileImage) -> int:
    """Time points of an image."""
    return image.axes.length("t", image.levels[0].shape)


@dataclass(frozen=True)
class PlaneChoice:
    """What the models of an image are made from.

    Attributes:
        image: to read from.
        options: of the estimate.
        scenario: the one chosen.
        level: of the pyramid that flat-fields are estimated from.
        candidates: tile number -> planes of that level that may be drawn.
        models: that were given, by label of the model group, in the first scenario.
        dark: measured dark frame by channel label.
        prefix: what goes before the labels of its models where a job has several mosaics.
        folder: where its models go below the folder of all models; empty for that folder.
        memory: of overlaps that were compared.
    """

    image: MultitileImage
    options: EstimationOptions
    scenario: Scenario
    level: int
    candidates: Mapping[int, Sequence[int]]
    models: Mapping[str, SavedModel] = field(default_factory=dict)
    dark: Mapping[str, DarkFrame] = field(default_factory=dict)
    prefix: str = ""
    folder: str = ""
    memory: OverlapMemory = field(default_factory=OverlapMemory, compare=False)

    @property
    def mostly_empty(self) -> bool:
        """Whether the planes were chosen as empty."""
        return isinstance(self.scenario, EmptyRegions)

    @property
    def automatic(self) -> bool:
        """Whether the pixels decide what it is made from."""
        return isinstance(self.scenario, Automatic)

    def name_of(self, group: ModelGroup) -> str:
        """How a group is called in what is said: its label, with that of the mosaic."""
        return self.prefix + group.label

    def of_group(self, group: ModelGroup) -> dict[int, list[int]]:
        """The planes of a group that may be drawn: those chosen that exist in its stacks.

        Raises:
            SamplingError: there is none.
        """
        n_z, factor = plane_count(self.image, self.level), z_factor(self.image, self.level)
        planes = {}
        for tile in sorted(self.candidates.keys() & group.planes.keys()):
            first, stop = group.planes[tile]
            chosen = [
                p
                for p in self.candidates[tile]
                if first <= (p % n_z) * factor < stop and (tile, p // n_z) not in group.unwritten
            ]
            if chosen:
                planes[tile] = chosen
        if not planes:
            raise SamplingError(
                f"{self.name_of(group)}: none of the tiles {sorted(self.candidates)} has a plane "
                f"of this channel among those chosen; its tiles are {sorted(group.planes)}. Choose "
                "`fov_list` and `z_levels` so that each channel (and each illumination side) has "
                "empty planes."
            )
        return planes

    def at_full_resolution(self, group: ModelGroup) -> dict[int, list[int]]:
        """All planes at full resolution that those of a group that may be drawn stand for.

        Where they were not chosen as empty, that is every plane.
        """
        if not self.mostly_empty:
            return every_plane(self.image, group)
        return {
            tile: [z for plane in planes for z in planes_behind(self.image, self.level, plane)]
            for tile, planes in self.of_group(group).items()
        }


def choose(
    image: MultitileImage,
    options: EstimationOptions,
    models: Mapping[str, SavedModel],
    dark: Mapping[str, DarkFrame],
) -> PlaneChoice:
    """Choose scenario, level and planes.

    Raises:
        TileNumberError: a tile number that the mosaic does not have, or one given twice.
        SamplingError: z-levels that leave nothing, a level that does not exist.
    """
    scenario = choose_scenario(options)
    level = options.resolution_level
    if level is None:
        level = len(image.levels) - 1 if isinstance(scenario, Basic) else 0
    if level >= len(image.levels):
        raise SamplingError(
            f"`resolution_level` is {level}, but the image has the levels 0 to "
            f"{len(image.levels) - 1}."
        )
    tiles = [tile.number for tile in image.layout.tiles]
    n_z = plane_count(image, level)
    planes: Sequence[int] = range(n_z)
    if isinstance(scenario, EmptyRegions):
        tiles = _empty_tiles(image, scenario)
        if scenario.z_levels is not None:
            planes = empty_planes(plane_count(image, 0), scenario.z_levels, z_factor(image, level))
            planes = [z for z in planes if z < n_z]
    every = [t * n_z + z for t in range(time_count(image)) for z in planes]
    choice = PlaneChoice(image, options, scenario, level, dict.fromkeys(tiles, every), models, dark)
    if not isinstance(scenario, MeasuredProfile):
        for group in image.model_groups:
            choice.of_group(group)
    return choice


def _empty_tiles(image: MultitileImage, scenario: EmptyRegions) -> list[int]:
    """Numbers of the tiles that were named, or of the corners, of each mosaic of an image."""
    numbers = list(scenario.fov_list or ())
    repeated = sorted({n for n in numbers if numbers.count(n) > 1})
    if repeated:
        raise TileNumberError(f"`fov_list` names the tiles {repeated} more than once.")
    tiles = []
    for grid in image.grids:
        if scenario.fov_list is None and not grid.layout.corners:
            raise SamplingError(
                f"All four corner tiles of {grid.url} are missing; name the tiles whose end planes "
                "are empty in `fov_list`."
            )
        try:
            own = [grid.layout.tile(n).number for n in numbers or grid.layout.corners]
        except LayoutError as error:
            which = "this image" if len(image.grids) == 1 else grid.url
            raise TileNumberError(
                f"`fov_list`: {error} The tiles of {which} are:\n  "
                + "\n  ".join(grid.layout.map_text().splitlines())
            ) from None
        tiles += [grid.numbers[number] for number in own]
    return tiles


def every_plane(image: MultitileImage, group: ModelGroup) -> dict[int, list[int]]:
    """All planes of a group at full resolution, by tile."""
    n_z = plane_count(image, 0)
    return {
        tile: [
            t * n_z + z
            for t in range(time_count(image))
            if (tile, t) not in group.unwritten
            for z in range(*span)
        ]
        for tile, span in group.planes.items()
        if span[0] < span[1]
    }


def drawn_planes(
    image: MultitileImage,
    planes: Mapping[int, Sequence[int]],
    level: int,
    number: int,
    seed: int,
    *,
    in_pairs: bool = False,
) -> tuple[PlaneRef, ...]:
    """Draw some of the planes of a level, in slabs that are decoded together; see `choose_planes`.

    Args:
        image: that has them.
        planes: to draw from, by tile.
        level, number, seed: how many of which level, and how.
        in_pairs: whether each needs a neighbour.
    """
    depth = image.axes.length("z", image.read_units(level))
    return tuple(choose_planes(planes, number, seed, depth, in_pairs=in_pairs))
