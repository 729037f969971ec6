"""Programs that read OME-Zarr open the stacks of corrected acquisitions as those of the microscope.

A container is a folder of images, which none of these programs opens as a whole, neither the
microscope's nor ours; each of its stacks is an image of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.interop.test_readers import PROGRAMS, digest, levels_of, version_of
from tests.support.environments import answer_of
from tests.support.results import (
    FORMS,
    GRID,
    LASERS,
    PIXEL_UM,
    PLANES,
    STEP_UM,
    TILE,
    write_container_results,
)

TASKS = ("flat-field", "background", "both")
each_result = pytest.mark.parametrize(
    "name", [f"{form}, {task}" for form in FORMS for task in TASKS]
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stacks(tmp_path_factory) -> Mapping[str, list[tuple[Path, Path]]]:
    """Each stack as the microscope wrote it, and corrected, by form and task."""
    containers = write_container_results(tmp_path_factory.mktemp("containers"))
    found = {}
    for name, (source, result) in containers.items():
        groups = sorted(zarr.open_group(source, mode="r").group_keys())
        assert groups == sorted(zarr.open_group(result, mode="r").group_keys())
        assert len(groups) == GRID[0] * GRID[1] * len(LASERS)
        found[name] = [(source / group, result / group) for group in groups]
    return found


def _asked(
    readers: Path, program: str, stacks: Mapping[str, list[tuple[Path, Path]]], **how: Any
) -> Any:
    """The answers of a program on two stacks of each container, raw and corrected."""
    urls = {str(path) for own in stacks.values() for pair in (own[0], own[-1]) for path in pair}
    return answer_of(readers, PROGRAMS / program, *sorted(urls), **how)


@pytest.fixture(scope="module")
def by_ngio(readers, stacks):
    return _asked(readers, "read_ngio_stacks.py", stacks)


@pytest.fixture(scope="module")
def by_napari(readers, stacks):
    return _asked(readers, "read_napari.py", stacks)


@pytest.fixture(scope="module")
def by_ome_zarr(readers, stacks):
    return _asked(readers, "read_ome_zarr.py", stacks, silent=False)


@each_result
def test_ngio_reads_every_level(name, by_ngio, stacks):
    for raw, corrected in (stacks[name][0], stacks[name][-1]):
        found, levels = by_ngio[str(corrected)], levels_of(corrected)
        assert list(found) == list(levels)
        for level, (path, array) in enumerate(levels.items()):
            seen = found[path]
            assert seen["shape"] == [PLANES, *(side >> level for side in TILE)]
            assert seen["dtype"] == str(array.dtype)
            size = PIXEL_UM * 2**level
            np.testing.assert_allclose(seen["pixel_size"], [STEP_UM, size, size], rtol=1e-9)
            assert seen["pixel_size"] == by_ngio[str(raw)][path]["pixel_size"]
            assert seen["digest"] == digest(array[...])
            assert seen["digest"] != by_ngio[str(raw)][path]["digest"]


@each_result
def test_layers_of_napari_are_those_of_the_raw_stack(name, by_napari, stacks):
    for raw, corrected in (stacks[name][0], stacks[name][-1]):
        [before], [after] = by_napari[str(raw)], by_napari[str(corrected)]
        assert after["digest"] == digest(levels_of(corrected)["0"][...])
        for key in ("kind", "name", "scale", "units", "colour", "shapes"):
            assert after[key] == before[key]
        assert after["kind"] == "image"
        assert after["shapes"][0] == [PLANES, *TILE]


@each_result
def test_ome_zarr_and_its_models_take_a_stack_for_an_image(name, by_ome_zarr, stacks):
    home = f"ome_zarr_models.v{version_of(name).replace('.', '')}"
    for raw, corrected in (stacks[name][0], stacks[name][-1]):
        before, after = by_ome_zarr[str(raw)], by_ome_zarr[str(corrected)]
        assert after["models"] == {"": f"{home}.image.Image"}
        assert after["info"][0] == f"{corrected} [zgroup]"
        assert after["info"][1:] == before["info"][1:]
        assert f"   - {(PLANES, *TILE)}" in after["info"]


def test_tensorstore_reads_every_level_of_every_stack(readers, stacks):
    arrays = {
        str(corrected / path): array
        for own in stacks.values()
        for _, corrected in own
        for path, array in levels_of(corrected).items()
    }
    found = answer_of(readers, PROGRAMS / "read_tensorstore.py", *arrays)
    assert found == {
        url: {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "digest": digest(array[...]),
        }
        for url, array in arrays.items()
    }
