"""Tables and labels in another image: the same bytes, or the same content."""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numcodecs
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import ImageFormatError, OutputWriteError, SourceReadError
from fractal_mesospim_shading.images.carrying.carry import carry_members
from fractal_mesospim_shading.images.carrying.members import MemberPlan, plan_members
from fractal_mesospim_shading.images.storage.places import filesystem

Write = Callable[..., Path]
LABELS = np.random.default_rng(5).integers(0, 70_000, (3, 33, 41)).astype(np.uint32)


def plan(source: Path | str, target: Path | str, levels: tuple[str, ...] = ("0",)) -> MemberPlan:
    """What goes from one image into the other."""
    group = zarr.open_group(source, mode="r", use_consolidated=False)
    into = zarr.open_group(target, mode="r", use_consolidated=False).metadata.zarr_format
    return plan_members(MemberPlan(str(source), into, frozenset(levels), {"": dict(group.attrs)}))


def carry(source: Path | str, target: Path | str) -> tuple[str, ...]:
    return carry_members(plan(source, target), str(target))


def passengers(image: Path, version: str) -> None:
    """Labels with their own metadata, an anndata table, and tables in plain files."""
    group = zarr.open_group(image, mode="r+", use_consolidated=False)
    labels = group.create_group("labels")
    nuclei = labels.create_group("nuclei")
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    content: dict[str, Any] = {"multiscales": [multiscale], "image-label": {"colors": []}}
    if version == "0.4":
        multiscale["version"] = content["image-label"]["version"] = "0.4"
        labels.attrs.put({"labels": ["nuclei"]})
        nuclei.attrs.put({**content, "own": {"a": 1}})
    else:
        labels.attrs.put({"ome": {"version": "0.5", "labels": ["nuclei"]}})
        nuclei.attrs.put({"ome": {"version": "0.5", **content}, "own": {"a": 1}})
    shards = {"shards": (2, 32, 32)} if version == "0.5" else {}
    pixels = nuclei.create_array(
        "0", shape=LABELS.shape, chunks=(1, 16, 16), dtype="uint32", **shards
    )
    pixels[...] = LABELS
    tables = group.create_group("tables")
    tables.attrs.put({"tables": ["regions", "plain", "listed"]})
    table = anndata.AnnData(
        np.arange(6, dtype=np.float32).reshape(2, 3),
        obs={"name": ["a", "ü"], "flag": [True, False], "kind": np.array([1, 2])},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anndata.io.write_elem(tables, "regions", table)
    tables["regions"].attrs["type"] = "roi_table"
    plain = tables.create_group("plain")
    plain.attrs.put({"backend": "csv"})
    (image / "tables" / "plain" / "table.csv").write_bytes(b"FieldIndex,x\r\na,1\r\n")
    folder = image / "tables" / "plain" / "parts.parquet"
    folder.mkdir()
    (folder / "part-0").write_bytes(bytes(range(256)))
    tables.create_group("listed").create_group("table").attrs.put({"x": [1.5, 2.5]})


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_same_version_gives_the_same_bytes(write_image: Write, version: str) -> None:
    pixels = np.zeros((1, 3, 33, 41), np.uint16)
    source = write_image(pixels, name="a.zarr", version=version)
    target = write_image(pixels, name="b.zarr", version=version)
    assert carry(source, target) == ()
    passengers(source, version)
    before = digests(source)
    assert carry(source, target) == ("labels", "tables")
    assert digests(source) == before
    for name in ("tables", "labels"):
        assert digests(target / name) == digests(source / name)
    assert carry(source, target) == ("labels", "tables")


def test_to_another_store_and_back(write_image: Write) -> None:
    source = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="a.zarr", version="0.5")
    target = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="b.zarr", version="0.5")
    passengers(source, "0.5")
    bucket = f"memory://{uuid.uuid4().hex}/image.zarr"
    fs, root = filesystem(bucket)
    fs.put(str(target), root, recursive=True)
    carry(source, bucket)
    carry(bucket, target)
    assert digests(target / "labels") == digests(source / "labels")
    assert digests(target / "tables") == digests(source / "tables")


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [("0.4", "0.5"), ("0.5", "0.4")])
def test_another_version_gives_the_same_content(write_image: Write, old: str, new: str) -> None:
    pixels = np.zeros((1, 3, 33, 41), np.uint16)
    source = write_image(pixels, name="a.zarr", version=old)
    target = write_image(pixels, name="b.zarr", version=new)
    passengers(source, old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert carry(source, target) == ("labels", "tables")
    group = zarr.open_group(target, mode="r", use_consolidated=False)
    wanted = 2 if new == "0.4" else 3
    assert {m.metadata.zarr_format for _, m in group.members(max_depth=None)} == {wanted}
    nuclei = group["labels/nuclei"]
    np.testing.assert_array_equal(nuclei["0"][...], LABELS)
    assert nuclei["0"].chunks == (1, 16, 16)
    expected = write_image(pixels, name="c.zarr", version=new)
    passengers(expected, new)
    reference = zarr.open_group(expected, mode="r", use_consolidated=False)
    for path in ("labels", "labels/nuclei", "tables", "tables/plain", "tables/listed/table"):
        assert dict(group[path].attrs) == dict(reference[path].attrs)
    if new == "0.5":
        assert nuclei["0"].metadata.dimension_names == ("z", "y", "x")
    before, after = (anndata.read_zarr(image / "tables" / "regions") for image in (source, target))
    np.testing.assert_array_equal(before.X, after.X)
    assert after.obs.equals(before.obs)
    assert group["tables/regions"].attrs["type"] == "roi_table"
    plain = digests(source / "tables" / "plain")
    for name in ("table.csv", "parts.parquet/part-0"):
        assert digests(target / "tables" / "plain")[name] == plain[name]
    names = {path.name for path in target.rglob("*")}
    assert not names & ({".zgroup", ".zattrs", ".zarray"} if new == "0.5" else {"zarr.json"})


def test_a_damaged_label_is_named(write_image: Write) -> None:
    source = write_image(np.zeros((1, 3, 33, 41), np.uint16), name="a.zarr")
    target = write_image(np.zeros((1, 3, 33, 41), np.uint16), name="b.zarr", version="0.5")
    passengers(source, "0.4")
    (source / "labels" / "nuclei" / "0" / "1.1.1").write_bytes(b"no chunk")
    with pytest.raises(SourceReadError, match=r"labels/nuclei/0'.*cannot be read"):
        carry(source, target)


def test_scalars_and_empty_arrays_survive(write_image: Write) -> None:
    source = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="a.zarr")
    target = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="b.zarr", version="0.5")
    uns = zarr.open_group(source, mode="r+").create_group("tables/x/uns")
    uns.create_array("number", shape=(), dtype="int64")[...] = 42
    uns.create_array("none", shape=(0, 3), dtype="float32")
    uns.create_array("fixed", data=np.array(["a", "bcd"]))
    uns.create_array("nan", shape=(4,), dtype="float32", fill_value=np.nan)
    carry(source, target)
    found = zarr.open_group(target, mode="r")["tables/x/uns"]
    assert found["number"][()] == 42
    assert found["none"].shape == (0, 3)
    assert list(found["fixed"][:]) == ["a", "bcd"]
    assert np.isnan(found["nan"][:]).all()
    assert json.loads((target / "tables" / "zarr.json").read_text())["node_type"] == "group"


class Notebook:
    """What a job keeps for a continued run."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def remember(self, name: str, data: bytes) -> None:
        self.kept[name] = data

    def recall(self, name: str) -> bytes | None:
        return self.kept.get(name)


def _pair(write_image: Write, old: str, new: str) -> tuple[Path, Path]:
    pixels = np.zeros((1, 3, 33, 41), np.uint16)
    return (
        write_image(pixels, name="a.zarr", version=old),
        write_image(pixels, name="b.zarr", version=new),
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_members_of_every_kind_have_the_same_bytes(write_image: Write, version: str) -> None:
    source, target = _pair(write_image, version, version)
    group = zarr.open_group(source, mode="r+", use_consolidated=False)
    group.create_array("mip", data=LABELS, chunks=(1, 16, 16))
    group.create_group("masks").create_array("m", data=LABELS[0])
    (source / "OME").mkdir()
    (source / "OME" / "METADATA.ome.xml").write_bytes(b"<xml/>")
    (source / "notes.txt").write_bytes(bytes(range(256)))
    assert carry(source, target) == ("OME", "masks", "mip", "notes.txt")
    before, after = digests(source), digests(target)
    for name in before:
        if not name.startswith("0/") and name not in (".zattrs", ".zgroup", "zarr.json"):
            assert after[name] == before[name], name
    assert set(after) == set(before)


@pytest.mark.parametrize(("old", "new"), [("0.4", "0.4"), ("0.4", "0.5"), ("0.5", "0.4")])
def test_groups_without_a_file_of_their_own_get_one(write_image: Write, old: str, new: str) -> None:
    source, target = _pair(write_image, old, new)
    passengers(source, old)
    for name in ("tables", "labels"):
        for document in (".zgroup", ".zattrs", "zarr.json"):
            (source / name / document).unlink(missing_ok=True)
    carry(source, target)
    group = zarr.open_group(target, mode="r", use_consolidated=False)
    for name in ("tables", "labels"):
        assert isinstance(group[name], zarr.Group)
        assert dict(group[name].attrs) == {}
    np.testing.assert_array_equal(group["labels/nuclei/0"][...], LABELS)
    # A folder of plain files is none.
    assert isinstance(group["tables/plain"], zarr.Group)
    assert "parts.parquet" not in dict(group["tables/plain"].groups())


@pytest.mark.parametrize(("old", "new"), [("0.4", "0.4"), ("0.4", "0.5"), ("0.5", "0.4")])
@pytest.mark.parametrize("documented", [True, False])
def test_groups_on_the_way_to_nested_levels(
    write_image: Write, old: str, new: str, documented: bool
) -> None:
    source, target = _pair(write_image, old, new)
    for image in (source, target):
        zarr.open_group(image, mode="r+").create_array("scale0/image", data=LABELS)
    if documented:
        zarr.open_group(source, mode="r+").require_group("scale0").attrs["own"] = 1
    else:
        for document in (".zgroup", ".zattrs", "zarr.json"):
            (source / "scale0" / document).unlink(missing_ok=True)
    carry_members(plan(source, target, ("0", "scale0/image")), str(target))
    found = zarr.open_group(target, mode="r", use_consolidated=False)["scale0"]
    assert isinstance(found, zarr.Group)
    assert dict(found.attrs) == ({"own": 1} if documented else {})


def test_consolidated_metadata_stay_behind(write_image: Write) -> None:
    source, target = _pair(write_image, "0.5", "0.5")
    group = zarr.open_group(source, mode="r+").create_group("other")
    group.create_array("x", data=LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(source / "other")
        assert "consolidated_metadata" in (source / "other" / "zarr.json").read_text()
    carry(source, target)
    document = json.loads((target / "other" / "zarr.json").read_text())
    assert "consolidated_metadata" not in document
    assert document["node_type"] == "group"
    assert digests(target / "other" / "x") == digests(source / "other" / "x")
    source, target = _pair(write_image, "0.4", "0.4")
    zarr.open_group(source, mode="r+").create_group("other")
    (source / "other" / ".zmetadata").write_text("{}")
    carry(source, target)
    assert not (target / "other" / ".zmetadata").exists()


def test_what_was_copied_whole_is_not_copied_again(write_image: Write) -> None:
    source, target = _pair(write_image, "0.4", "0.4")
    passengers(source, "0.4")
    (source / "big").write_bytes(bytes(1000))
    (source / "changed").write_bytes(b"before")
    (source / "torn").write_bytes(b"whole")
    carry(source, target)
    inode = (target / "big").stat().st_ino
    (target / "torn").write_bytes(b"wh")
    (source / "changed").write_bytes(b"after!")
    carry(source, target)
    # A copy takes a new file; the one that was there before is still the same.
    assert (target / "big").stat().st_ino == inode
    assert (target / "torn").read_bytes() == b"whole"
    assert (target / "changed").read_bytes() == b"after!"
    assert not [path for path in target.rglob("*") if path.suffix == ".draft"]


def test_a_conversion_goes_on_where_it_broke_off(
    write_image: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fractal_mesospim_shading.images.carrying import carry as carrying

    monkeypatch.setattr(carrying, "_REMEMBER_SECONDS", 0.0)
    source, target = _pair(write_image, "0.4", "0.5")
    mip = zarr.open_group(source, mode="r+").create_array("mip", data=LABELS, chunks=(1, 16, 16))
    notebook, seen = Notebook(), 0

    def stop() -> None:
        nonlocal seen
        seen += 1
        if seen == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(carrying, "_WATCH_SECONDS", 0.0)
    planned = plan(source, target)
    with pytest.raises(KeyboardInterrupt):
        carry_members(planned, str(target), None, notebook, stop)
    # What the first run wrote shows by not being written again.
    copied = zarr.open_group(target, mode="r+")["mip"]
    copied[0, :16, :16] = 7
    carry_members(planned, str(target), None, notebook)
    expected = LABELS.copy()
    expected[0, :16, :16] = 7
    np.testing.assert_array_equal(copied[...], expected)
    # Another state of the source begins anew.
    mip[0, 0, 0] = 3
    carry_members(plan(source, target), str(target), None, notebook)
    np.testing.assert_array_equal(copied[...], mip[...])


def test_converted_numbers_keep_codec_fill_value_and_axes(write_image: Write) -> None:
    source, target = _pair(write_image, "0.4", "0.5")
    group = zarr.open_group(source, mode="r+")
    made = group.create_array(
        "x",
        shape=(4, 6),
        chunks=(2, 3),
        dtype=">f4",
        fill_value=np.nan,
        compressors=numcodecs.GZip(3),
        attributes={"_ARRAY_DIMENSIONS": ["y", "x"], "own": 1},
    )
    made[:2] = 1.5
    carry(source, target)
    found = zarr.open_group(target, mode="r")["x"]
    np.testing.assert_array_equal(found[...], made[...])
    document = json.loads((target / "x" / "zarr.json").read_text())
    assert document["fill_value"] == "NaN"
    assert document["dimension_names"] == ["y", "x"]
    assert document["attributes"] == {"own": 1}
    assert [codec["name"] for codec in document["codecs"]] == ["bytes", "gzip"]
    # Chunks that are not there stay away.
    assert len([path for path in (target / "x" / "c").rglob("*") if path.is_file()]) == 2
    back = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="c.zarr", version="0.4")
    carry(target, back)
    assert dict(zarr.open_group(back, mode="r")["x"].attrs) == {
        "own": 1,
        "_ARRAY_DIMENSIONS": ["y", "x"],
    }


def test_files_in_a_converted_array_and_what_is_left(write_image: Write) -> None:
    source, target = _pair(write_image, "0.4", "0.5")
    group = zarr.open_group(source, mode="r+").create_group("labels")
    group.create_array("good", data=LABELS[0], chunks=(16, 16))
    (source / "labels" / "good" / "notes.txt").write_text("kept")
    odd = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C"}
    odd |= {"fill_value": None, "compressor": None, "filters": [{"id": "pickle"}]}
    (source / "labels" / "odd").mkdir()
    (source / "labels" / "odd" / ".zarray").write_text(json.dumps(odd))
    (source / "labels" / "odd" / "0").write_bytes(b"x")
    planned = plan(source, target)
    assert [path for path, _ in planned.left] == ["labels/odd"]
    carry_members(planned, str(target))
    assert (target / "labels" / "good" / "notes.txt").read_text() == "kept"
    assert not (target / "labels" / "odd").exists()


def test_links_are_copied_as_what_they_stand_for(write_image: Write, tmp_path: Path) -> None:
    source, target = _pair(write_image, "0.4", "0.4")
    (tmp_path / "annex").write_text("content")
    (source / "tables").mkdir()
    (source / "tables" / "out.csv").symlink_to(tmp_path / "annex")
    (source / "inner").symlink_to("tables")
    attributes = {"": dict(zarr.open_group(source, mode="r").attrs)}
    planned = plan_members(
        MemberPlan(str(source), 2, frozenset({"0"}), attributes, follow_links=True)
    )
    carry_members(planned, str(target))
    for name in ("tables/out.csv", "inner/out.csv"):
        assert (target / name).read_text() == "content"
        assert not (target / name).is_symlink()


def test_a_link_that_appears_after_the_plan_is_not_followed(
    write_image: Write, tmp_path: Path
) -> None:
    source, target = _pair(write_image, "0.4", "0.4")
    (source / "late.txt").write_text("x")
    planned = plan(source, target)
    (source / "tables").mkdir()
    (source / "tables" / "x").symlink_to(tmp_path)
    with pytest.raises(ImageFormatError, match="leads out of the image"):
        carry_members(planned, str(target))
    (source / "tables" / "x").unlink()
    (source / "tables" / "new").write_text("x")
    carry_members(planned, str(target))
    assert (target / "tables" / "new").read_text() == "x"


def test_a_full_disk_leaves_no_half_of_a_file(
    write_image: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fractal_mesospim_shading.images.carrying import copying

    source, target = _pair(write_image, "0.4", "0.4")
    (source / "notes.txt").write_text("x")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying.os, "replace", full)
    with pytest.raises(OutputWriteError, match="notes.txt' cannot be written"):
        carry(source, target)
    assert not list(target.glob("*.draft"))
    assert not (target / "notes.txt").exists()
    monkeypatch.undo()
    (source / "notes.txt").unlink()
    assert carry(source, target) == ()


@pytest.mark.parametrize("change", [b"longer", b"x"])
def test_a_file_that_changes_while_it_is_copied(
    write_image: Write, monkeypatch: pytest.MonkeyPatch, change: bytes
) -> None:
    from fractal_mesospim_shading.images.storage.folders import LocalFolder

    source, target = _pair(write_image, "0.4", "0.4")
    (source / "notes.txt").write_bytes(b"a")
    planned = plan(source, target)
    read = LocalFolder.open

    def changing(folder: LocalFolder, name: str) -> Any:
        if name == "notes.txt":
            (source / name).write_bytes(change)
        return read(folder, name)

    monkeypatch.setattr(LocalFolder, "open", changing)
    with pytest.raises(SourceReadError, match="notes.txt' changed while it was copied"):
        carry_members(planned, str(target))
    monkeypatch.undo()
    carry_members(planned, str(target))
    assert (target / "notes.txt").read_bytes() == change
