"""Attributes of images as they are, and as they should not be."""

from __future__ import annotations

from typing import Any

import pytest

from fractal_mesospim_shading.errors import ImageFormatError
from fractal_mesospim_shading.images.metadata import parse_metadata
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


@pytest.mark.parametrize("path", ["../0", "/etc", "a/../../b", "a\\b", "C:0", ""])
def test_paths_of_levels_that_lead_out_of_the_image(path: str) -> None:
    content = attributes()
    content["multiscales"][0]["datasets"][0]["path"] = path
    with pytest.raises(ImageFormatError, match="holds the name"):
        parse(content)
    content["multiscales"][0]["datasets"][0]["path"] = "0/"
    assert parse(content).paths[0] == "0"
