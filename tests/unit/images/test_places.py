from __future__ import annotations

import os
from pathlib import Path

import pytest

from fractal_mesospim_shading.errors import OutputWriteError
from fractal_mesospim_shading.images import places


@pytest.fixture(params=["local", "remote"])
def root(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "place")
    return f"memory://{tmp_path.name}"


def test_write_read_list_remove(root):
    url = places.join(root, "folder", "file.json")
    assert places.read_bytes(url) is None
    assert places.list_names(root) == []
    places.write_bytes(url, b"one")
    places.write_bytes(url, b"two")
    places.write_bytes(places.join(root, "folder", "a"), b"")
    assert places.read_bytes(url) == b"two"
    assert places.exists(url)
    assert places.exists(places.join(root, "folder"))
    assert places.list_names(places.join(root, "folder")) == ["a", "file.json"]
    places.remove(url)
    assert not places.exists(url)
    places.remove(root)
    places.remove(root)
    assert not places.exists(root)


def test_addresses(tmp_path, monkeypatch):
    assert places.is_local("/a/b")
    assert places.is_local("file:///a/b")
    assert not places.is_local("s3://a/b")
    assert places.local_path("file:///a/b") == Path("/a/b")
    assert places.parent_and_name("s3://bucket/a.zarr/") == ("s3://bucket", "a.zarr")
    assert places.parent_and_name("/data/../data/a.zarr/") == ("/data", "a.zarr")
    monkeypatch.chdir(tmp_path)
    assert places.parent_and_name("a.zarr") == (str(tmp_path), "a.zarr")


def test_a_failed_write_leaves_the_old_content_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "file"
    places.write_bytes(str(path), b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputWriteError, match="No space left"):
        places.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_draft_of_a_killed_process_is_written_over(tmp_path):
    (tmp_path / ".file.draft").write_bytes(b"torn")
    places.write_bytes(str(tmp_path / "file"), b"whole")
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    places.remove(str(tmp_path / "link"))
    assert os.listdir(tmp_path) == ["data"]


def test_drafts_are_removed(tmp_path):
    (tmp_path / "0").mkdir()
    for name in ("0/1.abc.partial", "0/1", ".zattrs.draft", ".zattrs"):
        (tmp_path / name).write_bytes(b"")
    places.remove_drafts(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".zattrs", "0"]
    assert os.listdir(tmp_path / "0") == ["1"]
