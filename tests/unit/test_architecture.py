"""The rooms of the package: which there are, what each may import, and how large one may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fractal_mesospim_shading

PACKAGE = Path(fractal_mesospim_shading.__file__).parent
NAME = "fractal_mesospim_shading"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("errors",),
    ("core",),
    ("core/flatfield", "core/background"),
    ("core/overlaps", "core/emptiness"),
    ("options", "images/storage"),
    ("images/arrays",),
    ("images",),
    ("images/carrying", "images/models", "images/native"),
    ("engine",),
    ("overlaps",),
    ("flatfield", "local_background"),
    ("views",),
    ("jobs",),
    ("synthetic",),
    ("tasks", "cli", "functions", "dev"),
    ("__init__",),
    ("__main__",),
)
"""The rooms, lowest floor first. A module imports from its own room and from lower floors.

A module is in the room of its folder; the few at the top are a room each.
"""

LIBRARIES = {
    "click": {"cli"},
    "pydantic": {"options", "core/background", "tasks", "dev", "cli"},
    "zarr": {
        "engine",
        "images",
        "images/storage",
        "images/arrays",
        "images/carrying",
        "images/models",
        "images/native",
        "synthetic",
    },
    "anndata": {"images"},
    "dask": {"engine"},
    "distributed": {"engine"},
    "dask_jobqueue": {"engine"},
    "matplotlib": {"views", "core", "flatfield"},
    "PIL": {"views"},
    "basicpy": {"core/flatfield"},
    "numba": {"core", "core/flatfield", "core/background"},
    "logging": {
        "images",
        "images/storage",
        "images/arrays",
        "images/carrying",
        "images/models",
        "images/native",
        "engine",
        "overlaps",
        "flatfield",
        "local_background",
        "views",
        "jobs",
        "options",
        "synthetic",
        "tasks",
        "cli",
        "messages",
        "__init__",
    },
}
"""Which rooms may import a library that has its place."""

PICTURED = ("core/profile", "core/profile_picture", "flatfield/models")

MOST_LINES = 350
MOST_FILES = 25
MOST_FILES_AT_THE_TOP = 12


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).with_suffix("").as_posix(), path


MODULES = dict(_modules())


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports, wherever in it; modules of ours by their own name."""
    yield from _names(ast.parse(path.read_text()))


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                if (node.module, alias.name) == (NAME, "__version__"):
                    continue  # A number that the package has before it imports anything.
                inner = f"{node.module}.{alias.name}"
                yield inner if _module(inner) in MODULES else node.module or ""


def _imports_when_loaded(path: Path) -> Iterator[str]:
    """Those of the names that are imported before anything is called."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    yield from _names(tree)


def _module(dotted: str) -> str:
    """The module of a dotted name as a path below the package."""
    path = dotted.removeprefix(NAME).lstrip(".").replace(".", "/")
    return path if path in MODULES else f"{path}/__init__".lstrip("/")


def _room(module: str) -> str:
    folder, _, name = module.rpartition("/")
    return folder or name


def _floor(module: str) -> int:
    floors = [number for number, rooms in enumerate(FLOORS) if _room(module) in rooms]
    assert len(floors) == 1, f"{module} belongs to no room: see FLOORS"
    return floors[0]


def _upwards(module: str) -> set[tuple[str, str]]:
    own = {_module(name) for name in _imports(MODULES[module]) if name.split(".")[0] == NAME}
    return {
        (module, other)
        for other in own - {module}
        if _room(other) != _room(module) and _floor(other) >= _floor(module)
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_room_and_from_lower_floors(module):
    assert not _upwards(module)


def test_modules_of_a_room_import_each_other_in_no_circle():
    """When they are loaded; what a function imports when it is called may lead back."""
    left = {
        module: {_module(name) for name in _imports_when_loaded(path)} & MODULES.keys() - {module}
        for module, path in MODULES.items()
        if not module.endswith("__init__")
    }
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("module", MODULES)
def test_libraries_have_their_place(module):
    libraries = {name.split(".")[0] for name in _imports(MODULES[module])}
    outside = {
        name for name in libraries & LIBRARIES.keys() if _room(module) not in LIBRARIES[name]
    }
    assert not outside
    if "basicpy" in libraries:
        assert "basic" in module
    if "matplotlib" in libraries and _room(module) != "views":
        # A profile shows itself; what it takes is the type of what it draws into.
        assert module in PICTURED
    if _room(module) in ("messages", "errors"):
        assert libraries <= {*sys.stdlib_module_names, NAME}
    if _room(module) == "options":
        assert not libraries & {"numpy", "dask", "scipy"}


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}))
def test_a_room_can_be_seen_at_a_glance(folder):
    files = sorted(folder.glob("*.py"))
    assert len(files) <= MOST_FILES
    assert (folder / "__init__.py") in files
    if folder == PACKAGE:
        assert len(files) <= MOST_FILES_AT_THE_TOP


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module):
    assert len(MODULES[module].read_text().splitlines()) <= MOST_LINES


def test_heavy_libraries_are_imported_where_they_are_used():
    """`import fractal_mesospim_shading` and `--help` load none of them."""
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

    import fractal_mesospim_shading.jobs.checking
    import fractal_mesospim_shading.jobs.finding
    import fractal_mesospim_shading.options.background
    import fractal_mesospim_shading.options.flatfield
    import fractal_mesospim_shading.views.preview  # noqa: F401
    from fractal_mesospim_shading.messages import known_options

    bare = sorted(name for name in known_options() if "_" in name)
    named = re.compile(rf"(?<![\w`/.{{'-])({'|'.join(bare)})(?![\w`/}}'])(?!\.\w)")
    for line, text in _texts(MODULES[module]):
        if " " not in text:
            continue
        found = named.search(text)
        assert not found, f"{module}:{line}: write `{found and found[1]}` between backticks"
        if _room(module) in ("options", "core/background"):
            continue  # Descriptions, which are Markdown.
        for inner in re.findall(r"`([a-z][a-z0-9_]*)(?:=[^`\s]+)?`", text):
            assert inner in known_options(), f"{module}:{line}: `{inner}` is no option"
