"""Regular files, and nothing else: a pipe in the place of a file is never waited for."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem
from zarr import storage

from fractal_mesospim_shading.errors import OutputWriteError, SourceReadError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

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


class RegularFileSystem(LocalFileSystem):  # type: ignore[misc]
    """The file system of this machine, of which special files cannot be opened."""

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        refuse_special(path)
        return super()._open(path, mode=mode, **more)


class LocalStore(storage.LocalStore):
    """A local zarr store in which special files cannot be read.

    It bears the name of zarr's own, by which the Rust pipeline knows that it may read the files.
    """

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        refuse_special(self.root / key)
        return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        wanted = list(key_ranges)
        for key, _ in wanted:
            refuse_special(self.root / key)
        return await super().get_partial_values(prototype, wanted)
