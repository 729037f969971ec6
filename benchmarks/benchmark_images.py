"""The images of the benchmarks: uint16 mosaics with photon and read noise, made here.

Every pixel is light through a known flat-field plus a dark frame, with normal noise
whose variance is that of photons and camera. The noise comes from one drawn pool, read
from a new place for each plane: codecs see noise, and gigabytes are made in seconds.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.pyramid import block_mean
from fractal_mesospim_shading.images.models.folder import save_models
from fractal_mesospim_shading.images.roi_tables import write_roi_tables
from fractal_mesospim_shading.synthetic.world import LightSheetWorld, grid_layout

_PIXEL_UM = {"z": 5.0, "y": 1.3, "x": 1.3}


@dataclass(frozen=True)
class ImageSetting:
    """One image of a benchmark.

    Attributes:
        name: of its folder and in the tables.
        ngff: 0.4 or 0.5.
        codec: `lz4` (blosc with byte shuffle), `zstd-3`, or `blosc-zstd-5` (with bit shuffle, as
            the microscope writes).
        chunks: (z, y, x).
        shards: (z, y, x) or None.
        tile_shape: (y, x).
        grid: rows, columns.
        planes: along z.
        channels: number of them.
        levels: of the pyramid, each half of the one before along y and x.
        empty_ends: no sample in the eighth of the planes at each end.
    """

    name: str
    ngff: str
    codec: str
    chunks: tuple[int, int, int]
    shards: tuple[int, int, int] | None = None
    tile_shape: tuple[int, int] = (2048, 2048)
    grid: tuple[int, int] = (2, 2)
    planes: int = 64
    channels: int = 1
    levels: int = 5
    empty_ends: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(c, z, y, x)."""
        rows, columns = self.grid
        return (
            self.channels,
            self.planes,
            rows * self.tile_shape[0],
            columns * self.tile_shape[1],
        )

    @property
    def raw_bytes(self) -> int:
        """Bytes of level 0."""
        return 2 * int(np.prod(self.shape))


def settings(big: tuple[int, int] = (2, 2), channels: int = 1) -> list[ImageSetting]:
    """The images of the throughput benchmark; `big` is the number of tiles of each."""
    chunk, small = (64, 1024, 1024), (32, 512, 512)
    chosen = [
        ImageSetting("lz4-big-0.4", "0.4", "lz4", chunk, grid=big),
        ImageSetting("lz4-big-0.5", "0.5", "lz4", chunk, grid=big),
        ImageSetting("lz4-small-0.4", "0.4", "lz4", small, grid=big),
        ImageSetting("lz4-sharded-0.5", "0.5", "lz4", small, (64, 1024, 1024), grid=big),
        ImageSetting("zstd-big-0.4", "0.4", "zstd-3", chunk, grid=big),
        ImageSetting("zstd-small-0.5", "0.5", "zstd-3", small, grid=big),
        ImageSetting(
            "lz4-2960x5056-0.4",
            "0.4",
            "lz4",
            small,
            tile_shape=(2960, 5056),
            grid=(big[0] * big[1] // 2, 1),
            planes=32,
        ),
        ImageSetting(
            "microscope-0.5", "0.5", "blosc-zstd-5", (64,) * 3, (64, 2048, 2048), grid=big
        ),
        ImageSetting(
            "microscope-958MB-0.4",
            "0.4",
            "blosc-zstd-5",
            (256, 1264, 1480),
            tile_shape=(2528, 2960),
            grid=(1, max(1, big[0] * big[1] // 4)),
            planes=256,
        ),
    ]
    return [replace(setting, channels=channels) for setting in chosen]


def make(setting: ImageSetting, folder: Path) -> Path:
    """Write an image with its pyramid, tables and models, unless it is there.

    Args:
        setting: which.
        folder: gets `<name>/image.zarr/0` and `<name>/models`.

    Returns:
        The folder of the image group.
    """
    home = folder / setting.name
    image = home / "image.zarr" / "0"
    described = json.dumps(vars(setting), default=str)
    mark = home / "made.json"
    if mark.exists() and mark.read_text() == described:
        return image
    shutil.rmtree(home, ignore_errors=True)
    image.mkdir(parents=True)
    light, dark = _light(setting)
    empty = _light(setting, z=0)[0] if setting.empty_ends else light
    group = zarr.open_group(str(image), mode="w", zarr_format=2 if setting.ngff == "0.4" else 3)
    group.attrs.put(attributes_of(setting))
    arrays = [array_of_level(group, setting, level) for level in range(setting.levels)]
    _fill(arrays, setting, light, empty, dark)
    layout = grid_layout(setting.shape[-2:], setting.tile_shape)
    write_roi_tables(str(image), layout, _PIXEL_UM, setting.planes)
    world = _world(setting)
    # All channels are of the same light, see `_fill`.
    profiles = {
        f"channel {c}": ShadingProfile.create(world.flatfield(), world.dark_frame(), None)
        for c in range(setting.channels)
    }
    save_models(home / "models", profiles)
    mark.write_text(described)
    return image


def made_apart(setting: ImageSetting, folder: Path) -> Path:
    """As `make`, in a process of its own.

    The largest memory of a process is handed down to those that it starts.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(make, setting, folder).result()


def _world(setting: ImageSetting) -> LightSheetWorld:
    return LightSheetWorld(setting.tile_shape, setting.grid, planes=max(setting.planes, 8))


def _light(
    setting: ImageSetting, z: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A mosaic plane of light as the camera gets it (the middle one), and the dark frame."""
    world = _world(setting)
    z = world.planes // 2 if z is None else z
    height, width = setting.tile_shape
    light = np.empty(setting.shape[-2:], np.float32)
    for number in world.tile_numbers:
        row, column = world.tile_row_column(number)
        box = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
        light[box] = world.clean_plane(number, z) * world.flatfield()
    return light, np.tile(world.dark_frame(), setting.grid)


def _fill(
    arrays: list[Any],
    setting: ImageSetting,
    light: NDArray[np.float32],
    empty: NDArray[np.float32],
    dark: NDArray[np.float32],
) -> None:
    """Write slabs as deep as a write unit, and their means."""
    rng = np.random.Generator(np.random.PCG64(5))
    pool = rng.standard_normal(light.size + 997_331, dtype=np.float32)
    kinds = [
        (np.sqrt(kind * np.float32(2.17) + np.float32(2.17 * 1.4) ** 2), kind + dark)
        for kind in (light, empty)
    ]
    outer = setting.planes // 8
    depth = (setting.shards or setting.chunks)[0]
    for channel in range(setting.channels):
        for start in range(0, setting.planes, depth):
            stop = min(start + depth, setting.planes)
            slab = np.empty((stop - start, *light.shape), np.uint16)
            for z, plane in enumerate(slab, start=start):
                sigma, mean = kinds[z < outer or z >= setting.planes - outer]
                place = int(rng.integers(0, pool.size - light.size))
                noise = pool[place : place + light.size].reshape(light.shape)
                plane[...] = np.clip(np.rint(mean + sigma * noise), 0, 65535)
            for level, array in enumerate(arrays):
                if level:
                    slab = block_mean(slab, (1, 2, 2), (slab.shape[0], *array.shape[-2:]))
                array[channel : channel + 1, start:stop] = slab[None]


def array_of_level(group: zarr.Group, setting: ImageSetting, level: int) -> zarr.Array[Any]:
    """Make the empty array of a level."""
    c, z, y, x = setting.shape
    shape = (c, z, y >> level, x >> level)
    chunks = (1, *(min(a, b) for a, b in zip(setting.chunks, shape[1:], strict=True)))
    more: dict[str, Any] = {}
    if setting.shards is not None:
        fitting = zip(setting.shards, chunks[1:], shape[1:], strict=True)
        more["shards"] = (1, *(min(-(-s // k), -(-n // k)) * k for s, k, n in fitting))
    return group.create_array(
        str(level),
        shape=shape,
        chunks=chunks,
        dtype="uint16",
        fill_value=0,
        compressors=compressor(setting.ngff, setting.codec),
        chunk_key_encoding={  # type: ignore[arg-type]
            "name": "v2" if setting.ngff == "0.4" else "default",
            "separator": "/",
        },
        **more,
    )


def compressor(ngff: str, codec: str) -> dict[str, Any]:
    """The codec in the words of zarr 2 or 3."""
    if codec == "zstd-3":
        if ngff == "0.4":
            return {"id": "zstd", "level": 3}
        return {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
    name, shuffle = ("zstd", 2) if codec == "blosc-zstd-5" else ("lz4", 1)
    if ngff == "0.4":
        return {"id": "blosc", "cname": name, "clevel": 5, "shuffle": shuffle, "blocksize": 0}
    settings = {"cname": name, "clevel": 5, "typesize": 2, "blocksize": 0}
    return {
        "name": "blosc",
        "configuration": {**settings, "shuffle": ("", "shuffle", "bitshuffle")[shuffle]},
    }


def attributes_of(setting: ImageSetting) -> dict[str, Any]:
    """Attributes of the image group."""
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 5.0, 1.3 * 2**level, 1.3 * 2**level]}
            ],
        }
        for level in range(setting.levels)
    ]
    channels = [
        {
            "label": f"channel {c}",
            "wavelength_id": f"A{c + 1:02d}_C01",
            "color": "FFFFFF",
            "active": True,
            "window": {"min": 0, "max": 65535, "start": 0, "end": 2000},
        }
        for c in range(setting.channels)
    ]
    content = {"multiscales": [{"name": "image", "axes": axes, "datasets": datasets}]}
    omero = {"omero": {"channels": channels}}
    if setting.ngff == "0.5":
        return {"ome": {"version": "0.5", **content, **omero}}
    content["multiscales"][0]["version"] = "0.4"
    return {**content, **omero}
