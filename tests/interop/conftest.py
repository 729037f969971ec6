"""Environments of other programs, and what the tasks write for them.

All of these tests run by `pytest -m interop`; they are skipped unless asked for by that mark or by
their folder, since the first run installs what is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.environments import asked_for, made_environment, newest_python
from tests.support.results import write_results

FOLDER = Path(__file__).parent
READERS = ("ngio", "napari-ome-zarr", "ome-zarr", "ome-zarr-models", "tensorstore", "tifffile")
"""They live beside each other, on today's Python."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = asked_for(config, "interop")
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.timeout(1800))
            # Environments and results are made once, so all goes to one process.
            item.add_marker(pytest.mark.xdist_group("interop"))
            if not asked:
                item.add_marker(pytest.mark.skip(reason="run when asked for: pytest -m interop"))


@pytest.fixture(scope="session")
def readers() -> Path:
    """The interpreter of an environment with `READERS`."""
    return made_environment("readers", READERS, newest_python())


@pytest.fixture(scope="session")
def stitcher() -> Path:
    """The interpreter of an environment with multiview-stitcher."""
    return made_environment("stitcher", ["multiview-stitcher"], newest_python())


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Images that the tasks have written, by form and task."""
    return write_results(tmp_path_factory.mktemp("results"))
