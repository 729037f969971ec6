"""Files of chunks as they are written: large ones past the page cache, from beginning to end.

Where the bytes at the beginning are known last, they take the place that was left for them in the
same way: what goes past the cache and what goes through it must not meet in one file (open(2)).
"""

from __future__ import annotations

import errno
import os
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading.core.threads import empty_array

DIRECT_BYTES = 4 * 2**20
"""Files for at least so many bytes of pixels go to the disk past the page cache."""

STAGE_BYTES = 8 * 2**20
"""Large files are written in pieces of this size."""

_DIRECT = getattr(os, "O_DIRECT", 0)
_PAGE = 4096
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)


def past_cache(size: int) -> bool:
    """Whether a file for so many bytes of pixels is written past the page cache.

    What is written is not read again soon, and filling the cache takes as long as the
    codec. zarr's setting `codec_pipeline.direct_io`
    (`ZARR_CODEC_PIPELINE__DIRECT_IO=False`) turns it off.
    """
    enabled = zarr.config.get("codec_pipeline.direct_io", True)
    return bool(_DIRECT and enabled) and size >= DIRECT_BYTES


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
        self._room = 0
        self._beginning = b""
        self._first_pages: NDArray[np.uint8] | None = None
        if past_cache(size):
            stage = empty_array((STAGE_BYTES,), np.uint8)
            # The system takes whole pages only.
            if stage.ctypes.data % _PAGE == 0:
                self._stage = stage
        self._descriptor = self._opened()

    def leave_room(self, length: int) -> None:
        """Begin the file with bytes that are known later (`fill_room`)."""
        if self._stage is not None and length > STAGE_BYTES:
            self._stage = None
            self._use_cache()
        self._room = length
        self.write(bytes(length))

    def fill_room(self, content: bytes) -> None:
        """The bytes for which room was left; they are written when all others are."""
        if len(content) != self._room:
            raise ValueError(f"{len(content)} bytes for the room of {self._room}")
        self._beginning = content

    def write(self, content: Any) -> None:
        """Add bytes."""
        view = memoryview(content)
        self.length += len(view)
        if self._stage is None:
            self._send(view)
            return
        left = np.frombuffer(view, np.uint8)
        while left.size:
            taken, left = np.split(left, [STAGE_BYTES - self._held])
            self._stage[self._held : self._held + taken.size] = taken
            self._held += taken.size
            if self._held == STAGE_BYTES:
                if self._first_pages is None:
                    self._first_pages = self._stage[: _in_pages(self._room)].copy()
                self._send(self._stage.data)
                self._held = 0

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            os.close(self._descriptor)

    def _finish(self) -> None:
        if self._stage is None:
            self._begin_with(memoryview(self._beginning))
            return
        beginning = np.frombuffer(self._beginning, np.uint8)
        pages = self._stage if self._first_pages is None else self._first_pages
        pages[: beginning.size] = beginning
        self._send(self._stage.data[: _in_pages(self._held)])
        if self._first_pages is not None:
            # Also in memory they have to lie where a page begins.
            self._stage[: pages.size] = pages
            self._begin_with(self._stage.data[: pages.size])
        os.ftruncate(self._descriptor, self.length)

    def _begin_with(self, view: memoryview) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._send(view)

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
                if not self._use_cache():
                    raise

    def _use_cache(self) -> bool:
        """Go through the cache from now on; whether the file was written past it until now."""
        import fcntl

        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
        return bool(flags & _DIRECT)


def _in_pages(length: int) -> int:
    """So many bytes, up to the end of a page."""
    return ceil(length / _PAGE) * _PAGE
