"""Addresses of every kind, and what is said where nothing useful lies there."""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import (
    ImageFormatError,
    ImageNotFoundError,
    SourceReadError,
)
from fractal_mesospim_shading.images.mosaic import MosaicImage
from fractal_mesospim_shading.images.storage.places import filesystem
from fractal_mesospim_shading.images.storage.stores import (
    members_of,
    open_group,
    subgroup,
    surely_lacks,
)

PIXELS = np.arange(2 * 8 * 12, dtype=np.uint16).reshape(1, 2, 8, 12)
WHOLE = (slice(0, 1), slice(0, 2), slice(0, 8), slice(0, 12))


def zipped(folder: Path, archive: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, Path(inside) / path.relative_to(folder))
    return archive


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_one_image_under_every_kind_of_address(
    write_image: Callable[..., Path], tmp_path: Path, version: str
) -> None:
    path = write_image(PIXELS, version=version, chunks=(1, 1, 4, 12))
    bucket = f"memory://{uuid.uuid4().hex}/image.zarr"
    fs, root = filesystem(bucket)
    fs.put(str(path), root, recursive=True)
    inside = zipped(path, tmp_path / "data.zip", "a/image.zarr")
    for url in (
        path,
        f"{path}/",
        f"file://{path}",
        zipped(path, tmp_path / "image.zarr.zip"),
        f"{inside}/a/image.zarr/",
        f"{bucket}/",
    ):
        image = MosaicImage.open(url)
        assert not image.url.endswith("/")
        np.testing.assert_array_equal(image.read(0, WHOLE), PIXELS)


@pytest.mark.server
def test_s3(write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    path = write_image(PIXELS, version="0.5", chunks=(1, 1, 4, 12))
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        options = {"endpoint_url": f"http://{host}:{port}"}
        fs, _ = filesystem("s3://bucket/image.zarr", options)
        fs.mkdir("bucket")
        fs.put(str(path), "bucket/image.zarr", recursive=True)
        image = MosaicImage.open("s3://bucket/image.zarr/", options)
        np.testing.assert_array_equal(image.read(0, WHOLE), PIXELS)
        with pytest.raises(ImageNotFoundError, match="There is no image"):
            open_group("s3://bucket/other.zarr", options)
        with pytest.raises((SourceReadError, ImageNotFoundError), match="no-such-bucket"):
            open_group("s3://no-such-bucket/other.zarr", options)
    finally:
        running.stop()


def test_a_server_that_does_not_answer() -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    options = {
        "anon": True,
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    with pytest.raises(SourceReadError, match="storage_options"):
        open_group("s3://bucket/image.zarr", options)


def test_nothing_there(tmp_path: Path) -> None:
    for url in (tmp_path / "no.zarr", "memory://nowhere/no.zarr", "unknown://x/no.zarr"):
        with pytest.raises(ImageNotFoundError, match=r"no\.zarr"):
            open_group(str(url))
    with pytest.raises(FileNotFoundError):
        open_group(str(tmp_path / "no.zarr"))


def test_something_else_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for name in ("folder", "file.txt"):
        with pytest.raises(ImageFormatError, match="no zarr group"):
            open_group(str(tmp_path / name))


@pytest.mark.parametrize("version", [2, 3])
def test_an_array_instead_of_its_image(tmp_path: Path, version: int) -> None:
    group = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=version)
    group.create_array("0", shape=(4, 4), dtype="uint8")
    with pytest.raises(ImageFormatError, match=r"single array.*perhaps '.*image\.zarr'"):
        open_group(str(tmp_path / "image.zarr" / "0"))


@pytest.mark.parametrize("name", ["zarr.json", ".zgroup", ".zattrs"])
@pytest.mark.parametrize("content", ["{", "", "[]", "\xff"])
def test_metadata_cut_off(tmp_path: Path, name: str, content: str) -> None:
    zarr.open_group(tmp_path, mode="w", zarr_format=3 if name == "zarr.json" else 2)
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(ImageFormatError):
        MosaicImage.open(tmp_path)


def test_broken_zip_and_writing_into_one(tmp_path: Path) -> None:
    archive = tmp_path / "image.zarr.zip"
    archive.write_bytes(b"PK but no more")
    with pytest.raises(ImageFormatError, match="no zip archive"):
        open_group(str(archive))
    folder = tmp_path / "image.zarr"
    zarr.open_group(folder, mode="w")
    with pytest.raises(ImageFormatError, match="can be read but not written"):
        open_group(str(zipped(folder, tmp_path / "other.zip")), mode="r+")


def test_no_right_to_read(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    document = tmp_path / "a.zarr" / "zarr.json"
    if os.geteuid() == 0:
        # Root may read everything; a folder in place of the file fails in the same manner.
        document.unlink()
        document.mkdir()
        with pytest.raises(ImageFormatError):
            open_group(str(tmp_path / "a.zarr"))
        return
    document.chmod(0)
    with pytest.raises(SourceReadError, match=r"a\.zarr"):
        open_group(str(tmp_path / "a.zarr"))


def _without_documents(folder: Path) -> None:
    for name in (".zgroup", ".zattrs", "zarr.json"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", ["local", "zip", "memory"])
def test_folders_that_hold_groups_are_groups(tmp_path: Path, zarr_format: int, kind: str) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("labels/nuclei/0", data=np.ones(3))
    group.create_group("tables/t").attrs["a"] = 1
    for name in ("labels", "labels/nuclei", "tables"):
        _without_documents(path / name)
    (path / "plain" / "deeper").mkdir(parents=True)
    (path / "plain" / "deeper" / "notes.txt").write_text("x")
    (path / "empty").mkdir()
    url = str(path)
    if kind == "zip":
        url = str(zipped(path, tmp_path / "a.zarr.zip"))
    if kind == "memory":
        url = f"memory://{uuid.uuid4().hex}"
        fs, root = filesystem(url)
        fs.put(str(path), root, recursive=True)
    opened = open_group(url)
    labels = subgroup(opened, "labels")
    assert labels is not None
    assert labels.metadata.zarr_format == zarr_format
    assert list(members_of(labels)) == ["nuclei"]
    nuclei = subgroup(labels, "nuclei")
    assert nuclei is not None
    assert nuclei["0"][0] == 1
    assert isinstance(subgroup(opened, "labels/nuclei"), zarr.Group)
    tables = subgroup(opened, "tables/t")
    assert tables is not None
    assert tables.attrs["a"] == 1
    assert list(members_of(opened)) == ["labels", "tables"]
    for name in ("plain", "empty", "absent", "labels/nuclei/0", "plain/deeper/notes.txt"):
        assert subgroup(opened, name) is None


@pytest.mark.parametrize("name", ["tables", "tables/t", "tables/t/.zgroup", "tables/t/.zattrs"])
def test_a_link_to_nothing_is_not_absent(tmp_path: Path, name: str) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_group("tables/t").attrs["a"] = 1
    place = tmp_path / "a.zarr" / name
    if place.exists():
        place.rename(tmp_path / "taken_away")
    place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceReadError, match="is a link to .*nowhere', which is not there"):
        subgroup(open_group(str(tmp_path / "a.zarr")), "tables/t")


def test_what_a_group_surely_lacks(tmp_path: Path) -> None:
    """Only a look at a folder of this machine is sure."""
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    assert surely_lacks(group, "tables")
    (tmp_path / "a.zarr" / "tables").symlink_to(tmp_path / "nowhere")
    assert not surely_lacks(group, "tables")
    group.create_group("inner")
    assert surely_lacks(group["inner"], "tables") and not surely_lacks(group, "inner")
    elsewhere = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    assert not surely_lacks(elsewhere, "tables")
