"""Measured dark frames: a number, a frame, or a stack of frames in a file of arrays or a TIFF."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.files import (
    collected,
    local_file,
    refuse_one_folder_for_two,
)
from fractal_mesospim_shading.images.models.folder import DARKFIELD_FILES, model_file
from fractal_mesospim_shading.images.models.frames import DarkFrame, averaged, read_values


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
            labels,
            lambda label: _read(model_file(file, label, None, DARKFIELD_FILES), tile_shape),
            file,
        )
    if not file.exists():
        raise ProfileError(f"The `darkfield_file` '{file}' is not there. Check the path.")
    frame = _read(file, tile_shape)
    return dict.fromkeys(labels, frame)


def _read(path: Path, tile_shape: tuple[int, int] | None) -> DarkFrame:
    try:
        return averaged(read_values(path, "darkfield", "darkfield_file"), tile_shape)
    except ProfileError as error:
        text = str(error)
        raise ProfileError(text if str(path) in text else f"'{path}' {text}") from error
