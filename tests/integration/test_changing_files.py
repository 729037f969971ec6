"""Files of source and unfinished result that something else changes, in a run or between two."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import fractal_mesospim_shading
from fractal_mesospim_shading import errors, import_mesospim
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.images import target
from fractal_mesospim_shading.images.arrays import sampled_files
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.synthetic.images import write_image
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

pytestmark = pytest.mark.slow

FIRST, LAST = "0/0/0/0/0", "0/1/1/5/2"


def correct_flatfield(zarr_url, **arguments):
    return fractal_mesospim_shading.correct_flatfield(zarr_url, **{"report": False, **arguments})


@pytest.fixture
def during(monkeypatch):
    """`during(action, after=1)`: do something once so many blocks are on record."""

    def at(action: Callable[[], object], after: int = 1) -> None:
        record, seen = Job.record, []

        def recorded(job, entry, *more):
            record(job, entry, *more)
            seen.append(entry)
            if len(seen) == after:
                action()

        monkeypatch.setattr(Job, "record", recorded)

    return at


@pytest.fixture
def brain(make_mosaic, make_models):
    """A mosaic of many blocks, and the arguments to correct it one block after the other."""
    source = make_mosaic()
    return source, {
        "models_folder": str(make_models()),
        "camera_offset": 100,
        "n_workers": 1,
    }


def rewrite(path: Path, more: bytes = b"") -> None:
    """Write a file anew, a moment later than it was."""
    then = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + more)
    os.utime(path, ns=(then, then + 5_000_000))


def refused(run: Callable[[], object], *words: str) -> str:
    with pytest.raises(errors.SourceChangedError) as caught:
        run()
    for word in (*words, "restart"):
        assert word in str(caught.value)
    return str(caught.value)


# --- The source ------------------------------------------------------------------------------

CHANGES: dict[str, tuple[int, Callable[[Path], object], str, str]] = {
    "rewritten": (72, lambda s: rewrite(s / FIRST), FIRST, "was written at"),
    "removed after it was read": (72, lambda s: (s / FIRST).unlink(), FIRST, "is gone"),
    "removed before it is read": (1, lambda s: (s / LAST).unlink(), LAST, "is gone"),
    "longer": (72, lambda s: rewrite(s / FIRST, b"x"), FIRST, "was written at"),
}
"""After how many blocks, what is done, and what is said of it."""


@pytest.mark.parametrize(
    ("change", "style"),
    [(change, {}) for change in CHANGES]
    + [("rewritten", {"codec": "gzip"}), ("removed before it is read", {"byte_order": ">"})],
)
def test_a_chunk_that_changes_while_the_job_runs(
    change, style, make_mosaic, make_models, during, many_blocks, tmp_path
):
    source = make_mosaic(**style)
    after, act, *words = CHANGES[change]
    during(lambda: act(source), after)
    refused(
        lambda: correct_flatfield(
            source, models_folder=str(make_models()), camera_offset=100, n_workers=1
        ),
        *words,
    )
    assert not (tmp_path / "brain_flatfield_corr.zarr").exists()


def test_a_chunk_that_appears(make_mosaic, make_models, during, many_blocks, pixels, tmp_path):
    """An image that is still being written: chunks that were not there are read."""
    array = pixels((2, 4, 96, 80))
    array[1, 2:, 80:, 64:] = 0
    source = make_mosaic(array=array)
    assert not (source / LAST).exists()
    during(lambda: shutil.copy(source / FIRST, source / LAST))
    message = refused(
        lambda: correct_flatfield(
            source, models_folder=str(make_models()), camera_offset=100, n_workers=1
        )
    )
    assert f"{LAST}' has appeared" in message


def test_the_whole_source_vanishes(brain, during, many_blocks, tmp_path):
    source, arguments = brain
    during(lambda: shutil.rmtree(source / "0"), after=20)
    with pytest.raises((errors.SourceChangedError, errors.SourceReadError)):
        correct_flatfield(source, **arguments)
    assert not (tmp_path / "brain_flatfield_corr.zarr").exists()


def test_workers_note_what_they_read(brain, during, many_blocks):
    source, arguments = brain
    during(lambda: rewrite(source / LAST), after=104)
    arguments |= {"execution": "processes", "n_workers": 2}
    refused(lambda: correct_flatfield(source, **arguments), "was written")


def test_a_source_in_an_archive(brain, during, many_blocks, tmp_path):
    source, arguments = brain
    archive = tmp_path / "brain.zarr.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(source).as_posix())
    during(lambda: os.utime(archive, (1, 1)), after=3)
    refused(lambda: correct_flatfield(archive, output_image_name="out", **arguments))


def test_stacks_of_an_acquisition(tmp_path, during):
    settings = SyntheticSettings(xml=True)
    stacks = grid_stacks(2, 2, settings, overlap_px=6)
    container = write_acquisition(tmp_path / "data", "brain.ome.zarr", stacks, settings)
    chunk = container / stacks[0].group_name / "0" / "c" / "0" / "0" / "0"
    during(lambda: rewrite(chunk))
    refused(
        lambda: import_mesospim([str(container)], str(tmp_path / "out"), n_workers=1),
        stacks[0].group_name,
    )


def test_a_label_image(brain, during, tmp_path):
    source, _ = brain
    cells = (MosaicImage.open(source).read(0, tuple(slice(0, n) for n in (1, 4, 96, 80)))[0]) > 9000
    labels = zarr.open_group(str(source / "labels"), mode="a", zarr_format=2)
    labels.attrs["labels"] = ["cells"]
    url = write_image(
        source / "labels" / "cells", cells.astype("u2"), axes="zyx", chunks=(4, 96, 80)
    )
    during(lambda: rewrite(Path(url) / "0" / "0" / "0" / "0"))
    refused(
        lambda: fractal_mesospim_shading.correct_background(
            source,
            method={"method": "median", "radius": 4},
            mask={"kind": "label", "label_name": "cells"},
            n_workers=1,
        ),
        "labels/cells",
    )


@pytest.mark.parametrize("level", [0, 2])
def test_planes_of_an_estimate(level, make_empty_mosaic, monkeypatch, tmp_path):
    """The models come from pixels that the blocks then find changed, or never read."""
    source = make_empty_mosaic()
    chunk = source / str(level) / "0" / "0" / "0" / "0"
    remember, seen = Job.remember, []

    def remembered(job, name, data):
        remember(job, name, data)
        seen.append(name)
        if name == "1.npz":
            rewrite(chunk)

    monkeypatch.setattr(Job, "remember", remembered)
    message = refused(
        lambda: correct_flatfield(
            source, z_levels=[2, 5], resolution_level=level, camera_offset=100, n_workers=2
        )
    )
    assert f"brain.zarr/{level}/" in message
    assert "1.npz" in seen


def test_what_is_not_read_may_change(brain, during, many_blocks, caplog):
    source, arguments = brain

    def change() -> None:
        rewrite(source / "1" / "0" / "0" / "0" / "0")
        (source / "2" / "0" / "0" / "0" / "0").unlink()
        (source / "notes.txt").write_text("seen")
        (source / "0" / ".nfs000001").write_text("")
        os.utime(source / FIRST, ns=(1, (source / FIRST).stat().st_mtime_ns))
        os.chmod(source / FIRST, 0o600)
        os.link(source / FIRST, source.parent / "backup")

    during(change, after=5)
    result = correct_flatfield(source, **arguments)
    assert MosaicImage.open(result.image_url).finished
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


# --- Between two runs ------------------------------------------------------------------------


@pytest.fixture
def stopped(brain, monkeypatch, many_blocks):
    """A run that was stopped after 60 blocks; its state of the source is not compared."""
    source, arguments = brain
    # The request holds the state of some files; of a large image these are few.
    monkeypatch.setattr(sampled_files, "_files", lambda *_: [])
    write, seen = target.TargetImage.write, []

    def failing(image, level, box, data):
        seen.append(box)
        if len(seen) > 60:
            raise errors.OutputWriteError("No space left on device")
        return write(image, level, box, data)

    with monkeypatch.context() as patch, pytest.raises(errors.OutputWriteError):
        patch.setattr(target.TargetImage, "write", failing)
        correct_flatfield(source, **arguments)
    return source, arguments


@pytest.mark.parametrize("change", CHANGES)
def test_a_chunk_that_changed_between_two_runs(change, stopped, tmp_path, tree):
    source, arguments = stopped
    _, act, *_ = CHANGES[change]
    act(source)
    refused(lambda: correct_flatfield(source, **arguments))
    assert not (tmp_path / "brain_flatfield_corr.zarr").exists()
    if change == "longer":
        (source / FIRST).write_bytes((source / FIRST).read_bytes()[:-1])
    result = correct_flatfield(source, restart=True, **arguments)
    again = correct_flatfield(source, output_image_name="again", **arguments)
    arrays = [
        {n: c for n, c in tree(Path(url)).items() if not n.endswith(".zattrs")}
        for url in (result.image_url, again.image_url)
    ]
    assert arrays[0] == arrays[1]


LOSSES: dict[str, Callable[[Path], object]] = {
    "removed": lambda image: (image / FIRST).unlink(),
    "emptied": lambda image: os.truncate(image / FIRST, 0),
    "torn": lambda image: os.truncate(image / FIRST, 40),
    "of a coarser level": lambda image: (image / "1/0/0/0/0").unlink(),
    "coarser, emptied": lambda image: os.truncate(image / "1/0/0/0/0", 0),
    "a folder": lambda image: shutil.rmtree(image / "0/0/0"),
    "a whole level": lambda image: shutil.rmtree(image / "0"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_blocks_that_were_lost_are_made_again(loss, stopped, tmp_path, tree, caplog):
    source, arguments = stopped
    job = tmp_path / ".brain_flatfield_corr.zarr.job"
    LOSSES[loss](job / "image")
    caplog.clear()
    result = correct_flatfield(source, **arguments)
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "made again" in line and str(job) in line
    whole = correct_flatfield(source, output_image_name="whole", **arguments)
    made, wanted = tree(Path(result.image_url)), tree(Path(whole.image_url))
    named = {n for n in made if n.endswith(".zattrs")}
    assert made.keys() == wanted.keys()
    assert all(made[name] == wanted[name] for name in made.keys() - named)
    assert [c.pixels for c in result.counts.values()] == [4 * 96 * 80] * 2


def test_a_good_continuation_has_no_warning(stopped, caplog):
    source, arguments = stopped
    caplog.clear()
    correct_flatfield(source, **arguments)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_files_of_the_result_that_vanish_while_the_job_runs(
    brain, monkeypatch, many_blocks, tmp_path
):
    source, arguments = brain
    image = tmp_path / ".brain_flatfield_corr.zarr.job" / "image"
    record, seen = Job.record, []

    def recorded(job, entry, *more):
        record(job, entry, *more)
        seen.append(entry)
        if len(seen) == 90:
            (image / FIRST).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(Job, "record", recorded)
        with pytest.raises(errors.OutputWriteError, match="same command again"):
            correct_flatfield(source, **arguments)
    assert not (tmp_path / "brain_flatfield_corr.zarr").exists()
    result = correct_flatfield(source, **arguments)
    assert zarr.open_array(result.image_url, path="0")[0, 0, 20, 20] > 0


def test_stacks_of_a_container_that_were_lost(tmp_path, monkeypatch):
    flat = {("488 nm", "Left"): np.linspace(0.8, 1.2, 64, dtype="f4") * np.ones((48, 1), "f4")}
    settings = SyntheticSettings(version="0.4", xml=True, flatfields=flat)
    stacks = grid_stacks(2, 1, settings, overlap_px=6)
    container = write_acquisition(tmp_path / "data", "brain.ome.zarr", stacks, settings)
    (tmp_path / "models" / "488 nm").mkdir(parents=True)
    np.savez(tmp_path / "models" / "488 nm" / "profiles.npz", flatfield=flat["488 nm", "Left"])
    arguments = {
        "models_folder": str(tmp_path / "models"),
        "camera_offset": 100,
        "n_workers": 1,
        "output_folder": str(tmp_path),
    }

    record = Job.record

    def stopping(job, entry, *more):
        record(job, entry, *more)
        raise errors.OutputWriteError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(errors.OutputWriteError):
        patch.setattr(Job, "record", stopping)
        correct_flatfield(container, **arguments)
    (image,) = tmp_path.glob(".*.job/image")
    chunks = [p for p in image.rglob("*") if p.is_file() and p.name.isdecimal()]
    for chunk in chunks:
        os.truncate(chunk, 0)
    assert chunks
    result = correct_flatfield(container, **arguments)
    for stack in stacks:
        made = zarr.open_array(f"{result.image_url}/{stack.group_name}/0")[...]
        raw = zarr.open_array(f"{container}/{stack.group_name}/0")[...]
        exact = (raw - 100.0) / (flat["488 nm", "Left"] / flat["488 nm", "Left"].mean())
        assert np.abs(made - np.rint(exact)).max() <= 1


# --- Names that lead nowhere -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "style"),
    [(kind, {}) for kind in ("link", "folder link", "folder", "pipe")]
    + [("link", {"codec": "gzip"}), ("pipe", {"byte_order": ">"}), ("folder", {"codec": "gzip"})],
)
def test_a_chunk_that_exists_and_cannot_be_opened(kind, style, make_mosaic, make_models, tmp_path):
    """A link to a place that is not mounted, as of git-annex, is no empty chunk."""
    source = make_mosaic(**style)
    chunk = source / LAST
    chunk.unlink()
    if kind == "link":
        chunk.symlink_to(tmp_path / "not" / "mounted")
    elif kind == "folder link":
        shutil.rmtree(chunk.parent)
        chunk.parent.symlink_to(tmp_path / "not" / "mounted")
    elif kind == "folder":
        chunk.mkdir()
    else:
        os.mkfifo(chunk)
    with pytest.raises(errors.SourceReadError, match="0/1/1/5"):
        correct_flatfield(source, models_folder=str(make_models()), camera_offset=100, n_workers=1)
    assert not (tmp_path / "brain_flatfield_corr.zarr").exists()


@pytest.mark.parametrize("name", [".zattrs", "0/.zarray", "1/.zattrs"])
def test_metadata_that_lead_nowhere(name, brain, tmp_path):
    source, arguments = brain
    (source / name).unlink()
    (source / name).symlink_to(tmp_path / "not" / "mounted")
    with pytest.raises(errors.SourceReadError, match="link whose target is missing"):
        correct_flatfield(source, **arguments)


def test_links_to_chunks_that_are_there_are_read(brain, tmp_path, tree):
    source, arguments = brain
    plain = correct_flatfield(source, output_image_name="plain", **arguments)
    shutil.move(source / FIRST, tmp_path / "annexed")
    (source / FIRST).symlink_to(tmp_path / "annexed")
    shutil.move(source / "0" / "1", tmp_path / "other_disk")
    (source / "0" / "1").symlink_to(tmp_path / "other_disk")
    linked = correct_flatfield(source, output_image_name="linked", **arguments)
    one, other = (tree(Path(r.image_url)) for r in (plain, linked))
    assert {n: c for n, c in one.items() if n != ".zattrs"} == {
        n: c for n, c in other.items() if n != ".zattrs"
    }


def test_the_journal_stays_small(brain, many_blocks, during, tmp_path):
    """What is noted of a block does not grow with its chunks."""
    source, arguments = brain
    journal = tmp_path / ".brain_flatfield_corr.zarr.job" / "journal" / "blocks.jsonl"
    sizes: list[int] = []

    def measure() -> None:
        for line in journal.read_text().splitlines():
            record = json.loads(line)
            sizes.append(len(json.dumps([record.get("read"), record["written"]])))

    during(measure, after=100)
    correct_flatfield(source, **arguments)
    assert 0 < max(sizes) < 200
