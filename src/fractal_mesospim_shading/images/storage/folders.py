"""Folders inside a source, listed one at a time: local, remote, or in a zip archive.

Every name that a copy is made of comes from here. A name that would lead out of a result, and a
link out of the source or to nothing, is told apart; what to do about it is up to the reader.
"""

from __future__ import annotations

import os
import stat
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import IO, Any, Literal

from fractal_mesospim_shading.errors import SourceReadError
from fractal_mesospim_shading.images.storage.names import unsafe_name, what_is_wrong
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    connection_errors,
    filesystem,
    is_local,
    join_url,
    split_zip,
)

_DEEPEST = 64
Kind = Literal["file", "folder", "special", "refused"]


@dataclass(frozen=True)
class State:
    """Bytes of a file (-1: not known), and nanoseconds of its last change (None: not known)."""

    size: int
    changed_ns: int | None


@dataclass(frozen=True)
class Entry:
    """Something in a folder.

    Attributes:
        name: without slashes.
        kind: `special` is what is neither a file nor a folder, such as a pipe; `refused` a
            name or a link that leads out of the source, or a link to nothing.
        problem: of what is refused: one sentence that names it.
        linked: whether it was reached by a link.
        state: of a file, where the list itself tells it.
    """

    name: str
    kind: Kind
    problem: str = ""
    linked: bool = False
    state: State | None = None


@dataclass(frozen=True)
class Folder(ABC):
    """A folder of a source.

    Attributes:
        url: its address, for messages.
        depth: how many folders lie above it within the source.
    """

    url: str
    depth: int = field(default=0, kw_only=True)

    @abstractmethod
    def below(self, name: str) -> Folder:
        """A folder in it."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """What lies in it, in no particular order."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """A file in it, to read."""

    @abstractmethod
    def state(self, entry: Entry) -> State:
        """Size and time of a file in it."""

    @abstractmethod
    def holds(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def readable(self, name: str) -> bool:
        """Whether the rights allow to read a file, as far as that is known beforehand."""
        return True


def open_folder(
    address: str, options: StorageOptions = None, *, follow_links: bool = False
) -> Folder:
    """The folder of an image or a container.

    Args:
        address: a path, an address of fsspec, or one that leads into a zip archive.
        options: for a remote address.
        follow_links: whether links on a local file system may lead out of it.
    """
    archive = split_zip(address)
    if archive is not None:
        parts = filter(None, archive[1].split("/"))
        return ArchiveFolder(address, _Archive(archive[0]), tuple(parts))
    if is_local(address):
        root = os.path.realpath(address)
        return LocalFolder(address, root, root, follow_links, (root,))
    fs, path = filesystem(address, options)
    return RemoteFolder(address, fs, path.rstrip("/"))


def files_below(folder: Folder, prefix: str = "") -> Iterator[tuple[Folder, str, Entry]]:
    """All files below a folder, and whatever is refused: (folder, path from here, entry)."""
    for entry in folder.entries():
        path = f"{prefix}{entry.name}"
        if entry.kind == "folder":
            yield from files_below(folder.below(entry.name), f"{path}/")
        else:
            yield folder, path, entry


def _named(name: str, where: str, depth: int) -> Entry | None:
    """The refusal of a name, None where there is nothing to refuse."""
    reason = what_is_wrong(name)
    if reason is not None:
        return Entry(name, "refused", unsafe_name(name, f"'{where}'", reason))
    if depth >= _DEEPEST:
        return Entry(name, "refused", f"'{where}' lies {depth} folders deep; no image does.")
    return None


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder of a local file system.

    Attributes:
        path: of the folder.
        root: the real path of the source.
        follow_links: whether links may lead out of the source.
        above: real paths of the folders above it, and its own, to notice circles.
    """

    path: str
    root: str
    follow_links: bool
    above: tuple[str, ...]

    def below(self, name: str) -> LocalFolder:
        path = os.path.join(self.path, name)
        real = os.path.realpath(path) if os.path.islink(path) else f"{self.above[-1]}/{name}"
        above, url = (*self.above, real), join_url(self.url, name)
        return replace(self, path=path, url=url, above=above, depth=self.depth + 1)

    def entries(self) -> Iterator[Entry]:
        try:
            with os.scandir(self.path) as listed:
                for item in listed:
                    yield _named(item.name, self.url, self.depth) or self._entry(item)
        except OSError as error:
            raise _unreadable(self.url, error) from error

    def _entry(self, item: os.DirEntry[str]) -> Entry:
        linked = item.is_symlink()
        problem = self._link_problem(item) if linked else None
        if problem is not None:
            return Entry(item.name, "refused", problem, linked=True)
        if item.is_dir():
            return Entry(item.name, "folder", linked=linked)
        return Entry(item.name, "file" if item.is_file() else "special", linked=linked)

    def _link_problem(self, item: os.DirEntry[str]) -> str | None:
        where = join_url(self.url, item.name)
        try:
            target = os.path.realpath(item.path, strict=True)
        except OSError:
            return (
                f"'{where}' is a link to '{os.readlink(item.path)}', which is not there. Get the "
                "files it stands for (as with `git annex get`), or remove it."
            )
        if not self.follow_links and not f"{target}/".startswith(f"{self.root.rstrip('/')}/"):
            return (
                f"'{where}' is a link that leads out of the image, to '{target}'. Put what it "
                "stands for in its place; or, where such links are meant, as in a DataLad or "
                "git-annex data set, set `follow_links` (command line and Python)."
            )
        if target in self.above or f"{self.above[-1]}/".startswith(f"{target}/"):
            return f"'{where}' is a link to a folder that it lies in itself. Remove it."
        return None

    def open(self, name: str) -> IO[bytes]:
        return open(os.path.join(self.path, name), "rb", buffering=0)

    def state(self, entry: Entry) -> State:
        status = os.stat(os.path.join(self.path, entry.name))
        return State(status.st_size, status.st_mtime_ns)

    def holds(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(os.path.join(self.path, name)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def readable(self, name: str) -> bool:
        return os.access(os.path.join(self.path, name), os.R_OK)


@dataclass(frozen=True)
class RemoteFolder(Folder):
    """A folder of any file system of fsspec."""

    fs: Any
    path: str

    def below(self, name: str) -> RemoteFolder:
        path, url = f"{self.path}/{name}", join_url(self.url, name)
        return replace(self, path=path, url=url, depth=self.depth + 1)

    def entries(self) -> Iterator[Entry]:
        errors: tuple[type[Exception], ...] = (*connection_errors(), NotImplementedError)
        try:
            listed = self.fs.ls(self.path, detail=True)
        except errors as error:
            raise _unreadable(self.url, error) from error
        for item in listed:
            name = self._name(item)
            if name is None:
                continue
            refused = _named(name, self.url, self.depth)
            if refused is not None:
                yield refused
            elif item.get("type") == "directory":
                yield Entry(name, "folder")
            else:
                yield Entry(name, "file", state=remote_state(item))

    def _name(self, item: Mapping[str, Any]) -> str | None:
        """The name of something listed; None for the folder itself, which some stores list."""
        start = f"{self.path.lstrip('/')}/"
        rest = str(item["name"]).lstrip("/")
        if rest in (start, start[:-1]):
            # An object store may hold `folder//file`: a folder without a name.
            return "" if rest == start and item.get("type") == "directory" else None
        return rest.removeprefix(start).removesuffix("/")

    def open(self, name: str) -> IO[bytes]:
        opened: IO[bytes] = self.fs.open(f"{self.path}/{name}", "rb")
        return opened

    def state(self, entry: Entry) -> State:
        return entry.state or remote_state(self.fs.info(f"{self.path}/{entry.name}"))

    def holds(self, name: str) -> bool:
        return bool(self.fs.isfile(f"{self.path}/{name}"))


def remote_state(info: Mapping[str, Any]) -> State:
    """Size and time of a file as fsspec tells them."""
    times = (
        info.get(key) for key in ("LastModified", "last_modified", "updated", "created", "mtime")
    )
    changed = next((time for time in times if isinstance(time, datetime)), None)
    size = info.get("size")
    return State(
        -1 if size is None else int(size),
        None if changed is None else int(changed.timestamp() * 1e9),
    )


@dataclass(frozen=True)
class _Archive:
    """A zip archive with its names sorted into folders."""

    path: str

    @cached_property
    def file(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    @cached_property
    def changed_ns(self) -> int:
        return os.stat(self.path).st_mtime_ns

    @cached_property
    def folders(self) -> dict[tuple[str, ...], dict[str, bool]]:
        """Folder, as its parts -> name -> whether that is a folder."""
        folders: dict[tuple[str, ...], dict[str, bool]] = {}
        for name in self.file.namelist():
            parts = tuple(name.removesuffix("/").split("/"))
            for i, part in enumerate(parts):
                here = folders.setdefault(parts[:i], {})
                here[part] = here.get(part, False) or i + 1 < len(parts) or name.endswith("/")
        return folders


@dataclass(frozen=True)
class ArchiveFolder(Folder):
    """A folder in a zip archive."""

    archive: _Archive = field(repr=False)
    parts: tuple[str, ...]

    def below(self, name: str) -> ArchiveFolder:
        parts, url = (*self.parts, name), join_url(self.url, name)
        return replace(self, parts=parts, url=url, depth=self.depth + 1)

    def entries(self) -> Iterator[Entry]:
        for name, is_folder in self.archive.folders.get(self.parts, {}).items():
            refused = _named(name, self.url, self.depth)
            if refused is None and not is_folder and self._is_link(name):
                refused = Entry(
                    name,
                    "refused",
                    f"'{join_url(self.url, name)}' is a link in a zip archive, where no link "
                    "leads anywhere. Pack the archive again with the files themselves.",
                    linked=True,
                )
            yield refused or Entry(name, "folder" if is_folder else "file")

    def _is_link(self, name: str) -> bool:
        return stat.S_ISLNK(self._info(name).external_attr >> 16)

    def _info(self, name: str) -> zipfile.ZipInfo:
        return self.archive.file.getinfo("/".join((*self.parts, name)))

    def open(self, name: str) -> IO[bytes]:
        return self.archive.file.open(self._info(name))

    def state(self, entry: Entry) -> State:
        return State(self._info(entry.name).file_size, self.archive.changed_ns)

    def holds(self, name: str) -> bool:
        return self.archive.folders.get(self.parts, {}).get(name) is False

    def readable(self, name: str) -> bool:
        return not self._info(name).flag_bits & 1


def _unreadable(url: str, error: Exception) -> SourceReadError:
    return SourceReadError(
        f"The folder '{url}' cannot be listed ({type(error).__name__}: {error}). Check the address "
        "and the rights to read it."
    )
