"""Measured dark frames: a number, a frame, or a stack of frames in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import fits_tile
from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.array_files import (
    local_file,
    npz_keys,
    read_npy,
    read_npz,
)
from fractal_mesospim_shading.images.models.folder import collected, model_file
from fractal_mesospim_shading.images.models.names import refuse_one_folder_for_two
from fractal_mesospim_shading.images.models.tiff_frames import read_tiff

DarkFrame = NDArray[np.float32] | float
"""(y, x) in counts, or one number of counts."""

_LARGEST = float(np.finfo(np.float32).max)


def load_darkfield(
    path: str | os.PathLike[str],
    labels: Iterable[str],
    tile_shape: tuple[int, int] | None = None,
) -> dict[str, DarkFrame]:
    """Read a measured dark frame.

    Args:
        path: a file for all channels (.npy; .npz with the key `darkfield`; TIFF), or a
            folder with one `profiles.npz` for each channel, as for models. A stack
            (..., y, x) is averaged. A single number is allowed in .npy and .npz. In the
            orientation of the stored tile.
        labels: of the channels.
        tile_shape: (y, x), to tell a stack whose frames lie along the last axis.

    Returns:
        (y, x) float32 in counts, or one number, by label.

    Raises:
        ProfileError: missing or unusable files, all of them listed; two labels that one
            folder would serve.
    """
    file = local_file(path, "darkfield_file")
    if file.is_dir():
        labels = tuple(labels)
        refuse_one_folder_for_two(file, labels)
        return collected(
            labels, lambda label: _read(model_file(file, label, None), tile_shape), file
        )
    if not file.exists():
        raise ProfileError(f"The `darkfield_file` '{file}' is not there. Check the path.")
    frame = _read(file, tile_shape)
    return dict.fromkeys(labels, frame)


def _read(path: Path, tile_shape: tuple[int, int] | None) -> DarkFrame:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        content = read_npz(path, ("darkfield",))
        if "darkfield" not in content:
            raise ProfileError(f"'{path}' has no key 'darkfield' (its keys: {npz_keys(path)}).")
        values = content["darkfield"]
    elif suffix == ".npy":
        values = read_npy(path)
    elif suffix in (".tif", ".tiff"):
        values = read_tiff(path)
    else:
        raise ProfileError(
            f"The `darkfield_file` '{path}' is of the kind '{suffix}'; expected .npy, .npz, .tif, "
            ".tiff, or a folder."
        )
    try:
        return averaged(values, tile_shape)
    except ProfileError as error:
        raise ProfileError(f"'{path}' {error}") from error


def averaged(values: NDArray[Any], tile_shape: tuple[int, int] | None = None) -> DarkFrame:
    """The mean of a stack of frames.

    Args:
        values: (..., y, x) of real numbers, or a single one. Last axes of length 1 beyond
            the first two are dropped.
        tile_shape: (y, x), to tell a stack whose frames lie along the last axis.

    Raises:
        ProfileError: no numbers, colours, frames along the last axis, values that are not
            finite; words that follow the name of the file.
    """
    if values.dtype.kind not in "uif" or values.size == 0:
        raise ProfileError(
            f"holds {values.dtype} of shape {values.shape}; expected numbers, the camera's counts."
        )
    if values.size == 1:
        number = float(values.reshape(()))
        if not abs(number) <= _LARGEST:
            raise ProfileError(f"holds {number:g}; expected a finite number of counts.")
        return number
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim < 2:
        raise ProfileError(
            f"has shape {values.shape}; expected an image (y, x), or a stack of them."
        )
    _refuse_last_axis(values.shape, tile_shape)
    frame = _mean(values.reshape(-1, *values.shape[-2:]))
    if not np.abs(frame).max() <= _LARGEST:
        raise ProfileError("holds NaN, infinite or far too large values; expected finite counts.")
    return frame.astype(np.float32)


def _refuse_last_axis(shape: tuple[int, ...], tile_shape: tuple[int, int] | None) -> None:
    """Refuse what is no stack (..., y, x), though it has as many axes."""
    if len(shape) < 3:
        return
    if shape[-1] in (3, 4):
        raise ProfileError(
            f"has shape {shape}, whose last axis looks like the {shape[-1]} samples of a colour; "
            "expected one frame (y, x), or a stack of frames (n, y, x). Take one of the samples, "
            "as frame[..., 0] where all are the same."
        )
    if tile_shape is None:
        return
    first, last = (shape[0], shape[1]), (shape[-2], shape[-1])
    whole = first == tile_shape != last
    if whole or (fits_tile(first, tile_shape) and not fits_tile(last, tile_shape)):
        raise ProfileError(
            f"has shape {shape}, whose first two axes are those of a tile; expected a stack "
            "(n, y, x). Move its last axis to the front: np.moveaxis(frames, -1, 0)."
        )


def _mean(stack: NDArray[Any]) -> NDArray[np.float64]:
    total = np.zeros(stack.shape[1:], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for image in stack:
            total += image
    return total / len(stack)
