"""Who holds a lock, and whether it lives: processes, containers, machines, storages."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from fractal_mesospim_shading.engine import locks, process
from fractal_mesospim_shading.engine.locks import JobLock, LocalPlace
from fractal_mesospim_shading.engine.process import Holder, seems_dead
from fractal_mesospim_shading.errors import JobLockedError, OutputWriteError, SourceReadError
from fractal_mesospim_shading.images.storage import places

HOLD = (
    "import sys, time; from fractal_mesospim_shading.engine.locks import JobLock;"
    "JobLock(sys.argv[1]).acquire(); print('held', flush=True); time.sleep(60)"
)


@pytest.fixture(params=["local", "remote"])
def lock_url(request, tmp_path):
    base = str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
    return f"{base}/job/lock"


def test_a_second_run_is_refused_until_the_first_lets_go(lock_url):
    first, second = JobLock(lock_url), JobLock(lock_url)
    first.acquire()
    with pytest.raises(JobLockedError, match=f"process {os.getpid()} on this machine"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    url = str(tmp_path / "job" / "lock")
    child = subprocess.Popen([sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(JobLockedError, match=f"process {child.pid} on this machine"):
        JobLock(url).acquire()
    child.kill()
    # A zombie, not yet waited for, writes no more.
    JobLock(url).acquire() if _is_zombie(child.pid) else child.wait()
    child.wait()
    child.stdout.close()
    if not os.path.exists(url) or json.loads(open(url).read())["pid"] == child.pid:
        JobLock(url).acquire()
    assert json.loads(open(url).read())["pid"] == os.getpid()
    assert os.listdir(tmp_path / "job") == ["lock"]


def _is_zombie(pid: int) -> bool:
    for _ in range(1000):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return False
    return False


def test_a_number_used_again_by_another_process_does_not_block(tmp_path):
    path = tmp_path / "lock"
    lock = {"host": socket.gethostname(), "pid": os.getpid(), "started": "another time"}
    path.write_text(json.dumps(lock))
    JobLock(str(path)).acquire()
    assert json.loads(path.read_text())["started"] != "another time"


def test_another_machine_blocks_and_the_error_says_how_to_go_on(tmp_path):
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "node17", "pid": 1, "started": "x"}))
    with pytest.raises(JobLockedError, match=rf"on node17.*remove {path}"):
        JobLock(str(path)).acquire()
    assert path.exists()


def test_one_of_many_takes_a_dead_lock(tmp_path):
    path = tmp_path / "lock"
    for _ in range(20):
        path.write_text(
            json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "started": "x"})
        )
        barrier, taken = threading.Barrier(8), []

        def take(barrier=barrier, taken=taken):
            barrier.wait()
            try:
                JobLock(str(path)).acquire()
            except JobLockedError:
                return
            taken.append(1)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        assert os.listdir(tmp_path) == ["lock"]
        path.unlink()


def test_a_live_run_in_another_container_of_the_same_name(tmp_path):
    """Its number means another process here, or none: the lock of the system tells."""
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"]).returncode:
        pytest.skip("no other space of processes can be made here")
    url = str(tmp_path / "job" / "lock")
    command = [*apart, sys.executable, "-c", HOLD, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            held = json.loads(open(url).read())
            assert held["host"] == socket.gethostname()
            assert held["processes"] != os.readlink("/proc/self/ns/pid")
            with pytest.raises(JobLockedError, match="on this machine, in another container"):
                JobLock(url).acquire()
        finally:
            child.kill()
    # And dead, it is known to be dead at once.
    end = time.monotonic() + 20
    while True:
        try:
            lock = JobLock(url)
            lock.acquire()
            break
        except JobLockedError:
            assert time.monotonic() < end
            time.sleep(0.05)
    lock.release()
    assert os.listdir(tmp_path / "job") == []


def _elsewhere(**more) -> Holder:
    """A run on another machine."""
    me = asdict(Holder.me("token of another"))
    return Holder(**{**me, "host": "node17", "machine": "another kernel", **more})


@pytest.fixture
def shared(monkeypatch):
    """A file system that other machines see as well."""
    monkeypatch.setattr(LocalPlace, "one_machine", lambda place: False)


def test_another_machine_is_dead_after_two_minutes_without_a_sign_of_life(tmp_path, shared):
    path = tmp_path / "lock"
    path.write_bytes(_elsewhere(system_lock=True).to_bytes())
    now = path.stat().st_mtime
    os.utime(path, (now, now - 90))
    with pytest.raises(JobLockedError, match=r"on node17, .* 90 s old.* from 30 s from now"):
        JobLock(str(path)).acquire()
    os.utime(path, (now, now - 121))
    lock = JobLock(str(path))
    lock.acquire()
    assert json.loads(path.read_text())["host"] == socket.gethostname()
    lock.release()
    assert os.listdir(tmp_path) == []


def test_the_clock_of_this_machine_does_not_matter(tmp_path, shared, monkeypatch):
    path = tmp_path / "lock"
    path.write_bytes(_elsewhere().to_bytes())
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with pytest.raises(JobLockedError, match="0 s old"):
        JobLock(str(path)).acquire()


def test_a_machine_that_was_started_anew(tmp_path):
    """On a disk of its own there is nobody else; the lock of before is taken over at once."""
    path = tmp_path / "lock"
    path.write_bytes(_elsewhere(host=socket.gethostname(), system_lock=True).to_bytes())
    lock = JobLock(str(path))
    lock.acquire()
    lock.release()


MANY = {"age": 10.0, "system_lock": True, "one_machine": True}


@pytest.mark.parametrize(
    ("holder", "known", "dead"),
    [
        (_elsewhere(system_lock=True), {}, True),
        (_elsewhere(system_lock=False), {}, False),
        (_elsewhere(system_lock=True), {"one_machine": False}, False),
        (_elsewhere(system_lock=True), {"one_machine": False, "age": 130.0}, True),
        (_elsewhere(system_lock=True), {"one_machine": False, "age": None}, False),
        (_elsewhere(system_lock=True), {"system_lock": None}, False),
        (_elsewhere(machine=process._machine(), processes="pid:[1]"), {"system_lock": None}, False),
        (
            _elsewhere(machine=process._machine(), processes="pid:[1]", system_lock=True),
            {"one_machine": False},
            True,
        ),
        (Holder.me("x"), {"system_lock": None, "age": 999.0}, False),
        (Holder.me("x"), {"system_lock": True, "age": 999.0}, False),
    ],
)
def test_who_is_dead(holder, known, dead):
    assert seems_dead(holder, **{**MANY, **known}) is dead


@pytest.fixture
def quick_signs(monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)


def test_signs_of_life(lock_url, quick_signs, monkeypatch):
    monkeypatch.setattr(locks, "_RACE_SECONDS", 0.0)
    lock = JobLock(lock_url)
    lock.acquire()

    def last() -> float | None:
        if places.is_local(lock_url):
            return os.stat(lock_url).st_mtime
        return places.modified(lock_url)

    first = last()
    end = time.monotonic() + 30
    while last() == first:
        assert time.monotonic() < end
        time.sleep(0.01)
    lock.check()
    lock.release()
    assert not places.exists(lock_url)
    time.sleep(0.1)
    assert not places.exists(lock_url)


@pytest.mark.parametrize("how", ["taken over", "removed"])
def test_an_owner_that_lost_its_lock_stops_and_leaves_it_alone(lock_url, how, monkeypatch):
    monkeypatch.setattr(locks, "_RACE_SECONDS", 0.0)
    lock = JobLock(lock_url)
    lock.acquire()
    other = _elsewhere().to_bytes()
    if how == "taken over":
        places.write_bytes(lock_url, other)
    else:
        places.remove(lock_url)
    with pytest.raises(JobLockedError, match="no longer holds"):
        lock.check()
    assert lock.lost
    lock.release()
    assert places.read_bytes(lock_url) == (other if how == "taken over" else None)


def test_the_sign_of_life_of_a_lost_lock_is_not_given(tmp_path, quick_signs):
    path = tmp_path / "lock"
    lock = JobLock(str(path))
    lock.acquire()
    path.write_bytes(_elsewhere().to_bytes())
    end = time.monotonic() + 30
    while not lock.lost:
        assert time.monotonic() < end
        time.sleep(0.01)
    before = path.stat().st_mtime_ns
    time.sleep(0.1)
    assert path.stat().st_mtime_ns == before
    lock.release()


def _no_system_locks(monkeypatch, how):
    if how == "no fcntl":
        monkeypatch.setitem(sys.modules, "fcntl", None)
        monkeypatch.setitem(sys.modules, "msvcrt", None)
    else:
        import fcntl

        def refused(*_):
            raise OSError(errno.ENOTSUP, "Operation not supported")

        monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.parametrize("how", ["no fcntl", "not supported"])
def test_without_locks_of_the_system(tmp_path, how, monkeypatch):
    _no_system_locks(monkeypatch, how)
    path = tmp_path / "lock"
    lock = JobLock(str(path))
    lock.acquire()
    assert json.loads(path.read_text())["system_lock"] is False
    with pytest.raises(JobLockedError, match=f"process {os.getpid()} on this machine"):
        JobLock(str(path)).acquire()
    lock.release()
    path.write_bytes(Holder.me("x").to_bytes().replace(str(os.getpid()).encode(), b"4194305"))
    again = JobLock(str(path))
    again.acquire()
    again.release()
    assert os.listdir(tmp_path) == []


def test_of_several_at_once_without_locks_of_the_system_one_goes_on(tmp_path, monkeypatch):
    _no_system_locks(monkeypatch, "not supported")
    path, taken = tmp_path / "lock", []
    barrier = threading.Barrier(6)

    def take():
        lock = JobLock(str(path))
        barrier.wait()
        try:
            lock.acquire()
            # Before its first batch.
            lock.check()
        except JobLockedError:
            return
        taken.append(lock)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) <= 1


class Msvcrt:
    """As Windows locks a range of bytes."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.other = False

    def locking(self, descriptor: int, mode: int, length: int) -> None:
        assert (mode, length) == (2, 1)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) > 2**20
        if self.other:
            raise PermissionError(errno.EACCES, "Permission denied")
        self.held.add(descriptor)


def test_windows(tmp_path, monkeypatch):
    fake = Msvcrt()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    path = tmp_path / "lock"
    lock = JobLock(str(path))
    lock.acquire()
    assert json.loads(path.read_text())["system_lock"] is True
    fake.other = True
    with pytest.raises(JobLockedError, match="on this machine"):
        JobLock(str(path)).acquire()
    unlink = os.unlink

    def not_while_open(name, **more):
        if lock._place._descriptor is not None:
            raise PermissionError(errno.EACCES, "The file is used by another process")
        unlink(name, **more)

    monkeypatch.setattr(os, "unlink", not_while_open)
    lock.release()
    assert os.listdir(tmp_path) == []


def test_no_hard_links_are_needed(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EPERM, "exFAT and SMB have none")

    monkeypatch.setattr(os, "link", refused)
    lock = JobLock(str(tmp_path / "lock"))
    lock.acquire()
    lock.release()


def test_a_link_or_a_pipe_in_the_place_of_the_lock(tmp_path):
    (tmp_path / "precious").write_bytes(b"x")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputWriteError, match="link"):
        JobLock(str(tmp_path / "lock")).acquire()
    assert (tmp_path / "precious").read_bytes() == b"x"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceReadError, match="pipe"):
        JobLock(str(tmp_path / "pipe")).acquire()


def test_a_lock_that_was_never_written(tmp_path, shared):
    """Killed, or cut off by a power cut, while it was taken."""
    (tmp_path / "lock").write_bytes(b"")
    lock = JobLock(str(tmp_path / "lock"))
    lock.acquire()
    lock.release()
    (tmp_path / "lock").write_bytes(b"\0\0\0")
    lock = JobLock(str(tmp_path / "lock"))
    lock.acquire()
    lock.release()


def test_a_remote_run_is_dead_after_two_minutes(tmp_path, monkeypatch):
    from datetime import timedelta

    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(locks.RemotePlace, "one_machine", lambda place: False)
    url = f"memory://{tmp_path.name}/lock"
    places.write_bytes(url, _elsewhere().to_bytes())
    file = MemoryFileSystem.store[f"/{tmp_path.name}/lock"]
    with pytest.raises(JobLockedError, match="on node17"):
        JobLock(url).acquire()
    file.modified -= timedelta(seconds=60)
    with pytest.raises(JobLockedError, match=r"goes on from (60|59) s from now"):
        JobLock(url).acquire()
    file.modified -= timedelta(seconds=61)
    lock = JobLock(url)
    lock.acquire()
    lock.check()
    lock.release()
    assert places.list_names(f"memory://{tmp_path.name}") == []
