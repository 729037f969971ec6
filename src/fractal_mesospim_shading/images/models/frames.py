"""Frames that a person has measured: arrays, or the images of a TIFF, as one image in counts."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.profile import ShadingProfile
from fractal_mesospim_shading.core.profile_shapes import fits_tile
from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.models.files import guarded, npz_keys, read_npy, read_npz
from fractal_mesospim_shading.images.storage import places

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

DarkFrame = NDArray[np.float32] | float
"""(y, x) in counts, or one number of counts."""

_KINDS = ".npy, .npz, .tif or .tiff"
_LARGEST = float(np.finfo(np.float32).max)
_ADVICE = "Save the frames as a greyscale TIFF of the camera's own counts"
_ODD_COLOURS = {
    "MINISWHITE": "its values are inverted (white is zero)",
    "PALETTE": "its values are numbers of colours in a palette",
}


def read_values(path: Path, key: str, option: str) -> NDArray[Any]:
    """The numbers in a file of frames.

    Args:
        path: .npy, .npz with the key, or TIFF.
        key: of the array in an archive.
        option: that gave the file, for the message.

    Raises:
        ProfileError: it is of another kind, has no such key, or cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        content = read_npz(path, (key,))
        if key not in content:
            raise ProfileError(f"'{path}' has no key '{key}' (its keys: {npz_keys(path)}).")
        return content[key]
    if suffix == ".npy":
        return read_npy(path)
    if suffix in (".tif", ".tiff"):
        return read_tiff(path)
    expected = ".npy, .npz, .tif, .tiff, or a folder" if option == "darkfield_file" else _KINDS
    raise ProfileError(f"The `{option}` '{path}' is of the kind '{suffix}'; expected {expected}.")


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


def measured_profile(flat: Path, dark: Path | None) -> ShadingProfile:
    """A profile of a measured flat-field, and of a dark-field where there is one.

    Args:
        flat, dark: files of frames, see `read_values`.

    Raises:
        ProfileError: they cannot be used; the message names the file.
    """
    flatfield = _frame_of(flat, "flatfield")
    darkfield = None if dark is None else _frame_of(dark, "darkfield")
    try:
        return ShadingProfile.create(np.asarray(flatfield), darkfield, None)
    except ProfileError as error:
        raise ProfileError(f"'{flat}': {error}") from error


def _frame_of(path: Path, key: str) -> DarkFrame:
    values = read_values(path, key, "flatfield_files")
    try:
        return averaged(values)
    except ProfileError as error:
        raise ProfileError(f"'{path}' {error}") from error


def write_tiffs(folder: Path, profile: ShadingProfile) -> None:
    """Write a profile as `flatfield.tif` and `darkfield.tif`, float32, for other programs.

    Args:
        folder: that is there.
        profile: of one channel; a dark-field that is one number becomes a frame of it.

    Raises:
        OutputWriteError: no permission, or no space.
    """
    import tifffile

    frames: dict[str, DarkFrame | None] = {
        "flatfield.tif": profile.flatfield,
        "darkfield.tif": profile.darkfield,
    }
    for name, values in frames.items():
        if values is not None:
            frame = np.broadcast_to(np.asarray(values, np.float32), profile.shape)
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, frame, photometric="minisblack")
            places.write_bytes(str(folder / name), buffer.getvalue())


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
        kinds = ", ".join(f"{frame.shape} {frame.dtype}" for frame in frames[:6])
        raise ProfileError(
            f"'{path}' holds {len(frames)} images that do not form a stack ({kinds}). {_ADVICE} "
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
