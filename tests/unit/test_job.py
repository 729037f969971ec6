from __future__ import annotations

import os

import pytest

from fractal_mesospim_shading.errors import JobMismatchError, OutputExistsError
from fractal_mesospim_shading.job import Job, differences, image_url, job_url, restore_replaced


@pytest.fixture
def final(tmp_path):
    return str(tmp_path / "out.zarr")


def _begin(final, request=None, **more):
    job = Job(final, request or {"a": 1}).start(restart=more.pop("restart", False))
    os.makedirs(job.image_url, exist_ok=True)
    return job


def _broken(final, request=None, nodes=("0/0",)):
    """A job that stopped after some blocks."""
    with pytest.raises(ZeroDivisionError), _begin(final, request) as job:
        for node in nodes:
            job.record({"node": node})
        raise ZeroDivisionError


def test_addresses(final, tmp_path):
    assert job_url(final) == str(tmp_path / ".out.zarr.job")
    assert image_url(final) == str(tmp_path / ".out.zarr.job" / "image")
    assert image_url("s3://bucket/out.zarr") == "s3://bucket/out.zarr"


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
    with pytest.raises(JobMismatchError, match=r"parameters.seed: unfinished job 1, now 2"):
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


def test_a_replacement_that_was_killed_is_undone(final, tmp_path):
    (tmp_path / ".out.zarr.12345678.replaced").mkdir()
    restore_replaced(final)
    assert os.listdir(tmp_path) == ["out.zarr"]
    (tmp_path / ".out.zarr.12345678.replaced").mkdir()
    restore_replaced(final)
    assert len(os.listdir(tmp_path)) == 2
