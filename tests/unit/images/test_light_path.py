from __future__ import annotations

import json
from typing import Any

import pytest

from fractal_mesospim_shading.images.light_path import LightPath, of_import, together

PATH = LightPath(("5x",), ("Iris",), ("left",), ("520/35",), (0.85, 0.85))


def test_facts_are_plain_and_come_back() -> None:
    facts = json.loads(json.dumps(PATH.facts()))
    assert facts == {
        "zoom": ["5x"],
        "camera": ["Iris"],
        "side": ["left"],
        "filter": ["520/35"],
        "pixel_size_um": [0.85, 0.85],
    }
    assert LightPath.from_facts(facts) == PATH
    assert LightPath().facts() == {}


@pytest.mark.parametrize(
    "content",
    [None, "5x", [], {"zoom": "5x"}, {"zoom": [5]}, {"camera": [["a"]]}, {"pixel_size_um": ["a"]}],
)
def test_what_is_nothing_of_the_kind_is_not_told(content: object) -> None:
    assert LightPath.from_facts(content) == LightPath()


@pytest.mark.parametrize("told", [LightPath(), LightPath(zoom=("5x",)), LightPath(side=("left",))])
def test_what_one_does_not_tell_is_no_difference(told: LightPath) -> None:
    assert PATH.differences(told) is None
    assert told.differences(PATH) is None


@pytest.mark.parametrize(
    ("zoom", "other", "same"),
    [
        ("5x", "5", True),
        ("5X", "5.0x", True),
        ("4x Olympus", "4x Olympu", True),
        ("50x", "5x", False),
        ("50", "5", False),
        ("4x Olympus", "4x", False),
        ("1.25x", "1.2x", False),
    ],
)
def test_zooms(zoom: str, other: str, same: bool) -> None:
    one, two = LightPath(zoom=(zoom,)), LightPath(zoom=(other,))
    expected = None if same else (f"zoom {zoom}", f"zoom {other}")
    assert one.differences(two) == expected


def test_both_are_named_with_all_that_differs() -> None:
    here = LightPath(("2x",), ("Iris 2",), ("left", "right"), ("600LP",), (2.1, 2.1))
    assert PATH.differences(here) == (
        "zoom 5x, camera Iris, illumination side left",
        "zoom 2x, camera Iris 2, illumination side left and right",
    )


def test_filter_and_pixel_size_are_carried_and_not_compared() -> None:
    assert PATH.differences(LightPath(("5x",), filter=("600LP",), pixel_size_um=(1, 1))) is None


def test_tiles_together() -> None:
    right = LightPath(("5x",), (), ("right",), (), (0.85, 0.85))
    both = together([right, PATH])
    assert both == LightPath(("5x",), ("Iris",), ("left", "right"), ("520/35",), (0.85, 0.85))
    assert together([PATH, LightPath(pixel_size_um=(1.0, 1.0))]).pixel_size_um is None


def _mark(**stack: Any) -> dict[str, Any]:
    usual = {"channel": 0, "zoom": "5x", "camera": "Iris", "side": "left", "filter": "520/35"}
    return {"task": "import_mesospim", "acquisition": {"stacks": [{**usual, **stack}]}}


def test_the_mark_of_an_import() -> None:
    assert of_import(_mark(), 0, (0.85, 0.85)) == PATH
    assert of_import(_mark(channel=1), 0, (0.85, 0.85)) == LightPath(pixel_size_um=(0.85, 0.85))
    assert of_import(_mark(side_told=False), 0, (0.85, 0.85)).side == ()


def test_a_result_of_an_import_tells_it_in_its_history() -> None:
    later = {"task": "correct_background", "history": [_mark(), {"task": "correct_flatfield"}]}
    assert of_import(later, 0, (0.85, 0.85)) == PATH


@pytest.mark.parametrize(
    "mark",
    [None, [], "mark", {"history": "x"}, {"acquisition": []}, {"acquisition": {"stacks": 1}}],
)
def test_other_marks_tell_the_pixel_size_alone(mark: object) -> None:
    assert of_import(mark, 0, (2.0, 3.0)) == LightPath(pixel_size_um=(2.0, 3.0))
