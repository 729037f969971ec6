"""A live Fractal server, and images where it may work."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zarr

from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from tests.support.environments import asked_for
from tests.support.fractal.environment import VARIABLE
from tests.support.fractal.server import Server, live_server

WORLD = LightSheetWorld(tile_shape=(96, 96), planes=12, sample_radius=0.4)


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with the tasks of this package."""
    if not (os.environ.get(VARIABLE) or asked_for(request.config, "server")):
        pytest.skip("a Fractal server is started when it is asked for: pytest -m server")
    with live_server(tmp_path_factory.mktemp("fractal")) as alive:
        yield alive


@pytest.fixture
def make_image(server: Server, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """`make_image(name, world)`: a mosaic within a folder of the test below the project's."""
    folder = server.project_dir / re.sub(r"\W", "_", request.node.name)

    def write(name: str = "brain", world: LightSheetWorld = WORLD) -> Path:
        path = folder / f"{name}.zarr" / "raw_image"
        path.parent.mkdir(parents=True)
        zarr.open_group(path.parent, mode="w", zarr_format=2)
        write_mosaic(path, world, ["488 nm"], chunks=(4, 96, 96))
        return path

    return write


@pytest.fixture
def image(make_image: Callable[..., Path]) -> Path:
    """A mosaic of nine tiles."""
    return make_image()
