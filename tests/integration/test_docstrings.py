"""The examples in public docstrings run as they stand; `docs/api.md` says on what."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from fractal_mesospim_shading.synthetic.demo import write_mosaic
from fractal_mesospim_shading.synthetic.world import LightSheetWorld
from tests.support.acquisition import grid_stacks, write_acquisition
from tests.support.acquisition_table import SyntheticSettings

PACKAGE = "fractal_mesospim_shading"
API = Path(__file__).parents[2] / "docs" / "api.md"

WORLD = LightSheetWorld(tile_shape=(96, 96), planes=12, sample_radius=0.4)


def documented() -> list[str]:
    """The functions and classes that the page of the API shows, by their full names."""
    names, module = [], ""
    for kind, name in re.findall(r"^\.\. (\w+):: ([\w.]+)", API.read_text("utf-8"), re.MULTILINE):
        if kind == "currentmodule":
            module = name
        else:
            names.append(name if name.startswith(PACKAGE) else f"{module}.{name}")
    return names


def _named(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def examples() -> Iterator[doctest.DocTest]:
    """Of what the page shows, that which has an example."""
    for name in documented():
        for test in doctest.DocTestFinder(recurse=False).find(_named(name), name, globs={}):
            if test.examples:
                yield test


EXAMPLES = {test.name: test for test in examples()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder holds the image and the acquisition that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    write_mosaic("brain.zarr/raw_image", WORLD, ["488 nm"], chunks=(4, 96, 96))
    settings = SyntheticSettings(tile_shape=(48, 64))
    write_acquisition(tmp_path, "acquisition.ome.zarr", grid_stacks(2, 2, settings), settings)


def test_each_function_has_an_example() -> None:
    functions = {name for name in documented() if not isinstance(_named(name), type)}
    assert len(functions) > 8
    assert functions <= set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str, folder: None) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    said: list[str] = []
    runner.run(EXAMPLES[name], out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
