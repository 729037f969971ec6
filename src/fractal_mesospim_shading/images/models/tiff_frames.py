"""Camera frames in TIFF files: which axis is what, and what is no frame of counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.array_files import guarded

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

_ADVICE = "Save the frames as a greyscale TIFF of the camera's own counts"
_ODD_COLOURS = {
    "MINISWHITE": "its values are inverted (white is zero)",
    "PALETTE": "its values are numbers of colours in a palette",
}


def read_tiff(path: Path) -> NDArray[Any]:
    """Read the frames of a TIFF file.

    Axes are those that the file names (OME, ImageJ and plain TIFF), so that samples of a
    colour are not taken for frames or for columns.

    Returns:
        (y, x), or a stack of frames (..., y, x); axes of length 1 are left out.

    Raises:
        ProfileError: not there, damaged or cut off, of colours, of several channels, or its
            images do not form a stack.
    """
    import tifffile

    def load() -> NDArray[Any]:
        try:
            with _errors_raised(), tifffile.TiffFile(path) as file:
                series = [s for s in file.series if not s.keyframe.is_reduced] or file.series
                if not series:
                    raise OSError("no image in it")
                for one in series:
                    _refuse_colours(one, path)
                return _stack([_frames(one, path) for one in series], path)
        except tifffile.TiffFileError as error:
            raise OSError(str(error)) from error

    return guarded(path, load)


def _refuse_colours(series: TiffPageSeries, path: Path) -> None:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if sizes.get("S", 1) > 1:
        raise ProfileError(
            f"'{path}' holds an image of {sizes['S']} samples a pixel (axes {series.axes}, shape "
            f"{series.shape}), such as RGB; expected one number a pixel. {_ADVICE}."
        )
    photometric = getattr(series.keyframe.photometric, "name", "")
    if photometric in _ODD_COLOURS:
        raise ProfileError(
            f"'{path}' holds no plain counts: {_ODD_COLOURS[photometric]}. {_ADVICE} (in ImageJ, "
            "choose the lookup table Grays first)."
        )
    stacked = [axis for axis in series.axes if axis not in "YXS" and sizes[axis] > 1]
    if "C" in stacked and (len(stacked) > 1 or series.kind == "ome"):
        raise ProfileError(
            f"'{path}' holds {sizes['C']} channels (axes {series.axes}, shape {series.shape}); "
            "expected frames of one. Save each channel's dark frames as a file of their own: a "
            "folder with one 'profiles.npz' (key 'darkfield') for each channel is read as well."
        )


def _frames(series: TiffPageSeries, path: Path) -> NDArray[Any]:
    """The frames of one series, y and x last, axes of length 1 left out."""
    if not {"Y", "X"} <= set(series.axes):
        raise ProfileError(
            f"'{path}' has the axes {series.axes}; expected images with the axes Y and X. "
            f"{_ADVICE}."
        )
    if any(page is None for page in series.pages):
        raise OSError("some of its planes are missing")
    image = np.asarray(series.asarray())
    if image.size == 0 or image.size != prod(series.shape):
        raise OSError("no image in it")
    image = image.reshape(series.shape)
    image = np.moveaxis(image, (series.axes.index("Y"), series.axes.index("X")), (-2, -1))
    stacked = tuple(n for n in image.shape[:-2] if n > 1)
    return image.reshape(*stacked, *image.shape[-2:])


def _stack(frames: list[NDArray[Any]], path: Path) -> NDArray[Any]:
    """One stack from images that were written one by one."""
    if len(frames) == 1:
        return frames[0]
    shapes = {frame.shape[-2:] for frame in frames}
    if len(shapes) > 1 or len({frame.dtype for frame in frames}) > 1:
        found = ", ".join(f"{frame.shape} {frame.dtype}" for frame in frames[:6])
        raise ProfileError(
            f"'{path}' holds {len(frames)} images that do not form a stack ({found}). {_ADVICE} "
            "and nothing else in the file."
        )
    return np.concatenate([frame.reshape(-1, *frame.shape[-2:]) for frame in frames])


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Make an error of what tifffile would only log: it goes on with what it can find.

    A file that was cut off thus does not pass with the frames that are left.

    Raises:
        OSError: with what was logged.
    """
    logged: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            logged.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)
    if logged:
        raise OSError(logged[0])
