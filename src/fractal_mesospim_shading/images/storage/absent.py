"""What is said where an image was expected and there is none: what is there, and what to give."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from fractal_mesospim_shading.errors import ImageFormatError, ImageNotFoundError, ShadingError
from fractal_mesospim_shading.images.storage.places import is_local
from fractal_mesospim_shading.messages import listed, shown

_OTHER_FILES = {
    ".tif": "a TIFF",
    ".tiff": "a TIFF",
    ".btf": "a TIFF",
    ".npy": "a NumPy array",
    ".npz": "a file of NumPy arrays",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".raw": "a file of bare pixels",
    ".ims": "an Imaris file",
    ".png": "a picture",
    ".jpg": "a picture",
}
"""Files that people have images in, by the end of their names."""

_GROUPS = (".zgroup", "zarr.json")
_MOST_LOOKED_AT = 1000
_MOST_SHOWN = 20


def nothing_to_open(address: str, is_array: bool) -> ShadingError:
    """The error for an address without a zarr group.

    Args:
        address: that was given.
        is_array: whether an array lies there.
    """
    if is_array:
        return ImageFormatError(
            f"'{address}' is a single array, for instance one level of a pyramid. "
            f"Give the folder of the image, perhaps '{address.rpartition('/')[0]}'."
        )
    if not is_local(address) or not os.path.exists(address):
        return ImageNotFoundError(
            f"There is no image at '{address}'. Check the spelling of the address."
        )
    what = _OTHER_FILES.get(os.path.splitext(address)[1].lower())
    if what is not None and os.path.isfile(address):
        return ImageFormatError(
            f"'{address}' is {what}, not an OME-Zarr image. Convert it first: a TIFF with "
            "bioformats2raw, an array with `ome_zarr.writer.write_image`. From Python, an "
            "array can be corrected as it is: its flat-field by the method apply of a model, its "
            "background as in examples/local_background.py."
        )
    within = sorted(_groups_in(address))
    if within:
        names = listed([f"'{shown(name)}'" for name in within], _MOST_SHOWN)
        return ImageFormatError(
            f"'{address}' is a folder and no OME-Zarr image itself; in it lie: {names}. Give the "
            "address of one of them."
        )
    return ImageFormatError(
        f"'{address}' exists but is not an OME-Zarr image: it holds no zarr group "
        "(no zarr.json, no .zgroup). Give the folder of the image."
    )


def _groups_in(folder: str) -> Iterator[str]:
    """Zarr groups in a folder of a file system, by their names from there."""
    for name in _folders_in(folder):
        path = os.path.join(folder, name)
        if any(os.path.isfile(os.path.join(path, document)) for document in _GROUPS):
            yield name
        elif name.endswith(".zarr"):
            # A plain folder of images, as Fractal's importers make them.
            yield from (f"{name}/{inner}" for inner in _groups_in(path))


def _folders_in(folder: str) -> list[str]:
    """What cannot be listed holds nothing."""
    with suppress(OSError), os.scandir(folder) as entries:
        looked_at = islice(entries, _MOST_LOOKED_AT)
        return [entry.name for entry in looked_at if entry.is_dir() and entry.name[:1] != "."]
    return []
