"""Whole planes in files without a name, where a slab of them is more than memory should hold.

The files lie in the folder for temporary files and are gone with the run, or with the process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.background import BackgroundResult
from fractal_mesospim_shading.core.blocks import cut
from fractal_mesospim_shading.core.kernel_cache import scratch_folder
from fractal_mesospim_shading.core.threads import Kept
from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.local_background.planes import Estimate, Nothing

YX = tuple[slice, slice]

KEPT_BYTES = 32 * 2**30
"""What is kept in files for the blocks of a run, of each kind: these go layer by layer, so that the
last few are asked for."""

SLAB_BYTES = 256 * 2**20
"""Pixels read at a time where more than the block itself has to be read."""


def free_bytes() -> int:
    """Room in the folder for temporary files."""
    return shutil.disk_usage(scratch_folder()).free


def kept_in_files() -> Kept[Any]:
    """Holds what lies in files until the run ends, as far as there is room, by its bytes."""
    return Kept(KEPT_BYTES, with_run=True, room=free_bytes)


@dataclass(frozen=True)
class FiledArray:
    """An array in a file.

    Attributes:
        file: open, without a name.
        offset: of its first byte.
        shape, dtype: of the array.
    """

    file: IO[bytes]
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, file: IO[bytes], pixels: NDArray[Any]) -> FiledArray:
        """Write an array behind what a file holds."""
        offset = file.seek(0, os.SEEK_END)
        _write(file, offset, pixels)
        return cls(file, offset, pixels.shape, pixels.dtype)

    def part(self, *where: slice) -> NDArray[Any]:
        """A copy of a part."""
        mapped = np.memmap(self.file, self.dtype, "r", self.offset, self.shape)
        return np.array(mapped[where])


@dataclass(frozen=True)
class FiledPlane:
    """The estimate of a whole plane in files, to be taken in parts as a `PlaneSurface` is.

    Attributes:
        background, noise, denoised: as in `BackgroundResult`; the first is None as well where no
            pixel could be used.
        share, even: as there.
        nothing: why no pixel could be used.
    """

    background: FiledArray | None
    noise: FiledArray | None
    denoised: FiledArray | None
    share: float
    even: bool
    nothing: Nothing | None

    @classmethod
    def of(cls, file: IO[bytes], estimate: Estimate) -> FiledPlane:
        """Write what was estimated of a plane."""
        result = estimate.result
        background, noise, denoised = (
            None if image is None or not result.estimated else FiledArray.of(file, image)
            for image in (result.background, result.noise, result.denoised)
        )
        return cls(background, noise, denoised, result.share, result.even, estimate.nothing)

    def part(self, keep: YX, absent: NDArray[np.bool_] | None, *, noise: bool) -> Estimate:
        """The estimate of a part; arguments as for `PlaneSurface.part`."""
        if self.background is None:
            empty = np.zeros([part.stop - part.start for part in keep], np.float32)
            return Estimate(BackgroundResult(empty, estimated=False), absent, self.nothing)
        deviation = self.noise.part(*keep) if noise and self.noise is not None else None
        denoised = None if self.denoised is None else self.denoised.part(*keep)
        background = self.background.part(*keep)
        result = BackgroundResult(background, True, deviation, denoised, self.share, self.even)
        return Estimate(result, absent)


def scratch_file() -> IO[bytes]:
    """An empty file that no folder lists.

    Raises:
        OutputWriteError: none can be made.
    """
    folder = scratch_folder()
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise _not_written(error) from error


def planes_one_by_one(
    read: Callable[[YX], NDArray[Any]], yx: YX, rows: int, planes: int, dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """The planes of a slab, of which each pixel is read once.

    Args:
        read: gives (z, y, x) of a part of the planes.
        yx: where they lie.
        rows: of a chunk, which is never cut.
        planes: of the slab; several that are large go through a file.
        dtype: of the pixels.
    """
    height, width = (part.stop - part.start for part in yx)
    row = width * dtype.itemsize
    if planes == 1 or planes * height * row <= SLAB_BYTES:
        yield from read(yx)
        return
    step = max(1, SLAB_BYTES // (planes * row * rows)) * rows
    with scratch_file() as file:
        for strip in cut(yx, (step, yx[1].stop)):
            above = (strip[0].start - yx[0].start) * row
            for plane, pixels in enumerate(read((strip[0], strip[1]))):
                _write(file, plane * height * row + above, pixels)
        for plane in range(planes):
            yield FiledArray(file, plane * height * row, (height, width), dtype).part()


def _write(file: IO[bytes], offset: int, pixels: NDArray[Any]) -> None:
    try:
        file.seek(offset)
        file.write(np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data)
        file.flush()
    except OSError as error:
        raise _not_written(error) from error


def _not_written(error: OSError) -> OutputWriteError:
    return OutputWriteError(
        f"Planes that do not fit into memory cannot be kept in {scratch_folder()} ({error}). Set "
        "the environment variable TMPDIR to a folder of a disk with more room, or raise "
        "`memory_limit`."
    )
