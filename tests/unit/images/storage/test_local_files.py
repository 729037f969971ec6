"""What is on the device, and what a file system answers that cannot bring it there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.images.storage import local_files


@pytest.fixture
def image(tmp_path):
    """A group with two arrays of zarr 2, a table, and a link to something of others."""
    root = tmp_path / "image"
    for name in (".zgroup", ".zattrs", "0/.zarray", "0/.zattrs", "0/0/0/1", "1/.zarray", "1/0"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    for name in ("tables/.zgroup", "tables/t/.zattrs", "tables/t/table.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "link").symlink_to(tmp_path)
    return root


@pytest.fixture
def synced(image, monkeypatch):
    """Paths that were synced one by one, relative to the image."""
    found: list[str] = []

    def noted(descriptor):
        found.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), image))

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(local_files, "file_system", lambda path: "fuse.sshfs")
    return found


def test_each_file_and_folder_where_nothing_else_helps(image, synced):
    assert local_files.sync_tree(image) == []
    every = {os.path.relpath(Path(folder), image) for folder, _, _ in os.walk(image)}
    every |= {
        os.path.relpath(Path(folder, name), image)
        for folder, _, names in os.walk(image)
        for name in names
        if not Path(folder, name).is_symlink()
    }
    assert sorted(synced) == sorted(every)


def test_metadata_of_groups_without_the_arrays(image, synced):
    assert local_files.sync_groups(image) == []
    assert sorted(synced) == [
        ".",
        ".zattrs",
        ".zgroup",
        "tables",
        "tables/.zgroup",
        "tables/t",
        "tables/t/.zattrs",
    ]


def test_one_call_where_that_is_enough(image, monkeypatch):
    asked = []
    monkeypatch.setattr(local_files, "file_system", lambda path: "ext4")
    monkeypatch.setattr(local_files, "sync_machine", lambda path: asked.append(path) or True)
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("not needed"))
    assert local_files.sync_tree(image) == []
    assert asked == [image]


def test_a_failure_of_the_whole_is_looked_at_file_by_file(image, synced, monkeypatch):
    """It may be that of another file."""
    monkeypatch.setattr(local_files, "file_system", lambda path: "ext4")
    monkeypatch.setattr(local_files, "sync_machine", lambda path: False)
    local_files.sync_tree(image)
    assert "0/0/0/1" in synced


def test_a_file_system_that_cannot_sync_folders(image, monkeypatch):
    def refuses(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuses)
    monkeypatch.setattr(local_files, "file_system", lambda path: "")
    assert set(local_files.sync_tree(image / "0")) == {
        str(image / name) for name in ("0", "0/0", "0/0/0")
    }
    assert not local_files.sync_folder(image)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_device_that_fails(image, monkeypatch, number):
    def fails(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    monkeypatch.setattr(local_files, "file_system", lambda path: "")
    with pytest.raises(OutputWriteError, match="does not reach the device.*run the same command"):
        local_files.sync_tree(image)
    with pytest.raises(OutputWriteError):
        local_files.sync_folder(image)


def test_files_that_are_not_there(tmp_path):
    assert local_files.sync_files([str(tmp_path / "chunk of nothing but zeros")]) == []


def test_more_files_than_are_taken_at_once(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(local_files, "_synced", lambda path: (seen.append(path), (path, True))[1])
    local_files.sync_files(str(number) for number in range(5000))
    assert sorted(map(int, seen)) == list(range(5000))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells")
def test_kinds_of_file_systems(tmp_path):
    assert local_files.file_system("/proc/self/status") == "proc"
    if os.path.ismount("/dev/shm"):
        assert local_files.file_system("/dev/shm/not there") == "tmpfs"
    folder = tmp_path / "a b"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        assert local_files.file_system(folder / "below") == "tmpfs"
        assert local_files.file_system(f"{folder}c") == local_files.file_system(tmp_path)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="syncfs is of Linux")
def test_the_system_is_asked(tmp_path):
    assert local_files.sync_machine(tmp_path)
    assert not local_files.sync_machine(tmp_path / "not there")
