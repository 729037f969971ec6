"""Files of models: what their folders are called; arrays, read without trust and written whole."""

from __future__ import annotations

import io
import os
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import in_order
from fractal_mesospim_shading.errors import ProfileError
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.names import USUAL_NAME_BYTES

T = TypeVar("T")

_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<26x2H")
"""What stands before a member of a zip archive, with the lengths of the name and of what else
follows it before the content."""


def folder_name(label: str) -> str:
    """Name of a channel's folder: slashes and backslashes become `_`.

    Raises:
        ProfileError: the label is no name of a folder, or leads out of it.
    """
    name = label.replace("/", "_").replace("\\", "_")
    if not name.strip() or name.strip(" .") == "" or "\0" in name:
        raise ProfileError(
            f"The channel label {label!r} cannot be the name of a folder. "
            "Rename the channel in 'omero.channels'."
        )
    try:
        size = len(os.fsencode(name))
    except UnicodeError:
        raise ProfileError(
            f"The channel label {label!r} holds characters that no file name can hold. Rename the "
            "channel in 'omero.channels'."
        ) from None
    if size > USUAL_NAME_BYTES:
        raise ProfileError(
            f"The channel label {label[:40]!r}... is {size} bytes long; the name of a folder can "
            f"have {USUAL_NAME_BYTES}. Rename the channel in 'omero.channels'."
        )
    return name


def refuse_shared_folders(labels: Iterable[str]) -> None:
    """Refuse labels whose models would be written to one folder, here or on another system.

    Windows and macOS do not tell `a` from `A`, and Windows drops dots and spaces at the end.

    Raises:
        ProfileError: names the labels and the folder; or a label is no name of a folder.
    """
    labels = tuple(labels)
    for label in labels:
        folder_name(label)
    for same in _alike(labels):
        raise ProfileError(
            f"{_listed(same)} share the model folder '{folder_name(same[0])}'"
            f"{_why(same)}: one model would take the place of the other. Rename one of the "
            "channels in 'omero.channels'."
        )


def refuse_one_folder_for_two(root: Path, labels: Iterable[str]) -> None:
    """Refuse labels that one folder on disk would serve.

    Labels that differ only in what some file systems ignore are read where each has a
    folder of its own.

    Raises:
        ProfileError: names the labels and the folder.
    """
    groups = _alike(labels)
    if not groups:
        return
    present = set(os.listdir(root))
    for same in groups:
        names = {folder_name(label) for label in same}
        if len(names) == len(same) and names <= present:
            continue
        raise ProfileError(
            f"{_listed(same)} share the model folder '{root / folder_name(same[0])}'"
            f"{_why(same)}: both would be corrected with the same model. Rename one of the "
            "channels in 'omero.channels', and give each its own folder."
        )


def _alike(labels: Iterable[str]) -> list[Sequence[str]]:
    """Groups of different labels that some file system takes for one name."""
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        try:
            name = folder_name(label)
        except ProfileError:
            continue
        groups.setdefault(portable(name), []).append(label)
    return [same for same in groups.values() if len(same) > 1]


def portable(name: str) -> str:
    """What is left of a name on a file system that ignores case and dots at the end."""
    return unicodedata.normalize("NFC", name).casefold().rstrip(" .")


def _listed(labels: Sequence[str]) -> str:
    return "The channel labels " + " and ".join(repr(label) for label in labels)


def _why(labels: Sequence[str]) -> str:
    if len({folder_name(label) for label in labels}) < len(labels):
        return " (slashes become '_')"
    return " on file systems that ignore case, or dots and spaces at the end"


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
    """Read some arrays of a .npz file, not to be written to; pickled objects are refused.

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
            found = {key: _member(file, key) for key in file.files if key in keys}
        for array in found.values():
            array.flags.writeable = False
        return found

    return guarded(path, load)


def _member(file: np.lib.npyio.NpzFile, key: str) -> NDArray[Any]:
    """An array of an archive, checked as `zipfile` checks it.

    One that is not compressed is read at once, into place: as `NpzFile` reads it, in pieces of
    256 KiB that are copied, it takes half as long again, and whoever holds the interpreter
    meanwhile is waited for at each of them.
    """
    array = _stored_member(file, f"{key}.npy")
    # Whatever is unusual or damaged is read in the usual way, which says what is wrong.
    return file[key] if array is None else array


def _stored_member(file: np.lib.npyio.NpzFile, name: str) -> NDArray[Any] | None:
    """The array of a member that is stored as it is; None where it is not, or is damaged."""
    archive, raw = file.zip, file.fid
    if name not in archive.namelist() or not isinstance(raw, io.BufferedReader):
        return None
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
        return None
    with archive.open(info):
        pass  # it checks what stands before the content
    raw.seek(info.header_offset)
    try:
        start = raw.seek(sum(_LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))), io.SEEK_CUR)
        array: NDArray[Any] = np.lib.format.read_array(raw, allow_pickle=False)
        content = array.reshape(-1, order="A").view(np.uint8)
    except (ValueError, TypeError, OSError, MemoryError, struct.error):
        return None
    if raw.tell() != start + info.file_size:
        return None
    raw.seek(start)
    description = raw.read(info.file_size - content.nbytes)
    return array if zlib.crc32(content, zlib.crc32(description)) == info.CRC else None


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
    # Whatever the readers of damaged files raise; also MemoryError, where a header declares more
    # than there is.
    except Exception as error:
        raise ProfileError(
            f"'{path}' cannot be read ({type(error).__name__}: {error}). It is damaged, not the "
            "kind of file its name says, compressed in a way that is not read here, or it holds "
            "pickled objects, which are never loaded."
        ) from error


def collected(labels: Iterable[str], load: Callable[[str], T], root: Path) -> dict[str, T]:
    """Load for every label, two at a time; one error that lists what failed for any of them."""
    problems: dict[str, Exception] = {}

    def attempt(label: str) -> T | None:
        try:
            return load(label)
        except (ProfileError, OSError) as error:
            problems[label] = error
            return None

    labels = tuple(labels)
    loaded = dict(zip(labels, in_order(attempt, labels, workers=2), strict=True))
    if problems:
        told = (f"- channel '{label}': {problems[label]}" for label in labels if label in problems)
        listed = "\n".join(told)
        raise ProfileError(f"The models in '{root}' cannot be used:\n{listed}")
    return {label: found for label, found in loaded.items() if found is not None}
