from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fractal_mesospim_shading.engine import job_folder, records
from fractal_mesospim_shading.engine.earlier import settle
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.job_folder import job_url, unfinished_url
from fractal_mesospim_shading.engine.records import Journal, differences
from fractal_mesospim_shading.errors import (
    ImageNotFoundError,
    JobLockedError,
    JobMismatchError,
    OutputExistsError,
    OutputWriteError,
)
from fractal_mesospim_shading.images.storage import local_files, places


@pytest.fixture
def final(tmp_path):
    return str(tmp_path / "out.zarr")


def _begin(final, request=None, **more):
    job = Job(final, request or {"a": 1}).start(**{"restart": False, **more})
    os.makedirs(job.unfinished_url, exist_ok=True)
    return job


def _broken(final, request=None, nodes=("0/0",)):
    """A job that stopped after some blocks."""
    with pytest.raises(ZeroDivisionError), _begin(final, request) as job:
        for node in nodes:
            job.record({"node": node})
        raise ZeroDivisionError


def test_addresses(final, tmp_path):
    assert job_url(final) == str(tmp_path / ".out.zarr.job")
    assert unfinished_url(final) == str(tmp_path / ".out.zarr.job" / "image")
    assert unfinished_url("memory://bucket/out.zarr") == "memory://bucket/out.zarr"


def test_a_finished_job_leaves_its_image_and_nothing_else(final, tmp_path):
    with _begin(final) as job:
        job.remember("0.npz", b"profile")
        job.record({"node": "0/0"})
        assert job.recall("0.npz") == b"profile"
        assert job.recall("1.npz") is None
        assert job.finish() == final
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_a_job_goes_on_where_it_stopped(final):
    _broken(final, nodes=("0/0", "0/1"))
    with _begin(final) as job:
        assert job.continued
        assert job.done == {"0/0", "0/1"}
        job.finish()


def test_nothing_done_leaves_nothing(final, tmp_path):
    _broken(final, nodes=())
    assert os.listdir(tmp_path) == []


def test_restart_drops_it(final):
    _broken(final)
    with _begin(final, restart=True) as job:
        assert not job.continued
        assert job.done == set()
        job.finish()


def test_another_request_is_refused(final):
    _broken(final, {"parameters": {"seed": 1, "offset": None}, "task": "x"})
    with pytest.raises(JobMismatchError, match=r"\n *`?seed`?: unfinished job 1, now 2"):
        _begin(final, {"parameters": {"seed": 2, "offset": None}, "task": "x"})
    # The refusal has let go of the lock.
    _begin(final, {"parameters": {"seed": 1, "offset": None}, "task": "x"}).__exit__(
        ValueError, None, None
    )


def test_differences():
    assert differences({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [2]}, "d": 3}) == [
        "b.c: unfinished job [1], now [2]",
        "d: unfinished job null, now 3",
    ]
    assert len(differences("x" * 500, "y")[0]) < 200
    # Parameters are options, which each door names in its own words.
    assert differences(
        {"parameters": {"seed": 1, "method": {"radius": 3}}},
        {"parameters": {"seed": 2, "method": {"radius": 4}}},
    ) == [
        "'radius' of `method`: unfinished job 3, now 4",
        "`seed`: unfinished job 1, now 2",
    ]


def test_something_that_appeared_meanwhile_is_not_replaced(final, tmp_path):
    with pytest.raises(OutputExistsError, match="has appeared"), _begin(final) as job:
        job.record({"node": "0/0"})
        os.mkdir(final)
        job.finish()
    os.rmdir(final)
    with _begin(final) as job:
        assert job.continued
        job.finish()
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_an_earlier_result_is_replaced_whole(final, tmp_path):
    os.mkdir(final)
    (tmp_path / "out.zarr" / "old").write_text("")
    with _begin(final) as job:
        (tmp_path / ".out.zarr.job" / "image" / "new").write_text("")
        job.finish(overwrite=True)
    assert os.listdir(tmp_path) == ["out.zarr"]
    assert os.listdir(final) == ["new"]


def test_what_an_earlier_version_left_is_named_and_not_touched(final, tmp_path, caplog):
    caplog.set_level("INFO")
    hidden = tmp_path / ".out.zarr.12345678.replaced"
    hidden.mkdir()
    with pytest.raises(ImageNotFoundError, match=r"\.out\.zarr\.12345678\.replaced.*half removed"):
        settle(final)
    # Nor is it taken for what has a similar name.
    assert settle(str(tmp_path / "out")) is None
    assert os.listdir(tmp_path) == [hidden.name]
    os.mkdir(final)
    assert settle(final) is None
    assert [r.levelname for r in caplog.records if hidden.name in r.getMessage()] == ["INFO"]
    assert hidden.exists()


def test_a_job_without_a_finished_block_stands_in_nobodys_way(final, tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(ZeroDivisionError), _begin(final, {"seed": 1}) as job:
        job.remember("0.npz", b"estimated")
        raise ZeroDivisionError
    assert os.path.exists(job.url)
    with _begin(final, {"seed": 2}) as job:
        assert not job.continued
        assert job.recall("0.npz") is None
        job.finish()
    assert "had finished no block" in caplog.text
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_a_link_in_place_of_the_folder_is_not_followed(final, tmp_path):
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "request.json").write_text("{}")
    (victim / "sub" / "precious").write_text("x")
    Path(job_url(final)).symlink_to(victim)
    for restart in (False, True):
        with pytest.raises(OutputWriteError, match="is a link"):
            _begin(final, restart=restart)
    assert sorted(os.listdir(victim)) == ["request.json", "sub"]
    os.unlink(job_url(final))
    Path(job_url(final)).write_text("a file")
    with pytest.raises(OutputWriteError, match="is no folder"):
        _begin(final)


@pytest.mark.parametrize("name", ["precious.txt", "image", "journal", "replaced", "profiles"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_without_a_record_is_not_ours(final, name, restart):
    folder = Path(job_url(final))
    (folder / name).mkdir(parents=True)
    (folder / name / "precious").write_text("x")
    with pytest.raises(OutputWriteError, match=f"no record of a job.*{name}"):
        _begin(final, restart=restart)
    assert (folder / name / "precious").read_text() == "x"
    assert os.listdir(folder) == [name]


def test_a_record_that_cannot_be_read_is_not_ours(final):
    _broken(final)
    (Path(job_url(final)) / "request.json").write_text("not JSON")
    with pytest.raises(OutputWriteError, match=r"request\.json.*cannot be understood"):
        _begin(final, restart=True)
    assert (Path(job_url(final)) / "journal").exists()
    (Path(job_url(final)) / "finish.json").write_text('{"moves": [{"made": "image"}]}')
    with pytest.raises(OutputWriteError, match=r"finish\.json cannot be understood"):
        _begin(final)


@pytest.mark.parametrize("place", ["../victim", "..", "victim/precious", ""])
def test_a_record_that_leads_elsewhere_is_not_ours(final, tmp_path, place):
    _broken(final)
    (tmp_path / "victim").mkdir()
    moves = [{"made": "image", "place": place, "replace": True}]
    (Path(job_url(final)) / "finish.json").write_text(json.dumps({"request": {}, "moves": moves}))
    with pytest.raises(OutputWriteError, match="other folders"):
        _begin(final)
    assert (tmp_path / "victim").exists()


@pytest.mark.parametrize("name", ["image", "journal", "profiles", "image/0", "request.json"])
def test_links_within_the_folder_are_not_followed(final, tmp_path, name):
    _broken(final)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious").write_text("{}")
    path = Path(job_url(final)) / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path / "victim" / ("precious" if "json" in name else ""))
    with pytest.raises(OutputWriteError, match="link"):
        _begin(final)
    assert (tmp_path / "victim" / "precious").read_text() == "{}"
    assert os.listdir(tmp_path / "victim") == ["precious"]


def test_what_is_not_the_jobs_own_stays_and_is_named(final, tmp_path, caplog):
    with _begin(final) as job:
        (Path(job.url) / "notes.txt").write_text("mine")
        (Path(job.url) / "lock.0123abcd").write_text("of a run that was killed")
        job.finish()
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        f"{job.url} stays, for it holds what this job has not made: notes.txt. Move it away."
    ]
    assert os.listdir(job.url) == ["notes.txt"]
    with pytest.raises(OutputWriteError, match="no record.*notes.txt"):
        _begin(final)


def test_what_cannot_be_removed_does_not_fail_the_run(final, tmp_path, caplog, monkeypatch):
    os.mkdir(final)
    remove = places.remove

    def refused(url, options=None):
        if url.endswith("replaced"):
            raise PermissionError(13, "Permission denied", url)
        remove(url, options)

    monkeypatch.setattr(places, "remove", refused)
    with _begin(final) as job:
        (Path(job.unfinished_url) / "new").write_text("")
        job.finish(overwrite=True)
    assert os.listdir(final) == ["new"]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "The result is complete" in warning
    assert job.url in warning
    monkeypatch.undo()
    with Job(final, {"a": 1}).start(restart=False) as again:
        assert again.finished
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_a_run_that_was_taken_over_touches_nothing(final, tmp_path, tree):
    os.mkdir(final)
    with pytest.raises(JobLockedError, match="no longer holds"), _begin(final) as job:
        job.record({"node": "0/0"})
        (Path(job.url) / "lock").write_text('{"host": "node17", "pid": 1}')
        before = tree(tmp_path)
        job.finish(overwrite=True)
    assert tree(tmp_path) == before
    # Nor does it write into the journal of the other.
    with pytest.raises(JobLockedError):
        job.record({"node": "0/1"})
    assert tree(tmp_path) == before


def test_another_command_after_a_job_that_was_stopped_at_its_end(final, tmp_path):
    _stopped_at_its_end(final, {"seed": 1})
    with pytest.raises(OutputExistsError, match=r"complete.*\n *seed: unfinished job 1, now 2"):
        _begin(final, {"seed": 2})
    assert os.listdir(tmp_path) == ["out.zarr"]
    shutil.rmtree(final)
    _stopped_at_its_end(final, {"seed": 1})
    with _begin(final, {"seed": 2}, overwrite=True) as job:
        assert not job.finished
        (Path(job.unfinished_url) / "second").write_text("")
        job.finish(overwrite=True)
    assert os.listdir(tmp_path) == ["out.zarr"]
    assert os.listdir(final) == ["second"]


def _stopped_at_its_end(final, request):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(job_folder, "place_local", lambda *_: 1 / 0)
        with _begin(final, request) as job:
            job.finish()


def test_the_steps_of_the_end_wait_for_the_device(final, tmp_path, monkeypatch):
    """Image on the device, record, renaming, folders, and only then is anything removed."""
    os.mkdir(final)
    steps = []

    def noted(owner, name, show):
        function = getattr(owner, name)

        def call(*arguments, **named):
            steps.append((name, show(*arguments)))
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    def short(path, *_):
        return os.path.relpath(path, tmp_path)

    with _begin(final) as job:
        (Path(job.unfinished_url) / ".zgroup").write_text("{}")
        noted(local_files, "sync_tree", short)
        job.sync()
        for owner, name in (
            (local_files, "sync_groups"),
            (local_files, "sync_folder"),
            (os, "rename"),
        ):
            noted(owner, name, short)
        noted(shutil, "rmtree", short)
        noted(os, "replace", lambda _, target: short(target))
        job.finish(overwrite=True)
    folder = ".out.zarr.job"
    assert steps[:9] == [
        ("sync_tree", folder),
        ("sync_groups", f"{folder}/image"),
        ("replace", f"{folder}/finish.json"),
        ("sync_folder", folder),
        ("rename", "out.zarr"),
        ("rename", f"{folder}/image"),
        ("sync_folder", "."),
        ("sync_folder", folder),
        ("replace", f"{folder}/finish.json"),
    ]
    assert ("rmtree", f"{folder}/replaced") in steps[9:]


def test_a_durable_journal_waits_for_its_blocks(final, monkeypatch):
    steps = []
    monkeypatch.setattr(local_files, "sync_machine", lambda path: steps.append("device") or True)
    monkeypatch.setattr(local_files, "file_system", lambda path: "ext4")
    monkeypatch.setattr(records, "_TOGETHER", 3)
    job = Job(final, {"a": 1}, durable=True)
    add = Journal.add
    monkeypatch.setattr(Journal, "add", lambda own, r: (steps.append(r["node"]), add(own, r)))
    with job.start(restart=False):
        os.makedirs(job.unfinished_url)
        job.syncs_elsewhere(lambda: steps.append("elsewhere"))
        for number in range(4):
            job.record({"node": str(number)})
        assert steps == ["elsewhere", "device", "0", "1", "2"]
        assert job.done == {"0", "1", "2", "3"}
        job.finish()
    assert steps[5:8] == ["elsewhere", "device", "3"]


def test_a_durable_journal_where_each_file_has_to_be_synced(final, monkeypatch, tmp_path):
    synced = []
    monkeypatch.setattr(local_files, "file_system", lambda path: "fuse.sshfs")
    monkeypatch.setattr(local_files, "sync_files", lambda paths: synced.extend(paths) or [])
    with Job(final, {"a": 1}, durable=True).start(restart=False) as job:
        os.makedirs(job.unfinished_url)
        job.record({"node": "0"}, ["a/chunk", "a"])
        job.record({"node": "1"}, ["b/chunk"])
        assert synced == []
        job.sync()
        assert synced[:3] == ["a/chunk", "a", "b/chunk"]
        assert Journal(f"{job.url}/journal").read() == [{"node": "0"}, {"node": "1"}]
        job.finish()


def test_a_file_system_that_cannot_sync_folders_is_named_once(final, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(local_files, "sync_folder", lambda path: False)
    with _begin(final) as job:
        job.sync()
        job.finish()
    lines = [r for r in caplog.records if "cannot sync folders" in r.getMessage()]
    assert [r.levelname for r in lines] == ["INFO"]
