"""Several machines: processes with nothing in common but the store, of which some are lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fractal_mesospim_shading import correct_flatfield, errors
from fractal_mesospim_shading.engine import schedule
from tests.support.bucket import remote_tree, upload
from tests.support.cluster import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path_factory):
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    yield running
    running.close()


def start_workers(cluster, number):
    for _ in range(number):
        cluster.add_worker()
    cluster.wait_for_workers(number)


@pytest.mark.parametrize(
    ("store", "workers"),
    [("folder", 4), pytest.param("bucket", 2, marks=pytest.mark.server)],
)
def test_a_worker_is_lost_and_the_scheduler_restarted(
    store, workers, cluster, make_mosaic, make_models, tree, many_blocks, request, monkeypatch
):
    """The command is run again, the same but for the address of the new scheduler."""
    # Of one batch all blocks may be done before it is seen that a worker has gone.
    monkeypatch.setattr(schedule, "batch_size", lambda workers: 16)
    # A local S3 server takes its time for each chunk.
    source = make_mosaic(**{"chunks": (2, 24, 40)} if store == "bucket" else {})
    models = {"models_folder": str(make_models()), "camera_offset": 100}
    whole = correct_flatfield(str(source), output_image_name="whole", report=False, **models)
    wanted = tree(Path(whole.image_url))
    url, options = str(source), None
    if store == "bucket":
        place, options = request.getfixturevalue("bucket")
        url = f"{place}/machines/{workers}/brain.zarr"
        upload(source, url, options)

    def correct(after_some_blocks, seen=None):
        seen = [] if seen is None else seen

        def watched(what, done, total):
            if what == "Correcting":
                seen.append(done)
                if len(seen) == 4:
                    after_some_blocks()

        return correct_flatfield(
            url,
            execution="dask",
            scheduler_address=cluster.address,
            report=False,
            progress=watched,
            storage_options=options,
            **models,
        )

    start_workers(cluster, workers)
    with pytest.raises(errors.WorkerLostError, match="worker died.*about 0.4 GB for this image"):
        correct(cluster.workers[0].kill)
    cluster.scheduler.kill()
    cluster.start_scheduler()
    start_workers(cluster, 2)
    told = []
    result = correct(lambda: None, told)
    # What was finished before is not computed again.
    assert 0 < told[0] < told[-1]
    if store == "folder":
        made = tree(Path(result.image_url))
    else:
        made = remote_tree(result.image_url, options)
        wanted = {name: content for name, content in wanted.items() if name[-1] != "/"}
    assert made.keys() == wanted.keys()
    # Tables hold where they lie; their own tests compare them.
    assert {k: v for k, v in made.items() if "tables" not in k} == {
        k: v for k, v in wanted.items() if "tables" not in k
    }


_SBATCH = """#!/bin/sh
script=$(cat "$1")  # which is deleted as soon as this ends
setsid sh -c "$script" > "$JOBS/../job.log" 2>&1 &
echo "$script" > "$JOBS/$!"
echo "Submitted batch job $!"
"""
_SCANCEL = """#!/bin/sh
kill -KILL -- "-$1"
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A folder with the script of each job that runs, named by the group of its processes."""
    pytest.importorskip("dask_jobqueue")
    programs, scripts = tmp_path / "programs", tmp_path / "jobs"
    for folder in (programs, scripts):
        folder.mkdir()
    for name, text in (("sbatch", _SBATCH), ("scancel", _SCANCEL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(scripts))
    return scripts


def test_a_slurm_job_is_killed_for_its_memory(jobs, make_mosaic, make_models, tree, many_blocks):
    """Jobs that are real but for the queue; the kernel kills the one that has written a block."""
    source = str(make_mosaic())
    models = {"models_folder": str(make_models()), "camera_offset": 100, "report": False}
    wanted = correct_flatfield(source, output_image_name="whole", **models).image_url
    asked = {"execution": "slurm", "n_workers": 1, **models}
    told = []

    def kill(what, done, total):
        told.append(what)
        if told.count("Correcting") == 2:
            [job] = (script.name for script in jobs.iterdir())
            os.killpg(int(job), signal.SIGKILL)

    with pytest.raises(errors.WorkerLostError, match="each job had 4.3 GB, so ask for") as caught:
        correct_flatfield(source, progress=kill, **asked)
    [script] = jobs.iterdir()
    assert "#SBATCH --mem=4G\n" in script.read_text()
    assert "memory_limit" in str(caught.value) and "9GB" in str(caught.value)
    script.unlink()
    result = correct_flatfield(source, memory_limit="9GB", **asked)
    [script] = jobs.iterdir()
    assert "#SBATCH --mem=9G\n" in script.read_text()
    assert tree(Path(result.image_url)) == tree(Path(wanted))
