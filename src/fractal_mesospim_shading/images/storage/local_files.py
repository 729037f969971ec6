"""Single local files: opened only where they are regular, written whole, brought to the device.

Opening a named pipe would wait for its other end, perhaps for ever.

A file that is written and closed lies in the memory of the machine, for half a minute
or longer. `fsync` of the file, and of the folder that names it, waits until it is on
the device. On many file systems of Linux one `syncfs` does the same for all files at
once, which costs a hundredth of that where files are small.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO

from fractal_mesospim_shading.errors import OutputWriteError, SourceReadError

WHOLE = frozenset(
    "ext2 ext3 ext4 xfs btrfs f2fs jfs bcachefs zfs tmpfs ramfs overlay nfs nfs4 ceph".split()
)
"""File systems of Linux where `syncfs` waits for everything that this machine has written. Those
in user space (fuse) and SMB only hand over what is in memory, and the server may not yet have
stored it."""

LOCAL = frozenset(
    "ext2 ext3 ext4 xfs btrfs f2fs jfs bcachefs zfs tmpfs ramfs overlay vfat exfat ntfs3".split()
)
"""File systems that belong to one machine alone."""

_THREADS = 8
_METADATA = {"zarr.json", ".zgroup", ".zattrs", ".zarray"}
_CANNOT = {
    getattr(errno, name)
    for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EBADF", "EACCES", "EPERM", "EISDIR")
    if hasattr(errno, name)
}
"""What a file system answers that cannot sync a folder. A device that fails says otherwise."""

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def open_regular(path: str | os.PathLike[str], flags: int) -> int:
    """An `opener` for `open`: opens a regular file, and never waits for anything else.

    Opening a named pipe would wait for its other end, perhaps for ever.

    Raises:
        SourceReadError: a pipe, a device or a socket.
        OSError: as `os.open` does.
    """
    flags |= getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags | _NONBLOCK, 0o666)
    except BlockingIOError:
        # A regular file that a file server has leased to somebody: wait until it is free.
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _not_regular(path) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _not_regular(path)


def open_own(path: str | os.PathLike[str], flags: int) -> int:
    """The same for a file of our own, which is never a link to somewhere else.

    Raises:
        OutputWriteError: a link.
        SourceReadError: a pipe, a device or a socket.
    """
    try:
        return open_regular(path, flags | _NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise OutputWriteError(
                f"{os.fspath(path)} is a link; unfinished work is never read or written through "
                "links. Look where it leads, and remove the link."
            ) from error
        raise


def _not_regular(path: str | os.PathLike[str]) -> SourceReadError:
    return SourceReadError(
        f"'{os.fspath(path)}' is no regular file (a named pipe, a device or a socket); expected a "
        "file. Put the file itself there."
    )


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Refuse what is there and is neither a file nor a folder.

    Raises:
        SourceReadError: a pipe, a device or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        # Whoever opens it says what is wrong.
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _not_regular(path)


def write_whole(target: Path, data: bytes) -> None:
    """Write a file: a reader finds the old content or the new, never half."""
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


def _new_file(path: Path) -> IO[bytes]:
    """A file that was not there before: neither a link that leads elsewhere, nor a pipe."""
    try:
        return open(path, "xb")
    except FileExistsError:
        path.unlink(missing_ok=True)
        with suppress(FileExistsError):
            return open(path, "xb")
    # Another process writes the same document at this moment.
    return open(path, "wb", opener=open_own)


def file_system(path: str | os.PathLike[str]) -> str:
    """The kind of file system that a path lies on, as Linux names it; empty where unknown."""
    place = os.path.realpath(path)
    best, kind = -1, ""
    for folder, mounted in _mounts():
        below = place == folder or place.startswith(folder.rstrip("/") + "/")
        # Of two on the same folder, the later one hides the earlier.
        if below and len(folder) >= best:
            best, kind = len(folder), mounted
    return kind


def _mounts() -> list[tuple[str, str]]:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    mounts = []
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 4 and after:
            folder = fields[4]
            for code in ("\\040", "\\011", "\\012", "\\134"):
                folder = folder.replace(code, chr(int(code[1:], 8)))
            mounts.append((folder, after.split(" ")[0]))
    return mounts


def sync_machine(path: str | os.PathLike[str]) -> bool:
    """Wait for all that this machine has written to the file system of a path.

    Returns:
        False where the system cannot be asked to, or where it reports a failure, which may
        be that of another file.
    """
    syncfs = _syncfs()
    if syncfs is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(syncfs(descriptor) == 0)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=1)
def _syncfs() -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def sync_tree(folder: str | os.PathLike[str]) -> list[str]:
    """Wait until a folder and everything below it is on the device.

    Returns:
        Folders that their file system cannot sync: a power cut may take away the names of
        files in them.

    Raises:
        OutputWriteError: the device failed.
    """
    if file_system(folder) in WHOLE and sync_machine(folder):
        return []
    return sync_files(_everything(os.fspath(folder)))


def sync_groups(folder: str | os.PathLike[str]) -> list[str]:
    """The same for the metadata of groups, after `sync_tree` and what was written since."""
    if file_system(folder) in WHOLE and sync_machine(folder):
        return []
    return sync_files(_metadata(os.fspath(folder)))


def sync_files(paths: Iterable[str]) -> list[str]:
    """Wait for files and folders, several at a time; returns folders that cannot be synced."""
    waiting, failed = iter(paths), []
    with ThreadPoolExecutor(_THREADS) as pool:
        # In parts, for there may be millions.
        while part := list(islice(waiting, 4096)):
            failed += [path for path, done in pool.map(_synced, part) if not done]
    return failed


def sync_folder(folder: str | os.PathLike[str]) -> bool:
    """Wait until the names in a folder are on the device; False where that cannot be done."""
    return _synced(os.fspath(folder))[1]


def _synced(path: str) -> tuple[str, bool]:
    is_folder = os.path.isdir(path)
    try:
        # Windows cannot open folders, and syncs files only that are open for writing.
        descriptor = os.open(path, os.O_RDONLY if os.name != "nt" or is_folder else os.O_RDWR)
        try:
            flush(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return path, True
    except OSError as error:
        if is_folder and error.errno in _CANNOT:
            return path, False
        raise _failed(path, error) from error
    return path, True


def flush(descriptor: int) -> None:
    """Wait until an open file is on the device."""
    if sys.platform == "darwin":
        import fcntl

        try:
            # fsync of macOS leaves it in the memory of the disk.
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in _CANNOT and error.errno != errno.ENOTTY:
                raise
    os.fsync(descriptor)


def _failed(path: str, error: OSError) -> OutputWriteError:
    return OutputWriteError(
        f"{path} does not reach the device: {error}. The disk may be full or failing; what is "
        "there may be incomplete. Mend that, and run the same command again with `restart`."
    )


def _everything(folder: str) -> Iterator[str]:
    """All files below, then their folder: a name counts once its file is there."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                yield path
        yield parent


def _metadata(folder: str) -> Iterator[str]:
    """The metadata of groups, and their folders; arrays are not entered."""
    for parent, folders, names in os.walk(folder):
        if ".zarray" in names or not _METADATA & set(names):
            folders.clear()
            continue
        for name in sorted(_METADATA & set(names)):
            yield os.path.join(parent, name)
        yield parent
