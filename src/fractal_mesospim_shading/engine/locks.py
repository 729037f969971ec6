"""Who is writing: a lock that shows whether its owner lives.

Two proofs of life go together. An operating system's lock on the open file ends with the
process that holds it, and is seen by every process, container and user of the same
machine. Where the file system is shared between machines, or knows no such locks, the
owner gives a sign of life every ten seconds: it sets the time of the file, by the clock of
the file system itself, so that the clocks of two machines need not agree.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from fractal_mesospim_shading.engine.process import DEAD_SECONDS, Holder, seems_dead
from fractal_mesospim_shading.errors import JobLockedError, OutputWriteError
from fractal_mesospim_shading.images.storage import local_files, places
from fractal_mesospim_shading.images.storage.local_files import open_own
from fractal_mesospim_shading.images.storage.places import StorageOptions, connection_errors

BEAT_SECONDS = 10.0
"""Between two signs of life."""


_RACE_SECONDS = 0.2
"""Where no lock of the system helps: after so long the last of several that came at once has
written its name."""

_DYING_SECONDS = 0.1
"""A process that was killed needs a moment until the system has closed its files."""

_TRIES = 50


class Place(Protocol):
    """Where a lock lies."""

    def take(self) -> bool | None:
        """Take the system's lock: False: another has it; None: there is none here."""

    def read(self) -> bytes | None:
        """The content, None where there is no lock."""

    def write(self, content: bytes) -> None:
        """Put a content there."""

    def touch(self, content: bytes) -> None:
        """Give a sign of life."""

    def age(self) -> float | None:
        """Seconds since the last sign of life, by the clock of the storage."""

    def one_machine(self) -> bool:
        """Whether no other machine can see it."""

    def let_go(self) -> None:
        """Give back the system's lock, and leave the file."""

    def remove(self) -> None:
        """Remove the lock, which is ours, and give back the system's."""


class JobLock:
    """Keeps a second run off the same output, from `acquire` to `release`.

    Args:
        url: of the lock.
        options: of a remote address.

    Attributes:
        lost: whether another run was seen to have taken it over.
    """

    def __init__(self, url: str, options: StorageOptions = None) -> None:
        self._url = url
        self._place: Place = LocalPlace(url) if places.is_local(url) else RemotePlace(url, options)
        self._content = b""
        self._beating: threading.Event | None = None
        self._seen = 0.0
        self.lost = False

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            JobLockedError: a run that lives, or may live, holds it. The message says how long
                it takes until a dead one is known to be dead.
            OSError: the folder cannot be written.
        """
        for _ in range(_TRIES):
            system_lock = self._place.take()
            if system_lock is False and self._is_dying():
                self._place.let_go()
                time.sleep(_DYING_SECONDS)
                continue
            try:
                self._refuse_living(system_lock)
                me = Holder.me(uuid.uuid4().hex)
                self._content = replace(me, system_lock=system_lock is True).to_bytes()
                self._place.write(self._content)
                if not system_lock:
                    time.sleep(_RACE_SECONDS)
                # Not so where the lock was removed meanwhile, by the run that gave it back.
                taken = self._place.read() == self._content
            except BaseException:
                self._place.let_go()
                raise
            if taken:
                self._start_beating()
                return
            self._place.let_go()
        raise JobLockedError(f"The lock {self._url} could not be taken; try again.")

    def _is_dying(self) -> bool:
        """Whether the holder was killed, and its files are about to be closed."""
        holder = Holder.parse(self._place.read())
        return holder is not None and holder.is_neighbour and not holder.runs

    def _refuse_living(self, system_lock: bool | None) -> None:
        holder = Holder.parse(self._place.read())
        if holder is None and system_lock is not False:
            return
        age = self._place.age()
        if system_lock is not False and holder is not None:
            one_machine = self._place.one_machine()
            if seems_dead(holder, age, system_lock=system_lock, one_machine=one_machine):
                return
        who = "Another run" if holder is None else f"Another run, {holder.describe()},"
        text = f"{who} is writing this output"
        if system_lock is False or (holder is not None and holder.is_neighbour):
            raise JobLockedError(
                f"{text}. Wait for it, or stop it and run the same command again: it will be "
                "continued."
            )
        if age is None:
            raise JobLockedError(
                f"{text}. Wait for it. If it is dead, remove {self._url} and run the same "
                "command again."
            )
        raise JobLockedError(
            f"{text}: its last sign of life is {age:.0f} s old. Wait for it. If it is dead, the "
            f"same command goes on from {max(1.0, DEAD_SECONDS - age):.0f} s from now; if you "
            f"know that it is, remove {self._url} instead."
        )

    def check(self) -> None:
        """Look whether the lock is still ours.

        Raises:
            JobLockedError: another run has it, or it cannot be known any more.
        """
        if not self.lost and self._is_ours():
            return
        self.lost = True
        raise JobLockedError(
            f"This run no longer holds {self._url}: another run has taken it over, after this one "
            f"gave no sign of life for {DEAD_SECONDS:.0f} s, or somebody has removed it. It stops "
            "here, and leaves the output to the other."
        )

    def _is_ours(self) -> bool:
        try:
            ours = self._place.read() == self._content
        except connection_errors():
            # Nobody takes over what gave a sign of life a moment ago.
            return time.monotonic() - self._seen < DEAD_SECONDS / 2
        self._seen = time.monotonic()
        return ours

    def release(self) -> None:
        """Give the lock back; one that another run has taken over stays with it."""
        if self._beating is not None:
            self._beating.set()
        try:
            with suppress(OSError):
                if not self.lost and self._place.read() == self._content:
                    self._place.remove()
        finally:
            self._place.let_go()

    def _start_beating(self) -> None:
        self._seen = time.monotonic()
        self._beating = stop = threading.Event()
        beat: Callable[[], bool] = self._beat

        def go_on() -> None:
            while not stop.wait(BEAT_SECONDS) and beat():
                pass

        threading.Thread(target=go_on, name="sign of life", daemon=True).start()

    def _beat(self) -> bool:
        """Give a sign of life; False where the lock is no longer ours."""
        with suppress(*connection_errors()):
            # A network that is gone for a moment: the next time will do.
            if self._place.read() != self._content:
                self.lost = True
                return False
            self._place.touch(self._content)
            self._seen = time.monotonic()
        return True


class LocalPlace:
    """A lock on a file system of this machine, or on a network file system."""

    def __init__(self, url: str) -> None:
        self._path = places.local_path(url)
        self._descriptor: int | None = None

    def take(self) -> bool | None:
        for _ in range(_TRIES):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A run that ends at this moment may remove the folder: once more.
            with suppress(FileNotFoundError):
                self._descriptor = open_own(self._path, os.O_RDWR | os.O_CREAT)
                break
        if self._descriptor is None:
            raise OutputWriteError(f"The lock {self._path} cannot be made: its folder vanishes.")
        return _system_lock(self._descriptor)

    def read(self) -> bytes | None:
        # By its name: what is open may have been removed.
        return places.read_bytes(str(self._path))

    def write(self, content: bytes) -> None:
        if self._descriptor is None:
            raise RuntimeError("a lock is written before it is taken; please report this")
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, content)
        # Of no use after a power cut, but on network file systems now seen by others.
        os.fsync(self._descriptor)

    def touch(self, content: bytes) -> None:
        os.utime(self._path)

    def age(self) -> float | None:
        probe = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with open(probe, "xb", buffering=0) as file:
                file.write(b"now")
                now = os.fstat(file.fileno()).st_mtime
        finally:
            probe.unlink(missing_ok=True)
        try:
            return max(0.0, now - self._path.stat().st_mtime)
        except FileNotFoundError:
            return None

    def one_machine(self) -> bool:
        return local_files.file_system(self._path.parent) in local_files.LOCAL

    def let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        if self._descriptor is not None:
            # Whoever has it open already sees that it was given back.
            os.ftruncate(self._descriptor, 0)
        try:
            self._path.unlink(missing_ok=True)
        except PermissionError:
            # Windows: not while it is open.
            self.let_go()
            self._path.unlink(missing_ok=True)
        self.let_go()


class RemotePlace:
    """A lock on an object store, which has no locks of its own: best effort."""

    def __init__(self, url: str, options: StorageOptions) -> None:
        self._url = url
        self._options = options

    def take(self) -> bool | None:
        return None

    def read(self) -> bytes | None:
        return places.read_bytes(self._url, self._options)

    def write(self, content: bytes) -> None:
        places.write_bytes(self._url, content, self._options)

    def touch(self, content: bytes) -> None:
        self.write(content)

    def age(self) -> float | None:
        probe = f"{self._url}.{uuid.uuid4().hex[:8]}"
        places.write_bytes(probe, b"now", self._options)
        try:
            now = places.modified(probe, self._options)
            last = places.modified(self._url, self._options)
        finally:
            places.remove(probe, self._options)
        return None if now is None or last is None else max(0.0, now - last)

    def one_machine(self) -> bool:
        # Of a file system in the memory of this process.
        return self._url.startswith("memory://")

    def let_go(self) -> None:
        pass

    def remove(self) -> None:
        places.remove(self._url, self._options)


def _system_lock(descriptor: int) -> bool | None:
    """Lock an open file; False where another has done so, None where that is not known here."""
    try:
        import fcntl
    except ImportError:
        return _windows_lock(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _windows_lock(descriptor: int) -> bool | None:
    try:
        import msvcrt
    except ImportError:
        return None
    # A byte far beyond the content, which others shall be able to read.
    os.lseek(descriptor, 2**30, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except PermissionError:
        return False
    except OSError:
        return None
    return True
