"""Acquisitions of known truth whose tiles overlap: the same tissue is seen twice.

A continuous sample is looked at from stage positions of which the metadata know only what was
asked for. What differs between two views of one place is known to the last factor: the flat-field,
the gain of a tile, what earlier exposures bleached, and noise. Everything random comes from the
seed, so any stack can be made without the others.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.images.storage.places import StorageOptions
from fractal_mesospim_shading.synthetic.fields import RandomField
from fractal_mesospim_shading.synthetic.images import ImageStyle, new_image
from fractal_mesospim_shading.synthetic.world import FloatImage, LightSheetWorld, grid_layout

FloatArray = NDArray[np.float64]

REGIONS = ("blobs", "centre")

# A stage error is cut off at so many of its standard deviations.
_FARTHEST = 3.0
# How steeply the sample begins at its outline.
_EDGE = np.float32(10)
# Stands for the outline of the sample, where channels have their numbers.
_OUTLINE = 2**31


@dataclass(frozen=True)
class OverlappingWorld:
    """An acquisition with known flat-fields, gains, stage positions and camera.

    Tiles are numbered from 1 down the columns, and taken in that order.

    Attributes:
        tile_shape: (y, x) of a tile in pixels.
        grid: rows and columns of tiles.
        planes: along z.
        overlap: of neighbours by the metadata, a fraction of the tile along that axis.
        stage_error: standard deviation along y and x of what the stage was off, pixels.
        gain_range: largest deviation of a tile's gain from 1 before they are scaled to the
            geometric mean 1.
        drift: fraction of the light that is lost evenly from the first to the last tile; it is
            part of the gains.
        bleaching: fraction of the sample's light that every earlier tile has taken away where
            it overlaps; it is no part of the gains.
        medium: brightness of the empty medium above the offset, counts.
        sample: mean brightness of the sample above the medium, counts; 0 for none.
        share: fraction of the area that the sample fills.
        region: `blobs` of about half a tile, or one disc in the `centre`, which leaves the corners
            empty.
        structure_px: lengths (standard deviation of a Gaussian) of the sample's structure along y
            and x; along z twice as many planes.
        contrast: standard deviation of the logarithm of the sample's light.
        sides: of illumination, each with a flat-field and gains of its own.
        arms: brightness of each side.
        offset: of the camera, counts.
        gain: of the camera, counts per electron.
        read_noise: electrons.
        shape, falloff, streaks: of the flat-field, see `LightSheetWorld`.
        seed: of everything random.
    """

    tile_shape: tuple[int, int] = (256, 320)
    grid: tuple[int, int] = (3, 3)
    planes: int = 12
    overlap: float = 0.15
    stage_error: float = 2.0
    gain_range: float = 0.0
    drift: float = 0.0
    bleaching: float = 0.0
    medium: float = 60.0
    sample: float = 300.0
    share: float = 1.0
    region: str = "blobs"
    structure_px: tuple[float, ...] = (14.0, 3.0)
    contrast: float = 0.4
    sides: tuple[str, ...] = ("left",)
    arms: tuple[float, ...] = (1.0,)
    offset: float = 100.0
    gain: float = 0.5
    read_noise: float = 1.4
    shape: str = "sheet"
    falloff: float = 0.5
    streaks: float = 0.01
    seed: int = 0

    @property
    def tile_numbers(self) -> range:
        """All tile numbers, from 1, down the columns."""
        return range(1, self.grid[0] * self.grid[1] + 1)

    @property
    def neighbours(self) -> list[tuple[int, int, str]]:
        """Tiles that share an edge: (first, second, axis along which they are neighbours)."""
        rows, columns = self.grid
        numbers = np.array(self.tile_numbers).reshape(columns, rows)
        below = zip(numbers[:, :-1].ravel(), numbers[:, 1:].ravel(), itertools.repeat("y"))
        right = zip(numbers[:-1].ravel(), numbers[1:].ravel(), itertools.repeat("x"))
        return [(int(a), int(b), axis) for a, b, axis in (*below, *right)]

    @cached_property
    def nominal_positions(self) -> FloatArray:
        """Corners (y, x) of the tiles in pixels by the metadata, one row for each; the first 0."""
        pitch = [round(size * (1 - self.overlap)) for size in self.tile_shape]
        rows, columns = self.grid
        places = itertools.product(range(columns), range(rows))
        return np.array([(row * pitch[0], column * pitch[1]) for column, row in places], float)

    @cached_property
    def true_positions(self) -> FloatArray:
        """Where the tiles really were, in the same coordinates; between pixels as well."""
        errors = self._generator(1).standard_normal(self.nominal_positions.shape)
        limited = np.clip(errors, -_FARTHEST, _FARTHEST) * self.stage_error
        return np.asarray(self.nominal_positions + limited)

    def flatfield(self, channel: int = 0, side: int = 0) -> FloatImage:
        """The flat-field of a channel and side, (y, x), mean 1; every other side is mirrored."""
        world = LightSheetWorld(
            tile_shape=self.tile_shape,
            shape=self.shape,
            falloff=self.falloff,
            streaks=self.streaks,
            seed=self.seed,
        )
        flat = world.flatfield(2 * channel + side)
        return np.ascontiguousarray(flat[:, ::-1]) if side % 2 else flat

    def gains(self, channel: int = 0, side: int = 0) -> FloatArray:
        """Brightness of each tile in the order of the numbers; geometric mean 1."""
        count = len(self.tile_numbers)
        random = self._generator(2, channel, side).uniform(-1, 1, count)
        gains = (1 + self.gain_range * random) * (1 - self.drift * np.linspace(0, 1, count))
        return np.asarray(gains / np.exp(np.log(gains).mean()))

    def light(self, number: int, channel: int = 0) -> FloatImage:
        """What a perfect microscope without offset sees, (z, y, x), counts."""
        whole = (self.planes, *self.tile_shape)
        light = np.full(whole, self.medium, dtype=np.float32)
        if self.sample == 0 or self.share == 0:
            return light
        corner = self.true_positions[number - 1] + self._margin
        texture = np.zeros(whole, dtype=np.float32)
        for field in self._structure(channel):
            texture += field.at(corner, self.tile_shape)
        texture *= np.float32(self.contrast / np.sqrt(max(len(self.structure_px), 1)))
        brightness = np.float32(self.sample) * np.exp(texture - np.float32(self.contrast**2 / 2))
        brightness *= self._inside(number)
        if self.bleaching:
            brightness *= np.float32(1 - self.bleaching) ** self._earlier_exposures(number)
        return np.asarray(light + brightness, dtype=np.float32)

    def tile_stack(self, number: int, channel: int = 0, side: int = 0) -> NDArray[np.uint16]:
        """What the camera stores for a tile, (z, y, x) uint16."""
        seen = self.light(number, channel) * self.flatfield(channel, side)
        seen *= np.float32(self.gains(channel, side)[number - 1] * self.arms[side])
        rng = self._generator(3, number, channel, side)
        counts = rng.poisson(seen / self.gain).astype(np.float32) * np.float32(self.gain)
        noise = rng.standard_normal(seen.shape, dtype=np.float32)
        counts += np.float32(self.offset) + noise * np.float32(self.gain * self.read_noise)
        return np.asarray(np.clip(np.rint(counts), 0, 65535), dtype=np.uint16)

    @property
    def _margin(self) -> int:
        """Pixels of the sample around the nominal mosaic."""
        return int(np.ceil(_FARTHEST * self.stage_error)) + 4

    @property
    def _sample_shape(self) -> tuple[int, int]:
        last = self.nominal_positions[-1].astype(int)
        y, x = (
            int(n) + size + 2 * self._margin for n, size in zip(last, self.tile_shape, strict=True)
        )
        return y, x

    @cached_property
    def _fields(self) -> dict[tuple[int, float], RandomField]:
        return {}

    def _field(self, key: int, length: float) -> RandomField:
        if (key, length) not in self._fields:
            random = self._generator(4, key, round(1000 * length))
            whole = (self.planes, *self._sample_shape)
            self._fields[key, length] = RandomField.drawn(random, whole, length)
        return self._fields[key, length]

    def _structure(self, channel: int) -> list[RandomField]:
        return [self._field(channel, length) for length in self.structure_px]

    def _inside(self, number: int) -> FloatImage:
        """How much of each pixel is sample, 0 to 1, (z or 1, y, x)."""
        if self.share >= 1:
            return np.ones((1, 1, 1), dtype=np.float32)
        height = self._height(self.true_positions[number - 1], self.tile_shape)
        return np.clip(0.5 + _EDGE * (height - self._shore), 0, 1)

    @cached_property
    def _shore(self) -> np.float32:
        """The height above which there is sample."""
        margin = 2 * self._margin
        nominal = (self._sample_shape[0] - margin, self._sample_shape[1] - margin)
        return np.float32(np.quantile(self._height((0.0, 0.0), nominal), 1 - self.share))

    def _height(self, corner: Sequence[float], shape: tuple[int, int]) -> FloatImage:
        """A function of place that is high in the sample, (z or 1, y, x)."""
        within = [c + self._margin for c in corner]
        if self.region == "blobs":
            return self._field(_OUTLINE, 0.2 * self.tile_shape[1]).at(within, shape)
        if self.region != "centre":
            raise ValueError(f"region is {self.region!r}; expected one of {REGIONS}.")
        y, x = (
            2 * (start + np.arange(length)) / whole - 1
            for start, length, whole in zip(within, shape, self._sample_shape, strict=True)
        )
        return np.asarray(-(y[:, None] ** 2 + x**2)[None], dtype=np.float32)

    def _earlier_exposures(self, number: int) -> FloatImage:
        """How many tiles taken before have lit each pixel, (y, x)."""
        own, counts = self.true_positions[number - 1], np.zeros(self.tile_shape, np.float32)
        for earlier in self.true_positions[: number - 1]:
            lit = [
                (place >= start) & (place < start + size)
                for place, start, size in zip(
                    (o + np.arange(n) for o, n in zip(own, self.tile_shape, strict=True)),
                    earlier,
                    self.tile_shape,
                    strict=True,
                )
            ]
            counts += np.outer(*lit)
        return counts

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *key])))


def write_overlapping_mosaic(
    url: str | os.PathLike[str],
    world: OverlappingWorld,
    channels: Sequence[str] = ("488 nm",),
    *,
    side: int = 0,
    overwrite: bool = False,
    storage_options: StorageOptions = None,
    **style: Any,
) -> str:
    """Write an acquisition as Fractal keeps a mosaic, its tiles edge to edge.

    The columns `x_micrometer_original` and `y_micrometer_original` hold the nominal positions.

    Args:
        url: of the new image.
        world: what the microscope looks at, and how.
        channels: labels.
        side: of illumination.
        overwrite: replace what is there.
        storage_options: for a remote address.
        style: fields of `ImageStyle`.

    Returns:
        The address.

    Raises:
        OutputExistsError: there is already something.
    """
    form = ImageStyle(**style)
    (rows, columns), (height, width) = world.grid, world.tile_shape
    plane_shape = (rows * height, columns * width)
    layout = grid_layout(plane_shape, world.tile_shape)
    lengths = {"t": 1, "c": len(channels), "z": world.planes, "y": plane_shape[0]}
    lengths["x"] = plane_shape[1]
    place = form.axes.find("c")

    def planes(lead: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        slab = np.zeros((stop - start, *plane_shape), dtype=np.uint16)
        for tile in layout.tiles:
            stack = world.tile_stack(tile.number, lead[place] if place >= 0 else 0, side)
            slab[:, tile.y : tile.y + height, tile.x : tile.x + width] = stack[start:stop]
        return slab

    size_y, size_x = form.pixel_size_um[1:]
    original = {
        number: (float(x) * size_x, float(y) * size_y)
        for number, (y, x) in zip(world.tile_numbers, world.nominal_positions, strict=True)
    }
    return new_image(
        url,
        [lengths[axis] for axis in form.axes],
        np.dtype(form.dtype or "uint16"),
        planes,
        form,
        layout=layout,
        original_um=original,
        channels=channels if "c" in form.axes else None,
        overwrite=overwrite,
        storage_options=storage_options,
    )
