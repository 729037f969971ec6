"""Mosaics in which it is hard to tell what is empty: dim, tilted, littered, glowing, with gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from fractal_mesospim_shading.core.emptiness.windows import Windows, choose_window_bin
from fractal_mesospim_shading.core.flatfield.binning import BinnedPlanes, bin_block
from fractal_mesospim_shading.synthetic.world import LightSheetWorld


@dataclass(frozen=True)
class LitteredWorld(LightSheetWorld):
    """A sample that may lie aslant, among particles, in a medium that is not the same everywhere.

    Attributes:
        tilt: how far the sample moves along x from the first plane to the last, in half mosaics.
        debris: brightness of particles, counts; four in each tile.
        glow: change of the medium from tile to tile and along z, a fraction.
        haze: light that rises along x, counts, in every fourth tile: sample, not medium.
        gaps: blocks of zeros in each tile, 8 planes deep.
        first, last: planes that are taken; the others are not there.
    """

    tilt: float = 0.0
    debris: float = 0.0
    glow: float = 0.0
    haze: float = 0.0
    gaps: int = 0
    first: int = 0
    last: int | None = None

    @property
    def taken(self) -> range:
        """The planes that are there."""
        return range(self.first, self.planes if self.last is None else self.last)

    def medium_of(self, number: int, z: int) -> float:
        """Brightness of the medium, counts."""
        own = self._generator(11, number).uniform(-1, 1)
        return self.medium * (1 + self.glow * (own + 0.5 * np.sin(3 * z / self.planes)))

    def sample_of(self, number: int, z: int) -> NDArray[np.float64]:
        """Light of all that is not medium, (y, x), counts before the flat-field."""
        along_y, along_x = self._mosaic_coordinates(number)
        y, x = along_y[:, None], along_x[None, :]
        height, width = self.tile_shape
        x_here = x - self.tilt * (z / self.planes - 0.5)
        squared = (y**2 + x_here**2) / self.sample_radius**2 + self._squared_z(z)
        waves = np.cos(21 * y + 0.5 * z) * np.cos(17 * x - 0.3 * z) + np.cos(60 * (x + y) + z)
        light = self.sample * np.clip(12 * (1 - squared), 0, 1) * (1 + 0.3 * waves)
        if self.haze and number % 4 == 0:
            light = light + self.haze * np.arange(width) / width
        random = self._generator(12, number)
        rows, columns = np.indices(self.tile_shape)
        for _ in range(4 if self.debris else 0):
            at_y, at_x, at_z = random.uniform(0, 1, 3) * (height, width, self.planes)
            radius = min(height, width) * np.exp(random.uniform(np.log(0.01), np.log(0.08)))
            far = ((rows - at_y) ** 2 + (columns - at_x) ** 2) / radius**2 + (z - at_z) ** 2
            light = light + self.debris * np.exp(random.uniform(-1.5, 1) - far / 2)
        return light

    def clean_plane(self, number: int, z: int, channel: int = 0) -> NDArray[np.float32]:
        light = self.medium_of(number, z) + self.sample_of(number, z)
        return np.asarray(light, np.float32)

    def tile_planes(self, number, planes, channel=0):  # type: ignore[no-untyped-def]
        stack = super().tile_planes(number, planes, channel)
        for start, y, x in self._gaps_of(number):
            inside = [k for k, z in enumerate(planes) if start <= z < start + 8]
            stack[inside, y : y + self.tile_shape[0] // 4, x : x + self.tile_shape[1] // 4] = 0
        return stack

    def _gaps_of(self, number: int) -> list[tuple[int, int, int]]:
        random = self._generator(13, number)
        ends = (self.planes, *self.tile_shape)
        return [tuple(int(random.integers(0, end)) for end in ends) for _ in range(self.gaps)]

    def excess(self, number: int, z: int) -> float:
        """Light of sample in the worst hundredth of a plane, over what must not pass: 2 % of the
        medium's, or five standard errors of the mean of that place, if these are more.

        What is even over the plane is medium.
        """
        flat, medium = self.flatfield().astype(np.float64), self.medium_of(number, z)
        side = [max(1, round(0.1 * size)) for size in self.tile_shape]
        sample = self.sample_of(number, z) * np.ones(self.tile_shape)
        for start, y, x in self._gaps_of(number):
            if start <= z < start + 8:
                area = (
                    slice(y, y + self.tile_shape[0] // 4),
                    slice(x, x + self.tile_shape[1] // 4),
                )
                sample[area] = 0
        place, own = uniform_filter(sample * flat, side), uniform_filter(medium * flat, side)
        deviation = np.sqrt((self.gain * own + (self.gain * self.read_noise) ** 2) / np.prod(side))
        inside = tuple(
            slice(s // 2, n - s // 2) for s, n in zip(side, self.tile_shape, strict=True)
        )
        return float((place / np.maximum(0.02 * own, 5 * deviation))[inside].max())


@dataclass(frozen=True)
class SeenWorld:
    """All planes of a world in windows.

    Attributes:
        world: of which.
        refs: (tile, plane) of each.
        windows: of the planes.
    """

    world: LitteredWorld
    refs: list[tuple[int, int]]
    windows: Windows

    @classmethod
    def of(cls, world: LitteredWorld, more: float = 0.0) -> SeenWorld:
        """Look at every plane; `more` counts are added to all pixels."""
        planes, bin_px = list(world.taken), choose_window_bin(world.tile_shape)
        refs = [(tile, z) for tile in world.tile_numbers for z in planes]
        binned = BinnedPlanes(len(refs), world.tile_shape, bin_px)
        for k, tile in enumerate(world.tile_numbers):
            pixels = world.tile_planes(tile, planes)
            pixels = np.where(pixels > 0, pixels + np.asarray(more, pixels.dtype), pixels)
            slots = range(k * len(planes), (k + 1) * len(planes))
            binned.add(bin_block(pixels, 0, 0, bin_px, None, True), slots)
        stack = binned.finish(world.pixel_type != "float32")
        return cls(world, refs, Windows.of(stack, refs, world.planes))
