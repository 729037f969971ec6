"""Files and folders by address, local or remote, outside the arrays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fractal_mesospim_shading.errors import OutputWriteError

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


def _remote(url: str, options: StorageOptions) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(url, **dict(options or {}))
    return filesystem, path


def exists(url: str, options: StorageOptions = None) -> bool:
    """Whether there is a file or a folder."""
    if is_local(url):
        return os.path.lexists(local_path(url))
    filesystem, path = _remote(url, options)
    filesystem.invalidate_cache()
    return bool(filesystem.exists(path))


def read_bytes(url: str, options: StorageOptions = None) -> bytes | None:
    """The content of a file, None where there is none."""
    try:
        if is_local(url):
            return local_path(url).read_bytes()
        filesystem, path = _remote(url, options)
        filesystem.invalidate_cache()
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
            filesystem, remote = _remote(url, options)
            filesystem.pipe_file(remote, data)
    except OSError as error:
        raise OutputWriteError(
            f"{url} cannot be written: {error}. Make room or restore access, and run the same "
            "command again."
        ) from error


def _write_local(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # One name for all processes: what a killed one left is written over.
    draft = target.with_name(f".{target.name}.draft")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def remove(url: str, options: StorageOptions = None) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    if is_local(url):
        path = local_path(url)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    filesystem, remote = _remote(url, options)
    filesystem.invalidate_cache()
    if filesystem.exists(remote):
        filesystem.rm(remote, recursive=True)


def list_names(url: str, options: StorageOptions = None) -> list[str]:
    """Names in a folder, sorted; empty where there is no folder."""
    if is_local(url):
        path = local_path(url)
        return sorted(os.listdir(path)) if path.is_dir() else []
    filesystem, remote = _remote(url, options)
    filesystem.invalidate_cache()
    if not filesystem.exists(remote):
        return []
    entries = filesystem.ls(remote, detail=False)
    return sorted(entry.rstrip("/").rpartition("/")[2] for entry in entries)


def remove_drafts(url: str) -> None:
    """Remove the unfinished files that a killed writer left below a local folder.

    zarr's own pipeline, and `write_bytes`, write under another name first.
    """
    for folder, _, names in os.walk(local_path(url)):
        for name in names:
            if name.endswith((".partial", ".draft")):
                Path(folder, name).unlink(missing_ok=True)
