"""Attributes of images as they are, and as they should not be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.metadata import (
    axis_names,
    converted_attributes,
    first_pyramid_only,
    parse_metadata,
    refuse_duplicate_labels,
    result_attributes,
    unusual_forms,
)
from fractal_mesospim_shading.images.source import Channel


def attributes(axes: str = "czyx", /, **multiscale: Any) -> dict[str, Any]:
    scale = {"t": 1.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.25}
    entry = {
        "version": "0.4",
        "axes": [{"name": a, "unit": "micrometer"} if a in "zyx" else {"name": a} for a in axes],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale[a] * 2**level for a in axes]},
                    {"type": "translation", "translation": [0.0] * len(axes)},
                ],
            }
            for level in range(2)
        ],
    }
    return {"multiscales": [{**entry, **multiscale}]}


def parse(content: dict[str, Any], zarr_format: int = 2) -> Any:
    return parse_metadata(content, zarr_format, "image.zarr")


@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "czyx", "tyx", "tzyx", "tcyx", "tczyx"])
def test_axes_that_are_read(axes: str) -> None:
    found = parse(attributes(axes))
    assert found.axes == axes
    assert found.version == "0.4"
    assert found.paths == ("0", "1")
    assert found.scales[1][-2:] == (1.0, 0.5)
    sizes = {"y": 0.5, "x": 0.25} | ({"z": 2.0} if "z" in axes else {})
    assert found.pixel_size_um() == sizes


@pytest.mark.parametrize("axes", ["xy", "zcyx", "ctyx", "cyxz", "x", "zyxc", "yyx", ""])
def test_axes_that_are_refused(axes: str) -> None:
    scale = [1.0] * len(axes)
    content = attributes(
        "yx",
        axes=[{"name": a} for a in axes],
        datasets=[{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    )
    with pytest.raises(ImageFormatError, match="axes"):
        parse(content)


def test_version_05_lies_under_ome() -> None:
    content = attributes()
    content["multiscales"][0].pop("version")
    content["omero"] = {"channels": [{"label": "A"}]}
    found = parse({"ome": {"version": "0.5", **content}, "other": 1}, 3)
    assert found.version == "0.5"
    assert found.channel_names == (("A", None),)


@pytest.mark.parametrize("version", ["0.1", "0.3", "0.6", "latest"])
def test_other_versions_are_named(version: str) -> None:
    with pytest.raises(ImageFormatError, match=f"version {version}; expected 0.4 or 0.5"):
        parse(attributes(version=version))


def test_scale_of_the_whole_image_multiplies() -> None:
    common = [{"type": "scale", "scale": [1.0, 10.0, 2.0, 4.0]}]
    found = parse(attributes(coordinateTransformations=common))
    assert found.scales == ((1.0, 20.0, 1.0, 1.0), (2.0, 40.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("micrometer", 1.0), ("nanometer", 1e-3), ("millimeter", 1e3), (None, 1.0)],
)
def test_units_become_micrometers(unit: str | None, factor: float) -> None:
    axes = [{"name": "y", "unit": unit}, {"name": "x", "unit": unit}]
    found = parse(attributes("yx", axes=axes))
    assert found.pixel_size_um() == pytest.approx({"y": 0.5 * factor, "x": 0.25 * factor})


@pytest.mark.parametrize(
    "scale",
    [
        [1, 2, 3],
        [1, 1, 0, 1],
        [1, 1, -1, 1],
        [1, 1, None, 1],
        [1, 1, float("nan"), 1],
        [1, 1, float("inf"), 1],
        [1, 1, 1e-320, 1],
        [1, 1e308, 1, 1],
        [1, 1, 10**400, 1],
        3,
    ],
)
def test_scales_that_make_no_sense(scale: Any) -> None:
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    with pytest.raises(ImageFormatError, match="scale"):
        parse(attributes(datasets=datasets))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_translations_have_to_be_finite(value: float) -> None:
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0, 1.0]}

    def read(shift: float) -> None:
        moved = {"type": "translation", "translation": [0, 0, 0, shift]}
        parse(attributes(datasets=[{"path": "0", "coordinateTransformations": [scale, moved]}]))
        parse(attributes(coordinateTransformations=[scale, moved]))

    read(-3.5)
    with pytest.raises(ImageFormatError, match="translation.*finite"):
        read(value)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"multiscales": []},
        {"multiscales": "x"},
        {"multiscales": ["x"]},
        {"multiscales": [{"version": "0.4", "axes": ["y", "x"]}]},
        attributes(datasets=[]),
        attributes(datasets=[{"coordinateTransformations": []}]),
        attributes(datasets=[{"path": "0"}]),
        {**attributes(), "omero": {"channels": "DAPI"}},
    ],
)
def test_incomplete_metadata(content: dict[str, Any]) -> None:
    with pytest.raises(ImageFormatError, match=r"image\.zarr"):
        parse(content)


def test_channels_and_their_names() -> None:
    omero = {"channels": [{"label": "DAPI", "wavelength_id": "A01"}, {"wavelength_id": "A02"}, {}]}
    found = parse({**attributes(), "omero": omero})
    assert found.channels((4, 1, 8, 8)) == (
        Channel(0, "DAPI", "A01"),
        Channel(1, "A02", "A02"),
        Channel(2, "channel_2", None),
        Channel(3, "channel_3", None),
    )
    assert parse(attributes("zyx")).channels((1, 8, 8)) == (Channel(0, "channel_0", None),)


def test_wrong_numbers_of_channels() -> None:
    found = parse({**attributes(), "omero": {"channels": [{"label": "A"}, {"label": "B"}]}})
    with pytest.raises(ImageFormatError, match="name 2 channels, but the image holds 1"):
        found.channels((1, 1, 8, 8))
    with pytest.raises(ImageFormatError, match="no channel"):
        found.channels((0, 1, 8, 8))


def test_duplicate_labels_are_listed_with_their_indices() -> None:
    channels = [Channel(0, "A"), Channel(1, "B"), Channel(2, "A")]
    with pytest.raises(ImageFormatError, match=r"'A' \(0, 2\)"):
        refuse_duplicate_labels(channels, "image.zarr")
    refuse_duplicate_labels(channels[:2], "image.zarr")


def test_conversion_between_versions_and_back() -> None:
    old = {
        "multiscales": [
            {
                "version": "0.4",
                "axes": [{"name": "y"}, {"name": "x"}],
                "datasets": [{"path": "0"}],
            }
        ],
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
        "multiscales": [{**attributes()["multiscales"][0], "version": "0.4"}] * 2,
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
    old = {**attributes(), "omero": omero}
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


def test_lines_about_unusual_forms() -> None:
    plain = result_attributes(attributes(), 2, 2)
    assert unusual_forms(plain, 2) == ()
    odd = {**attributes(), "omero": ["x"]}
    for axis in odd["multiscales"][0]["axes"][1:]:
        axis["type"] = "space"
    first, second = unusual_forms(odd, 2)
    assert "The axes c of the source have no type" in first
    assert "'omero' is a list" in second
    windows = {"channels": [{"window": "x"}, {"window": None}, {}, {"window": {"start": 1}}]}
    (line,) = unusual_forms({**plain, "omero": windows}, 2)
    assert "channels 0 are no objects" in line


def test_companions_list_the_first_pyramid_alone() -> None:
    given = {"multiscales": [1, 2], "x": 3}
    assert first_pyramid_only(given, 2) == {"multiscales": [1], "x": 3}
    nested = {"ome": {"version": "0.5", **given}}
    assert first_pyramid_only(nested, 3)["ome"] == {"version": "0.5", "multiscales": [1], "x": 3}


@pytest.mark.parametrize("path", ["../0", "/etc", "a/../../b", "a\\b", "C:0", ""])
def test_paths_of_levels_that_lead_out_of_the_image(path: str) -> None:
    content = attributes()
    content["multiscales"][0]["datasets"][0]["path"] = path
    with pytest.raises(ImageFormatError, match="holds the name"):
        parse(content)
    content["multiscales"][0]["datasets"][0]["path"] = "0/"
    assert parse(content).paths[0] == "0"
