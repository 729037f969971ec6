"""Look at stacks from above with as little decoding as possible."""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.images.arrays.reading import opened_array, read_array
from fractal_mesospim_shading.images.native.overlap import Projection, Projector
from fractal_mesospim_shading.images.native.stack import Stack
from fractal_mesospim_shading.images.storage.places import filesystem, join_url, reading_errors

_WANTED_OVERLAP_PX = 8
_CHEAP_BYTES = 64 * 2**20
_PATCH_PLANES = 8


def projectors(
    url: str, storage_options: str, *, dear: bool = True
) -> Callable[[Sequence[Stack], int], Projector | None]:
    """How to choose a projector for the stacks of a container.

    Args:
        url: of the container.
        storage_options: as JSON.
        dear: whether chunks of full resolution may be read, which can be large.

    Returns:
        A function of the stacks and their smallest overlap in pixels; it gives None where only
        dear reading is left and that is not allowed.
    """

    def choose(stacks: Sequence[Stack], overlap_px: int) -> Projector | None:
        level = _level_for(stacks, overlap_px)
        bytes_read = prod(stacks[0].levels[level].shape) * np.dtype(stacks[0].dtype).itemsize
        if bytes_read <= _CHEAP_BYTES:
            return _mean_projector(url, storage_options, stacks[0], level)
        if all(stack.projection_file for stack in stacks):
            try:
                _read_projection(url, storage_options, stacks[0])
                return _file_projector(url, storage_options, stacks[0])
            except reading_errors():
                pass  # Damaged, or of another acquisition: look at the stacks themselves.
        return _patch_projector(url, storage_options, stacks, level) if dear else None

    return choose


def _level_for(stacks: Sequence[Stack], overlap_px: int) -> int:
    """The coarsest level that all stacks have and that leaves enough of the overlap."""
    count = min(len(stack.levels) for stack in stacks)
    fitting = [
        level
        for level in range(count)
        if overlap_px / max(_factor(stacks[0], level)) >= _WANTED_OVERLAP_PX
    ]
    return fitting[-1] if fitting else 0


def _factor(stack: Stack, level: int) -> tuple[float, float]:
    finest, coarse = stack.levels[0].scale, stack.levels[level].scale
    return coarse[-2] / finest[-2], coarse[-1] / finest[-1]


def _mean_projector(url: str, storage_options: str, first: Stack, level: int) -> Projector:
    known: dict[str, Projection] = {}

    def strip(stack: Stack, y: slice, x: slice) -> Projection:
        if stack.group not in known:
            where = stack.levels[level]
            pixels = _read(
                url, storage_options, stack, level, tuple(slice(0, n) for n in where.shape)
            )
            known[stack.group] = pixels.mean(axis=0, dtype=np.float32)
        return known[stack.group][y, x]

    height, width = first.levels[level].shape[-2:]
    return Projector(_factor(first, level), strip, (height, width))


def _file_projector(url: str, storage_options: str, first: Stack) -> Projector:
    known: dict[str, Projection] = {}

    def strip(stack: Stack, y: slice, x: slice) -> Projection:
        if stack.group not in known:
            try:
                known[stack.group] = _read_projection(url, storage_options, stack)
            except reading_errors():
                # Without any detail it adds nothing to the correlation.
                known[stack.group] = np.zeros(stack.tile_shape, np.float32)
        return known[stack.group][y, x]

    return Projector((1.0, 1.0), strip, first.tile_shape)


def _read_projection(url: str, storage_options: str, stack: Stack) -> Projection:
    import tifffile

    fs, path = filesystem(url, json.loads(storage_options))
    parent = posixpath.dirname(path.rstrip("/").replace("\\", "/"))
    data = fs.cat_file(posixpath.join(parent, stack.projection_file or ""))
    pixels: Projection = np.asarray(tifffile.imread(io.BytesIO(data)), dtype=np.float32)
    if pixels.shape != stack.tile_shape:
        raise ValueError(f"The projection of '{stack.group}' has the shape {pixels.shape}.")
    return pixels


def _patch_projector(
    url: str, storage_options: str, stacks: Sequence[Stack], level: int
) -> Projector:
    """A few planes at one height that all stacks share, within one chunk along z."""
    known: dict[tuple[str, int, int, int, int], Projection] = {}
    low = max(stack.z_low_um for stack in stacks)
    high = min(stack.z_low_um + (stack.planes_found - 1) * stack.z_step_um for stack in stacks)

    def strip(stack: Stack, y: slice, x: slice) -> Projection:
        key = (stack.group, y.start, y.stop, x.start, x.stop)
        if key not in known:
            z = _patch_planes(stack, level, (low + high) / 2 if low <= high else None)
            pixels = _read(url, storage_options, stack, level, (z, y, x))
            known[key] = pixels.mean(axis=0, dtype=np.float32)
        return known[key]

    finest = stacks[0].levels[level]
    chunk = (finest.chunks[-2], finest.chunks[-1])
    return Projector(_factor(stacks[0], level), strip, (finest.shape[-2], finest.shape[-1]), chunk)


def _patch_planes(stack: Stack, level: int, z_um: float | None) -> slice:
    where = stack.levels[level]
    planes, chunk = where.shape[0], where.chunks[0]
    plane = stack.planes_found // 2 if z_um is None else stack.plane_at(z_um)
    plane = min(planes - 1, round(plane * stack.levels[0].scale[0] / where.scale[0]))
    first = plane // chunk * chunk
    start = max(first, min(plane - _PATCH_PLANES // 2, first + chunk - _PATCH_PLANES))
    return slice(start, min(start + _PATCH_PLANES, first + chunk, planes))


def _read(
    url: str, storage_options: str, stack: Stack, level: int, box: tuple[slice, ...]
) -> NDArray[np.generic]:
    path = stack.levels[level].path
    where = join_url(url, stack.group)
    array = opened_array(where, path, storage_options, stack.fingerprint if level == 0 else "")
    return read_array(array, join_url(where, path), box)
