"""The journal of a job: which blocks are safely written, and who is writing.

Chunks that exist prove nothing: a killed writer leaves torn ones. An entry in the
journal, made after the chunks of a block are written, is the only proof.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from typing import Any

from fractal_mesospim_shading.errors import JobLockedError
from fractal_mesospim_shading.images import places
from fractal_mesospim_shading.images.places import StorageOptions

Record = dict[str, Any]


class Journal:
    """Records of finished blocks, one JSON document each, in order of completion.

    On a local file system one file that grows; on an object store, which cannot
    append, one small object for every few records.
    """

    def __init__(self, url: str, options: StorageOptions = None, batch: int = 16) -> None:
        self._url = url
        self._options = options
        self._batch = batch
        self._waiting: list[Record] = []
        self._local = places.is_local(url)
        self._parts = 0

    def read(self) -> list[Record]:
        """All records; a last line cut off by a kill is left out."""
        if self._local:
            data = places.read_bytes(places.join(self._url, "blocks.jsonl")) or b""
            if not data.endswith(b"\n"):
                data = data[: data.rfind(b"\n") + 1]
                if places.exists(self._url):
                    places.write_bytes(places.join(self._url, "blocks.jsonl"), data)
            return [json.loads(line) for line in data.splitlines()]
        records: list[Record] = []
        names = places.list_names(self._url, self._options)
        for name in names:
            part = places.read_bytes(places.join(self._url, name), self._options) or b""
            records.extend(json.loads(line) for line in part.splitlines())
        self._parts = len(names)
        return records

    def add(self, record: Record) -> None:
        """Write a record; it counts once this returns (or after `flush`, when remote)."""
        self._waiting.append(record)
        if self._local or len(self._waiting) >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if not self._waiting:
            return
        data = _lines(self._waiting)
        if self._local:
            folder = places.local_path(self._url)
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                folder / "blocks.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
            )
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
        else:
            name = f"{self._parts:08d}.jsonl"
            places.write_bytes(places.join(self._url, name), data, self._options)
            self._parts += 1
        self._waiting = []


def _lines(records: Iterable[Record]) -> bytes:
    return "".join(json.dumps(record, sort_keys=True) + "\n" for record in records).encode()


class JobLock:
    """Keeps a second run off the same output.

    The lock names host, process and the time that process started, so that the lock
    of a dead run is recognised and taken over on the same machine. A lock of another
    machine cannot be checked: it blocks, and the error says how to go on. On object
    stores, which have no exclusive creation everywhere, this is best effort.
    """

    def __init__(self, url: str, options: StorageOptions = None) -> None:
        self._url = url
        self._options = options

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            JobLockedError: a live run, or a run on another machine, holds it.
        """
        mine = json.dumps(_identity(os.getpid()), sort_keys=True).encode()
        for _ in range(3):
            if self._create(mine):
                return
            held = places.read_bytes(self._url, self._options)
            if held is None:
                continue
            self._refuse_if_alive(held)
            places.remove(self._url, self._options)
        raise JobLockedError(f"The lock {self._url} could not be taken; try again.")

    def release(self) -> None:
        """Give the lock back."""
        places.remove(self._url, self._options)

    def _create(self, data: bytes) -> bool:
        if not places.is_local(self._url):
            if places.exists(self._url, self._options):
                return False
            places.write_bytes(self._url, data, self._options)
            return True
        path = places.local_path(self._url)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_bytes(data)
        try:
            # A hard link appears with its content and fails if the name is taken.
            os.link(draft, path)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def _refuse_if_alive(self, held: bytes) -> None:
        try:
            holder = json.loads(held)
            host, pid = str(holder["host"]), int(holder["pid"])
        except (ValueError, KeyError, TypeError):
            return
        if host != socket.gethostname():
            raise JobLockedError(
                f"Another run, process {pid} on {host}, is writing this output. Wait for it. If it "
                f"is dead, remove {self._url} and run the same command again."
            )
        alive = _identity(pid)
        if alive["started"] is not None and alive["started"] == holder.get("started"):
            raise JobLockedError(
                f"Another run, process {pid} on this machine, is writing this output. Wait for it, "
                "or stop it and run the same command again: it will be continued."
            )


def _identity(pid: int) -> Record:
    """Host, number and start time of a process; no start time if it is not alive."""
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str | None:
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
