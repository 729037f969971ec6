"""Single local files: parts read into buffers, large ones written past the page cache."""

from __future__ import annotations

import errno
import os
from io import FileIO
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.core import memory
from fractal_mesospim_shading.images.storage.local_files import open_regular

DIRECT_BYTES = 4 * 2**20
"""Files for at least so many bytes of pixels go to the disk past the page cache."""

_DIRECT = getattr(os, "O_DIRECT", 0)
_PAGE = 4096
_STAGE_BYTES = 8 * 2**20
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)


def open_file(path: str) -> FileIO:
    """Open a file to read; what is no file, such as a pipe, does not keep us waiting."""
    return FileIO(path, "rb", opener=open_regular)


def content_of(file: FileIO, start: int, length: int) -> memoryview:
    """Some bytes of a file, in a buffer that is used again.

    Raises:
        ValueError: they are not all there.
    """
    if start + length > os.fstat(file.fileno()).st_size:
        raise ValueError("the file is cut off")
    view = memory.empty((length,), np.uint8).data
    file.seek(start)
    done = 0
    while done < length:
        read = file.readinto(view[done:])
        if not read:
            raise ValueError("the file became shorter while it was read")
        done += read
    return view


def past_cache(size: int) -> bool:
    """Whether a file for so many bytes of pixels is written past the page cache.

    What is written is not read again soon, and filling the cache takes as long as the
    codec. zarr's setting `codec_pipeline.direct_io`
    (`ZARR_CODEC_PIPELINE__DIRECT_IO=False`) turns it off.
    """
    wanted = zarr.config.get("codec_pipeline.direct_io", True)
    return bool(_DIRECT and wanted) and size >= DIRECT_BYTES


class OutputFile:
    """A new file, written from its beginning to its end.

    Where the file system cannot do without its cache, it is used (see `past_cache`).

    Args:
        path: of the file; what was there is lost.
        size: bytes that it holds at most, decoded; large ones pass by the page cache.

    Attributes:
        path: of the file.
        length: bytes written.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.length = 0
        self._stage: NDArray[np.uint8] | None = None
        self._held = 0
        if past_cache(size):
            stage = memory.empty((_STAGE_BYTES,), np.uint8)
            # The system takes whole pages only.
            if stage.ctypes.data % _PAGE == 0:
                self._stage = stage
        self._descriptor = self._opened()

    def write(self, content: Any) -> None:
        """Add bytes."""
        view = memoryview(content)
        self.length += len(view)
        if self._stage is None:
            self._send(view)
            return
        bytes_in = np.frombuffer(view, np.uint8)
        while bytes_in.size:
            taken = min(bytes_in.size, _STAGE_BYTES - self._held)
            self._stage[self._held : self._held + taken] = bytes_in[:taken]
            self._held += taken
            bytes_in = bytes_in[taken:]
            if self._held == _STAGE_BYTES:
                self._send(self._stage.data)
                self._held = 0

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._stage is not None and self._held:
                self._send(self._stage.data[: ceil(self._held / _PAGE) * _PAGE])
                os.ftruncate(self._descriptor, self.length)
        finally:
            os.close(self._descriptor)

    def _opened(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        for _ in range(3):
            try:
                return os.open(
                    self.path, flags | (_DIRECT if self._stage is not None else 0), 0o666
                )
            except FileNotFoundError:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if self._stage is None or error.errno not in _REFUSED:
                    raise
                self._stage = None
        raise FileNotFoundError(errno.ENOENT, "the folder vanishes", str(self.path))

    def _send(self, view: memoryview) -> None:
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                if self._stage is None or error.errno not in _REFUSED:
                    raise
                # Some file systems say only now that they need their cache.
                import fcntl

                flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
                if not flags & _DIRECT:
                    raise
                fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
