"""Places: an address in one spelling, and the files and folders at it, local or remote.

An address is a local path, a `file://` address, any address that fsspec knows
(`s3://bucket/image.zarr`), or a zip archive (`image.zarr.zip`, or a path that goes
on inside it: `data.zip/image.zarr`). What comes from outside goes through `normalise_url`
once; every other function takes addresses in that spelling.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec.implementations.local import LocalFileSystem

from fractal_mesospim_shading.errors import ImageNotFoundError, OutputWriteError, SourceReadError
from fractal_mesospim_shading.images.storage.local_files import (
    open_regular,
    refuse_special,
    write_whole,
)
from fractal_mesospim_shading.messages import shown

StorageOptions = Mapping[str, Any] | None
"""What fsspec needs for a remote address; ignored for a local one."""

# What codecs raise when the bytes of a chunk are not what they should be.
_DECODING_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
)

_SHORT = 200
"""Letters of an address that is too long for no file system, and of one that is shown."""


def normalise_url(url: str | os.PathLike[str]) -> str:
    """One spelling for an address: no trailing slash, no `file://`, an absolute local path.

    Raises:
        ImageNotFoundError: the address is empty, or nothing can have it.
    """
    text = os.fspath(url).strip()
    if not text:
        raise ImageNotFoundError("The address of the image is empty; give a path or a URL.")
    problem = _address_problem(text)
    if problem is not None:
        raise ImageNotFoundError(f"The address '{shown(text)[:_SHORT]}' {problem}.")
    if text.startswith(("file:", "local:")):
        text = unquote(urlsplit(text).path)
    if not is_local(text):
        return text.rstrip("/")
    return os.path.abspath(os.path.expanduser(text))


def _address_problem(text: str) -> str | None:
    """Why no path can be called so: NUL, halves of surrogate pairs, or too many letters."""
    try:
        if b"\0" in os.fsencode(text):
            return "holds characters that no path can have; check its spelling"
        if len(text) > _SHORT and is_local(text):
            os.lstat(text)
    except UnicodeEncodeError:
        return "holds characters that no path can have; check its spelling"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "is longer than the file system takes; give a shorter one"
    return None


def is_local(url: str) -> bool:
    """Whether the address is a path of this machine's file system."""
    return "://" not in url or url.startswith(("file:", "local:"))


def local_path(url: str) -> Path:
    """The path of a local address."""
    return Path(url.removeprefix("file://"))


def parent_and_name(url: str) -> tuple[str, str]:
    """The folder an address lies in, and its last part."""
    if is_local(url):
        path = Path(os.path.abspath(local_path(url)))
        return str(path.parent), path.name
    parent, _, name = url.rstrip("/").rpartition("/")
    return parent, name


def join_url(url: str, *parts: str) -> str:
    """The address of something below a group."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts if part.strip("/"))])


def split_zip(url: str) -> tuple[str, str] | None:
    """The archive and the path within it, where a local address leads into a zip file."""
    if not is_local(url) or ".zip" not in url.lower():
        return None
    path = Path(url)
    for candidate in (path, *path.parents):
        if candidate.suffix.lower() == ".zip" and candidate.is_file():
            inner = path.relative_to(candidate).as_posix()
            return str(candidate), "" if inner == "." else inner
    return None


def filesystem(url: str, storage_options: StorageOptions = None) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it."""
    archive = split_zip(url)
    if archive is not None:
        from fsspec.implementations.zip import ZipFileSystem

        return ZipFileSystem(archive[0]), archive[1]
    if is_local(url):
        local = RegularFileSystem(use_listings_cache=False)
        return local, str(local._strip_protocol(url))
    from fsspec.core import url_to_fs

    # Listings must be fresh: the same process may have written in between.
    fs, path = url_to_fs(url, **{"use_listings_cache": False, **(storage_options or {})})
    return fs, str(path)


def connection_errors() -> tuple[type[Exception], ...]:
    """What storage raises when it cannot be reached or refuses.

    The S3 client has errors of its own that are no OSError; they count as soon as it is
    loaded.
    """
    kinds: list[type[Exception]] = [OSError]
    client = sys.modules.get("botocore.exceptions")
    if client is not None:
        kinds += [client.BotoCoreError, client.ClientError]
    return tuple(kinds)


def reading_errors() -> tuple[type[Exception], ...]:
    """What may be raised where a chunk cannot be reached or decoded."""
    return connection_errors() + _DECODING_ERRORS


@contextmanager
def _reached(url: str, options: StorageOptions) -> Iterator[tuple[Any, str]]:
    """The file system and path of a remote address; what its client raises is an OSError.

    Raises:
        SourceReadError: the storage cannot be reached, or refuses.
    """
    try:
        fs, path = filesystem(url, options)
        fs.invalidate_cache()
        yield fs, path
    except OSError:
        raise
    except connection_errors() as error:
        raise SourceReadError(
            f"'{url}' cannot be reached: {type(error).__name__}: {error}. Check the address, the "
            "rights and `storage_options`."
        ) from error


def exists(url: str, options: StorageOptions = None) -> bool:
    """Whether there is a file or a folder."""
    if is_local(url):
        return os.path.lexists(local_path(url))
    with _reached(url, options) as (fs, path):
        return bool(fs.exists(path))


def is_link(url: str) -> bool:
    """Whether a local address is a symbolic link itself."""
    return is_local(url) and os.path.islink(local_path(url))


def read_bytes(url: str, options: StorageOptions = None) -> bytes | None:
    """The content of a file, None where there is none.

    Raises:
        SourceReadError: it is no regular file.
    """
    try:
        if is_local(url):
            with open(local_path(url), "rb", opener=open_regular) as file:
                return file.read()
        with _reached(url, options) as (fs, path):
            return bytes(fs.cat_file(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_bytes(url: str, data: bytes, options: StorageOptions = None) -> None:
    """Write a file whole: a reader finds the old content or the new, never half.

    Raises:
        OutputWriteError: no permission, or no space.
    """
    try:
        if is_local(url):
            write_whole(local_path(url), data)
        else:
            with _reached(url, options) as (fs, remote):
                fs.pipe_file(remote, data)
    except OSError as error:
        raise OutputWriteError(
            f"{url} cannot be written: {error}. Make room or restore access, and run the same "
            "command again."
        ) from error


def modified(url: str, options: StorageOptions = None) -> float | None:
    """When a remote file was last written, in seconds, by the clock of its storage.

    None where the storage does not say.
    """
    try:
        with _reached(url, options) as (fs, path):
            return float(fs.modified(path).timestamp())
    except (NotImplementedError, FileNotFoundError, KeyError, AttributeError, TypeError):
        return None


def relative_files(url: str, options: StorageOptions = None) -> list[str]:
    """Paths of all files below a remote address, relative to it, sorted."""
    with _reached(url, options) as (fs, path):
        root = path.rstrip("/") + "/"
        return sorted(name.removeprefix(root) for name in fs.find(path))


def copy_remote(pairs: Sequence[tuple[str, str]], options: StorageOptions = None) -> None:
    """Copy files within a remote storage; object stores do it without sending the content.

    Raises:
        OutputWriteError: a file could not be copied.
    """
    if not pairs:
        return
    try:
        with _reached(pairs[0][0], options) as (fs, _):
            stripped = fs._strip_protocol
            sources, targets = ([stripped(pair[i]) for pair in pairs] for i in (0, 1))
            fs.copy(sources, targets, on_error="raise")
    except NotImplementedError:
        for source, target in pairs:
            write_bytes(target, read_bytes(source, options) or b"", options)
    except OSError as error:
        raise OutputWriteError(
            f"{pairs[0][0]} (or one of {len(pairs)} files beside it) cannot be copied to "
            f"{pairs[0][1]}: {error}. Restore access, and run the same command again."
        ) from error


def remove(url: str, options: StorageOptions = None) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    if is_local(url):
        path = local_path(url)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    with _reached(url, options) as (fs, remote):
        if fs.exists(remote):
            fs.rm(remote, recursive=True)


def list_names(url: str, options: StorageOptions = None) -> list[str]:
    """Names in a folder, sorted; empty where there is no folder."""
    if is_local(url):
        path = local_path(url)
        return sorted(os.listdir(path)) if path.is_dir() else []
    with _reached(url, options) as (fs, remote):
        if not fs.exists(remote):
            return []
        entries = fs.ls(remote, detail=False)
    return sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries)


def bytes_below(url: str, options: StorageOptions = None) -> int:
    """Bytes of all files in a folder and in those below; links to folders are not followed."""
    if not is_local(url) or split_zip(url) is not None:
        fs, path = filesystem(url, options)
        return int(fs.du(path))
    total, waiting = 0, [os.fspath(local_path(url))]
    while waiting:
        # A million files are added up one by one: no list of them is made.
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    with suppress(OSError):
                        total += entry.stat().st_size
    return total


def remove_drafts(url: str) -> None:
    """Remove the unfinished files that a killed writer left below a local folder of ours.

    zarr's own pipeline, and `write_bytes`, write under another name first.

    Raises:
        OutputWriteError: there is a link in it, which this package never makes there, and
            through which it would write somewhere else.
    """
    waiting = [os.fspath(local_path(url))]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise OutputWriteError(
                        f"{entry.path} is a link within unfinished work; nothing is written "
                        "through it. Look where it leads, remove it, and run the same command "
                        "again with restart."
                    )
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.name.endswith((".partial", ".draft")):
                    Path(entry.path).unlink(missing_ok=True)


class RegularFileSystem(LocalFileSystem):  # type: ignore[misc]
    """The file system of this machine, of which special files cannot be opened."""

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        refuse_special(path)
        return super()._open(path, mode=mode, **more)
