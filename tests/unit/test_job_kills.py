"""Killed before any step that changes the disk, the same command ends well."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fractal_mesospim_shading.engine.earlier import left_to_its_job, settle, sweep
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.job_folder import unfinished_url
from fractal_mesospim_shading.errors import OutputExistsError
from fractal_mesospim_shading.images.output import companion_url, mark_of
from fractal_mesospim_shading.images.storage import local_files, places

pytestmark = pytest.mark.slow

REQUEST = {"task": "correct", "parameters": {"offset": 100}}
DONE = b'{"mesospim_shading": {"complete": true}}'
BEGUN = b'{"mesospim_shading": {"complete": false}}'


class Killed(BaseException):
    """The process is gone: nothing that comes after may change the disk."""


class Killer:
    """Stands before functions that change the disk, and ends the process at one of the calls."""

    def __init__(self, patch: pytest.MonkeyPatch, *targets: tuple[object, str]) -> None:
        self.calls = 0
        self.fatal = 0
        for owner, name in targets:
            patch.setattr(owner, name, self._before(getattr(owner, name)))

    def _before(self, function):
        def call(*arguments, **named):
            self.calls += 1
            if self.fatal and self.calls >= self.fatal:
                raise Killed
            return function(*arguments, **named)

        return call


@pytest.fixture
def local_killer(monkeypatch):
    # What is tested here is the order of changes; that they wait for the device, elsewhere.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(local_files, "sync_machine", lambda path: True)
    monkeypatch.setattr(local_files, "sync_files", lambda paths: [])
    names = ("rename", "replace", "unlink", "rmdir", "mkdir", "ftruncate")
    return Killer(monkeypatch, *((os, name) for name in names))


def _run(final, **more):
    """The whole command: what was complete stays as it is."""
    overwrite, replaced = more.get("overwrite", False), more.get("replaced")
    if replaced is not None and settle(replaced) is not None:
        return
    if not left_to_its_job(final):
        sweep(final)
        place = replaced or final
        if not overwrite and mark_of(place).get("complete"):
            raise OutputExistsError
    kinds = more.get("kinds", ("background",))
    job = Job(final, more.get("request", REQUEST), companions=kinds)
    more.get("seen", []).append(job)
    with job.start(restart=False, overwrite=overwrite or replaced is not None):
        if job.finished:
            return
        made = [(companion_url(job.unfinished_url, kind), kind) for kind in kinds]
        for url, what in (*made, (job.unfinished_url, "result")):
            places.write_bytes(places.join_url(url, ".zattrs"), BEGUN)
            places.write_bytes(places.join_url(url, ".zgroup"), b"{}")
            for number in range(3):
                places.write_bytes(places.join_url(url, str(number)), what.encode())
        for number in range(3):
            if str(number) not in job.done:
                job.record({"node": str(number)})
        parent, _ = places.parent_and_name(final)
        places.write_bytes(job.beside(places.join_url(parent, "out_report.html")), b"report")
        job.sync()
        for url, _ in (*made, (job.unfinished_url, "result")):
            places.write_bytes(places.join_url(url, ".zattrs"), DONE)
        job.finish(replace=replaced, overwrite=overwrite)


def _image(content: bytes) -> dict[str, bytes]:
    return {".zattrs": DONE, ".zgroup": b"{}", **{str(n): content for n in range(3)}}


OLD = {"0": b"old", "1": b"old", "7": b"old", "deep/8": b"old", ".zgroup": b"{}", ".zattrs": b"{}"}


def _put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _run_to_kill(killer: Killer, fatal: int, final: str, **more: object) -> bool:
    """Whether the run was killed; its lock is what a dead process leaves."""
    jobs: list[Job] = []
    killer.calls, killer.fatal = 0, fatal
    try:
        _run(final, seen=jobs, **more)
    except Killed:
        return True
    finally:
        killer.fatal = 0
        for job in jobs:
            if job._lock._beating is not None:
                job._lock._beating.set()
            job._lock._place.let_go()
    return False


@pytest.mark.parametrize("kind", ["new", "overwrite", "in place"])
def test_killed_before_every_step_on_a_file_system(kind, local_killer, tmp_path, tree):
    fatal = 0
    killed = True
    while killed:
        fatal += 1
        root = tmp_path / str(fatal)
        final, source = str(root / "out.zarr"), root / "source.zarr"
        olds = {"new": [], "overwrite": ["out.zarr", "out_background.zarr"], "in place": []}[kind]
        _put(source, OLD)
        for name in olds:
            _put(root / name, OLD)
        more = {"overwrite": kind == "overwrite"}
        if kind == "in place":
            more["replaced"] = str(source)
        killed = _run_to_kill(local_killer, fatal, final, **more)
        # Nothing is lost at any moment: the old one is whole, or the new one is in its place.
        for name in olds if kind != "in place" else ["source.zarr"]:
            new = _image(b"background" if "background" in name else b"result")
            copies = [tree(path) for path in [root / name, *root.glob(".*.job/replaced/*")]]
            assert new in copies or OLD in copies, (fatal, name)
        gone = not list(root.glob(".*.job/finish.json"))
        try:
            _run(final, **more)
        except OutputExistsError:
            # Killed after the last trace of the job was gone: as if it had ended.
            assert kind != "overwrite"
            assert gone
        result = "source.zarr" if kind == "in place" else "out.zarr"
        expected = {f"{result}/{n}": c for n, c in _image(b"result").items()}
        expected |= {f"out_background.zarr/{n}": c for n, c in _image(b"background").items()}
        expected["out_report.html"] = b"report"
        if kind != "in place":
            expected |= {f"source.zarr/{name}": content for name, content in OLD.items()}
        assert tree(root) == expected, fatal
        shutil.rmtree(root)
    assert fatal > {"new": 25, "overwrite": 35, "in place": 30}[kind]


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A remote storage in memory, and a killer before each of its changes."""
    from fsspec.implementations.memory import MemoryFileSystem

    killer = Killer(monkeypatch, *((MemoryFileSystem, n) for n in ("pipe_file", "cp_file", "_rm")))
    yield f"memory://{tmp_path.name}", killer
    MemoryFileSystem().rm(f"/{tmp_path.name}", recursive=True)
    MemoryFileSystem.store.clear()


def _remote_tree(url: str) -> dict[str, bytes]:
    return {n: places.read_bytes(places.join_url(url, n)) for n in places.relative_files(url)}


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_killed_before_every_step_on_an_object_store(overwrite, store, monkeypatch):
    from fractal_mesospim_shading.engine import locks

    monkeypatch.setattr(locks, "_RACE_SECONDS", 0.0)
    base, killer = store
    fatal, killed = 0, True
    while killed:
        fatal += 1
        root = f"{base}/{fatal}"
        final = f"{root}/out.zarr"
        olds = ("out.zarr", "out_background.zarr") if overwrite else ()
        for name in olds:
            for path, content in OLD.items():
                places.write_bytes(f"{root}/{name}/{path}", content)
        killed = _run_to_kill(killer, fatal, final, overwrite=overwrite)
        # As if it had been killed long ago.
        for name in places.list_names(f"{root}/.out.zarr.job"):
            if name.startswith("lock"):
                places.remove(f"{root}/.out.zarr.job/{name}")
        for name in olds:
            now = _remote_tree(f"{root}/{name}")
            attributes = now.get(".zattrs", BEGUN)
            new = _image(b"background" if "background" in name else b"result")
            # Whoever reads finds the old one, the new one, or no mark.
            assert now in (OLD, new) or b'"complete": false' in attributes, (fatal, name)
        gone = not places.exists(f"{root}/.out.zarr.job/finish.json")
        try:
            _run(final, overwrite=overwrite)
        except OutputExistsError:
            assert gone
            assert not overwrite
        expected = {f"out.zarr/{n}": c for n, c in _image(b"result").items()}
        expected |= {f"out_background.zarr/{n}": c for n, c in _image(b"background").items()}
        expected["out_report.html"] = b"report"
        assert _remote_tree(root) == expected, fatal
    assert fatal > (15 if not overwrite else 40)


def test_addresses_of_a_remote_image(store):
    base, _ = store
    final = f"{base}/out.zarr"
    assert unfinished_url(final) == final
    places.write_bytes(f"{final}/.zattrs", BEGUN)
    places.write_bytes(f"{final}/.zgroup", b"{}")
    assert unfinished_url(final) == final
    places.write_bytes(f"{final}/.zattrs", DONE)
    assert unfinished_url(final) == f"{base}/.out.zarr.job/image"
    places.remove(final)
    # So also where an image that goes with it would be lost.
    places.write_bytes(f"{base}/out_noise.zarr/.zattrs", DONE)
    places.write_bytes(f"{base}/out_noise.zarr/.zgroup", b"{}")
    assert unfinished_url(final) == final
    assert unfinished_url(final, None, ("noise",)) == f"{base}/.out.zarr.job/image"
