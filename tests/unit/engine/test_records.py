from __future__ import annotations

import json
import os

import pytest

from fractal_mesospim_shading.engine.records import Journal
from fractal_mesospim_shading.errors import OutputWriteError

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


def test_a_durable_journal_is_on_the_device_when_a_record_counts(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda d: (synced.append(os.readlink(f"/proc/self/fd/{d}")), fsync(d))
    )
    url = str(tmp_path / "journal")
    Journal(url).add(RECORDS[0])
    assert synced == []
    Journal(url, durable=True).add(RECORDS[1])
    assert synced == [str(tmp_path / "journal" / "blocks.jsonl")]
    (tmp_path / "journal" / "blocks.jsonl").unlink()
    Journal(url, durable=True).add(RECORDS[1])
    # Its name as well.
    assert synced[1:] == [str(tmp_path / "journal" / "blocks.jsonl"), str(tmp_path / "journal")]


def test_a_link_in_place_of_the_journal_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_bytes(b"x")
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "blocks.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputWriteError, match="link"):
        Journal(str(tmp_path / "journal")).add(RECORDS[0])
    assert (tmp_path / "precious").read_bytes() == b"x"
