"""What an image holds besides its pyramid, found without reading a pixel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.carrying.members import (
    MemberPlan,
    list_members,
    plan_members,
)

Write = Callable[..., Path]
PIXELS = np.zeros((1, 2, 8, 8), np.uint16)


def plan(image: Path, levels: tuple[str, ...] = ("0",), into: int = 2, **more: Any) -> MemberPlan:
    attributes = dict(zarr.open_group(image, mode="r", use_consolidated=False).attrs)
    source = MemberPlan(str(image), into, frozenset(levels), {"": attributes}, **more)
    return plan_members(source)


def found(image: Path, levels: tuple[str, ...] = ("0",)) -> set[tuple[str, str]]:
    planned = plan(image, levels)
    kinds = {(member.path, member.kind) for member in list_members(planned)}
    assert {path for path, _ in kinds} == set(planned.members)
    return kinds


@pytest.mark.parametrize("separator", ["/", "."])
def test_an_image_and_nothing_else(write_image: Write, separator: str) -> None:
    encoding = {"name": "v2", "separator": separator}
    image = write_image(PIXELS + 1, PIXELS[..., ::2, ::2] + 1, chunk_key_encoding=encoding)
    (image / ".zmetadata").write_text("{}")
    members = plan(image, ("0", "1"))
    assert members.members == ()
    assert members.notes == ()
    assert members.loss is None
    assert members.expected_bytes == 0


def test_all_kinds_of_members(write_image: Write) -> None:
    image = write_image(PIXELS)
    group = zarr.open_group(image, mode="r+", use_consolidated=False)
    group.create_group("labels")
    group.create_group("tables").create_group("t")
    (image / "tables" / ".zgroup").unlink()
    group.create_array("mip", data=np.zeros((8, 8), np.uint8))
    (image / "OME").mkdir()
    (image / "OME" / "METADATA.ome.xml").write_text("<xml/>")
    (image / "notes.txt").write_text("x")
    (image / ".hidden").write_text("x")
    assert found(image) == {
        ("labels", "group"),
        ("tables", "folder"),
        ("mip", "array"),
        ("OME", "folder"),
        ("notes.txt", "file"),
        (".hidden", "file"),
    }
    (line,) = plan(image).notes
    assert "not corrected: .hidden, OME, mip, notes.txt." in line


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_nested_levels_and_what_lies_beside_them(write_image: Write, version: str) -> None:
    image = write_image(PIXELS, version=version)
    group = zarr.open_group(image, mode="r+", use_consolidated=False)
    encoding = {"name": "v2" if version == "0.4" else "default", "separator": "/"}
    for level in ("scale0/image", "scale1/image"):
        array = group.create_array(
            level, shape=PIXELS.shape, dtype="u2", chunks=(1, 1, 4, 4), chunk_key_encoding=encoding
        )
        array[...] = 5
        (image / level / "notes.txt").write_text("x")
    group["scale0"].create_group("other")
    made = plan(image, ("0", "scale0/image", "scale1/image"), 2 if version == "0.4" else 3)
    assert {(m.path, m.kind) for m in list_members(made)} == {
        ("scale0/other", "group"),
        ("scale0/image/notes.txt", "file"),
        ("scale1/image/notes.txt", "file"),
    }
    assert made.groups_between == ("scale0", "scale1")


def test_the_chunks_of_the_corrected_pyramid_are_not_looked_at(
    write_image: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_image(
        PIXELS + 1, chunks=(1, 1, 2, 2), chunk_key_encoding={"name": "v2", "separator": "/"}
    )
    listed = []
    scandir = os.scandir

    def counting(path: Any) -> Any:
        listed.append(os.path.relpath(path, image))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    plan(image)
    assert sorted(listed) == [".", "0"]


def test_a_second_pyramid_is_said_to_be_uncorrected(
    write_image: Write, edit_attributes: Callable[..., None]
) -> None:
    image = write_image(PIXELS)

    def change(content: dict[str, Any]) -> None:
        second = json.loads(json.dumps(content["multiscales"][0]))
        paths = ("0", "mip", "deep/1", "absent")
        second["datasets"] = [{**second["datasets"][0], "path": path} for path in paths]
        content["multiscales"] += [second, {"datasets": "odd"}, "odd"]

    edit_attributes(image, change)
    group = zarr.open_group(image, mode="r+", use_consolidated=False)
    group.create_array("mip", data=np.zeros((8, 8), np.uint8))
    group.create_array("deep/1", data=np.zeros((8, 8), np.uint8))
    made = plan(image)
    # The array that both share is corrected; what is not there cannot be carried.
    assert made.uncorrected == ("deep/1", "mip")
    assert "further pyramid, which is carried over uncorrected: deep/1, mip." in made.notes[1]


def test_what_cannot_be_carried_is_named(write_image: Write) -> None:
    image = write_image(PIXELS, version="0.5")
    os.mkfifo(image / "pipe")
    (image / ".zattrs").write_text("{}")
    made = plan(image, into=3)
    assert made.members == ()
    assert dict(made.left) == {
        "pipe": "it is no file that can be copied",
        ".zattrs": "metadata of another zarr version than the image is read by",
    }
    assert made.loss is not None
    assert made.loss.startswith("Not carried over into the result: ")


@pytest.mark.parametrize(
    ("dtype", "filters", "shape", "fits"),
    [
        ("|O", None, [0], True),
        ("|O", [{"id": "vlen-utf8"}], [2], True),
        ("|O", [{"id": "pickle"}], [2], False),
        ("|O", None, [2], False),
        ("<u2", [{"id": "delta", "dtype": "<u2"}], [2], True),
        ("<u2", [{"id": "unheard-of"}], [2], False),
        ("<f4", None, [0, 6], True),
        ("|b1", None, [], True),
    ],
)
def test_what_another_version_cannot_hold(
    write_image: Write, dtype: str, filters: Any, shape: list[int], fits: bool
) -> None:
    image = write_image(PIXELS)
    array = image / "tables" / "t" / "x"
    array.mkdir(parents=True)
    (image / "tables" / "t" / ".zgroup").write_text('{"zarr_format": 2}')
    document = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": dtype, "order": "C"}
    document |= {"fill_value": None, "compressor": None, "filters": filters}
    (array / ".zarray").write_text(json.dumps(document))
    same = plan(image, into=2)
    assert (same.left, same.members) == ((), ("tables",))
    made = plan(image, into=3)
    assert [path for path, _ in made.left] == ([] if fits else ["tables/t/x"])
    assert made.members == ("tables",)


def test_links_and_names_that_lead_out_are_listed_together(
    write_image: Write, tmp_path: Path
) -> None:
    image = write_image(PIXELS)
    (tmp_path / "secret").write_text("x")
    (image / "tables" / "t").mkdir(parents=True)
    (image / "tables" / "t" / "a").symlink_to(tmp_path / "secret")
    (image / "notes.txt").symlink_to(tmp_path / "secret")
    (image / "labels").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageFormatError) as refused:
        plan(image)
    for name in ("tables/t/a", "notes.txt", "labels"):
        assert f"{image}/{name}' is a link" in str(refused.value)
    (image / "labels").unlink()
    assert plan(image, follow_links=True).members == ("notes.txt", "tables")


def test_a_level_that_is_a_link_is_only_read(write_image: Write, tmp_path: Path) -> None:
    image = write_image(PIXELS)
    (image / "0").rename(tmp_path / "elsewhere")
    (image / "0").symlink_to(tmp_path / "elsewhere")
    assert plan(image).members == ()


def test_paths_that_the_job_leaves_out(write_image: Write) -> None:
    image = write_image(PIXELS)
    (image / "a").write_text("x")
    (image / "b").write_text("x")
    assert plan(image, apart=frozenset({"a"})).members == ("b",)


def test_an_address_that_cannot_be_listed(
    write_image: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web server gives files, but no list of them."""
    import uuid

    from fractal_mesospim_shading.images.storage.places import filesystem

    image = write_image(PIXELS)
    (image / "notes.txt").write_text("x")
    url = f"memory://{uuid.uuid4().hex}"
    fs, root = filesystem(url)
    fs.put(str(image), root, recursive=True)
    assert plan_members(MemberPlan(url, 2, frozenset({"0"}), {"": {}})).members == ("notes.txt",)

    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("no listing here")

    monkeypatch.setattr(type(fs), "ls", refuse)
    made = plan_members(MemberPlan(url, 2, frozenset({"0"}), {"": {}}))
    assert not made.listable
    assert made.loss is not None
    assert "nothing at this address can be listed" in made.loss


def test_the_size_of_what_is_carried(write_image: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from fractal_mesospim_shading.images.carrying import members

    image = write_image(PIXELS)
    for number in range(40):
        (image / f"{number}.bin").write_bytes(b"12345")
    assert plan(image).expected_bytes == 200
    # Of many files, the sizes of some are asked for.
    monkeypatch.setattr(members, "_ALL_SIZED", 10)
    monkeypatch.setattr(members, "_SIZED_EACH", 7)
    assert plan(image).expected_bytes == 200


def test_info_lists_the_outermost_only(write_image: Write) -> None:
    image = write_image(PIXELS)
    zarr.open_group(image, mode="r+", use_consolidated=False).create_group("tables/a/b")
    levels = MemberPlan(str(image), 2, frozenset({"0"}), {"": {}})
    assert [member.path for member in list_members(levels)] == ["tables"]
