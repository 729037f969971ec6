"""A container of many stacks: what all of them share is found once, not for each."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fractal_mesospim_shading.engine import resources
from fractal_mesospim_shading.errors import ShadingError
from fractal_mesospim_shading.images.native.mosaic import NativeMosaic
from fractal_mesospim_shading.jobs import ending
from fractal_mesospim_shading.jobs.flatfield import plan_flatfield
from fractal_mesospim_shading.jobs.work import Part, Work
from fractal_mesospim_shading.options.flatfield import FlatfieldOptions
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
