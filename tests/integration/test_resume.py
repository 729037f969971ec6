"""Killed, stopped, full: the same command goes on, and the result is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fractal_mesospim_shading
from fractal_mesospim_shading import errors
from fractal_mesospim_shading.core.blocks import BlockGrid
from fractal_mesospim_shading.engine import plan
from fractal_mesospim_shading.images import target
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.jobs import preparation

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def correct_flatfield(zarr_url, **arguments):
    """Without the report, which reads a few planes of its own and has tests of its own."""
    return fractal_mesospim_shading.correct_flatfield(zarr_url, **{"report": False, **arguments})


# A run with many small blocks, each of them slow.
SLOW = str(Path(__file__).parents[1] / "slow_cli.py")


@pytest.fixture
def command(make_mosaic, make_models, tmp_path):
    """Start the command line on one mosaic with many slow blocks."""
    source, models = make_mosaic(), make_models()
    running: list[subprocess.Popen[str]] = []

    def start(pause: float = 0.1, *more: str) -> subprocess.Popen[str]:
        arguments = ["correct-flatfield", str(source), "--models-folder", str(models)]
        arguments += ["--camera-offset", "100", "--n-workers", "2", "--no-report", *more]
        child = subprocess.Popen(
            [sys.executable, SLOW, str(pause), "engine.plan", *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(child)
        return child

    yield start
    for child in running:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.fixture
def expected(make_mosaic, make_models, tree, tmp_path):
    """The files of an uninterrupted run of the same image."""
    folder = tmp_path / "apart"
    source = make_mosaic(folder=folder)
    result = correct_flatfield(
        source, models_folder=str(make_models(name="models2")), camera_offset=100
    )
    files = tree(Path(result.image_url))
    shutil.rmtree(folder)
    return files


def _recorded(folder: Path) -> int:
    path = folder / ".brain_flatfield_corr.zarr.job" / "journal" / "blocks.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait_for_blocks(folder: Path, child: subprocess.Popen[str], blocks: int) -> None:
    end = time.monotonic() + 60
    while _recorded(folder) < blocks:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("style", [{}, {"byte_order": ">"}], ids=["rust", "python"])
def test_killed_at_random_moments(style, tmp_path):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import kill_resume
    finally:
        sys.path.pop(0)
    assert kill_resume.kill_and_resume(tmp_path, kills=2, seed=len(style), each=2, **style)


def test_a_killed_run_is_continued_and_redoes_only_what_was_in_flight(
    command, expected, tree, tmp_path, monkeypatch, make_models
):
    child = command()
    _wait_for_blocks(tmp_path, child, 20)
    child.kill()
    child.wait()
    recorded = _recorded(tmp_path)
    written = []
    write = target.TargetImage.write

    def counted(image, level, box, data):
        written.append((level, tuple(s.start for s in box)))
        return write(image, level, box, data)

    monkeypatch.setattr(target.TargetImage, "write", counted)
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    result = correct_flatfield(
        tmp_path / "brain.zarr", models_folder=str(tmp_path / "models"), camera_offset=100
    )
    total = len(list(_nodes(tmp_path / "brain.zarr")))
    assert len(written) == len(set(written)) == total - recorded
    assert tree(Path(result.image_url)) == expected
    assert sorted(p.name for p in tmp_path.iterdir() if "brain" in p.name) == [
        "brain.zarr",
        "brain_flatfield_corr.zarr",
    ]


def _nodes(source):
    for number, level in enumerate(MosaicImage.open(source).levels):
        counts = [-(-n // c) for n, c in zip(level.shape, level.chunks, strict=True)]
        yield from ((number, index) for index in np.ndindex(*counts))


def test_counts_and_windows_of_a_continued_run_are_those_of_all_blocks(
    command, make_mosaic, tmp_path, many_blocks
):
    child = command()
    _wait_for_blocks(tmp_path, child, 25)
    child.kill()
    child.wait()
    models = str(tmp_path / "models")
    result = correct_flatfield(tmp_path / "brain.zarr", models_folder=models, camera_offset=100)
    assert [found.pixels for found in result.counts.values()] == [4 * 96 * 80] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_stop_in_good_order(number, command, expected, tree, tmp_path):
    child = command()
    _wait_for_blocks(tmp_path, child, 10)
    child.send_signal(number)
    output, text = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith("Error: The run was stopped")
    assert not (tmp_path / ".brain_flatfield_corr.zarr.job" / "lock").exists()
    assert not (tmp_path / "brain_flatfield_corr.zarr").exists()
    again = command(0.0)
    output, text = again.communicate(timeout=60)
    assert again.returncode == 0, text
    assert "An unfinished run is continued" in text
    assert "warning" not in text.lower()
    assert tree(Path(output.strip())) == expected


def test_two_runs_at_once(command, tmp_path):
    first = command(0.5)
    _wait_for_blocks(tmp_path, first, 3)
    second = command(0.0)
    _, text = second.communicate(timeout=60)
    assert second.returncode == 3
    assert f"process {first.pid} on this machine, is writing this output" in text
    assert first.poll() is None
    # The refused run has not taken the lock away from the first.
    assert (tmp_path / ".brain_flatfield_corr.zarr.job" / "lock").exists()


def test_other_parameters_are_refused_with_the_difference_named(command, tmp_path, tree):
    child = command()
    _wait_for_blocks(tmp_path, child, 5)
    child.kill()
    child.wait()
    source, models = tmp_path / "brain.zarr", str(tmp_path / "models")
    before = tree(tmp_path)
    with pytest.raises(errors.JobMismatchError, match=r"camera_offset: .*100.*90"):
        correct_flatfield(source, models_folder=models, camera_offset=90)
    with pytest.raises(errors.JobMismatchError, match="ngff_version|output"):
        correct_flatfield(source, models_folder=models, camera_offset=100, ngff_version="0.5")
    after = tree(tmp_path)
    lock = ".brain_flatfield_corr.zarr.job/lock"
    assert {k: v for k, v in after.items() if k != lock} == {
        k: v for k, v in before.items() if k != lock
    }
    # A changed source is another job as well, and so is another model.
    chunk = source / "0" / "0" / "0" / "0" / "0"
    os.utime(chunk, ns=(1, 1))
    with pytest.raises(errors.JobMismatchError, match="source_state"):
        correct_flatfield(source, models_folder=models, camera_offset=100)
    result = correct_flatfield(source, models_folder=models, camera_offset=90, restart=True)
    mark = json.loads((Path(result.image_url) / ".zattrs").read_text())["mesospim_shading"]
    assert mark["parameters"]["camera_offset"] == 90


def test_other_models_are_another_job(make_mosaic, make_models, many_blocks, monkeypatch):
    source, models = make_mosaic(), make_models()
    _stop_after(monkeypatch, 6)
    with pytest.raises(errors.OutputWriteError):
        correct_flatfield(source, models_folder=str(models), camera_offset=100)
    monkeypatch.undo()
    np.savez(models / "488 nm" / "profiles.npz", flatfield=np.ones((48, 40)))
    with pytest.raises(errors.JobMismatchError, match="488 nm"):
        correct_flatfield(source, models_folder=str(models), camera_offset=100)


def _stop_after(monkeypatch, blocks, error=None):
    """The disk is full after some blocks."""
    write, seen = target.TargetImage.write, []

    def failing(image, level, box, data):
        seen.append(box)
        if len(seen) > blocks:
            raise error or errors.OutputWriteError("No space left on device")
        return write(image, level, box, data)

    monkeypatch.setattr(target.TargetImage, "write", failing)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("blocks", [1, 40, 75, 97, 103])
def test_stopped_at_every_stage_of_the_pyramid(
    blocks, level, make_mosaic, make_models, tree, monkeypatch, many_blocks, expected
):
    """Also where coarse levels are put together in this process, above the batches."""
    monkeypatch.setattr(BlockGrid, "batch_level", lambda grid, most: level)
    source, models = make_mosaic(), str(make_models())
    with monkeypatch.context() as patch:
        _stop_after(patch, blocks)
        with pytest.raises(errors.OutputWriteError):
            correct_flatfield(source, models_folder=models, camera_offset=100, n_workers=1)
    assert not Path(str(source).replace("brain", "brain_flatfield_corr")).exists()
    result = correct_flatfield(source, models_folder=models, camera_offset=100, n_workers=1)
    assert tree(Path(result.image_url)) == expected


def test_a_record_that_is_missing_below_another_is_made_again(
    make_mosaic, make_models, many_blocks, monkeypatch, tree, expected, tmp_path
):
    """Workers hand in their records in any order, and a kill may come in between."""
    arguments = {"models_folder": str(make_models()), "camera_offset": 100, "n_workers": 1}
    source = make_mosaic()
    with monkeypatch.context() as patch, pytest.raises(errors.OutputWriteError):
        _stop_after(patch, 70)
        correct_flatfield(source, **arguments)
    journal = tmp_path / ".brain_flatfield_corr.zarr.job" / "journal" / "blocks.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert any(json.loads(line)["node"] == "1/0.0.0.0" for line in lines)
    journal.write_text("".join(li for li in lines if json.loads(li)["node"] != "0/0.0.0.0"))
    chunk = journal.parents[1] / "image" / "0" / "0" / "0" / "0" / "0"
    chunk.unlink()
    result = correct_flatfield(source, **arguments)
    assert tree(Path(result.image_url)) == expected
    assert [found.pixels for found in result.counts.values()] == [4 * 96 * 80] * 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own that is soon full."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k,nr_inodes=4096", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("style", [{}, {"byte_order": ">"}], ids=["rust", "python"])
def test_a_full_disk(
    style, make_mosaic, make_models, tree, small_disk, many_blocks, monkeypatch, tmp_path
):
    source, models = make_mosaic(**style), str(make_models())
    whole = correct_flatfield(source, models_folder=models, camera_offset=100)
    # Compressible in the source, it may still need more than was foreseen.
    monkeypatch.setattr(preparation, "_refuse_full_disk", lambda *_: None)
    arguments = {"models_folder": models, "camera_offset": 100, "output_folder": str(small_disk)}
    with pytest.raises(errors.OutputWriteError, match="(?i)no space|full|os error 28"):
        correct_flatfield(source, **arguments)
    job = small_disk / ".brain_flatfield_corr.zarr.job"
    assert [path.name for path in small_disk.iterdir()] == [job.name]
    assert not (job / "lock").exists()
    assert (job / "journal" / "blocks.jsonl").read_bytes().endswith(b"\n")
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    result = correct_flatfield(source, **arguments)
    assert tree(Path(result.image_url)) == tree(Path(whole.image_url))


def test_what_was_estimated_is_not_estimated_again(
    make_empty_mosaic, tree, monkeypatch, many_blocks
):
    source = make_empty_mosaic()
    arguments = {"fov_list": [1, 4], "camera_offset": 100, "n_zplanes": 16}
    whole = correct_flatfield(source, output_image_name="whole", **arguments)
    with monkeypatch.context() as patch:
        _stop_after(patch, 10)
        with pytest.raises(errors.OutputWriteError):
            correct_flatfield(source, **arguments)
    reads = []
    read = MosaicImage.read

    def counted(image, level, box):
        reads.append(box)
        return read(image, level, box)

    monkeypatch.setattr(MosaicImage, "read", counted)
    result = correct_flatfield(source, **arguments)
    assert len(reads) == len(set(map(str, reads)))
    assert len(reads) <= 2 * 4 * 4 * 4
    assert tree(Path(result.image_url)) == tree(Path(whole.image_url))


def test_what_an_earlier_version_left_is_not_taken_for_the_image(
    make_mosaic, make_models, tree, tmp_path
):
    """It may be half removed: it is named, and not corrected as if it were whole."""
    source, models = make_mosaic(), str(make_models())
    hidden = tmp_path / ".brain.zarr.0a1b2c3d.replaced"
    os.rename(source, hidden)
    before = tree(hidden)
    with pytest.raises(errors.ImageNotFoundError, match=hidden.name):
        correct_flatfield(source, models_folder=models, camera_offset=100)
    with pytest.raises(errors.ImageNotFoundError):
        correct_flatfield(tmp_path / "brain", models_folder=models, camera_offset=100)
    assert tree(hidden) == before
    assert not source.exists()


def test_killed_before_the_metadata_were_written(
    make_mosaic, make_models, tree, expected, tmp_path
):
    """All moments between the request and the first block."""
    source, models = make_mosaic(), str(make_models())
    arguments = {"models_folder": models, "camera_offset": 100}
    with pytest.MonkeyPatch.context() as patch:
        _stop_after(patch, 1)
        with pytest.raises(errors.OutputWriteError):
            correct_flatfield(source, n_workers=1, **arguments)
    job = tmp_path / ".brain_flatfield_corr.zarr.job"
    (job / "image" / "1" / ".zarray").unlink()
    (job / "image" / "0" / ".zattrs.draft").write_bytes(b"torn")
    (job / "image" / "0" / "0").mkdir(parents=True, exist_ok=True)
    (job / "image" / "0" / "0" / "3.0123456789abcdef.partial").write_bytes(b"torn")
    result = correct_flatfield(source, **arguments)
    assert tree(Path(result.image_url)) == expected


@pytest.mark.parametrize("kept", ["request.json", "image"])
def test_killed_while_the_folder_of_the_job_was_removed(
    kept, make_mosaic, make_models, tree, expected, tmp_path, monkeypatch, many_blocks
):
    """What is left of a dropped job is not taken for blocks of the next one."""
    source, models = make_mosaic(), str(make_models())
    arguments = {"models_folder": models, "camera_offset": 100}
    with monkeypatch.context() as patch:
        _stop_after(patch, 40)
        with pytest.raises(errors.OutputWriteError):
            correct_flatfield(source, **arguments)
    job = tmp_path / ".brain_flatfield_corr.zarr.job"
    for entry in list(job.iterdir()):
        # The journal goes first, the record last.
        if entry.name not in (kept, "request.json"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    result = correct_flatfield(source, **arguments)
    assert tree(Path(result.image_url)) == expected
    assert not job.exists()


# The command line, killed before one of the calls that change the names on the disk.
KILLED = """
import os, signal, sys
from fractal_mesospim_shading import cli
from fractal_mesospim_shading.images.storage import local_files

fatal, *command = sys.argv[1:]
count = 0

def before(function):
    def call(*arguments, **named):
        global count
        count += armed
        if count == int(fatal):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

armed = 0
place = local_files.sync_groups

def begins(folder):
    # The results are complete: from here on.
    global armed
    armed = 1
    return place(folder)

local_files.sync_groups = begins
for name in ("rename", "replace", "unlink", "rmdir"):
    setattr(os, name, before(getattr(os, name)))
sys.exit(cli.main(command))
"""


def _killed(fatal: int, *command: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(fatal), *command], capture_output=True, text=True
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.parametrize("fatal", [2, 3, 9])
def test_killed_in_the_last_step_of_a_result_in_place(
    fatal, make_mosaic, make_models, tree, tmp_path
):
    source, models = make_mosaic(), str(make_models())
    command = ["correct-flatfield", str(source), "--models-folder", models]
    command += ["--camera-offset", "100", "--no-report", "--overwrite-input"]
    assert _killed(fatal, *command)
    again = subprocess.run(
        [sys.executable, "-m", "fractal_mesospim_shading.cli", *command],
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == [str(source)]
    assert "complete" in again.stderr
    assert "by correct_flatfield, version" in again.stderr
    assert sorted(os.listdir(tmp_path)) == ["brain.zarr", "models"]
    mark = MosaicImage.open(source).attributes()["mesospim_shading"]
    assert mark["complete"]
    # Once, and not twice.
    assert "history" not in mark


@pytest.mark.parametrize("fatal", [3, 6])
def test_several_results_of_one_job_killed_between_their_renamings(
    fatal, make_mosaic, tree, tmp_path
):
    source = make_mosaic()
    command = ["correct-background", str(source), "--method", "median:3", "--save-background"]
    command.append("--no-report")
    whole = subprocess.run([sys.executable, "-m", "fractal_mesospim_shading.cli", *command])
    assert whole.returncode == 0
    results = {name: tree(tmp_path / name) for name in os.listdir(tmp_path)}
    assert len(results) == 3
    command.append("--overwrite")
    assert _killed(fatal, *command)
    again = subprocess.run(
        [sys.executable, "-m", "fractal_mesospim_shading.cli", *command],
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.splitlines()) == 2
    assert {name: tree(tmp_path / name) for name in os.listdir(tmp_path)} == results


def test_the_same_command_after_an_orderly_end_says_how_it_was_made(make_mosaic, make_models):
    source, models = make_mosaic(), str(make_models())
    arguments = {"models_folder": models, "camera_offset": 100}
    correct_flatfield(source, **arguments)
    with pytest.raises(
        errors.OutputExistsError,
        match=r"complete \(by correct_flatfield, version .*camera_offset 100",
    ):
        correct_flatfield(source, **arguments)
