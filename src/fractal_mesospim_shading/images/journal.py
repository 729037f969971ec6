"""The journal of a job: which blocks are safely written, and who is writing.

Chunks that exist prove nothing: a killed writer leaves torn ones. An entry in the
journal, made after the chunks of a block are written, is the only proof.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fractal_mesospim_shading.errors import JobLockedError, OutputWriteError
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
        """All records; what a kill or a crash of the machine left incomplete is cut off."""
        if self._local:
            path = places.join(self._url, "blocks.jsonl")
            data = places.read_bytes(path) or b""
            whole, length = _whole_records(data)
            if length < len(data):
                places.write_bytes(path, data[:length])
            return whole
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
        """Write what is waiting.

        Raises:
            OutputWriteError: the disk is full, or something else of that kind.
        """
        if not self._waiting:
            return
        # Handed over first: what cannot be written now is not tried again later.
        data, self._waiting = _lines(self._waiting), []
        if self._local:
            _append(places.local_path(self._url) / "blocks.jsonl", data)
        else:
            name = f"{self._parts:08d}.jsonl"
            places.write_bytes(places.join(self._url, name), data, self._options)
            self._parts += 1


def _lines(records: Iterable[Record]) -> bytes:
    return "".join(json.dumps(record, sort_keys=True) + "\n" for record in records).encode()


def _whole_records(data: bytes) -> tuple[list[Record], int]:
    """The records up to the first line that is none, and how many bytes they take."""
    records: list[Record] = []
    length = 0
    for line in data.splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(record, dict):
            break
        records.append(record)
        length += len(line)
    return records, length


def _append(path: Path, data: bytes) -> None:
    """Add to a file all of the data or, on a full disk, nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            before = file.tell()
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise OutputWriteError(
            f"The journal {path} cannot be written: {error}. What was finished is kept: make room "
            "or restore access, and run the same command again."
        ) from error


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
        for _ in range(5):
            with self._alone():
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
        draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(data)
            # A hard link appears with its content and fails if the name is taken.
            os.link(draft, path)
        except FileExistsError:
            return False
        except FileNotFoundError:
            # A run that ended at this moment has removed the folder: once more.
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from looking at the lock meanwhile: the folder itself is locked."""
        if not places.is_local(self._url):
            yield
            return
        import fcntl

        folder = places.local_path(self._url).parent
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # Ends with the descriptor, thus with the process too. Some network file systems
            # know no such locks; there two runs that start at once are not told apart.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

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
        started = _started(pid)
        if started is not None and started == holder.get("started"):
            raise JobLockedError(
                f"Another run, process {pid} on this machine, is writing this output. Wait for it, "
                "or stop it and run the same command again: it will be continued."
            )


def _identity(pid: int) -> Record:
    """Host, number and start time of a process; no start time if it is not alive."""
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str | None:
    """When a process started, in a form that setting the clock does not change."""
    import psutil

    if not Path("/proc/self/stat").exists():
        try:
            return f"{psutil.Process(pid).create_time():.2f}"
        except psutil.NoSuchProcess:
            return None
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name of the program, in brackets, may hold blanks. Of what follows, the first is
    # the state (zombies write no more), the twentieth the start in ticks since boot.
    fields = content.rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
