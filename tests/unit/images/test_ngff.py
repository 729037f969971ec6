from __future__ import annotations

import json
from typing import Any

import pytest

from fractal_mesospim_shading.images.ngff import (
    axis_names,
    converted_attributes,
    first_pyramid_only,
    result_attributes,
    with_windows,
    zarr_format_of,
)

MULTISCALE = {
    "version": "0.4",
    "axes": [{"name": "y"}, {"name": "x"}],
    "datasets": [{"path": "0"}],
}


def test_conversion_between_versions_and_back() -> None:
    old = {
        "multiscales": [MULTISCALE],
        "image-label": {"version": "0.4", "colors": []},
        "mesospim": {"anything": [1, 2]},
    }
    new = converted_attributes(old, 2, 3)
    assert new == {
        "mesospim": {"anything": [1, 2]},
        "ome": {
            "version": "0.5",
            "multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}],
            "image-label": {"colors": []},
        },
    }
    assert converted_attributes(new, 3, 2) == old
    assert converted_attributes(new, 3, 3) == new
    assert converted_attributes({"labels": ["a"]}, 2, 3) == {
        "ome": {"version": "0.5", "labels": ["a"]}
    }
    assert converted_attributes({"tables": ["a"]}, 2, 3) == {"tables": ["a"]}
    assert axis_names(new) == axis_names(old) == {"0": ("y", "x")}


def test_every_version_key_of_the_old_form_goes() -> None:
    """0.5 states its version once; 0.4 in each part."""
    parts = {
        "multiscales": [MULTISCALE] * 2,
        "omero": {"version": "0.4", "channels": []},
        "image-label": {"version": "0.4"},
    }
    new = converted_attributes({**parts, "own": 1}, 2, 3)
    assert '"version": "0.4"' not in json.dumps(new)
    assert new["ome"]["version"] == "0.5"
    back = converted_attributes(new, 3, 2)
    assert back == {**parts, "own": 1}


@pytest.mark.parametrize("omero", [[], [{"channels": []}], "text", None, 5])
def test_attributes_of_odd_form_survive_a_conversion(omero: Any) -> None:
    old = {"multiscales": [MULTISCALE], "omero": omero}
    new = converted_attributes(old, 2, 3)
    assert new["ome"]["omero"] == omero
    assert converted_attributes(new, 3, 2)["omero"] == omero


def test_what_is_called_alike_inside_and_outside_of_ome_is_kept() -> None:
    old = {"ome": {"version": "0.5", "multiscales": [], "note": 1, "same": 3}, "note": 2, "same": 3}
    new = converted_attributes(old, 3, 2)
    assert new == {"multiscales": [], "note": 2, "same": 3, "ome": {"note": 1}}
    assert converted_attributes(new, 2, 3)["ome"]["note"] == 1
    assert converted_attributes({"ome": 5}, 2, 3) == {"ome": 5}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_axes_get_the_type_that_their_names_mean(zarr_format: int) -> None:
    bare = [{"name": name, "unit": "x"} for name in "tczyx"]
    bare[1]["type"] = "channel"
    content: dict[str, Any] = {"multiscales": [{"axes": bare, "datasets": []}, {"axes": bare}]}
    given = content if zarr_format == 2 else {"ome": {"version": "0.5", **content}}
    before = json.dumps(given)
    result = result_attributes(given, zarr_format, zarr_format)
    made = result if zarr_format == 2 else result["ome"]
    kinds = ["time", "channel", "space", "space", "space"]
    assert [axis["type"] for axis in made["multiscales"][0]["axes"]] == kinds
    assert [axis["unit"] for axis in made["multiscales"][0]["axes"]] == ["x"] * 5
    # A further pyramid is not ours.
    assert made["multiscales"][1] == content["multiscales"][1]
    assert json.dumps(given) == before
    assert result_attributes(result, zarr_format, zarr_format) == result


def test_companions_list_the_first_pyramid_alone() -> None:
    given = {"multiscales": [1, 2], "x": 3}
    assert first_pyramid_only(given, 2) == {"multiscales": [1], "x": 3}
    nested = {"ome": {"version": "0.5", **given}}
    assert first_pyramid_only(nested, 3)["ome"] == {"version": "0.5", "multiscales": [1], "x": 3}


def test_windows_change_and_all_else_is_kept():
    window = {"min": 0.0, "max": 255.0, "start": 3.0, "end": 9.0}
    channel = {"label": "a", "color": "FF0000", "window": {"start": 0, "end": 1, "note": "x"}}
    before = {"omero": {"id": 7, "channels": [channel]}, "multiscales": [], "mine": 1}
    after = with_windows(before, 2, [window], ["a"])
    assert after["mine"] == 1
    assert after["omero"]["id"] == 7
    assert after["omero"]["channels"] == [
        {"label": "a", "color": "FF0000", "active": True, "window": {**window, "note": "x"}}
    ]
    assert before["omero"]["channels"][0]["window"]["end"] == 1
    made = with_windows({"ome": {"multiscales": []}}, 3, [window, window], ["a", "b"])
    assert [c["label"] for c in made["ome"]["omero"]["channels"]] == ["a", "b"]
    assert all(c["active"] and len(c["color"]) == 6 for c in made["ome"]["omero"]["channels"])
    # Version 0.4 says in each part which it is; 0.5 once, for all.
    assert "version" not in made["ome"]["omero"]
    assert with_windows({"multiscales": []}, 2, [window], ["a"])["omero"]["version"] == "0.4"
    assert "version" not in after["omero"]


@pytest.mark.parametrize("window", ["x", 5, [1], None])
def test_windows_of_odd_form_are_written_anew(window):
    before = {"omero": {"channels": [{"label": "a", "color": "FF0000", "window": window}]}}
    after = with_windows(before, 2, [{"start": 1}], ["a"])
    assert after["omero"]["channels"][0]["window"] == {"start": 1}


@pytest.mark.parametrize("omero", [[], [{"channels": []}], "text", 5])
def test_an_omero_that_is_no_object_is_left_alone(omero):
    content = {"multiscales": [], "omero": omero}
    for zarr_format, before in ((2, content), (3, {"ome": content})):
        assert with_windows(before, zarr_format, [{"start": 1}], ["a"]) == before


def test_a_key_called_ome_in_an_old_image_is_none_of_ours():
    before = {"multiscales": [], "ome": {"note": 1}}
    after = with_windows(before, 2, [{"start": 1}], ["a"])
    assert after["ome"] == {"note": 1}
    assert after["omero"]["channels"][0]["window"] == {"start": 1}
    before["ome"] = 5
    assert with_windows(before, 2, [{"start": 1}], ["a"])["ome"] == 5


def test_versions():
    assert zarr_format_of("source", 2) == 2
    assert zarr_format_of("0.4", 3) == 2
    assert zarr_format_of("0.5", 2) == 3
