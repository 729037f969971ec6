"""Which room may import what: ARCHITECTURE, section 1."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fractal_mesospim_shading

PACKAGE = Path(fractal_mesospim_shading.__file__).parent
NAME = "fractal_mesospim_shading"

# What a room must not import; everything else of the package it may.
FORBIDDEN = {
    "core": {"zarr", "dask", "distributed", "pydantic", "logging", "matplotlib", "anndata"},
    "images": {"dask", "distributed", "pydantic", "matplotlib", "numba"},
    "report": {"zarr", "dask", "distributed", "pydantic", "anndata"},
    "compute": {"zarr.storage", "anndata", "matplotlib", "basicpy"},
}
DOORS = {"tasks", "cli", "__init__", "__main__", "dev"}


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).with_suffix("").as_posix(), path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            if node.module == NAME:
                yield from (f"{NAME}.{alias.name}" for alias in node.names)


def _room(module: str) -> str:
    return module.split("/")[0]


MODULES = dict(_modules())


@pytest.mark.parametrize("module", MODULES)
def test_one_direction_of_walking(module):
    room, found = _room(module), set(_imports(MODULES[module]))
    own = {name.split(".")[1] for name in found if name.startswith(f"{NAME}.")}
    libraries = {name.split(".")[0] for name in found}
    if room == "core":
        assert own <= {"core", "errors", "messages"}
        assert not libraries & FORBIDDEN["core"]
        if "basic" not in module:
            assert "basicpy" not in libraries
    if room == "images":
        assert own <= {"core", "errors", "images", "allocation", "messages"}
        assert not libraries & FORBIDDEN["images"]
    if room == "report":
        assert own <= {"core", "errors", "report", "messages"}
        assert not libraries & FORBIDDEN["report"]
    if room in ("allocation", "messages"):
        assert not own
    if room in ("errors", "params", "background_params"):
        assert own <= {"errors", "params", "messages", "validation"}
        assert not libraries & {"numpy", "zarr", "dask", "scipy"}
    if room not in DOORS:
        assert not own & {"tasks", "cli", "dev"}, "a room looks out of its door"
    if room not in ("synthetic_native", "synthetic_images", "synthetic_native_table", "demo"):
        assert not {name for name in own if name.startswith("synthetic")}


def test_heavy_libraries_are_imported_where_they_are_used():
    """`import fractal_mesospim_shading` and `--help` load none of them."""
    import subprocess
    import sys

    heavy = ["zarr", "dask", "distributed", "scipy", "numba", "anndata", "matplotlib", "jax", "cv2"]
    code = (
        "import sys, fractal_mesospim_shading;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_names_and_sizes_of_functions(module):
    assert not {"utils", "helpers", "common", "manager"} & set(module.split("/"))
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 75, node.name


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of several words that are no docstrings, the literal parts of f-strings joined."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        if isinstance(node, ast.JoinedStr):
            skipped.update(part for part in node.values if isinstance(part, ast.Constant))
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.lineno, node.value


@pytest.mark.parametrize("module", MODULES)
def test_messages_name_options_between_backticks(module):
    """The doors render these, and nothing else: see `messages`."""
    import re

    import fractal_mesospim_shading.background_params
    import fractal_mesospim_shading.preview  # noqa: F401
    from fractal_mesospim_shading.messages import known_options

    bare = sorted(name for name in known_options() if "_" in name)
    named = re.compile(rf"(?<![\w`/.{{'-])({'|'.join(bare)})(?![\w`/}}'])(?!\.\w)")
    for line, text in _texts(MODULES[module]):
        if " " not in text:
            continue
        found = named.search(text)
        assert not found, f"{module}:{line}: write `{found and found[1]}` between backticks"
        if module in ("params", "background_params"):
            continue  # Descriptions, which are Markdown.
        for inner in re.findall(r"`([a-z][a-z0-9_]*)(?:=[^`\s]+)?`", text):
            assert inner in known_options(), f"{module}:{line}: `{inner}` is no option"
