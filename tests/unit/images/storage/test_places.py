from __future__ import annotations

import os
from pathlib import Path

import pytest

from fractal_mesospim_shading.errors import (
    ImageNotFoundError,
    OutputWriteError,
    SourceReadError,
)
from fractal_mesospim_shading.images.storage import places
from fractal_mesospim_shading.images.storage.places import join_url, normalise_url


@pytest.fixture(params=["local", "remote"])
def root(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "place")
    return f"memory://{tmp_path.name}"


def test_write_read_list_remove(root):
    url = places.join_url(root, "folder", "file.json")
    assert places.read_bytes(url) is None
    assert places.list_names(root) == []
    places.write_bytes(url, b"one")
    places.write_bytes(url, b"two")
    places.write_bytes(places.join_url(root, "folder", "a"), b"")
    assert places.read_bytes(url) == b"two"
    assert places.exists(url)
    assert places.exists(places.join_url(root, "folder"))
    assert places.list_names(places.join_url(root, "folder")) == ["a", "file.json"]
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


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".zattrs")
    with pytest.raises(SourceReadError, match=r"\.zattrs' is no regular file"):
        places.read_bytes(str(tmp_path / ".zattrs"))
    os.mkfifo(tmp_path / ".file.draft")
    places.write_bytes(str(tmp_path / "file"), b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_draft_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_bytes(b"x")
    (tmp_path / ".file.draft").symlink_to(tmp_path / "precious")
    places.write_bytes(str(tmp_path / "file"), b"whole")
    assert (tmp_path / "precious").read_bytes() == b"x"
    assert not (tmp_path / "file").is_symlink()


def test_a_file_that_a_server_has_leased_to_somebody_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"whole")
    flags = []
    opened = os.open

    def leased(path, flag, *rest):
        flags.append(flag)
        if len(flags) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return opened(path, flag, *rest)

    monkeypatch.setattr(os, "open", leased)
    assert places.read_bytes(str(tmp_path / "file")) == b"whole"
    assert [bool(flag & os.O_NONBLOCK) for flag in flags] == [True, False]


def test_two_processes_that_write_the_same_document(tmp_path, monkeypatch):
    """As the units of an import do with the group around their images."""
    replace = os.replace

    def other_was_first(draft, target):
        replace(draft, target)
        replace(draft, target)

    monkeypatch.setattr(os, "replace", other_was_first)
    places.write_bytes(str(tmp_path / "file"), b"whole")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_links_below_unfinished_work_are_refused(tmp_path, kind):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a.partial").write_bytes(b"x")
    (tmp_path / "image" / "0").mkdir(parents=True)
    name = "" if kind == "folder" else "a.partial"
    (tmp_path / "image" / "0" / "c").symlink_to(tmp_path / "precious" / name)
    with pytest.raises(OutputWriteError, match="0/c is a link"):
        places.remove_drafts(str(tmp_path / "image"))
    assert os.listdir(tmp_path / "precious") == ["a.partial"]


def test_what_a_remote_client_raises_is_an_error_of_ours():
    pytest.importorskip("s3fs")
    options = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 0.2},
    }
    with pytest.raises(SourceReadError, match="s3://bucket/x' cannot be reached"):
        places.read_bytes("s3://bucket/x", options)
    with pytest.raises(OutputWriteError, match="s3://bucket/x"):
        places.write_bytes("s3://bucket/x", b"", options)


def test_spellings_of_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = str(tmp_path / "a b.zarr")
    for spelling in (
        "a b.zarr",
        "a b.zarr/",
        "./a b.zarr//",
        f"{expected}/",
        f"file://{expected}",
        f"file://{expected.replace(' ', '%20')}/",
        tmp_path / "a b.zarr",
    ):
        assert normalise_url(spelling) == expected
    assert normalise_url("s3://bucket/a.zarr/") == "s3://bucket/a.zarr"
    assert join_url("s3://bucket/a.zarr", "tables", "x/") == "s3://bucket/a.zarr/tables/x"
    with pytest.raises(ImageNotFoundError, match="empty"):
        normalise_url(" ")


def test_bytes_of_files_are_added_up_without_a_list_of_them(tmp_path, monkeypatch):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"123")
    (inner / "two").write_bytes(b"45678")
    (inner / "link").symlink_to(tmp_path / "a" / "one")
    (inner / "nowhere").symlink_to(tmp_path / "lost")
    (inner / "round").symlink_to(tmp_path / "a")
    monkeypatch.setattr(places, "filesystem", None)
    folder = (tmp_path / "a").stat().st_size
    assert places.bytes_below(str(tmp_path / "a")) == 3 + 5 + 3 + folder
    assert places.bytes_below(str(tmp_path / "none")) == 0


def test_bytes_of_files_of_another_storage(root):
    places.write_bytes(join_url(root, "a", "one"), b"123")
    places.write_bytes(join_url(root, "a", "b", "two"), b"45678")
    assert places.bytes_below(join_url(root, "a")) == 8
