"""Folders of every kind give the same list; what leads out of them is told apart."""

from __future__ import annotations

import os
import stat
import uuid
import zipfile
from pathlib import Path

import pytest

from fractal_mesospim_shading.errors import SourceReadError
from fractal_mesospim_shading.images.carrying.converting import node_of
from fractal_mesospim_shading.images.storage.folders import Entry, files_below, open_folder
from fractal_mesospim_shading.images.storage.places import filesystem

GROUP = b'{"zarr_format": 2}'
FILES = {
    "image.zarr/.zgroup": GROUP,
    "image.zarr/.zattrs": b'{"a": 1}',
    "image.zarr/tables/t/table.csv": b"x\n1\n",
    "image.zarr/notes.txt": b"four",
}


def _folder(kind: str, tmp_path: Path) -> str:
    if kind == "local":
        for name, content in FILES.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return str(tmp_path / "image.zarr")
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
        return str(tmp_path / "data.zip" / "image.zarr")
    bucket = f"memory://{uuid.uuid4().hex}"
    fs, root = filesystem(bucket)
    for name, content in FILES.items():
        fs.pipe_file(f"{root}/{name}", content)
    return f"{bucket}/image.zarr"


@pytest.mark.parametrize("kind", ["local", "zip", "memory"])
def test_every_kind_of_folder_is_listed_alike(kind: str, tmp_path: Path) -> None:
    folder = open_folder(str(_folder(kind, tmp_path)))
    assert {(entry.name, entry.kind) for entry in folder.entries()} == {
        (".zgroup", "file"),
        (".zattrs", "file"),
        ("tables", "folder"),
        ("notes.txt", "file"),
    }
    node = node_of(folder)
    assert node is not None
    assert (node.kind, node.zarr_format, node.attributes) == ("group", 2, {"a": 1})
    assert node_of(folder.below("tables")) is None
    below = {path: holder.open(entry.name).read() for holder, path, entry in files_below(folder)}
    start = "image.zarr/"
    assert below == {name.removeprefix(start): content for name, content in FILES.items()}
    assert folder.state(Entry("notes.txt", "file")).size == 4
    assert folder.holds("notes.txt")
    assert not folder.holds("tables")
    assert not folder.holds("absent")


@pytest.mark.parametrize(
    "name",
    ["tables/../../x", "tables//x", "/etc/x", "tables/./x", "a\\..\\x", "C:/x", "tables/../x"],
)
def test_names_in_an_archive_that_lead_out_of_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image.zarr.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(".zgroup", GROUP)
        info = zipfile.ZipInfo("x")
        info.filename = name
        archive.writestr(info, b"owned")
    found = list(files_below(open_folder(str(path))))
    problems = [entry.problem for _, _, entry in found if entry.kind == "refused"]
    assert len(problems) == 1
    assert "holds the name" in problems[0]
    assert [entry.name for _, _, entry in found if entry.kind == "file"] == [".zgroup"]


@pytest.mark.parametrize("key", ["tables/../../x", "tables//x", "..", "a\\b"])
def test_keys_of_a_store_that_lead_out_of_it(key: str) -> None:
    bucket = f"memory://{uuid.uuid4().hex}"
    fs, root = filesystem(f"{bucket}/image.zarr")
    fs.pipe_file(f"{root}/.zgroup", GROUP)
    # Past the file system's own tidying of names: an object store keeps any key.
    fs.store[f"{root}/{key}"] = fs.store[f"{root}/.zgroup"]
    found = list(files_below(open_folder(f"{bucket}/image.zarr")))
    assert [entry.kind for _, _, entry in found if entry.name != ".zgroup"] == ["refused"]


def test_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"12345")
    image = tmp_path / "image.zarr"
    (image / "inner").mkdir(parents=True)
    (image / "inner" / "file").write_bytes(b"1")
    for name, target in {
        "file_out": outside / "file",
        "folder_out": outside,
        "relative_out": "../outside/file",
        "file_in": "inner/file",
        "folder_in": "inner",
        "dangling": "nowhere",
        "circle": ".",
        "to_itself": "to_itself",
        "parent": "..",
    }.items():
        (image / name).symlink_to(target)
    (image / "inner" / "up").symlink_to("..")
    kinds = {entry.name: entry.kind for entry in open_folder(str(image)).entries()}
    assert kinds == {
        "inner": "folder",
        "file_in": "file",
        "folder_in": "folder",
        **dict.fromkeys(
            ("file_out", "folder_out", "relative_out", "dangling", "circle", "to_itself", "parent"),
            "refused",
        ),
    }
    assert [e.kind for e in open_folder(str(image)).below("inner").entries() if e.name == "up"] == [
        "refused"
    ]
    problems = {entry.name: entry.problem for entry in open_folder(str(image)).entries()}
    assert f"to '{outside}/file'" in problems["relative_out"]
    assert "`follow_links`" in problems["file_out"]
    assert "which is not there" in problems["dangling"]
    followed = open_folder(str(image), follow_links=True)
    kinds = {entry.name: entry.kind for entry in followed.entries()}
    assert (kinds["file_out"], kinds["folder_out"]) == ("file", "folder")
    assert {kinds[name] for name in ("dangling", "circle", "to_itself", "parent")} == {"refused"}
    assert followed.state(Entry("file_out", "file")).size == 5


def test_an_image_that_is_itself_a_link_is_its_own_inside(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "link").symlink_to(tmp_path / "real" / "inner")
    (tmp_path / "image.zarr").symlink_to("real")
    found = {
        entry.name: entry.kind for entry in open_folder(str(tmp_path / "image.zarr")).entries()
    }
    assert found == {"inner": "folder", "link": "folder"}


def test_special_files_and_links_in_archives(tmp_path: Path) -> None:
    image = tmp_path / "image.zarr"
    image.mkdir()
    os.mkfifo(image / "pipe")
    assert [entry.kind for entry in open_folder(str(image)).entries()] == ["special"]
    with zipfile.ZipFile(tmp_path / "image.zarr.zip", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    (entry,) = open_folder(str(tmp_path / "image.zarr.zip")).entries()
    assert entry.kind == "refused"
    assert "link in a zip archive" in entry.problem


def test_a_tree_without_end_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "image.zarr.zip", "w") as archive:
        archive.writestr("a/" * 2000 + "x", b"")
    kinds = [
        entry.kind for _, _, entry in files_below(open_folder(str(tmp_path / "image.zarr.zip")))
    ]
    assert kinds == ["refused"]


def test_what_cannot_be_listed() -> None:
    with pytest.raises(SourceReadError, match="cannot be listed"):
        list(open_folder(f"memory://{uuid.uuid4().hex}/absent").entries())
