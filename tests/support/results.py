"""What the tasks write from small sources: every task, in each form of images on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fractal_mesospim_shading import correct_background, correct_flatfield, import_mesospim
from fractal_mesospim_shading.synthetic.images import write_image
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

LASERS = ("488 nm", "561 nm")
TILE = (48, 40)
GRID = (2, 2)
PLANES = 4
PIXEL_UM, STEP_UM = 2.0, 5.0

FORMS: Mapping[str, Mapping[str, Any]] = {
    "0.4": {"ngff_version": "0.4"},
    "0.5": {"ngff_version": "0.5"},
    "0.5 sharded": {"ngff_version": "0.5", "shards": (4, 32, 64)},
}
"""Forms of sources; results have that of their source."""

BACKGROUND = {"method": {"method": "median", "radius": 6}}


def tile_corners() -> list[tuple[int, int]]:
    """Corners (y, x) of the tiles of a mosaic, in the order of their numbers."""
    return [
        (row * TILE[0], column * TILE[1]) for column in range(GRID[1]) for row in range(GRID[0])
    ]


def label_pixels() -> NDArray[np.uint32]:
    """Objects in two of the tiles."""
    labels = np.zeros((PLANES, GRID[0] * TILE[0], GRID[1] * TILE[1]), np.uint32)
    labels[1:3, 5:20, 8:30] = 1
    labels[:, 60:80, 50:70] = 70_000
    return labels


def write_mosaic(path: Path, form: Mapping[str, Any]) -> Path:
    """A mosaic with tables and a label image."""
    shape = (len(LASERS), PLANES, GRID[0] * TILE[0], GRID[1] * TILE[1])
    pixels = 100 + np.random.default_rng(3).poisson(400, shape)
    style = {"chunks": (2, 16, 32), "pixel_size_um": (STEP_UM, PIXEL_UM, PIXEL_UM), **form}
    write_image(path, pixels.astype(np.uint16), channels=LASERS, tile_shape=TILE, **style)
    group = zarr.open_group(path, mode="r+")
    group.create_group("labels", attributes=_of_version(form, {"labels": ["nuclei"]}))
    write_image(path / "labels" / "nuclei", label_pixels(), axes="zyx", **style)
    attributes = dict(group["labels/nuclei"].attrs)
    of_image = {"source": {"image": "../../"}}
    if form["ngff_version"] == "0.4":
        attributes["image-label"] = {"version": "0.4", **of_image}
    else:
        attributes["ome"]["image-label"] = of_image
    group["labels/nuclei"].attrs.put(attributes)
    return path


def _of_version(form: Mapping[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    version = form["ngff_version"]
    return content if version == "0.4" else {"ome": {"version": version, **content}}


def write_container(folder: Path, form: Mapping[str, Any]) -> Path:
    """The same tiles as the microscope writes them, one image for each and each laser."""
    settings = SyntheticSettings(
        version=form["ngff_version"],
        tile_shape=TILE,
        pixel_um=PIXEL_UM,
        z_step_um=STEP_UM,
        chunks=(2, 16, 32),
        shards=form.get("shards"),
        levels=2,
    )
    rows = [
        replace(row, z_end_um=(PLANES - 1) * STEP_UM)
        for row in grid_stacks(*GRID, settings, lasers=LASERS, overlap_px=8)
    ]
    return write_acquisition(folder, "brain.ome.zarr", rows, settings)


def write_models(folder: Path) -> Path:
    """A models folder with a flat-field for each laser."""
    for i, laser in enumerate(LASERS):
        (folder / laser).mkdir(parents=True)
        profile = np.ones(TILE) * np.linspace(0.8 + 0.1 * i, 1.2 - 0.1 * i, TILE[1])
        np.savez(folder / laser / "profiles.npz", flatfield=profile)
    return folder


def write_results(folder: Path) -> dict[str, Path]:
    """The images of all tasks, by their form and task; mosaics, all of one geometry."""
    models = {"models_folder": str(write_models(folder / "models")), "camera_offset": 100.0}
    found: dict[str, Path] = {}
    for form, style in FORMS.items():
        place = folder / form.replace(" ", "_")
        source = write_mosaic(place / "brain.zarr" / "raw_image", style)
        container = write_container(place, style)
        written: dict[str, Callable[[], str]] = {
            "flat-field": lambda at=source: correct_flatfield(str(at), **models).image_url,
            "background": lambda at=source: _background(at),
            "both": lambda at=source: _both(at, models),
            "import": lambda at=container, to=place: _imported(at, to / "plain"),
            "import with both": lambda at=container, to=place: _imported(
                at, to / "corrected", correct_flatfield=True, background=BACKGROUND, **models
            ),
        }
        found |= {f"{form}, {task}": Path(write()) for task, write in written.items()}
    other = correct_flatfield(
        str(folder / "0.4" / "brain.zarr" / "raw_image"),
        output_image_name="in_0.5",
        ngff_version="0.5",
        **models,
    )
    found["0.4 to 0.5, flat-field"] = Path(other.image_url)
    return found


def write_container_results(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Acquisitions and what the corrections make of them, by their form and task."""
    models = {"models_folder": str(write_models(folder / "models")), "camera_offset": 100.0}
    found: dict[str, tuple[Path, Path]] = {}
    for form, style in FORMS.items():
        source = write_container(folder / form.replace(" ", "_"), style)
        written = {
            "flat-field": correct_flatfield(str(source), **models).image_url,
            "background": _background(source),
            "both": _both(source, models),
        }
        found |= {f"{form}, {task}": (source, Path(url)) for task, url in written.items()}
    return found


def _background(source: Path) -> str:
    return correct_background(str(source), save_background=True, **BACKGROUND).image_url


def _both(source: Path, models: dict[str, Any]) -> str:
    return correct_flatfield(str(source), background=BACKGROUND, **models).image_url


def _imported(container: Path, folder: Path, **options: Any) -> str:
    [result] = import_mesospim(str(container), str(folder), **options)
    return result.image_url
