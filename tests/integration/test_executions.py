"""Threads, processes, a Dask cluster, SLURM, object stores and archives: the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

import fractal_mesospim_shading
from fractal_mesospim_shading import errors
from fractal_mesospim_shading.engine import crew as crew_module
from fractal_mesospim_shading.engine import resources
from fractal_mesospim_shading.engine.cluster import slurm_cluster
from fractal_mesospim_shading.engine.crew import Crew, reached, workers_of
from fractal_mesospim_shading.engine.process import prepare_workers
from fractal_mesospim_shading.images import output
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.options.base import ExecutionOptions
from tests.support.bucket import remote_tree, upload
from tests.support.cluster import Cluster

pytestmark = pytest.mark.slow


def correct_flatfield(zarr_url, **arguments):
    """Without the report, which reads a few planes of its own and has tests of its own."""
    return fractal_mesospim_shading.correct_flatfield(zarr_url, **{"report": False, **arguments})


@pytest.fixture
def expected(make_mosaic, make_models, tree, request):
    """A mosaic, the arguments for it, and the files of the result in threads.

    As parameter it takes the shape of a chunk.
    """
    source = make_mosaic(**{"chunks": request.param} if hasattr(request, "param") else {})
    arguments = {"models_folder": str(make_models()), "camera_offset": 100}
    result = correct_flatfield(source, output_image_name="threads", **arguments)
    return source, arguments, tree(Path(result.image_url))


def test_processes(expected, tree, many_blocks, tmp_path, monkeypatch):
    source, arguments, wanted = expected
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    seen = set()
    arguments["progress"] = lambda *_: seen.update(path.name for path in temporary.iterdir())
    result = correct_flatfield(source, execution="processes", n_workers=2, **arguments)
    assert tree(Path(result.image_url)) == wanted
    # What a run that is killed would leave behind.
    assert seen <= {"dask-scratch-space"}
    assert not list(temporary.iterdir())


ODD = {
    "big-endian gzip": {"codec": "gzip", "byte_order": ">"},
    "order F gzip": {"codec": "gzip", "memory_order": "F"},
    "big-endian blosc": {"codec": "blosc", "byte_order": ">", "separator": "."},
    "gzip in Rust": {"codec": "gzip"},
}


@pytest.mark.parametrize("style", ODD)
def test_codecs_give_the_same_bytes_whatever_the_clock_and_the_workers(
    style, make_mosaic, make_models, tree, many_blocks, monkeypatch
):
    source, models = make_mosaic(**ODD[style]), str(make_models())
    clock = [1_700_000_000.0]
    monkeypatch.setattr("gzip.time.time", lambda: clock[0])
    found = []
    for workers in (1, 3):
        result = correct_flatfield(
            source,
            models_folder=models,
            camera_offset=100,
            output_image_name=f"with_{workers}",
            n_workers=workers,
        )
        clock[0] += 1000
        found.append(tree(Path(result.image_url)))
    assert found[0] == found[1]


@pytest.fixture
def cluster(tmp_path_factory):
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    yield running
    running.close()


def test_a_running_scheduler(expected, cluster, tree, many_blocks, monkeypatch):
    source, arguments, wanted = expected
    cluster.add_worker()
    cluster.add_worker()
    cluster.wait_for_workers(2)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.address)
    result = correct_flatfield(source, execution="dask", **arguments)
    assert tree(Path(result.image_url)) == wanted


@pytest.fixture
def other_package(tmp_path):
    """A copy of the package; `version` writes it as another version, else one line differs."""

    def make(version: str | None = None) -> str:
        own = Path(fractal_mesospim_shading.__file__).parent
        folder = tmp_path / f"other_{version}"
        shutil.copytree(own, folder / own.name, ignore=shutil.ignore_patterns("__pycache__"))
        if version is None:
            with open(folder / own.name / "errors.py", "a") as file:
                file.write("\nONE_MORE = 1\n")
        else:
            metadata = folder / f"{own.name}-{version}.dist-info" / "METADATA"
            metadata.parent.mkdir()
            metadata.write_text(
                f"Metadata-Version: 2.1\nName: fractal-mesospim-shading\nVersion: {version}\n"
            )
        return str(folder)

    return make


def test_workers_of_another_version_are_refused_by_name(
    expected, cluster, tmp_path, other_package, many_blocks
):
    source, arguments, _ = expected
    cluster.add_worker()
    cluster.add_worker(PYTHONPATH=other_package("0.0.7"))
    cluster.wait_for_workers(2)
    with pytest.raises(errors.WorkerVersionError) as caught:
        correct_flatfield(
            source,
            output_image_name="dask",
            execution="dask",
            scheduler_address=cluster.address,
            **arguments,
        )
    (line,) = [line for line in str(caught.value).splitlines() if "tcp://" in line]
    assert "version 0.0.7" in line
    assert not (tmp_path / "dask.zarr").exists()


def test_a_worker_with_other_sources_that_joins_later_is_refused(cluster, other_package):
    from distributed import Client

    cluster.add_worker()
    cluster.wait_for_workers(1)
    with Client(cluster.address, set_as_default=False) as client:
        crew = Crew(client)
        crew.admit()
        first = set(workers_of(client))
        cluster.add_worker(PYTHONPATH=other_package())
        cluster.wait_for_workers(2)
        second = set(workers_of(client)) - first
        with pytest.raises(errors.WorkerVersionError, match="other source files") as caught:
            crew.admit()
        assert str(*second) in str(caught.value)
        assert str(*first) not in str(caught.value)


def test_no_worker_is_missed_while_the_client_looks_at_its_scheduler(cluster):
    """A client looks once in two seconds, and its look names no worker."""
    import dask
    from distributed import Client

    cluster.add_worker()
    cluster.wait_for_workers(1)
    with (
        dask.config.set({"distributed.client.scheduler-info-interval": "1ms"}),
        Client(cluster.address, set_as_default=False) as client,
    ):
        crew = Crew(client)
        crew.admit()
        for _ in range(300):
            crew.refuse_lost("nothing")
        cluster.workers[0].kill()
        with pytest.raises(errors.WorkerLostError):
            while True:
                crew.refuse_lost("nothing")


def test_the_scheduler_is_asked_which_of_the_two_was_lost(cluster, monkeypatch):
    """A closed connection may be the first sign of either, before the client's status tells."""
    from distributed import Client
    from distributed.comm import CommClosedError

    monkeypatch.setattr(crew_module, "_ANSWER_SECONDS", 3.0)
    cluster.add_worker()
    cluster.wait_for_workers(1)
    with Client(cluster.address, set_as_default=False) as client:
        crew = Crew(client)
        crew.admit()
        with pytest.raises(errors.WorkerLostError, match="worker died.*more memory"):
            with reached(client, "more memory"):
                raise CommClosedError("reset by peer")
        cluster.scheduler.kill()
        with pytest.raises(errors.WorkerLostError, match="scheduler was lost"):
            with reached(client, "more memory"):
                raise CommClosedError("reset by peer")
        with pytest.raises(errors.WorkerLostError, match="scheduler was lost"):
            crew.refuse_lost("more memory")
        with pytest.raises(errors.WorkerLostError, match="scheduler was lost"):
            crew.admit()


def test_a_scheduler_that_is_lost(expected, cluster, tree, many_blocks, monkeypatch, tmp_path):
    source, arguments, wanted = expected
    cluster.add_worker()
    cluster.wait_for_workers(1)
    journal = tmp_path / ".killed.zarr.job" / "journal" / "blocks.jsonl"

    def kill_soon():
        while not journal.exists():
            time.sleep(0.002)
        cluster.scheduler.kill()

    killer = threading.Thread(target=kill_soon)
    killer.start()
    with pytest.raises(errors.WorkerLostError, match="scheduler was lost.*run the same command"):
        correct_flatfield(
            source,
            output_image_name="killed",
            execution="dask",
            scheduler_address=cluster.address,
            **arguments,
        )
    killer.join()
    result = correct_flatfield(source, output_image_name="killed", **arguments)
    assert tree(Path(result.image_url)) == wanted


def test_a_whole_group_is_stopped(expected, tree, tmp_path):
    """SLURM and shells send SIGTERM to workers as well."""
    source, arguments, _ = expected
    code = (
        "from fractal_mesospim_shading import correct_flatfield, errors\n"
        "from fractal_mesospim_shading.engine import plan\n"
        "import sys\n"
        "plan.BLOCK_BYTES = 1\n"
        "try:\n"
        f"    correct_flatfield({str(source)!r}, output_image_name='stopped', report=False,\n"
        f"        execution='processes', n_workers=1, **{arguments!r})\n"
        "except errors.StoppedError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journal = tmp_path / ".stopped.zarr.job" / "journal" / "blocks.jsonl"
    while not journal.exists():
        assert run.poll() is None
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGTERM)
    said, complaints = run.communicate(timeout=60)
    assert said.startswith("The run was stopped. What was finished is kept")
    assert "Traceback" not in complaints


def test_errors_of_workers_are_those_of_the_package(expected, cluster, many_blocks):
    source, arguments, _ = expected
    cluster.add_worker()
    chunk = source / "0" / "1" / "1" / "3" / "1"
    chunk.write_bytes(b"\xff" * 100)
    with pytest.raises(errors.SourceReadError, match="0/1/1/3/1"):
        correct_flatfield(source, execution="dask", scheduler_address=cluster.address, **arguments)


def test_no_scheduler_at_the_address(expected, monkeypatch):
    source, arguments, _ = expected
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("fractal_mesospim_shading.engine.cluster._CONNECT_SECONDS", 1.0)
    with pytest.raises(errors.ParameterError, match=f"no Dask scheduler at {address}"):
        correct_flatfield(source, execution="dask", scheduler_address=address, **arguments)


def test_workers_that_join_later_are_prepared_too(cluster):
    from distributed import Client

    cluster.add_worker()
    cluster.wait_for_workers(1)
    with Client(cluster.address, set_as_default=False) as client:
        prepare_workers(client)
        cluster.add_worker()
        client.wait_for_workers(2, timeout=60)
        found = client.run(lambda: os.environ.get("RAYON_NUM_THREADS"))
        concurrency = client.run(lambda: zarr.config.get("threading.max_workers"))
    assert list(found.values()) == ["1", "1"]
    assert list(concurrency.values()) == [1, 1]


def test_script_of_a_slurm_job():
    pytest.importorskip("dask_jobqueue")
    use = resources.Resources(workers=4, memory=8 * 2**30)
    cluster = slurm_cluster(
        use,
        queue="compute",
        account="imaging",
        walltime="02:00:00",
        job_extra_directives=["--qos=long"],
    )
    with cluster:
        lines = cluster.job_script().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    for directive in (
        "-p compute",
        "-A imaging",
        "-t 02:00:00",
        "--mem=8G",
        "--cpus-per-task=1",
        "-n 1",
        "--qos=long",
    ):
        assert f"#SBATCH {directive}" in lines
    worker = lines[-1]
    assert "distributed.cli.dask_worker tcp://" in worker
    assert "--nthreads 1" in worker


# A local S3 server takes its time for each of them.
few_chunks = pytest.mark.parametrize("expected", [(4, 24, 40)], indirect=True)


@few_chunks
@pytest.mark.server
def test_object_stores(expected, bucket, tree):
    source, arguments, wanted = expected
    url, options = bucket
    url += "/whole"
    upload(source, f"{url}/brain.zarr", options)
    remote = {**arguments, "storage_options": options}
    result = correct_flatfield(f"{url}/brain.zarr", **remote)
    assert result.image_url == f"{url}/brain_flatfield_corr.zarr"
    made = remote_tree(result.image_url, options)
    assert made.keys() == wanted.keys()
    assert {k: v for k, v in made.items() if "tables" not in k} == {
        k: v for k, v in wanted.items() if "tables" not in k
    }
    assert places.list_names(url, options) == ["brain.zarr", "brain_flatfield_corr.zarr"]
    # A finished result is not written over, unless asked for.
    with pytest.raises(errors.OutputExistsError):
        correct_flatfield(f"{url}/brain.zarr", **remote)
    with pytest.raises(errors.ParameterError, match="overwrite_input"):
        correct_flatfield(f"{url}/brain.zarr", overwrite_input=True, **remote)
    # From there to here.
    local = correct_flatfield(
        f"{url}/brain.zarr", output_folder=str(source.parent / "out"), **remote
    )
    assert tree(Path(local.image_url)) == wanted


@few_chunks
@pytest.mark.server
def test_a_run_to_an_object_store_is_continued(expected, bucket, many_blocks, monkeypatch):
    from fractal_mesospim_shading.images import target

    source, arguments, wanted = expected
    url, options = bucket
    url += "/continued"
    upload(source, f"{url}/brain.zarr", options)
    remote = {**arguments, "storage_options": options}
    write, seen = target.TargetImage.write, []

    def failing(image, level, box, data):
        seen.append(box)
        if len(seen) > 10:
            raise errors.OutputWriteError("the network is gone")
        return write(image, level, box, data)

    with monkeypatch.context() as patch:
        patch.setattr(target.TargetImage, "write", failing)
        with pytest.raises(errors.OutputWriteError):
            correct_flatfield(f"{url}/brain.zarr", **remote)
    assert not MosaicImage.open(
        f"{url}/brain_flatfield_corr.zarr", options, allow_unfinished=True
    ).finished
    result = correct_flatfield(f"{url}/brain.zarr", **remote)
    made = remote_tree(result.image_url, options)
    assert {k: v for k, v in made.items() if "tables" not in k} == {
        k: v for k, v in wanted.items() if "tables" not in k
    }


@few_chunks
@pytest.mark.server
def test_objects_that_change_while_they_are_read(expected, bucket, many_blocks, monkeypatch):
    """An object store tells versions apart by their ETags."""
    from fsspec.core import url_to_fs

    from fractal_mesospim_shading.engine.job import Job

    source, arguments, wanted = expected
    blocks = sum(re.fullmatch(r"\d(/\d+){4}", name) is not None for name in wanted)
    url, options = bucket
    url += "/changing"
    upload(source, f"{url}/brain.zarr", options)
    filesystem, path = url_to_fs(url, **options)
    record, seen = Job.record, []

    def recorded(job, entry, *more):
        record(job, entry, *more)
        seen.append(entry)
        if len(seen) == blocks:
            content = filesystem.cat_file(f"{path}/brain.zarr/0/1/0/3/1")
            filesystem.pipe_file(f"{path}/brain.zarr/0/0/0/0/0", content)

    monkeypatch.setattr(Job, "record", recorded)
    with pytest.raises(errors.SourceChangedError, match="0/0/0/0/0', or one beside it"):
        correct_flatfield(
            f"{url}/brain.zarr",
            output_folder=str(source.parent / "out"),
            storage_options=options,
            **arguments,
        )


@pytest.mark.server
def test_chunks_of_an_earlier_result_do_not_shine_through(make_mosaic, make_models, bucket, pixels):
    """Empty chunks stay unwritten, so those of what is replaced have to go."""
    url, options = bucket
    url += "/replaced"
    labels = ("488 nm",)
    arguments = {
        "models_folder": str(make_models(labels=labels)),
        "camera_offset": 100,
        "storage_options": options,
        "output_image_name": "out",
    }
    full = pixels((1, 4, 96, 80))
    empty = full.copy()
    empty[:, :, :48] = 0
    for name, array in (("full", full), ("empty", empty)):
        source = make_mosaic(f"{name}.zarr", array=array, channels=labels, chunks=(4, 24, 40))
        upload(source, f"{url}/{name}.zarr", options)
    correct_flatfield(f"{url}/full.zarr", **arguments)
    result = correct_flatfield(f"{url}/empty.zarr", overwrite=True, **arguments)
    image = MosaicImage.open(result.image_url, options)
    assert not image.read(0, tuple(slice(0, n) for n in (1, 4, 48, 80))).any()


def _failing(monkeypatch, owner, name, calls):
    """The network is gone after some calls of a function; returns them."""
    function, seen = getattr(owner, name), []

    def failing(*arguments, **more):
        seen.append(arguments)
        if len(seen) > calls:
            raise errors.OutputWriteError("the network is gone")
        return function(*arguments, **more)

    monkeypatch.setattr(owner, name, failing)
    return seen


@few_chunks
@pytest.mark.server
def test_an_old_result_of_an_object_store_stays_until_the_new_one_is_complete(
    expected, bucket, many_blocks, monkeypatch, caplog
):
    from fractal_mesospim_shading.images import target

    caplog.set_level("INFO")
    source, arguments, wanted = expected
    url, options = bucket
    url += "/overwritten"
    upload(source, f"{url}/brain.zarr", options)
    remote = {**arguments, "storage_options": options}
    # The old one is of the other version: other names of metadata and chunks.
    old = correct_flatfield(f"{url}/brain.zarr", **remote, ngff_version="0.5").image_url
    before = remote_tree(old, options)
    remote["overwrite"] = True

    with monkeypatch.context() as patch:
        _failing(patch, target.TargetImage, "write", 10)
        with pytest.raises(errors.OutputWriteError):
            correct_flatfield(f"{url}/brain.zarr", **remote)
    assert "room for both" in caplog.text
    assert remote_tree(old, options) == before
    assert MosaicImage.open(old, options).finished

    with monkeypatch.context() as patch:
        # In parts of a few files, of which the second does not come through.
        patch.setattr(output, "_COPIED_AT_ONCE", 20)
        _failing(patch, places, "copy_remote", 1)
        with pytest.raises(errors.OutputWriteError):
            correct_flatfield(f"{url}/brain.zarr", **remote)
    # Neither the old one nor the new one: nobody takes the mixture for an image.
    with pytest.raises(errors.ImageFormatError, match="unfinished"):
        MosaicImage.open(old, options)

    with monkeypatch.context() as patch:
        # All its pixels are there, beside it.
        _failing(patch, target.TargetImage, "write", 0)
        assert correct_flatfield(f"{url}/brain.zarr", **remote).image_url == old
    made = remote_tree(old, options)
    assert {k: v for k, v in made.items() if "tables" not in k} == {
        k: v for k, v in wanted.items() if "tables" not in k
    }
    assert places.list_names(url, options) == ["brain.zarr", "brain_flatfield_corr.zarr"]


def test_a_zip_archive_as_source(expected, tree, tmp_path):
    source, arguments, wanted = expected
    archive = tmp_path / "packed" / "brain.zarr.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in tree(source).items():
            file.writestr(name, content)
    result = correct_flatfield(archive, **arguments)
    assert result.image_url == str(archive.parent / "brain_flatfield_corr.zarr")
    made = tree(Path(result.image_url))
    assert {k: v for k, v in made.items() if not k.endswith("/")} == {
        k: v for k, v in wanted.items() if not k.endswith("/")
    }
    with pytest.raises(errors.ParameterError, match="overwrite_input"):
        correct_flatfield(archive, overwrite_input=True, **arguments)


def test_processors_and_memory_of_a_slurm_job(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert resources.available_cpus() == 3
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert 1 <= resources.available_cpus() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "700")
    assert resources.available_memory() == 700 * 2**20
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "200")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert resources.available_memory() == 400 * 2**20


@pytest.mark.parametrize(
    ("text", "amount"), [("4GB", 4 * 10**9), ("1500MiB", 1500 * 2**20), ("123", 123)]
)
def test_amounts_of_memory(text, amount):
    assert resources.parse_memory(text) == amount
    assert ExecutionOptions(memory_limit=text).memory_limit == text


def test_the_limit_that_the_error_names_is_enough(make_mosaic, make_models):
    source, models = make_mosaic(), str(make_models())
    with pytest.raises(errors.MemoryLimitError) as caught:
        correct_flatfield(source, models_folder=models, camera_offset=0, memory_limit="1MB")
    limit = str(caught.value).partition("at least ")[2].partition("GB")[0] + "GB"
    result = correct_flatfield(source, models_folder=models, camera_offset=0, memory_limit=limit)
    assert np.asarray(MosaicImage.open(result.image_url).array(0)[...]).any()
