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
import numpy as np
import pytest
import zarr

from fractal_mesospim_shading.errors import SourceReadError
from fractal_mesospim_shading.images.carrying import copy_tables_and_labels
from fractal_mesospim_shading.images.stores import filesystem

Write = Callable[..., Path]
LABELS = np.random.default_rng(5).integers(0, 70_000, (3, 33, 41)).astype(np.uint32)


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
    assert copy_tables_and_labels(source, target) == ()
    passengers(source, version)
    before = digests(source)
    assert copy_tables_and_labels(source, target) == ("tables", "labels")
    assert digests(source) == before
    for name in ("tables", "labels"):
        assert digests(target / name) == digests(source / name)
    assert copy_tables_and_labels(source, target) == ("tables", "labels")


def test_to_another_store_and_back(write_image: Write) -> None:
    source = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="a.zarr", version="0.5")
    target = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="b.zarr", version="0.5")
    passengers(source, "0.5")
    bucket = f"memory://{uuid.uuid4().hex}/image.zarr"
    fs, root = filesystem(bucket)
    fs.put(str(target), root, recursive=True)
    copy_tables_and_labels(source, bucket)
    copy_tables_and_labels(bucket, target)
    assert digests(target / "labels") == digests(source / "labels")
    assert digests(target / "tables") == digests(source / "tables")


@pytest.mark.parametrize(("old", "new"), [("0.4", "0.5"), ("0.5", "0.4")])
def test_another_version_gives_the_same_content(write_image: Write, old: str, new: str) -> None:
    pixels = np.zeros((1, 3, 33, 41), np.uint16)
    source = write_image(pixels, name="a.zarr", version=old)
    target = write_image(pixels, name="b.zarr", version=new)
    passengers(source, old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert copy_tables_and_labels(source, target) == ("tables", "labels")
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
        copy_tables_and_labels(source, target)


def test_scalars_and_empty_arrays_survive(write_image: Write) -> None:
    source = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="a.zarr")
    target = write_image(np.zeros((1, 1, 4, 4), np.uint16), name="b.zarr", version="0.5")
    uns = zarr.open_group(source, mode="r+").create_group("tables/x/uns")
    uns.create_array("number", shape=(), dtype="int64")[...] = 42
    uns.create_array("none", shape=(0, 3), dtype="float32")
    uns.create_array("fixed", data=np.array(["a", "bcd"]))
    uns.create_array("nan", shape=(4,), dtype="float32", fill_value=np.nan)
    copy_tables_and_labels(source, target)
    found = zarr.open_group(target, mode="r")["tables/x/uns"]
    assert found["number"][()] == 42
    assert found["none"].shape == (0, 3)
    assert list(found["fixed"][:]) == ["a", "bcd"]
    assert np.isnan(found["nan"][:]).all()
    assert json.loads((target / "tables" / "zarr.json").read_text())["node_type"] == "group"
