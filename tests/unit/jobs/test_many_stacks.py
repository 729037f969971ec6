"""A container of many stacks: what all of them share is found once, not for each."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pytest

import fractal_mesospim_shading as shading
from fractal_mesospim_shading.core.blocks import key_in_job, keys_by_part
from fractal_mesospim_shading.engine import resources
from fractal_mesospim_shading.engine.job import Job
from fractal_mesospim_shading.engine.schedule import records_by_part
from fractal_mesospim_shading.errors import ShadingError
from fractal_mesospim_shading.images import mosaic
from fractal_mesospim_shading.images.arrays import reading
from fractal_mesospim_shading.images.native import discovery
from fractal_mesospim_shading.images.native.collection import TileCollection
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.images.storage import stores
from fractal_mesospim_shading.jobs import ending, flatfield
from fractal_mesospim_shading.jobs.flatfield import plan_flatfield
from fractal_mesospim_shading.jobs.work import Part, Work
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
from fractal_mesospim_shading.overlaps.choosing import ChunkGrid, choose_parts
from fractal_mesospim_shading.overlaps.choosing import Part as OverlapPart
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings


def test_models_are_named_as_often_for_many_stacks_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, groups_of = [], NativeMosaic.model_groups.fget
    assert groups_of is not None

    def noted(mosaic: NativeMosaic) -> object:
        asked.append(mosaic)
        return groups_of(mosaic)

    monkeypatch.setattr(NativeMosaic, "model_groups", property(noted))
    counts = []
    for rows in (2, 6):
        settings = SyntheticSettings()
        stacks = grid_stacks(rows, 2, settings)
        url = write_acquisition(tmp_path, f"{rows}.ome.zarr", stacks, settings)
        asked.clear()
        plan_flatfield(str(url), FlatfieldOptions(camera_offset=100, output_folder=str(tmp_path)))
        counts.append(len(asked))
    assert counts[0] == counts[1]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The images that ome-zarr is asked to open."""
    asked, look = [], ending.refuse_unreadable

    def noted(target: Any) -> None:
        asked.append(target)
        look(target)

    monkeypatch.setattr(ending, "refuse_unreadable", noted)
    return asked


def _work(folder: Path, rows: int = 2, **how: Any) -> Work:
    settings = SyntheticSettings(**how)
    url = write_acquisition(folder, "a.ome.zarr", grid_stacks(rows, 2, settings), settings)
    return plan_flatfield(str(url), FlatfieldOptions(camera_offset=100, output_folder=str(folder)))


def _many(work: Work, number: int = 1024, **spoilt: dict[str, Any]) -> Work:
    """The parts of a work again and again, so many in all, some with other attributes."""
    own = work.parts
    parts = [replace(own[k % len(own)], name=f"stack{k}") for k in range(number)]
    return replace(
        work, parts=tuple(replace(p, attributes=spoilt.get(p.name, p.attributes)) for p in parts)
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_stacks_have_in_common_is_tried_out_once(
    tmp_path: Path, tried: list[object], version: Any
) -> None:
    work = _work(tmp_path, 6, version=version)
    assert len({str(part.attributes) for part in work.parts}) == len(work.parts) == 12
    assert len(tried) == 1


def _pyramid(part: Part) -> tuple[dict[str, Any], dict[str, Any]]:
    attributes = deepcopy(part.attributes)
    return attributes, attributes["ome"]["multiscales"][0]


def test_bad_stacks_among_a_thousand_are_all_named(tmp_path: Path, tried: list[object]) -> None:
    work = _work(tmp_path)
    well = {**work.parts[0].attributes, "ome": {**work.parts[0].attributes["ome"], "well": "x"}}
    longer, pyramid = _pyramid(work.parts[1])
    pyramid["datasets"].append({**pyramid["datasets"][0], "path": "9"})
    tried.clear()
    ending.rehearse(_many(work))
    assert len(tried) == 1
    tried.clear()
    with pytest.raises(ShadingError) as refused:
        ending.rehearse(_many(work, stack5=well, stack700=well, stack1023=longer))
    text = str(refused.value)
    assert [name for name in map("stack{}".format, range(1024)) if f"'{name}'" in text] == [
        "stack5",
        "stack700",
        "stack1023",
    ]
    assert len(tried) == 3


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda p: p.update(name="other"), 0),
        (lambda p: p.update(name=7), 1),
        (lambda p: p["axes"][0].update(name="Z"), 1),
        (lambda p: p["datasets"][0]["coordinateTransformations"][1].update(translation=[1.0]), 1),
        (
            lambda p: p["datasets"][0]["coordinateTransformations"][1].update(
                translation=[7.5, -2.25, 0.5]
            ),
            0,
        ),
        (
            lambda p: p["datasets"][0]["coordinateTransformations"][1].update(
                translation=[7.5, "x", 0.5]
            ),
            1,
        ),
        (
            lambda p: p["datasets"][0]["coordinateTransformations"][0].update(
                scale=[5.0, 3.0, 3.0]
            ),
            1,
        ),
    ],
)
def test_names_and_places_alone_may_differ(
    tmp_path: Path, tried: list[object], change: Any, again: int
) -> None:
    work = _work(tmp_path)
    attributes, pyramid = _pyramid(work.parts[0])
    change(pyramid)
    tried.clear()
    try:
        ending.rehearse(_many(work, 10, stack9=attributes))
    except ShadingError as error:
        assert "stack9" in str(error)
    assert len(tried) == 1 + again or again


def test_the_machine_is_asked_as_often_for_many_stacks_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, processors = [], resources.available_cpus

    def noted() -> int:
        asked.append(1)
        return processors()

    monkeypatch.setattr(resources, "available_cpus", noted)
    counts = []
    for rows in (2, 6):
        asked.clear()
        _work(tmp_path / f"{rows}", rows)
        counts.append(len(asked))
    assert counts[0] == counts[1] > 0


def test_each_stack_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()
    plain_open, plain_describe = stores.zarr.open_group, reading.describe_array

    def opened(store: Any, **how: Any) -> Any:
        asked[Path(store.root).name] += 1
        return plain_open(store, **how)

    def described(group: Any, path: str) -> Any:
        asked[f"{Path(group.store.root).name}/{path}"] += 1
        return plain_describe(group, path)

    settings = SyntheticSettings(levels=2)
    stacks = grid_stacks(3, 2, settings)
    url = write_acquisition(tmp_path, "a.ome.zarr", stacks, settings)
    monkeypatch.setattr(stores.zarr, "open_group", opened)
    for module in (discovery, mosaic):
        monkeypatch.setattr(module, "describe_array", described)
    options = FlatfieldOptions(camera_offset=100, output_folder=str(tmp_path), report=False)
    # Not by the test at the end, which ome-zarr makes of a result in memory.
    monkeypatch.setattr(flatfield, "rehearse", lambda work: None)
    work = plan_flatfield(str(url), options)
    assert len(work.parts) == 6
    for stack in stacks:
        names = (stack.group_name, f"{stack.group_name}/0", f"{stack.group_name}/1")
        assert [asked[name] for name in names] == [1, 1, 1]


def test_a_stack_that_lacks_a_level_is_still_refused_by_name(tmp_path: Path) -> None:
    settings = SyntheticSettings(levels=3)
    stacks = grid_stacks(2, 2, settings)
    url = write_acquisition(tmp_path, "a.ome.zarr", stacks, settings)
    shutil.rmtree(url / stacks[2].group_name / "2")
    named = re.escape(f"{stacks[2].group_name}/2' is missing")
    with pytest.raises(ShadingError, match=named):
        plan_flatfield(str(url), FlatfieldOptions(camera_offset=100, output_folder=str(tmp_path)))


class _Looked(list[Any]):
    """Records, or keys of blocks, that count how often all of them are gone through."""

    times = 0

    def __iter__(self) -> Iterator[Any]:
        type(self).times += 1
        return super().__iter__()

    def add(self, key: str) -> None:
        self.append(key)


@pytest.mark.slow
def test_the_journal_is_gone_through_as_often_for_many_stacks_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = Job.__post_init__

    def watched(job: Job) -> None:
        prepared(job)
        job.records, job.done = _Looked(), cast("set[str]", _Looked())

    monkeypatch.setattr(Job, "__post_init__", watched)
    times = []
    for rows in (1, 4):
        folder = tmp_path / f"{rows}"
        settings = SyntheticSettings()
        stacks = grid_stacks(rows, 2, settings)
        url = write_acquisition(folder, "a.ome.zarr", stacks, settings)
        _Looked.times = 0
        shading.correct_flatfield(
            str(url), camera_offset=100, output_folder=str(folder), report=False, n_workers=1
        )
        times.append(_Looked.times)
    assert times[0] == times[1] > 0


def test_blocks_of_the_stacks_of_a_job_are_told_apart(tmp_path: Path) -> None:
    job = Job(str(tmp_path / "out.zarr"), {"a": 1})
    job.records = [{"node": f"{name}:0/{k}"} for name in ("a", "a:b") for k in range(2)]
    job.done = {record["node"] for record in job.records}
    assert keys_by_part(job.done) == {"a": {"0/0", "0/1"}, "a:b": {"0/0", "0/1"}}
    assert {name: len(own) for name, own in records_by_part(job.records).items()} == {
        "a": 2,
        "a:b": 2,
    }
    assert [key_in_job(name, "0/1") for name in ("", "a")] == ["0/1", "a:0/1"]


def test_what_overlaps_cost_is_reckoned_once_for_each_part_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels, cells = cast("cached_property[Any]", vars(NativeMosaic)["levels"]), ChunkGrid.cells
    made: list[object] = []
    seen: Counter[OverlapPart] = Counter()

    def counted_levels(mosaic: NativeMosaic) -> Any:
        made.append(mosaic)
        return levels.func(mosaic)

    def counted_cells(grid: ChunkGrid, part: OverlapPart) -> Any:
        seen[part] += 1
        return cells(grid, part)

    own = cached_property(counted_levels)
    own.__set_name__(NativeMosaic, "levels")
    monkeypatch.setattr(NativeMosaic, "levels", own)
    monkeypatch.setattr(ChunkGrid, "cells", counted_cells)
    settings = SyntheticSettings()
    url = write_acquisition(tmp_path, "a.ome.zarr", grid_stacks(3, 3, settings), settings)
    (image,) = TileCollection.open(url).mosaics()
    (group,) = image.model_groups
    assert len(choose_parts(image, group, 0, 2**40)) == len(seen) == 12
    assert set(seen.values()) == {1}
    assert len(made) == 1
    assert choose_parts(image, group, 0, 1)
    assert set(seen.values()) == {3}
