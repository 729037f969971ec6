"""The small world with known truth that demo, examples, tests and benchmarks share.

A mosaic of light-sheet tiles: a textured sample in the middle of clear medium, seen
through a known flat-field by a camera with a known offset, gain and read noise. Every
plane has a random generator of its own, so any part can be made without the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.layout import TileLayout
from fractal_mesospim_shading.errors import ParameterError
from fractal_mesospim_shading.synthetic.cameras import CAMERAS, Exposure

FloatImage = NDArray[np.float32]

SHAPES = ("sheet", "vignette", "tilted", "band")


@dataclass(frozen=True)
class LightSheetWorld:
    """A mosaic with known flat-field, dark frame and sample.

    Attributes:
        tile_shape: (y, x) of a tile in pixels.
        grid: rows and columns of the mosaic; tiles are numbered from 1 down the columns.
        overlap: part of a tile, along y and x, that its neighbour shows as well, 0 to below 1.
        planes: along z.
        offset: mean of the dark frame in counts.
        dark_structure: its standard deviation in counts: columns, pixels and a slow drift.
        medium: brightness of the empty medium above the offset, counts.
        gain: counts per electron.
        read_noise: electrons.
        shape: one of `SHAPES`, the kind of flat-field.
        waist: half-length of the sheet's focus as a fraction of the tile's width; shorter
            is steeper.
        falloff: darkest over brightest pixel of the flat-field without its streaks.
        streaks: amplitude of the streaks along x, a fraction.
        sample: brightness of the sample above the medium, counts; 0 for none.
        sample_radius: half-axes of the sample as a fraction of half the mosaic.
        seed: of everything random.
        camera: one of `synthetic.cameras.CAMERAS`, what makes counts of the light.
        pixel_type: of what is stored; whole counts are rounded and clipped, floats are not.
    """

    tile_shape: tuple[int, int] = (256, 256)
    grid: tuple[int, int] = (3, 3)
    overlap: float = 0.0
    planes: int = 24
    offset: float = 100.0
    dark_structure: float = 1.0
    medium: float = 60.0
    gain: float = 2.17
    read_noise: float = 1.4
    shape: str = "sheet"
    waist: float = 0.45
    falloff: float = 0.5
    streaks: float = 0.03
    sample: float = 600.0
    sample_radius: float = 0.65
    seed: int = 0
    camera: str = "photons"
    pixel_type: str = "uint16"

    @property
    def tile_numbers(self) -> range:
        """All tile numbers, from 1, down the columns."""
        return range(1, self.grid[0] * self.grid[1] + 1)

    def tile_row_column(self, number: int) -> tuple[int, int]:
        """Row and column of a tile in the mosaic, from 0."""
        column, row = divmod(number - 1, self.grid[0])
        return row, column

    @property
    def step(self) -> tuple[int, int]:
        """From a tile to the next along y and x, in pixels."""
        height, width = self.tile_shape
        return round(height * (1 - self.overlap)), round(width * (1 - self.overlap))

    def tile_origin(self, number: int) -> tuple[int, int]:
        """Where a tile lies in the sample (y, x), in pixels from the first tile."""
        row, column = self.tile_row_column(number)
        return row * self.step[0], column * self.step[1]

    def flatfield(self, channel: int = 0) -> FloatImage:
        """The flat-field of a channel, (y, x), mean 1. Channels differ in focus and streaks."""
        height, width = self.tile_shape
        y = ((np.arange(height) + 0.5) / height - 0.5)[:, None]
        x = ((np.arange(width) + 0.5) / width - 0.5)[None, :]
        x = x - 0.06 * (-1) ** channel
        sheet = 1 / np.sqrt(1 + (x / self.waist) ** 2)
        scan = 1 / (1 + (np.abs(y) / 0.62) ** 4)
        vignette = (1 + (x**2 + y**2) / 0.9) ** -2
        kinds = {
            "sheet": sheet * scan * vignette**0.5,
            "vignette": vignette,
            "tilted": np.exp(0.8 * x - 0.5 * y) * vignette,
            "band": (0.6 + 0.4 * np.exp(-0.5 * ((x + 0.15) / (0.4 * self.waist)) ** 2)) * scan,
        }
        if self.shape not in kinds:
            raise ValueError(f"shape is {self.shape!r}; expected one of {SHAPES}.")
        flat = np.broadcast_to(kinds[self.shape], self.tile_shape)
        flat = (flat / flat.max()) ** (np.log(self.falloff) / np.log(flat.min() / flat.max()))
        flat = flat * (1 + self.streaks * self._streak_pattern(channel))
        return np.asarray(flat / flat.mean(), dtype=np.float32)

    def _streak_pattern(self, channel: int) -> NDArray[np.float64]:
        rng = self._generator(1, channel)
        height, width = self.tile_shape
        y = ((np.arange(height) + 0.5) / height)[:, None]
        x = ((np.arange(width) + 0.5) / width)[None, :]
        pattern = np.zeros(self.tile_shape)
        for _ in range(12):
            centre, sigma = rng.uniform(0, 1), rng.uniform(0.008, 0.03)
            slope, start, sign = (
                rng.uniform(-0.03, 0.03),
                rng.uniform(0.5, 1),
                rng.choice([-1, 1]),
            )
            line = np.exp(-0.5 * ((y - centre - slope * x) / sigma) ** 2)
            pattern += sign * line * (start + (1 - start) * x)
        return pattern / max(float(np.abs(pattern).max()), 1e-9)

    def dark_frame(self) -> FloatImage:
        """The camera's mean image without light, (y, x), counts."""
        rng = self._generator(2, 0)
        height, width = self.tile_shape
        columns = rng.standard_normal((1, width))
        pixels = rng.standard_normal((height, width))
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
        drift = np.sin(2.3 * y + rng.uniform(0, 6)) * np.cos(1.7 * x + rng.uniform(0, 6))
        structure = 0.45 * columns + 0.87 * pixels + 0.2 * (drift - drift.mean()) / drift.std()
        structure *= self.dark_structure / structure.std()
        return np.asarray(self.offset + structure - structure.mean(), dtype=np.float32)

    def is_empty(self, number: int, z: int) -> bool:
        """Whether a plane of a tile holds medium and nothing else."""
        squared_z = self._squared_z(z)
        if self.sample == 0 or squared_z >= 1:
            return True
        y, x = self._mosaic_coordinates(number)
        nearest = np.min(y**2) + np.min(x**2)
        return bool(nearest / self.sample_radius**2 >= 1 - squared_z)

    def clean_plane(self, number: int, z: int, channel: int = 0) -> FloatImage:
        """What a perfect microscope without offset would see, (y, x), counts."""
        height, width = self.tile_shape
        clean = np.full(self.tile_shape, self.medium, dtype=np.float32)
        if self.is_empty(number, z):
            return clean
        y, x = self._mosaic_coordinates(number)
        squared = (y[:, None] ** 2 + x[None, :] ** 2) / self.sample_radius**2
        inside = np.clip((1 - self._squared_z(z) - squared) * 12, 0, 1).astype(np.float32)
        first_y, first_x = self.tile_origin(number)
        pixel_y, pixel_x = np.arange(height) + first_y, np.arange(width) + first_x
        rng = self._generator(3, channel)
        texture = np.zeros(self.tile_shape, dtype=np.float32)
        for _ in range(10):
            length = np.exp(rng.uniform(np.log(8), np.log(80)))
            angle, depth, phase = rng.uniform(0, 2 * np.pi, 3)
            ky, kx = (
                2 * np.pi * np.sin(angle) / length,
                2 * np.pi * np.cos(angle) / length,
            )
            wave_y = np.exp(1j * (ky * pixel_y + phase + 0.4 * depth * z)).astype(np.complex64)
            wave_x = np.exp(1j * kx * pixel_x).astype(np.complex64)
            texture += wave_y.real[:, None] * wave_x.real - wave_y.imag[:, None] * wave_x.imag
        light: FloatImage = clean + self.sample * inside * np.exp(0.25 * texture)
        return light

    def tile_planes(
        self, number: int, planes: Sequence[int], channel: int = 0
    ) -> NDArray[np.generic]:
        """What the camera stores for some planes of a tile, (n, y, x) of `pixel_type`."""
        flat, dark, camera = self.flatfield(channel), self.dark_frame(), CAMERAS[self.camera]
        stack = np.empty((len(planes), *self.tile_shape), dtype=self.pixel_type)
        for k, z in enumerate(planes):
            random = self._generator(4, number, z, channel)
            light = self.clean_plane(number, z, channel) * flat
            sensor = (self.seed, 6)
            counts = camera(Exposure(light, dark, self.gain, self.read_noise, random, sensor))
            stack[k] = self._stored(counts)
        return stack

    def _stored(self, counts: FloatImage) -> FloatImage:
        if np.dtype(self.pixel_type).kind == "f":
            return counts
        return np.clip(np.rint(counts), 0, np.iinfo(self.pixel_type).max)

    def tile_stack(self, number: int, channel: int = 0) -> NDArray[np.generic]:
        """What the camera stores for a tile, (z, y, x) of `pixel_type`."""
        return self.tile_planes(number, range(self.planes), channel)

    def measured_dark_frame(self, n_frames: int = 100) -> FloatImage:
        """The mean of frames taken with the shutter closed, (y, x), counts."""
        rng = self._generator(5, 0)
        noise = rng.standard_normal(self.tile_shape, dtype=np.float32)
        sigma = np.float32(self.gain * self.read_noise / np.sqrt(n_frames))
        frame: FloatImage = self.dark_frame() + noise * sigma
        return frame

    def _mosaic_coordinates(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """y and x of a tile's pixels, from -1 to 1 across all tiles."""
        axes = []
        for size, tiles, step, first in zip(
            self.tile_shape, self.grid, self.step, self.tile_origin(number), strict=True
        ):
            whole = size + (tiles - 1) * step
            axes.append(2 * (np.arange(size) + 0.5 + first) / whole - 1)
        return axes[0], axes[1]

    def _squared_z(self, z: int) -> float:
        return float(((2 * (z + 0.5) / self.planes - 1) / 0.8) ** 2)

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *key])))


def grid_layout(
    plane_shape: Sequence[int], tile_shape: tuple[int, int], missing: Sequence[int] = ()
) -> TileLayout:
    """The layout of a full grid of tiles, without those that are missing.

    Raises:
        ParameterError: tiles do not fill the plane, or nothing is left.
    """
    (height, width), (tile_y, tile_x) = plane_shape, tile_shape
    if min(tile_shape) < 1 or height % tile_y or width % tile_x:
        raise ParameterError(
            f"Tiles of {tile_y} x {tile_x} do not fill a plane of {height} x {width} pixels."
        )
    rows, columns = height // tile_y, width // tile_x
    places = itertools.product(range(columns), range(rows))
    present = {
        number: (row * tile_y, column * tile_x)
        for number, (column, row) in enumerate(places, 1)
        if number not in missing
    }
    if not present or not set(missing) <= set(range(1, rows * columns + 1)):
        raise ParameterError(
            f"The missing tiles are {list(missing)}; the grid has the numbers 1 to "
            f"{rows * columns}, and at least one has to stay."
        )
    names = [f"FOV_{number}" for number in present]
    return TileLayout.from_origins(list(present.values()), tile_shape, (height, width), names)
