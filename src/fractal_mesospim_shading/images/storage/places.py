"""Files and folders by address, local or remote, outside the arrays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fractal_mesospim_shading.errors import OutputWriteError, SourceReadError
from fractal_mesospim_shading.images.storage.regular_files import open_own, open_regular
from fractal_mesospim_shading.images.storage.stores import connection_errors

StorageOptions = Mapping[str, Any] | None


def is_local(url: str) -> bool:
    """Whether the address is a path of this machine's file system."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """The path of a local address."""
    return Path(url.removeprefix("file://"))


def join(url: str, *parts: str) -> str:
    """An address below another."""
    return "/".join([url.rstrip("/"), *parts])


def parent_and_name(url: str) -> tuple[str, str]:
    """The folder an address lies in, and its last part."""
    if is_local(url):
        path = Path(os.path.abspath(local_path(url)))
        return str(path.parent), path.name
    parent, _, name = url.rstrip("/").rpartition("/")
    return parent, name


@contextmanager
def _reached(url: str, options: StorageOptions) -> Iterator[tuple[Any, str]]:
    """The file system and path of a remote address; what its client raises is an OSError.

    Raises:
        SourceReadError: the storage cannot be reached, or refuses.
    """
    try:
        filesystem, path = _remote(url, options)
        filesystem.invalidate_cache()
        yield filesystem, path
    except OSError:
        raise
    except connection_errors() as error:
        raise SourceReadError(
            f"'{url}' cannot be reached: {type(error).__name__}: {error}. Check the address, the "
            "rights and `storage_options`."
        ) from error


def _remote(url: str, options: StorageOptions) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(url, **dict(options or {}))
    return filesystem, path


def exists(url: str, options: StorageOptions = None) -> bool:
    """Whether there is a file or a folder."""
    if is_local(url):
        return os.path.lexists(local_path(url))
    with _reached(url, options) as (filesystem, path):
        return bool(filesystem.exists(path))


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
        with _reached(url, options) as (filesystem, path):
            return bytes(filesystem.cat_file(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_bytes(url: str, data: bytes, options: StorageOptions = None) -> None:
    """Write a file whole: a reader finds the old content or the new, never half.

    Raises:
        OutputWriteError: no permission, or no space.
    """
    try:
        if is_local(url):
            _write_local(local_path(url), data)
        else:
            with _reached(url, options) as (filesystem, remote):
                filesystem.pipe_file(remote, data)
    except OSError as error:
        raise OutputWriteError(
            f"{url} cannot be written: {error}. Make room or restore access, and run the same "
            "command again."
        ) from error


def _write_local(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # One name for all processes: what a killed one left is taken away.
    draft = target.with_name(f".{target.name}.draft")
    try:
        with _new_file(draft) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except FileNotFoundError:
        # Another process wrote the same document at this moment, and was done first.
        if target.read_bytes() != data:
            raise
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _new_file(path: Path) -> Any:
    """A file that was not there before: neither a link that leads elsewhere, nor a pipe."""
    try:
        return open(path, "xb")
    except FileExistsError:
        path.unlink(missing_ok=True)
        with suppress(FileExistsError):
            return open(path, "xb")
    # Another process writes the same document at this moment.
    return open(path, "wb", opener=open_own)


def modified(url: str, options: StorageOptions = None) -> float | None:
    """When a remote file was last written, in seconds, by the clock of its storage.

    None where the storage does not say.
    """
    try:
        with _reached(url, options) as (filesystem, path):
            return float(filesystem.modified(path).timestamp())
    except (NotImplementedError, FileNotFoundError, KeyError, AttributeError, TypeError):
        return None


def relative_files(url: str, options: StorageOptions = None) -> list[str]:
    """Paths of all files below a remote address, relative to it, sorted."""
    with _reached(url, options) as (filesystem, path):
        root = path.rstrip("/") + "/"
        return sorted(name.removeprefix(root) for name in filesystem.find(path))


def copy_remote(pairs: Sequence[tuple[str, str]], options: StorageOptions = None) -> None:
    """Copy files within a remote storage; object stores do it without sending the content.

    Raises:
        OutputWriteError: a file could not be copied.
    """
    if not pairs:
        return
    try:
        with _reached(pairs[0][0], options) as (filesystem, _):
            stripped = filesystem._strip_protocol
            sources, targets = ([stripped(pair[i]) for pair in pairs] for i in (0, 1))
            filesystem.copy(sources, targets, on_error="raise")
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
    with _reached(url, options) as (filesystem, remote):
        if filesystem.exists(remote):
            filesystem.rm(remote, recursive=True)


def list_names(url: str, options: StorageOptions = None) -> list[str]:
    """Names in a folder, sorted; empty where there is no folder."""
    if is_local(url):
        path = local_path(url)
        return sorted(os.listdir(path)) if path.is_dir() else []
    with _reached(url, options) as (filesystem, remote):
        if not filesystem.exists(remote):
            return []
        entries = filesystem.ls(remote, detail=False)
    return sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries)


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
