"""Arrays in .npy and .npz files, read without trust and written whole."""

from __future__ import annotations

import io
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.storage import places

T = TypeVar("T")

# What the readers of such files raise where one is cut off, damaged or of another kind: also
# MemoryError where its header declares more than there is.
_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
)


def local_file(address: str | os.PathLike[str], option: str) -> Path:
    """The path of a file or folder that was given.

    Args:
        address: a path, or `file://`.
        option: that gave it, for the message.

    Raises:
        ProfileError: it is remote.
    """
    if not places.is_local(os.fspath(address)):
        raise ProfileError(
            f"The `{option}` '{os.fspath(address)}' is remote; profiles are read from this "
            "machine's file systems. Copy it there first."
        )
    return places.local_path(os.fspath(address))


def read_npy(path: Path) -> NDArray[Any]:
    """Read a .npy file; pickled objects are refused.

    Raises:
        ProfileError: not there or not readable.
    """

    def load() -> NDArray[Any]:
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise OSError("an archive of several arrays, not a single one")
        return values

    return guarded(path, load)


def read_npz(path: Path, keys: Collection[str]) -> dict[str, NDArray[Any]]:
    """Read some arrays of a .npz file; pickled objects are refused.

    Args:
        path: of the file.
        keys: that are wanted; those the file lacks are left out.

    Raises:
        ProfileError: not there or not readable.
    """

    def load() -> dict[str, NDArray[Any]]:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise OSError("a single array, not an archive of named ones")
        with file:
            return {key: file[key] for key in file.files if key in keys}

    return guarded(path, load)


def npz_keys(path: Path) -> str:
    """The keys of a .npz file, for a message."""
    with np.load(path, allow_pickle=False) as file:
        return ", ".join(sorted(file.files)) or "none"


def npz_bytes(values: Mapping[str, Any]) -> bytes:
    """An archive as `numpy.savez` makes it, but without the time of day in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for key, value in values.items():
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(value), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), buffer.getvalue())
    return content.getvalue()


def guarded(path: Path, load: Callable[[], T]) -> T:
    """Read a file; whatever its reader raises becomes an error that names it.

    Raises:
        ProfileError: not there, no regular file, or not readable.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        return load()
    except FileNotFoundError as error:
        raise ProfileError(f"'{path}' is not there.") from error
    except ProfileError:
        raise
    except _UNREADABLE as error:
        raise ProfileError(
            f"'{path}' cannot be read ({type(error).__name__}: {error}). It is damaged, not the "
            "kind of file its name says, compressed in a way that is not read here, or it holds "
            "pickled objects, which are never loaded."
        ) from error
