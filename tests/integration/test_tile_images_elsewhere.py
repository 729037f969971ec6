"""Images with several channels and time points in an archive and in remote stores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.core import url_to_fs

from fractal_mesospim_shading import correct_flatfield, import_mesospim
from fractal_mesospim_shading.images.native.collection import TileCollection
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings
from tests.support.bucket import served_bucket
from tests.support.tile_images import write_tile_images

SETTINGS = SyntheticSettings(tile_shape=(20, 28), chunks=(4, 16, 16), levels=2)
LASERS = ("561 nm", "488 nm")
SIGNS = {"sign_x": -1, "sign_y": -1}
NAME = "brain.ome.zarr"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]


@pytest.fixture(params=["0.4", "0.5"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two time points, the second one stopped after the first channel of the first tile."""
    settings = replace(SETTINGS, version=request.param)
    return write_tile_images(
        tmp_path / "data",
        NAME,
        grid_stacks(1, 2, settings, lasers=LASERS, overlap_px=6),
        settings,
        times=[replace(settings, seed=seed) for seed in (1, 2)],
        unwritten=[(1, 0, LASERS[1]), *((1, 1, laser) for laser in LASERS)],
    )


@pytest.fixture
def models(tmp_path: Path) -> str:
    x = np.linspace(-0.3, 0.3, 28)[None, :] * np.ones((20, 1))
    for number, laser in enumerate(LASERS):
        folder = tmp_path / "models" / laser
        folder.mkdir(parents=True)
        np.savez(folder / "profiles.npz", flatfield=1 + (number + 1) * x, darkfield=100.0)
    return str(tmp_path / "models")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    url = f"memory://{tmp_path.name}"
    yield url, {}
    filesystem, path = url_to_fs(url)
    filesystem.rm(path, recursive=True)


@pytest.fixture
def bucket() -> Iterator[tuple[str, dict[str, Any]]]:
    """A bucket of a local S3 server."""
    with served_bucket("native") as served:
        yield served


def _files(url: str, options: dict[str, Any]) -> dict[str, bytes]:
    filesystem, path = url_to_fs(url, **options)
    filesystem.invalidate_cache()
    root = path.rstrip("/")
    return {name[len(root) + 1 :]: filesystem.cat_file(name) for name in filesystem.find(root)}


def _described(address: str, options: dict[str, Any]) -> list[Any]:
    collection = TileCollection.open(address, options)
    return [
        collection.warnings,
        [replace(stack, fingerprint="") for stack in collection.stacks],
        [(mosaic.shape, mosaic.places, mosaic.notes) for mosaic in collection.mosaics()],
    ]


@pytest.mark.parametrize("place", ["memory", pytest.param("bucket", marks=pytest.mark.server)])
def test_a_remote_acquisition(
    local: Path, models: str, place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if place == "bucket" and not (local / "zarr.json").exists():
        pytest.skip("one version is enough for a slow server")
    url, options = request.getfixturevalue(place)
    filesystem, root = url_to_fs(url, **options)
    for file in local.parent.rglob("*"):
        if file.is_file():
            name = file.relative_to(local.parent).as_posix()
            filesystem.pipe_file(f"{root}/data/{name}", file.read_bytes())
    container = f"{url}/data/{NAME}"
    assert _described(container, options) == _described(str(local), {})
    given = {"models_folder": models, "storage_options": options or None}
    here = correct_flatfield(str(local), models_folder=models).image_url
    there = correct_flatfield(container, **given).image_url
    assert there == f"{url}/data/brain_flatfield_corr.ome.zarr"
    assert _files(there, options) == _files(here, {})
    name = Path(here).name
    texts = {path.name: path.read_bytes() for path in local.parent.glob(f"{name}_*_meta.txt")}
    texts |= {p.name: p.read_bytes() for p in local.parent.glob("brain_flatfield_corr*_meta.txt")}
    assert len(texts) == 5
    found = _files(f"{url}/data", options)
    assert {name: found.get(name) for name in texts} == texts
    (one,) = import_mesospim(str(local), str(tmp_path / "out"), **SIGNS)
    (other,) = import_mesospim(container, f"{url}/out", storage_options=options or None, **SIGNS)
    assert _files(other.image_url, options) == _files(one.image_url, {})


@pytest.mark.parametrize("layout", ["tile images", "stacks"])
def test_an_archive(local: Path, models: str, tmp_path: Path, tree: Any, layout: str) -> None:
    if layout == "stacks":
        stacks = grid_stacks(1, 2, SETTINGS, lasers=LASERS, overlap_px=6)
        version = "0.5" if (local / "zarr.json").exists() else "0.4"
        settings = replace(SETTINGS, version=version, xml=version == "0.4")
        local = write_acquisition(tmp_path / "stacks", NAME, stacks, settings)
    shutil.make_archive(str(tmp_path / "packed"), "zip", local.parent)
    container = str(tmp_path / "packed.zip" / NAME)
    assert _described(container, {}) == _described(str(local), {})
    here = correct_flatfield(str(local), models_folder=models).image_url
    there = correct_flatfield(
        container, models_folder=models, output_folder=str(tmp_path / "corrected")
    ).image_url
    assert tree(Path(there)) == tree(Path(here))
    (one,) = import_mesospim(str(local), str(tmp_path / "one"), **SIGNS)
    (other,) = import_mesospim(container, str(tmp_path / "other"), **SIGNS)
    assert tree(Path(other.image_url)) == tree(Path(one.image_url))
