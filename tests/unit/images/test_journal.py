from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from fractal_mesospim_shading.errors import JobLockedError, OutputWriteError
from fractal_mesospim_shading.images.journal import JobLock, Journal

RECORDS = [{"node": f"0/{i}", "channels": {"0": {"counts": [i]}}} for i in range(5)]


def test_records_come_back_in_order(tmp_path):
    journal = Journal(str(tmp_path / "journal"))
    assert journal.read() == []
    for record in RECORDS:
        journal.add(record)
        assert Journal(str(tmp_path / "journal")).read()[-1] == record
    assert Journal(str(tmp_path / "journal")).read() == RECORDS


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_dropped_and_the_next_one_is_whole(tmp_path, cut):
    url = str(tmp_path / "journal")
    for record in RECORDS[:3]:
        Journal(url).add(record)
    path = tmp_path / "journal" / "blocks.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(url)
    assert again.read() == RECORDS[:2]
    again.add(RECORDS[4])
    assert Journal(url).read() == [*RECORDS[:2], RECORDS[4]]


def test_what_a_crash_of_the_machine_left_counts_as_nothing(tmp_path):
    url = str(tmp_path / "journal")
    Journal(url).add(RECORDS[0])
    with open(tmp_path / "journal" / "blocks.jsonl", "ab") as file:
        file.write(b"\0" * 40 + b"\n" + json.dumps(RECORDS[1]).encode() + b"\n")
    assert Journal(url).read() == RECORDS[:1]


def test_a_full_disk_leaves_no_half_record(tmp_path, monkeypatch):
    url = str(tmp_path / "journal")
    Journal(url).add(RECORDS[0])
    before = (tmp_path / "journal" / "blocks.jsonl").read_bytes()
    resource = pytest.importorskip("resource")
    import signal

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    journal = Journal(url)
    try:
        with pytest.raises(OutputWriteError, match="journal"):
            journal.add(RECORDS[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert (tmp_path / "journal" / "blocks.jsonl").read_bytes() == before
    journal.flush()
    journal.add(RECORDS[2])
    assert Journal(url).read() == [RECORDS[0], RECORDS[2]]


def test_remote_journals_are_written_in_parts(tmp_path):
    url = f"memory://{tmp_path.name}/journal"
    journal = Journal(url, batch=2)
    for record in RECORDS:
        journal.add(record)
    assert Journal(url).read() == RECORDS[:4]
    journal.flush()
    again = Journal(url, batch=2)
    assert again.read() == RECORDS
    again.add({"node": "1/0"})
    again.flush()
    assert [record["node"] for record in Journal(url).read()][-2:] == ["0/4", "1/0"]


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
    code = (
        "import sys, time; from fractal_mesospim_shading.images.journal import JobLock;"
        f"JobLock({url!r}).acquire(); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
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
