"""Programs that read OME-Zarr open what every task writes, and see what plain zarr sees."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.support.environments import answer_of
from tests.support.results import (
    FORMS,
    GRID,
    LASERS,
    PIXEL_UM,
    PLANES,
    STEP_UM,
    TILE,
    label_pixels,
    tile_corners,
)

PROGRAMS = Path(__file__).parent / "programs"
TASKS = ("flat-field", "background", "both", "import", "import with both")
RESULTS = (*(f"{form}, {task}" for form in FORMS for task in TASKS), "0.4 to 0.5, flat-field")
SHAPE = (len(LASERS), PLANES, GRID[0] * TILE[0], GRID[1] * TILE[1])

each_result = pytest.mark.parametrize("name", RESULTS)


def digest(pixels: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def content_of(image: Path) -> dict[str, Any]:
    """The attributes of NGFF, in either version."""
    attributes: dict[str, Any] = dict(zarr.open_group(image, mode="r").attrs)
    return dict(attributes.get("ome", attributes))


def levels_of(image: Path) -> dict[str, Any]:
    """The arrays of an image's levels, by their path."""
    [multiscale] = content_of(image)["multiscales"]
    group = zarr.open_group(image, mode="r")
    return {dataset["path"]: group[dataset["path"]] for dataset in multiscale["datasets"]}


def is_labelled(name: str) -> bool:
    """Whether a result comes from a mosaic with labels, which it has to carry along."""
    return "import" not in name


def version_of(name: str) -> str:
    return "0.4" if name.startswith("0.4, ") else "0.5"


def asked(readers: Path, program: str, written: Mapping[str, Path], *more: Any, **how: Any) -> Any:
    """The answers of a program on all results, by their name."""
    found = answer_of(readers, PROGRAMS / program, *more, *written.values(), **how)
    return {name: found[str(path)] for name, path in written.items()}


@pytest.fixture(scope="module")
def by_ngio(readers, written, tmp_path_factory):
    return asked(readers, "read_ngio.py", written, tmp_path_factory.mktemp("ngio"))


@pytest.fixture(scope="module")
def by_ome_zarr(readers, written):
    # It logs a warning of its own for each image of version 0.4: it asks for 0.5 first.
    return asked(readers, "read_ome_zarr.py", written, silent=False)


@pytest.fixture(scope="module")
def by_napari(readers, written):
    return asked(readers, "read_napari.py", written)


def test_the_list_is_that_of_the_results(written):
    assert set(RESULTS) == set(written)


@each_result
def test_ngio_reads_every_level(name, by_ngio, written):
    found = by_ngio[name]
    assert found["channels"] == list(LASERS)
    levels = levels_of(written[name])
    assert list(found["levels"]) == list(levels)
    for level, (path, array) in enumerate(levels.items()):
        seen = found["levels"][path]
        assert seen["shape"] == [*SHAPE[:2], *(n >> level for n in SHAPE[2:])]
        assert seen["dtype"] == str(array.dtype)
        size = PIXEL_UM * 2**level
        np.testing.assert_allclose(seen["pixel_size"], [STEP_UM, size, size], rtol=1e-9)
        assert seen["digest"] == digest(array[...])


@each_result
def test_ngio_opens_tables_and_labels(name, by_ngio):
    found = by_ngio[name]
    tiles = found["tables"]["FOV_ROI_table"].values()
    boxes = [[(round(start, 6), round(length, 6)) for start, length in tile] for tile in tiles]
    expected = [[(0, PLANES), (y, TILE[0]), (x, TILE[1])] for y, x in tile_corners()]
    assert sorted(boxes) == sorted(expected)
    [whole] = found["tables"]["well_ROI_table"].values()
    np.testing.assert_allclose(whole, [(0, n) for n in SHAPE[1:]], atol=1e-6)
    assert found["labels"] == ({"nuclei": digest(label_pixels())} if is_labelled(name) else {})


@each_result
def test_iterators_of_ngio_run_over_the_tiles(name, by_ngio, written):
    found = by_ngio[name]
    pixels = np.asarray(levels_of(written[name])["0"][...])
    corners = [(round(y[0]), round(x[0])) for _, y, x in found["tables"]["FOV_ROI_table"].values()]
    boxes = [(slice(y, y + TILE[0]), slice(x, x + TILE[1])) for y, x in corners]
    assert found["by_tile"] == [digest(pixels[:, :, y, x]) for y, x in boxes]
    # Tiles that are written one after the other, with nothing left out and nothing twice.
    assert found["copied_by_tile"] == digest(pixels)
    if is_labelled(name):
        labels = label_pixels()
        expected = [np.unique(labels[:, y, x]).tolist() for y, x in boxes]
        assert found["labels_by_tile"] == expected


@each_result
def test_ome_zarr_info(name, by_ome_zarr, written):
    said = by_ome_zarr[name]["info"]
    image = said[: next((i for i, line in enumerate(said[1:], 1) if "zgroup" in line), len(said))]
    levels = levels_of(written[name]).values()
    assert image == [
        f"{written[name]} [zgroup]",
        f" - version: {version_of(name)}",
        " - metadata",
        "   - Multiscales",
        "   - OMERO",
        " - data",
        *(f"   - {level.shape}" for level in levels),
    ]
    assert any("labels/nuclei" in line for line in said) == is_labelled(name)


@each_result
def test_ome_zarr_models_validates(name, by_ome_zarr, written):
    home = f"ome_zarr_models.v{version_of(name).replace('.', '')}"
    expected = {"": f"{home}.image.Image"}
    if is_labelled(name):
        expected["labels"] = f"{home}.labels.Labels"
        expected["labels/nuclei"] = f"{home}.image_label.ImageLabel"
    assert by_ome_zarr[name]["models"] == expected
    # Each version says in its own place which it is: 0.4 within, 0.5 once at the top.
    content = content_of(written[name])
    parts = [content["omero"], *content["multiscales"]]
    if version_of(name) == "0.4":
        assert [part["version"] for part in parts] == ["0.4"] * len(parts)
        assert "version" not in content
    else:
        assert content["version"] == "0.5"
        assert not any("version" in part for part in parts)


@each_result
def test_layers_of_napari(name, by_napari, written):
    layers = by_napari[name]
    images = [layer for layer in layers if layer["kind"] == "image"]
    levels = levels_of(written[name])
    channels = content_of(written[name])["omero"]["channels"]
    assert len(images) == len(channels) == len(LASERS)
    for i, (layer, channel, laser) in enumerate(zip(images, channels, LASERS, strict=True)):
        assert layer["name"].endswith(laser)
        assert layer["scale"] == [STEP_UM, PIXEL_UM, PIXEL_UM]
        assert layer["units"] == ["micrometer"] * 3
        assert layer["window"] == [channel["window"]["start"], channel["window"]["end"]]
        assert layer["window"][0] < layer["window"][1]
        colour = [int(channel["color"][k : k + 2], 16) / 255 for k in (0, 2, 4)]
        np.testing.assert_allclose(layer["colour"], [*colour, 1], atol=1e-6)
        assert layer["shapes"] == [list(level.shape[1:]) for level in levels.values()]
        assert layer["digest"] == digest(levels["0"][i])
    masks = [layer for layer in layers if layer["kind"] == "labels"]
    assert [layer["digest"] for layer in masks] == (
        [digest(label_pixels())] if is_labelled(name) else []
    )


def test_tensorstore_reads_every_level(readers, written):
    arrays = {
        str(image / path): array
        for image in written.values()
        for path, array in levels_of(image).items()
    }
    found = answer_of(readers, PROGRAMS / "read_tensorstore.py", *arrays)
    for url, array in arrays.items():
        assert found[url] == {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "digest": digest(array[...]),
        }
