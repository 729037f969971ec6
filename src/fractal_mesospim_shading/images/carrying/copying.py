"""Copy one file into a result: under its name it is whole, or it is not there."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Protocol

from fractal_mesospim_shading.errors import OutputWriteError, SourceReadError, StoppedError
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.folders import Entry, Folder, State, remote_state
from fractal_mesospim_shading.images.storage.places import (
    StorageOptions,
    connection_errors,
    filesystem,
    join_url,
    reading_errors,
)

_BLOCK_BYTES = 4 * 2**20
_PART_BYTES = 8 * 2**20


def copy_file(
    folder: Folder, path: str, entry: Entry, target: Target, stop: threading.Event | None = None
) -> int:
    """Copy a file, unless the target has it from the same state of the source.

    Consolidated metadata within a file of metadata are left out.

    Args:
        folder: that holds it.
        path: of the copy, within the target.
        entry: of the file.
        target: where it goes.
        stop: breaks off when it is set.

    Returns:
        Its size in bytes.

    Raises:
        SourceReadError: it cannot be read.
        OutputWriteError: no permission, or no space.
        StoppedError: it was told to stop.
    """
    where = join_url(folder.url, entry.name)
    try:
        state = folder.state(entry)
        if entry.name == "zarr.json":
            with folder.open(entry.name) as file:
                target.put(path, _without_consolidated(file.read()))
            return state.size
        if target.has(path, state):
            return state.size
        reader = folder.open(entry.name)
    except connection_errors() as error:
        raise unreadable(where, error) from error
    with reader:
        target.write(path, _whole(_blocks(reader, where, stop), state, where), state)
    if folder.state(entry) != state:
        raise _changed(where)
    return state.size


def _blocks(reader: IO[bytes], where: str, stop: threading.Event | None) -> Iterator[bytes]:
    while True:
        if stop is not None and stop.is_set():
            raise StoppedError("The copying was stopped.")
        try:
            block = reader.read(_BLOCK_BYTES)
        except reading_errors() as error:
            raise unreadable(where, error) from error
        if not block:
            return
        yield block


def _whole(blocks: Iterator[bytes], state: State, where: str) -> Iterator[bytes]:
    """The blocks of a file, if together they are as long as it was said to be."""
    length = 0
    for block in blocks:
        length += len(block)
        yield block
    if length != state.size and state.size >= 0:
        raise _changed(where)


def _changed(where: str) -> SourceReadError:
    return SourceReadError(
        f"'{where}' changed while it was copied. Run the same command again once nobody writes to "
        "the source."
    )


def _without_consolidated(document: bytes) -> bytes:
    """Metadata of zarr v3 without those of all members, which are true of the source alone."""
    try:
        content = json.loads(document)
    except ValueError:
        return document
    if not isinstance(content, dict) or not content.get("consolidated_metadata"):
        return document
    del content["consolidated_metadata"]
    return json.dumps(content, indent=2).encode()


class Target(Protocol):
    """Where files are written."""

    def has(self, path: str, state: State) -> bool:
        """Whether a file was copied whole from a source in this state."""

    def write(self, path: str, blocks: Iterator[bytes], state: State) -> None:
        """Write a file; under its name it is whole."""

    def put(self, path: str, data: bytes) -> None:
        """Write a small file."""


def open_target(url: str, options: StorageOptions) -> Target:
    """The folder of a result, local or remote."""
    if places.is_local(url):
        return _LocalTarget(str(places.local_path(url)))
    return _RemoteTarget(url, options)


class _LocalTarget:
    """A folder of this machine. Copies have the time of their sources, to know them again."""

    def __init__(self, root: str) -> None:
        self._root = root

    def has(self, path: str, state: State) -> bool:
        try:
            copy = os.stat(os.path.join(self._root, path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (copy.st_size, copy.st_mtime_ns) == (state.size, state.changed_ns)

    def write(self, path: str, blocks: Iterator[bytes], state: State) -> None:
        final = os.path.join(self._root, path)
        folder = os.path.dirname(final)
        draft = os.path.join(folder, f".{uuid.uuid4().hex[:16]}.draft")
        try:
            os.makedirs(folder, exist_ok=True)
            with open(draft, "xb") as writer:
                for block in blocks:
                    writer.write(block)
            if state.changed_ns is not None:
                os.utime(draft, ns=(state.changed_ns, state.changed_ns))
            os.replace(draft, final)
        except (SourceReadError, StoppedError):
            _discard(draft)
            raise
        except OSError as error:
            _discard(draft)
            raise unwritable(final, error) from error

    def put(self, path: str, data: bytes) -> None:
        self.write(path, iter([data]), State(len(data), None))


def _discard(draft: str) -> None:
    with suppress(OSError):
        os.unlink(draft)


class _RemoteTarget:
    """A folder of an object store, where a file appears when it is whole."""

    def __init__(self, url: str, options: StorageOptions) -> None:
        self._url = url
        self._fs, self._path = filesystem(url, options)

    def has(self, path: str, state: State) -> bool:
        if state.changed_ns is None:
            return False
        try:
            copy = remote_state(self._fs.info(f"{self._path}/{path}"))
        except FileNotFoundError:
            return False
        later = copy.changed_ns is not None and copy.changed_ns > state.changed_ns
        return copy.size == state.size and later

    def write(self, path: str, blocks: Iterator[bytes], state: State) -> None:
        if state.size <= _BLOCK_BYTES:
            self.put(path, b"".join(blocks))
            return
        try:
            with self._fs.open(f"{self._path}/{path}", "wb", block_size=_PART_BYTES) as writer:
                for block in blocks:
                    writer.write(block)
        except (SourceReadError, StoppedError):
            raise
        except connection_errors() as error:
            raise unwritable(join_url(self._url, path), error) from error

    def put(self, path: str, data: bytes) -> None:
        try:
            self._fs.pipe_file(f"{self._path}/{path}", data)
        except connection_errors() as error:
            raise unwritable(join_url(self._url, path), error) from error


def unreadable(where: str, error: Exception) -> SourceReadError:
    """The error about something that was to be copied."""
    return SourceReadError(
        f"'{where}', which was to be copied, cannot be read ({type(error).__name__}: {error}). "
        "Repair it, or remove it from the source."
    )


def unwritable(where: str, error: Exception) -> OutputWriteError:
    """The error about a copy that cannot be written."""
    return OutputWriteError(
        f"'{where}' cannot be written ({type(error).__name__}: {error}). What was finished is "
        "kept: make room or restore access, and run the same command again."
    )
