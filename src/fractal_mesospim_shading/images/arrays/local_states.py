"""The state of files on this machine: a file, none, or a name that leads nowhere."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import repeat
from math import prod
from typing import NamedTuple


class FileState(NamedTuple):
    """A file that is there.

    Attributes:
        size: in bytes.
        version: time of the last change in microseconds, or what the store tells versions
            apart by.
    """

    size: int
    version: str


Known = FileState | None
"""The state of a file, None where it is not there."""


def state_of(path: str, status: os.stat_result) -> FileState:
    """The state that the system tells of a file.

    Raises:
        OSError: it is no file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no file", path)
    # Finer times than a microsecond do not survive every file system.
    return FileState(status.st_size, str(status.st_mtime_ns // 1000))


class LocalLook:
    """One look at files below a folder, many of which may be missing.

    An array may have a million chunks that were never written: what is missing above a file is
    found out once and holds for all files below it, for as long as this look takes.
    """

    def __init__(self, folder: str) -> None:
        """Know nothing yet.

        Args:
            folder: that the files belong to, which must be there.
        """
        self._folder = folder
        self._there: set[str] = set()
        self._gone: set[str] = set()

    def state(self, key: str) -> Known:
        """The state of a file.

        Args:
            key: its path below the folder.

        Raises:
            OSError: see `refuse_broken_name`; or it is there but is no file.
        """
        path = f"{self._folder}/{key}"
        try:
            status = os.stat(path)
        except FileNotFoundError:
            self.refuse_broken_name(key)
            return None
        return state_of(path, status)

    def states(self, names: Sequence[Sequence[str]], start: str = "") -> Iterator[Known]:
        """The states of all files that some names make, joined by slashes, in their order.

        Args:
            names: of folders, and last of files, one list for each part of a path.
            start: of all of them.

        Raises:
            OSError: as `state`.
        """
        own, below = names[0], names[1:]
        for number, name in enumerate(own):
            if start in self._gone:
                yield from repeat(None, (len(own) - number) * prod(map(len, below)))
                return
            if below:
                yield from self.states(below, f"{start}{name}/")
            else:
                yield self.state(start + name)

    def knows_gone(self, key: str) -> bool:
        """Whether a folder on the way to a file was missing before."""
        return bool(self._gone) and any(above in self._gone for above in _above(key))

    def refuse_broken_name(self, key: str) -> None:
        """Tell a file that is not there from a name that leads nowhere.

        Args:
            key: path below the folder of what the system says does not exist.

        Raises:
            OSError: the path, or a folder on the way to it, is a link whose target is missing;
                or the folder it belongs to is gone.
        """
        if not self._there:
            if not os.path.isdir(self._folder):
                raise FileNotFoundError(errno.ENOENT, "the folder is gone", self._folder)
            self._there.add("")
        # From above: of an array without chunks nothing is there, which one look tells.
        for above in _above(key):
            if above in self._there:
                continue
            place = f"{self._folder}/{above[:-1]}"
            if above in self._gone or not os.path.lexists(place):
                self._gone.add(above)
                return
            if not os.path.isdir(place):
                raise FileNotFoundError(errno.ENOENT, "this is no folder that can be opened", place)
            self._there.add(above)
        path = f"{self._folder}/{key}"
        if os.path.islink(path):
            raise FileNotFoundError(errno.ENOENT, "it is a link whose target is missing", path)


def _above(key: str) -> Iterator[str]:
    """The folders on the way to a file, from above, each with a slash at its end."""
    place = key.find("/") + 1
    while place:
        yield key[:place]
        place = key.find("/", place) + 1
